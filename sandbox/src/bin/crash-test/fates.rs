//! What the service tells about its messages: while the load runs, and at the end against the phones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::Value;
use whatsapp_simulator::Status;

use crate::load;
use crate::plan::{Job, Way};
use crate::run::Run;
use crate::truth::{Truth, name};
use sandbox::answer::Fate;
use sandbox::api::MESSAGES;
use sandbox::at_once::at_once;

/// How long the messages may take to be settled after the load.
const SETTLING: Duration = Duration::from_secs(600);

/// When this long no more message becomes delivered, the rest is left behind.
const RECEIPTS: Duration = Duration::from_secs(10);

/// How many questions are asked at the same time.
const WIDTH: usize = 8;

/// Asks for the fates of accepted messages, without end: they only move forward.
pub async fn ask_along(run: &Run) {
    let mut rng = run.plan.rng(3);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let n = rng.random_range(0..run.plan.messages.len());
        let Some(accepted) = run.ledger.accepted(n) else { continue };
        let path = format!("/messages/{}", accepted.id);
        let tenant = &run.plan.tenants[run.plan.messages[n].tenant].name;
        // The service may be down.
        let Ok((status, body)) = run.api.try_get(Some(tenant), &path).await else { continue };
        if status < 500
            && let Some(fate) = read(run, n, (status, &body), accepted.fate)
        {
            run.ledger.tell(n, fate);
        }
    }
}

/// The fate in an answer, which is not less than what was told before. `None` is a violation that was noted.
fn read(run: &Run, n: usize, (status, body): (u16, &Value), before: Fate) -> Option<Fate> {
    let fate = body["status"].as_str().filter(|_| status == 200).and_then(Fate::parse);
    match fate {
        None => run.violations.add("fate", format!("{}: told as {status} {body}", name(run, n))),
        Some(fate) if fate < before => {
            run.violations.add("moved_back", format!("{}: told as {before:?} before, now {body}", name(run, n)));
        }
        Some(_) => {}
    }
    fate
}

/// Waits until no message is queued or unknown any more.
///
/// # Errors
/// The service doesn't answer.
pub async fn until_settled(run: &Run) -> anyhow::Result<()> {
    let since = Instant::now();
    for tenant in &run.plan.tenants {
        for status in ["queued", "unknown"] {
            loop {
                let open = count(run, &tenant.name, status).await?;
                if open == 0 {
                    break;
                }
                if since.elapsed() > SETTLING {
                    let name = &tenant.name;
                    run.violations.add("not_settled", format!("{name} still has {open} messages {status}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    Ok(())
}

/// Waits until all that was sent is delivered, or nothing more is.
///
/// # Errors
/// The service doesn't answer.
pub async fn until_delivered(run: &Run) -> anyhow::Result<()> {
    let mut last = (usize::MAX, Instant::now());
    loop {
        let mut open = 0;
        for tenant in &run.plan.tenants {
            open += count(run, &tenant.name, "sent").await?;
        }
        if open < last.0 {
            last = (open, Instant::now());
        }
        if open == 0 || last.1.elapsed() > RECEIPTS {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// How many messages of a tenant have a status, up to a thousand.
async fn count(run: &Run, tenant: &str, wanted: &str) -> anyhow::Result<usize> {
    let (status, body) = run.api.get(tenant, &format!("/messages?status={wanted}&limit=1000")).await?;
    let messages = body["messages"].as_array().filter(|_| status == 200);
    messages.map(Vec::len).ok_or_else(|| anyhow::anyhow!("GET /messages?status={wanted}: {status} {body}"))
}

/// Tries keys again, each in the way in which it was first used: the same message is the answer.
///
/// # Errors
/// The service doesn't answer.
pub async fn check_keys(run: &Arc<Run>) -> anyhow::Result<()> {
    let again = run.plan.tried_again.clone();
    at_once(WIDTH, again, run, |run, n| async move {
        let Some(accepted) = run.ledger.accepted(n) else { return Ok(()) };
        let message = &run.plan.messages[n];
        let first = run.plan.jobs.iter().find(|job| job.messages.contains(&n)).map_or(Way::Waiting, |job| job.way);
        // A key is about the message, not about how long its caller waits.
        let way = if first == Way::Bulk { Way::Bulk } else { Way::Waiting };
        let job = Job { tenant: message.tenant, messages: n..n + 1, way, impatient: None };
        let response = load::request(&run, &job, &[n]).send().await?;
        let status = response.status().as_u16();
        let body: Value = response.json().await?;
        let (expected, id) = match way {
            Way::Bulk => (202, &body["messages"][0]["id"]),
            _ => (200, &body["id"]),
        };
        if status != expected || *id != accepted.id.as_str() {
            let name = name(&run, n);
            run.violations.add("idempotency", format!("{name}, {}: its key again is {status} {body}", accepted.id));
        }
        Ok(())
    })
    .await
}

/// Each tenant's list has the messages that were accepted, and no others.
///
/// # Errors
/// The service doesn't answer.
pub async fn check_lists(run: &Run) -> anyhow::Result<()> {
    let told = run.ledger.all();
    for (index, tenant) in run.plan.tenants.iter().enumerate() {
        let listed = run.api.all(&tenant.name, &MESSAGES).await?;
        let ids: HashSet<_> = listed.iter().filter_map(|message| message["id"].as_str()).collect();
        let own = told.iter().zip(&run.plan.messages).filter(|(_, message)| message.tenant == index);
        let accepted: HashSet<_> =
            own.filter_map(|(told, _)| told.accepted.as_ref()).map(|accepted| accepted.id.as_str()).collect();
        for id in ids.difference(&accepted) {
            run.violations.add("list", format!("{} lists {id}, of which no caller was told", tenant.name));
        }
        for id in accepted.difference(&ids) {
            run.violations.add("list", format!("{} doesn't list {id}", tenant.name));
        }
        if listed.len() != ids.len() {
            run.violations.add("list", format!("{} lists a message twice", tenant.name));
        }
    }
    Ok(())
}

/// What is told less of than could be.
#[derive(Default)]
pub struct Behind {
    /// Messages whose sender's own phone knows more.
    pub known: usize,
    /// Messages that arrived, and whose receipt a fault swallowed: nobody knows.
    pub unknown: usize,
}

/// Asks for every accepted message's fate, and compares it with the phones.
///
/// # Errors
/// The service doesn't answer.
pub async fn check(run: &Arc<Run>, truth: &Truth) -> anyhow::Result<Behind> {
    let all = (0..run.plan.messages.len()).collect();
    at_once(WIDTH, all, run, |run, n| async move {
        let Some(accepted) = run.ledger.accepted(n) else { return Ok(()) };
        let tenant = &run.plan.tenants[run.plan.messages[n].tenant].name;
        let (status, body) = run.api.get(tenant, &format!("/messages/{}", accepted.id)).await?;
        if let Some(fate) = read(&run, n, (status, &body), accepted.fate) {
            run.ledger.tell(n, fate);
            check_fields(&run, n, &accepted.id, &body);
        }
        Ok(())
    })
    .await?;
    let mut behind = Behind::default();
    for n in 0..run.plan.messages.len() {
        let Some(accepted) = run.ledger.accepted(n) else { continue };
        let (fate, ticks) = (accepted.fate, truth.ticks[n].map(fate_of));
        let knows = || format!("{}, {}: told {fate:?}, the phones know {ticks:?}", name(run, n), accepted.id);
        if fate < Fate::Sent {
            run.violations.add("not_settled", knows());
        } else if !truth.arrived[n] {
            run.violations.add("fate", format!("{}, {}: told {fate:?}, not on the phone", name(run, n), accepted.id));
        } else if ticks.is_some_and(|ticks| fate > ticks) {
            run.violations.add("fate", knows());
        } else if fate < ticks.unwrap_or(Fate::Delivered) {
            behind.known += 1;
        } else if fate < Fate::Delivered {
            behind.unknown += 1;
        }
    }
    Ok(behind)
}

/// What a phone's tick means.
fn fate_of(tick: Status) -> Fate {
    match tick {
        Status::Sent => Fate::Sent,
        Status::Delivered => Fate::Delivered,
        Status::Read => Fate::Read,
        Status::Played => Fate::Played,
    }
}

/// A fate names its message, and its times are in order.
pub fn check_fields(run: &Run, n: usize, id: &str, body: &Value) {
    let message = &run.plan.messages[n];
    let to = run.plan.recipients[message.recipient].as_str();
    if body["id"] != id || body["to"] != to || body["reference"] != message.reference.as_str() {
        run.violations.add("fate", format!("{}, {id}, {}: told as {body}", name(run, n), message.reference));
    }
    if !times_are_in_order(body) {
        run.violations.add("times", format!("{}: {body}", name(run, n)));
    }
}

/// Each status has its time, and none is before an earlier one.
fn times_are_in_order(body: &Value) -> bool {
    let time = |field: &str| body[field].as_str();
    let wanted = match body["status"].as_str() {
        Some("sent") => "sentAt",
        Some("delivered") => "deliveredAt",
        Some("read") => "readAt",
        Some("played") => "playedAt",
        _ => "acceptedAt",
    };
    // All have the same form, so they compare as texts.
    let well_formed = |time: &&str| time.len() == 24 && time.ends_with('Z');
    let present = |fields: &[&str]| fields.iter().filter_map(|field| time(field)).collect::<Vec<_>>();
    let (way, doubt) = (
        present(&["acceptedAt", "sentAt", "deliveredAt", "readAt", "playedAt"]),
        present(&["acceptedAt", "unknownAt"]),
    );
    let in_order = |times: &[&str]| times.iter().all(well_formed) && times.is_sorted();
    time("acceptedAt").is_some() && time(wanted).is_some() && in_order(&way) && in_order(&doubt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_have_an_order() {
        let at = |second: u32| format!("2026-01-31T10:30:{second:02}.000Z");
        let fate = |sent: u32, delivered: u32| {
            let mut fate = json!({"status": "delivered", "acceptedAt": at(1)});
            (fate["sentAt"], fate["deliveredAt"]) = (at(sent).into(), at(delivered).into());
            fate
        };
        assert!(times_are_in_order(&fate(1, 2)));
        assert!(times_are_in_order(&json!({"status": "delivered", "acceptedAt": at(1), "deliveredAt": at(2)})));
        assert!(!times_are_in_order(&fate(0, 2)), "sent before it was accepted");
        assert!(!times_are_in_order(&fate(3, 2)), "delivered before it was sent");
        assert!(!times_are_in_order(&json!({"status": "sent", "acceptedAt": at(1)})), "no time of the sending");
        assert!(!times_are_in_order(&json!({"status": "queued", "acceptedAt": "yesterday"})));
    }
}
