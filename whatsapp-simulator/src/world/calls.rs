//! Calls, as far as a companion hears of them: that somebody calls, and how that ended. There is no sound.

use serde::Deserialize;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::address::{AccountId, Addressing};
use super::numbers::Phone;
use super::stanza::Stanza;
use super::{World, lock, now};

/// How a call ended, for the companions of the one who was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nobody answered.
    #[default]
    Missed,
    /// The phone answered.
    Accepted,
    /// The phone declined.
    Rejected,
}

/// There is no such call to be made, or to be ended.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no account with the caller's number.
    #[error("there is no account with this number")]
    NoAccount,
    /// Who is called is not on WhatsApp.
    #[error("who is called is not on WhatsApp")]
    NoRecipient,
    /// The phone is switched off.
    #[error("the phone is switched off")]
    PhoneOff,
    /// It ended, or never was.
    #[error("there is no such call")]
    NoCall,
}

impl World {
    /// A phone calls another. Returns the call's id.
    ///
    /// # Errors
    /// Any [`CallError`] but the last.
    pub fn call(&self, phone: &Phone, to: &Phone, video: bool) -> Result<String, CallError> {
        let id = format!("{:032X}", rand::random::<u128>());
        let (caller, called) = {
            let mut state = lock(&self.state);
            let caller = state.find(phone).ok_or(CallError::NoAccount)?;
            let called = state.find(to).filter(|called| *called != caller).ok_or(CallError::NoRecipient)?;
            state.calls.insert(id.clone(), (caller, called));
            (caller, called)
        };
        if !self.number_of(caller).is_some_and(|number| self.is_on(&number)) {
            lock(&self.state).calls.remove(&id);
            return Err(CallError::PhoneOff);
        }
        self.ring(caller, called, |creator, number| {
            let mut media = vec![NodeBuilder::new("audio").attr("enc", "opus").attr("rate", "16000").build()];
            if video {
                media.push(NodeBuilder::new("video").attr("enc", "vp8").build());
            }
            let offer = NodeBuilder::new("offer").attr("call-id", &id).attr("call-creator", creator);
            offer.attr("caller_pn", number).children(media).build()
        });
        Ok(id)
    }

    /// A call ends.
    ///
    /// # Errors
    /// [`CallError::NoCall`] if it ended before, or this phone did not make it.
    pub fn end_call(&self, phone: &Phone, id: &str, outcome: Outcome) -> Result<(), CallError> {
        let (caller, called) = {
            let mut state = lock(&self.state);
            let caller = state.find(phone).ok_or(CallError::NoAccount)?;
            let (_, called) = state.calls.get(id).copied().filter(|(by, _)| *by == caller).ok_or(CallError::NoCall)?;
            state.calls.remove(id);
            (caller, called)
        };
        self.ring(caller, called, |creator, _| {
            let terminate = NodeBuilder::new("terminate").attr("call-id", id).attr("call-creator", creator);
            match outcome {
                Outcome::Missed => terminate.attr("reason", "timeout").build(),
                Outcome::Accepted => terminate.attr("reason", "accepted_elsewhere").build(),
                Outcome::Rejected => terminate.attr("reason", "rejected_elsewhere").build(),
            }
        });
        Ok(())
    }

    /// Tells every companion of the one who is called.
    fn ring(&self, caller: AccountId, called: AccountId, action: impl Fn(&Jid, &Jid) -> Node) {
        let mut state = lock(&self.state);
        let Some(by) = state.account(caller) else { return };
        let (names, notify) = (by.names.clone(), by.name.clone());
        let from = names.user(self.config.phone_addressing);
        let action = action(&from, &names.user(Addressing::Pn));
        let Some(account) = state.account_mut(called) else { return };
        for companion in account.companions.values_mut() {
            companion.line.deliver(Stanza::Call {
                id: self.next_id(),
                from: from.clone(),
                notify: notify.clone(),
                timestamp: now(),
                action: action.clone(),
            });
        }
    }
}
