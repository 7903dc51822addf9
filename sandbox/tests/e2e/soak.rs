//! The soak, in short. As a program of its own it runs for as long as one likes: see docs/testing.md.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn messages_go_both_ways_through_faults_and_a_kill_and_none_is_lost() {
    let service = Path::new(env!("CARGO_BIN_EXE_sandbox"));
    let series = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.args(["--sessions", "4", "--minutes", "0.25", "--seed", "1", "--kills", "1", "--json"]);
    command.arg("--series").arg(series.path());
    command.arg("--service-binary").arg(service).stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await.expect("the soak starts");
    let (report, progress) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{progress}\n{report}");
    let report: Value = serde_json::from_str(&report).expect("one JSON object");
    assert!(report["accepted"].as_u64() >= Some(50) && report["received"].as_u64() >= Some(25), "{report}");
    assert_eq!((&report["kills"], &report["memoryJudged"]), (&1.into(), &false.into()), "{report}");
    let series = std::fs::read_to_string(series.path()).expect("the series");
    let samples: Vec<Value> = series.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(samples.iter().any(|sample| sample["usage"]["rssKib"].as_u64() > Some(0)), "{series}");
}
