//! `GET /metrics`: how it goes, for Prometheus.

use std::{
    fmt::{Display, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};

use crate::{
    http::App, manager::memory::MemoryReport, metrics, model::session_state::State as SessionState,
    net::dial_gate::DialFigures, util::process,
};

/// How long what the clients said of their memory is told again before they are asked anew.
const MEMORY_AGE: Duration = Duration::from_secs(60);
/// How long anything may take to be looked up; what takes longer is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the clients said last of their memory, and when.
#[derive(Default)]
pub struct Memory(tokio::sync::Mutex<Option<(Instant, MemoryReport)>>);

/// `GET /metrics`: how it goes, in Prometheus' text format. Names no tenant and no number.
#[utoipa::path(
    get, path = "/metrics", tag = "Operation",
    responses((status = 200, description = "Prometheus' text format.", body = String,
               content_type = "text/plain; version=0.0.4; charset=utf-8"))
)]
pub async fn get(State(app): State<Arc<App>>) -> Response {
    let mut page = Page(metrics::render());
    page.gauge(
        "whatsapp_build_info",
        "1; the version is in the label.",
        [([("version", env!("CARGO_PKG_VERSION"))], 1)],
    );
    page.gauge("whatsapp_sessions", "Sessions, by state.", states(&app));
    dials(&mut page, &app);
    waiting(&mut page, &app).await;
    memory(&mut page, &app).await;
    process(&mut page);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
}

/// How many sessions are in each state, also in those that none is in.
fn states(app: &App) -> impl Iterator<Item = ([(&'static str, &'static str); 1], usize)> + use<> {
    let mut counts = [0; SessionState::ALL.len()];
    for session in app.manager.list(None, usize::MAX) {
        let state = session.snapshot().state;
        if let Some(place) = SessionState::ALL.iter().position(|known| *known == state) {
            counts[place] += 1;
        }
    }
    SessionState::ALL.into_iter().zip(counts).map(|(state, count)| ([("state", state.as_str())], count))
}

/// What the gate for dials is doing, and how often a session had to be started again because of a bug.
fn dials(page: &mut Page, app: &App) {
    let DialFigures { waiting, under_way, held_up, .. } = app.manager.dials();
    page.one("whatsapp_dials_waiting", "Sessions that wait for their turn to dial.", waiting);
    page.one("whatsapp_dials_under_way", "Sessions between their dial and their login.", under_way);
    page.one("whatsapp_dials_held_up", "1 while all wait until one login succeeds.", u8::from(held_up));
    let left = app.manager.restoring().map_or(0, |restoring| restoring.total - restoring.done);
    page.one("whatsapp_restoring_sessions", "Sessions that are still to be brought back after the start.", left);
    let panics = [([], app.manager.panics())];
    page.family::<0, _>("whatsapp_session_panics_total", "counter", "Sessions' tasks that panicked.", panics);
}

async fn waiting(page: &mut Page, app: &App) {
    let store = app.manager.store();
    let healthy = tokio::time::timeout(PATIENCE, store.is_healthy()).await.unwrap_or(false);
    page.one("whatsapp_store_healthy", "1 if what was written last reached the disk.", u8::from(healthy));
    match tokio::time::timeout(PATIENCE, store.figures()).await {
        Ok(Ok(figures)) => {
            let age = figures.oldest.map_or(0.0, |at| (store.clock().now() - at).as_seconds_f64().max(0.0));
            page.one("whatsapp_outbox_messages", "Messages that wait to be sent or acknowledged.", figures.outbox);
            page.one("whatsapp_outbox_oldest_age_seconds", "The age of the oldest of them; 0 without any.", age);
            page.one("whatsapp_webhook_events_pending", "Events that wait for a webhook.", figures.events_due);
            page.one("whatsapp_webhook_events_dead", "Events that were given up, while kept.", figures.events_dead);
        }
        Ok(Err(error)) => tracing::warn!(%error, "what waits could not be counted"),
        Err(_) => tracing::warn!("what waits could not be counted within {PATIENCE:?}"),
    }
}

async fn memory(page: &mut Page, app: &App) {
    let mut last = app.memory.0.lock().await;
    if last.as_ref().is_none_or(|(at, _)| at.elapsed() > MEMORY_AGE) {
        match tokio::time::timeout(PATIENCE, app.manager.memory_report()).await {
            Ok(report) => *last = Some((Instant::now(), report)),
            // What was said before is out of date; nothing is better than that.
            Err(_) => *last = None,
        }
    }
    let Some((_, MemoryReport { clients, collections })) = &*last else { return };
    page.one("whatsapp_library_clients", "Clients of the library that run; looked at once a minute.", clients);
    let entries = collections.iter().map(|collection| ([("collection", collection.name)], collection.entries));
    page.gauge("whatsapp_library_entries", "What they hold, in entries, over all sessions.", entries);
    let bytes = collections.iter().map(|collection| ([("collection", collection.name)], collection.bytes));
    page.gauge("whatsapp_library_bytes", "What they hold, in bytes, by the library's own estimate.", bytes);
}

fn process(page: &mut Page) {
    let usage = process::usage();
    page.one("process_start_time_seconds", "When the process started, in seconds since 1970.", process::started());
    let cpu = usage.cpu_seconds.map(|seconds| ([], seconds));
    page.family::<0, _>("process_cpu_seconds_total", "counter", "Processor time so far, in seconds.", cpu);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory that is in use.", usage.resident),
        ("process_resident_memory_peak_bytes", "The most memory that was in use at once.", usage.resident_peak),
        ("process_virtual_memory_bytes", "Memory that is mapped.", usage.mapped),
        ("process_threads", "Threads.", usage.threads),
        ("process_open_fds", "File descriptors that are open.", usage.open_fds),
        ("process_max_fds", "File descriptors that may be open.", usage.max_fds),
    ] {
        page.gauge::<0, _>(name, help, value.map(|value| ([], value)));
    }
}

/// The text, as it grows.
struct Page(String);

impl Page {
    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge::<0, _>(name, help, [([], value)]);
    }

    fn gauge<const N: usize, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'static str); N], V)>,
    ) {
        self.family(name, "gauge", help, samples);
    }

    /// One metric with all its samples; nothing if there are none. Labels are our own words and need no escaping.
    fn family<const N: usize, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'static str); N], V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a text can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels = labels.map(|(name, word)| format!("{name}=\"{word}\"")).join(",");
            let _ = match labels.as_str() {
                "" => writeln!(self.0, "{name} {value}"),
                labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
        self.0.push('\n');
    }
}
