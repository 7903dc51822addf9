//! What runs a session: client after client, until there is nothing more to do without a person.

#[cfg(test)]
mod tests;

use crate::{
    net::dial_gate::{Pass, Urgency},
    session::{Session, restoring::Awaited},
    store::{
        devices::{LoginHold, Record, RecordChange},
        error::StoreError,
    },
    whatsapp::{codes::RetryPolicy, connector::Link, fact::Fact},
};
use chrono::{DateTime, TimeDelta};
use futures_util::FutureExt;
use std::{
    mem::take,
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
/// A connection that was ready for so long is a good one: the failures before it no longer count.
const STABLE: Duration = Duration::from_secs(60);
/// A session that somebody waits for goes before others for so many dials; one that fails more often waits its turn.
const URGENT_DIALS: u32 = 3;
/// How long to wait after a panic that was none of a client's.
const PANIC_PAUSE: Duration = Duration::from_secs(5);

/// How a session starts.
#[derive(Default)]
pub(crate) struct Begin {
    /// Another process had the session: a person takes it back.
    pub(crate) take_back: bool,
    /// Somebody waits for it.
    pub(crate) by_person: bool,
    /// It was linked when the process started.
    pub(crate) awaited: Option<Awaited>,
}

/// What a session's task remembers from one client to the next.
#[derive(Default)]
pub(crate) struct Run {
    /// Clients in a row that came to nothing, or not to much.
    pub(crate) failures: u32,
    /// How many of them were refused in a way that is not to be asked again soon.
    pub(crate) refusals: u32,
    /// Since when the present connection, or the last one, is ready.
    pub(crate) ready_since: Option<Instant>,
    /// Somebody waits for it since it started.
    pub(crate) by_person: bool,
    /// It was linked just now: WhatsApp expects it to log in at once.
    pub(crate) just_paired: bool,
    /// The last client left before the server had proved who it is.
    pub(crate) abandoned: bool,
    /// Since when QR codes are shown, over all connections.
    pub(crate) pairing_since: Option<Instant>,
    /// Until when the pairing code is valid.
    pub(crate) code_until: Option<Instant>,
    pub(crate) awaited: Option<Awaited>,
}

impl Run {
    /// Another client came to nothing. Returns how many have in a row; of those that were refused, how many of these: a
    /// bad line is no reason to wait for an hour after the first refusal.
    pub(crate) fn failed(&mut self, again: RetryPolicy) -> u32 {
        self.failures = self.failures.saturating_add(1);
        if again != RetryPolicy::Slowly {
            return self.failures;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.refusals
    }
}

impl Session {
    /// Runs it, and again if it fails in a way that it must not.
    pub(crate) async fn supervise(self: Arc<Self>, cancel: CancellationToken, mut begin: Begin) {
        loop {
            let again = Begin { awaited: None, ..begin };
            let run = self.clone().run(cancel.clone(), begin);
            if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
                return;
            }
            begin = again;
            self.panicked();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PANIC_PAUSE) => {}
            }
        }
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(tenant = %self.tenant, "a session's task failed badly; it starts again");
        self.connection.queued.store(false, Ordering::Relaxed);
        self.apply(Fact::Panicked);
    }

    /// Runs clients, one after the other, until there is nothing more to do without a person.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken, begin: Begin) {
        #[cfg(test)]
        tests::maybe_panic(&tests::RUNS, &self.tenant);
        let mut run = Run { by_person: begin.by_person, awaited: begin.awaited, ..Run::default() };
        let mut hold = loop {
            match self.prepare(begin.take_back).await {
                Ok(hold) => break hold,
                Err(error) => self.apply(Fact::StorageFailed(error.to_string())),
            }
            run.awaited = None;
            let Some(wait) = self.next(&mut run).await else { return };
            if self.pause(wait, &cancel).await.is_break() {
                return;
            }
        };
        loop {
            if let Some(hold) = hold.take() {
                let wait = hold.remaining(self.now());
                self.apply(Fact::Held(hold));
                run.awaited = None;
                let Some(wait) = wait else { return };
                if self.pause(a_little_longer(wait), &cancel).await.is_break() {
                    return;
                }
            }
            let Some(pass) = self.turn(&run, &cancel).await else { return };
            self.one_client(pass, &mut run, &cancel).await;
            if cancel.is_cancelled() {
                return;
            }
            let Some(wait) = self.next(&mut run).await else { return };
            if self.pause(wait, &cancel).await.is_break() {
                return;
            }
        }
    }

    /// What has to be done, or known, before the first dial.
    pub(crate) async fn prepare(&self, take_back: bool) -> Result<Option<LoginHold>, StoreError> {
        let (store, tenant, lease) = (&self.store, &self.tenant, &self.connection.lease);
        // Keys that are of no use any more are not dialled with.
        if self.starts_over.load(Ordering::Acquire) {
            store.start_over(lease).await?;
            self.starts_over.store(false, Ordering::Release);
        }
        let Record { hold, proxy, replaced_at, .. } = store.recorded(tenant).await?;
        *self.connection.proxy.lock() = proxy;
        let hold = hold.filter(|hold| hold.is_in_force(self.now()));
        if take_back {
            // Whoever has it now is replaced, and a person wants it so.
            store.change_record(lease, vec![RecordChange::Hold(None), RecordChange::ReplacedAt(None)]).await?;
            return Ok(None);
        }
        if let Some(at) = replaced_at.and_then(DateTime::from_timestamp_millis) {
            self.apply(Fact::WasReplaced(at));
        }
        Ok(hold)
    }

    /// Waits until it may dial.
    pub(crate) async fn turn(&self, run: &Run, cancel: &CancellationToken) -> Option<Pass> {
        self.connection.queued.store(true, Ordering::Relaxed);
        let pass = loop {
            let urgency = self.urgency(run);
            let rises = async {
                while self.urgency(run) >= urgency {
                    self.connection.nudge.notified().await;
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => break None,
                pass = self.dials.pass(urgency) => break Some(pass),
                () = rises => {}
            }
        };
        self.connection.queued.store(false, Ordering::Relaxed);
        pass
    }

    pub(crate) fn urgency(&self, run: &Run) -> Urgency {
        let by_person = run.by_person || !self.connection.snapshot.borrow().is_paired();
        if by_person && run.failures < URGENT_DIALS {
            Urgency::Person
        } else if self.outbox.pending() > 0 {
            Urgency::Messages
        } else {
            Urgency::Routine
        }
    }

    /// Starts a client and follows it to its end. Whatever goes wrong in here stays in here.
    pub(crate) async fn one_client(&self, pass: Pass, run: &mut Run, cancel: &CancellationToken) {
        let mut link = None;
        // On the heap, so that a session that waits does not keep room for it.
        let panicked =
            Box::pin(AssertUnwindSafe(self.use_client(&mut link, pass, run, cancel)).catch_unwind()).await.is_err();
        *self.connection.live.lock() = None;
        run.awaited = None;
        if let Some(link) = link {
            link.stop().await;
        }
        if panicked {
            self.panicked();
        }
        if take(&mut run.abandoned) {
            tokio::select! {
                () = cancel.cancelled() => {}
                why = self.connector.examine_server(self.proxy()) => self.apply(why),
            }
        }
    }

    pub(crate) async fn use_client(
        &self,
        link: &mut Option<Link>,
        pass: Pass,
        run: &mut Run,
        cancel: &CancellationToken,
    ) {
        #[cfg(test)]
        tests::maybe_panic(&tests::CLIENTS, &self.tenant);
        let failed_on_disk =
            self.connection.snapshot.borrow().reason.as_ref().is_some_and(|why| why.code == "storage_failed");
        if failed_on_disk && !self.store.is_healthy().await {
            return self.apply(Fact::StorageFailed("The disk still does not take what is written.".into()));
        }
        let started = tokio::select! {
            () = cancel.cancelled() => return,
            started = self.start_link(link) => started,
        };
        match (started, link) {
            (Ok(heard), Some(link)) => self.follow(link, heard, pass, run, cancel).await,
            (Ok(_), None) => {}
            (Err(why), _) => self.apply(Fact::StorageFailed(why)),
        }
    }

    /// How long to wait before the next client; `None` if there is to be none without a person.
    pub(crate) async fn next(&self, run: &mut Run) -> Option<Duration> {
        let snapshot = self.connection.snapshot.borrow().clone();
        // A pairing that failed is not taken up again without a person.
        if snapshot.stops_client() && !self.is_recorded_as_paired().await {
            return None;
        }
        if run.ready_since.take().is_some_and(|since| since.elapsed() >= STABLE) {
            (run.failures, run.refusals) = (0, 0);
        }
        if take(&mut run.just_paired) && snapshot.is_under_way() {
            run.by_person = true;
            return Some(Duration::ZERO);
        }
        let in_a_row = run.failed(snapshot.again);
        match (snapshot.again.pause(in_a_row, rand::random()), snapshot.retry_at) {
            (Some(wait), _) => {
                let until = TimeDelta::from_std(wait).ok().map(|wait| self.now() + wait);
                self.apply(Fact::Waits(until));
                Some(wait)
            }
            (None, Some(at)) => Some(a_little_longer((at - self.now()).to_std().unwrap_or_default())),
            (None, None) => None,
        }
    }

    /// Waits. The clock on the wall has no say in it: it can be set.
    pub(crate) async fn pause(&self, wait: Duration, cancel: &CancellationToken) -> ControlFlow<()> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return ControlFlow::Break(()),
                () = tokio::time::sleep_until(until) => break,
                () = self.connection.nudge.notified() => {
                    let snapshot = self.connection.snapshot.borrow();
                    // Somebody wants to link a phone now.
                    if !snapshot.is_paired() && snapshot.is_under_way() {
                        break;
                    }
                }
            }
        }
        if self.connection.snapshot.borrow().is_under_way() {
            self.apply(Fact::Waits(None));
        }
        ControlFlow::Continue(())
    }
}

/// Up to a tenth more, so that sessions that wait for the same hour don't dial together.
fn a_little_longer(wait: Duration) -> Duration {
    wait + wait.mul_f64(rand::random_range(0.0..0.1))
}
