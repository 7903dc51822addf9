//! The server: which path leads where, and what every request has to pass.

mod caller;
mod events;
mod health;
mod messages;
mod problem;
pub mod qr;
mod send;
mod session;
mod sessions;
mod status;
mod webhook;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

use self::problem::Problem;
use crate::{
    config::{Config, Secrets},
    sessions::Manager,
    webhooks::Webhooks,
};

/// What handlers share.
pub struct App {
    /// The sessions.
    pub manager: Arc<Manager>,
    /// What brings the tenants' events to them.
    pub webhooks: Arc<Webhooks>,
    secrets: Secrets,
    send_timeout: Duration,
    body_limit: usize,
    read_timeout: Duration,
}

impl App {
    /// The state behind the router.
    pub fn new(config: &Config, secrets: Secrets, manager: Arc<Manager>, webhooks: Arc<Webhooks>) -> Self {
        Self {
            manager,
            webhooks,
            secrets,
            send_timeout: config.send_timeout,
            body_limit: config.body_limit,
            read_timeout: config.read_timeout,
        }
    }
}

/// Every path. A request passes from the last layer to the first.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/events", get(events::list))
        .route("/events/stream", get(events::stream))
        .route("/health", get(health::get))
        .route("/messages", get(messages::list))
        .route("/messages/{id}", get(messages::get).delete(messages::cancel))
        .route("/send", post(send::post))
        .route("/send/bulk", post(send::bulk))
        .route("/session", post(session::post).delete(session::delete))
        .route("/session/passkey", post(session::passkey))
        .route("/session/qr", get(qr::get))
        .route("/sessions", get(sessions::get))
        .route("/status", get(status::get))
        .route("/webhook", get(webhook::get).put(webhook::put).delete(webhook::delete))
        .route("/webhook/retry", post(webhook::retry))
        .fallback(|| async { Problem::no_such_path() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(caller::panicked))
        .layer(from_fn_with_state(app.clone(), caller::authenticate))
        .layer(from_fn(log_request))
        .with_state(app)
}

/// One line for each request. Nothing of a body, a query or a secret gets into it.
async fn log_request(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    // The path as the router knows it. What else stands in a request's path may be anything, and is not repeated.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let tenant = caller::tenant_for_log(request.headers());
    let started = Instant::now();
    let response = next.run(request).await;
    tracing::info!(
        tenant = tenant.as_ref().map(tracing::field::display),
        %method,
        route = route.as_ref().map_or("-", MatchedPath::as_str),
        status = response.status().as_u16(),
        ms = started.elapsed().as_millis() as u64,
        "request"
    );
    response
}
