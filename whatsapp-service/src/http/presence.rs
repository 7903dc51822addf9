//! `POST /presence` and `POST /messages/{id}/read`: what the other side is shown without a message.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{App, body::Body, caller::Tenant, problem::Problem, send::validate::recipient},
    model::address::Names,
    session::presence::PresenceRefused,
    whatsapp::chat::ChatState,
};

/// `POST /presence`'s body.
#[derive(Deserialize, ToSchema)]
#[schema(as = PresenceRequest)]
pub struct Presence {
    /// The recipient, as in a message's `to`.
    #[schema(example = "5511888888888")]
    to: String,
    /// What the chat shows.
    state: ChatState,
}

/// `POST /presence`'s answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PresenceAnswer)]
pub struct Shown {
    /// The number that WhatsApp knows the recipient by, as far as it is known; else whom the caller gave.
    to: String,
    /// The recipient's LID, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_lid: Option<String>,
    state: ChatState,
}

/// `POST /messages/{id}/read`'s answer.
#[derive(Serialize, ToSchema)]
#[schema(as = ReadAnswer)]
pub struct MarkedAsRead {
    id: String,
}

/// `POST /presence`: shows somebody that a text or a voice message is on its way.
#[utoipa::path(
    post, path = "/presence", tag = "Messages",
    request_body = Presence,
    responses((status = 200, description = "WhatsApp was told.", body = Shown))
)]
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(Presence { to, state }): Body<Presence>,
) -> Result<Json<Shown>, Problem> {
    let recipient = recipient(&to)?;
    let session = app.manager.get(&tenant).ok_or_else(Problem::no_session)?;
    let Names { number, lid } = session.show(&recipient, state).await?;
    let to = number.map_or_else(|| recipient.address(), |number| number.digits().into());
    Ok(Json(Shown { to, to_lid: lid.map(|lid| lid.digits().into()), state }))
}

/// `POST /messages/{id}/read`: tells the sender of an incoming message that it was read.
#[utoipa::path(
    post, path = "/messages/{id}/read", tag = "Messages",
    params(("id" = String, Path, description = "The incoming message's id, percent-encoded.")),
    responses((status = 200, description = "WhatsApp was told.", body = MarkedAsRead))
)]
pub async fn read(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<MarkedAsRead>, Problem> {
    // What is no text is nobody's id. All else may be one: whoever sends a message chooses it.
    let Path(id) = id.map_err(|_| PresenceRefused::UnknownMessage)?;
    let session = app.manager.get(&tenant).ok_or_else(Problem::no_session)?;
    session.mark_as_read(&id).await?;
    Ok(Json(MarkedAsRead { id }))
}
