//! `POST /send`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    App,
    caller::{Body, Tenant},
    problem::Problem,
    status::timestamp,
};
use crate::sessions::Recipient;

/// The longest text that WhatsApp takes, in characters.
const MAX_MESSAGE: usize = 65_536;

/// `POST /send`'s body.
#[derive(Deserialize)]
pub struct Send {
    to: String,
    message: String,
}

/// `POST /send`'s answer, once the server has acknowledged the message.
#[derive(Serialize)]
pub struct Sent {
    id: String,
    timestamp: String,
    to: String,
}

/// `POST /send`: sends a text and answers when WhatsApp has acknowledged it.
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Body(Send { to, message }): Body<Send>,
) -> Result<Json<Sent>, Problem> {
    let to = Recipient::parse(&to)?;
    if !(1..=MAX_MESSAGE).contains(&message.chars().count()) {
        let why = format!("`message` needs 1 to {MAX_MESSAGE} characters");
        return Err(Problem::bad_request("invalid_message", why));
    }
    let session = app.manager.get(&tenant).ok_or(Problem::session_not_found(StatusCode::CONFLICT))?;
    let limit = app.send_timeout;
    // On a task of its own: a caller that hangs up must not stop a message halfway.
    let sending = app.manager.sends.spawn(async move { session.send_text(&to, message, limit).await });
    let sent = sending.await.map_err(|_| Problem::internal("Sending failed in an unforeseen way."))??;
    Ok(Json(Sent { id: sent.id, timestamp: timestamp(sent.timestamp), to: sent.to }))
}
