//! The door for clients: the WebSocket upgrade.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Problem;
use crate::wire;
use crate::world::FaultKind;
use crate::world::stats::bump;

/// The longest frame is 16 MiB; clients may put its length and an intro into the same message.
const MAX_MESSAGE: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Stanzas are small; the default buffers of 128 KiB, times thousands of connections, are not.
const BUFFER: usize = 8 * 1024;

pub(super) async fn upgrade(State(app): State<App>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    bump(&app.world.counters.dials);
    let refused = |k: &FaultKind| (*k == FaultKind::RefuseConnections).then_some(());
    if app.world.faults.take(None, refused).is_some() {
        bump(&app.world.counters.refused);
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "a fault refuses connections").into_response();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(Arc::from);
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .on_upgrade(move |socket| wire::serve(socket, app.world, app.server, host, app.stop))
}
