//! `POST /session`, `DELETE /session` and `POST /session/passkey`.

use std::{fmt::Display, sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    App,
    caller::{Body, Tenant},
    problem::Problem,
    status::StatusBody,
};
use crate::{
    address::Address,
    sessions::{OpenRefused, Proxy, Snapshot, Status, Unlinked},
};

/// How long the answer waits for the first QR code.
const QR_WAIT: Duration = Duration::from_secs(2);
/// How long the answer waits for a pairing code, which takes two more round trips.
const CODE_WAIT: Duration = Duration::from_secs(10);

/// `POST /session`'s body; all of it may be left out.
#[derive(Deserialize, ToSchema)]
#[schema(as = OpenRequest)]
pub struct Open {
    /// Ask for a pairing code for this phone, instead of a QR code: its number with the country code, as in a message's
    /// `to`.
    #[schema(example = "5511999999999")]
    phone: Option<String>,
    /// Reach WhatsApp through this proxy from now on, or, if it is null, directly.
    #[serde(default, deserialize_with = "also_null")]
    #[schema(value_type = Option<String>)]
    proxy: Option<Option<String>>,
}

/// Tells a field that is null from one that is absent.
fn also_null<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(field).map(Some)
}

/// `POST /session`: creates the tenant's session or returns the one there is.
#[utoipa::path(
    post, path = "/session", tag = "Sessions",
    request_body = Option<Open>,
    responses((status = 200, description = "The session as it is.", body = StatusBody))
)]
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(body): Body<Open>,
) -> Result<Json<StatusBody>, Problem> {
    let phone = body.phone.as_deref().map(|phone| Address::parse(phone).and_then(Address::number)).transpose();
    let phone = phone.map_err(|error| Problem::bad_request("invalid_phone", error.of("phone")))?;
    let phone = phone.map(|phone| phone.usual());
    let proxy = body.proxy.map(|proxy| proxy.as_deref().map(str::parse::<Proxy>).transpose()).transpose();
    let invalid = |why: &dyn Display| Problem::bad_request("invalid_proxy", format!("`proxy`: {why}"));
    let proxy = proxy.map_err(|why| invalid(&why))?;
    if let Some(Some(proxy)) = &proxy {
        app.manager.check_proxy(proxy).map_err(|why| invalid(&why))?;
    }
    let by_code = phone.is_some();
    let session = app.manager.open(&tenant, phone, proxy).await?;
    let settled = |snapshot: &Snapshot| {
        let shown = if by_code { &snapshot.pairing_code } else { &snapshot.qr };
        let moved_on = snapshot.is_paired() || snapshot.passkey.is_some();
        shown.is_some() || moved_on || snapshot.state.status() != Status::Initializing
    };
    session.wait_until(if by_code { CODE_WAIT } else { QR_WAIT }, settled).await;
    let snapshot = session.snapshot();
    if let Some(refused) = snapshot.reason.filter(|reason| by_code && reason.code == "pairing_code_refused") {
        let (status, code) = (StatusCode::BAD_GATEWAY, "pairing_code_refused");
        let wait = snapshot.retry_at.map(|at| (at - chrono::Utc::now()).num_seconds().max(0).cast_unsigned());
        return Err(Problem::new(status, "Pairing code refused", code, refused.message).retry_after(wait));
    }
    Ok(Json(StatusBody::of(&session)))
}

/// `DELETE /session`'s answer.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionDeleted)]
pub struct Deleted {
    status: Status,
    /// Whether no phone lists this device any more.
    unlinked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// `DELETE /session`: unlinks the device at the server and deletes the session.
#[utoipa::path(
    delete, path = "/session", tag = "Sessions",
    responses((status = 200, description = "It is deleted.", body = Deleted))
)]
pub async fn delete(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Json<Deleted>, Problem> {
    if app.manager.is_closing() {
        return Err(OpenRefused::Gone.into());
    }
    let unlinked = app.manager.delete(&tenant).await?;
    let unlinked = unlinked.ok_or(Problem::session_not_found(StatusCode::NOT_FOUND))?;
    let message = (unlinked == Unlinked::NotTold).then_some(
        "The session is deleted, but WhatsApp could not be told: the phone may still list this device. Remove it there.",
    );
    Ok(Json(Deleted { status: Status::NotFound, unlinked: unlinked != Unlinked::NotTold, message }))
}

/// `POST /session/passkey`: the WebAuthn assertion that WhatsApp asked for, or `{"confirm":true}` once the person saw
/// that the phone shows the same code.
#[utoipa::path(
    post, path = "/session/passkey", tag = "Sessions",
    request_body(content = Object, description = "A WebAuthn assertion as browsers serialise it, or `{\"confirm\":true}`."),
    responses((status = 200, description = "The step was taken; the session as it is.", body = StatusBody))
)]
pub async fn passkey(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(body): Body<Value>,
) -> Result<Json<StatusBody>, Problem> {
    let session = app.manager.get(&tenant).ok_or(Problem::session_not_found(StatusCode::CONFLICT))?;
    match body.get("confirm") {
        None => session.submit_passkey(&body)?,
        Some(Value::Bool(true)) => session.confirm_passkey().await?,
        Some(_) => return Err(Problem::bad_request("invalid_body", "confirm: can only be true")),
    }
    Ok(Json(StatusBody::of(&session)))
}
