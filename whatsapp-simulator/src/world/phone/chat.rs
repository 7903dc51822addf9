//! What a phone shows: its messages, newest last, and their ticks.

use std::collections::{HashMap, HashSet, VecDeque};

use super::context::Timer;
use super::message::{ChatMessage, Reaction, Status, Vote};
use crate::world::address::{AccountId, Addressing};

/// How many messages a phone remembers; the oldest go first.
const MEMORY: usize = 5_000;

/// How much of what it wrote and does not show as a plain text it can send again.
const WRITTEN: usize = 1_000;

/// How many messages a phone can hand over to companions that were not given them.
const WITHHELD: usize = 100;

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
    /// What it wrote and could not make again from what it shows: who it went to, and the message.
    written: VecDeque<(String, String, Vec<u8>)>,
    /// How far messages got that this phone has yet to hear of: a companion wrote them, and the receipt was faster.
    early_ticks: HashMap<String, Status>,
    /// How long messages stay, by the number of the other side.
    timers: HashMap<String, Timer>,
    /// What companions were not given, by its id: who wrote it, and the message.
    withheld: VecDeque<(String, AccountId, Vec<u8>)>,
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

    /// Keeps a message of its own that is no plain text, in case someone can't read it.
    pub(crate) fn keep(&mut self, id: &str, to: &str, message: Vec<u8>) {
        if self.written.len() >= WRITTEN {
            self.written.pop_front();
        }
        self.written.push_back((id.to_owned(), to.to_owned(), message));
    }

    /// What was kept under an id: who it went to, and the message.
    pub(crate) fn kept(&self, id: &str) -> Option<(&str, &[u8])> {
        let (_, to, message) = self.written.iter().rev().find(|(kept, ..)| kept == id)?;
        Some((to, message))
    }

    /// From now on the messages of the chat with this number stay so long, unless that is known already in a newer form.
    pub(crate) fn set_timer(&mut self, with: &str, timer: Timer) {
        let known = self.timers.entry(with.to_owned()).or_insert(timer);
        if known.set_at <= timer.set_at {
            *known = timer;
        }
    }

    /// How long the messages of the chat with this number stay.
    pub(crate) fn timer(&self, with: &str) -> Option<Timer> {
        self.timers.get(with).copied().filter(|timer| timer.seconds > 0)
    }

    /// Keeps what this phone's companions are not given.
    pub(crate) fn withhold(&mut self, id: &str, from: AccountId, message: Vec<u8>) {
        if self.withheld.len() >= WITHHELD {
            self.withheld.pop_front();
        }
        self.withheld.push_back((id.to_owned(), from, message));
    }

    /// What companions were not given, by its id.
    pub(crate) fn withheld(&self, id: &str) -> Option<(AccountId, Vec<u8>)> {
        let (_, from, message) = self.withheld.iter().rev().find(|(withheld, ..)| withheld == id)?;
        Some((*from, message.clone()))
    }

    /// Takes one message out of those that its owner has not looked at.
    pub(crate) fn take_one_unread(&mut self, id: &str) -> Option<Unread> {
        let at = self.unread.iter().position(|unread| unread.id == id)?;
        Some(self.unread.remove(at))
    }

    /// A message by its id.
    pub(crate) fn find(&self, id: &str) -> Option<&ChatMessage> {
        self.messages.iter().rev().find(|m| m.id == id)
    }

    /// A message of the chat of these two.
    fn between(&mut self, id: &str, one: &str, other: &str) -> Option<&mut ChatMessage> {
        self.messages.iter_mut().rev().find(|m| m.id == id && m.is_between(one, other))
    }

    /// Puts someone's reaction at a message; an empty one takes it away. `false` if there is no such message.
    pub(crate) fn react(&mut self, id: &str, from: &str, to: &str, emoji: &str) -> bool {
        let Some(message) = self.between(id, from, to) else { return false };
        message.reactions.retain(|reaction| reaction.from != from);
        if !emoji.is_empty() {
            message.reactions.push(Reaction { from: from.to_owned(), emoji: emoji.to_owned() });
        }
        true
    }

    /// The author writes something else. `false` if there is no such message of theirs.
    pub(crate) fn edit(&mut self, id: &str, from: &str, to: &str, text: &str) -> bool {
        let message = self.between(id, from, to).filter(|m| m.from == from && !m.revoked);
        message.is_some_and(|message| {
            text.clone_into(&mut message.text);
            message.edited = true;
            true
        })
    }

    /// The author takes a message back. `false` if there is no such message of theirs.
    pub(crate) fn revoke(&mut self, id: &str, from: &str, to: &str) -> bool {
        let found = self.between(id, from, to).filter(|m| m.from == from);
        let found = found.is_some_and(|message| {
            message.revoked = true;
            message.text = String::new();
            message.reactions = Vec::new();
            message.more = None;
            true
        });
        self.written.retain(|(written, ..)| !found || written != id);
        found
    }

    /// Counts someone's vote. What they had chosen before is forgotten.
    pub(crate) fn vote(&mut self, id: &str, from: &str, to: &str, options: Vec<String>) -> bool {
        let poll = self.between(id, from, to).and_then(|m| m.more.as_deref_mut()).and_then(|more| more.poll.as_mut());
        poll.is_some_and(|poll| {
            poll.votes.retain(|vote| vote.from != from);
            if !options.is_empty() {
                poll.votes.push(Vote { from: from.to_owned(), options });
            }
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Kind, More, Poll, rfc3339};
    use super::*;

    const BRUNO: AccountId = AccountId(2);

    fn own(id: &str) -> ChatMessage {
        ChatMessage {
            id: id.to_owned(),
            from: "1".to_owned(),
            to: "2".to_owned(),
            kind: Kind::Text,
            text: "hi".to_owned(),
            timestamp: rfc3339(0),
            from_me: true,
            status: Some(Status::Sent),
            edited: false,
            revoked: false,
            reactions: Vec::new(),
            more: None,
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
    fn a_message_changes_with_what_people_do_to_it() {
        let mut chat = Chat::default();
        chat.show(own("A"), None);
        assert!(chat.react("A", "2", "1", "👍") && chat.react("A", "1", "2", "🙈") && chat.react("A", "2", "1", "❤️"));
        let reactions =
            chat.messages()[0].reactions.iter().map(|r| format!("{} {}", r.from, r.emoji)).collect::<Vec<_>>();
        assert_eq!(reactions, ["1 🙈", "2 ❤️"]);
        assert!(chat.react("A", "1", "2", ""));
        assert_eq!(chat.messages()[0].reactions.len(), 1);
        assert!(!chat.react("A", "3", "1", "👍"), "someone else's chat");
        assert!(!chat.edit("A", "2", "1", "not mine"), "only the author edits");
        assert!(chat.edit("A", "1", "2", "hello"));
        assert_eq!((chat.messages()[0].text.as_str(), chat.messages()[0].edited), ("hello", true));
        assert!(!chat.revoke("A", "2", "1"));
        assert!(chat.revoke("A", "1", "2"));
        assert_eq!((chat.messages()[0].text.as_str(), chat.messages()[0].revoked), ("", true));
        assert!(!chat.edit("A", "1", "2", "too late"));
    }

    #[test]
    fn a_later_vote_replaces_the_one_before() {
        let mut chat = Chat::default();
        let options = vec!["tea".to_owned(), "coffee".to_owned()];
        let poll = Poll { name: "?".to_owned(), options, votes: Vec::new(), secret: vec![0; 32] };
        chat.show(ChatMessage { more: More { poll: Some(poll), ..More::default() }.boxed(), ..own("A") }, None);
        for chosen in ["tea", "coffee"] {
            assert!(chat.vote("A", "2", "1", vec![chosen.to_owned()]));
        }
        let votes = chat.find("A").unwrap().more.as_ref().unwrap().poll.as_ref().unwrap().votes.clone();
        assert_eq!(votes, [Vote { from: "2".to_owned(), options: vec!["coffee".to_owned()] }]);
        assert!(!chat.vote("B", "2", "1", Vec::new()));
    }

    #[test]
    fn what_was_written_is_kept_for_a_while() {
        let mut chat = Chat::default();
        for n in 0..=WRITTEN {
            chat.keep(&n.to_string(), "2", vec![1]);
        }
        assert!(chat.kept("0").is_none());
        assert_eq!(chat.kept("1"), Some(("2", [1].as_slice())));
    }
}
