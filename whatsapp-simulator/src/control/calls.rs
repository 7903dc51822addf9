//! Calls between phones.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::world::{CallError, Outcome, Phone};

/// The body of `POST /admin/accounts/{phone}/calls`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCall {
    to: String,
    #[serde(default)]
    video: bool,
    /// It ends at once, like this; it rings on if absent.
    outcome: Option<Outcome>,
}

/// The body of `POST /admin/accounts/{phone}/calls/{id}/end`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallEnd {
    #[serde(default)]
    outcome: Outcome,
}

pub(super) async fn call(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<NewCall>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (phone, Json(new)) = (Phone::parse(&path?.0)?, body?);
    let id = app.world.call(&phone, &Phone::parse(&new.to)?, new.video)?;
    if let Some(outcome) = new.outcome {
        app.world.end_call(&phone, &id, outcome)?;
    }
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

pub(super) async fn end(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Json<CallEnd>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Path((phone, id)) = path?;
    let Json(CallEnd { outcome }) = body?;
    app.world.end_call(&Phone::parse(&phone)?, &id, outcome)?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let status = match error {
            CallError::NoAccount | CallError::NoCall => StatusCode::NOT_FOUND,
            CallError::NoRecipient => StatusCode::UNPROCESSABLE_ENTITY,
            CallError::PhoneOff => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}
