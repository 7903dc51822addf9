//! The media host: what clients upload to and download from, beside everything else on the simulator's port.

mod download;
mod upload;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::control::App;
use crate::world::faults::FaultKind;
use crate::world::{Phone, World};

pub(crate) use self::download::read;

/// The routes of the media host.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/mms/{kind}/{token}", post(upload::upload))
        .route("/v/{folder}/{name}", get(download::download))
        .layer(DefaultBodyLimit::disable())
}

/// An answer that says no.
fn refusal(status: StatusCode, error: impl std::fmt::Display) -> Response {
    (status, Json(json!({ "error": error.to_string() }))).into_response()
}

/// Waits as long as a fault says that the media host is slow.
async fn slowness(world: &World, phone: Option<&Phone>) {
    let latency = |kind: &FaultKind| if let FaultKind::MediaLatency(time) = kind { Some(*time) } else { None };
    if let Some(time) = world.faults.take(phone, latency) {
        tokio::time::sleep(time).await;
    }
}
