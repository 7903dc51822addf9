//! Watches the service from outside: what its process uses, and which sessions are not ready for how long.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, atomic::Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sandbox::service::Service;
use sandbox::usage::Usage;
use serde_json::json;

use crate::run::{Run, lock};

/// How often the process is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// How often the progress is printed.
const PROGRESS: Duration = Duration::from_secs(60);

/// For so long descriptors and threads must not change to count as calm.
const CALM: Duration = Duration::from_secs(3);

/// How long to wait for that.
const UNTIL_CALM: Duration = Duration::from_secs(45);

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// When the messages began to flow.
    pub begun: Option<Instant>,
    /// What the process used while they flowed, and how many seconds after the beginning; only when nine of ten sessions
    /// were ready, because the others need less than these.
    pub samples: Vec<(f64, Usage)>,
    /// Since when each session is not ready.
    not_ready: HashMap<String, Instant>,
    /// The longest time that a session was seen not to be ready, in seconds, and whose.
    pub longest: (u64, String),
}

/// The service's process.
///
/// # Errors
/// It can't be looked at.
pub fn usage(run: &Run) -> anyhow::Result<Usage> {
    Usage::of(run.process.load(Relaxed))
}

/// What the process uses when it has come to rest.
///
/// # Errors
/// It can't be looked at.
pub async fn at_rest(run: &Run) -> anyhow::Result<Usage> {
    let begun = Instant::now();
    let (mut last, mut since) = (usage(run)?, Instant::now());
    while since.elapsed() < CALM && begun.elapsed() < UNTIL_CALM {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = usage(run)?;
        if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
            since = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

/// Looks again and again, without end, and writes what it sees as lines of JSON to `series`.
///
/// # Errors
/// The series can't be written.
pub async fn look(run: &Run, seen: &Mutex<Seen>, series: Option<&Path>) -> anyhow::Result<Infallible> {
    let create = |path: &Path| File::create(path).with_context(|| path.display().to_string());
    let mut series = series.map(create).transpose()?;
    let (begun, mut printed) = (Instant::now(), Instant::now());
    loop {
        // A service that was just killed is not there.
        if let (Ok(usage), Ok(not_ready)) = (usage(run), run.not_ready().await) {
            let line = json!({
                "seconds": begun.elapsed().as_secs(), "phase": run.phase(), "usage": usage.to_json(),
                "notReady": not_ready.len(), "handedIn": run.ledger.len(),
                "accepted": run.counts.accepted.load(Relaxed), "written": lock(&run.written).len(),
                "kills": run.counts.kills.load(Relaxed),
            });
            if let Some(series) = &mut series {
                writeln!(series, "{line}")?;
            }
            if printed.elapsed() >= PROGRESS {
                printed = Instant::now();
                eprintln!(
                    "{:>3} min  {}: {}; {} not ready; {} KiB, {} descriptors, {} threads, {:.0} s of processor time",
                    begun.elapsed().as_secs() / 60,
                    run.phase(),
                    run.how_far(),
                    not_ready.len(),
                    usage.rss_kib,
                    usage.descriptors,
                    usage.threads,
                    usage.cpu_seconds,
                );
            }
            let most_are_ready = not_ready.len() * 10 <= run.plan.tenants.len();
            lock(seen).note(usage, most_are_ready, not_ready.into_iter().map(|(tenant, _)| tenant).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Seen {
    fn note(&mut self, usage: Usage, most_are_ready: bool, not_ready: Vec<String>) {
        let Some(begun) = self.begun else { return };
        if most_are_ready {
            self.samples.push((begun.elapsed().as_secs_f64(), usage));
        }
        let before = std::mem::take(&mut self.not_ready);
        for tenant in not_ready {
            let since = before.get(&tenant).copied().unwrap_or_else(Instant::now);
            let seconds = since.elapsed().as_secs();
            if seconds >= self.longest.0 {
                self.longest = (seconds, tenant.clone());
            }
            self.not_ready.insert(tenant, since);
        }
    }
}

/// Kills the service at these moments after now, starts it again each time, and watches over it, without end.
///
/// # Errors
/// It ended by itself, or did not come back.
pub async fn supervise(run: &Run, service: &mut Service, kills: &[Duration]) -> anyhow::Result<Infallible> {
    let begun = tokio::time::Instant::now();
    for kill in kills {
        tokio::select! {
            () = tokio::time::sleep_until(begun + *kill) => {}
            ended = service.until_ended() => match ended? {},
        }
        service.kill().await?;
        run.counts.kills.fetch_add(1, Relaxed);
        service.start_again()?;
        run.process.store(service.id(), Relaxed);
        service.until_up(&run.api).await?;
    }
    service.until_ended().await
}

/// How the memory changed while the messages flowed.
#[derive(Debug, PartialEq)]
pub struct Growth {
    /// The median from a tenth of the run to a quarter, in KiB.
    pub settled_kib: u64,
    /// The median of the last sixth, in KiB.
    pub end_kib: u64,
    /// How much more that is, in percent.
    pub percent: f64,
}

/// Compares the end of a run of so many seconds with its beginning. `None` if there are not enough samples.
pub fn growth(samples: &[(f64, Usage)], seconds: f64) -> Option<Growth> {
    let median = |from: f64, to: f64| {
        let within = samples.iter().filter(|(at, _)| (from * seconds..to * seconds).contains(at));
        let mut found: Vec<_> = within.map(|(_, usage)| usage.rss_kib).collect();
        found.sort_unstable();
        found.get(found.len() / 2).copied()
    };
    let (settled_kib, end_kib) = (median(0.1, 0.25)?, median(5.0 / 6.0, 1.0)?);
    let percent = (end_kib as f64 / settled_kib as f64 - 1.0) * 100.0;
    Some(Growth { settled_kib, end_kib, percent: (percent * 100.0).round() / 100.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_compared_with_what_the_beginning_has_settled_to() {
        let sample = |at: u32| {
            let rss_kib = if at < 6 { 10_000 } else { 1_000 + u64::from(at) };
            (f64::from(at), Usage { rss_kib, ..Usage::default() })
        };
        let samples: Vec<_> = (0..60).map(sample).collect();
        assert_eq!(growth(&samples, 60.0), Some(Growth { settled_kib: 1_010, end_kib: 1_055, percent: 4.46 }));
        assert_eq!(growth(&samples[..20], 60.0), None);
    }

    #[test]
    fn the_longest_time_that_a_session_was_not_ready_is_remembered() {
        let mut seen = Seen { begun: Some(Instant::now()), ..Seen::default() };
        let earlier = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        seen.not_ready.insert("a".into(), earlier(90));
        seen.note(Usage::default(), false, vec!["a".into(), "b".into()]);
        seen.note(Usage::default(), true, vec!["b".into()]);
        seen.note(Usage::default(), true, vec!["a".into()]);
        assert_eq!(seen.longest, (90, "a".into()));
        assert_eq!(seen.samples.len(), 2, "what the few that are connected need says nothing");
    }
}
