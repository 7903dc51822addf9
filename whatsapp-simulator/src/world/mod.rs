//! The world: accounts, devices, queues, phones, faults and counters. It decides; the wire only translates.
//!
//! There are no sockets here. A connection is a [`Link`](queue::Link) into which stanzas are put. Locks are taken in
//! the order state, then one phone's signal, then its chat, and none is held across anything that waits.

mod accounts;
pub(crate) mod address;
pub(crate) mod app_state;
mod calls;
pub(crate) mod faults;
mod handover;
pub(crate) mod keys;
pub(crate) mod lookup;
pub(crate) mod media;
mod numbers;
pub(crate) mod pairing;
pub(crate) mod phone;
mod presence;
mod qr;
pub(crate) mod queue;
mod reading;
pub(crate) mod receipts;
mod reupload;
pub(crate) mod routing;
mod sessions;
mod snapshot;
pub(crate) mod stanza;
pub(crate) mod stats;
mod strangers;
mod tasks;
#[cfg(test)]
mod testing;
mod writing;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use self::accounts::{AccountError, AccountView, DeviceView};
pub use self::address::Addressing;
pub use self::calls::{CallError, Outcome};
pub use self::faults::{Fault, FaultKind, LoginFailure, NewChatQuota, ReachoutTimelock};
pub use self::numbers::{InvalidPhone, Phone};
pub use self::pairing::{Linked, PairError};
pub use self::phone::business::{ButtonReply, FlowReply, ListReply, Order, Product, TemplateReply};
pub use self::phone::code::CodeError;
pub use self::phone::compose::{Draft, Manner, MediaDraft};
pub use self::phone::context::Referral;
pub use self::phone::message::{ChatMessage, Contact, Kind, Location, More, Poll, Preview, Reaction, Status, Vote};
pub(crate) use self::sessions::{Login, Sent};
pub use self::snapshot::{AccountSnapshot, Snapshot, WaitingCode, WaitingQr};
pub use self::stats::Totals;
pub(crate) use self::strangers::{quota_json, timelock_json};
pub use self::writing::WriteError;

use self::accounts::State;
use self::faults::Faults;
use self::media::MediaStore;
use self::pairing::Waiting;
pub(crate) use self::stats::Counters;
use crate::config::Config;

/// Everything that the simulated WhatsApp knows.
pub struct World {
    pub(crate) config: Config,
    state: Mutex<State>,
    /// Unpaired connections.
    waiting: Mutex<Waiting>,
    /// Logged-in connections.
    sessions: Mutex<sessions::Sessions>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    pub(crate) media: Arc<MediaStore>,
    ids: AtomicU64,
    changes: watch::Sender<u64>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let changes = watch::Sender::new(0);
        Self {
            config,
            state: Mutex::default(),
            waiting: Mutex::default(),
            sessions: Mutex::default(),
            faults: Faults::default(),
            counters: Counters::default(),
            media: Arc::new(MediaStore::new(changes.clone())),
            ids: AtomicU64::new(1),
            changes,
        }
    }

    /// Ticks whenever something changed that an onlooker would want to see.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A number that this world has not used before.
    pub(crate) fn next_number(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for a stanza of the server.
    pub(crate) fn next_id(&self) -> String {
        format!("{:016X}", 0x5A00_0000_0000_0000 | self.next_number())
    }
}

/// Locks. A panic while holding a lock of ours leaves the data usable, so poison is ignored.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
