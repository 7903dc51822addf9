//! The crash test, in short. As a program of its own it runs for as long as one likes: see docs/testing.md.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

async fn crash_test(arguments: &[&str]) {
    let service = Path::new(env!("CARGO_BIN_EXE_sandbox"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash-test"));
    command.args(["--kills", "4", "--messages", "400", "--tenants", "5"]).args(arguments);
    command.arg("--service-binary").arg(service).stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await.expect("the crash test starts");
    let (report, progress) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{progress}\n{report}");
}

#[tokio::test]
async fn killed_again_and_again_it_loses_nothing_and_tells_the_truth() {
    crash_test(&["--seed", "7"]).await;
}

#[tokio::test]
async fn killed_again_and_again_it_sends_again_what_phones_could_not_read() {
    crash_test(&["--seed", "9004", "--unreadable"]).await;
}
