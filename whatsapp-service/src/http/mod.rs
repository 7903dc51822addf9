//! The server: which path leads where, and what every request has to pass.

mod attachment;
mod base64;
mod body;
mod budget;
mod caller;
mod content;
mod docs;
mod emoji;
mod events;
mod health;
mod index;
mod json;
mod leftover;
mod link_previews;
mod media;
mod messages;
mod metrics;
mod multipart;
mod numbers;
mod openapi;
mod page;
mod presence;
mod problem;
pub mod qr;
mod query;
mod request_log;
mod send;
mod session;
mod sessions;
mod starting;
mod status;
mod streams;
mod unknown;
mod webhook;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header::DATE},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::starting::router as starting;
use self::{budget::Budget, problem::Problem, request_log::Strangers, streams::Streams};
use crate::{
    clock,
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
    bodies: Arc<Budget>,
    strangers: Strangers,
    read_timeout: Duration,
    fetch_timeout: Duration,
    memory: metrics::Memory,
    streams: Arc<Streams>,
}

impl App {
    /// The state behind the router. Half of so many connections may be streams.
    pub fn new(
        config: &Config,
        secrets: Secrets,
        manager: Arc<Manager>,
        webhooks: Arc<Webhooks>,
        connections: usize,
    ) -> Self {
        Self {
            streams: Streams::new(connections.div_ceil(2)),
            manager,
            webhooks,
            secrets,
            send_timeout: config.send_timeout,
            body_limit: config.body_limit,
            bodies: Budget::new(config.body_memory, config.body_limit),
            strangers: Strangers::default(),
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
        .routes(routes!(index::get))
}

/// What answers requests. One passes from the last layer to the first.
pub fn router(app: Arc<App>) -> Router {
    Router::from(routes())
        .fallback(|| async { Problem::no_such_path() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn(unknown::check_query))
        .layer(CatchPanicLayer::custom(caller::panicked))
        .layer(from_fn_with_state(app.clone(), caller::authenticate))
        .layer(from_fn(leftover::read_on))
        .layer(from_fn_with_state(app.clone(), request_log::log_request))
        .layer(from_fn(date))
        .with_state(app)
}

/// Says when the answer was made (RFC 9110).
async fn date(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let date = clock::wall().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        response.headers_mut().insert(DATE, date);
    }
    response
}
