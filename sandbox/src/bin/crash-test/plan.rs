//! Everything that follows from the seed: who writes what to whom, in which way, and when the service is killed.

use std::{ops::Range, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sandbox::setup::{self, Tenant};
use whatsapp_simulator::Phone;

/// The most messages that one phone may show, so that it forgets none (it remembers 5,000).
const PER_PHONE: usize = 4_000;

/// Moments are progress: 0 before the first message, 1 when all are accepted and on their phones. Nothing is planned
/// later than this, so that there is always work left to be disturbed.
const LAST_MOMENT: f64 = 0.9;

/// A message that a tenant sends.
pub struct Message {
    /// Index of the tenant.
    pub tenant: usize,
    /// Index of the recipient.
    pub recipient: usize,
    /// No other message has this text.
    pub text: String,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// The caller's name for it.
    pub reference: String,
}

/// How a message is handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `POST /send`, which waits for the acknowledgement.
    Waiting,
    /// `POST /send?wait=0`.
    AtOnce,
    /// `POST /send` with `Prefer: respond-async`.
    Preferring,
    /// `POST /send/bulk`.
    Bulk,
}

/// One call, with one message or, in bulk, several.
#[derive(Clone)]
pub struct Job {
    /// Index of the tenant.
    pub tenant: usize,
    /// Indexes of the messages.
    pub messages: Range<usize>,
    /// In which way.
    pub way: Way,
    /// The caller gives its first attempt up after this time.
    pub impatient: Option<Duration>,
}

/// An end of the service with SIGKILL.
pub struct Kill {
    /// The progress at which it happens.
    pub at: f64,
    /// How much later it happens.
    pub delay: Duration,
    /// It follows the kill before, whatever the progress, while the service is starting.
    pub early: bool,
}

/// A message that a recipient's phone writes to a tenant.
pub struct Written {
    /// The progress at which it is written.
    pub at: f64,
    /// Index of the recipient who writes.
    pub recipient: usize,
    /// Index of the tenant who is written to.
    pub tenant: usize,
    /// What is written.
    pub text: String,
}

/// A whole run, as far as it doesn't depend on timing.
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// Who sends.
    pub tenants: Vec<Tenant>,
    /// Whom they send to.
    pub recipients: Vec<Phone>,
    /// So many of them, the first, sometimes can't read a message, and ask for it again. None, unless asked for.
    pub poor_readers: usize,
    /// What is sent.
    pub messages: Vec<Message>,
    /// The calls that hand the messages in, in order.
    pub jobs: Vec<Job>,
    /// The service's ends, in order.
    pub kills: Vec<Kill>,
    /// What the recipients' phones write, in order.
    pub written: Vec<Written>,
    /// Recipients who read their chats, and at which progress.
    pub reads: Vec<(f64, usize)>,
    /// Messages whose keys are tried again at the end.
    pub tried_again: Vec<usize>,
}

impl Plan {
    /// Draws a plan. The same arguments give the same plan.
    ///
    /// # Errors
    /// The numbers don't fit together.
    pub fn draw(seed: u64, kills: usize, messages: usize, tenants: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(messages > 0 && tenants > 0, "there must be a message and a tenant");
        anyhow::ensure!(messages / tenants <= PER_PHONE, "give more --tenants: a phone remembers only 5,000 messages");
        let mut rng = StdRng::seed_from_u64(seed);
        let tenants = setup::tenants(tenants)?;
        let recipients = (2 * tenants.len()).max(messages.div_ceil(PER_PHONE / 2));
        let recipients = setup::recipients(recipients)?;
        let (messages, jobs) = draw_jobs(&mut rng, seed, messages, tenants.len(), recipients.len());
        let kills = (0..kills)
            .map(|n| Kill {
                at: spread(&mut rng, n, kills),
                delay: Duration::from_millis(rng.random_range(0..400)),
                early: n > 0 && rng.random_bool(0.2),
            })
            .collect();
        let count = (messages.len() / 25).clamp(50, 400);
        let written = (0..count)
            .map(|n| Written {
                at: spread(&mut rng, n, count),
                recipient: rng.random_range(0..recipients.len()),
                tenant: rng.random_range(0..tenants.len()),
                text: format!("answer {seed} {n}"),
            })
            .collect();
        let reads = (0..recipients.len())
            .map(|n| (spread(&mut rng, n, recipients.len()), rng.random_range(0..recipients.len())));
        let reads = reads.collect();
        let tried_again = rand::seq::index::sample(&mut rng, messages.len(), messages.len().min(500)).into_vec();
        Ok(Self { seed, tenants, recipients, poor_readers: 0, messages, jobs, kills, written, reads, tried_again })
    }

    /// Randomness for something that has no fixed number of draws, the same for each seed.
    pub fn rng(&self, of: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ of.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Messages from here on are handed in only after the last kill.
    pub fn held_back_from(&self) -> usize {
        self.messages.len() - self.messages.len().div_ceil(20)
    }
}

/// A moment within the `n`th of `count` equal parts.
fn spread(rng: &mut StdRng, n: usize, count: usize) -> f64 {
    (n as f64 + rng.random::<f64>()) / count as f64 * LAST_MOMENT
}

fn draw_jobs(rng: &mut StdRng, seed: u64, count: usize, tenants: usize, recipients: usize) -> (Vec<Message>, Vec<Job>) {
    let (mut messages, mut jobs) = (Vec::with_capacity(count), Vec::new());
    while messages.len() < count {
        let tenant = rng.random_range(0..tenants);
        let way = match rng.random_range(0..100) {
            0..60 => Way::Waiting,
            60..78 => Way::AtOnce,
            78..96 => Way::Preferring,
            _ => Way::Bulk,
        };
        let size = if way == Way::Bulk { rng.random_range(2..=20) } else { 1 };
        let first = messages.len();
        for n in first..count.min(first + size) {
            messages.push(Message {
                tenant,
                recipient: rng.random_range(0..recipients),
                text: format!("crash {seed} {n}"),
                key: format!("crash-{seed}-{n}"),
                reference: format!("order/{seed}/{n}"),
            });
        }
        let impatient = rng.random_bool(0.06).then(|| Duration::from_millis(rng.random_range(10..800)));
        jobs.push(Job { tenant, messages: first..messages.len(), way, impatient });
    }
    (messages, jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let of = |seed| {
            let plan = Plan::draw(seed, 10, 1_000, 7).unwrap();
            let jobs: Vec<_> = plan.jobs.iter().map(|job| (job.tenant, job.messages.clone(), job.way)).collect();
            let to: Vec<_> = plan.messages.iter().map(|message| (message.tenant, message.recipient)).collect();
            let kills: Vec<_> = plan.kills.iter().map(|kill| (kill.at, kill.delay, kill.early)).collect();
            (jobs, to, kills, plan.tried_again)
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn every_message_is_in_one_call_and_every_kill_in_time() {
        let plan = Plan::draw(1, 30, 1_003, 3).unwrap();
        let planned: Vec<_> = plan.jobs.iter().flat_map(|job| job.messages.clone()).collect();
        assert_eq!(planned, (0..1_003).collect::<Vec<_>>());
        assert!(plan.kills.is_sorted_by(|a, b| a.at <= b.at) && plan.kills.iter().all(|kill| kill.at <= LAST_MOMENT));
        for way in [Way::Waiting, Way::AtOnce, Way::Preferring, Way::Bulk] {
            assert!(plan.jobs.iter().any(|job| job.way == way), "{way:?}");
        }
    }
}
