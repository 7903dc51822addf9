//! What phones hear: decrypting it, doing what it asks for, and asking again for what they cannot read.

use wacore::poll::{PollVoteCiphertext, compute_option_hash, decrypt_poll_vote_with_secret};
use wacore_binary::Jid;
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::address::{AccountId, Address, Addressing};
use super::faults::FaultKind;
use super::handover::asked_to_hand_over;
use super::numbers::Phone;
use super::phone::chat::Unread;
use super::phone::content::{Content, read};
use super::phone::message::{ChatMessage, Kind, More, Poll, Status, rfc3339};
use super::phone::signal::SignalError;
use super::phone::{Envelope, Handset, Task};
use super::receipts::OutReceipt;
use super::{World, lock};

/// A decrypted message, and how it came.
pub(super) struct Heard<'a> {
    pub(super) id: &'a str,
    pub(super) from: AccountId,
    pub(super) to: AccountId,
    pub(super) timestamp: i64,
    /// Under which of its names the phone was written to, if its owner has yet to look at the message.
    pub(super) unread: Option<Addressing>,
}

impl World {
    pub(super) fn receive(&self, handset: &Handset, phone: &Phone, envelope: Envelope) {
        let Envelope { id, from, addressing, recipient, timestamp, enc } = envelope;
        if lock(&handset.chat).has_read(from.account, &id) {
            self.count(Address::phone(handset.account), |c| &c.repeated_ids);
            self.send_receipt(handset, (from, addressing), vec![id], None);
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
                self.ask_again(handset, (from, addressing, recipient), id, timestamp);
                return;
            }
        };
        let shown = self.read_message(handset, (from, addressing), &id, timestamp, &message);
        lock(&handset.chat).note_read(from.account, &id, shown);
        self.send_receipt(handset, (from, addressing), vec![id], None);
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
        if own && let Some(request) = message.protocol_message.peer_data_operation_request_message.as_option() {
            handset.give(asked_to_hand_over(from.device, id, request));
            return false;
        }
        if own && message.protocol_message.app_state_sync_key_request.is_set() {
            handset.give(Task::ShareKeys { device: from.device });
            return false;
        }
        let to = match message.device_sent_message.as_option() {
            Some(sent) if own => {
                let to = sent.destination_jid.as_deref().and_then(|jid| jid.parse::<Jid>().ok());
                to.and_then(|jid| lock(&self.state).resolve(&jid)).map(|(account, _)| account)
            }
            _ => Some(handset.account),
        };
        let Some(to) = to else { return false };
        let unread = (!own).then_some(addressing);
        self.apply(handset, Heard { id, from: from.account, to, timestamp, unread }, message)
    }

    /// Changes what the screen shows. Returns whether there is another message on it.
    pub(super) fn apply(&self, handset: &Handset, heard: Heard<'_>, message: &wa::Message) -> bool {
        let (Some(from), Some(to)) = (self.number_of(heard.from), self.number_of(heard.to)) else { return false };
        let (kind, text, more) = match read(message) {
            Content::Nothing => return false,
            Content::Timer(timer) => {
                let other = if heard.from == handset.account { &to } else { &from };
                lock(&handset.chat).set_timer(other.as_str(), timer);
                return false;
            }
            Content::Show { kind, text, more } => (kind, text, more),
            Content::React { id, emoji } => {
                if lock(&handset.chat).react(&id, from.as_str(), to.as_str(), &emoji) || emoji.is_empty() {
                    return false;
                }
                (Kind::Reaction, emoji, More { reply_to: Some(id), ..More::default() }.boxed())
            }
            Content::Edit { id, text } => {
                lock(&handset.chat).edit(&id, from.as_str(), to.as_str(), &text);
                return false;
            }
            Content::Revoke { id } => {
                lock(&handset.chat).revoke(&id, from.as_str(), to.as_str());
                return false;
            }
            Content::Vote { id, ciphertext, iv } => {
                let poll = poll_of(handset, &id);
                let chosen = poll.and_then(|(poll, by)| self.open_vote((&poll, by), &id, heard.from, &ciphertext, &iv));
                if let Some(chosen) = chosen {
                    lock(&handset.chat).vote(&id, from.as_str(), to.as_str(), chosen);
                    return false;
                }
                let type_name = Some("pollUpdateMessage".to_owned());
                (Kind::Unsupported, String::new(), More { type_name, ..More::default() }.boxed())
            }
        };
        let other = if heard.from == handset.account { &to } else { &from };
        let has_timer = lock(&handset.chat).timer(other.as_str()).is_some();
        let mut more = more;
        if has_timer && more.as_ref().is_none_or(|more| more.disappears_after.is_none()) {
            let known = more.map(|more| *more).unwrap_or_default();
            more = More { without_timer: true, ..known }.boxed();
        }
        let media = more.as_ref().and_then(|more| more.media.clone());
        let shown = ChatMessage {
            id: heard.id.to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            kind,
            text,
            timestamp: rfc3339(heard.timestamp),
            from_me: heard.from == handset.account,
            status: (heard.from == handset.account).then_some(Status::Sent),
            edited: false,
            revoked: false,
            reactions: Vec::new(),
            more,
        };
        let unread = heard.unread.map(|addressing| Unread { from: heard.from, addressing, id: heard.id.to_owned() });
        lock(&handset.chat).show(shown, unread);
        self.count(Address::phone(handset.account), |c| &c.shown);
        if let Some(media) = media {
            let there = self.media_at(&media.direct_path);
            self.media.look(&media, there);
        }
        true
    }

    /// What someone chose in a poll. Voters may know either of them by either name.
    fn open_vote(
        &self,
        (poll, creator): (&Poll, String),
        id: &str,
        voter: AccountId,
        enc_payload: &[u8],
        enc_iv: &[u8],
    ) -> Option<Vec<String>> {
        let creator = Phone::parse(&creator).ok().and_then(|phone| lock(&self.state).registered(&phone))?;
        let (creator, voter) = (self.names(Address::phone(creator))?, self.names(Address::phone(voter))?);
        let forms = [Addressing::Lid, Addressing::Pn];
        let hashes = forms.iter().flat_map(|c| forms.iter().map(move |v| (c, v))).find_map(|(c, v)| {
            let (creator, voter) = (creator.user(*c).to_string(), voter.user(*v).to_string());
            let ciphertext = PollVoteCiphertext { enc_payload, enc_iv };
            decrypt_poll_vote_with_secret(ciphertext, &poll.secret, id, &creator, &voter).ok()
        })?;
        let known = |hash: &Vec<u8>| poll.options.iter().find(|option| compute_option_hash(option) == **hash);
        hashes.iter().map(|hash| known(hash).cloned()).collect()
    }

    fn ask_again(
        &self,
        handset: &Handset,
        (from, addressing, recipient): (Address, Addressing, Option<Jid>),
        id: String,
        timestamp: i64,
    ) {
        let Some(count) = lock(&handset.chat).count_retry(from.account, &id) else {
            tracing::warn!("a phone gives up on a message that it cannot read");
            return;
        };
        let (bundle, registration) = {
            let mut signal = lock(&handset.signal);
            (signal.bundle(), signal.registration_id())
        };
        let extras = crate::wire::retry::request(&id, count, timestamp, registration, &bundle);
        let Some(names) = self.names(from) else { return };
        self.accept_receipt(
            Address::phone(handset.account),
            OutReceipt {
                ids: vec![id],
                to: names.device(addressing, from.device),
                recipient,
                kind: Some("retry".to_owned()),
                extras,
                retry: Some((count, Some(Box::new(bundle)))),
                reupload: None,
            },
        );
    }
}

/// A poll on this phone, and who asked it.
fn poll_of(handset: &Handset, id: &str) -> Option<(Poll, String)> {
    let chat = lock(&handset.chat);
    let message = chat.find(id)?;
    Some((message.more.as_ref()?.poll.clone()?, message.from.clone()))
}
