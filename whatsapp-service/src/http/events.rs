//! `GET /events` and `GET /events/stream`: the event log, for those who ask for it instead of being called.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        App,
        caller::Tenant,
        page::{self, Page as PageOf},
        problem::Problem,
        query::{Query, invalid},
        streams::OpenStream,
    },
    model::{error_code::ErrorCode, event::Event, tenant::TenantId},
    store::{
        changes::Watch,
        parts::{Position, Rest, Room},
    },
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// How often a stream without news says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
    /// Give this as `after` to get the next ones; absent when there are none yet. A page may end before `limit`.
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
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid(format!("limit: must be from 1 to {MAX_LIMIT}")));
    }
    let store = app.manager.store().clone();
    let page = PageOf {
        head: "{\"events\":[",
        next: |last| format!("\"nextAfter\":{last}"),
        position: Position::behind(page.after.unwrap_or(0)),
        room: Room { rows: limit, bytes: page::BYTES },
        read: move |position, room| {
            let (store, tenant) = (store.clone(), tenant.clone());
            async move { store.events(&tenant, position, room, page::entry).await }
        },
    };
    page.answer().await
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
            Problem::new(ErrorCode::InvalidLastEventId, "Last-Event-ID: not one that this service gave")
        })?),
    };
    let place = app.streams.open(&tenant)?;
    let watch = app.manager.store().watch(&tenant);
    let after = match resumed.or(page.after) {
        Some(after) => after,
        None => app.manager.store().last_sequence(&tenant).await?,
    };
    let following = Following { app, tenant, watch, position: Position::behind(after), _place: place };
    let parts = stream::unfold(following, |mut following| async {
        let part = following.next().await?;
        Some((Ok::<_, Infallible>(part), following))
    });
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    Ok((head, Body::from_stream(parts)).into_response())
}

/// A reader of the log that stays.
struct Following {
    app: Arc<App>,
    tenant: TenantId,
    watch: Watch,
    position: Position,
    _place: OpenStream,
}

impl Following {
    /// What is to be said next; `None` when the process is about to end, or the log can't be read.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.watch.mark_unchanged();
            let store = self.app.manager.store();
            let read = store.events(&self.tenant, self.position, Room::ENDLESS, written).await;
            let part = read.inspect_err(|error| tracing::error!(%error, "storage")).ok()?;
            self.position = part.position;
            if !part.text.is_empty() {
                return Some(part.text.into());
            }
            debug_assert_eq!(part.rest, Rest::Nothing);
            tokio::select! {
                changed = self.watch.changed() => changed.ok()?,
                () = self.app.manager.stopping() => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

/// An event as server-sent events have it. JSON has no line breaks outside of texts, and escapes those in them.
fn written(event: &Event, _: bool) -> Vec<u8> {
    let mut text = format!("id: {}\nevent: {}\ndata: ", event.sequence, event.kind.as_str()).into_bytes();
    text.extend(page::entry(event, true));
    text.extend_from_slice(b"\n\n");
    text
}
