//! A phone: device 0 of its account, real in what matters. It holds keys, reads and writes messages.
//!
//! What arrives goes into an inbox and is worked off one by one, by whoever put something in while nobody was at it;
//! see `tasks` for the work itself.

pub(crate) mod business;
pub(crate) mod chat;
pub(crate) mod code;
pub(crate) mod compose;
pub(crate) mod content;
pub(crate) mod context;
pub(crate) mod linking;
pub(crate) mod message;
pub(crate) mod signal;
mod type_names;

use std::collections::VecDeque;
use std::sync::Mutex;

use wacore_binary::Jid;
use wacore_libsignal::protocol::KeyPair;
use waproto::whatsapp as wa;

use self::chat::Chat;
use self::signal::{Signal, SignalError, new_key_pair, raw};
use super::address::{AccountId, Address, Addressing};
use super::keys::{Bundle, Key};
use super::lock;
use super::media::retry::Reupload;
use super::stanza::Enc;

/// Something for the phone to do.
#[derive(Debug)]
pub(crate) enum Task {
    Receive(Envelope),
    /// A companion is new, or asks for it: it gets the key to the app state.
    ShareKeys {
        device: u16,
    },
    /// A device could not read what the phone wrote.
    Resend {
        ids: Vec<String>,
        to: Address,
        attempt: u8,
        bundle: Option<Box<Bundle>>,
    },
    /// A companion was told that there is a message, and not given it.
    HandOver {
        device: u16,
        request: String,
        ids: Vec<String>,
    },
    /// A companion found a file expired.
    Reupload {
        device: u16,
        id: String,
        request: Box<Reupload>,
    },
}

/// A message as it reaches the phone.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) from: Address,
    /// Under which of its names the phone was written to; it answers in kind.
    pub(crate) addressing: Addressing,
    /// Of what a companion of its own sent: to whom.
    pub(crate) recipient: Option<Jid>,
    pub(crate) timestamp: i64,
    pub(crate) enc: Enc,
}

#[derive(Debug, Default)]
struct Inbox {
    tasks: VecDeque<Task>,
    busy: bool,
}

/// The key that encrypts the account's app state, known to the phone and its companions.
#[derive(Clone, Debug)]
pub(crate) struct AppStateKey {
    pub(crate) id: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

/// One phone.
pub(crate) struct Handset {
    pub(crate) account: AccountId,
    pub(crate) identity: KeyPair,
    /// A number that all of the account's device lists carry.
    pub(crate) raw_id: u32,
    pub(crate) app_state_key: AppStateKey,
    pub(crate) signal: Mutex<Signal>,
    pub(crate) chat: Mutex<Chat>,
    inbox: Mutex<Inbox>,
}

impl Handset {
    pub(crate) fn new(account: AccountId) -> Result<Self, SignalError> {
        let identity = new_key_pair();
        let registration_id = rand::random::<u32>() % 0x3fff + 1;
        Ok(Self {
            account,
            signal: Mutex::new(Signal::generate(identity.clone(), registration_id)?),
            identity,
            raw_id: rand::random::<u32>() >> 1,
            // Six bytes: two of a device number, four of an epoch.
            app_state_key: AppStateKey { id: vec![0, 0, 0, 0, 0, 1], data: rand::random::<[u8; 32]>().to_vec() },
            chat: Mutex::new(Chat::default()),
            inbox: Mutex::new(Inbox::default()),
        })
    }

    pub(crate) fn identity_key(&self) -> Key {
        raw(&self.identity.public_key)
    }

    /// Adds a task; it is done when someone next works the inbox off.
    pub(crate) fn give(&self, task: Task) {
        lock(&self.inbox).tasks.push_back(task);
    }

    /// Claims the inbox, if there is something in it and nobody is at it.
    pub(crate) fn claim(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        let free = !inbox.busy && !inbox.tasks.is_empty();
        inbox.busy |= free;
        free
    }

    /// The next task for the one who claimed the inbox. With `None` the claim ends.
    pub(crate) fn next(&self, switched_on: bool) -> Option<Task> {
        let mut inbox = lock(&self.inbox);
        let task = if switched_on { inbox.tasks.pop_front() } else { None };
        inbox.busy = task.is_some();
        task
    }

    /// The message that hands the app-state key to a companion.
    pub(crate) fn key_share(&self, timestamp: i64) -> wa::Message {
        use wa::message::{AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId};
        let key = AppStateSyncKey {
            key_id: Some(AppStateSyncKeyId { key_id: Some(self.app_state_key.id.clone()) }).into(),
            key_data: Some(AppStateSyncKeyData {
                key_data: Some(self.app_state_key.data.clone()),
                fingerprint: Some(AppStateSyncKeyFingerprint {
                    raw_id: Some(self.raw_id),
                    current_index: Some(0),
                    device_indexes: vec![0],
                })
                .into(),
                timestamp: Some(timestamp),
            })
            .into(),
        };
        wa::Message {
            protocol_message: Some(wa::message::ProtocolMessage {
                r#type: Some(wa::message::protocol_message::Type::APP_STATE_SYNC_KEY_SHARE),
                app_state_sync_key_share: Some(wa::message::AppStateSyncKeyShare { keys: vec![key] }).into(),
                ..Default::default()
            })
            .into(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_works_an_inbox_off() {
        let phone = Handset::new(AccountId(0)).unwrap();
        assert!(!phone.claim());
        phone.give(Task::ShareKeys { device: 1 });
        assert!(phone.claim());
        phone.give(Task::ShareKeys { device: 2 });
        assert!(!phone.claim(), "someone is at it");
        assert!(phone.next(true).is_some());
        assert!(phone.next(true).is_some());
        assert!(phone.next(true).is_none());
        phone.give(Task::ShareKeys { device: 3 });
        assert!(phone.claim());
        assert!(phone.next(false).is_none(), "switched off: the task stays");
        assert!(phone.claim());
    }
}
