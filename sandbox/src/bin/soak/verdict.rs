//! At the end: the phones, the fates and the logs against what the callers were told and what phones wrote.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sandbox::answer::Fate;
use sandbox::api::{EVENTS, MESSAGES};
use sandbox::order::{InChat, overtaken};
use sandbox::usage::Usage;
use serde_json::Value;

use crate::ledger::{Message, Told};
use crate::load::number;
use crate::run::{Run, lock};
use crate::watch;

/// When the phones get nothing more for this long, nothing more comes.
const ARRIVING: Duration = Duration::from_secs(20);

/// How many descriptors more than at the beginning are no leak: the store opens some of its readers when it first
/// needs them.
const MORE_DESCRIPTORS: u64 = 32;

/// The same for threads.
const MORE_THREADS: u64 = 16;

/// How long they may take to go back: threads and connections that have nothing to do end some time later.
const GOING_BACK: Duration = Duration::from_secs(90);

/// Waits until every session is ready. Returns how many seconds that took.
///
/// # Errors
/// The service doesn't answer.
pub async fn until_ready(run: &Run, limit: Duration) -> anyhow::Result<u64> {
    let since = Instant::now();
    loop {
        let not_ready = run.not_ready().await?;
        if not_ready.is_empty() {
            return Ok(since.elapsed().as_secs());
        }
        if since.elapsed() > limit {
            for (tenant, what) in not_ready {
                run.violations.add("stuck", format!("{tenant} is {what}, {limit:?} after the last fault"));
            }
            return Ok(since.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until no message is queued or unknown, or the time is over.
///
/// # Errors
/// The service doesn't answer.
pub async fn until_settled(run: &Run, limit: Duration) -> anyhow::Result<()> {
    let since = Instant::now();
    let mut open: Vec<_> = run.plan.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    while !open.is_empty() && since.elapsed() < limit {
        let mut still_open = Vec::new();
        for tenant in open {
            for status in ["queued", "unknown"] {
                let (_, body) = run.api.get(tenant, &format!("/messages?status={status}&limit=1")).await?;
                if body["messages"].as_array().is_none_or(|messages| !messages.is_empty()) {
                    still_open.push(tenant);
                    break;
                }
            }
        }
        open = still_open;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// A message on its recipient's phone.
struct Shown {
    id: String,
    position: usize,
}

/// What came of the messages to the phones.
#[derive(Default)]
pub struct Outgoing {
    /// How many have which fate at the end.
    pub fates: BTreeMap<String, usize>,
    /// Those of which nobody knows whether they arrived.
    pub unknown: Vec<String>,
    /// Pairs of messages whose order was checked.
    pub pairs: usize,
    /// Those of them that arrived in the other order on a phone that had asked for messages again.
    pub late: usize,
}

/// Every accepted message is on its recipient's phone once, under the id that was told, in order, or its fate says
/// what is so; nothing else is there.
///
/// # Errors
/// The service doesn't answer.
pub async fn outgoing(run: &Run) -> anyhow::Result<Outgoing> {
    let told = run.ledger.all();
    let (shown, strangers) = until_shown(run, &told).await;
    for (recipient, id) in strangers {
        run.violations.add("never_accepted", format!("recipient {recipient} has {id}, which nobody sent to it"));
    }
    let mut outgoing = Outgoing::default();
    for (n, (message, shown)) in told.iter().zip(&shown).enumerate() {
        let ids: Vec<_> = shown.iter().map(|shown| shown.id.as_str()).collect();
        match (&message.told, ids.as_slice()) {
            (Told::Nothing, ids) => {
                let what = format!("{}: no answer settled it; on the phone as {ids:?}", name(n, message));
                run.violations.add("unanswered", what);
            }
            (Told::Accepted { id, .. }, [on_phone]) if id != on_phone => {
                run.violations.add("wrong_id", format!("{}: told as {id}, arrived as {on_phone}", name(n, message)));
            }
            (Told::Refused, []) | (Told::Accepted { .. }, [] | [_]) => {}
            (Told::Accepted { id, .. }, ids) => {
                run.violations.add("doubled", format!("{}: told as {id}, arrived as {ids:?}", name(n, message)));
            }
            (Told::Refused, ids) => {
                run.violations.add("never_accepted", format!("{}: refused, arrived as {ids:?}", name(n, message)));
            }
        }
    }
    let by_id: HashMap<_, _> = told.iter().enumerate().filter_map(|(n, message)| Some((id(message)?, n))).collect();
    for (index, tenant) in run.plan.tenants.iter().enumerate() {
        let mut unlisted: HashMap<_, _> =
            by_id.iter().filter(|(_, n)| told[**n].tenant == index).map(|(id, n)| (*id, *n)).collect();
        for listed in run.api.all(&tenant.name, &MESSAGES).await? {
            let (id, status) = (listed["id"].as_str().unwrap_or_default(), listed["status"].as_str());
            let Some(n) = unlisted.remove(id) else {
                let what = format!("{} lists {id}, of which no caller was told, or which is there twice", tenant.name);
                run.violations.add("list", what);
                continue;
            };
            let status = status.unwrap_or("none");
            *outgoing.fates.entry(status.to_owned()).or_default() += 1;
            check_fate(run, &name(n, &told[n]), &listed, !shown[n].is_empty());
            if status == "unknown" {
                outgoing.unknown.push(id.to_owned());
            }
        }
        for (id, n) in unlisted {
            let (kind, name) = (if shown[n].is_empty() { "missing" } else { "list" }, name(n, &told[n]));
            run.violations.add(kind, format!("{name}, {id}: accepted, and not in the tenant's list"));
        }
    }
    (outgoing.pairs, outgoing.late) = check_order(run, &told, &shown);
    Ok(outgoing)
}

/// A message in words, without what it says.
fn name(n: usize, message: &Message) -> String {
    format!("message {n} of tenant {} to recipient {}", message.tenant, message.recipient)
}

fn id(message: &Message) -> Option<&str> {
    if let Told::Accepted { id, .. } = &message.told { Some(id) } else { None }
}

/// A fate is no lie.
fn check_fate(run: &Run, name: &str, listed: &Value, arrived: bool) {
    let (id, status) = (&listed["id"], listed["status"].as_str().unwrap_or("none"));
    match Fate::parse(status) {
        Some(Fate::Queued) => run.violations.add("not_settled", format!("{name}, {id}: still queued")),
        // May have arrived, and may not: counted, not judged.
        Some(Fate::Unknown) => {}
        Some(_) if arrived => {}
        Some(_) => run.violations.add("missing", format!("{name}, {id}: told {status}, not on the phone")),
        None if status == "failed" && !arrived => {}
        None => run.violations.add("fate", format!("{name}, {id}: told {status}, on the phone: {arrived}")),
    }
}

/// What the phones show, once all that was accepted is there, or nothing more comes.
async fn until_shown(run: &Run, told: &[Message]) -> (Vec<Vec<Shown>>, Vec<(usize, String)>) {
    let accepted = told.iter().filter(|message| id(message).is_some()).count();
    let mut progress = (0, Instant::now());
    loop {
        let arrived: u64 = run.of_recipients().map(|totals| totals.shown).sum();
        if arrived > progress.0 {
            progress = (arrived, Instant::now());
        }
        let (shown, strangers) = shown(run, told);
        let there = told.iter().zip(&shown).filter(|(message, shown)| id(message).is_some() && !shown.is_empty());
        if there.count() == accepted || progress.1.elapsed() > ARRIVING {
            return (shown, strangers);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Where each message is on its recipient's phone, and what else is on the phones: whose, and its id.
fn shown(run: &Run, told: &[Message]) -> (Vec<Vec<Shown>>, Vec<(usize, String)>) {
    let mut shown: Vec<Vec<Shown>> = told.iter().map(|_| Vec::new()).collect();
    let mut strangers = Vec::new();
    for (recipient, phone) in run.plan.recipients.iter().enumerate() {
        let messages = run.world().messages(phone).unwrap_or_default();
        for (position, message) in messages.into_iter().enumerate().filter(|(_, message)| !message.from_me) {
            let sent = number(run, &message.text).filter(|n| {
                told.get(*n).is_some_and(|told| {
                    told.recipient == recipient && run.plan.tenants[told.tenant].phone.as_str() == message.from
                })
            });
            match sent {
                Some(n) => shown[n].push(Shown { id: message.id, position }),
                None => strangers.push((recipient, message.id)),
            }
        }
    }
    (shown, strangers)
}

/// A message that was handed in after the answer to another one arrives after it, unless that was asked for again.
/// Returns how many pairs there were, and how many came late for that reason.
fn check_order(run: &Run, told: &[Message], shown: &[Vec<Shown>]) -> (usize, usize) {
    let mut chats: HashMap<usize, Vec<InChat>> = HashMap::new();
    for (n, (message, shown)) in told.iter().zip(shown).enumerate() {
        let (Told::Accepted { at, .. }, [shown]) = (&message.told, shown.as_slice()) else { continue };
        if !run.plan.reads_poorly(message.recipient) {
            let in_chat = InChat { n, position: shown.position, submitted: message.submitted, accepted: *at };
            chats.entry(message.recipient).or_default().push(in_chat);
        }
    }
    let asked_again: Vec<_> = run.of_recipients().map(|totals| totals.retry_receipts).collect();
    let (mut pairs, mut late) = (0, 0);
    for (recipient, chat) in &chats {
        let (of_chat, overtaken) = overtaken(chat);
        pairs += of_chat;
        if asked_again[*recipient] > 0 {
            late += overtaken.len();
            continue;
        }
        for (first, second) in overtaken {
            let name = name(first, &told[first]);
            run.violations.add("order", format!("{name} was accepted before {second} was handed in, and came later"));
        }
    }
    (pairs, late)
}

/// What phones wrote is in the event logs, each message once, and nothing else is. Returns how many are there.
///
/// # Errors
/// The service doesn't answer.
pub async fn incoming(run: &Run) -> anyhow::Result<usize> {
    let mut expected: Vec<HashMap<String, usize>> = run.plan.tenants.iter().map(|_| HashMap::new()).collect();
    for written in lock(&run.written).iter() {
        expected[written.tenant].insert(written.id.clone(), 0);
    }
    let mut received = 0;
    for (tenant, expected) in run.plan.tenants.iter().zip(&mut expected) {
        let log = until_received(run, &tenant.name, expected).await?;
        for (sequence, event) in (1_u64..).zip(&log) {
            if event["sequence"] != sequence {
                let what = format!("{}: {} stands in the place of event {sequence}", tenant.name, event["id"]);
                run.violations.add("log", what);
                break;
            }
        }
        for event in log.iter().filter(|event| event["type"] == "message.received") {
            match event["data"]["id"].as_str().and_then(|id| expected.get_mut(id)) {
                Some(times) => *times += 1,
                None => {
                    run.violations.add("received", format!("{}: nobody wrote {}", tenant.name, event["data"]["id"]))
                }
            }
        }
        for (id, times) in expected.iter().filter(|(_, times)| **times != 1) {
            run.violations.add("received", format!("{}: {id} is in the log {times} times", tenant.name));
        }
        received += expected.values().filter(|times| **times > 0).count();
    }
    Ok(received)
}

/// A tenant's log, once all that was written to the tenant is in it, or nothing more comes.
async fn until_received(run: &Run, tenant: &str, expected: &HashMap<String, usize>) -> anyhow::Result<Vec<Value>> {
    let mut progress = (0, Instant::now());
    loop {
        let log = run.api.all(tenant, &EVENTS).await?;
        let received = log.iter().filter(|event| event["type"] == "message.received");
        let there = received.filter_map(|event| event["data"]["id"].as_str()).filter(|id| expected.contains_key(*id));
        let there = there.collect::<std::collections::HashSet<_>>().len();
        if there > progress.0 {
            progress = (there, Instant::now());
        }
        if there == expected.len() || progress.1.elapsed() > ARRIVING {
            return Ok(log);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Descriptors and threads go back to what they were. Returns what they are.
///
/// # Errors
/// The process can't be looked at.
pub async fn until_back(run: &Run, before: Usage) -> anyhow::Result<Usage> {
    let since = Instant::now();
    loop {
        let now = watch::usage(run)?;
        let (descriptors, threads) = (before.descriptors + MORE_DESCRIPTORS, before.threads + MORE_THREADS);
        let back = now.descriptors <= descriptors && now.threads <= threads;
        if !back && since.elapsed() > GOING_BACK {
            let what = format!("{} descriptors and {} threads, before the load", before.descriptors, before.threads);
            run.violations.add("leak", format!("{} and {}; it was {what}", now.descriptors, now.threads));
        }
        if back || since.elapsed() > GOING_BACK {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Most of what was handed in was accepted: a service that refuses everything loses nothing either.
pub fn accepted_enough(run: &Run) {
    let (handed_in, accepted) = (run.ledger.len(), run.counts.accepted.load(Relaxed));
    if accepted * 5 < handed_in * 4 {
        run.violations.add("refused", format!("of {handed_in} messages {accepted} were accepted"));
    }
}
