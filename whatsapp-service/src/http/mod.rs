//! The server: which path leads where, and what every request has to pass.

pub mod base64;
pub mod body;
pub mod budget;
pub mod caller;
pub mod connections;
pub mod docs;
pub mod emoji;
pub mod events;
pub mod health;
pub mod index;
pub mod json;
pub mod leftover;
pub mod media;
pub mod messages;
pub mod metrics;
pub mod numbers;
pub mod openapi;
pub mod page;
pub mod presence;
pub mod problem;
pub mod qr;
pub mod query;
pub mod refusals;
pub mod request_log;
pub mod send;
pub mod session;
pub mod sessions;
pub mod starting;
pub mod status;
pub mod streams;
pub mod unknown;
pub mod webhook;

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

use crate::{
    config::{Config, Secrets},
    http::{budget::Budget, problem::Problem, request_log::Strangers, streams::Streams},
    manager::Manager,
    util::clock,
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
    memory: crate::http::metrics::Memory,
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
            memory: crate::http::metrics::Memory::default(),
        }
    }
}

/// Every path, with what the document says of it.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(crate::http::openapi::Head::openapi())
        .routes(routes!(crate::http::session::post, crate::http::session::delete))
        .routes(routes!(crate::http::status::get))
        .routes(routes!(crate::http::qr::get))
        .routes(routes!(crate::http::session::passkey))
        .routes(routes!(crate::http::sessions::get))
        .routes(routes!(crate::http::send::post))
        .routes(routes!(crate::http::send::bulk::bulk))
        .routes(routes!(crate::http::messages::list))
        .routes(routes!(crate::http::messages::get, crate::http::messages::cancel))
        .routes(routes!(crate::http::media::get))
        .routes(routes!(crate::http::presence::read))
        .routes(routes!(crate::http::presence::post))
        .routes(routes!(crate::http::numbers::check))
        .routes(routes!(crate::http::events::list))
        .routes(routes!(crate::http::events::stream))
        .routes(routes!(crate::http::webhook::put, crate::http::webhook::get, crate::http::webhook::delete))
        .routes(routes!(crate::http::webhook::retry))
        .routes(routes!(crate::http::health::get))
        .routes(routes!(crate::http::health::livez))
        .routes(routes!(crate::http::health::readyz))
        .routes(routes!(crate::http::metrics::get))
        .routes(routes!(crate::http::openapi::get))
        .routes(routes!(crate::http::docs::get))
        .routes(routes!(crate::http::index::get))
}

/// What answers requests. One passes from the last layer to the first.
pub fn router(app: Arc<App>) -> Router {
    Router::from(routes())
        .fallback(|| async { Problem::no_such_path() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(from_fn(crate::http::unknown::check_query))
        .layer(CatchPanicLayer::custom(crate::http::caller::panicked))
        .layer(from_fn_with_state(app.clone(), crate::http::caller::authenticate))
        .layer(from_fn(crate::http::leftover::read_on))
        .layer(from_fn_with_state(app.clone(), crate::http::request_log::log_request))
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
