//! Who is online, and who is typing. Only for those who are connected: nothing of it is kept.

use wacore_binary::{Jid, Node};

use super::accounts::State;
use super::address::{AccountId, Address, Addressing};
use super::stanza::Stanza;
use super::{World, lock, now};

impl World {
    /// A companion announces itself, perhaps with its name.
    pub(crate) fn set_presence(&self, at: Address, available: Option<bool>, name: Option<String>) {
        let mut state = lock(&self.state);
        let Some(account) = state.account_mut(at.account) else { return };
        let Some(companion) = account.companions.get_mut(&at.device) else { return };
        if let Some(name) = name {
            companion.push_name = name;
        }
        if let Some(available) = available {
            companion.available = available;
            if !available {
                account.last_seen = Some(now());
            }
            self.announce_presence(&mut state, at.account);
        }
        drop(state);
        self.changed();
    }

    /// Tells the subscribers of an account whether it is online.
    pub(super) fn announce_presence(&self, state: &mut State, of: AccountId) {
        let Some(account) = state.account(of) else { return };
        let watchers: Vec<Address> = account.presence_watchers.iter().copied().collect();
        let presence = presence_of(state, of);
        for watcher in watchers {
            if let (Some(companion), Some(presence)) = (state.companion_mut(watcher), presence.clone()) {
                companion.line.deliver(presence);
            }
        }
    }

    /// A companion wants to know when someone is online.
    pub(crate) fn subscribe_presence(&self, at: Address, to: &Jid) {
        let mut state = lock(&self.state);
        let Some((account, _)) = state.resolve(to) else { return };
        if let Some(account) = state.account_mut(account) {
            account.presence_watchers.insert(at);
        }
        let presence = presence_of(&state, account);
        if let (Some(companion), Some(presence)) = (state.companion_mut(at), presence) {
            companion.line.deliver(presence);
        }
    }

    /// Passes "typing" and the like on to all connected companions of the other side.
    pub(crate) fn chat_state(&self, at: Address, to: &Jid, chat_state: &Node) {
        let mut state = lock(&self.state);
        let Some((account, addressing)) = state.resolve(to) else { return };
        let Some(from) = state.account(at.account).map(|a| a.names.device(a.names.shown(addressing), at.device)) else {
            return;
        };
        let Some(account) = state.account_mut(account) else { return };
        for companion in account.companions.values_mut() {
            companion.line.deliver(Stanza::ChatState { from: from.clone(), state: chat_state.clone() });
        }
    }
}

fn presence_of(state: &State, of: AccountId) -> Option<Stanza> {
    let account = state.account(of)?;
    Some(Stanza::Presence {
        from: account.names.user(Addressing::Lid),
        available: account.companions.values().any(|c| c.available),
        last_seen: account.last_seen,
    })
}
