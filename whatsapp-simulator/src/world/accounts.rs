//! Accounts and their companions: making them, finding them, adding and removing devices.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use sha2::Digest as _;
use wacore_binary::Jid;

use super::address::{AccountId, Address, Addressing, Names};
use super::app_state::Collection;
use super::keys::{DeviceKeys, Key};
use super::numbers::Phone;
use super::phone::linking::key_index_list;
use super::phone::{Handset, signal::SignalError};
use super::queue::Line;
use super::stanza::{DeviceChange, Stanza};
use super::stats::{Counters, drop_one};
use super::{World, lock, now};

/// A linked device.
#[derive(Debug)]
pub(crate) struct Companion {
    pub(crate) noise_key: Key,
    pub(crate) keys: DeviceKeys,
    /// The signed device identity, as others get to see it.
    pub(crate) identity: Vec<u8>,
    pub(crate) key_index: u32,
    pub(crate) platform: String,
    pub(crate) push_name: String,
    pub(crate) available: bool,
    pub(crate) has_app_state_key: bool,
    pub(crate) line: Line,
}

/// A WhatsApp account.
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) number: Phone,
    pub(crate) names: Names,
    pub(crate) name: String,
    pub(crate) handset: Arc<Handset>,
    pub(crate) companions: BTreeMap<u16, Companion>,
    next_device: u16,
    next_key_index: u32,
    /// The signed list of valid key indexes, and when it was made.
    pub(crate) key_indexes: (Vec<u8>, i64),
    /// Who asked for this account's devices and is told when they change.
    pub(crate) watchers: HashSet<Address>,
    pub(crate) presence_watchers: HashSet<Address>,
    /// To whom it has written.
    pub(crate) written_to: HashSet<AccountId>,
    pub(crate) last_seen: Option<i64>,
    pub(crate) collections: HashMap<String, Collection>,
    pub(crate) counters: Arc<Counters>,
}

/// Everything that changes, behind the world's lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) accounts: Vec<Account>,
    by_phone: HashMap<Phone, AccountId>,
    by_lid: HashMap<String, AccountId>,
    aliases: HashMap<Phone, AccountId>,
    /// Who calls whom now, by the call's id.
    pub(crate) calls: HashMap<String, (AccountId, AccountId)>,
}

/// An account as the control API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// The number under which the account is registered.
    pub phone: Phone,
    /// The profile name.
    pub name: String,
    /// The user part of its LID.
    pub lid: String,
    /// Whether others get to know its LID only.
    #[serde(rename = "numberHidden", skip_serializing_if = "std::ops::Not::not")]
    pub number_hidden: bool,
    /// Its companions, oldest first. The phone itself is not among them.
    pub devices: Vec<DeviceView>,
}

/// A companion as the control API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceView {
    /// The device number, from 1.
    pub device: u16,
    /// What the companion says it runs on.
    pub platform: String,
    /// Whether it is logged in now.
    pub connected: bool,
    /// The name that it announced, empty before it did.
    pub push_name: String,
}

/// An account cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The number already belongs to another account, or is an alias of one.
    #[error("the number belongs to another account")]
    Taken,
    /// Making keys failed.
    #[error("making the phone's keys failed")]
    Keys,
}

impl From<SignalError> for AccountError {
    fn from(_: SignalError) -> Self {
        Self::Keys
    }
}

impl Serialize for Phone {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl State {
    pub(crate) fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0 as usize)
    }

    pub(crate) fn account_mut(&mut self, id: AccountId) -> Option<&mut Account> {
        self.accounts.get_mut(id.0 as usize)
    }

    pub(crate) fn companion_mut(&mut self, at: Address) -> Option<&mut Companion> {
        self.account_mut(at.account)?.companions.get_mut(&at.device)
    }

    /// The account with exactly this number.
    pub(crate) fn registered(&self, phone: &Phone) -> Option<AccountId> {
        self.by_phone.get(phone).copied()
    }

    /// The account that a number leads to: its own, an alias, or another spelling of it.
    pub(crate) fn find(&self, phone: &Phone) -> Option<AccountId> {
        self.registered(phone)
            .or_else(|| self.aliases.get(phone).copied())
            .or_else(|| phone.other_forms().iter().find_map(|form| self.registered(form)))
    }

    /// The account that a JID names, and in which of its two forms.
    pub(crate) fn resolve(&self, jid: &Jid) -> Option<(AccountId, Addressing)> {
        let addressing = Addressing::of(jid)?;
        let account = match addressing {
            Addressing::Pn => self.find(&Phone::parse(jid.user_base()).ok()?)?,
            Addressing::Lid => *self.by_lid.get(jid.user_base())?,
        };
        Some((account, addressing))
    }

    fn lid_for(&self, phone: &Phone) -> String {
        // Fifteen digits that depend on nothing but the number, so that they survive a restart.
        let mut seed = sha2::Sha256::digest(phone.as_str());
        loop {
            let mut first = [0; 8];
            first.copy_from_slice(&seed[..8]);
            let lid = (100_000_000_000_000 + u64::from_be_bytes(first) % 900_000_000_000_000).to_string();
            if !self.by_lid.contains_key(&lid) {
                return lid;
            }
            seed = sha2::Sha256::digest(seed);
        }
    }
}

impl Account {
    pub(crate) fn view(&self) -> AccountView {
        let devices = self.companions.iter().map(|(device, companion)| DeviceView {
            device: *device,
            platform: companion.platform.clone(),
            connected: companion.line.is_connected(),
            push_name: companion.push_name.clone(),
        });
        AccountView {
            phone: self.number.clone(),
            name: self.name.clone(),
            lid: self.names.lid.clone(),
            number_hidden: self.names.number_hidden,
            devices: devices.collect(),
        }
    }

    /// A device number and a key index that were never used before.
    pub(crate) fn next_companion(&mut self) -> (u16, u32) {
        let next = (self.next_device, self.next_key_index);
        self.next_device = self.next_device.saturating_add(1);
        self.next_key_index = self.next_key_index.saturating_add(1);
        next
    }

    fn sign_key_indexes(&mut self) {
        // Strictly later than the list before: clients ignore one that is not.
        let timestamp = now().max(self.key_indexes.1 + 1);
        let valid: Vec<u32> = self.companions.values().map(|c| c.key_index).collect();
        let current = self.next_key_index - 1;
        let time = u64::try_from(timestamp).unwrap_or_default();
        match key_index_list(&self.handset.identity, self.handset.raw_id, current, &valid, time) {
            Ok(list) => self.key_indexes = (list, timestamp),
            Err(error) => tracing::error!(%error, "cannot sign a key index list"),
        }
    }

    fn change(&self, device: u16, key_index: u32, added: bool, id: String) -> Stanza {
        let (names, addressing) = (&self.names, self.names.shown(Addressing::Pn));
        let lid_beside = |jid: Jid| Some(jid).filter(|_| addressing == Addressing::Pn);
        Stanza::DeviceChange(DeviceChange {
            id,
            added,
            user: names.user(addressing),
            user_lid: lid_beside(names.user(Addressing::Lid)),
            device: names.device(addressing, device),
            device_lid: lid_beside(names.device(Addressing::Lid, device)),
            key_index,
            key_index_list: self.key_indexes.0.clone(),
            timestamp: self.key_indexes.1,
        })
    }
}

impl World {
    /// Makes an account, or returns the one that is registered under exactly this number and `false`.
    ///
    /// # Errors
    /// [`AccountError::Taken`] if the number is an alias.
    pub fn add_account(&self, phone: &Phone, name: &str) -> Result<(AccountView, bool), AccountError> {
        let mut state = lock(&self.state);
        if let Some(account) = state.registered(phone).and_then(|id| state.account(id)) {
            return Ok((account.view(), false));
        }
        if state.aliases.contains_key(phone) {
            return Err(AccountError::Taken);
        }
        let id = AccountId(u32::try_from(state.accounts.len()).map_err(|_| AccountError::Keys)?);
        let lid = state.lid_for(phone);
        let account = Account {
            id,
            number: phone.clone(),
            names: Names { phone: phone.to_string(), lid: lid.clone(), number_hidden: false },
            name: if name.is_empty() { phone.to_string() } else { name.to_owned() },
            handset: Arc::new(Handset::new(id)?),
            companions: BTreeMap::new(),
            next_device: 1,
            next_key_index: 1,
            key_indexes: (Vec::new(), 0),
            watchers: HashSet::new(),
            presence_watchers: HashSet::new(),
            written_to: HashSet::new(),
            last_seen: None,
            collections: HashMap::new(),
            counters: Arc::default(),
        };
        let view = account.view();
        state.by_phone.insert(phone.clone(), id);
        state.by_lid.insert(lid, id);
        state.accounts.push(account);
        drop(state);
        self.changed();
        Ok((view, true))
    }

    /// Makes `phone` lead to the account that is registered as `registered_as`, which is made if there is none.
    ///
    /// # Errors
    /// [`AccountError::Taken`] if `phone` has an account of its own or leads to another one.
    pub fn add_alias(
        &self,
        phone: &Phone,
        registered_as: &Phone,
        name: &str,
    ) -> Result<(AccountView, bool), AccountError> {
        if phone == registered_as {
            return self.add_account(phone, name);
        }
        {
            let state = lock(&self.state);
            let leads_elsewhere =
                state.aliases.get(phone).is_some_and(|id| Some(*id) != state.registered(registered_as));
            if state.registered(phone).is_some() || leads_elsewhere {
                return Err(AccountError::Taken);
            }
        }
        let (view, created) = self.add_account(registered_as, name)?;
        let mut state = lock(&self.state);
        if let Some(id) = state.registered(registered_as) {
            state.aliases.insert(phone.clone(), id);
        }
        Ok((view, created))
    }

    /// Hides an account's number from others, or shows it again. `None` if the number leads to no account.
    pub fn hide_number(&self, phone: &Phone, hidden: bool) -> Option<AccountView> {
        let mut state = lock(&self.state);
        let id = state.find(phone)?;
        let account = state.account_mut(id)?;
        account.names.number_hidden = hidden;
        let view = account.view();
        drop(state);
        self.changed();
        Some(view)
    }

    /// All accounts, in the order in which they were made.
    pub fn accounts(&self) -> Vec<AccountView> {
        lock(&self.state).accounts.iter().map(Account::view).collect()
    }

    /// The number of an account.
    pub(crate) fn number_of(&self, account: AccountId) -> Option<Phone> {
        lock(&self.state).account(account).map(|account| account.number.clone())
    }

    /// The account that a number leads to.
    pub fn account(&self, phone: &Phone) -> Option<AccountView> {
        let state = lock(&self.state);
        state.account(state.find(phone)?).map(Account::view)
    }

    /// Adds a companion and tells everyone who cares.
    pub(crate) fn link_companion(&self, at: Address, companion: Companion) {
        let key_index = companion.key_index;
        {
            let mut state = lock(&self.state);
            let Some(account) = state.account_mut(at.account) else { return };
            account.companions.insert(at.device, companion);
            account.sign_key_indexes();
            account.publish_push_name();
            self.announce_device(&mut state, at, key_index, true);
        }
        self.changed();
    }

    /// The phone unlinks a companion: its keys are gone, its connection ends, everyone is told. `false` if there is no
    /// such companion.
    pub(crate) fn unlink_at(&self, at: Address) -> bool {
        {
            let mut state = lock(&self.state);
            let Some(account) = state.account_mut(at.account) else { return false };
            let Some(companion) = account.companions.remove(&at.device) else { return false };
            account.sign_key_indexes();
            lock(&account.handset.signal).drop_session(at);
            if let Some(link) = companion.line.link() {
                link.send(Stanza::Conflict { kind: "device_removed".to_owned() });
                link.close(std::time::Duration::ZERO);
                drop_one(&account.counters.connections);
            }
            self.announce_device(&mut state, at, companion.key_index, false);
        }
        self.changed();
        true
    }

    /// Unlinks a companion of the account that a number leads to. `false` if there is none.
    pub fn unlink(&self, phone: &Phone, device: u16) -> bool {
        let found = lock(&self.state).find(phone);
        found.is_some_and(|account| self.unlink_at(Address::new(account, device)))
    }

    fn announce_device(&self, state: &mut State, at: Address, key_index: u32, added: bool) {
        let Some(account) = state.account_mut(at.account) else { return };
        let own = account.companions.keys().copied().filter(|d| *d != at.device);
        let mut audience: Vec<Address> = own.map(|device| Address::new(at.account, device)).collect();
        audience.extend(account.watchers.iter().filter(|w| w.account != at.account));
        for address in audience {
            let Some(account) = state.account(at.account) else { return };
            let change = account.change(at.device, key_index, added, self.next_id());
            match state.companion_mut(address) {
                Some(companion) => companion.line.deliver(change),
                None => {
                    if let Some(account) = state.account_mut(at.account) {
                        account.watchers.remove(&address);
                    }
                }
            }
        }
    }
}
