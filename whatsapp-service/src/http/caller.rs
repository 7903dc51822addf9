//! Who calls.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONNECTION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    config::Secrets,
    http::{App, connections::Connection, openapi, problem::Problem},
    model::{error_code::ErrorCode, tenant::TenantId},
};

const SECRET: &str = "x-internal-secret";
const TENANT: &str = "x-tenant-id";

/// What is answered also when all connections are busy: who asks this wants to know how the service is.
const OPERATION: [&str; 2] = ["/health", "/metrics"];

/// Lets only callers through who know the secret; the others learn nothing beyond the few paths that are open to all, not
/// even which others there are, and have to connect again before they try again.
pub async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if is_open(&request) {
        return next.run(request).await;
    }
    if !shows(&app.secrets, &request) {
        return and_close(Problem::unauthorized());
    }
    if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
        connection.shows_secret();
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        if connection.is_spare() && !path.is_some_and(|path| OPERATION.contains(&path)) {
            return and_close(Problem::too_many_connections());
        }
    }
    next.run(request).await
}

/// Whether a request is one that needs no secret.
pub fn is_open(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    reads && path.is_some_and(|path| openapi::OPEN.contains(&path))
}

/// Whether a request has the secret with it.
pub fn shows(secrets: &Secrets, request: &Request) -> bool {
    secrets.accept(request.headers().get(SECRET).map_or(&b""[..], |secret| secret.as_bytes()))
}

/// An answer after which the connection is closed.
fn and_close(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The tenant that a request is for.
pub struct Tenant(pub TenantId);

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        tenant_of(&parts.headers).map(Self)
    }
}

fn tenant_of(headers: &HeaderMap) -> Result<TenantId, Problem> {
    let mut values = headers.get_all(TENANT).iter();
    let (Some(value), another) = (values.next(), values.next()) else { return Err(Problem::tenant_required()) };
    if value.is_empty() && another.is_none() {
        return Err(Problem::tenant_required());
    }
    if another.is_some() {
        return Err(Problem::new(ErrorCode::InvalidTenantId, "X-Tenant-Id stands more than once."));
    }
    // A header that is not ASCII becomes a text that is no tenant id.
    Ok(value.to_str().unwrap_or_default().parse::<TenantId>()?)
}

/// The tenant's name for the log: only where it is one, so that nothing else gets there.
pub fn tenant_for_log(headers: &HeaderMap) -> Option<TenantId> {
    tenant_of(headers).ok()
}

/// Turns a panic in a handler into an answer; the panic itself is in the log.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    let problem = Problem::internal("The request failed in an unforeseen way; the log says more.");
    (StatusCode::INTERNAL_SERVER_ERROR, problem).into_response()
}
