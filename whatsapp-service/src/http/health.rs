//! `GET /health`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use super::{App, problem::Problem};
use crate::sessions::Progress;

/// `GET /health`'s answer.
#[derive(Serialize)]
pub struct Health {
    status: &'static str,
    /// How many sessions are ready now.
    sessions: usize,
    /// How far the process is with bringing its sessions back; absent when that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    restoring: Option<Progress>,
}

/// `GET /health`: the process answers, its disk takes what it writes, and this many sessions can send right now.
pub async fn get(State(app): State<Arc<App>>) -> Result<Json<Health>, Problem> {
    if !app.manager.store().is_healthy().await {
        return Err(Problem::storage_failed());
    }
    Ok(Json(Health { status: "ok", sessions: app.manager.ready_count(), restoring: app.manager.restoring() }))
}
