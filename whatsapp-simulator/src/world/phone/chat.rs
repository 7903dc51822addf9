//! What a phone shows: its messages, newest last, and their ticks.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use waproto::whatsapp as wa;

use crate::world::address::{AccountId, Addressing};

/// How many messages a phone remembers; the oldest go first.
const MEMORY: usize = 5_000;

/// How far an own message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The server has it.
    Sent,
    /// One of the recipient's devices has it.
    Delivered,
    /// The recipient has read it.
    Read,
}

/// A message on a phone's screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// The id that its sender gave it.
    pub id: String,
    /// The sender's phone number.
    pub from: String,
    /// The recipient's phone number.
    pub to: String,
    /// The text; of anything but text, its kind in brackets.
    pub text: String,
    /// RFC 3339, UTC.
    pub timestamp: String,
    /// Whether this account wrote it, on whatever device.
    pub from_me: bool,
    /// How far it got; only of own messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// A message that arrived and that its owner has not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) from: AccountId,
    pub(crate) addressing: Addressing,
    pub(crate) id: String,
}

/// The ids that were noted last, each with who gave it.
#[derive(Debug, Default)]
struct Ids {
    known: HashSet<(AccountId, String)>,
    order: VecDeque<(AccountId, String)>,
}

impl Ids {
    /// Twice as many as messages, so that an id outlives its message.
    const MEMORY: usize = 2 * MEMORY;

    fn note(&mut self, from: AccountId, id: &str) {
        let key = (from, id.to_owned());
        if !self.known.insert(key.clone()) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > Self::MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn has(&self, from: AccountId, id: &str) -> bool {
        self.known.contains(&(from, id.to_owned()))
    }
}

/// A phone's messages.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    messages: VecDeque<ChatMessage>,
    /// What was received and is or was shown.
    shown_ids: Ids,
    /// What was received and shows nothing. Apart from the others: however much there is of it, it pushes none of them
    /// out.
    other_ids: Ids,
    unread: Vec<Unread>,
    /// How often each unreadable message was asked for again.
    retries: HashMap<(AccountId, String), u8>,
    /// How far messages got that this phone has yet to hear of: a companion wrote them, and the receipt was faster.
    early_ticks: HashMap<String, Status>,
}

impl Chat {
    /// Notes the id of a message that was read, and whether it is one that is shown.
    pub(crate) fn note_read(&mut self, from: AccountId, id: &str, shown: bool) {
        self.retries.remove(&(from, id.to_owned()));
        if shown { &mut self.shown_ids } else { &mut self.other_ids }.note(from, id);
    }

    /// Whether this id was already read from this sender.
    pub(crate) fn has_read(&self, from: AccountId, id: &str) -> bool {
        self.shown_ids.has(from, id) || self.other_ids.has(from, id)
    }

    /// Whether this message came before, could not be read, and was asked for again.
    pub(crate) fn was_asked_for(&self, from: AccountId, id: &str) -> bool {
        self.retries.contains_key(&(from, id.to_owned()))
    }

    /// Counts another attempt to get an unreadable message; `None` when it is time to give up.
    pub(crate) fn count_retry(&mut self, from: AccountId, id: &str) -> Option<u8> {
        const MAX_RETRIES: u8 = 5;
        if self.retries.len() > MEMORY {
            self.retries.clear();
        }
        let count = self.retries.entry((from, id.to_owned())).or_default();
        *count += 1;
        (*count <= MAX_RETRIES).then_some(*count)
    }

    pub(crate) fn show(&mut self, mut message: ChatMessage, unread: Option<Unread>) {
        if message.from_me {
            message.status = message.status.max(self.early_ticks.remove(&message.id));
        }
        if self.messages.len() >= MEMORY {
            self.messages.pop_front();
        }
        self.messages.push_back(message);
        self.unread.extend(unread);
        if self.unread.len() > MEMORY {
            self.unread.remove(0);
        }
    }

    pub(crate) fn take_unread(&mut self) -> Vec<Unread> {
        std::mem::take(&mut self.unread)
    }

    /// Own messages got further.
    pub(crate) fn tick(&mut self, ids: &[String], status: Status) -> bool {
        let mut changed = false;
        for id in ids.iter().filter(|id| self.own(id).is_none()).cloned().collect::<Vec<_>>() {
            if self.early_ticks.len() > MEMORY {
                self.early_ticks.clear();
            }
            let early = self.early_ticks.entry(id).or_insert(status);
            *early = status.max(*early);
        }
        for message in self.messages.iter_mut().rev().filter(|m| m.from_me && ids.contains(&m.id)).take(ids.len()) {
            if message.status < Some(status) {
                message.status = Some(status);
                changed = true;
            }
        }
        changed
    }

    pub(crate) fn messages(&self) -> Vec<ChatMessage> {
        self.messages.iter().cloned().collect()
    }

    pub(crate) fn newest(&self, count: usize) -> Vec<ChatMessage> {
        self.messages.iter().skip(self.messages.len().saturating_sub(count)).cloned().collect()
    }

    /// An own message, to be sent again.
    pub(crate) fn own(&self, id: &str) -> Option<&ChatMessage> {
        self.messages.iter().rev().find(|m| m.from_me && m.id == id)
    }
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn rfc3339(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A text message.
pub(crate) fn text_message(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.to_owned()), ..Default::default() }
}

/// What the screen shows of a message; `None` for what is not shown at all.
pub(crate) fn shown_text(message: &wa::Message) -> Option<String> {
    if let Some(text) = &message.conversation {
        return Some(text.clone());
    }
    if let Some(extended) = message.extended_text_message.as_option() {
        return extended.text.clone();
    }
    let kinds = [
        (message.image_message.is_set(), "[image]"),
        (message.video_message.is_set(), "[video]"),
        (message.audio_message.is_set(), "[audio]"),
        (message.document_message.is_set(), "[document]"),
        (message.sticker_message.is_set(), "[sticker]"),
        (message.location_message.is_set(), "[location]"),
        (message.contact_message.is_set(), "[contact]"),
    ];
    kinds.into_iter().find(|(set, _)| *set).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRUNO: AccountId = AccountId(2);

    fn own(id: &str) -> ChatMessage {
        ChatMessage {
            id: id.to_owned(),
            from: "1".to_owned(),
            to: "2".to_owned(),
            text: "hi".to_owned(),
            timestamp: rfc3339(0),
            from_me: true,
            status: Some(Status::Sent),
        }
    }

    #[test]
    fn a_receipt_may_come_before_the_message_that_it_is_about() {
        let mut chat = Chat::default();
        assert!(!chat.tick(&["A".to_owned()], Status::Read));
        chat.tick(&["A".to_owned()], Status::Delivered);
        chat.show(own("A"), None);
        chat.show(own("B"), None);
        let ticks: Vec<_> = chat.messages().iter().map(|message| message.status).collect();
        assert_eq!(ticks, [Some(Status::Read), Some(Status::Sent)]);
    }

    #[test]
    fn a_repeated_id_is_noticed_per_sender() {
        let mut chat = Chat::default();
        assert!(!chat.has_read(BRUNO, "A"));
        chat.note_read(BRUNO, "A", true);
        assert!(chat.has_read(BRUNO, "A"));
        assert!(!chat.has_read(AccountId(3), "A"));
    }

    #[test]
    fn an_id_outlives_its_message_and_memory_has_an_end() {
        let mut chat = Chat::default();
        chat.note_read(BRUNO, "shown", true);
        for n in 0..3 * MEMORY {
            chat.note_read(BRUNO, &format!("not shown {n}"), false);
        }
        assert!(chat.has_read(BRUNO, "shown"), "what shows nothing pushes nothing out");
        for n in 0..MEMORY {
            chat.show(own(&n.to_string()), None);
            chat.note_read(BRUNO, &n.to_string(), true);
        }
        assert!(chat.messages().iter().all(|m| chat.has_read(BRUNO, &m.id)));
        assert!(chat.has_read(BRUNO, "shown"));
        for n in 0..2 * MEMORY {
            chat.note_read(BRUNO, &format!("more {n}"), true);
        }
        assert!(!chat.has_read(BRUNO, "shown"), "memory is not without end");
    }

    #[test]
    fn ticks_only_go_forward() {
        let mut chat = Chat::default();
        chat.show(own("A"), None);
        assert!(chat.tick(&["A".to_owned()], Status::Read));
        assert!(!chat.tick(&["A".to_owned()], Status::Delivered));
        assert_eq!(chat.messages()[0].status, Some(Status::Read));
    }

    #[test]
    fn the_oldest_messages_are_forgotten() {
        let mut chat = Chat::default();
        (0..MEMORY + 3).for_each(|n| chat.show(own(&n.to_string()), None));
        assert_eq!(chat.messages().len(), MEMORY);
        assert_eq!(chat.messages()[0].id, "3");
        assert_eq!(chat.newest(2).len(), 2);
    }

    #[test]
    fn retries_end() {
        let mut chat = Chat::default();
        let counts: Vec<_> = (0..7).map(|_| chat.count_retry(BRUNO, "A")).collect();
        assert_eq!(counts, [Some(1), Some(2), Some(3), Some(4), Some(5), None, None]);
    }

    #[test]
    fn what_is_not_text_shows_its_kind() {
        assert_eq!(shown_text(&text_message("hi")).as_deref(), Some("hi"));
        let image =
            wa::Message { image_message: Some(wa::message::ImageMessage::default()).into(), ..Default::default() };
        assert_eq!(shown_text(&image).as_deref(), Some("[image]"));
        assert_eq!(shown_text(&wa::Message::default()), None);
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
