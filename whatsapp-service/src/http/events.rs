//! `GET /events` and `GET /events/stream`: the event log, for those who ask for it instead of being called.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    caller::Tenant,
    problem::Problem,
    query::{Query, invalid},
};
use crate::{
    store::{Event, Watch},
    tenant::TenantId,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// How often a stream without news says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many events a stream reads at a time.
const BATCH: usize = 100;

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only events whose `sequence` is greater; 0 without it.
    after: Option<i64>,
    /// Events at a time; 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Some events, in order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    events: Vec<Event>,
    /// Give this as `after` to get the next ones; absent when there are none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<i64>,
}

/// `GET /events`: what happened to the tenant, in order.
#[utoipa::path(
    get, path = "/events", tag = "Events",
    params(Page),
    responses((status = 200, description = "Some events.", body = Events))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Query(page): Query<Page>,
) -> Result<Json<Events>, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid(format!("limit: must be from 1 to {MAX_LIMIT}")));
    }
    let mut events = app.manager.store().events(&tenant, page.after.unwrap_or(0), limit + 1).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let next_after = events.last().filter(|_| more).map(|event| event.sequence);
    Ok(Json(Events { events, next_after }))
}

/// `GET /events/stream`: events as they come, from the one after `Last-Event-ID` (or `after`) on; without either, from
/// now on.
#[utoipa::path(
    get, path = "/events/stream", tag = "Events",
    params(
        ("after" = Option<i64>, Query, description = "The `sequence` to start after."),
        ("Last-Event-ID" = Option<i64>, Header, description = "The same; it counts more."),
    ),
    responses((status = 200, description = "Server-sent events that do not end.", body = String,
               content_type = "text/event-stream"))
)]
pub async fn stream(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(id) => Some(id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| {
            Problem::bad_request("invalid_last_event_id", "Last-Event-ID: not one that this service gave")
        })?),
    };
    let watch = app.manager.store().watch(&tenant);
    let after = match resumed.or(page.after) {
        Some(after) => after,
        None => app.manager.store().last_sequence(&tenant).await?,
    };
    let following = Following { app, tenant, watch, after, ready: VecDeque::new() };
    let events = stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// A reader of the log that stays.
struct Following {
    app: Arc<App>,
    tenant: TenantId,
    watch: Watch,
    after: i64,
    ready: VecDeque<Event>,
}

impl Following {
    /// The next event; `None` when the process is about to end, or the log can't be read.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = event.sequence;
                let data = serde_json::to_string(&event).ok()?;
                return Some(
                    sse::Event::default().id(event.sequence.to_string()).event(event.kind.as_str()).data(data),
                );
            }
            self.watch.mark_unchanged();
            self.ready = self.app.manager.store().events(&self.tenant, self.after, BATCH).await.ok()?.into();
            if self.ready.is_empty() {
                tokio::select! {
                    changed = self.watch.changed() => changed.ok()?,
                    () = self.app.manager.stopping() => return None,
                }
            }
        }
    }
}
