//! The examples of `README.md`, the tutorial and the manual, run as they stand there.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{ANA, BRUNO, SECRET, World, eventually};

const README: &str = include_str!("../../../README.md");
const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");
const ENDPOINTS: &str = include_str!("../../../docs/endpoints.md");
const MESSAGES: &str = include_str!("../../../docs/messages.md");

/// What every example runs after: a call that is refused ends it, and what comes in is waited for and not slept for.
const BEFORE: &str = r#"
set -euo pipefail
curl() { command curl -sS --fail-with-body "$@"; }
received() { curl "$SERVICE/events?limit=1000" -H "X-Internal-Secret: $SECRET" -H 'X-Tenant-Id: demo' | grep -o '"message.received"' | wc -l; }
before=$(received || true)
"#;
const UNTIL_RECEIVED: &str = r#"until [ "$(received || true)" -gt "$before" ]; do sleep 0.1; done"#;

/// The examples below a heading, up to the next one of its kind, or of the kind above. Those in a list are indented.
fn examples(document: &'static str, heading: &str) -> Vec<String> {
    let below = ["## ", "### "].iter().find_map(|kind| document.split_once(&format!("\n{kind}{heading}\n")));
    let (_, section) = below.unwrap_or_else(|| panic!("no heading {heading}"));
    let ends = if document.contains(&format!("\n### {heading}\n")) { &["\n### ", "\n## "][..] } else { &["\n## "] };
    let section = ends.iter().fold(section, |section, next| section.split(next).next().unwrap_or(section));
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest));
    blocks
        .map(|block| block.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect())
        .collect()
}

/// Runs the examples below a heading, which must succeed, against this world.
async fn run(world: &World, document: &'static str, heading: &str) {
    let found = examples(document, heading);
    assert!(!found.is_empty(), "{heading} has an example");
    for example in &found {
        run_one(world, heading, example).await;
    }
}

async fn run_one(world: &World, heading: &str, example: &str) {
    let script = example
        .replace("http://127.0.0.1:3000", &world.service.url)
        .replace("http://127.0.0.1:3001", &world.simulator.http_url())
        .replace("X-Internal-Secret: sandbox", &format!("X-Internal-Secret: {SECRET}"))
        .replace("sleep 1", UNTIL_RECEIVED);
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{BEFORE}{script}")]).env("SERVICE", &world.service.url).env("SECRET", SECRET);
    // Where a reader stands who has cloned this.
    bash.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let output = bash.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await;
    let output = output.unwrap_or_else(|_| panic!("{heading}: {example} does not end")).unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{heading}: {example}{}", String::from_utf8_lossy(&said));
}

/// Waits until Bruno's phone shows every kind of message, and what was done to some.
async fn until_every_kind_is_shown(world: &World) {
    let wanted = ["audio", "contact", "document", "image", "location", "sticker", "text", "video", "voice"];
    eventually("every kind on the phone", || async {
        let shown = world.shown_on(BRUNO).await;
        let kinds: BTreeSet<_> = shown.iter().filter_map(|message| message["kind"].as_str()).collect();
        let any = |field: &str, value: Value| shown.iter().any(|message| message[field] == value);
        let changed = any("edited", json!(true)) && any("revoked", json!(true));
        let answered = shown.iter().any(|message| message["replyTo"].is_string());
        (wanted.iter().all(|kind| kinds.contains(kind)) && changed && answered).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_example_of_the_manual_does_what_it_says() {
    let world = World::start().await;
    world.pair("demo", ANA).await;
    for heading in
        ["POST /send", "GET /messages/{id}/media", "POST /messages/{id}/read", "POST /presence", "POST /numbers/check"]
    {
        run(&world, ENDPOINTS, heading).await;
    }
    run(&world, MESSAGES, "What can be sent").await;
    until_every_kind_is_shown(&world).await;
    let reacted = json!([{"from": ANA, "emoji": "🎉"}]);
    eventually("the reaction", || async {
        world.shown_on(BRUNO).await.iter().any(|message| message["reactions"] == reacted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_steps_of_the_readme_lead_to_a_message_on_a_phone() {
    let world = World::start().await;
    let steps = examples(README, "Try it");
    let (scan, send) = steps.split_first().expect("steps");
    run_one(&world, "Try it", scan).await;
    world.service.tenant("demo").until_state("ready").await;
    // The last one runs the tests.
    assert_eq!(send.last().map(String::as_str), Some("cargo test --workspace\n"));
    for step in &send[..send.len() - 1] {
        run_one(&world, "Try it", step).await;
    }
    world.until_shown(BRUNO, "Hello from the sandbox!").await;
}

#[tokio::test]
async fn every_example_of_the_tutorial_does_what_it_says() {
    let world = World::start().await;
    run(&world, TUTORIAL, "Link a phone").await;
    world.service.tenant("demo").until_state("ready").await;
    for heading in ["Send a text", "Send more than text", "Receive"] {
        run(&world, TUTORIAL, heading).await;
    }
    until_every_kind_is_shown(&world).await;
    let sent = world.service.tenant("demo").get("/messages").await;
    let sent = sent["messages"].as_array().unwrap();
    assert_eq!(sent.len(), 15, "{sent:?}");
    for message in sent {
        world.service.tenant("demo").until_fate(&message["id"], "delivered").await;
    }
    // What a reader sees in the end: the message that was reacted to, with its new words, and another one deleted.
    let one = async |field: &str, value: Value| {
        let shown = world.shown_on(BRUNO).await;
        let mut found = shown.into_iter().filter(|message| message[field] == value);
        let (first, second) = (found.next(), found.next());
        assert!(second.is_none(), "two messages with {field} {value}");
        first.unwrap_or_else(|| panic!("no message with {field} {value}"))
    };
    let edited = one("edited", json!(true)).await;
    assert_eq!(edited["text"], "Shall we meet at eight?");
    assert_eq!(edited["reactions"], json!([{"from": ANA, "emoji": "🎉"}]));
    assert_ne!(edited["revoked"], true);
    assert_eq!(one("replyTo", edited["id"].clone()).await["text"], "Or at ten?");
    assert_ne!(one("revoked", json!(true)).await["id"], edited["id"]);
    // The samples have arrived as they are, and there is something in them to see and to hear.
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    for (kind, file, seconds) in [
        ("image", "image.png", None),
        ("video", "video.mp4", Some(2)),
        ("audio", "audio.mp3", Some(2)),
        ("voice", "voice.ogg", Some(2)),
        ("sticker", "sticker.webp", None),
    ] {
        let message = one("kind", json!(kind)).await;
        let sample = std::fs::read(samples.join(file)).unwrap();
        assert_eq!(message["media"]["size"], sample.len(), "{message}");
        assert!((1_000..32_000).contains(&sample.len()), "{file} is neither empty nor a burden");
        assert_eq!(message["media"]["seconds"].as_u64(), seconds, "{message}");
    }
}
