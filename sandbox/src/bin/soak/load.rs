//! The trickle of messages, both ways.

use std::sync::{Arc, atomic::Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt as _;
use reqwest::Method;
use sandbox::answer::{Answer, single};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use whatsapp_simulator::WriteError;

use crate::run::{Run, Written, lock};

/// Longer than the service waits for an acknowledgement.
const CALL: Duration = Duration::from_secs(15);

/// Of so many messages, one is handed in by a caller who does not wait for the acknowledgement.
const AT_ONCE: f64 = 0.3;

/// How often somebody reads a chat.
const READING: Duration = Duration::from_secs(1);

/// What is written in a message. No other has this text.
pub fn text(run: &Run, n: usize) -> String {
    format!("soak {} {n}", run.plan.seed)
}

/// Which message has this text; `None` if it is none of this run.
pub fn number(run: &Run, text: &str) -> Option<usize> {
    text.strip_prefix(&format!("soak {} ", run.plan.seed))?.parse().ok()
}

/// Ticks so often a second; what was missed is not made up for.
fn ticks(per_second: f64) -> Interval {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Hands messages in, one after the other, whether or not the ones before are answered. Returns those calls that are
/// still open at the end.
pub async fn send(run: &Arc<Run>, end: Instant) -> JoinSet<()> {
    let (mut rng, mut ticks, mut open) = (run.plan.rng(1), ticks(run.plan.out_per_second), JoinSet::new());
    loop {
        ticks.tick().await;
        if Instant::now() >= end {
            return open;
        }
        let tenant = rng.random_range(0..run.plan.tenants.len());
        let recipient = tenant * run.plan.contacts() + rng.random_range(0..run.plan.contacts());
        let path = if rng.random_bool(AT_ONCE) { "/send?wait=0" } else { "/send" };
        open.spawn(hand_in(Arc::clone(run), tenant, recipient, path));
        while let Some(answered) = open.try_join_next() {
            if let Err(error) = answered {
                run.violations.add("broken_off", format!("a caller: {error}"));
            }
        }
    }
}

/// Repeats one call until an answer settles whether the message was accepted, as a gateway does.
async fn hand_in(run: Arc<Run>, tenant: usize, recipient: usize, path: &str) {
    let n = run.ledger.submit(tenant, recipient);
    let (name, to) = (run.plan.tenants[tenant].name.as_str(), run.plan.recipients[recipient].as_str());
    let (key, body) = (format!("soak-{}-{n}", run.plan.seed), json!({"to": to, "message": text(&run, n)}));
    loop {
        let request = run.api.request(Method::POST, path, Some(name)).header("Idempotency-Key", &key).json(&body);
        let answer = match request.timeout(CALL).send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                response.json::<Value>().await.ok().map(|body| (status, body))
            }
            Err(_) => None,
        };
        let (answer, status, body) = match answer {
            Some((status, body)) => (single(status, &body, None), status, body),
            None => (Answer::Again(None), 0, Value::Null),
        };
        match answer {
            Answer::Accepted { id, .. } => return accept(&run, n, &id),
            // It was accepted, and what became of it stands in the list.
            Answer::Failed if body["id"].is_string() => {
                return accept(&run, n, body["id"].as_str().unwrap_or_default());
            }
            Answer::NotReady => {
                run.counts.refused.fetch_add(1, Relaxed);
                return run.ledger.refuse(n);
            }
            Answer::Failed | Answer::Refused => {
                run.violations.add("refused", format!("message {n} of {name}: {status} {}", body["code"]));
                return run.ledger.refuse(n);
            }
            Answer::Again(_) => {
                run.counts.retried.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(rand::random_range(50..500))).await;
            }
        }
    }
}

fn accept(run: &Run, n: usize, id: &str) {
    run.counts.accepted.fetch_add(1, Relaxed);
    if let Err(before) = run.ledger.accept(n, id) {
        run.violations.add("idempotency", format!("message {n} was told to be {before}, and then {id}"));
    }
}

/// Recipients' phones write to the tenants who write to them. One that is switched off does not.
pub async fn write(run: &Run, end: Instant) -> anyhow::Result<()> {
    let (mut rng, mut ticks) = (run.plan.rng(2), ticks(run.plan.in_per_second));
    for n in 0_u64.. {
        ticks.tick().await;
        if Instant::now() >= end {
            break;
        }
        let recipient = rng.random_range(0..run.plan.recipients.len());
        let (from, tenant) = (&run.plan.recipients[recipient], recipient / run.plan.contacts());
        match run.world().write(from, &run.plan.tenants[tenant].phone, &format!("answer {n}")) {
            Ok(id) => lock(&run.written).push(Written { tenant, id }),
            Err(WriteError::PhoneOff) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Recipients look at their phones.
pub async fn read(run: &Run, end: Instant) {
    let mut rng = run.plan.rng(3);
    while Instant::now() < end {
        tokio::time::sleep(READING).await;
        run.world().read_chats(&run.plan.recipients[rng.random_range(0..run.plan.recipients.len())]);
    }
}
