//! Questions about others: who is on WhatsApp, which devices they have, and the keys to write to them.

use wacore_binary::Jid;

use super::address::{Address, Addressing, Names};
use super::faults::{FaultKind, ReachoutTimelock};
use super::keys::{Bundle, DeviceKeys, Key, LOW_WATER, SignedPrekey};
use super::numbers::Phone;
use super::phone::Task;
use super::stanza::Stanza;
use super::{World, lock, now};

/// What a device list query answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceList {
    /// Whether the phone, device 0, is there: always, but for a fault.
    pub(crate) phone: bool,
    /// Device numbers with their key indexes; the phone, 0, is not among them.
    pub(crate) companions: Vec<(u16, u32)>,
    pub(crate) key_index_list: Vec<u8>,
    pub(crate) timestamp: i64,
}

/// An account as a contact query sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) names: Names,
    /// The form in which it was asked for.
    pub(crate) addressing: Addressing,
    /// Whether it is the asker's own account.
    pub(crate) own: bool,
    pub(crate) devices: DeviceList,
}

impl World {
    /// Finds the account that a JID names. Who asks for its devices is told when they change.
    pub(crate) fn look_up(&self, asker: Address, jid: &Jid, watch_devices: bool) -> Option<Contact> {
        let mut state = lock(&self.state);
        let (id, addressing) = state.resolve(jid)?;
        let account = state.account_mut(id)?;
        if watch_devices {
            account.watchers.insert(asker);
        }
        let phone = Phone::parse(&account.names.phone).ok();
        let empty = self.faults.peek(phone.as_ref(), |k| (*k == FaultKind::NoDevices).then_some(())).is_some();
        let companions = account.companions.iter().filter(|_| !empty);
        Some(Contact {
            names: account.names.clone(),
            addressing,
            own: id == asker.account,
            devices: DeviceList {
                phone: !empty,
                companions: companions.map(|(device, c)| (*device, c.key_index)).collect(),
                key_index_list: account.key_indexes.0.clone(),
                timestamp: account.key_indexes.1,
            },
        })
    }

    /// The fault that keeps an account from writing to people it does not know, if it is in force. Asking uses it up.
    pub(crate) fn reachout_timelock(&self, at: Address) -> Option<ReachoutTimelock> {
        let phone = lock(&self.state).account(at.account)?.number.clone();
        let timelock = |k: &FaultKind| if let FaultKind::ReachoutTimelock(t) = k { Some(t.clone()) } else { None };
        self.faults.take(Some(&phone), timelock)
    }

    /// A key bundle of one device, with a one-time key that nobody else gets.
    pub(crate) fn take_bundle(&self, jid: &Jid) -> Option<Bundle> {
        let mut state = lock(&self.state);
        let (id, _) = state.resolve(jid)?;
        self.take_bundle_at(&mut state, Address::new(id, jid.device))
    }

    pub(super) fn take_bundle_at(&self, state: &mut super::State, at: Address) -> Option<Bundle> {
        let account = state.account_mut(at.account)?;
        if at.device == 0 {
            return Some(lock(&account.handset.signal).bundle());
        }
        let companion = account.companions.get_mut(&at.device)?;
        let bundle = companion.keys.take_bundle(companion.identity.clone());
        let left = companion.keys.count();
        if left + 1 == LOW_WATER {
            companion.line.deliver(Stanza::PrekeysLow { id: self.next_id(), count: left, timestamp: now() });
        }
        Some(bundle)
    }

    /// A companion uploads keys. The first time, the phone sends it the key to the app state.
    pub(crate) fn upload_keys(
        &self,
        at: Address,
        identity: Key,
        signed: SignedPrekey,
        prekeys: Vec<(u32, Key)>,
    ) -> bool {
        let handset = {
            let mut state = lock(&self.state);
            let Some(account) = state.account_mut(at.account) else { return false };
            let handset = account.handset.clone();
            let Some(companion) = account.companions.get_mut(&at.device) else { return false };
            if companion.keys.identity != identity {
                return false;
            }
            companion.keys.upload(signed, prekeys);
            if !companion.has_app_state_key {
                companion.has_app_state_key = true;
                handset.give(Task::ShareKeys { device: at.device });
            }
            handset
        };
        self.work(handset.account);
        true
    }

    /// Reads or changes the keys of a companion.
    pub(crate) fn with_keys<T>(&self, at: Address, f: impl FnOnce(&mut DeviceKeys) -> T) -> Option<T> {
        lock(&self.state).companion_mut(at).map(|companion| f(&mut companion.keys))
    }

    /// Both names of an account.
    pub(crate) fn names(&self, at: Address) -> Option<Names> {
        lock(&self.state).account(at.account).map(|account| account.names.clone())
    }
}
