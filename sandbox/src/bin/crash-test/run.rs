//! What all parts of a run share: the plan, the two sides, what was told, and how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use whatsapp_simulator::{Simulator, Totals, World};

use sandbox::{api::Api, report::Violations};

use crate::{inbox::Inbox, ledger::Ledger, plan::Plan};

/// When nothing moves for this long, what waits for progress waits no more.
const STANDSTILL: Duration = Duration::from_secs(20);

/// How old a count of the messages on phones may be.
const COUNTING: Duration = Duration::from_millis(50);

/// One run of the test.
pub struct Run {
    /// What is to happen.
    pub plan: Plan,
    /// The service.
    pub api: Api,
    /// The simulated WhatsApp.
    pub simulator: Simulator,
    /// What the callers were told.
    pub ledger: Ledger,
    /// What came by webhook.
    pub inbox: Inbox,
    /// What must not be, and was.
    pub violations: Violations,
    /// What is being done, for people.
    phase: Mutex<&'static str>,
    /// Whether the load has begun.
    pub loading: AtomicBool,
    /// Whether every message was handed in and settled as accepted or not.
    pub loaded: AtomicBool,
    /// Messages that were accepted.
    pub accepted: AtomicUsize,
    /// Messages that were refused.
    pub refused: AtomicUsize,
    /// Messages whose caller was told that they failed.
    pub told_failed: AtomicUsize,
    /// Calls that were made again with the same key.
    pub retried: AtomicU64,
    /// Kills so far.
    pub kills: AtomicUsize,
    /// When the last killed service was gone.
    killed: Mutex<Option<Instant>>,
    /// The messages on phones, and when they were counted.
    counted: Mutex<(Option<Instant>, usize)>,
    /// Messages that the recipients' phones wrote.
    pub written: AtomicUsize,
}

impl Run {
    /// A run that has not begun.
    pub fn new(plan: Plan, api: Api, simulator: Simulator) -> Arc<Self> {
        Arc::new(Self {
            ledger: Ledger::new(plan.messages.len()),
            inbox: Inbox::new(plan.tenants.len()),
            plan,
            api,
            simulator,
            violations: Violations::default(),
            phase: Mutex::new("starting"),
            loading: AtomicBool::new(false),
            loaded: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            told_failed: AtomicUsize::new(0),
            retried: AtomicU64::new(0),
            kills: AtomicUsize::new(0),
            killed: Mutex::new(None),
            counted: Mutex::new((None, 0)),
            written: AtomicUsize::new(0),
        })
    }

    /// The simulated WhatsApp's inside.
    pub fn world(&self) -> &Arc<World> {
        self.simulator.world()
    }

    /// What is being done.
    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something else is being done from now on.
    pub fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        eprintln!("{phase}");
    }

    /// When the service was last killed.
    pub fn killed(&self) -> Option<Instant> {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service was killed, and is gone.
    pub fn has_killed(&self) {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.kills.fetch_add(1, Relaxed);
    }

    /// Messages that the recipients' phones have, or had a moment ago: counting them holds the simulator up.
    pub fn on_phones(&self) -> usize {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0.is_none_or(|at| at.elapsed() > COUNTING) {
            let shown = usize::try_from(self.of_recipients(|totals| totals.shown)).unwrap_or(usize::MAX);
            *counted = (Some(Instant::now()), shown.saturating_sub(self.written.load(Relaxed)));
        }
        counted.1
    }

    /// Messages that came to a recipient's phone again, which dropped them.
    pub fn repeats(&self) -> u64 {
        self.of_recipients(|totals| totals.repeated_ids)
    }

    /// Messages under a key that was used before. They may come from any side to any phone.
    pub fn reused_counters(&self) -> u64 {
        self.world().totals().reused_counters
    }

    /// How often a recipient's phone could not read a message and asked for it again.
    pub fn asked_again(&self) -> u64 {
        self.of_recipients(|totals| totals.retry_receipts)
    }

    /// How often each recipient's phone did.
    pub fn asked_again_by_recipient(&self) -> Vec<u64> {
        let by_phone = self.world().totals_by_phone().into_iter().take(self.plan.recipients.len());
        by_phone.map(|(_, totals)| totals.retry_receipts).collect()
    }

    fn of_recipients(&self, counter: impl Fn(Totals) -> u64) -> u64 {
        let by_phone = self.world().totals_by_phone().into_iter().take(self.plan.recipients.len());
        by_phone.map(|(_, totals)| counter(totals)).sum()
    }

    /// Between 0 and 1.
    fn progress(&self) -> f64 {
        (self.accepted.load(Relaxed) + self.on_phones()) as f64 / (2 * self.plan.messages.len()) as f64
    }

    /// Waits for a moment of the plan. It is also over when the load is, or when nothing moves any more.
    pub async fn until_progress(&self, moment: f64) {
        let mut last = (0.0, Instant::now());
        while !self.loaded.load(Relaxed) {
            let progress = self.progress();
            if progress >= moment && self.loading.load(Relaxed) {
                return;
            }
            if progress > last.0 || !self.loading.load(Relaxed) {
                last = (progress, Instant::now());
            }
            if last.1.elapsed() > STANDSTILL {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
