//! What the phones show, against what the callers were told.

use std::collections::{HashMap, HashSet};

use sandbox::order::{InChat, overtaken};
use whatsapp_simulator::Status;

use crate::ledger::Told;
use crate::run::Run;

/// The phones' side of every message, in the order of the plan.
pub struct Truth {
    /// Whether the recipient's phone shows it.
    pub arrived: Vec<bool>,
    /// How far the sender's own phone saw it get; `None` if that phone doesn't show it.
    pub ticks: Vec<Option<Status>>,
    /// Pairs of messages whose order was checked.
    pub pairs: usize,
    /// Those of them that arrived in the other order on a phone that had asked for messages again: what a phone could
    /// not read at first comes late, whoever sends it.
    pub late: usize,
}

/// A message on its recipient's phone.
struct Shown {
    id: String,
    position: usize,
}

/// Every accepted message is on its recipient's phone once, under the id that was told, in order, and nothing else is.
pub fn check(run: &Run, written: &[String]) -> Truth {
    let told = run.ledger.all();
    let shown = shown(run);
    for (n, (told, shown)) in told.iter().zip(&shown).enumerate() {
        let ids: Vec<_> = shown.iter().map(|shown| shown.id.as_str()).collect();
        let name = name(run, n);
        match (&told.accepted, ids.as_slice()) {
            (Some(accepted), []) => {
                let (id, fate) = (&accepted.id, accepted.fate);
                run.violations.add("missing", format!("{name}: told as {id}, {fate:?}; the phone doesn't have it"));
            }
            (Some(accepted), [id]) if accepted.id != *id => {
                run.violations.add("wrong_id", format!("{name}: told as {}, on the phone as {id}", accepted.id));
            }
            (None, []) | (Some(_), [_]) => {}
            (Some(accepted), ids) => {
                run.violations.add("doubled", format!("{name}: told as {}, on the phone as {ids:?}", accepted.id));
            }
            (None, ids) => run.violations.add("never_accepted", format!("{name}: on the phone as {ids:?}")),
        }
    }
    let (pairs, late) = check_order(run, &told, &shown);
    Truth {
        arrived: shown.iter().map(|shown| !shown.is_empty()).collect(),
        ticks: ticks(run, &told, written),
        pairs,
        late,
    }
}

/// A message in words.
pub fn name(run: &Run, n: usize) -> String {
    let message = &run.plan.messages[n];
    format!("message {n} of {} to recipient {}", run.plan.tenants[message.tenant].name, message.recipient)
}

/// Where each message is shown on its recipient's phone.
fn shown(run: &Run) -> Vec<Vec<Shown>> {
    let by_text: HashMap<_, _> =
        run.plan.messages.iter().enumerate().map(|(n, message)| (message.text.as_str(), n)).collect();
    let mut shown: Vec<Vec<Shown>> = run.plan.messages.iter().map(|_| Vec::new()).collect();
    for (recipient, phone) in run.plan.recipients.iter().enumerate() {
        let messages = run.world().messages(phone).unwrap_or_default();
        for (position, message) in messages.into_iter().enumerate().filter(|(_, message)| !message.from_me) {
            let planned = by_text.get(message.text.as_str()).copied().filter(|n| {
                let planned = &run.plan.messages[*n];
                planned.recipient == recipient && run.plan.tenants[planned.tenant].phone.as_str() == message.from
            });
            match planned {
                Some(n) => shown[n].push(Shown { id: message.id, position }),
                None => run.violations.add(
                    "never_accepted",
                    format!("recipient {recipient} has {} from {}: {:?}", message.id, message.from, message.text),
                ),
            }
        }
    }
    shown
}

/// What the tenants' own phones show: their tenant's messages with their ticks, and what was written to them.
fn ticks(run: &Run, told: &[Told], written: &[String]) -> Vec<Option<Status>> {
    let by_id: HashMap<_, _> =
        told.iter().enumerate().filter_map(|(n, told)| Some((told.accepted.as_ref()?.id.as_str(), n))).collect();
    let written: HashSet<_> = written.iter().map(String::as_str).collect();
    let mut ticks = vec![None; told.len()];
    for (index, tenant) in run.plan.tenants.iter().enumerate() {
        for message in run.world().messages(&tenant.phone).unwrap_or_default() {
            let own = by_id.get(message.id.as_str()).filter(|n| run.plan.messages[**n].tenant == index);
            match own {
                Some(n) if message.from_me => ticks[*n] = ticks[*n].max(message.status),
                None if !message.from_me && written.contains(message.id.as_str()) => {}
                _ => run.violations.add(
                    "never_accepted",
                    format!("the phone of {} shows {}: {:?}", tenant.name, message.id, message.text),
                ),
            }
        }
    }
    ticks
}

/// A message that was handed in after the answer to another one arrives after it, unless it may have been asked for
/// again. Returns how many pairs there were, and how many came late for that reason.
fn check_order(run: &Run, told: &[Told], shown: &[Vec<Shown>]) -> (usize, usize) {
    let mut chats: HashMap<(usize, usize), Vec<InChat>> = HashMap::new();
    for (n, (told, shown)) in told.iter().zip(shown).enumerate() {
        let (Some(submitted), Some(accepted), [shown]) = (told.submitted, &told.accepted, shown.as_slice()) else {
            continue;
        };
        let message = &run.plan.messages[n];
        if message.recipient < run.plan.poor_readers {
            continue;
        }
        let in_chat = InChat { n, position: shown.position, submitted, accepted: accepted.at };
        chats.entry((message.tenant, message.recipient)).or_default().push(in_chat);
    }
    let asked_again = run.asked_again_by_recipient();
    let (mut pairs, mut late) = (0, 0);
    for ((_, recipient), chat) in &chats {
        let (of_chat, overtaken) = overtaken(chat);
        pairs += of_chat;
        for (first, second) in overtaken {
            if asked_again[*recipient] > 0 {
                late += 1;
                continue;
            }
            let name = name(run, first);
            run.violations
                .add("order", format!("{name} was accepted before {second} was handed in, and came after it"));
        }
    }
    (pairs, late)
}
