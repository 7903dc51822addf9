//! The WhatsApp manager: one session for each tenant, and what they all share.

mod events;
mod inbound;
mod lane;
mod link;
mod memory;
mod numbers;
mod outbound;
mod outbox;
mod passkey;
mod recall;
mod recipient;
mod session;
mod state;
mod transport;
mod upkeep;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use tokio::{sync::Semaphore, task::JoinSet};

pub use self::{
    inbound::ReceivedMessage,
    memory::MemoryReport,
    outbox::{NotTaken, ReachoutTimelock, Refused, Submission, Taken},
    passkey::AssertionRefused,
    recipient::{InvalidRecipient, Recipient},
    session::{OpenRefused, PasskeyRefused, Session, SessionStateChange, Unlinked},
    state::{Expiring, Passkey, Reason, Snapshot, State, Status},
    version::built_in as built_in_version,
};
use self::{link::Surroundings, upkeep::Retention, version::VersionSource};
use crate::{
    Trust,
    config::Config,
    store::{Accepted, DataDir, Idempotency, Message, Rules, Store, StoreError, Tenants},
    tenant::TenantId,
};

/// How long one session may keep another from connecting after a start.
const CONNECT_TURN: Duration = Duration::from_secs(15);

/// All sessions.
pub struct Manager {
    data: DataDir,
    around: Arc<Surroundings>,
    sessions: RwLock<BTreeMap<TenantId, Arc<Session>>>,
    connect_concurrency: usize,
    closing: AtomicBool,
    /// Folders that can't be read, and why.
    damaged: RwLock<Vec<(PathBuf, String)>>,
    retention: Retention,
}

impl Manager {
    /// Takes the data directory.
    pub fn new(config: &Config, trust: Trust) -> Result<Self, StoreError> {
        let data = DataDir::open(&config.data_dir, trust)?;
        let version = VersionSource::new(config.whatsapp_version, data.version_file());
        let rules = Rules { keep_bodies: config.keep_bodies, webhook_for_all: config.webhook_for_all().is_some() };
        let store = Arc::new(Store::open(&data.database(), rules)?);
        Ok(Self {
            data,
            around: Arc::new(Surroundings::new(config, version, store)),
            sessions: RwLock::default(),
            closing: AtomicBool::new(false),
            damaged: RwLock::default(),
            connect_concurrency: config.connect_concurrency.into(),
            retention: Retention {
                messages: TimeDelta::days(config.message_retention.into()),
                events: TimeDelta::days(config.event_retention.into()),
            },
        })
    }

    /// Messages, their fates, and the event log.
    pub fn store(&self) -> &Arc<Store> {
        &self.around.store
    }

    /// Brings every linked session back, and what waits to be sent. All are known at once; they connect a few at a time.
    pub async fn restore(&self) -> Result<(), StoreError> {
        let Tenants { paired: tenants, damaged } = self.data.tenants()?;
        *self.damaged.write().unwrap_or_else(PoisonError::into_inner) = damaged;
        tracing::info!(sessions = tenants.len(), "restoring");
        let sessions: Vec<_> = tenants.iter().map(|tenant| self.get_or_create(tenant)).collect();
        sessions.iter().for_each(|session| session.know_linked());
        self.resume().await?;
        let turns = Arc::new(Semaphore::new(self.connect_concurrency));
        for session in sessions {
            let turns = turns.clone();
            tokio::spawn(async move {
                let Ok(_turn) = turns.acquire_owned().await else { return };
                // Gone means that it was deleted or that the process stops: nothing to restore.
                if session.open(None).await.is_ok() {
                    session.wait_until(CONNECT_TURN, |snapshot| snapshot.state != State::Connecting).await;
                }
            });
        }
        Ok(())
    }

    /// Gives the sessions what an earlier process left to be sent.
    async fn resume(&self) -> Result<(), StoreError> {
        let pending = self.store().recover().await?;
        tracing::info!(messages = pending.len(), "resuming");
        let mut orphaned = BTreeSet::new();
        for message in pending {
            match (self.get(&message.tenant), Recipient::parse(&message.recipient)) {
                (Some(session), Ok(recipient)) => session.resume(&recipient, message.row),
                _ => drop(orphaned.insert(message.tenant)),
            }
        }
        for tenant in orphaned {
            self.store().give_up_all(&tenant, outbox::deleted()).await?;
        }
        Ok(())
    }

    /// What became of earlier calls of this tenant with these keys, also if it has no session any more.
    pub async fn known(
        &self,
        tenant: &TenantId,
        calls: Vec<Option<Idempotency>>,
    ) -> Result<Vec<Option<Accepted>>, StoreError> {
        if calls.iter().all(Option::is_none) {
            return Ok(calls.into_iter().map(|_| None).collect());
        }
        self.store().known(tenant, calls).await
    }

    /// A message that was accepted before, and how to learn more if somebody is to `wait`.
    pub async fn taken(&self, tenant: &TenantId, message: Message, wait: bool) -> Taken {
        self.around.taken(tenant, message, wait).await
    }

    /// Nothing new is begun from now on; resolves when what is under way is done.
    pub async fn finish(&self) {
        self.around.stopping.cancel();
        self.around.sends.close();
        self.around.sends.wait().await;
    }

    /// Runs `work` to its end, also if its caller goes. It is waited for when the process stops.
    pub fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.around.sends.spawn(work)
    }

    /// Whether nothing new is begun any more, because the process is about to end.
    pub fn is_stopping(&self) -> bool {
        self.around.stopping.is_cancelled()
    }

    /// Resolves when the process is about to end.
    pub async fn stopping(&self) {
        self.around.stopping.cancelled().await;
    }

    /// The tenant's session, if there is one.
    pub fn get(&self, tenant: &TenantId) -> Option<Arc<Session>> {
        let known = self.sessions.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        known.or_else(|| self.report_damage(tenant))
    }

    /// A tenant whose folder names nobody is recognised when somebody asks for it.
    fn report_damage(&self, tenant: &TenantId) -> Option<Arc<Session>> {
        let dir = self.data.tenant(tenant);
        let damaged = self.damaged.read().unwrap_or_else(PoisonError::into_inner);
        let why = damaged.iter().find_map(|(path, why)| (*path == dir.path).then(|| why.clone()))?;
        let session = self.get_or_create(tenant);
        session.report_damage(&why);
        Some(session)
    }

    /// The tenant's session, running, and with a pairing code on its way if `phone` wants one.
    pub async fn open(&self, tenant: &TenantId, phone: Option<Recipient>) -> Result<Arc<Session>, OpenRefused> {
        loop {
            let session = self.get_or_create(tenant);
            match session.open(phone.clone()).await {
                Ok(()) => return Ok(session),
                // It was being deleted; the next round makes a new one.
                Err(OpenRefused::Gone) if !self.is_closing() => self.forget(&session),
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Unlinks and deletes the tenant's session; `None` where there is none, or no longer.
    pub async fn delete(&self, tenant: &TenantId) -> Result<Option<Unlinked>, StoreError> {
        let Some(session) = self.get(tenant) else { return Ok(None) };
        let deleted = session.delete().await?;
        self.damaged
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(path, _)| *path != self.data.tenant(tenant).path);
        self.forget(&session);
        Ok(deleted)
    }

    /// Whether the process is about to end.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Up to `limit` sessions whose tenants come after `after`, in order.
    pub fn list(&self, after: Option<&TenantId>, limit: usize) -> Vec<Arc<Session>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        sessions
            .range::<TenantId, _>((start, Bound::Unbounded))
            .take(limit)
            .map(|(_, session)| session.clone())
            .collect()
    }

    /// How many sessions can send right now.
    pub fn ready_count(&self) -> usize {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.values().filter(|session| session.snapshot().state == State::Ready).count()
    }

    /// Stops every session, in parallel, keeping everything on disk.
    pub async fn shut_down(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let mut stopping: JoinSet<()> =
            self.list(None, usize::MAX).into_iter().map(|session| async move { session.shut_down().await }).collect();
        while stopping.join_next().await.is_some() {}
        self.store().close().await;
    }

    fn get_or_create(&self, tenant: &TenantId) -> Arc<Session> {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Session::new(tenant.clone(), self.data.tenant(tenant), self.around.clone());
        sessions.entry(tenant.clone()).or_insert_with(new).clone()
    }

    fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&session.tenant).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&session.tenant);
        }
    }
}
