//! What is answered while the service can't serve anybody yet, because its disk has no room.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    config::Secrets,
    http::{caller, health, problem::Problem},
};

/// Says that the process lives, that it is not ready, and, to all else, why.
pub fn router(secrets: Secrets) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, health::UNAVAILABLE) }))
        .fallback(|| async { Problem::storage_failed() })
        .layer(from_fn_with_state(secrets, authenticate))
        // Soon another router answers, on other connections.
        .layer(from_fn(close))
}

async fn authenticate(State(secrets): State<Secrets>, request: Request, next: Next) -> Response {
    if caller::is_open(&request) || caller::shows(&secrets, &request) {
        next.run(request).await
    } else {
        Problem::unauthorized().into_response()
    }
}

async fn close(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
