//! One session: a tenant's link to WhatsApp.

pub mod connection;
pub mod deletion;
pub mod download;
pub mod follow;
pub mod inbox;
pub mod limits;
pub mod media_file;
pub mod outbox;
pub mod pairing;
pub mod people;
pub mod presence;
pub mod references;
pub mod restoring;
pub mod retries;
pub mod shared;
pub mod state;
pub mod state_log;
pub mod store_owner;
pub mod supervisor;
pub mod timers;

use parking_lot::Mutex;

use crate::{
    metrics,
    model::{
        address::number::Number,
        session_state::{State, Status},
        tenant::TenantId,
    },
    net::{dial_gate::Dials, proxy::Proxy},
    session::{
        connection::Connection, deletion::Unlinked, download::Downloads, inbox::Inbox, limits::AccountLimits,
        outbox::Outbox, restoring::Awaited, retries::Retries, shared::Shared, state::Snapshot, state_log::StateLog,
        supervisor::Begin, timers::Timers,
    },
    store::{
        Store,
        devices::{Record, RecordChange},
        error::StoreError,
        lease::Lease,
    },
    util::clock::timestamp,
    whatsapp::{connector::Connector, fact::Fact},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
/// One tenant's session.
pub struct Session {
    /// Whose it is.
    pub tenant: TenantId,
    pub(crate) me: Weak<Self>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) dials: Arc<Dials>,
    pub(crate) downloads: Arc<Downloads>,
    /// How often a task of any session has panicked.
    pub(crate) panics: Arc<AtomicU64>,
    /// Held while the session is opened, deleted or shut down, so that these don't cross.
    pub(crate) lifecycle: tokio::sync::Mutex<Lifecycle>,
    /// The phone that is to be linked by a code, and whether the code has been asked for.
    pub(crate) code_for: Mutex<Option<(Number, bool)>>,
    /// The device was unlinked, and a person wants another link: its keys are to be set aside.
    pub(crate) starts_over: AtomicBool,
    /// Whether somebody sees to it that a deletion that was begun comes to its end.
    pub(crate) deleting: AtomicBool,
    /// Its states, on their way to the event log.
    pub(crate) states: Arc<StateLog>,
}

#[derive(Default)]
pub(crate) struct Lifecycle {
    pub(crate) task: Option<(CancellationToken, JoinHandle<()>)>,
    /// It is being deleted, and this came of the unlinking.
    pub(crate) unlinked: Option<Unlinked>,
    pub(crate) ended: bool,
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
    pub(crate) fn now(&self) -> DateTime<Utc> {
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
        *self.connection.proxy.lock() = record.proxy;
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
        let before = std::mem::replace(&mut *self.connection.proxy.lock(), proxy.clone());
        if let Err(error) = self.store.change_record(&self.connection.lease, vec![RecordChange::Proxy(proxy)]).await {
            *self.connection.proxy.lock() = before;
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
            *self.code_for.lock() = phone.map(|phone| (phone, false));
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
            self.outbox.queue.lock().hurry_all();
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
