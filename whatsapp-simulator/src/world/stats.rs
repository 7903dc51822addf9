//! Counters, per phone and in all.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters that only grow, apart from the connections of the moment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) dials: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) ik_handshakes: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) acks: AtomicU64,
    pub(crate) nacks: AtomicU64,
    pub(crate) receipts: AtomicU64,
    pub(crate) retry_receipts: AtomicU64,
    pub(crate) repeated_ids: AtomicU64,
    pub(crate) reused_counters: AtomicU64,
    pub(crate) shown: AtomicU64,
    pub(crate) uploads: AtomicU64,
    pub(crate) downloads: AtomicU64,
}

/// A reading of the counters: of one phone, or of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// WebSocket connections that are open now. Of a phone: its logged-in companions.
    pub connections: u64,
    /// WebSocket upgrades asked for so far, refused ones included. Of a phone: finished handshakes in its name.
    pub dials: u64,
    /// Dials that a fault refused.
    pub refused: u64,
    /// Logins that were answered with success.
    pub logins: u64,
    /// Handshakes that took the short form (Noise IK).
    pub ik_handshakes: u64,
    /// Messages accepted from devices, the phone's own included. A message counts once, whatever its audience.
    pub messages: u64,
    /// Message acknowledgements sent, doubles included, errors not.
    pub acks: u64,
    /// Message acknowledgements sent that carried an error.
    pub nacks: u64,
    /// Receipts accepted from devices, the phone's own included; retry receipts not.
    pub receipts: u64,
    /// Retry receipts accepted from devices, the phone's own included.
    pub retry_receipts: u64,
    /// Messages that a phone dropped because it already had one with that id from that sender.
    pub repeated_ids: u64,
    /// New messages that came to a phone under a Signal counter that another message of that chain had used already: two
    /// messages under one key, which must never happen.
    pub reused_counters: u64,
    /// Messages that a phone has put on its screen, its own included; also those that it has forgotten since.
    pub shown: u64,
    /// Files that were uploaded to the end, and those that a phone brought again when it was asked to. What a phone sends
    /// by itself does not count.
    pub uploads: u64,
    /// Downloads of files, or of parts of them, that came to their end. Of a phone: of what its account has uploaded.
    pub downloads: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            connections: get(&self.connections),
            dials: get(&self.dials),
            refused: get(&self.refused),
            logins: get(&self.logins),
            ik_handshakes: get(&self.ik_handshakes),
            messages: get(&self.messages),
            acks: get(&self.acks),
            nacks: get(&self.nacks),
            receipts: get(&self.receipts),
            retry_receipts: get(&self.retry_receipts),
            repeated_ids: get(&self.repeated_ids),
            reused_counters: get(&self.reused_counters),
            shown: get(&self.shown),
            uploads: get(&self.uploads),
            downloads: get(&self.downloads),
        }
    }
}

/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes one away again.
pub(crate) fn drop_one(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
