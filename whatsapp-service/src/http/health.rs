//! `GET /health`, and what an orchestrator asks: `GET /livez` and `GET /readyz`.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        App,
        problem::Problem,
        request_log::Noted,
        unknown::{Unknown, Warning},
    },
    session::restoring::Progress,
};

/// What is said of a service that is not ready.
pub const UNAVAILABLE: &str = "unavailable";
/// How long the disk may take to take something before the service counts as not ready.
const DISK_LIMIT: Duration = Duration::from_secs(5);

/// `GET /health`'s answer.
#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(pattern = "^ok$")]
    status: &'static str,
    /// How many sessions are ready now.
    sessions: usize,
    /// How far the process is with bringing its sessions back; absent when that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    restoring: Option<Progress>,
    /// What was in the query and was not understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<Warning>,
}

/// `GET /health`: the process answers, its disk takes what it writes, and this many sessions can send right now.
#[utoipa::path(
    get, path = "/health", tag = "Operation",
    params(("Prefer" = Option<String>, Header, description = "`handling=strict` refuses what is not known.")),
    responses((status = 200, description = "It is well.", body = Health))
)]
pub async fn get(State(app): State<Arc<App>>, unknown: Unknown) -> Result<(Extension<Noted>, Json<Health>), Problem> {
    if !app.manager.store().is_healthy().await {
        return Err(Problem::storage_failed().warned(&unknown));
    }
    let (sessions, restoring) = (app.manager.ready_count(), app.manager.restoring());
    let health = Health { status: "ok", sessions, restoring, warnings: unknown.warnings() };
    Ok((Extension(Noted::default().unknown(&unknown)), Json(health)))
}

/// `GET /livez`: the process answers. Nothing else is looked at, since a new process would find the same disk and the
/// same network.
#[utoipa::path(
    get, path = "/livez", tag = "Operation",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain; charset=utf-8"))
)]
pub async fn livez() -> &'static str {
    "ok"
}

/// `GET /readyz`: requests are welcome: the sessions are on their way back, and the disk takes what is written. A process
/// that is about to end takes no connections, and does not answer.
#[utoipa::path(
    get, path = "/readyz", tag = "Operation",
    responses(
        (status = 200, description = "`ok`", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, description = "`unavailable`", body = String, content_type = "text/plain; charset=utf-8"),
    )
)]
pub async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    // Nothing is served before the sessions are known, and their restore has begun.
    let healthy = tokio::time::timeout(DISK_LIMIT, app.manager.store().is_healthy());
    if healthy.await.unwrap_or(false) { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE) }
}
