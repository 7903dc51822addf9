//! Who may dial WhatsApp, and when: one gate for the whole process.
//!
//! A dial passes when the process has not dialled too often lately (a token bucket), when not too many sessions are
//! between their dial and their login, and when no trouble that concerns all is being waited out (the [`Breaker`]).
//! Those who wait hold a place in a queue and nothing else: no client, no connection, no timer but the first one's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{model::tenant::TenantId, net::breaker::Breaker};

/// How much unused time the bucket remembers: after a quiet while, the dials of so long may go at once.
const BURST: Duration = Duration::from_secs(1);

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A person waits for it.
    Person,
    /// Messages wait for it.
    Messages,
    /// Nobody waits.
    Routine,
}

/// The gate.
pub struct Dials {
    /// The time between two dials; zero for no limit.
    interval: Duration,
    /// How many may be between dial and login.
    width: usize,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: BTreeMap<Place, Arc<Notify>>,
    number: u64,
    under_way: usize,
    passed: u64,
    /// When the bucket would be full again.
    full_at: Instant,
    breaker: Breaker,
}

type Place = (Urgency, u64);

/// What the gate is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialFigures {
    /// Dials that passed since the process started.
    pub passed: u64,
    /// Sessions that wait to dial.
    pub waiting: usize,
    /// Sessions between their dial and their login.
    pub under_way: usize,
    /// Whether all wait until one dial succeeds.
    pub held_up: bool,
}

/// The right to one dial. It is held up to the login, and given back by dropping it.
pub struct Pass {
    dials: Arc<Dials>,
    probe: bool,
}

/// What one who waits has to do.
enum Turn {
    Go {
        probe: bool,
    },
    WaitUntil(Instant),
    /// Somebody gives a sign when there is something to see.
    Wait,
}

impl Dials {
    /// `rate` dials per second, 0 for no limit; `width` of them may be between dial and login.
    pub fn new(rate: f64, width: usize) -> Arc<Self> {
        let interval = if rate > 0.0 { Duration::from_secs_f64(rate.recip()) } else { Duration::ZERO };
        Arc::new(Self {
            interval,
            width,
            queue: Mutex::new(Queue {
                waiting: BTreeMap::new(),
                number: 0,
                under_way: 0,
                passed: 0,
                full_at: Instant::now(),
                breaker: Breaker::default(),
            }),
        })
    }

    /// Resolves when it is the caller's turn. One who stops waiting gives up its place.
    pub async fn pass(self: &Arc<Self>, urgency: Urgency) -> Pass {
        let (place, sign) = {
            let mut queue = self.queue.lock();
            queue.number += 1;
            let (place, sign) = ((urgency, queue.number), Arc::new(Notify::new()));
            queue.waiting.insert(place, sign.clone());
            (place, sign)
        };
        let _waiting = Waiting { dials: self, place };
        loop {
            let turn = self.queue.lock().turn(place, self.interval, self.width, Instant::now());
            match turn {
                Turn::Go { probe } => return Pass { dials: self.clone(), probe },
                Turn::Wait => sign.notified().await,
                Turn::WaitUntil(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = sign.notified() => {}
                    }
                }
            }
        }
    }

    /// A session has logged in: WhatsApp is well, and takes this client.
    pub fn succeeded(&self) {
        let mut queue = self.queue.lock();
        if queue.breaker.success() {
            tracing::info!("a login succeeded: sessions dial again");
            queue.call_the_first();
        }
    }

    /// A session met trouble that may concern all of them.
    pub fn troubled(&self, tenant: &TenantId) {
        let tripped = self.queue.lock().breaker.trouble(tenant, Instant::now(), rand::random());
        if tripped {
            tracing::warn!("WhatsApp turns several sessions away: all wait until one login succeeds");
        }
    }

    /// Whether all wait until one dial succeeds.
    pub fn held_up(&self) -> bool {
        self.queue.lock().breaker.is_open()
    }

    /// What the gate is doing.
    pub fn figures(&self) -> DialFigures {
        let queue = self.queue.lock();
        DialFigures {
            passed: queue.passed,
            waiting: queue.waiting.len(),
            under_way: queue.under_way,
            held_up: queue.breaker.is_open(),
        }
    }
}

impl Queue {
    fn turn(&mut self, place: Place, interval: Duration, width: usize, now: Instant) -> Turn {
        let first = self.waiting.first_key_value().is_some_and(|(first, _)| *first == place);
        if !first || self.under_way >= width {
            return Turn::Wait;
        }
        let probe = match self.breaker.probe_at() {
            None => false,
            Some(Some(at)) if at <= now => true,
            Some(Some(at)) => return Turn::WaitUntil(at),
            Some(None) => return Turn::Wait,
        };
        // The bucket, told by when it would be full: it may run ahead of the clock by its size.
        let ahead = BURST.saturating_sub(interval);
        let opens = self.full_at.checked_sub(ahead).unwrap_or(now);
        if opens > now {
            return Turn::WaitUntil(opens);
        }
        self.full_at = self.full_at.max(now) + interval;
        self.waiting.remove(&place);
        self.under_way += 1;
        self.passed += 1;
        if probe {
            self.breaker.probe();
        }
        self.call_the_first();
        Turn::Go { probe }
    }

    fn call_the_first(&self) {
        if let Some((_, sign)) = self.waiting.first_key_value() {
            sign.notify_one();
        }
    }
}

/// A place in the queue, until it is given up.
struct Waiting<'a> {
    dials: &'a Dials,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.dials.queue.lock();
        if queue.waiting.remove(&self.place).is_some() {
            queue.call_the_first();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut queue = self.dials.queue.lock();
        queue.under_way -= 1;
        if self.probe {
            queue.breaker.probed(Instant::now(), rand::random());
        }
        queue.call_the_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    /// Lets everything that can happen at this moment happen.
    async fn settle() {
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_over_any_stretch_of_time() {
        // With nothing but the gate.
        let dials = Dials::new(20.0, 1000);
        let start = Instant::now();
        let mut dialled = Vec::new();
        for _ in 0..200 {
            drop(dials.pass(Urgency::Routine).await);
            dialled.push(start.elapsed());
        }
        let most = |window: Duration| {
            let within = |from: &Duration| dialled.iter().filter(|at| *at >= from && **at < *from + window).count();
            dialled.iter().map(within).max().unwrap()
        };
        assert!(most(Duration::from_secs(1)) <= 40 && most(Duration::from_secs(5)) <= 120);
        assert!((8..=10).contains(&start.elapsed().as_secs()), "200 dials at 20/s took {:?}", start.elapsed());
        let quick = Dials::new(0.0, 1000);
        let start = Instant::now();
        for _ in 0..10_000 {
            drop(quick.pass(Urgency::Routine).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_allows_one_dial_at_a_time() {
        let dials = Dials::new(0.1, 10);
        let start = Instant::now();
        for _ in 0..3 {
            drop(dials.pass(Urgency::Routine).await);
        }
        assert_eq!(start.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_goes_first() {
        let dials = Dials::new(1.0, 10);
        drop(dials.pass(Urgency::Routine).await);
        let order = Arc::new(Mutex::new(Vec::new()));
        for (name, urgency) in [
            ("a", Urgency::Routine),
            ("b", Urgency::Routine),
            ("message", Urgency::Messages),
            ("person", Urgency::Person),
        ] {
            let (dials, order) = (dials.clone(), order.clone());
            tokio::spawn(async move {
                let _pass = dials.pass(urgency).await;
                order.lock().push(name);
            });
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*order.lock(), ["person", "message", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_between_dial_and_login_and_no_more() {
        let dials = Dials::new(0.0, 2);
        let (first, _second) = (dials.pass(Urgency::Routine).await, dials.pass(Urgency::Routine).await);
        let third = tokio::spawn({
            let dials = dials.clone();
            async move { dials.pass(Urgency::Routine).await }
        });
        settle().await;
        assert!(!third.is_finished() && dials.figures().waiting == 1);
        drop(first);
        settle().await;
        assert!(third.is_finished());
        assert_eq!(dials.figures(), DialFigures { passed: 3, waiting: 0, under_way: 2, held_up: false });
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_stops_waiting_holds_nobody_up() {
        let dials = Dials::new(1.0, 10);
        drop(dials.pass(Urgency::Routine).await);
        let impatient = tokio::spawn({
            let dials = dials.clone();
            async move { dials.pass(Urgency::Person).await }
        });
        settle().await;
        let next = tokio::spawn({
            let dials = dials.clone();
            async move { dials.pass(Urgency::Routine).await }
        });
        settle().await;
        impatient.abort();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(next.is_finished());
        assert_eq!(dials.figures().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_of_several_holds_up_all_until_one_succeeds() {
        // 405 for three tenants.
        let dials = Dials::new(0.0, 100);
        for name in ["a", "b", "c"] {
            dials.troubled(&tenant(name));
        }
        assert!(dials.held_up());
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let dials = dials.clone();
                tokio::spawn(async move { std::mem::forget(dials.pass(Urgency::Routine).await) })
            })
            .collect();
        let through = || waiting.iter().filter(|task| task.is_finished()).count();
        settle().await;
        assert_eq!(through(), 0);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(through(), 1, "one tries, and the others wait for what comes of it");
        dials.succeeded();
        settle().await;
        assert_eq!(through(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_without_a_result_is_followed_by_another() {
        let dials = Dials::new(0.0, 100);
        for name in ["a", "b", "c"] {
            dials.troubled(&tenant(name));
        }
        let start = Instant::now();
        for _ in 0..3 {
            drop(dials.pass(Urgency::Routine).await);
        }
        let took = start.elapsed().as_secs();
        assert!((7..=15).contains(&took), "three tries took {took} s");
    }
}
