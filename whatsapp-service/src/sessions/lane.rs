//! The order in which one tenant's messages leave: to each person one after the other, to several people at once, and no
//! faster than the settings allow. It knows only row numbers; the messages are on the disk.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::recipient::Recipient;

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
pub struct Lane {
    pace: Pace,
    queues: HashMap<Recipient, Queue>,
    /// Whose first message may go, in turn. Entries that have become wrong are passed over.
    turn: VecDeque<Recipient>,
    /// Whose first message has to wait, and until when.
    later: BTreeSet<(Instant, Recipient)>,
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
    rows: VecDeque<i64>,
    /// The first of them is on its way, or one is that has no row yet.
    busy: bool,
    not_before: Option<Instant>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this one.
    Start(Recipient, i64),
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

impl Lane {
    /// An empty one.
    pub fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// How many messages are in it, those on their way included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Promises room for `wanted` messages that are about to be accepted, and says how much of it there is under `limit`.
    /// The promise ends with [`Lane::redeem`].
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
    pub fn reserve(&mut self, recipient: &Recipient, now: Instant) -> bool {
        let free = self.has_place() && self.turn.is_empty() && self.next_start.is_none_or(|at| at <= now);
        if !free || self.queues.contains_key(recipient) {
            return false;
        }
        self.queues.insert(recipient.clone(), Queue { busy: true, ..Queue::default() });
        self.length += 1;
        self.depart(now);
        true
    }

    /// The message that a place was taken for, once it has its row.
    pub fn fill(&mut self, recipient: &Recipient, row: i64) {
        if let Some(queue) = self.queues.get_mut(recipient) {
            queue.rows.push_front(row);
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
    pub fn release(&mut self, recipient: &Recipient) {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        self.length = self.length.saturating_sub(1);
        self.settle(recipient, None);
    }

    /// Adds a message in its place: they are told apart by the order in which they were accepted.
    pub fn push(&mut self, recipient: &Recipient, row: i64) {
        let queue = self.queues.entry(recipient.clone()).or_default();
        let fresh = queue.rows.is_empty() && !queue.busy;
        // The first one of a queue that is busy is on its way already.
        let first = usize::from(queue.busy && !queue.rows.is_empty());
        let at = queue.rows.iter().skip(first).rposition(|&other| other < row).map_or(first, |at| first + at + 1);
        queue.rows.insert(at.min(queue.rows.len()), row);
        self.length += 1;
        if fresh {
            self.turn.push_back(recipient.clone());
        }
    }

    /// What is to be done at this time. What it says is on its way from then on.
    pub fn next(&mut self, now: Instant) -> Next {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, recipient)) = self.later.pop_first()
        {
            self.turn.push_back(recipient);
        }
        if !self.has_place() {
            return Next::Nothing;
        }
        if let Some(at) = self.next_start.filter(|at| *at > now && !self.turn.is_empty()) {
            return Next::At(at);
        }
        while let Some(recipient) = self.turn.pop_front() {
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            let due = queue.not_before.is_none_or(|at| at <= now);
            if let Some(&row) = queue.rows.front()
                && !queue.busy
                && due
            {
                (queue.busy, queue.not_before) = (true, None);
                self.depart(now);
                return Next::Start(recipient, row);
            }
        }
        self.later.first().map_or(Next::Nothing, |(at, _)| Next::At(*at))
    }

    /// An attempt is over.
    pub fn finished(&mut self, recipient: &Recipient, row: i64, after: After) {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        if after == After::Done
            && let Some(queue) = self.queues.get_mut(recipient)
            && let Some(at) = queue.rows.iter().position(|&other| other == row)
        {
            queue.rows.remove(at);
            self.length = self.length.saturating_sub(1);
        }
        self.settle(recipient, if let After::Again(at) = after { Some(at) } else { None });
    }

    /// A message was given up. One that is on its way is left to its attempt.
    pub fn remove(&mut self, recipient: &Recipient, row: i64) {
        let Some(queue) = self.queues.get_mut(recipient) else { return };
        let on_its_way = queue.busy && queue.rows.front() == Some(&row);
        if !on_its_way && let Some(at) = queue.rows.iter().position(|&other| other == row) {
            queue.rows.remove(at);
            self.length = self.length.saturating_sub(1);
            if !queue.busy {
                self.settle(recipient, None);
            }
        }
    }

    /// No message to this person has to wait any longer.
    pub fn hurry(&mut self, recipient: &Recipient) {
        if let Some(queue) = self.queues.get_mut(recipient)
            && let Some(at) = queue.not_before.take()
        {
            self.later.remove(&(at, recipient.clone()));
            self.turn.push_back(recipient.clone());
        }
    }

    /// No message has to wait any longer.
    pub fn hurry_all(&mut self) {
        for (_, recipient) in std::mem::take(&mut self.later) {
            if let Some(queue) = self.queues.get_mut(&recipient) {
                queue.not_before = None;
            }
            self.turn.push_back(recipient);
        }
    }

    /// Forgets everything but what is on its way.
    pub fn clear(&mut self) {
        self.queues.retain(|_, queue| {
            let keep = usize::from(queue.busy && !queue.rows.is_empty());
            queue.rows.truncate(keep);
            queue.busy
        });
        self.length = self.on_the_way;
        self.turn.clear();
        self.later.clear();
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

    /// Nothing to this person is on its way any more: the next one takes its turn, now or then.
    fn settle(&mut self, recipient: &Recipient, not_before: Option<Instant>) {
        let Some(queue) = self.queues.get_mut(recipient) else { return };
        queue.busy = false;
        if let Some(at) = queue.not_before.take() {
            self.later.remove(&(at, recipient.clone()));
        }
        if queue.rows.is_empty() {
            self.queues.remove(recipient);
        } else if let Some(at) = not_before {
            queue.not_before = Some(at);
            self.later.insert((at, recipient.clone()));
        } else {
            self.turn.push_back(recipient.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn person(n: usize) -> Recipient {
        Recipient::parse(&format!("{}", 5_511_900_000_000_u64 + n as u64)).unwrap()
    }

    fn start(person: &Recipient, row: i64) -> Next {
        Next::Start(person.clone(), row)
    }

    #[test]
    fn one_after_the_other_to_one_and_at_once_to_several() {
        let (mut lane, now, [ana, bruno]) = (Lane::default(), Instant::now(), [person(1), person(2)]);
        lane.push(&ana, 1);
        lane.push(&ana, 2);
        lane.push(&bruno, 3);
        assert_eq!(lane.next(now), start(&ana, 1));
        assert_eq!(lane.next(now), start(&bruno, 3));
        assert_eq!(lane.next(now), Next::Nothing, "the second one to the same person waits");
        lane.finished(&ana, 1, After::Done);
        assert_eq!(lane.next(now), start(&ana, 2));
        assert_eq!(lane.len(), 2);
    }

    #[test]
    fn one_that_has_to_wait_holds_those_behind_it_and_nobody_else() {
        let (mut lane, now, [ana, bruno]) = (Lane::default(), Instant::now(), [person(1), person(2)]);
        let later = now + Duration::from_secs(5);
        lane.push(&ana, 1);
        lane.push(&ana, 2);
        assert_eq!(lane.next(now), start(&ana, 1));
        lane.finished(&ana, 1, After::Again(later));
        lane.push(&bruno, 3);
        assert_eq!(lane.next(now), start(&bruno, 3));
        assert_eq!(lane.next(now), Next::At(later));
        assert_eq!(lane.next(later), start(&ana, 1), "the same one again, before the second");
        lane.finished(&ana, 1, After::Again(later + Duration::from_secs(5)));
        lane.hurry_all();
        assert_eq!(lane.next(later), start(&ana, 1));
    }

    #[test]
    fn a_place_is_reserved_only_where_nothing_waits() {
        let (mut lane, now, [ana, bruno]) = (Lane::default(), Instant::now(), [person(1), person(2)]);
        assert!(lane.reserve(&ana, now));
        assert!(!lane.reserve(&ana, now), "one at a time to one person");
        lane.push(&ana, 8);
        lane.fill(&ana, 7);
        lane.finished(&ana, 7, After::Done);
        assert!(!lane.reserve(&bruno, now), "who waits goes first");
        assert_eq!(lane.next(now), start(&ana, 8));
        assert!(lane.reserve(&bruno, now));
        lane.release(&bruno);
        assert_eq!(lane.len(), 1);
    }

    #[test]
    fn no_faster_than_the_pace() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut lane = Lane::new(Pace { interval: second, jitter: Duration::ZERO });
        lane.push(&person(1), 1);
        lane.push(&person(2), 2);
        assert_eq!(lane.next(now), start(&person(1), 1));
        assert_eq!(lane.next(now), Next::At(now + second));
        assert!(!lane.reserve(&person(3), now));
        assert_eq!(lane.next(now + second), start(&person(2), 2));
    }

    #[test]
    fn no_more_at_once_than_the_window() {
        let (mut lane, now) = (Lane::default(), Instant::now());
        for n in 0..WINDOW + 1 {
            lane.push(&person(n), n as i64);
        }
        for n in 0..WINDOW {
            assert_eq!(lane.next(now), start(&person(n), n as i64));
        }
        assert_eq!(lane.next(now), Next::Nothing);
        lane.finished(&person(0), 0, After::Done);
        assert_eq!(lane.next(now), start(&person(WINDOW), WINDOW as i64));
    }

    #[test]
    fn whose_media_is_uploaded_keeps_only_those_to_the_same_person_waiting() {
        let (mut lane, now) = (Lane::default(), Instant::now());
        for n in 0..WINDOW + ASIDE + 2 {
            lane.push(&person(n), n as i64);
        }
        lane.push(&person(0), 1000);
        for n in 0..WINDOW + ASIDE {
            assert_eq!(lane.next(now), start(&person(n), n as i64));
            assert_eq!(lane.step_aside(), n < ASIDE, "{n}");
        }
        assert_eq!(lane.next(now), Next::Nothing);
        lane.step_back();
        lane.finished(&person(1), 1, After::Done);
        assert_eq!(lane.next(now), Next::Nothing, "it came back to no place, and left none");
        lane.finished(&person(ASIDE), ASIDE as i64, After::Done);
        assert_eq!(lane.next(now), start(&person(WINDOW + ASIDE), (WINDOW + ASIDE) as i64));
    }

    #[test]
    fn what_was_given_up_does_not_leave() {
        let (mut lane, now, ana) = (Lane::default(), Instant::now(), person(1));
        lane.push(&ana, 1);
        lane.push(&ana, 2);
        lane.remove(&ana, 1);
        assert_eq!((lane.len(), lane.next(now)), (1, start(&ana, 2)));
        lane.remove(&ana, 2);
        assert_eq!(lane.len(), 1, "it is on its way");
        lane.finished(&ana, 2, After::Done);
        assert_eq!((lane.len(), lane.next(now)), (0, Next::Nothing));
    }

    #[test]
    fn who_has_two_turns_by_mistake_uses_one() {
        let (mut lane, now, ana) = (Lane::default(), Instant::now(), person(1));
        lane.push(&ana, 1);
        lane.remove(&ana, 1);
        // The turn of the one that was given up is still there when the next one takes its own.
        lane.push(&ana, 2);
        lane.push(&ana, 3);
        assert_eq!(lane.next(now), start(&ana, 2));
        assert_eq!(lane.next(now), Next::Nothing, "one of hers is on its way");
        lane.finished(&ana, 2, After::Done);
        assert_eq!(lane.next(now), start(&ana, 3));
    }

    proptest! {
        /// Whatever happens: to one person in order, each once, none forgotten.
        #[test]
        fn in_order_and_complete(steps in prop::collection::vec((0_usize..5, 0_u8..6), 1..200)) {
            let (mut lane, mut now, mut row) = (Lane::default(), Instant::now(), 0);
            let mut expected: HashMap<Recipient, VecDeque<i64>> = HashMap::new();
            let mut on_the_way: Vec<(Recipient, i64)> = Vec::new();
            let finish = |lane: &mut Lane, on_the_way: &mut Vec<(Recipient, i64)>, expected: &mut HashMap<Recipient, VecDeque<i64>>, after| {
                if let Some((recipient, row)) = on_the_way.pop() {
                    lane.finished(&recipient, row, after);
                    if after == After::Done {
                        assert_eq!(expected.get_mut(&recipient).unwrap().pop_front(), Some(row));
                    }
                }
            };
            for (n, step) in steps {
                let who = person(n);
                match step {
                    0 | 1 => {
                        row += 1;
                        lane.push(&who, row);
                        expected.entry(who).or_default().push_back(row);
                    }
                    2 if lane.reserve(&who, now) => {
                        row += 1;
                        lane.fill(&who, row);
                        expected.entry(who.clone()).or_default().push_back(row);
                        on_the_way.push((who, row));
                    }
                    2 | 3 => {
                        if let Next::Start(recipient, row) = lane.next(now) {
                            prop_assert_eq!(expected[&recipient].front(), Some(&row));
                            prop_assert!(!on_the_way.iter().any(|(other, _)| *other == recipient));
                            on_the_way.push((recipient, row));
                        }
                    }
                    4 => finish(&mut lane, &mut on_the_way, &mut expected, After::Done),
                    _ => finish(&mut lane, &mut on_the_way, &mut expected, After::Again(now + Duration::from_secs(1))),
                }
                now += Duration::from_millis(300);
            }
            loop {
                match lane.next(now) {
                    Next::Start(recipient, row) => on_the_way.push((recipient, row)),
                    Next::At(at) => now = at,
                    Next::Nothing if on_the_way.is_empty() => break,
                    Next::Nothing => finish(&mut lane, &mut on_the_way, &mut expected, After::Done),
                }
            }
            prop_assert!(expected.values().all(VecDeque::is_empty), "{expected:?}");
            prop_assert_eq!(lane.len(), 0);
        }
    }
}
