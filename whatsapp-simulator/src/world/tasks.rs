//! What phones do, one thing after the other, and the small things among it: receipts, keys, and looking at chats.

use waproto::buffa::Message as _;

use super::address::{AccountId, Address, Addressing};
use super::faults::FaultKind;
use super::numbers::Phone;
use super::phone::chat::Unread;
use super::phone::message::{ChatMessage, Kind};
use super::phone::{Handset, Task};
use super::receipts::OutReceipt;
use super::writing::new_message_id;
use super::{World, lock, now};

impl World {
    pub(super) fn is_on(&self, phone: &Phone) -> bool {
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
                    Task::HandOver { device, request, ids } => self.hand_over(&handset, device, &request, &ids),
                    Task::Reupload { device, id, request } => self.reupload(&handset, device, &id, &request),
                }
            }
            // Whoever switches it on while this one still has the inbox relies on it to go on.
            if !self.is_on(&phone) {
                return;
            }
        }
    }

    pub(super) fn send_receipt(
        &self,
        handset: &Handset,
        (to, addressing): (Address, Addressing),
        ids: Vec<String>,
        kind: Option<&str>,
    ) {
        let own = to.account == handset.account;
        let Some(names) = self.names(to) else { return };
        let kind = kind.or(own.then_some("sender"));
        self.accept_receipt(
            Address::phone(handset.account),
            OutReceipt {
                ids,
                to: names.device(addressing, to.device),
                recipient: None,
                kind: kind.map(str::to_owned),
                extras: Vec::new(),
                retry: None,
                reupload: None,
            },
        );
    }

    /// A phone sends a receipt for whatever ids it is told, to whomever. Real phones do so for what they got; the server
    /// does not look. `None` if one of the two has no account.
    pub fn claim(&self, phone: &Phone, to: &Phone, ids: Vec<String>, kind: Option<&str>) -> Option<()> {
        let (handset, to) = {
            let state = lock(&self.state);
            (state.account(state.find(phone)?)?.handset.clone(), state.find(to)?)
        };
        self.send_receipt(&handset, (Address::phone(to), self.config.phone_addressing), ids, kind);
        Some(())
    }

    fn share_keys(&self, handset: &Handset, device: u16) {
        let at = Address::new(handset.account, device);
        let Some(names) = self.names(at) else { return };
        let keys = handset.key_share(now());
        match self.encrypt(handset, &[(at, keys.encode_to_vec())]) {
            Ok(encs) => {
                let message = self.own_message(new_message_id(), names.user(Addressing::Pn), encs, &keys, Some("peer"));
                self.accept_message(Address::phone(handset.account), message, None);
            }
            Err(error) => tracing::warn!(%error, "a phone cannot share its app state key"),
        }
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
            self.send_receipt(&handset, (Address::phone(sender), addressing), ids, Some("read"));
        }
        Some(count)
    }

    /// A phone's owner listens to a voice note. `None` without such an account; `Some(false)` where there is no such voice
    /// note of somebody else's.
    pub fn play(&self, phone: &Phone, id: &str) -> Option<bool> {
        let (handset, sender) = {
            let state = lock(&self.state);
            let handset = state.account(state.find(phone)?)?.handset.clone();
            let chat = lock(&handset.chat);
            let note = chat.find(id).filter(|message| message.kind == Kind::Voice && !message.from_me);
            let sender = note.and_then(|note| state.registered(&Phone::parse(&note.from).ok()?));
            drop(chat);
            (handset, sender)
        };
        let Some(sender) = sender else { return Some(false) };
        let unread = lock(&handset.chat).take_one_unread(id);
        let addressing = unread.as_ref().map_or(self.config.phone_addressing, |unread| unread.addressing);
        let kinds = if unread.is_some() { &["read", "played"][..] } else { &["played"] };
        for kind in kinds {
            self.send_receipt(&handset, (Address::phone(sender), addressing), vec![id.to_owned()], Some(kind));
        }
        Some(true)
    }

    /// What a phone shows, oldest first.
    pub fn messages(&self, phone: &Phone) -> Option<Vec<ChatMessage>> {
        let state = lock(&self.state);
        let account = state.account(state.find(phone)?)?;
        let messages = lock(&account.handset.chat).messages();
        Some(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::world::writing::WriteError;

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
