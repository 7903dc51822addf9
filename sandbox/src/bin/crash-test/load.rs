//! The callers: each takes a tenant's calls one after the other and repeats each until it has an answer that settles
//! whether the message was accepted, as a gateway does.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use sandbox::answer::{Answer, Fate, accepted, single};

use crate::plan::{Job, Way};
use crate::run::Run;

/// Callers of each tenant. With one alone nothing would be handed in at the same time, with many nothing in order.
const CALLERS: usize = 2;

/// Longer than the service waits for an acknowledgement.
const CALL: Duration = Duration::from_secs(15);

/// How long a session may be not ready.
const NOT_READY: Duration = Duration::from_secs(90);

/// How long a caller waits at most for the phones to follow.
const FALLEN_BEHIND: Duration = Duration::from_secs(10);

/// Hands in every message of the plan, and returns when all are settled.
pub async fn load(run: &Arc<Run>) {
    let mut callers = JoinSet::new();
    for tenant in 0..run.plan.tenants.len() {
        let jobs: VecDeque<Job> = run.plan.jobs.iter().filter(|job| job.tenant == tenant).cloned().collect();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..CALLERS {
            let (run, jobs) = (Arc::clone(run), Arc::clone(&jobs));
            callers.spawn(async move {
                let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(job) = next() {
                    wait_for_its_turn(&run, &job).await;
                    do_job(&run, &job).await;
                }
            });
        }
    }
    callers.join_all().await;
}

/// Keeps the load spread over the run: the last messages come after the last kill, and none far ahead of the phones.
async fn wait_for_its_turn(run: &Run, job: &Job) {
    let pause = || tokio::time::sleep(Duration::from_millis(20));
    while job.messages.end > run.plan.held_back_from() && run.kills.load(Relaxed) < run.plan.kills.len() {
        pause().await;
    }
    let (since, ahead) = (Instant::now(), (run.plan.messages.len() / 8).max(50));
    while run.accepted.load(Relaxed) > run.on_phones() + ahead && since.elapsed() < FALLEN_BEHIND {
        pause().await;
    }
}

async fn do_job(run: &Run, job: &Job) {
    let since = Instant::now();
    let mut open: Vec<usize> = job.messages.clone().collect();
    open.iter().for_each(|n| run.ledger.submit(*n));
    for attempt in 0.. {
        if attempt > 0 {
            run.retried.fetch_add(1, Relaxed);
        }
        let patience = job.impatient.filter(|_| attempt == 0).unwrap_or(CALL);
        let (answers, text) = hand_in(run, job, &open, patience).await;
        let mut pause = Duration::from_millis(rand::random_range(20..250));
        let mut still_open = Vec::new();
        for (n, answer) in open.into_iter().zip(answers) {
            match answer {
                Answer::Accepted { id, fate } => accept(run, n, &id, fate),
                Answer::Again(after) => {
                    pause = pause.max(after.unwrap_or_default());
                    still_open.push(n);
                }
                Answer::NotReady if since.elapsed() < NOT_READY => still_open.push(n),
                Answer::NotReady | Answer::Refused => {
                    run.refused.fetch_add(1, Relaxed);
                    run.violations.add("refused", format!("message {n} was refused: {text}"));
                }
                Answer::Failed => {
                    run.told_failed.fetch_add(1, Relaxed);
                    run.violations.add("told_failed", format!("message {n} was told to have failed: {text}"));
                }
            }
        }
        if still_open.is_empty() {
            return;
        }
        open = still_open;
        tokio::time::sleep(pause).await;
    }
}

fn accept(run: &Run, n: usize, id: &str, fate: Fate) {
    if run.ledger.accepted(n).is_none() {
        run.accepted.fetch_add(1, Relaxed);
    }
    if let Err(before) = run.ledger.accept(n, id, fate) {
        run.violations.add("idempotency", format!("message {n} was told to be {before}, and then {id}"));
    }
}

/// One call. The answer to each message, and what was answered in words.
async fn hand_in(run: &Run, job: &Job, open: &[usize], patience: Duration) -> (Vec<Answer>, String) {
    let unsettled = || open.iter().map(|_| Answer::Again(None)).collect();
    let response = match request(run, job, open).timeout(patience).send().await {
        Ok(response) => response,
        Err(error) => return (unsettled(), error.to_string()),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let Ok(bytes) = response.bytes().await else { return (unsettled(), "an answer that broke off".into()) };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(|seconds: u64| Duration::from_secs(seconds.min(5)));
    let text = format!("{status} {body}");
    let answers: Vec<_> = match (job.way, status, body["messages"].as_array()) {
        (Way::Bulk, 202, Some(entries)) if entries.len() == open.len() => entries.iter().map(entry).collect(),
        (Way::Bulk, 200..300, _) => open.iter().map(|_| Answer::Refused).collect(),
        _ => open.iter().map(|_| single(status, &body, after)).collect(),
    };
    let bodies = if job.way == Way::Bulk { body["messages"].as_array().cloned() } else { Some(vec![body]) };
    for ((n, answer), body) in open.iter().zip(&answers).zip(bodies.into_iter().flatten()) {
        if matches!(answer, Answer::Accepted { .. }) {
            check_echo(run, *n, &body);
        }
    }
    (answers, text)
}

/// The call that hands these messages in; the last time as the first.
pub fn request(run: &Run, job: &Job, messages: &[usize]) -> RequestBuilder {
    let tenant = run.plan.tenants[job.tenant].name.as_str();
    let body = |n: usize| {
        let message = &run.plan.messages[n];
        let to = run.plan.recipients[message.recipient].as_str();
        json!({"to": to, "message": message.text, "reference": message.reference})
    };
    if job.way == Way::Bulk {
        let with_key = |n: &usize| {
            let mut body = body(*n);
            body["idempotencyKey"] = json!(run.plan.messages[*n].key);
            body
        };
        let messages: Vec<Value> = messages.iter().map(with_key).collect();
        return run.api.request(Method::POST, "/send/bulk", Some(tenant)).json(&json!({"messages": messages}));
    }
    let n = messages[0];
    let path = if job.way == Way::AtOnce { "/send?wait=0" } else { "/send" };
    let request =
        run.api.request(Method::POST, path, Some(tenant)).header("Idempotency-Key", &run.plan.messages[n].key);
    let request = if job.way == Way::Preferring { request.header("Prefer", "respond-async") } else { request };
    request.json(&body(n))
}

/// What an entry of the answer to `POST /send/bulk` means.
fn entry(body: &Value) -> Answer {
    match body["code"].as_str() {
        Some("session_not_ready") => Answer::NotReady,
        Some("queue_full" | "storage_failed" | "stopping") => Answer::Again(None),
        _ => accepted(body).unwrap_or(Answer::Refused),
    }
}

/// An acceptance names the message that was handed in.
fn check_echo(run: &Run, n: usize, body: &Value) {
    let message = &run.plan.messages[n];
    let to = run.plan.recipients[message.recipient].as_str();
    if body["reference"] != message.reference.as_str() || body["to"] != to {
        run.violations.add("answer", format!("message {n} for {to}, {}, was answered with {body}", message.reference));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_found_no_room_is_handed_in_again() {
        let code = |code: &str| json!({"error": "…", "code": code});
        assert_eq!(entry(&code("queue_full")), Answer::Again(None));
        assert_eq!(entry(&code("invalid_recipient")), Answer::Refused);
    }
}
