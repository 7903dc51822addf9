//! Accounts and their devices.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::App;
use super::problem::Problem;
use crate::world::{AccountView, Phone};

/// The body of `POST /admin/accounts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewAccount {
    phone: String,
    #[serde(default)]
    name: String,
    registered_as: Option<String>,
    /// Whether others get to know the LID only.
    number_hidden: Option<bool>,
}

const MAX_NAME: usize = 100;

pub(super) async fn create(
    State(app): State<App>,
    body: Result<Json<NewAccount>, JsonRejection>,
) -> Result<(StatusCode, Json<AccountView>), Problem> {
    let Json(new) = body?;
    let phone = Phone::parse(&new.phone)?;
    if new.name.chars().count() > MAX_NAME {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a name has at most 100 characters"));
    }
    let (account, created) = match new.registered_as.as_deref().map(Phone::parse).transpose()? {
        Some(registered_as) => app.world.add_alias(&phone, &registered_as, &new.name)?,
        None => app.world.add_account(&phone, &new.name)?,
    };
    let account = match new.number_hidden {
        Some(hidden) => app.world.hide_number(&account.phone, hidden).unwrap_or(account),
        None => account,
    };
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(account)))
}

pub(super) async fn list(State(app): State<App>) -> Json<Vec<AccountView>> {
    Json(app.world.accounts())
}

pub(super) async fn show(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<AccountView>, Problem> {
    let phone = Phone::parse(&path?.0)?;
    app.world.account(&phone).map(Json).ok_or_else(Problem::no_account)
}

pub(super) async fn unlink(
    State(app): State<App>,
    path: Result<Path<(String, u16)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path((phone, device)) = path?;
    if app.world.unlink(&Phone::parse(&phone)?, device) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(StatusCode::NOT_FOUND, "there is no such account or companion"))
    }
}
