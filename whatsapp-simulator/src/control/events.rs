//! The snapshot that the page draws, once or as it changes.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};

use super::App;
use crate::world::Snapshot;

/// No more than ten snapshots a second.
const PACE: Duration = Duration::from_millis(100);

pub(super) async fn state(State(app): State<App>) -> Json<Snapshot> {
    Json(app.world.snapshot())
}

pub(super) async fn stream(State(app): State<App>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = app.world.changes();
    changes.mark_changed();
    let events = unfold((app, changes), |(app, mut changes)| async move {
        tokio::select! {
            () = app.stop.cancelled() => return None,
            changed = changes.changed() => changed.ok()?,
        }
        tokio::time::sleep(PACE).await;
        changes.mark_unchanged();
        let snapshot = app.world.snapshot();
        let event = Event::default().event("state").json_data(&snapshot).unwrap_or_default();
        Some((Ok(event), (app, changes)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
