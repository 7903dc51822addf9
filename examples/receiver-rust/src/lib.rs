//! Receives the service's webhooks: checks them, drops repeats, and hands each new event on.

mod verify;

use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, rejection::BytesRejection},
    http::{HeaderMap, Method, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use verify::{BadSecret, Refused, Secret, verify};

/// The largest body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// How many ids are remembered for each tenant. Repeats are of what came last, so few would do.
const REMEMBERED: usize = 1000;

/// One event of the service.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The same whenever the event is sent again.
    pub id: String,
    /// `type`: `message.received`, `message.status`, `session.state`, or another: see the manual.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened, in RFC 3339.
    pub timestamp: String,
    /// Whose event it is.
    pub tenant_id: String,
    /// Counts a tenant's events. What arrives may have gaps: not every type has to be subscribed to.
    pub sequence: u64,
    /// What happened.
    pub data: serde_json::Map<String, Value>,
    /// One with a higher `sequence` of this tenant was taken before. This one must not overwrite what that one said.
    #[serde(skip)]
    pub late: bool,
}

/// What is known of a tenant's events.
#[derive(Default)]
struct Tenant {
    newest: u64,
    ids: VecDeque<String>,
}

/// Answers webhooks on any path, and gives each new event to the sink.
///
/// The service hears 204 once the sink has succeeded: let it store the event, and do the long work afterwards. If it
/// fails, the service sends the event again. Calls come one after the other. When the service hangs up, a call may end
/// at an await.
pub fn router<S, F, E>(secret: Secret, sink: S) -> Router
where
    S: Fn(Event) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + 'static,
{
    let shared = Arc::new((secret, sink, Mutex::default()));
    let handler = async move |method: Method, headers: HeaderMap, body: Result<Bytes, BytesRejection>| {
        let (secret, sink, tenants) = &*shared;
        if method != Method::POST {
            return Err(problem(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
        }
        let body = body.map_err(|rejection| problem(rejection.status(), rejection.body_text()))?;
        verify(secret, &headers, &body, SystemTime::now()).map_err(|why| problem(StatusCode::UNAUTHORIZED, why))?;
        let event = serde_json::from_slice(&body);
        let event = event.map_err(|_| problem(StatusCode::BAD_REQUEST, "the body is not an event"))?;
        take(tenants, sink, event).await.map_err(|error| {
            eprintln!("an event could not be taken: {error}");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be taken")
        })?;
        Ok(StatusCode::NO_CONTENT)
    };
    Router::new().fallback(handler).layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn take<F, E>(
    tenants: &Mutex<HashMap<String, Tenant>>,
    sink: impl Fn(Event) -> F,
    mut event: Event,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    // A repeat may arrive while the first one is still being stored. It waits for that, like all others.
    let mut tenants = tenants.lock().await;
    let tenant = tenants.entry(event.tenant_id.clone()).or_default();
    if tenant.ids.contains(&event.id) {
        return Ok(());
    }
    event.late = event.sequence < tenant.newest;
    let (id, sequence) = (event.id.clone(), event.sequence);
    sink(event).await?;
    // Only now: an event that could not be stored has to be taken when it comes again.
    tenant.ids.push_front(id);
    tenant.ids.truncate(REMEMBERED);
    tenant.newest = tenant.newest.max(sequence);
    Ok(())
}

fn problem(status: StatusCode, error: impl Display) -> (StatusCode, Json<Value>) {
    (status, Json(json!({ "error": error.to_string() })))
}
