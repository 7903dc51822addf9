//! The order in which one tenant's messages leave: to each person one after the other, to several people at once, and no
//! faster than the settings allow. It knows only row numbers; the messages are on the disk.
//!
//! A person may be written to by several names: a number, its other form, a LID. That two names are one person's may be
//! learned at any time. From then on their messages are one queue, in the order in which they were accepted, and one that
//! is on its way too early goes back: it asks before it leaves ([`SendQueue::is_first`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::address::Person;

/// To how many people a tenant's messages are on their way at the same time.
const WINDOW: usize = 16;

/// How many of a tenant's messages may be on their way beside these, while their media is uploaded.
const ASIDE: usize = 64;

/// How fast a tenant's messages leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The least time from one to the next.
    pub interval: Duration,
    /// Up to so much more, at random.
    pub jitter: Duration,
}

/// One tenant's messages that are yet to be sent.
#[derive(Default)]
pub struct SendQueue {
    pace: Pace,
    /// By one of the names of the person whom they are for.
    queues: HashMap<Person, Queue>,
    /// By which name the queue goes of a person who has others.
    aliases: HashMap<Person, Person>,
    /// Whose first message may go, in turn. Entries that have become wrong are passed over.
    turn: VecDeque<Person>,
    /// Whose first message has to wait, and until when.
    later: BTreeSet<(Instant, Person)>,
    on_the_way: usize,
    /// How many of those on their way need no place now.
    aside: usize,
    length: usize,
    promised: usize,
    next_start: Option<Instant>,
    /// When somebody will look at the lane again.
    pub alarm: Option<Instant>,
}

/// The messages to one person.
#[derive(Default)]
struct Queue {
    /// Those that wait, in order.
    rows: VecDeque<i64>,
    /// Those on their way: one, but where two names turned out to be one person's.
    away: BTreeSet<i64>,
    /// How many are on their way that have no row yet.
    reserved: usize,
    not_before: Option<Instant>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this one.
    Start(Person, i64),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something else happens.
    Nothing,
}

/// What comes after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing more to do for this message.
    Done,
    /// Another attempt, not before this time.
    Again(Instant),
}

impl SendQueue {
    /// An empty one.
    pub fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// How many messages are in it, those on their way included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Promises room for `wanted` messages that are about to be accepted, and says how much of it there is under `limit`.
    /// The promise ends with [`SendQueue::redeem`].
    pub fn promise(&mut self, wanted: usize, limit: usize) -> usize {
        let room = limit.saturating_sub(self.length + self.promised);
        self.promised += wanted;
        room
    }

    /// What was promised has been written down, or not.
    pub fn redeem(&mut self, wanted: usize) {
        self.promised = self.promised.saturating_sub(wanted);
    }

    /// Takes a place on the way for a message that is about to be accepted, if none of the tenant's waits for one.
    pub fn reserve(&mut self, person: &Person, now: Instant) -> bool {
        let free = self.has_place() && self.turn.is_empty() && self.next_start.is_none_or(|at| at <= now);
        if !free || self.queues.contains_key(self.name(person)) {
            return false;
        }
        self.queues.insert(person.clone(), Queue { reserved: 1, ..Queue::default() });
        self.length += 1;
        self.depart(now);
        true
    }

    /// The message that a place was taken for, once it has its row.
    pub fn fill(&mut self, person: &Person, row: i64) {
        if let Some(queue) = self.queue_mut(person) {
            queue.reserved = queue.reserved.saturating_sub(1);
            queue.away.insert(row);
        }
    }

    /// A message on its way gives its place to another, unless too many have done that. Says whether it did.
    pub fn step_aside(&mut self) -> bool {
        let may = self.aside < ASIDE;
        self.aside += usize::from(may);
        may
    }

    /// One that stepped aside needs a place again, and has it even if none is free.
    pub fn step_back(&mut self) {
        self.aside = self.aside.saturating_sub(1);
    }

    /// Gives the place back.
    pub fn release(&mut self, person: &Person) {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        self.length = self.length.saturating_sub(1);
        if let Some(queue) = self.queue_mut(person) {
            queue.reserved = queue.reserved.saturating_sub(1);
        }
        self.settle(person, None);
    }

    /// Adds a message in its place: they are told apart by the order in which they were accepted.
    pub fn push(&mut self, person: &Person, row: i64) {
        let name = self.name(person).clone();
        let queue = self.queues.entry(name.clone()).or_default();
        let fresh = queue.rows.is_empty() && !queue.is_busy();
        queue.put(row);
        self.length += 1;
        if fresh {
            self.turn.push_back(name);
        }
    }

    /// These two are one person: from now on their messages are one queue.
    pub fn join(&mut self, one: &Person, other: &Person) {
        let (kept, gone) = (self.name(one).clone(), self.name(other).clone());
        if kept == gone || !(self.queues.contains_key(&kept) || self.queues.contains_key(&gone)) {
            return;
        }
        for name in self.aliases.values_mut().filter(|name| **name == gone) {
            *name = kept.clone();
        }
        self.aliases.insert(gone.clone(), kept.clone());
        let Some(mut theirs) = self.queues.remove(&gone) else { return };
        if let Some(at) = theirs.not_before.take() {
            self.later.remove(&(at, gone));
        }
        let queue = self.queues.entry(kept.clone()).or_default();
        // Whichever is the first by now decides how long to wait.
        let not_before = queue.not_before.take();
        theirs.rows.into_iter().for_each(|row| queue.put(row));
        queue.away.append(&mut theirs.away);
        queue.reserved += theirs.reserved;
        if let Some(at) = not_before {
            self.later.remove(&(at, kept.clone()));
        }
        if !self.queues[&kept].is_busy() {
            self.turn.push_back(kept);
        }
    }

    /// Whether a message that is on its way may leave: none to the same person was accepted before it.
    pub fn is_first(&self, person: &Person, row: i64) -> bool {
        let Some(queue) = self.queues.get(self.name(person)) else { return true };
        queue.rows.front().is_none_or(|&other| row < other) && queue.away.first().is_none_or(|&other| row <= other)
    }

    /// To which numbers messages go that were accepted before this one and have not left, where nothing but the number is
    /// known: the first ones.
    pub fn strangers_before(&self, row: i64, count: usize) -> Vec<Person> {
        let with_lid: HashSet<&Person> =
            self.aliases.iter().filter(|(name, _)| name.is_lid()).map(|(_, kept)| kept).collect();
        let first = |queue: &Queue| queue.rows.front().into_iter().chain(queue.away.first()).min().copied();
        let strangers = self.queues.iter().filter(|(name, _)| !name.is_lid() && !with_lid.contains(name));
        let mut strangers: Vec<_> = strangers
            .filter_map(|(name, queue)| first(queue).filter(|first| *first < row).map(|first| (first, name)))
            .collect();
        strangers.sort_unstable();
        strangers.into_iter().take(count).map(|(_, name)| name.clone()).collect()
    }

    /// What is to be done at this time. What it says is on its way from then on.
    pub fn next(&mut self, now: Instant) -> Next {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, person)) = self.later.pop_first()
        {
            self.turn.push_back(person);
        }
        if !self.has_place() {
            return Next::Nothing;
        }
        if let Some(at) = self.next_start.filter(|at| *at > now && !self.turn.is_empty()) {
            return Next::At(at);
        }
        while let Some(person) = self.turn.pop_front() {
            let Some(queue) = self.queues.get_mut(&person) else { continue };
            let due = queue.not_before.is_none_or(|at| at <= now);
            if !queue.is_busy()
                && due
                && let Some(row) = queue.rows.pop_front()
            {
                queue.not_before = None;
                queue.away.insert(row);
                self.depart(now);
                return Next::Start(person, row);
            }
        }
        self.later.first().map_or(Next::Nothing, |(at, _)| Next::At(*at))
    }

    /// An attempt is over.
    pub fn finished(&mut self, person: &Person, row: i64, after: After) {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        let Some(queue) = self.queue_mut(person) else { return };
        let was_away = queue.away.remove(&row);
        match after {
            After::Again(at) if was_away => {
                queue.put(row);
                // One that went back because another comes first leaves it to that one when it goes.
                let is_next = queue.rows.front() == Some(&row);
                let at = if is_next { Some(at) } else { queue.not_before };
                self.settle(person, at);
            }
            _ => {
                let at = queue.not_before;
                self.length = self.length.saturating_sub(usize::from(was_away));
                self.settle(person, at);
            }
        }
    }

    /// A message was given up. One that is on its way is left to its attempt.
    pub fn remove(&mut self, person: &Person, row: i64) {
        let Some(queue) = self.queue_mut(person) else { return };
        if let Some(at) = queue.rows.iter().position(|&other| other == row) {
            queue.rows.remove(at);
            let busy = queue.is_busy();
            self.length = self.length.saturating_sub(1);
            if !busy {
                self.settle(person, None);
            }
        }
    }

    /// No message to this person has to wait any longer.
    pub fn hurry(&mut self, person: &Person) {
        let name = self.name(person).clone();
        if let Some(queue) = self.queues.get_mut(&name)
            && let Some(at) = queue.not_before.take()
        {
            self.later.remove(&(at, name.clone()));
            self.turn.push_back(name);
        }
    }

    /// No message has to wait any longer.
    pub fn hurry_all(&mut self) {
        for (_, person) in std::mem::take(&mut self.later) {
            self.turn.push_back(person);
        }
        self.queues.values_mut().for_each(|queue| queue.not_before = None);
    }

    /// Forgets everything but what is on its way.
    pub fn clear(&mut self) {
        self.queues.retain(|_, queue| {
            queue.rows.clear();
            queue.not_before = None;
            queue.is_busy()
        });
        let queues = &self.queues;
        self.aliases.retain(|_, name| queues.contains_key(name));
        self.length = self.on_the_way;
        self.turn.clear();
        self.later.clear();
    }

    /// The name that the queue of a person goes by, or would.
    fn name<'p>(&'p self, person: &'p Person) -> &'p Person {
        self.aliases.get(person).unwrap_or(person)
    }

    fn queue_mut(&mut self, person: &Person) -> Option<&mut Queue> {
        let name = self.aliases.get(person).unwrap_or(person);
        self.queues.get_mut(name)
    }

    fn has_place(&self) -> bool {
        self.on_the_way < WINDOW + self.aside
    }

    fn depart(&mut self, now: Instant) {
        self.on_the_way += 1;
        if !self.pace.interval.is_zero() || !self.pace.jitter.is_zero() {
            self.next_start = Some(now + self.pace.interval + self.pace.jitter.mul_f64(rand::random()));
        }
    }

    /// One message to this person less is on its way: the next one takes its turn, now or then, if it was the last.
    fn settle(&mut self, person: &Person, not_before: Option<Instant>) {
        let name = self.name(person).clone();
        let Some(queue) = self.queues.get_mut(&name) else { return };
        if let Some(at) = queue.not_before.take() {
            self.later.remove(&(at, name.clone()));
        }
        if queue.is_busy() {
            queue.not_before = not_before;
        } else if queue.rows.is_empty() {
            self.queues.remove(&name);
            self.aliases.retain(|_, other| *other != name);
        } else if let Some(at) = not_before {
            queue.not_before = Some(at);
            self.later.insert((at, name));
        } else {
            self.turn.push_back(name);
        }
    }
}

impl Queue {
    fn is_busy(&self) -> bool {
        self.reserved > 0 || !self.away.is_empty()
    }

    fn put(&mut self, row: i64) {
        let at = self.rows.iter().rposition(|&other| other < row).map_or(0, |at| at + 1);
        self.rows.insert(at, row);
    }
}

#[cfg(test)]
mod tests;
