//! The events: what the log has, what the webhook got, and that both tell what happened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fates;
use sandbox::answer::Fate;
use sandbox::api::EVENTS;

use crate::ledger::Told;
use crate::run::Run;
use crate::truth::name;

/// When nothing is delivered for this long, nothing more comes. Longer than a service waits after a few refusals.
const SILENCE: Duration = Duration::from_secs(120);

/// When no message comes in for this long, none will.
const RECEIVING: Duration = Duration::from_secs(20);

/// Checks every tenant's events. `written` are the ids of the messages that phones wrote. Returns how many of those
/// were received.
///
/// # Errors
/// The service doesn't answer.
pub async fn check(run: &Arc<Run>, written: &[String]) -> anyhow::Result<usize> {
    let told = run.ledger.all();
    let (mut ids, mut received) = (HashSet::new(), 0);
    for (index, tenant) in run.plan.tenants.iter().enumerate() {
        let log = until_received(run, index, written).await?;
        let taken = until_delivered(run, index, log.len() as u64).await;
        if taken < log.len() as u64 {
            let (name, last) = (&tenant.name, log.len());
            run.violations.add("webhook", format!("{name}: of {last} events the webhook took the first {taken}"));
        }
        check_log(run, index, &log);
        for event in &log {
            if !ids.insert(event["id"].as_str().unwrap_or_default().to_owned()) {
                run.violations.add("log", format!("{}: the id of {event} is not its own", tenant.name));
            }
        }
        check_statuses(run, index, &log, &told);
        received += check_received(run, index, &log, written);
    }
    Ok(received)
}

/// A tenant's log, once everything that phones wrote to the tenant is in it, or nothing more comes.
async fn until_received(run: &Run, index: usize, written: &[String]) -> anyhow::Result<Vec<Value>> {
    let own = run.plan.written.iter().zip(written).filter(|(planned, _)| planned.tenant == index);
    let own: Vec<_> = own.map(|(_, id)| id.as_str()).collect();
    let mut progress = (0, Instant::now());
    loop {
        let log = run.api.all(&run.plan.tenants[index].name, &EVENTS).await?;
        let received: HashSet<_> = of_type(&log, "message.received").filter_map(|data| data["id"].as_str()).collect();
        if received.len() > progress.0 {
            progress = (received.len(), Instant::now());
        }
        if own.iter().all(|id| received.contains(id)) || progress.1.elapsed() > RECEIVING {
            return Ok(log);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the webhook has taken a tenant's events up to `last`, or nothing more comes. Returns how far it is.
async fn until_delivered(run: &Run, index: usize, last: u64) -> u64 {
    let mut progress = (0, Instant::now());
    loop {
        let (taken, deliveries) = (run.inbox.taken_up_to(index), run.inbox.counts().deliveries);
        if deliveries > progress.0 {
            progress = (deliveries, Instant::now());
        }
        if taken >= last || progress.1.elapsed() > SILENCE {
            return taken;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The log is whole, and was delivered as it is.
fn check_log(run: &Run, index: usize, log: &[Value]) {
    let tenant = &run.plan.tenants[index].name;
    for (sequence, event) in (1..).zip(log) {
        if event["sequence"] != sequence || event["tenantId"] != tenant.as_str() {
            run.violations.add("log", format!("{tenant}: in the place of event {sequence} the log has {event}"));
            return;
        }
        match run.inbox.event(index, sequence) {
            None => run.violations.add("webhook", format!("{tenant}: the webhook never got {event}")),
            Some(delivered) if delivered != *event => {
                run.violations.add("webhook", format!("{tenant}: the webhook got {delivered}, the log has {event}"));
            }
            Some(_) => {}
        }
    }
}

fn of_type<'a>(log: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    log.iter().filter(move |event| event["type"] == kind).map(|event| &event["data"])
}

/// Each accepted message has its transitions in order, each once, up to what is told of it.
fn check_statuses(run: &Run, index: usize, log: &[Value], told: &[Told]) {
    let own = |n: &usize| run.plan.messages[*n].tenant == index;
    let accepted: HashMap<_, _> = told
        .iter()
        .enumerate()
        .filter(|(n, _)| own(n))
        .filter_map(|(n, told)| Some((told.accepted.as_ref()?.id.as_str(), n)))
        .collect();
    let mut statuses: HashMap<usize, Vec<&str>> = accepted.values().map(|n| (*n, Vec::new())).collect();
    for data in of_type(log, "message.status") {
        let known = data["id"].as_str().and_then(|id| Some((id, *accepted.get(id)?)));
        let Some((id, n)) = known else {
            let tenant = &run.plan.tenants[index].name;
            run.violations.add("status_events", format!("{tenant}: of a message that no caller was told of: {data}"));
            continue;
        };
        fates::check_fields(run, n, id, data);
        statuses.entry(n).or_default().push(data["status"].as_str().unwrap_or("none"));
    }
    for (n, statuses) in statuses {
        let fate = told[n].accepted.as_ref().map(|accepted| accepted.fate);
        if let Some(wrong) = wrong_with(&statuses, fate) {
            run.violations
                .add("status_events", format!("{}: told {fate:?}, events {statuses:?}: {wrong}", name(run, n)));
        }
    }
}

/// What is wrong with the transitions of a message, if something is.
fn wrong_with(statuses: &[&str], told: Option<Fate>) -> Option<&'static str> {
    let Some(fates) = statuses.iter().map(|status| Fate::parse(status)).collect::<Option<Vec<_>>>() else {
        return Some("no status of a message that is well");
    };
    if !fates.is_sorted_by(|a, b| a < b) {
        Some("not forward")
    } else if fates.first() == Some(&Fate::Queued) {
        Some("being accepted is no event")
    } else if fates.last().copied() < told.filter(|told| *told >= Fate::Sent) {
        Some("less than what is told")
    } else {
        None
    }
}

/// Each message that a phone wrote to the tenant is there once, as it was written, and nothing else is. Returns how
/// many are there.
fn check_received(run: &Run, index: usize, log: &[Value], written: &[String]) -> usize {
    let tenant = &run.plan.tenants[index].name;
    let own = run.plan.written.iter().zip(written).filter(|(planned, _)| planned.tenant == index);
    let mut expected: HashMap<&str, (_, usize)> = own.map(|(planned, id)| (id.as_str(), (planned, 0))).collect();
    for data in of_type(log, "message.received") {
        let Some((planned, times)) = data["id"].as_str().and_then(|id| expected.get_mut(id)) else {
            run.violations.add("received", format!("{tenant}: nobody wrote {data}"));
            continue;
        };
        *times += 1;
        let from = run.plan.recipients[planned.recipient].as_str();
        let known = data["from"].as_str().is_none_or(|known| known == from);
        if data["text"] != planned.text.as_str() || data["kind"] != "text" || !known {
            run.violations.add("received", format!("{tenant}: recipient {} wrote no {data}", planned.recipient));
        }
    }
    for (id, (planned, times)) in &expected {
        if *times != 1 {
            let what = format!("{tenant}: {id} of recipient {} is there {times} times", planned.recipient);
            run.violations.add("received", what);
        }
    }
    expected.values().filter(|(_, times)| *times > 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_go_forward() {
        let told = |statuses: &[&str], fate| wrong_with(statuses, Some(fate));
        assert_eq!(told(&["sent"], Fate::Sent), None);
        assert_eq!(told(&["unknown", "sent", "delivered", "read"], Fate::Read), None);
        assert_eq!(told(&["unknown", "delivered"], Fate::Delivered), None, "a lost acknowledgement");
        assert_eq!(told(&["sent", "delivered"], Fate::Sent), None, "delivered after it was told");
        assert_eq!(told(&[], Fate::Queued), None);
        assert_eq!(told(&["sent", "sent"], Fate::Sent), Some("not forward"));
        assert_eq!(told(&["delivered", "sent"], Fate::Delivered), Some("not forward"));
        assert_eq!(told(&["sent"], Fate::Delivered), Some("less than what is told"));
        assert_eq!(told(&[], Fate::Sent), Some("less than what is told"));
        assert!(told(&["sent", "failed"], Fate::Sent).is_some());
    }
}
