//! What phones do: read what arrives, say so, write, and help those who could not read.

use wacore_binary::{Jid, Node};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::address::{AccountId, Address, Addressing, Names};
use super::faults::FaultKind;
use super::keys::Bundle;
use super::numbers::Phone;
use super::phone::chat::{ChatMessage, Status, Unread, rfc3339, shown_text, text_message};
use super::phone::signal::SignalError;
use super::phone::{Envelope, Handset, Task};
use super::receipts::OutReceipt;
use super::routing::OutMessage;
use super::stanza::Enc;
use super::{World, lock, now};

/// How often a phone answers to the same "send it again".
const MAX_RESENDS: u8 = 5;

/// A phone cannot write a message.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no account with the phone's number.
    #[error("there is no account with this number")]
    NoAccount,
    /// The recipient is not on WhatsApp.
    #[error("the recipient is not on WhatsApp")]
    NoRecipient,
    /// The phone is switched off.
    #[error("the phone is switched off")]
    PhoneOff,
    /// Encrypting failed.
    #[error("encrypting failed")]
    Encrypting,
}

impl World {
    fn is_on(&self, phone: &Phone) -> bool {
        self.faults.peek(Some(phone), |k| (*k == FaultKind::OfflinePhone).then_some(())).is_none()
    }

    /// Works a phone's inbox off, unless someone is at it, or it is switched off.
    pub(crate) fn work(&self, account: AccountId) {
        let Some((handset, phone)) = lock(&self.state).account(account).map(|a| (a.handset.clone(), a.number.clone()))
        else {
            return;
        };
        while handset.claim() {
            while let Some(task) = handset.next(self.is_on(&phone)) {
                match task {
                    Task::Receive(envelope) => self.receive(&handset, &phone, envelope),
                    Task::ShareKeys { device } => self.share_keys(&handset, device),
                    Task::Resend { ids, to, attempt, bundle } => self.resend(&handset, &ids, to, attempt, bundle),
                }
            }
            // Whoever switches it on while this one still has the inbox relies on it to go on.
            if !self.is_on(&phone) {
                return;
            }
        }
    }

    fn receive(&self, handset: &Handset, phone: &Phone, envelope: Envelope) {
        let Envelope { id, from, addressing, timestamp, enc } = envelope;
        if lock(&handset.chat).has_read(from.account, &id) {
            self.count(Address::phone(handset.account), |c| &c.repeated_ids);
            self.send_receipt(handset, (from, addressing), vec![id], None, None);
            return;
        }
        let first_time = !lock(&handset.chat).was_asked_for(from.account, &id);
        let unreadable = |k: &FaultKind| (*k == FaultKind::Unreadable).then_some(());
        let decrypted = if first_time && self.faults.take(Some(phone), unreadable).is_some() {
            Err(SignalError::Pretended)
        } else {
            lock(&handset.signal).decrypt(from, &enc)
        };
        let message = match decrypted.map(|plain| wa::Message::decode_from_slice(&plain)) {
            Ok(Ok(message)) => message,
            Ok(Err(_)) => {
                tracing::warn!("a phone got a message that is no message");
                return;
            }
            Err(error) => {
                if first_time && error.is_reused_counter() {
                    self.count(Address::phone(handset.account), |c| &c.reused_counters);
                }
                tracing::info!(%error, "a phone cannot read a message and asks for it again");
                self.ask_again(handset, (from, addressing), id, timestamp);
                return;
            }
        };
        let shown = self.read_message(handset, (from, addressing), &id, timestamp, &message);
        lock(&handset.chat).note_read(from.account, &id, shown);
        self.send_receipt(handset, (from, addressing), vec![id], None, None);
        self.changed();
    }

    /// Does what a message asks for. Returns whether it is shown.
    fn read_message(
        &self,
        handset: &Handset,
        (from, addressing): (Address, Addressing),
        id: &str,
        timestamp: i64,
        message: &wa::Message,
    ) -> bool {
        let own = from.account == handset.account;
        if own && message.protocol_message.app_state_sync_key_request.is_set() {
            handset.give(Task::ShareKeys { device: from.device });
            return false;
        }
        let (to, message) = match message.device_sent_message.as_option() {
            Some(sent) if own => {
                let to = sent.destination_jid.as_deref().and_then(|jid| jid.parse::<Jid>().ok());
                (to.and_then(|jid| lock(&self.state).resolve(&jid)).map(|(account, _)| account), &*sent.message)
            }
            _ => (Some(handset.account), message),
        };
        let Some(text) = shown_text(message) else { return false };
        let number = |account: AccountId| lock(&self.state).account(account).map(|a| a.number.to_string());
        let (Some(from_number), Some(to_number)) = (number(from.account), to.and_then(number)) else { return false };
        let shown = ChatMessage {
            id: id.to_owned(),
            from: from_number,
            to: to_number,
            text,
            timestamp: rfc3339(timestamp),
            from_me: own,
            status: own.then_some(Status::Sent),
        };
        let unread = (!own).then(|| Unread { from: from.account, addressing, id: id.to_owned() });
        self.show(handset, shown, unread);
        true
    }

    fn show(&self, handset: &Handset, message: ChatMessage, unread: Option<Unread>) {
        lock(&handset.chat).show(message, unread);
        self.count(Address::phone(handset.account), |c| &c.shown);
    }

    fn send_receipt(
        &self,
        handset: &Handset,
        (to, addressing): (Address, Addressing),
        ids: Vec<String>,
        kind: Option<&str>,
        retry: Option<(u8, Vec<Node>, Bundle)>,
    ) {
        let own = to.account == handset.account;
        let Some(names) = self.names(to) else { return };
        let kind = kind.or(own.then_some("sender"));
        let (retry, extras) = match retry {
            Some((count, extras, bundle)) => (Some((count, Some(Box::new(bundle)))), extras),
            None => (None, Vec::new()),
        };
        self.accept_receipt(
            Address::phone(handset.account),
            OutReceipt {
                ids,
                to: names.device(addressing, to.device),
                recipient: None,
                kind: kind.map(str::to_owned),
                extras,
                retry,
            },
        );
    }

    fn ask_again(&self, handset: &Handset, from: (Address, Addressing), id: String, timestamp: i64) {
        let Some(count) = lock(&handset.chat).count_retry(from.0.account, &id) else {
            tracing::warn!("a phone gives up on a message that it cannot read");
            return;
        };
        let (bundle, registration) = {
            let mut signal = lock(&handset.signal);
            (signal.bundle(), signal.registration_id())
        };
        let extras = crate::wire::retry::request(&id, count, timestamp, registration, &bundle);
        self.send_receipt(handset, from, vec![id], Some("retry"), Some((count, extras, bundle)));
    }

    fn share_keys(&self, handset: &Handset, device: u16) {
        let at = Address::new(handset.account, device);
        let Some(names) = self.names(at) else { return };
        let plain = handset.key_share(now()).encode_to_vec();
        match self.encrypt(handset, &[(at, plain)]) {
            Ok(encs) => {
                let message = self.own_message(new_message_id(), names.user(Addressing::Pn), encs, Some("peer"));
                self.accept_message(Address::phone(handset.account), message, None);
            }
            Err(error) => tracing::warn!(%error, "a phone cannot share its app state key"),
        }
    }

    fn resend(&self, handset: &Handset, ids: &[String], to: Address, attempt: u8, bundle: Option<Box<Bundle>>) {
        if attempt > MAX_RESENDS {
            return;
        }
        lock(&handset.signal).drop_session(to);
        if let Some(bundle) = bundle
            && let Err(error) = lock(&handset.signal).start_session(to, &bundle)
        {
            tracing::warn!(%error, "the keys in a retry receipt are of no use");
        }
        for id in ids {
            let Some(message) = lock(&handset.chat).own(id).cloned() else { continue };
            let Some(chat) = Phone::parse(&message.to).ok().and_then(|p| lock(&self.state).registered(&p)) else {
                continue;
            };
            let Some(names) = self.names(Address::phone(chat)) else { continue };
            let plain = self.plaintext_for(handset, to, &names, &message.text);
            match self.encrypt(handset, &[(to, plain)]) {
                Ok(mut encs) => {
                    for (_, parts) in &mut encs {
                        parts.iter_mut().for_each(|e| e.attrs.push(("count".to_owned(), attempt.to_string())));
                    }
                    let again = self.own_message(id.clone(), names.user(self.config.phone_addressing), encs, None);
                    self.accept_message(Address::phone(handset.account), again, None);
                }
                Err(error) => tracing::warn!(%error, "a phone cannot send a message again"),
            }
        }
    }

    /// A text as a device gets it: the phone's own companions are told where it went.
    fn plaintext_for(&self, handset: &Handset, device: Address, chat: &Names, text: &str) -> Vec<u8> {
        let message = text_message(text);
        if device.account != handset.account {
            return message.encode_to_vec();
        }
        wa::Message {
            device_sent_message: Some(wa::message::DeviceSentMessage {
                destination_jid: Some(chat.user(self.config.phone_addressing).to_string()),
                message: Some(message).into(),
                phash: None,
            })
            .into(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    /// Encrypts for each device, starting the sessions that are missing. A device without keys is left out.
    fn encrypt(&self, handset: &Handset, plain: &[(Address, Vec<u8>)]) -> Result<Vec<(Jid, Vec<Enc>)>, SignalError> {
        let mut encs = Vec::with_capacity(plain.len());
        for (device, plain) in plain {
            let known = lock(&handset.signal).has_session(*device);
            let bundle = if known { None } else { self.take_bundle_at(&mut lock(&self.state), *device) };
            if !known && bundle.is_none() {
                continue;
            }
            let Some(names) = self.names(*device) else { continue };
            let mut signal = lock(&handset.signal);
            if let Some(bundle) = bundle {
                signal.start_session(*device, &bundle)?;
            }
            let enc = signal.encrypt(*device, plain)?;
            encs.push((names.device(self.config.phone_addressing, device.device), vec![enc]));
        }
        Ok(encs)
    }

    fn own_message(&self, id: String, to: Jid, parts: Vec<(Jid, Vec<Enc>)>, category: Option<&str>) -> OutMessage {
        OutMessage {
            id,
            to,
            recipient: None,
            kind: "text".to_owned(),
            category: category.map(str::to_owned),
            edit: None,
            parts,
            device_identity: None,
            extras: Vec::new(),
        }
    }

    /// A phone writes a text message. Returns the message's id.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn write(&self, phone: &Phone, to: &Phone, text: &str) -> Result<String, WriteError> {
        let (handset, number, recipient, recipient_number, devices) = {
            let state = lock(&self.state);
            let sender = state.find(phone).and_then(|id| state.account(id)).ok_or(WriteError::NoAccount)?;
            let recipient = state.find(to).and_then(|id| state.account(id)).ok_or(WriteError::NoRecipient)?;
            let mut devices: Vec<Address> = Vec::new();
            if recipient.id != sender.id {
                devices.push(Address::phone(recipient.id));
                devices.extend(recipient.companions.keys().map(|d| Address::new(recipient.id, *d)));
            }
            devices.extend(sender.companions.keys().map(|d| Address::new(sender.id, *d)));
            (sender.handset.clone(), sender.number.clone(), recipient.names.clone(), recipient.number.clone(), devices)
        };
        if !self.is_on(&number) {
            return Err(WriteError::PhoneOff);
        }
        let plain: Vec<_> =
            devices.into_iter().map(|d| (d, self.plaintext_for(&handset, d, &recipient, text))).collect();
        let encs = self.encrypt(&handset, &plain).map_err(|error| {
            tracing::warn!(%error, "a phone cannot encrypt a message");
            WriteError::Encrypting
        })?;
        let id = new_message_id();
        let shown = ChatMessage {
            id: id.clone(),
            from: number.to_string(),
            to: recipient_number.to_string(),
            text: text.to_owned(),
            timestamp: rfc3339(now()),
            from_me: true,
            status: Some(Status::Sent),
        };
        self.show(&handset, shown, None);
        let message = self.own_message(id.clone(), recipient.user(self.config.phone_addressing), encs, None);
        self.accept_message(Address::phone(handset.account), message, None);
        self.changed();
        Ok(id)
    }

    /// A phone's owner reads all chats. Returns how many messages were read, or `None` without such an account.
    pub fn read_chats(&self, phone: &Phone) -> Option<usize> {
        let handset = {
            let state = lock(&self.state);
            state.account(state.find(phone)?)?.handset.clone()
        };
        let unread = lock(&handset.chat).take_unread();
        let count = unread.len();
        let mut by_sender: Vec<((AccountId, Addressing), Vec<String>)> = Vec::new();
        for Unread { from, addressing, id } in unread {
            match by_sender.iter_mut().find(|(sender, _)| *sender == (from, addressing)) {
                Some((_, ids)) => ids.push(id),
                None => by_sender.push(((from, addressing), vec![id])),
            }
        }
        for ((sender, addressing), ids) in by_sender {
            self.send_receipt(&handset, (Address::phone(sender), addressing), ids, Some("read"), None);
        }
        Some(count)
    }

    /// What a phone shows, oldest first.
    pub fn messages(&self, phone: &Phone) -> Option<Vec<ChatMessage>> {
        let state = lock(&self.state);
        let account = state.account(state.find(phone)?)?;
        let messages = lock(&account.handset.chat).messages();
        Some(messages)
    }
}

/// An id in the style of Android phones.
fn new_message_id() -> String {
    let random: [u8; 15] = rand::random();
    random.iter().fold("AC".to_owned(), |mut id, byte| {
        use std::fmt::Write as _;
        let _ = write!(id, "{byte:02X}");
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn phone(number: &str) -> Phone {
        Phone::parse(number).unwrap()
    }

    #[test]
    fn a_message_that_a_phone_cannot_read_is_asked_for_and_sent_again() {
        let world = World::new(Config::default());
        let (ana, bruno) = (phone("5511999999999"), phone("5511988888888"));
        world.add_account(&ana, "Ana").unwrap();
        world.add_account(&bruno, "Bruno").unwrap();
        world.write(&ana, &bruno, "one").unwrap();
        world.write(&bruno, &ana, "two").unwrap();
        let (at_ana, handset) = {
            let state = lock(&world.state);
            (Address::phone(state.find(&ana).unwrap()), state.accounts[1].handset.clone())
        };
        lock(&handset.signal).drop_session(at_ana);
        world.write(&ana, &bruno, "three").unwrap();
        let texts: Vec<_> = world.messages(&bruno).unwrap().into_iter().map(|m| m.text).collect();
        assert_eq!(texts, ["one", "two", "three"]);
        assert_eq!(world.totals().retry_receipts, 1);
        assert_eq!(world.totals().repeated_ids, 0);
    }

    #[test]
    fn a_phone_that_acts_as_if_it_could_not_read_asks_once_per_message() {
        use crate::world::Fault;
        let world = World::new(Config::default());
        let (ana, bruno) = (phone("5511999999999"), phone("5511988888888"));
        world.add_account(&ana, "Ana").unwrap();
        world.add_account(&bruno, "Bruno").unwrap();
        world.add_fault(Fault { kind: FaultKind::Unreadable, phone: Some(bruno.clone()), times: Some(2) });
        for text in ["one", "two", "three"] {
            world.write(&ana, &bruno, text).unwrap();
        }
        world.write(&bruno, &ana, "four").unwrap();
        let texts: Vec<_> = world.messages(&bruno).unwrap().into_iter().map(|m| m.text).collect();
        assert_eq!(texts, ["one", "two", "three", "four"]);
        let totals = world.totals();
        assert_eq!((totals.retry_receipts, totals.repeated_ids, totals.shown), (2, 0, 8));
        let shown = |of: usize| world.totals_by_phone()[of].1.shown;
        assert_eq!((shown(0), shown(1)), (4, 4));
    }

    #[test]
    fn a_counter_that_is_used_twice_is_counted() {
        let world = World::new(Config::default());
        let (ana, bruno) = (phone("5511999999999"), phone("5511988888888"));
        world.add_account(&ana, "Ana").unwrap();
        world.add_account(&bruno, "Bruno").unwrap();
        world.write(&ana, &bruno, "one").unwrap();
        world.write(&bruno, &ana, "two").unwrap();
        let (at_bruno, handset) = {
            let state = lock(&world.state);
            (Address::phone(state.find(&bruno).unwrap()), state.accounts[0].handset.clone())
        };
        let before = lock(&handset.signal).session(at_bruno);
        world.write(&ana, &bruno, "three").unwrap();
        assert_eq!(world.totals().reused_counters, 0);
        // As a store does that was put back from a copy.
        lock(&handset.signal).put_session(at_bruno, before);
        world.write(&ana, &bruno, "four").unwrap();
        let texts: Vec<_> = world.messages(&bruno).unwrap().into_iter().map(|m| m.text).collect();
        assert_eq!(texts, ["one", "two", "three", "four"]);
        assert_eq!((world.totals().reused_counters, world.totals().retry_receipts), (1, 1));
    }

    #[test]
    fn a_note_to_oneself_stays_on_the_phone() {
        let world = World::new(Config::default());
        let ana = phone("5511999999999");
        world.add_account(&ana, "Ana").unwrap();
        world.write(&ana, &ana, "milk").unwrap();
        assert_eq!(world.messages(&ana).unwrap().len(), 1);
        assert!(matches!(world.write(&ana, &phone("5511900000000"), "hi"), Err(WriteError::NoRecipient)));
    }
}
