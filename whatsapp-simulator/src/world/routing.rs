//! Messages on their way from one device to others.

use std::time::Duration;

use wacore_binary::{Jid, Node, Server};

use super::address::Address;
use super::faults::FaultKind;
use super::numbers::Phone;
use super::phone::{Envelope, Task};
use super::queue::Link;
use super::stanza::{Ack, Enc, Message, Stanza};
use super::stats::bump;
use super::{World, lock, now};

/// WhatsApp's code for a message to nobody.
const NO_SUCH_RECIPIENT: u16 = 404;

/// A message as a device hands it in.
#[derive(Clone, Debug)]
pub(crate) struct OutMessage {
    pub(crate) id: String,
    /// The chat.
    pub(crate) to: Jid,
    /// The chat, when `to` is one of the sender's own devices and this is a second attempt.
    pub(crate) recipient: Option<Jid>,
    pub(crate) kind: String,
    pub(crate) category: Option<String>,
    pub(crate) edit: Option<String>,
    /// The ciphertexts, each for one device.
    pub(crate) parts: Vec<(Jid, Vec<Enc>)>,
    pub(crate) device_identity: Option<Vec<u8>>,
    pub(crate) extras: Vec<Node>,
    /// Why a device without a part of its own gets none, in WhatsApp's word for it.
    pub(crate) withheld_as: Option<&'static str>,
}

/// Both forms of the chat that a message belongs to, as far as its sender may know them.
fn both_forms(state: &super::State, jid: &Jid) -> Option<(Jid, Option<Jid>)> {
    let (account, addressing) = state.resolve(jid)?;
    let names = &state.account(account)?.names;
    Some((names.user(addressing), names.other(addressing)))
}

impl World {
    /// Takes a message in, acknowledges it to `link`, and passes it on.
    pub(crate) fn accept_message(&self, from: Address, message: OutMessage, link: Option<&Link>) {
        let Some(phone) = self.count_message(from) else { return };
        // A phone's own messages never travel on a socket that could lose them.
        let dropped = |k: &FaultKind| (*k == FaultKind::DropMessages).then_some(());
        if link.is_some() && self.faults.take(Some(&phone), dropped).is_some() {
            return;
        }
        let nack = |k: &FaultKind| if let FaultKind::Nack(code) = k { Some(*code) } else { None };
        if let Some(code) = self.faults.take(Some(&phone), nack) {
            self.acknowledge(&phone, from, &message, link, Some(code));
            return;
        }
        if link.is_some()
            && let Some(code) = self.refusal(&phone, from, &message)
        {
            self.acknowledge(&phone, from, &message, link, Some(code));
            return;
        }
        // A status goes to nobody here; that it was posted is all there is to say.
        if message.to.server == Server::Broadcast {
            self.acknowledge(&phone, from, &message, link, None);
            return;
        }
        let phones = self.distribute(from, &message);
        let error = phones.is_none().then_some(NO_SUCH_RECIPIENT);
        self.acknowledge(&phone, from, &message, link, error);
        for account in phones.into_iter().flatten() {
            self.work(account);
        }
    }

    fn count_message(&self, from: Address) -> Option<Phone> {
        let state = lock(&self.state);
        let account = state.account(from.account)?;
        bump(&account.counters.messages);
        bump(&self.counters.messages);
        Some(account.number.clone())
    }

    /// Gives every part to its device; the phones that got one are returned. `None` if there is no such chat.
    fn distribute(&self, from: Address, message: &OutMessage) -> Option<Vec<super::address::AccountId>> {
        let mut state = lock(&self.state);
        let chat = both_forms(&state, message.recipient.as_ref().unwrap_or(&message.to))?;
        let sender = state.account(from.account)?;
        let names = sender.names.clone();
        let notify = match sender.companions.get(&from.device) {
            Some(companion) if !companion.push_name.is_empty() => companion.push_name.clone(),
            _ => sender.name.clone(),
        };
        let timestamp = now();
        let mut phones = Vec::new();
        for (jid, encs) in &message.parts {
            let Some((account, addressing)) = state.resolve(jid) else { continue };
            let to = Address::new(account, jid.device);
            let own = account == from.account;
            let shown = if own { addressing } else { names.shown(addressing) };
            if to.device == 0 {
                let Some(account) = state.account(account) else { continue };
                for enc in encs {
                    account.handset.give(Task::Receive(Envelope {
                        id: message.id.clone(),
                        from,
                        addressing,
                        recipient: own.then(|| chat.0.clone()),
                        timestamp,
                        enc: enc.clone(),
                    }));
                }
                phones.push(account.id);
            } else if let Some(account) = state.account_mut(account) {
                let number = account.number.clone();
                let Some(companion) = account.companions.get_mut(&to.device) else { continue };
                let peer = message.category.as_deref() == Some("peer");
                let mut encs = encs.clone();
                if !peer && !own {
                    self.garble(&number, &mut encs);
                }
                companion.line.deliver(Stanza::Message(Message {
                    id: message.id.clone(),
                    from: names.device(shown, from.device),
                    from_alt: names.other(shown),
                    recipient: (own && !peer).then(|| chat.clone()),
                    kind: message.kind.clone(),
                    category: message.category.clone(),
                    edit: message.edit.clone(),
                    notify: notify.clone(),
                    timestamp,
                    device_identity: if encs.iter().any(Enc::is_prekey) {
                        message.device_identity.clone()
                    } else {
                        None
                    },
                    encs,
                    extras: message.extras.clone(),
                    withheld_as: message.withheld_as,
                }));
            }
        }
        if let Some((account, _)) = state.resolve(&chat.0)
            && let Some(sender) = state.account_mut(from.account)
        {
            sender.written_to.insert(account);
        }
        Some(phones)
    }

    fn acknowledge(&self, phone: &Phone, from: Address, message: &OutMessage, link: Option<&Link>, error: Option<u16>) {
        let Some(link) = link else { return };
        if error.is_none() && self.faults.take(Some(phone), |k| (*k == FaultKind::DropAcks).then_some(())).is_some() {
            return;
        }
        let ack = Stanza::Ack(Ack {
            class: "message",
            id: message.id.clone(),
            from: Some(message.to.clone()),
            kind: None,
            participant: None,
            error,
            timestamp: now(),
        });
        let delay = |k: &FaultKind| if let FaultKind::AckDelay(d) = k { Some(*d) } else { None };
        let delay = self.faults.take(Some(phone), delay).unwrap_or(Duration::ZERO);
        let twice = self.faults.take(Some(phone), |k| (*k == FaultKind::DuplicateAcks).then_some(())).is_some();
        for _ in 0..=u8::from(twice) {
            self.count(from, |c| if error.is_some() { &c.nacks } else { &c.acks });
            link.send_after(ack.clone(), delay);
        }
    }

    /// Counts something for a device's account and in all.
    pub(crate) fn count(&self, at: Address, of: impl Fn(&super::Counters) -> &std::sync::atomic::AtomicU64) {
        bump(of(&self.counters));
        if let Some(account) = lock(&self.state).account(at.account) {
            bump(of(&account.counters));
        }
    }
}
