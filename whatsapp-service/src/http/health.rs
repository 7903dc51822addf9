//! `GET /health`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use super::App;

/// `GET /health`'s answer.
#[derive(Serialize)]
pub struct Health {
    status: &'static str,
    /// How many sessions are ready now.
    sessions: usize,
}

/// `GET /health`: the process answers, and this many sessions can send right now.
pub async fn get(State(app): State<Arc<App>>) -> Json<Health> {
    Json(Health { status: "ok", sessions: app.manager.ready_count() })
}
