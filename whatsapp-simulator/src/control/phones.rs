//! What one does with a phone beside writing: scan, type a code, read.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::world::{Linked, Phone};

/// Whose phone does something; anyone's, if absent.
#[derive(Debug, Deserialize)]
pub(super) struct OfPhone {
    pub(super) phone: Option<String>,
}

/// The body of `POST /admin/mock-phone/enter-code`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedCode {
    phone: String,
    code: String,
}

pub(super) async fn scan_qr(
    State(app): State<App>,
    query: Result<Query<OfPhone>, QueryRejection>,
    text: String,
) -> Result<Json<Linked>, Problem> {
    let phone = query?.0.phone.as_deref().map(Phone::parse).transpose()?;
    Ok(Json(app.world.scan_qr(&text, phone.as_ref()).await?))
}

pub(super) async fn enter_code(
    State(app): State<App>,
    body: Result<Json<TypedCode>, JsonRejection>,
) -> Result<Json<Linked>, Problem> {
    let Json(typed) = body?;
    Ok(Json(app.world.enter_code(&Phone::parse(&typed.phone)?, &typed.code).await?))
}

pub(super) async fn hold_up_qr(State(app): State<App>, text: String) -> Result<StatusCode, Problem> {
    app.world.hold_up_qr(&text)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn read(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let read = app.world.read_chats(&Phone::parse(&path?.0)?).ok_or_else(Problem::no_account)?;
    Ok(Json(json!({ "read": read })))
}

/// The body of `POST /admin/accounts/{phone}/receipts`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReceipt {
    to: String,
    ids: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) async fn receipt(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<NewReceipt>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (phone, Json(new)) = (Phone::parse(&path?.0)?, body?);
    let known = new.kind.as_deref().is_none_or(|kind| matches!(kind, "read" | "played"));
    if new.ids.is_empty() || !known {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "ids has at least one, and type is read, played or absent"));
    }
    let claimed = app.world.claim(&phone, &Phone::parse(&new.to)?, new.ids, new.kind.as_deref());
    claimed.map(|()| StatusCode::NO_CONTENT).ok_or_else(Problem::no_account)
}
