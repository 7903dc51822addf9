//! How far the process is with bringing its sessions back after a start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

/// How often the log says how far it is.
const REPORTS: Duration = Duration::from_secs(10);

/// Counts the sessions that have been brought back.
#[derive(Debug, Default)]
pub struct Restoring {
    total: AtomicUsize,
    done: AtomicUsize,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Progress {
    /// Sessions of which it is known what came of their first dial since the start, or why they did not dial.
    pub done: usize,
    /// Sessions that were linked when the process started.
    pub total: usize,
}

/// A session that is being brought back. Dropping it says that what can be done at once has been done.
#[derive(Debug)]
pub struct Awaited(Arc<Restoring>);

impl Restoring {
    /// One more session is to be brought back.
    pub fn expect(self: &Arc<Self>) -> Awaited {
        self.total.fetch_add(1, Ordering::Relaxed);
        Awaited(self.clone())
    }

    /// How far it is; `None` when there is nothing left to wait for.
    pub fn progress(&self) -> Option<Progress> {
        let (done, total) = (self.done.load(Ordering::Acquire), self.total.load(Ordering::Relaxed));
        (done < total).then_some(Progress { done, total })
    }

    /// Tells the log now and then, until it is over.
    pub async fn report(&self) {
        if self.progress().is_none() {
            return;
        }
        let started = Instant::now();
        let mut reports = tokio::time::interval_at(started + REPORTS, REPORTS);
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = reports.tick() => if let Some(Progress { done, total }) = self.progress() {
                    tracing::info!(done, total, "restoring");
                },
            }
            if self.progress().is_none() {
                break;
            }
        }
        let (sessions, ms) = (self.total.load(Ordering::Relaxed), started.elapsed().as_millis() as u64);
        tracing::info!(sessions, ms, "restored");
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_every_session_has_had_its_turn() {
        let restoring = Arc::new(Restoring::default());
        assert_eq!(restoring.progress(), None, "nothing to do");
        let (first, second) = (restoring.expect(), restoring.expect());
        assert_eq!(restoring.progress(), Some(Progress { done: 0, total: 2 }));
        drop(first);
        assert_eq!(restoring.progress(), Some(Progress { done: 1, total: 2 }));
        let report = tokio::spawn({
            let restoring = restoring.clone();
            async move { restoring.report().await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!report.is_finished());
        drop(second);
        report.await.unwrap();
        assert_eq!(restoring.progress(), None);
    }
}
