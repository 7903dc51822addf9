//! The examples of `docs/api.md`, run as they stand there.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::json;
use tokio::process::Command;

use crate::harness::{ANA, BRUNO, SECRET, World, eventually};

const MANUAL: &str = include_str!("../../../docs/api.md");

/// What every example runs after: a call that is refused ends it, and what comes in is waited for and not slept for.
const BEFORE: &str = r#"
set -euo pipefail
curl() { command curl -sS --fail-with-body "$@"; }
received() { curl "$SERVICE/events?limit=1000" -H "X-Internal-Secret: $SECRET" -H 'X-Tenant-Id: demo' | grep -o '"message.received"' | wc -l; }
before=$(received || true)
"#;
const UNTIL_RECEIVED: &str = r#"until [ "$(received || true)" -gt "$before" ]; do sleep 0.1; done"#;

/// The examples below a heading, up to the next one of its kind.
fn examples(heading: &str) -> Vec<&'static str> {
    let (_, section) = MANUAL.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let section = section.split("\n### ").next().unwrap_or(section);
    section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest)).collect()
}

#[tokio::test]
async fn every_example_of_a_message_does_what_it_says() {
    let world = World::start().await;
    world.pair("demo", ANA).await;
    let headings =
        ["POST /send", "GET /messages/{id}/media", "POST /messages/{id}/read", "POST /presence", "POST /numbers/check"];
    for heading in headings {
        let found = examples(heading);
        assert!(!found.is_empty(), "{heading} has an example");
        for example in found {
            let script = example
                .replace("http://127.0.0.1:3000", &world.service.url)
                .replace("http://127.0.0.1:3001", &world.simulator.http_url())
                .replace("X-Internal-Secret: sandbox", &format!("X-Internal-Secret: {SECRET}"))
                .replace("sleep 1", UNTIL_RECEIVED);
            let mut bash = Command::new("bash");
            bash.args(["-c", &format!("{BEFORE}{script}")]).env("SERVICE", &world.service.url).env("SECRET", SECRET);
            let output = bash.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{heading}: {example}{}", String::from_utf8_lossy(&said));
        }
    }
    let wanted = ["audio", "contact", "document", "image", "location", "sticker", "text", "video", "voice"];
    eventually("every kind on the phone", || async {
        let shown = world.shown_on(BRUNO).await;
        let kinds: BTreeSet<_> = shown.iter().filter_map(|message| message["kind"].as_str()).collect();
        let any = |field: &str, value: serde_json::Value| shown.iter().any(|message| message[field] == value);
        let changed = any("edited", json!(true)) && any("revoked", json!(true));
        let answered = shown.iter().any(|message| message["replyTo"].is_string());
        let reacted = any("reactions", json!([{"from": ANA, "emoji": "🎉"}]));
        (wanted.iter().all(|kind| kinds.contains(kind)) && changed && answered && reacted).then_some(())
    })
    .await;
}
