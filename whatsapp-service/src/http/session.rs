//! `POST /session`, `DELETE /session` and `POST /session/passkey`.

use crate::session::OpenRefused;
use crate::session::Opened;
use std::{fmt::Display, sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    http::{
        App,
        body::{Body, Tolerant},
        caller::Tenant,
        problem::Problem,
        request_log::Noted,
        status::{Action, Done, StatusBody},
    },
    model::{
        address::Address,
        session_state::{State as SessionState, Status},
        tenant::TenantId,
    },
    net::proxy::Proxy,
    session::{deletion::Unlinked, state::Snapshot},
    util::clock::timestamp,
};

/// How long the answer waits for the first QR code.
const QR_WAIT: Duration = Duration::from_secs(2);
/// How long the answer waits for a pairing code, which takes two more round trips.
const CODE_WAIT: Duration = Duration::from_secs(10);

/// `POST /session`'s body; all of it may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object")]
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
    params(("Prefer" = Option<String>, Header, description = "`handling=strict` refuses what is not known.")),
    request_body = Option<Open>,
    responses((status = 200, description = "The session as it is.", body = StatusBody))
)]
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Tolerant { body, unknown }: Tolerant<Open>,
) -> Result<(Extension<Noted>, Json<StatusBody>), Problem> {
    let answer = open(&app, &tenant, body).await;
    answer.map(|body| body.warned(&unknown)).map_err(|problem| problem.warned(&unknown))
}

async fn open(app: &App, tenant: &TenantId, body: Open) -> Result<StatusBody, Problem> {
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
    let (session, opened) = app.manager.open(tenant, phone, proxy).await?;
    let settled = |snapshot: &Snapshot| {
        let shown = if by_code { &snapshot.pairing_code } else { &snapshot.qr };
        let moved_on = snapshot.is_paired() || snapshot.passkey.is_some();
        shown.is_some() || moved_on || snapshot.state.status() != Status::Initializing
    };
    session.wait_until(if by_code { CODE_WAIT } else { QR_WAIT }, settled).await;
    let snapshot = session.snapshot();
    if let Some(refused) = snapshot.reason.clone().filter(|reason| by_code && reason.code == "pairing_code_refused") {
        let (status, code) = (StatusCode::BAD_GATEWAY, "pairing_code_refused");
        let wait =
            snapshot.retry_at.map(|at| (at - app.manager.store().clock().now()).num_seconds().max(0).cast_unsigned());
        return Err(Problem::new(status, "Pairing code refused", code, refused.message).retry_after(wait));
    }
    let (action, action_message) = match opened {
        Opened::Started => (Action::Started, None),
        Opened::CodeRequested => (Action::CodeRequested, None),
        Opened::Unchanged => (Action::None, Some(why_nothing(&snapshot, by_code))),
    };
    Ok(StatusBody::of(&session).after(Done { action, action_message }))
}

/// Why there was nothing to do for a session that is like this.
fn why_nothing(snapshot: &Snapshot, by_code: bool) -> String {
    let state = snapshot.state.as_str();
    let until = snapshot.retry_at.map(timestamp);
    match (snapshot.state, until) {
        _ if snapshot.state.status() != Status::Failed => {
            let linked = snapshot.is_paired();
            let no_code = if linked && by_code { " No code is needed: DELETE /session unlinks it first." } else { "" };
            match linked {
                true => format!("The session is linked, and runs: it is {state}.{no_code}"),
                false => format!("The session waits for its phone already: it is {state}."),
            }
        }
        (SessionState::Banned | SessionState::Locked | SessionState::Outdated, None) => {
            format!("The session is {state}: WhatsApp is not asked again just because somebody wants it to be.")
        }
        (_, Some(until)) => {
            format!("The session is {state}, and tries again by itself at {until}: before that, nothing starts it.")
        }
        (_, None) => format!("The session is {state}."),
    }
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
    let Some(unlinked) = unlinked else {
        // It may have waited until everything ended: the session is there again after the restart.
        return Err(match app.manager.is_closing() {
            true => OpenRefused::Gone.into(),
            false => Problem::session_not_found(StatusCode::NOT_FOUND),
        });
    };
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
