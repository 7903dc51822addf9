//! The one HTTP port: the WebSocket for clients, the media host, the control API, and the page.

mod accounts;
mod calls;
mod events;
mod fault_spec;
mod faults;
mod messages;
mod phones;
mod problem;
mod socket;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::media_host;
use crate::wire::ServerIdentity;
use crate::world::World;

/// The longest body that the control API reads.
const MAX_BODY: usize = 1024 * 1024;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) world: Arc<World>,
    server: Arc<ServerIdentity>,
    stop: CancellationToken,
}

/// All routes.
pub(crate) fn router(world: Arc<World>, server: Arc<ServerIdentity>, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", get(page))
        .route(crate::WS_PATH, get(socket::upgrade))
        .route("/admin/accounts", get(accounts::list).post(accounts::create))
        .route("/admin/accounts/{phone}", get(accounts::show))
        .route("/admin/accounts/{phone}/devices/{device}", delete(accounts::unlink))
        .route(
            "/admin/accounts/{phone}/messages",
            get(messages::list).post(messages::send).layer(DefaultBodyLimit::max(messages::MAX_BODY)),
        )
        .route("/admin/accounts/{phone}/messages/{id}/media", get(messages::media))
        .route("/admin/accounts/{phone}/messages/{id}/play", post(messages::play))
        .route("/admin/accounts/{phone}/calls", post(calls::call))
        .route("/admin/accounts/{phone}/calls/{id}/end", post(calls::end))
        .route("/admin/accounts/{phone}/read", post(phones::read))
        .route("/admin/accounts/{phone}/receipts", post(phones::receipt))
        .route("/admin/mock-phone/scan-qr", post(phones::scan_qr))
        .route("/admin/mock-phone/enter-code", post(phones::enter_code))
        .route("/admin/qr-codes", post(phones::hold_up_qr))
        .route("/admin/faults", get(faults::list).post(faults::add).delete(faults::clear))
        .route("/admin/stats", get(faults::stats))
        .route("/admin/root-key", get(root_key))
        .route("/admin/state", get(events::state))
        .route("/admin/events", get(events::stream))
        .merge(media_host::routes())
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(App { world, server, stop })
}

async fn root_key(State(app): State<App>) -> Json<Value> {
    Json(json!({ "rootKey": BASE64.encode(app.server.root_key()) }))
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page.html"))
}
