//! What phones say: composing, encrypting, and saying it again to those who could not read it.

use wacore::proto_helpers::MessageExt as _;
use wacore::send::{media_type_from_message, should_hide_decrypt_fail_for_send, stanza_type_from_message};
use wacore::types::message::EditAttribute;
use wacore_binary::Jid;
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::address::{AccountId, Address, Names};
use super::keys::Bundle;
use super::media::upload::UploadError;
use super::numbers::Phone;
use super::phone::Handset;
use super::phone::chat::Chat;
use super::phone::compose::{self, Draft, Manner, MediaDraft};
use super::phone::context::Timer;
use super::phone::message::ChatMessage;
use super::phone::signal::SignalError;
use super::reading::Heard;
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
    /// What the message is about is not in this chat.
    #[error("there is no such message in this chat")]
    NoMessage,
    /// It was written by someone else, or taken back.
    #[error("only what one has written oneself, and not taken back, can be changed")]
    NotOwn,
    /// It is no poll, or has no such option.
    #[error("it is no poll, or has no such option")]
    NoOption,
    /// What is called a file is none.
    #[error("this kind has no file")]
    NoFile,
    /// The bytes are no message.
    #[error("the bytes are no message")]
    NoContent,
    /// The file cannot be stored.
    #[error("the file can't be stored")]
    Storage,
    /// Encrypting failed.
    #[error("encrypting failed")]
    Encrypting,
}

/// Both ends of a chat, as its phone sees them.
struct Ends<'a> {
    own: &'a Names,
    other: &'a Names,
    own_number: &'a str,
    other_number: &'a str,
}

/// A message that one of the two has in this chat.
fn in_chat<'c>(chat: &'c Chat, id: &str, ends: &Ends<'_>) -> Result<&'c ChatMessage, WriteError> {
    chat.find(id).filter(|m| m.is_between(ends.own_number, ends.other_number)).ok_or(WriteError::NoMessage)
}

/// An own message that can still be changed.
fn own_in_chat<'c>(chat: &'c Chat, id: &str, ends: &Ends<'_>) -> Result<&'c ChatMessage, WriteError> {
    let message = in_chat(chat, id, ends)?;
    if message.from_me && !message.revoked { Ok(message) } else { Err(WriteError::NotOwn) }
}

impl World {
    pub(super) fn resend(
        &self,
        handset: &Handset,
        ids: &[String],
        to: Address,
        attempt: u8,
        bundle: Option<Box<Bundle>>,
    ) {
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
            let Some((number, message)) = written(&lock(&handset.chat), id) else { continue };
            let Some(chat) = Phone::parse(&number).ok().and_then(|p| lock(&self.state).registered(&p)) else {
                continue;
            };
            // Whoever is in no chat with the message's owner gets nothing of it.
            if to.account != chat && to.account != handset.account {
                continue;
            }
            let Some(names) = self.names(Address::phone(chat)) else { continue };
            let plain = Plain::new(self.chat_jid(&names), &message).for_device(handset, to);
            match self.encrypt(handset, &[(to, plain)]) {
                Ok(mut encs) => {
                    mark(&mut encs, &message);
                    for (_, parts) in &mut encs {
                        parts.iter_mut().for_each(|e| e.attrs.push(("count".to_owned(), attempt.to_string())));
                    }
                    let again = self.own_message(id.clone(), self.chat_jid(&names), encs, &message, None);
                    self.accept_message(Address::phone(handset.account), again, None);
                }
                Err(error) => tracing::warn!(%error, "a phone cannot send a message again"),
            }
        }
    }

    /// The address of a chat, as phones write it.
    fn chat_jid(&self, chat: &Names) -> Jid {
        chat.user(self.config.phone_addressing)
    }

    /// Encrypts for each device, starting the sessions that are missing. A device without keys is left out.
    pub(super) fn encrypt(
        &self,
        handset: &Handset,
        plain: &[(Address, Vec<u8>)],
    ) -> Result<Vec<(Jid, Vec<Enc>)>, SignalError> {
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

    pub(super) fn own_message(
        &self,
        id: String,
        to: Jid,
        parts: Vec<(Jid, Vec<Enc>)>,
        message: &wa::Message,
        category: Option<&str>,
    ) -> OutMessage {
        OutMessage {
            id,
            to,
            recipient: None,
            kind: stanza_type_from_message(message).to_owned(),
            category: category.map(str::to_owned),
            edit: EditAttribute::infer_from_message(message).map(|edit| edit.to_string_val().to_owned()),
            parts,
            device_identity: None,
            extras: Vec::new(),
            withheld_as: None,
        }
    }

    /// A phone writes a text message. Returns the message's id.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn write(&self, phone: &Phone, to: &Phone, text: &str) -> Result<String, WriteError> {
        self.send(phone, to, Draft::Text(text.to_owned()), Manner::default())
    }

    /// A phone sends something, in the manner that it is told to. Returns the message's id.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn send(&self, phone: &Phone, to: &Phone, draft: Draft, manner: Manner) -> Result<String, WriteError> {
        let (handset, own, number, other, other_handset, other_account, other_number, devices) = {
            let state = lock(&self.state);
            let sender = state.find(phone).and_then(|id| state.account(id)).ok_or(WriteError::NoAccount)?;
            let recipient = state.find(to).and_then(|id| state.account(id)).ok_or(WriteError::NoRecipient)?;
            let mut devices: Vec<Address> = Vec::new();
            if recipient.id != sender.id {
                devices.push(Address::phone(recipient.id));
                devices.extend(recipient.companions.keys().map(|d| Address::new(recipient.id, *d)));
            }
            devices.extend(sender.companions.keys().map(|d| Address::new(sender.id, *d)));
            (
                sender.handset.clone(),
                sender.names.clone(),
                sender.number.clone(),
                recipient.names.clone(),
                recipient.handset.clone(),
                recipient.id,
                recipient.number.clone(),
                devices,
            )
        };
        if !self.is_on(&number) {
            return Err(WriteError::PhoneOff);
        }
        let view_once = matches!(&draft, Draft::Media(media) if media.view_once);
        let plain_text = matches!(draft, Draft::Text(_));
        let ends = Ends { own: &own, other: &other, own_number: number.as_str(), other_number: other_number.as_str() };
        let mut message = self.compose(&handset, &ends, draft, manner.reply_to.as_deref())?;
        if let Some(referral) = manner.referral
            && !referral.mark(&mut message)
        {
            return Err(WriteError::NoContent);
        }
        if let Some(timer) = lock(&handset.chat).timer(other_number.as_str()) {
            timer.mark(&mut message);
        }
        // What says no more than its text is made again from what is shown.
        let plain_text = plain_text && message.conversation.is_some();
        let plain = Plain::new(self.chat_jid(&other), &message);
        let plain: Vec<_> = devices.into_iter().map(|d| (d, plain.for_device(&handset, d))).collect();
        let mut encs = self.encrypt(&handset, &plain).map_err(|error| {
            tracing::warn!(%error, "a phone cannot encrypt a message");
            WriteError::Encrypting
        })?;
        mark(&mut encs, &message);
        if view_once || manner.unavailable {
            // A device without a part of its own is told that there is one.
            encs.iter_mut().filter(|(device, _)| device.device != 0).for_each(|(_, parts)| parts.clear());
        }
        let id = new_message_id();
        if manner.unavailable {
            for chat in [&handset.chat, &other_handset.chat] {
                lock(chat).withhold(&id, handset.account, message.encode_to_vec());
            }
        }
        if !plain_text {
            lock(&handset.chat).keep(&id, other_number.as_str(), message.encode_to_vec());
        }
        let heard = Heard { id: &id, from: handset.account, to: other_account, timestamp: now(), unread: None };
        self.apply(&handset, heard, &message);
        let mut message = self.own_message(id.clone(), self.chat_jid(&other), encs, &message, None);
        message.withheld_as = view_once.then_some("view_once");
        self.accept_message(Address::phone(handset.account), message, None);
        self.changed();
        Ok(id)
    }

    fn compose(
        &self,
        handset: &Handset,
        ends: &Ends<'_>,
        draft: Draft,
        reply_to: Option<&str>,
    ) -> Result<wa::Message, WriteError> {
        let name = |own: bool| {
            let names = if own { ends.own } else { ends.other };
            names.user(names.shown(self.config.phone_addressing)).to_string()
        };
        let key = |message: &ChatMessage| wa::MessageKey {
            remote_jid: Some(name(false)),
            from_me: Some(message.from_me),
            id: Some(message.id.clone()),
            ..Default::default()
        };
        let mut message = match draft {
            Draft::Text(text) => compose::text(&text),
            Draft::Media(media) => self.upload(handset.account, media)?,
            Draft::Location(location) => compose::location(location),
            Draft::Contact { name, phone } => compose::contact(name, &phone),
            Draft::Poll { name, options } => compose::poll(name, options),
            Draft::Reaction { message_id, emoji } => {
                let chat = lock(&handset.chat);
                compose::reaction(key(in_chat(&chat, &message_id, ends)?), emoji, now())
            }
            Draft::Edit { message_id, text } => {
                let chat = lock(&handset.chat);
                let target = own_in_chat(&chat, &message_id, ends)?;
                compose::edit(key(target), target.kind, text, now())
            }
            Draft::Revoke { message_id } => {
                let chat = lock(&handset.chat);
                compose::revoke(key(own_in_chat(&chat, &message_id, ends)?))
            }
            Draft::Vote { message_id, options } => {
                let chat = lock(&handset.chat);
                let target = in_chat(&chat, &message_id, ends)?;
                let poll = target.more.as_ref().and_then(|more| more.poll.as_ref()).ok_or(WriteError::NoOption)?;
                if !options.iter().all(|option| poll.options.contains(option)) {
                    return Err(WriteError::NoOption);
                }
                let creator = name(target.from_me);
                compose::vote(key(target), poll, &options, &creator, &name(true), now()).ok_or(WriteError::NoOption)?
            }
            Draft::Timer(seconds) => compose::timer(Timer { seconds, set_at: now() }),
            Draft::Built(message) => *message,
            Draft::Raw(bytes) => wa::Message::decode_from_slice(&bytes).map_err(|_| WriteError::NoContent)?,
        };
        if let Some(id) = reply_to {
            let chat = lock(&handset.chat);
            let quoted = in_chat(&chat, id, ends)?;
            let context = wa::ContextInfo {
                stanza_id: Some(id.to_owned()),
                participant: Some(name(quoted.from_me)),
                quoted_message: Some(compose::text(&quoted.text)).into(),
                ..Default::default()
            };
            if !message.set_context_info(context) {
                return Err(WriteError::NoContent);
            }
        }
        Ok(message)
    }

    /// Encrypts a file, brings it to the media host, and makes the message around it.
    fn upload(&self, account: AccountId, media: MediaDraft) -> Result<wa::Message, WriteError> {
        let (kind, what) = media.what().ok_or(WriteError::NoFile)?;
        let file = wacore::upload::encrypt_media(&media.bytes, what).map_err(|_| WriteError::Encrypting)?;
        let object = self.media.put(&file.data_to_upload, file.file_enc_sha256, account).map_err(|error| {
            if let UploadError::Storage(error) = &error {
                tracing::warn!(%error, "a phone cannot store a file");
            }
            WriteError::Storage
        })?;
        Ok(media.message(kind, &file, self.media_host(None), &object.direct_path(), now()))
    }
}

/// What was written under an id, to be sent again, and to whom. What was taken back is not.
fn written(chat: &Chat, id: &str) -> Option<(String, wa::Message)> {
    if let Some((to, message)) = chat.kept(id) {
        return Some((to.to_owned(), wa::Message::decode_from_slice(message).ok()?));
    }
    let message = chat.own(id).filter(|message| !message.revoked)?;
    Some((message.to.clone(), compose::text(&message.text)))
}

/// Tells the receivers what kind of thing is in there, as it may matter to them before they can read it.
fn mark(encs: &mut [(Jid, Vec<Enc>)], message: &wa::Message) {
    let edit = EditAttribute::infer_from_message(message);
    let hidden = should_hide_decrypt_fail_for_send(edit.as_ref(), message);
    let media = media_type_from_message(message);
    for enc in encs.iter_mut().flat_map(|(_, parts)| parts) {
        enc.attrs.extend(media.map(|media| ("mediatype".to_owned(), media.to_owned())));
        if hidden {
            enc.attrs.push(("decrypt-fail".to_owned(), "hide".to_owned()));
        }
    }
}

/// A message as devices get it: the phone's own companions are told where it went.
struct Plain {
    for_others: Vec<u8>,
    for_own: Vec<u8>,
}

impl Plain {
    fn new(chat: Jid, message: &wa::Message) -> Self {
        let sent = wa::message::DeviceSentMessage {
            destination_jid: Some(chat.to_string()),
            message: Some(message.clone()).into(),
            phash: None,
        };
        let wrapped = wa::Message {
            device_sent_message: Some(sent).into(),
            // The secret of a poll is looked for outside.
            message_context_info: message.message_context_info.clone(),
            ..Default::default()
        };
        Self { for_others: message.encode_to_vec(), for_own: wrapped.encode_to_vec() }
    }

    fn for_device(&self, handset: &Handset, device: Address) -> Vec<u8> {
        if device.account == handset.account { &self.for_own } else { &self.for_others }.clone()
    }
}

/// An id in the style of Android phones.
pub(super) fn new_message_id() -> String {
    let random: [u8; 15] = rand::random();
    random.iter().fold("AC".to_owned(), |mut id, byte| {
        use std::fmt::Write as _;
        let _ = write!(id, "{byte:02X}");
        id
    })
}
