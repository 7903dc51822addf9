//! What all parts of a soak share: who takes part, the two sides, what was told, and how far it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{SeedableRng as _, rngs::StdRng};
use sandbox::api::{Api, SESSIONS};
use sandbox::report::Violations;
use sandbox::setup::{self, Tenant};
use serde_json::Value;
use whatsapp_simulator::{Phone, Simulator, World};

use crate::ledger::Ledger;

/// The most messages that one phone is meant to show, so that it forgets none (it remembers 5,000).
const PER_PHONE: f64 = 3_000.0;

/// Recipients of each tenant, at least. Fewer make longer chats, whose order can be judged.
const CONTACTS: usize = 2;

/// Who takes part, and how much they write.
pub struct Plan {
    /// What the run is drawn from.
    pub seed: u64,
    /// Who sends.
    pub tenants: Vec<Tenant>,
    /// Whom they send to, the contacts of each tenant one after the other.
    pub recipients: Vec<Phone>,
    /// How long messages and faults go on.
    pub lasting: Duration,
    /// Messages a second that are handed in, over all tenants.
    pub out_per_second: f64,
    /// Messages a second that phones write, over all tenants.
    pub in_per_second: f64,
}

impl Plan {
    /// A plan for so many tenants.
    ///
    /// # Errors
    /// There are not so many numbers.
    pub fn new(seed: u64, sessions: usize, lasting: Duration, rates: (f64, f64)) -> anyhow::Result<Self> {
        let (out_per_second, in_per_second) = rates;
        let each = (out_per_second + in_per_second) * lasting.as_secs_f64() / sessions as f64;
        let contacts = ((each / PER_PHONE).ceil() as usize).max(CONTACTS);
        let (tenants, recipients) = (setup::tenants(sessions)?, setup::recipients(contacts * sessions)?);
        Ok(Self { seed, tenants, recipients, lasting, out_per_second, in_per_second })
    }

    /// How many recipients each tenant writes to.
    pub fn contacts(&self) -> usize {
        self.recipients.len() / self.tenants.len()
    }

    /// Whether this recipient's phone now and then can't read a message at first: the last contact of each tenant.
    pub fn reads_poorly(&self, recipient: usize) -> bool {
        (recipient + 1).is_multiple_of(self.contacts())
    }

    /// Randomness for one part of the run, the same for each seed.
    pub fn rng(&self, of: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ of.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// A message that a recipient's phone wrote to a tenant.
pub struct Written {
    /// Index of the tenant.
    pub tenant: usize,
    /// The message's id.
    pub id: String,
}

/// How often things happened.
#[derive(Default)]
pub struct Counts {
    /// Messages that were accepted.
    pub accepted: AtomicUsize,
    /// Messages that were refused: their session could not send, and said so.
    pub refused: AtomicUsize,
    /// Calls that were made again with the same key.
    pub retried: AtomicUsize,
    /// Faults that were posted.
    pub faults: AtomicUsize,
    /// Kills of the service.
    pub kills: AtomicUsize,
}

/// One soak.
pub struct Run {
    /// What is to happen.
    pub plan: Plan,
    /// The service.
    pub api: Api,
    /// Its process, which changes with a kill.
    pub process: AtomicU32,
    /// The simulated WhatsApp.
    pub simulator: Simulator,
    /// What the callers were told.
    pub ledger: Ledger,
    /// What phones wrote.
    pub written: Mutex<Vec<Written>>,
    /// What must not be, and was.
    pub violations: Violations,
    /// How often things happened.
    pub counts: Counts,
    phase: Mutex<&'static str>,
}

impl Run {
    /// A run that has not begun.
    pub fn new(plan: Plan, api: Api, simulator: Simulator) -> Arc<Self> {
        Arc::new(Self {
            plan,
            api,
            process: AtomicU32::new(0),
            simulator,
            ledger: Ledger::default(),
            written: Mutex::default(),
            violations: Violations::default(),
            counts: Counts::default(),
            phase: Mutex::new("starting"),
        })
    }

    /// The simulated WhatsApp's inside.
    pub fn world(&self) -> &Arc<World> {
        self.simulator.world()
    }

    /// What is being done.
    pub fn phase(&self) -> &'static str {
        *lock(&self.phase)
    }

    /// Something else is being done from now on.
    pub fn enter(&self, phase: &'static str) {
        *lock(&self.phase) = phase;
        eprintln!("{phase}");
    }

    /// The sessions that are not ready: their tenants, and what is said of them.
    ///
    /// # Errors
    /// The service doesn't answer.
    pub async fn not_ready(&self) -> anyhow::Result<Vec<(String, String)>> {
        let all = self.api.all(&self.plan.tenants[0].name, &SESSIONS).await?;
        let mut listed: HashMap<&str, &Value> =
            all.iter().filter_map(|session| Some((session["tenantId"].as_str()?, session))).collect();
        let not_ready = self.plan.tenants.iter().filter_map(|tenant| match listed.remove(tenant.name.as_str()) {
            None => Some((tenant.name.clone(), "not listed".to_owned())),
            Some(session) if session["state"] == "ready" => None,
            Some(session) => Some((tenant.name.clone(), format!("{} {}", session["state"], session["reason"]))),
        });
        Ok(not_ready.collect())
    }

    /// The counters of the recipients' phones, in the order of the plan.
    pub fn of_recipients(&self) -> impl Iterator<Item = whatsapp_simulator::Totals> {
        let by_phone = self.world().totals_by_phone();
        by_phone.into_iter().take(self.plan.recipients.len()).map(|(_, totals)| totals)
    }

    /// How much came in from the callers and from the phones, in words.
    pub fn how_far(&self) -> String {
        let Counts { accepted, refused, faults, kills, .. } = &self.counts;
        let (handed_in, written) = (self.ledger.len(), lock(&self.written).len());
        format!(
            "{handed_in} handed in, {} accepted, {} refused, {written} written, {} faults, {} kills",
            accepted.load(Relaxed),
            refused.load(Relaxed),
            faults.load(Relaxed),
            kills.load(Relaxed),
        )
    }
}

/// The value, also when a thread has panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_phone_has_to_remember_more_than_it_can() {
        let plan = |sessions, minutes: u64| {
            Plan::new(1, sessions, Duration::from_secs(60 * minutes), (10.0, 5.0)).unwrap().contacts()
        };
        assert_eq!((plan(500, 60), plan(10, 1)), (2, 2));
        assert_eq!(plan(5, 60), 4, "54,000 messages over 5 tenants are 10,800 each");
    }
}
