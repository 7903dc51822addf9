//! What goes on beside the load: faults of the simulated WhatsApp, and phones that write and read.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use whatsapp_simulator::{Fault, FaultKind};

use crate::run::Run;

/// Posts one fault after the other, without end. None of them makes a message fail for good; all of them end by
/// themselves or are ended here.
pub async fn faults(run: &Run) {
    let mut rng = run.plan.rng(1);
    loop {
        let faults = draw(&mut rng, run.plan.poor_readers > 0);
        let phone = if faults.iter().any(|(kind, _)| *kind == FaultKind::Unreadable) {
            Some(&run.plan.recipients[rng.random_range(0..run.plan.poor_readers)])
        } else {
            let tenant = rng.random_range(0..run.plan.tenants.len());
            rng.random_bool(0.6).then(|| &run.plan.tenants[tenant].phone)
        };
        let stalls = faults.iter().any(|(kind, _)| *kind == FaultKind::StallReads);
        for (kind, times) in faults {
            run.world().add_fault(Fault { kind, phone: phone.cloned(), times: Some(times) });
        }
        if stalls {
            tokio::time::sleep(millis(&mut rng, 200..1_500)).await;
            run.world().clear_faults(phone);
        }
        tokio::time::sleep(millis(&mut rng, 100..1_200)).await;
        if rng.random_bool(0.1) {
            run.world().clear_faults(None);
        }
    }
}

fn millis(rng: &mut StdRng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// What goes wrong next, and how often each.
fn draw(rng: &mut StdRng, unreadable: bool) -> Vec<(FaultKind, u64)> {
    match rng.random_range(0..10) {
        // Settled by its receipt.
        0 => vec![(FaultKind::DropAcks, rng.random_range(1..5))],
        // Nothing says that it arrived: it has to be sent again. The own phone confirms its copy, which counts too.
        1 => {
            let messages = rng.random_range(1..4);
            vec![(FaultKind::DropAcks, messages), (FaultKind::DropReceipts, 2 * messages)]
        }
        2 => vec![(FaultKind::DropMessages, rng.random_range(1..4))],
        // Longer than a caller's wait, and shorter.
        3 if rng.random_bool(0.3) => vec![(FaultKind::AckDelay(millis(rng, 5_500..8_000)), rng.random_range(1..3))],
        3 => vec![(FaultKind::AckDelay(millis(rng, 50..3_000)), rng.random_range(1..8))],
        4 => vec![(FaultKind::DuplicateAcks, rng.random_range(1..20))],
        5 | 6 => vec![(FaultKind::CloseAfter(millis(rng, 1..1_500)), rng.random_range(1..4))],
        7 => vec![(FaultKind::Latency(millis(rng, 10..250)), rng.random_range(5..80))],
        // What the phone asks for again comes late, so this happens only where no order is expected.
        8 if unreadable => vec![(FaultKind::Unreadable, rng.random_range(1..4))],
        _ => vec![(FaultKind::StallReads, 1)],
    }
}

/// The recipients' phones write to the tenants. Returns the id of each message of the plan.
pub async fn write(run: &Run) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::with_capacity(run.plan.written.len());
    for written in &run.plan.written {
        run.until_progress(written.at).await;
        let from = &run.plan.recipients[written.recipient];
        ids.push(run.world().write(from, &run.plan.tenants[written.tenant].phone, &written.text)?);
        run.written.fetch_add(1, Relaxed);
    }
    Ok(ids)
}

/// Recipients look at their phones.
pub async fn read(run: &Run) {
    for (moment, recipient) in &run.plan.reads {
        run.until_progress(*moment).await;
        run.world().read_chats(&run.plan.recipients[*recipient]);
    }
}
