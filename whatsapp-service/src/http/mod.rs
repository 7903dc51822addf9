//! The server: which path leads where, and what every request has to pass.

mod attachment;
mod caller;
mod content;
mod docs;
mod emoji;
mod events;
mod health;
mod link_previews;
mod media;
mod messages;
mod metrics;
mod multipart;
mod numbers;
mod openapi;
mod presence;
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
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

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
    fetch_timeout: Duration,
    memory: metrics::Memory,
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
            fetch_timeout: config.media_fetch_timeout,
            memory: metrics::Memory::default(),
        }
    }
}

/// Every path, with what the document says of it.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Head::openapi())
        .routes(routes!(session::post, session::delete))
        .routes(routes!(status::get))
        .routes(routes!(qr::get))
        .routes(routes!(session::passkey))
        .routes(routes!(sessions::get))
        .routes(routes!(send::post))
        .routes(routes!(send::bulk))
        .routes(routes!(messages::list))
        .routes(routes!(messages::get, messages::cancel))
        .routes(routes!(media::get))
        .routes(routes!(presence::read))
        .routes(routes!(presence::post))
        .routes(routes!(numbers::check))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(webhook::put, webhook::get, webhook::delete))
        .routes(routes!(webhook::retry))
        .routes(routes!(health::get))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get))
        .routes(routes!(openapi::get))
        .routes(routes!(docs::get))
}

/// What answers requests. One passes from the last layer to the first.
pub fn router(app: Arc<App>) -> Router {
    Router::from(routes())
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
    let (status, took) = (response.status().as_u16(), started.elapsed());
    crate::metrics::answered(&method, route.as_ref().map(MatchedPath::as_str), status, took);
    tracing::info!(
        tenant = tenant.as_ref().map(tracing::field::display),
        %method,
        route = route.as_ref().map_or("-", MatchedPath::as_str),
        status,
        ms = took.as_millis() as u64,
        "request"
    );
    response
}
