//! Baileys, an independent client, as a process that is driven line by line (`sandbox/baileys/client.mjs`).

#![allow(dead_code, reason = "each test binary uses a different part of it")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const PATIENCE: Duration = Duration::from_secs(120);

/// A running Baileys.
pub struct Baileys {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    history: Vec<Value>,
    posted: usize,
}

/// Where the harness is, if it is installed.
pub fn installed() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("baileys");
    let node = std::process::Command::new("node").arg("--version").output().is_ok_and(|o| o.status.success());
    if node && directory.join("node_modules").is_dir() {
        return Some(directory);
    }
    assert!(std::env::var("CI").is_err(), "CI needs node and `npm ci --prefix sandbox/baileys`");
    eprintln!("skipped: needs Node 20 or newer and `npm ci --prefix sandbox/baileys`");
    None
}

impl Baileys {
    pub fn start(directory: &Path, url: &str, state: &Path) -> Self {
        Self::start_trusting(directory, url, state, None)
    }

    /// Starts it with another root certificate, in a file, beside those that it knows.
    pub fn start_trusting(directory: &Path, url: &str, state: &Path, root: Option<&Path>) -> Self {
        let mut process = Command::new("node")
            .arg("client.mjs")
            .envs(root.map(|root| ("NODE_EXTRA_CA_CERTS", root)))
            .args([url.as_ref(), state.as_os_str()])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { _process: process, input, output, history: Vec::new(), posted: 0 }
    }

    pub async fn tell(&mut self, command: Value) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("Baileys listens");
    }

    /// Lets it send something, and returns the message's id.
    pub async fn post(&mut self, to: &str, content: Value, quoted: Option<&str>) -> String {
        self.tell(json!({ "post": { "to": to, "content": content, "quoted": quoted } })).await;
        self.posted += 1;
        text(&self.wait_for_count(json!({ "event": "posted" }), self.posted).await, "id")
    }

    /// The same with options of Baileys' own.
    pub async fn post_with(&mut self, to: &str, content: Value, options: Value) -> String {
        self.tell(json!({ "post": { "to": to, "content": content, "options": options } })).await;
        self.posted += 1;
        text(&self.wait_for_count(json!({ "event": "posted" }), self.posted).await, "id")
    }

    /// Lets it send a message as it is, and returns its id.
    pub async fn relay(&mut self, to: &str, message: Value) -> String {
        self.tell(json!({ "relay": { "to": to, "message": message } })).await;
        self.posted += 1;
        text(&self.wait_for_count(json!({ "event": "posted" }), self.posted).await, "id")
    }

    /// Waits for an event, past or future, that agrees with `expected` in all its fields.
    pub async fn wait(&mut self, expected: Value) -> Value {
        self.wait_for_count(expected, 1).await
    }

    /// Waits until there are so many of these events, and returns the last.
    async fn wait_for_count(&mut self, expected: Value, count: usize) -> Value {
        let agrees = |event: &Value| {
            expected.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| event.get(name) == Some(value)))
        };
        if let Some(event) = self.history.iter().filter(|e| agrees(e)).nth(count - 1) {
            return event.clone();
        }
        let mut missing = count - self.history.iter().filter(|e| agrees(e)).count();
        let found = tokio::time::timeout(PATIENCE, async {
            while let Ok(Some(line)) = self.output.next_line().await {
                let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "line": line }));
                self.history.push(event.clone());
                missing -= usize::from(agrees(&event));
                if missing == 0 {
                    return Some(event);
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(event)) => event,
            _ => panic!("Baileys did not say {expected}, but: {:#?}", self.history),
        }
    }
}

pub fn text(event: &Value, field: &str) -> String {
    event[field].as_str().unwrap_or_else(|| panic!("no {field} in {event}")).to_owned()
}
