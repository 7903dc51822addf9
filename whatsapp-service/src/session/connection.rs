//! A session's connection, as its parts see it: its state, and the client while one runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    model::{session_state::State, tenant::TenantId},
    net::{dial_gate::Dials, proxy::Proxy},
    session::{
        outbox::Refused,
        shared::Shared,
        state::{Reason, Snapshot},
    },
    store::{error::StoreError, lease::Lease},
    util::clock::Clock,
    whatsapp::{client::Client, events::Mailbox, fact::Fact, passkey::RemoteAuthenticator},
};

/// How long to wait before something is written again that could not be.
pub const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// A session's connection.
pub struct Connection {
    /// Whose it is.
    pub tenant: TenantId,
    /// What allows writes on its behalf.
    pub(crate) lease: Lease,
    clock: Clock,
    dials: Arc<Dials>,
    pub(crate) snapshot: watch::Sender<Snapshot>,
    /// The client that runs now, if one does.
    pub(crate) live: Mutex<Option<Live>>,
    /// The way to WhatsApp that its owner has chosen, as it was written down last.
    pub(crate) proxy: Mutex<Option<Proxy>>,
    /// Tells the session's task that somebody waits now who did not before.
    pub(crate) nudge: Notify,
    /// Whether it waits for its turn to connect.
    pub(crate) queued: AtomicBool,
    /// What the client hears, for those who wait for it.
    pub(crate) mailbox: Arc<Mailbox>,
    /// Whether the session is being deleted: nothing more is accepted.
    pub(crate) gone: AtomicBool,
    /// Cancelled when the process is about to end: nothing new is begun.
    pub(crate) stopping: CancellationToken,
}

/// A running client, as the session's parts use it.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) client: Client,
    pub(crate) authenticator: Arc<RemoteAuthenticator>,
}

impl Connection {
    /// One without a client.
    pub fn new(lease: Lease, shared: &Shared) -> Arc<Self> {
        let clock = shared.store.clock().clone();
        Arc::new(Self {
            tenant: lease.tenant().clone(),
            lease,
            snapshot: watch::Sender::new(Snapshot::new(clock.now())),
            clock,
            dials: shared.dials.clone(),
            live: Mutex::default(),
            proxy: Mutex::default(),
            nudge: Notify::new(),
            queued: AtomicBool::new(false),
            mailbox: Arc::default(),
            gone: AtomicBool::new(false),
            stopping: shared.stopping.clone(),
        })
    }

    /// The time, as the store has it.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The client that runs now, ready or not.
    pub(crate) fn client(&self) -> Option<Client> {
        self.live.lock().as_ref().map(|live| live.client.clone())
    }

    /// Resolves when the connection that is there now is lost.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.snapshot.subscribe();
        let connected_at = changes.borrow_and_update().connected_at;
        async move {
            let lost = |snapshot: &Snapshot| snapshot.state != State::Ready || snapshot.connected_at != connected_at;
            // A session that is gone has lost its connection too.
            let _ = changes.wait_for(lost).await;
        }
    }

    /// What the session is right now: what happened to it, and what its client says of itself this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot.borrow().clone();
        if snapshot.state == State::Ready && self.ready_client().is_none() {
            snapshot.apply(Fact::Offline, self.now());
        }
        if self.queued.load(Ordering::Relaxed) && snapshot.is_under_way() && self.dials.held_up() {
            let message = "WhatsApp turned several sessions away: all wait until one login succeeds.";
            snapshot.reason = Some(Reason { code: "dials_held_up".into(), message: message.into() });
        }
        snapshot
    }

    /// The client, if messages can be sent with it now.
    pub(crate) fn ready_client(&self) -> Option<Client> {
        let client = self.live.lock().as_ref()?.client.clone();
        let ready = self.snapshot.borrow().state == State::Ready && client.is_connected() && client.is_logged_in();
        ready.then_some(client)
    }

    /// Waits until `enough` holds of the snapshot, at most for `limit`.
    pub async fn wait_until(&self, limit: Duration, enough: impl FnMut(&Snapshot) -> bool) {
        let mut changes = self.snapshot.subscribe();
        // Running out of time is an answer too: the caller looks at the snapshot anyway.
        let _ = tokio::time::timeout(limit, changes.wait_for(enough)).await;
    }

    /// The way to WhatsApp that its owner has chosen.
    pub fn proxy(&self) -> Option<Proxy> {
        self.proxy.lock().clone()
    }

    /// Writes until it is written: what happened does not unhappen because the disk is full. `None` when the process is
    /// about to end.
    pub(crate) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            match write().await {
                Ok(written) => return Some(written),
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "what happened could not be written down yet");
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
            }
        }
    }
    /// Whether messages are taken now: the session can send them, or will by itself before long.
    pub fn accepts(&self) -> Result<(), Refused> {
        if self.stopping.is_cancelled() || self.gone.load(Ordering::Acquire) {
            return Err(Refused::Stopping);
        }
        let snapshot = self.snapshot();
        match snapshot.state {
            State::Ready => Ok(()),
            State::Connecting | State::Reconnecting if snapshot.is_paired() => Ok(()),
            _ => Err(Refused::not_ready(snapshot, self.now())),
        }
    }

    pub(crate) fn may_send(&self) -> bool {
        let ending = self.stopping.is_cancelled() || self.gone.load(Ordering::Acquire);
        !ending && self.ready_client().is_some()
    }
}
