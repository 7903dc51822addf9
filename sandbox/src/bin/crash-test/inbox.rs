//! What arrived by webhook, and whether it came in order.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use sandbox::answer::Fate;

/// What a killed service had sent may arrive this much after its end, on a busy machine.
const STRAGGLING: Duration = Duration::from_millis(500);

/// One event, and what became of its deliveries.
struct Arrival {
    envelope: Value,
    attempts: u32,
    taken: bool,
}

/// One tenant's events.
#[derive(Default)]
struct Stream {
    /// By sequence.
    arrivals: BTreeMap<u64, Arrival>,
    /// The sequence that arrived last, and when.
    last: Option<(u64, Instant)>,
}

impl Stream {
    /// Notes an arrival. Which attempt it is, and what was wrong with it.
    fn arrive(&mut self, sequence: u64, envelope: &Value, killed: Option<Instant>) -> (u32, Option<String>) {
        let wrong = self.judge(sequence, envelope, killed);
        self.last = Some((sequence, Instant::now()));
        let arrival = self.arrivals.entry(sequence).or_insert_with(|| Arrival {
            envelope: envelope.clone(),
            attempts: 0,
            taken: false,
        });
        arrival.attempts += 1;
        (arrival.attempts, wrong)
    }

    /// What is wrong with an arrival, if something is. `killed` is the service's last end.
    fn judge(&self, sequence: u64, envelope: &Value, killed: Option<Instant>) -> Option<String> {
        let newest = self.arrivals.keys().next_back().copied().unwrap_or(0);
        let last = self.last.map_or(0, |(last, _)| last);
        let killed_since = self.last.is_none_or(|(_, at)| killed.is_some_and(|killed| killed + STRAGGLING >= at));
        let again = self.arrivals.get(&sequence);
        let taken = |sequence: u64| self.arrivals.get(&sequence).is_none_or(|arrival| arrival.taken);
        if again.is_some_and(|again| again.envelope != *envelope) {
            Some(format!("{sequence} came again as another event: {envelope}"))
        } else if sequence > newest + 1 || (again.is_none() && sequence <= newest) {
            Some(format!("{sequence} came first after {newest}"))
        } else if sequence == newest + 1 && !taken(newest) {
            Some(format!("{sequence} came before {newest} was taken"))
        } else if sequence > last + 1 {
            Some(format!("{sequence} came after {last}, which came again"))
        } else if sequence < last && !killed_since {
            Some(format!("{sequence} came again after {last}, and there was no kill between"))
        } else {
            None
        }
    }
}

#[derive(Default)]
struct State {
    streams: Vec<Stream>,
    settled: HashSet<String>,
    deliveries: u64,
    redeliveries: u64,
    furthest_back: u64,
}

/// Everything that arrived, by tenant.
pub struct Inbox(Mutex<State>);

/// How much arrived.
pub struct Counts {
    /// Of all events, each attempt.
    pub deliveries: u64,
    /// Of events that had arrived before.
    pub redeliveries: u64,
    /// The most events that were delivered again in one go.
    pub furthest_back: u64,
    /// Messages of which it was said that they are sent, or more.
    pub settled: usize,
}

impl Inbox {
    /// An empty one, for so many tenants.
    pub fn new(tenants: usize) -> Self {
        let streams = std::iter::repeat_with(Stream::default).take(tenants).collect();
        Self(Mutex::new(State { streams, ..State::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event is here, though not yet taken. Which attempt it is, and what was wrong with it. `killed` is when the
    /// service was last killed.
    pub fn arrive(
        &self,
        tenant: usize,
        sequence: u64,
        envelope: &Value,
        killed: Option<Instant>,
    ) -> (u32, Option<String>) {
        let state = &mut *self.lock();
        state.deliveries += 1;
        let newest = state.streams[tenant].arrivals.keys().next_back().copied().unwrap_or(0);
        let (attempt, wrong) = state.streams[tenant].arrive(sequence, envelope, killed);
        if attempt > 1 {
            state.redeliveries += 1;
            state.furthest_back = state.furthest_back.max((newest + 1).saturating_sub(sequence));
        } else if let (Some(id), Some(status)) = (envelope["data"]["id"].as_str(), envelope["data"]["status"].as_str())
            && Fate::parse(status) >= Some(Fate::Sent)
        {
            state.settled.insert(id.to_owned());
        }
        (attempt, wrong)
    }

    /// An event is answered with 200.
    pub fn take(&self, tenant: usize, sequence: u64) {
        if let Some(arrival) = self.lock().streams[tenant].arrivals.get_mut(&sequence) {
            arrival.taken = true;
        }
    }

    /// The sequence up to which everything arrived and was taken.
    pub fn taken_up_to(&self, tenant: usize) -> u64 {
        let state = self.lock();
        let taken = (1..).zip(&state.streams[tenant].arrivals).take_while(|(n, (at, of))| n == *at && of.taken);
        taken.last().map_or(0, |(n, _)| n)
    }

    /// What arrived under a sequence.
    pub fn event(&self, tenant: usize, sequence: u64) -> Option<Value> {
        self.lock().streams[tenant].arrivals.get(&sequence).map(|arrival| arrival.envelope.clone())
    }

    /// How much arrived so far.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            deliveries: state.deliveries,
            redeliveries: state.redeliveries,
            furthest_back: state.furthest_back,
            settled: state.settled.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is wrong when these arrive: each a sequence, and whether it is taken; 0 is a kill.
    fn wrong(arrivals: &[(u64, bool)]) -> Vec<String> {
        let (inbox, mut killed) = (Inbox::new(1), None);
        let arrive = |&(sequence, taken): &(u64, bool)| {
            if sequence == 0 {
                killed = Some(Instant::now());
                return None;
            }
            let (_, wrong) = inbox.arrive(0, sequence, &json!({"sequence": sequence}), killed);
            if taken {
                inbox.take(0, sequence);
            }
            wrong
        };
        arrivals.iter().filter_map(arrive).collect()
    }

    const KILL: (u64, bool) = (0, false);

    #[test]
    fn in_order_and_again_until_it_is_taken() {
        assert!(wrong(&[(1, true), (2, false), (2, false), (2, true), (3, true)]).is_empty());
        assert!(wrong(&[(1, true), (2, true), KILL, (2, true), (3, true)]).is_empty());
        assert!(wrong(&[(1, true), (2, true), (2, true), (3, true)]).is_empty(), "the answer may have been lost");
        assert!(wrong(&[(1, true), (2, true), KILL, (1, true), (2, true), (3, true)]).is_empty());
    }

    #[test]
    fn what_is_out_of_order_is_noticed() {
        assert_eq!(wrong(&[(2, true)]), ["2 came first after 0"]);
        assert_eq!(wrong(&[(1, true), (3, true)]), ["3 came first after 1"]);
        assert_eq!(wrong(&[(1, true), (3, true), (2, true)]).len(), 2);
        assert_eq!(wrong(&[(1, false), (2, true)]), ["2 came before 1 was taken"]);
        assert_eq!(wrong(&[(1, true), (2, true), (1, true)]).len(), 1, "without a kill there is no going back");
        assert_eq!(wrong(&[(1, true), (2, true), (3, true), KILL, (1, true), (3, true)]).len(), 1);
    }

    #[test]
    fn what_was_not_taken_is_not_up_to_date() {
        let inbox = Inbox::new(1);
        for sequence in 1..=3 {
            inbox.arrive(0, sequence, &json!({}), None);
        }
        inbox.take(0, 1);
        inbox.take(0, 3);
        assert_eq!(inbox.taken_up_to(0), 1);
    }

    #[test]
    fn the_same_sequence_is_the_same_event() {
        let inbox = Inbox::new(1);
        assert!(inbox.arrive(0, 1, &json!({"id": "A"}), None).1.is_none());
        assert!(inbox.arrive(0, 1, &json!({"id": "B"}), None).1.is_some());
    }
}
