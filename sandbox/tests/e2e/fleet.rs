//! The fleet's figures, in short. As a program of its own it measures as many sessions as one likes: see docs/benchmarks.md.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::eventually;

const DOCUMENT: &str = include_str!("../../../docs/benchmarks.md");

fn fleet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn figures(arguments: &[&str]) -> (Map<String, Value>, String) {
    let short = ["--json", "--settle-seconds", "1", "--idle-seconds", "1", "--seconds", "1", "--rate", "20"];
    let ended = fleet(&[&short, arguments].concat()).output().await.expect("fleet starts");
    let (json, table) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{table}\n{json}");
    (serde_json::from_str(&json).expect("one JSON object"), table.into_owned())
}

#[tokio::test]
async fn it_prints_every_figure_and_the_document_explains_each() {
    let (figures, table) = figures(&["--sessions", "4", "--callers", "4", "--tenants-sending", "2", "--tls"]).await;
    let number = |name: &str| figures.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{name}: {table}"));
    for all in ["sessions", "sessions_ready", "sessions_ready_after_kill"] {
        assert_eq!(number(all), 4.0, "{all}: {table}");
    }
    for none in ["sends_failed_first_messages", "sends_failed", "offered_failed_first_messages", "offered_failed"] {
        assert_eq!(number(none), 0.0, "{none}: {table}");
    }
    assert_eq!(figures["offered_answers"]["200"], 20, "{table}");
    for more_than_none in [
        "kib_rss_empty",
        "kib_rss_paired",
        "kib_pss_paired",
        "kib_peak",
        "threads_paired",
        "pairings_per_second",
        "sends_per_second",
        "sends_service_cpu_milliseconds_per_send",
        "sends_kib_written_per_send",
        "sends_commits_per_send",
        "offered_milliseconds_p50",
        "seconds_from_start_to_health_empty",
        "seconds_from_start_to_health_with_sessions",
        "seconds_from_kill_to_all_ready",
        "seconds_to_terminate",
    ] {
        assert!(number(more_than_none) > 0.0, "{more_than_none}: {table}");
    }
    // Three sessions are too few for this one to mean something; it is there.
    number("kib_per_session");
    assert!(number("descriptors_per_session") >= 1.0, "a session without a socket? {table}");
    assert!(number("offered_milliseconds_p50") <= number("offered_milliseconds_p99"), "{table}");
    assert!(number("offered_milliseconds_p99") <= number("offered_milliseconds_max"), "{table}");
    assert_eq!(figures["tls"], true);
    for name in figures.keys() {
        assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is not in the table: {table}");
        assert!(DOCUMENT.contains(&format!("`{name}`")), "{name} is not in docs/benchmarks.md");
    }
}

#[tokio::test]
async fn what_is_skipped_is_not_there_and_tls_is_a_choice() {
    let (figures, _) = figures(&["--sessions", "1", "--skip", "idle,sends,restart"]).await;
    let measured = |part: &str| figures.keys().any(|name| name.contains(part));
    assert!(measured("kib_per_session") && measured("seconds_to_terminate"));
    assert_eq!(figures["tls"], false);
    assert!(!measured("idle") && !measured("sends") && !measured("offered") && !measured("kill"));
}

/// The processes that this one has started and that still run.
fn children(process: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|&id| parent(id) == Some(process)).collect()
}

/// The parent of a process that runs.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.next()?.parse().ok()
}

/// A fleet that idles, its data in this folder.
async fn idle_fleet(data: &Path) -> (tokio::process::Child, u32, Vec<u32>) {
    let arguments = ["--sessions", "1", "--settle-seconds", "0", "--idle-seconds", "300", "--data-in"];
    let fleet = fleet(&[&arguments[..], &[data.to_str().unwrap()]].concat()).spawn().expect("fleet starts");
    let id = fleet.id().expect("it runs");
    let started = eventually("the service and the simulator", || async {
        let children = children(id);
        (children.len() == 2).then_some(children)
    })
    .await;
    (fleet, id, started)
}

async fn until_ended(processes: Vec<u32>) {
    eventually("what was started ends", || async { processes.iter().all(|&id| parent(id).is_none()).then_some(()) })
        .await;
}

#[tokio::test]
async fn asked_to_end_it_leaves_nothing_behind() {
    let data = TempDir::new().unwrap();
    let (mut fleet, id, started) = idle_fleet(data.path()).await;
    Command::new("kill").args(["-TERM", &id.to_string()]).status().await.expect("kill runs");
    assert!(!fleet.wait().await.unwrap().success());
    until_ended(started).await;
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "data is left");
}

#[tokio::test]
async fn killed_it_leaves_no_process_behind() {
    let data = TempDir::new().unwrap();
    let (mut fleet, _, started) = idle_fleet(data.path()).await;
    fleet.kill().await.unwrap();
    until_ended(started).await;
}
