//! What goes wrong at the simulated WhatsApp, for a while each time.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use tokio::time::Instant;
use whatsapp_simulator::{Fault, FaultKind, LoginFailure, Phone};

use crate::run::Run;

/// After some faults a session may come back only a minute later. They happen only while there is this much time left.
const SLOW_TO_HEAL: Duration = Duration::from_secs(120);

/// Of so many sessions, one has trouble at a time.
const SHARE: usize = 8;

/// How often everybody has the same trouble.
const FOR_ALL: f64 = 0.15;

/// Trouble and calm, in turn, until the end; then nothing is wrong any more. None of it makes a message fail for good,
/// or stops a session for good.
pub async fn change(run: &Run, end: Instant) {
    let mut rng = run.plan.rng(4);
    while Instant::now() < end {
        let slow = end - Instant::now() > SLOW_TO_HEAL;
        if rng.random_bool(FOR_ALL) {
            post(run, &draw(&mut rng, slow), None);
        } else {
            for _ in 0..run.plan.tenants.len().div_ceil(SHARE) {
                let tenant = rng.random_range(0..run.plan.tenants.len());
                post(run, &draw(&mut rng, slow), Some(&run.plan.tenants[tenant].phone));
            }
            trouble_a_recipient(run, &mut rng);
        }
        pause(&mut rng, end).await;
        run.world().clear_faults(None);
        pause(&mut rng, end).await;
    }
    run.world().clear_faults(None);
}

async fn pause(rng: &mut StdRng, end: Instant) {
    let until = Instant::now() + Duration::from_millis(rng.random_range(1_000..10_000));
    tokio::time::sleep_until(until.min(end)).await;
}

fn post(run: &Run, faults: &[(FaultKind, u64)], phone: Option<&Phone>) {
    // For everybody, as often for each.
    let everybody = if phone.is_some() { 1 } else { run.plan.tenants.len() as u64 };
    for (kind, times) in faults {
        run.world().add_fault(Fault { kind: kind.clone(), phone: phone.cloned(), times: Some(times * everybody) });
        run.counts.faults.fetch_add(1, Relaxed);
    }
}

/// A recipient's phone is off, or can't read at first.
fn trouble_a_recipient(run: &Run, rng: &mut StdRng) {
    let recipient = rng.random_range(0..run.plan.recipients.len());
    let kind = if run.plan.reads_poorly(recipient) { FaultKind::Unreadable } else { FaultKind::OfflinePhone };
    post(run, &[(kind, rng.random_range(1..4))], Some(&run.plan.recipients[recipient]));
}

/// What goes wrong, and how often each. What only meets a new connection comes with the loss of the one there is.
fn draw(rng: &mut StdRng, slow: bool) -> Vec<(FaultKind, u64)> {
    let ms = |rng: &mut StdRng, range: Range<u64>| Duration::from_millis(rng.random_range(range));
    let cut = (FaultKind::CloseAfter(ms(rng, 1..500)), 1);
    let refused =
        |reason| FaultKind::LoginFailure(LoginFailure { reason, expire: None, code: None, appeal_token: None });
    match rng.random_range(0..if slow { 18 } else { 13 }) {
        0 => vec![(FaultKind::CloseAfter(ms(rng, 1..5_000)), rng.random_range(1..5))],
        1 => vec![(FaultKind::RefuseConnections, rng.random_range(1..4)), cut],
        2 => vec![(FaultKind::StallReads, 1)],
        3 => vec![(FaultKind::Latency(ms(rng, 10..500)), rng.random_range(5..80))],
        4 => vec![(FaultKind::DropAcks, rng.random_range(1..6))],
        5 => {
            let messages = rng.random_range(1..4);
            vec![(FaultKind::DropAcks, messages), (FaultKind::DropReceipts, 2 * messages)]
        }
        6 => vec![(FaultKind::AckDelay(ms(rng, 50..8_000)), rng.random_range(1..6))],
        7 => vec![(FaultKind::DuplicateAcks, rng.random_range(1..20))],
        8 => vec![(FaultKind::DropMessages, rng.random_range(1..4))],
        9 => vec![(FaultKind::DropReceipts, rng.random_range(1..10))],
        10 => vec![(FaultKind::ForgetConfirmations, 1), (FaultKind::CloseAfter(ms(rng, 500..8_000)), 2)],
        11 => vec![(FaultKind::StreamError("515".into()), rng.random_range(1..4))],
        12 => vec![(refused(if rng.random_bool(0.5) { 500 } else { 503 }), rng.random_range(1..3)), cut],
        // From here on those that are slow to heal.
        13 => vec![(FaultKind::StreamError("503".into()), 1)],
        14 => vec![(FaultKind::StreamError("500".into()), 1)],
        15 => vec![(FaultKind::SilentSuccess, 1), cut],
        16 => vec![(refused(429), 1), cut],
        _ => vec![(FaultKind::CutAfterFrames(rng.random_range(1..6)), rng.random_range(1..4)), cut],
    }
}
