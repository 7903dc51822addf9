//! One tenant's session: it starts clients, follows what happens to them, and knows its state.

use std::{
    mem::take,
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    metrics,
    model::{
        address::number::Number,
        session_state::{State, Status},
        tenant::TenantId,
    },
    net::{
        dial_gate::{Dials, Pass, Urgency},
        proxy::Proxy,
    },
    session::{
        connection::{Connection, Live},
        deletion::Unlinked,
        download::Downloads,
        inbox::Inbox,
        limits::AccountLimits,
        outbox::Outbox,
        restoring::Awaited,
        retries::Retries,
        shared::Shared,
        state::Snapshot,
        state_log::StateLog,
        store_owner::StoreOwner,
        timers::Timers,
    },
    signal,
    store::{
        Store,
        devices::{LoginHold, Record, RecordChange},
        error::StoreError,
        lease::Lease,
    },
    util::{clock::timestamp, sync::lock},
    whatsapp::{
        client::Client,
        codes::{self, DisconnectCode, RetryPolicy},
        connector::{Connector, Link},
        events::Heard,
        fact::{Fact, Said},
        inbound::Receiver,
        passkey::AssertionRefused,
    },
};

/// How often a running client is looked at, for what it does not tell by events.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How many times in a row a connection may be seen up but not logged in before it is given up.
const UNWELL_LOOKS: u32 = 2;
/// How long a session may keep others from dialling before it has logged in.
const LOGIN_TURN: Duration = Duration::from_secs(15);
/// How long WhatsApp may take to answer a ping on a connection that it has reported an error on.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// A connection that was ready for so long is a good one: the failures before it no longer count.
const STABLE: Duration = Duration::from_secs(60);
/// A session that somebody waits for goes before others for so many dials; one that fails more often waits its turn.
const URGENT_DIALS: u32 = 3;
/// How long to wait after a panic that was none of a client's.
const PANIC_PAUSE: Duration = Duration::from_secs(5);
/// How long it may take until a new link is on the disk.
const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// One tenant's session.
pub struct Session {
    /// Whose it is.
    pub tenant: TenantId,
    me: Weak<Self>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) connector: Arc<Connector>,
    dials: Arc<Dials>,
    pub(crate) downloads: Arc<Downloads>,
    /// How often a task of any session has panicked.
    panics: Arc<AtomicU64>,
    /// Held while the session is opened, deleted or shut down, so that these don't cross.
    pub(crate) lifecycle: tokio::sync::Mutex<Lifecycle>,
    /// The phone that is to be linked by a code, and whether the code has been asked for.
    code_for: Mutex<Option<(Number, bool)>>,
    /// The device was unlinked, and a person wants another link: its keys are to be set aside.
    starts_over: AtomicBool,
    /// Whether somebody sees to it that a deletion that was begun comes to its end.
    pub(crate) deleting: AtomicBool,
    /// Its states, on their way to the event log.
    pub(crate) states: Arc<StateLog>,
}

#[derive(Default)]
pub(crate) struct Lifecycle {
    task: Option<(CancellationToken, JoinHandle<()>)>,
    /// It is being deleted, and this came of the unlinking.
    pub(crate) unlinked: Option<Unlinked>,
    pub(crate) ended: bool,
}

/// How a session starts.
#[derive(Default)]
struct Begin {
    /// Another process had the session: a person takes it back.
    take_back: bool,
    /// Somebody waits for it.
    by_person: bool,
    /// It was linked when the process started.
    awaited: Option<Awaited>,
}

/// What a session's task remembers from one client to the next.
#[derive(Default)]
struct Run {
    /// Clients in a row that came to nothing, or not to much.
    failures: u32,
    /// How many of them were refused in a way that is not to be asked again soon.
    refusals: u32,
    /// Since when the present connection, or the last one, is ready.
    ready_since: Option<Instant>,
    /// Somebody waits for it since it started.
    by_person: bool,
    /// It was linked just now: WhatsApp expects it to log in at once.
    just_paired: bool,
    /// The last client left before the server had proved who it is.
    abandoned: bool,
    /// Since when QR codes are shown, over all connections.
    pairing_since: Option<Instant>,
    /// Until when the pairing code is valid.
    code_until: Option<Instant>,
    awaited: Option<Awaited>,
}

impl Run {
    /// Another client came to nothing. Returns how many have in a row; of those that were refused, how many of these: a
    /// bad line is no reason to wait for an hour after the first refusal.
    fn failed(&mut self, again: RetryPolicy) -> u32 {
        self.failures = self.failures.saturating_add(1);
        if again != RetryPolicy::Slowly {
            return self.failures;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.refusals
    }
}

/// What opening a session did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was not there or had stopped, and was started.
    Started,
    /// It runs, and a pairing code was asked for.
    CodeRequested,
    /// It runs already, or is in a state in which nothing starts it.
    Unchanged,
}

/// Why a session can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// It was deleted, or the process is stopping.
    #[error("the service is stopping")]
    Gone,
    /// It is being deleted.
    #[error("the session is being deleted: a new one may begin when that is done")]
    Deleting,
    /// The library, and the phone too, allow one pairing code at a time.
    #[error("a pairing code for another phone is waiting; DELETE /session ends that")]
    CodeForAnotherPhone,
    /// What it is to remember can't be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a passkey step can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyRefused {
    /// What came is not usable.
    #[error(transparent)]
    Assertion(#[from] AssertionRefused),
    /// The library refused it.
    #[error("{0}")]
    Failed(String),
}

impl Session {
    /// A session that has not been opened yet.
    pub fn new(lease: Lease, shared: &Shared) -> Arc<Self> {
        let tenant = lease.tenant().clone();
        Arc::new_cyclic(|me: &Weak<Self>| {
            let connection = Connection::new(lease.clone(), shared);
            let limits = AccountLimits::new(connection.clone());
            let timers = Timers::new(tenant.clone(), shared.store.clone());
            let outbox = Outbox::new(connection.clone(), limits.clone(), timers.clone(), shared);
            let retries = Retries::new(connection.clone(), outbox.clone(), shared);
            let session = me.clone();
            let trouble = move |error: &StoreError| {
                if let Some(session) = session.upgrade() {
                    session.report_damage(&error.to_string());
                }
            };
            let inbox = Inbox {
                connection: connection.clone(),
                store: shared.store.clone(),
                outbox: outbox.clone(),
                retries,
                limits,
                timers,
                blocking_receipts: shared.blocking_receipts.clone(),
                event_retention: shared.event_retention,
                trouble: Box::new(trouble),
            };
            Self {
                tenant,
                me: me.clone(),
                connection,
                outbox,
                inbox: inbox.into(),
                store: shared.store.clone(),
                connector: shared.connector.clone(),
                dials: shared.dials.clone(),
                downloads: shared.downloads.clone(),
                panics: shared.panics.clone(),
                lifecycle: tokio::sync::Mutex::default(),
                code_for: Mutex::default(),
                starts_over: AtomicBool::new(false),
                deleting: AtomicBool::new(false),
                states: StateLog::new(lease, shared.store.clone()).into(),
            }
        })
    }

    /// What the tenant wants sent.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// What comes in.
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// What WhatsApp says that the account may do.
    pub fn limits(&self) -> &AccountLimits {
        &self.inbox.limits
    }

    /// The time, as the store has it.
    fn now(&self) -> DateTime<Utc> {
        self.connection.now()
    }

    /// What the session is right now: what happened to it, and what its client says of itself this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.connection.snapshot()
    }

    /// Waits until `enough` holds of the snapshot, at most for `limit`.
    pub async fn wait_until(&self, limit: Duration, enough: impl FnMut(&Snapshot) -> bool) {
        self.connection.wait_until(limit, enough).await;
    }

    /// The way to WhatsApp that its owner has chosen.
    pub fn proxy(&self) -> Option<Proxy> {
        self.connection.proxy()
    }

    /// Messages that the server acknowledged and messages that were received, since this process started.
    pub fn counts(&self) -> (u64, u64) {
        (self.outbox.sent.load(Ordering::Relaxed), self.connection.mailbox.received.load(Ordering::Relaxed))
    }

    /// Takes for granted what an earlier process wrote down: that it is linked, and with whom.
    pub(crate) fn know_linked(&self, record: Record) {
        *lock(&self.connection.proxy) = record.proxy;
        self.apply(Fact::Linked { phone: record.phone });
    }

    /// From now on the way to WhatsApp leads through `proxy`. A client that takes another way is stopped; the next one
    /// takes this.
    pub(crate) async fn use_proxy(&self, proxy: Option<Proxy>) -> Result<(), OpenRefused> {
        let mut lifecycle = self.lifecycle.lock().await;
        self.can_be_opened(&lifecycle)?;
        if self.store.recorded(&self.tenant).await?.proxy == proxy {
            return Ok(());
        }
        let before = std::mem::replace(&mut *lock(&self.connection.proxy), proxy.clone());
        if let Err(error) = self.store.change_record(&self.connection.lease, vec![RecordChange::Proxy(proxy)]).await {
            *lock(&self.connection.proxy) = before;
            return Err(error.into());
        }
        // A session that waits out a ban, say, has no client, and goes on waiting.
        let has_client = !self.connection.snapshot.borrow().stops_client();
        if has_client {
            stop(&mut lifecycle).await;
        }
        Ok(())
    }

    /// Sees to it that the session runs: starts it if it does not, and asks for a pairing code if `phone` wants one.
    pub async fn open(self: &Arc<Self>, phone: Option<Number>) -> Result<Opened, OpenRefused> {
        self.start(phone, Begin { by_person: true, ..Begin::default() }).await
    }

    /// Starts it because it was linked when the process started.
    pub(crate) async fn bring_back(self: &Arc<Self>, awaited: Awaited) {
        // Refused means that it was deleted or that the process stops: nothing to bring back.
        let _ = self.start(None, Begin { awaited: Some(awaited), ..Begin::default() }).await;
    }

    fn can_be_opened(&self, lifecycle: &Lifecycle) -> Result<(), OpenRefused> {
        if lifecycle.ended {
            return Err(OpenRefused::Gone);
        }
        if self.connection.gone.load(Ordering::Acquire) { Err(OpenRefused::Deleting) } else { Ok(()) }
    }

    async fn start(self: &Arc<Self>, phone: Option<Number>, mut begin: Begin) -> Result<Opened, OpenRefused> {
        let mut lifecycle = self.lifecycle.lock().await;
        match self.can_be_opened(&lifecycle) {
            // Only then it can be unlinked.
            Err(OpenRefused::Deleting) if begin.awaited.is_some() => {}
            refused => refused?,
        }
        let snapshot = self.connection.snapshot.borrow().clone();
        let runs = lifecycle.task.as_ref().is_some_and(|(_, task)| !task.is_finished());
        let reopens = snapshot.can_be_reopened(self.now());
        if !runs || reopens {
            if snapshot.stops_client() && !reopens {
                return Ok(Opened::Unchanged);
            }
            stop(&mut lifecycle).await;
            *lock(&self.code_for) = phone.map(|phone| (phone, false));
            if snapshot.state == State::LoggedOut {
                self.starts_over.store(true, Ordering::Release);
            }
            let known = snapshot.is_paired() && !self.starts_over.load(Ordering::Acquire);
            self.connection.snapshot.send_replace(Snapshot::new(self.now()));
            if known {
                self.apply(Fact::Linked { phone: snapshot.phone });
            }
            let cancel = CancellationToken::new();
            begin.take_back = snapshot.state == State::Replaced;
            let task = tokio::spawn(self.clone().supervise(cancel.clone(), begin));
            lifecycle.task = Some((cancel, task));
            return Ok(Opened::Started);
        }
        if snapshot.is_paired() {
            return Ok(Opened::Unchanged);
        }
        let requested = phone.map_or(Ok(false), |phone| self.want_code(phone, snapshot.state))?;
        self.connection.nudge.notify_one();
        Ok(if requested { Opened::CodeRequested } else { Opened::Unchanged })
    }

    /// Stops, keeping everything on disk.
    pub async fn shut_down(&self) {
        let mut lifecycle = self.lifecycle.lock().await;
        lifecycle.ended = true;
        stop(&mut lifecycle).await;
    }

    /// Says that this tenant's files can't be read, without touching them.
    pub(crate) fn report_damage(&self, why: &str) {
        self.apply(Fact::StorageFailed(why.into()));
    }

    /// Hands the client the passkey assertion that it waits for.
    pub fn submit_passkey(&self, credential: &serde_json::Value) -> Result<(), PasskeyRefused> {
        let live = lock(&self.connection.live).clone().ok_or(AssertionRefused::NotAsked)?;
        Ok(live.authenticator.submit(credential)?)
    }

    /// Tells the client that the person saw the same code on the phone.
    pub async fn confirm_passkey(&self) -> Result<(), PasskeyRefused> {
        let live = lock(&self.connection.live).clone().ok_or(AssertionRefused::NotAsked)?;
        if !self.connection.snapshot.borrow().passkey.as_ref().is_some_and(|passkey| passkey.needs_confirmation) {
            return Err(AssertionRefused::NotAsked.into());
        }
        live.client.confirm_passkey().await.map_err(PasskeyRefused::Failed)
    }

    /// Runs it, and again if it fails in a way that it must not.
    async fn supervise(self: Arc<Self>, cancel: CancellationToken, mut begin: Begin) {
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

    fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(tenant = %self.tenant, "a session's task failed badly; it starts again");
        self.connection.queued.store(false, Ordering::Relaxed);
        self.apply(Fact::Panicked);
    }

    /// Runs clients, one after the other, until there is nothing more to do without a person.
    async fn run(self: Arc<Self>, cancel: CancellationToken, begin: Begin) {
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
    async fn prepare(&self, take_back: bool) -> Result<Option<LoginHold>, StoreError> {
        let (store, tenant, lease) = (&self.store, &self.tenant, &self.connection.lease);
        // Keys that are of no use any more are not dialled with.
        if self.starts_over.load(Ordering::Acquire) {
            store.start_over(lease).await?;
            self.starts_over.store(false, Ordering::Release);
        }
        let Record { hold, proxy, replaced_at, .. } = store.recorded(tenant).await?;
        *lock(&self.connection.proxy) = proxy;
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
    async fn turn(&self, run: &Run, cancel: &CancellationToken) -> Option<Pass> {
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

    fn urgency(&self, run: &Run) -> Urgency {
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
    async fn one_client(&self, pass: Pass, run: &mut Run, cancel: &CancellationToken) {
        let mut link = None;
        // On the heap, so that a session that waits does not keep room for it.
        let panicked =
            Box::pin(AssertUnwindSafe(self.use_client(&mut link, pass, run, cancel)).catch_unwind()).await.is_err();
        *lock(&self.connection.live) = None;
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

    async fn use_client(&self, link: &mut Option<Link>, pass: Pass, run: &mut Run, cancel: &CancellationToken) {
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
    async fn next(&self, run: &mut Run) -> Option<Duration> {
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
    async fn pause(&self, wait: Duration, cancel: &CancellationToken) -> ControlFlow<()> {
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

    async fn start_link(&self, link: &mut Option<Link>) -> Result<mpsc::UnboundedReceiver<Heard>, String> {
        let owner = Arc::new(StoreOwner(self.me.clone()));
        let backend =
            signal::open(&self.store, &self.connection.lease, owner).await.map_err(|error| error.to_string())?;
        let mailbox = self.connection.mailbox.clone();
        let inbox: Arc<dyn Receiver> = self.inbox.clone();
        let receiver = Arc::downgrade(&inbox);
        let (started, heard) = Link::start(&self.connector, backend, self.proxy(), mailbox, receiver).await?;
        let phone = started.client.phone();
        *link = Some(started);
        self.apply(Fact::Started { phone });
        Ok(heard)
    }

    /// Takes in what one client has to say, until it ends, or has no more use, or `cancel` says so.
    async fn follow(
        &self,
        link: &mut Link,
        mut heard: mpsc::UnboundedReceiver<Heard>,
        pass: Pass,
        run: &mut Run,
        cancel: &CancellationToken,
    ) {
        *lock(&self.connection.live) =
            Some(Live { client: link.client.clone(), authenticator: link.authenticator.clone() });
        let (mut pass, turn_ends) = (Some(pass), Instant::now() + LOGIN_TURN);
        let (mut looks, mut unwell) = (tokio::time::interval(LOOK_INTERVAL), 0);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping = None;
        while !self.connection.snapshot.borrow().stops_client() {
            let flow = tokio::select! {
                biased;
                () = cancel.cancelled() => ControlFlow::Break(()),
                Some(heard) = heard.recv() => self.take_in(heard, &link.client, run, &mut ping).await,
                () = link.ended() => {
                    self.apply(Fact::Ended);
                    ControlFlow::Break(())
                }
                dead = answer(&mut ping) => match dead {
                    Some(word) => self.hear(word.into()),
                    None => ControlFlow::Continue(()),
                },
                () = sleep_until(run.code_until), if run.code_until.is_some() => {
                    run.code_until = None;
                    self.apply(Fact::PairingCodeExpired);
                    ControlFlow::Continue(())
                }
                _ = looks.tick() => self.look_at(&link.client, &mut unwell, run),
            };
            if run.ready_since.is_none() && self.connection.snapshot.borrow().state == State::Ready {
                run.ready_since = Some(Instant::now());
                (run.by_person, run.just_paired, run.pairing_since) = (false, false, None);
                self.dials.succeeded();
            }
            if !self.connection.snapshot.borrow().is_under_way() || Instant::now() >= turn_ends {
                // Others may dial.
                (pass, run.awaited) = (None, None);
            }
            if flow.is_break() {
                break;
            }
        }
        drop(pass);
        if run.code_until.take().is_some() {
            // It died with its connection.
            *lock(&self.code_for) = None;
        } else if let Some((_, asked)) = &mut *lock(&self.code_for) {
            // What was asked for on this connection, and did not come, is asked for on the next one.
            *asked = false;
        }
        let told = self.connection.snapshot.borrow().clone();
        if (told.hold().is_some() || told.again == RetryPolicy::OnceMore)
            && let Err(error) = self.keep(told).await
        {
            let tenant = &self.tenant;
            tracing::error!(%tenant, %error, "why it must not dial can't be written down; a restart would not know");
        }
    }

    /// Writes down what a later process must know before it dials.
    async fn keep(&self, told: Snapshot) -> Result<(), StoreError> {
        let (hold, phone) = (told.hold(), told.phone);
        let replaced_at = told.replaced_at.map(|at| at.timestamp_millis());
        let known = vec![RecordChange::Linked(phone), RecordChange::Hold(hold), RecordChange::ReplacedAt(replaced_at)];
        self.store.change_record(&self.connection.lease, known).await
    }

    /// Notices what the library tells nobody: that it stopped saving, and that a connection is open and not logged in,
    /// where it would stay for ever.
    fn look_at(&self, client: &Client, unwell: &mut u32, run: &Run) -> ControlFlow<()> {
        if client.has_stopped_saving() {
            self.apply(Fact::StorageFailed("The disk could not be written to, again and again.".into()));
            return ControlFlow::Break(());
        }
        if run.pairing_since.is_some_and(|since| self.connection.snapshot.borrow().pairing_is_overdue(since.elapsed()))
        {
            self.apply(Fact::QrExhausted { disconnected: true });
            return ControlFlow::Break(());
        }
        // A connection that came back without a word lets messages go on too.
        self.outbox.pump();
        let logs_in =
            matches!(self.connection.snapshot.borrow().state, State::Connecting | State::Reconnecting | State::Ready);
        let open = logs_in && client.is_connected() && !client.is_logged_in();
        *unwell = if open { *unwell + 1 } else { 0 };
        // The first look may come a moment after the dial.
        if *unwell > UNWELL_LOOKS {
            self.apply(Fact::Stuck);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// WhatsApp refused the login or ended the connection: this client has no more use.
    fn hear(&self, said: Said) -> ControlFlow<()> {
        let word = said.word;
        self.apply(Fact::Said(said));
        if codes::row(word).fleet {
            self.dials.troubled(&self.tenant);
        }
        if self.connection.snapshot.borrow().state == State::Outdated {
            self.connector.doubt_version();
        }
        ControlFlow::Break(())
    }

    async fn take_in(&self, heard: Heard, client: &Client, run: &mut Run, ping: &mut Option<Ping>) -> ControlFlow<()> {
        match heard {
            Heard::Fact(Fact::Said(said)) if codes::row(said.word).again == RetryPolicy::SoonIfDead => {
                ping.get_or_insert_with(|| Ping::send(client.clone(), said.word));
            }
            Heard::Fact(Fact::Said(said)) => return self.hear(said),
            Heard::Abandoned => run.abandoned = true,
            Heard::Fact(signal) => {
                match &signal {
                    Fact::QrCode { .. } => drop(run.pairing_since.get_or_insert_with(Instant::now)),
                    Fact::PairingCode { valid_for, .. } => {
                        run.code_until = Some(Instant::now() + valid_for.to_std().unwrap_or_default());
                    }
                    _ => {}
                }
                let qr_shown = matches!(signal, Fact::QrCode { .. });
                let code_shown = self.connection.snapshot.borrow().pairing_code.is_some();
                self.apply(signal);
                if code_shown && self.connection.snapshot.borrow().pairing_code.is_none() {
                    run.code_until = None;
                    // It died with its connection, or was used: the next one has to be asked for by a person.
                    *lock(&self.code_for) = None;
                }
                // The server takes the request for a code once it has offered its QR codes.
                if qr_shown
                    && let Some((phone, asked)) = &mut *lock(&self.code_for)
                    && !std::mem::replace(asked, true)
                {
                    client.request_code(phone);
                }
            }
            Heard::PairSuccess { phone } => match self.make_durable(client).await {
                Ok(()) => {
                    // What was said of another account.
                    self.inbox.limits.forget();
                    self.inbox.timers.forget();
                    run.just_paired = true;
                    self.apply(Fact::Paired { phone });
                }
                Err(why) => self.apply(Fact::StorageFailed(why)),
            },
            Heard::Connected if client.is_logged_in() => match self.make_durable(client).await {
                Ok(()) => self.apply(Fact::Online { phone: client.phone(), push_name: client.push_name() }),
                Err(why) => self.apply(Fact::StorageFailed(why)),
            },
            Heard::Connected => {}
            Heard::LateAck { id, ack } => {
                let outbox = self.outbox.clone();
                tokio::spawn(async move { outbox.late_ack(&id, ack).await });
            }
        }
        ControlFlow::Continue(())
    }

    /// The phone is about to hear that it is linked: what can't be written down is not confirmed, and the connection ends.
    pub(crate) async fn linking(&self) {
        let Some(client) = self.connection.client() else { return };
        if let Err(why) = self.save_link(&client).await {
            self.apply(Fact::StorageFailed(why));
            client.disconnect().await;
        }
    }

    /// Writes the device down, and with it that this tenant is linked.
    async fn save_link(&self, client: &Client) -> Result<Record, String> {
        let given_up = Instant::now() + SAVE_LIMIT;
        loop {
            client.flush().await?;
            let known = self.store.recorded(&self.tenant).await.map_err(|error| error.to_string())?;
            if known.paired {
                return Ok(known);
            }
            if Instant::now() > given_up {
                return Err(format!("The device was not written down within {SAVE_LIMIT:?}."));
            }
            // The library's own saver is at it: then there was nothing left to do here, and it is not yet done.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Writes the credentials and ratchets to disk, and to whom this tenant is linked.
    async fn make_durable(&self, client: &Client) -> Result<(), String> {
        let known = self.save_link(client).await?;
        client.flush_keys().await?;
        let phone = client.phone();
        if known.phone == phone && known.hold.is_none() {
            return Ok(());
        }
        let linked = vec![RecordChange::Linked(phone), RecordChange::Hold(None)];
        self.store.change_record(&self.connection.lease, linked).await.map_err(|error| error.to_string())
    }

    /// Whether it was linked when that was last written down. What can't be read may well be.
    pub(crate) async fn is_recorded_as_paired(&self) -> bool {
        self.store.recorded(&self.tenant).await.map_or(true, |record| record.paired)
    }

    /// Sees to it that a code for this phone is shown, or will be, and says whether that was not so before.
    fn want_code(&self, phone: Number, state: State) -> Result<bool, OpenRefused> {
        let mut code_for = lock(&self.code_for);
        match &*code_for {
            Some((other, _)) if *other != phone => return Err(OpenRefused::CodeForAnotherPhone),
            Some(_) => return Ok(false),
            None => {}
        }
        // Without a QR code on the screen the server is not ready to be asked; the next one will be the sign.
        let client = self.connection.client();
        let ready = client.filter(|_| state == State::PairingQr);
        *code_for = Some((phone.clone(), ready.is_some()));
        if let Some(client) = ready {
            client.request_code(&phone);
        }
        Ok(true)
    }

    pub(crate) fn apply(&self, signal: Fact) {
        if let Fact::ProxyFailed(why) = &signal {
            tracing::info!(tenant = %self.tenant, why, "the session's proxy does not lead to WhatsApp");
        }
        let mut entered = None;
        self.connection.snapshot.send_modify(|snapshot| {
            let before = snapshot.state;
            snapshot.apply(signal, self.now());
            if snapshot.state != before {
                let reason = snapshot.reason.as_ref().map(|reason| reason.code.as_str());
                let (tenant, state) = (&self.tenant, snapshot.state.as_str());
                match snapshot.state {
                    State::LoggedOut | State::Banned | State::Locked => {
                        tracing::warn!(%tenant, state, reason, "session")
                    }
                    _ => tracing::info!(%tenant, state, reason, "session"),
                }
                self.tell(json!(SessionStateChange::of(snapshot)));
                metrics::entered(snapshot.state);
                entered = Some(snapshot.state);
            }
        });
        if entered == Some(State::Ready) {
            // What waited for a connection waits no longer.
            lock(&self.outbox.queue).hurry_all();
            self.outbox.pump();
            self.inbox.limits.keep_quota_fresh();
            self.inbox.retries.answer_open();
        }
    }

    /// Puts the session's state into the event log.
    pub(crate) fn tell(&self, state: serde_json::Value) {
        self.states.push(state);
    }
}

/// What the event log says of a session's state.
#[derive(Serialize, ToSchema)]
pub struct SessionStateChange<'a> {
    state: State,
    status: Status,
    #[schema(format = DateTime)]
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
}

impl<'a> SessionStateChange<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            state: snapshot.state,
            status: snapshot.state.status(),
            since: timestamp(snapshot.since),
            reason: snapshot.reason.as_ref().map(|reason| reason.code.as_str()),
            message: snapshot.reason.as_ref().map(|reason| reason.message.as_str()),
            phone: snapshot.phone.as_deref(),
        }
    }
}

/// Ends the session's task and waits for that, also if an earlier wait was broken off: no other one may run beside it.
pub(crate) async fn stop(lifecycle: &mut Lifecycle) {
    if let Some((cancel, task)) = &mut lifecycle.task {
        cancel.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, "a session's task ended badly");
        }
        lifecycle.task = None;
    }
}

/// The question whether WhatsApp still answers on a connection that it has reported an error on.
struct Ping {
    word: DisconnectCode,
    answer: JoinHandle<bool>,
}

impl Ping {
    fn send(client: Client, word: DisconnectCode) -> Self {
        let answer = tokio::spawn(async move { client.answers_within(PING_LIMIT).await });
        Self { word, answer }
    }
}

/// Waits for the answer to a ping, for ever if there is none: the word that killed the connection, if it is dead.
async fn answer(ping: &mut Option<Ping>) -> Option<DisconnectCode> {
    let Some(waiting) = ping else { return std::future::pending().await };
    let alive = (&mut waiting.answer).await.unwrap_or(false);
    let word = waiting.word;
    *ping = None;
    (!alive).then_some(word)
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Up to a tenth more, so that sessions that wait for the same hour don't dial together.
fn a_little_longer(wait: Duration) -> Duration {
    wait + wait.mul_f64(rand::random_range(0.0..0.1))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::LazyLock};

    use clap::Parser;

    use super::*;
    use crate::{Server, cli::Cli, net::trust::Trust};

    /// How many more times the task of a tenant's session is to panic: with a client, and without one.
    pub(crate) static CLIENTS: Panics = LazyLock::new(Mutex::default);
    pub(crate) static RUNS: Panics = LazyLock::new(Mutex::default);

    type Panics = LazyLock<Mutex<BTreeMap<TenantId, u32>>>;

    pub(crate) fn maybe_panic(panics: &Panics, tenant: &TenantId) {
        let due = lock(panics).get_mut(tenant).filter(|left| **left > 0).map(|left| *left -= 1).is_some();
        assert!(!due, "a test asked for a panic");
    }

    #[test]
    fn the_first_refusal_after_many_lost_connections_is_the_first() {
        let mut run = Run::default();
        let lost: Vec<_> = (0..9).map(|_| run.failed(RetryPolicy::Soon)).collect();
        assert_eq!(lost, (1..=9).collect::<Vec<_>>());
        assert_eq!(
            [RetryPolicy::Slowly, RetryPolicy::Soon, RetryPolicy::Slowly].map(|again| run.failed(again)),
            [1, 11, 2]
        );
    }

    #[tokio::test]
    async fn a_panic_in_one_session_is_reported_and_it_starts_again() {
        let data = tempfile::TempDir::new().unwrap();
        let mut config = Cli::try_parse_from(["test", "--host", "127.0.0.1", "--port", "0"]).unwrap().config;
        config.internal_secret = "nobody knows".into();
        config.data_dir = data.path().into();
        // Nobody listens there.
        config.whatsapp_url = Some("ws://127.0.0.1:1/".into());
        config.whatsapp_version = Some((1, 2, 3));
        let server = Server::bind(&config, Trust::AnyServer { tls_roots: Vec::new() }).await.unwrap();
        let manager = server.manager();
        let [unlucky, calm] = ["unlucky", "calm"].map(|name| name.parse::<TenantId>().unwrap());
        lock(&CLIENTS).insert(unlucky.clone(), 2);
        lock(&RUNS).insert(unlucky.clone(), 1);
        let seen = |session: &Arc<Session>, code: &'static str| {
            let session = session.clone();
            async move {
                let limit = Duration::from_secs(60);
                let has = |snapshot: &Snapshot| snapshot.reason.as_ref().is_some_and(|reason| reason.code == code);
                session.wait_until(limit, has).await;
                let snapshot = session.snapshot();
                assert!(has(&snapshot), "{code} is awaited, and not {:?}", snapshot.reason);
            }
        };
        let (session, _) = manager.open(&unlucky, None, None).await.unwrap();
        seen(&session, "internal_error").await;
        assert_eq!(session.snapshot().state, State::Connecting);
        let (other, _) = manager.open(&calm, None, None).await.unwrap();
        seen(&other, "connection_failed").await;
        seen(&session, "connection_failed").await;
        assert_eq!(manager.panics(), 3);
        manager.shut_down().await;
    }
}
