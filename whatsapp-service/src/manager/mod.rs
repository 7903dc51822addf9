//! The WhatsApp manager: one session for each tenant, and what they all share.

pub mod deletion;
pub mod memory;
pub mod upkeep;

use parking_lot::RwLock;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::TimeDelta;
use tokio::task::JoinSet;

use crate::{
    config::Config,
    manager::upkeep::Retention,
    media::shelf::MediaStore,
    model::{
        address::{Person, number::Number},
        message::{Accepted, Idempotency, Message},
        session_state::State,
        tenant::TenantId,
    },
    net::{
        dial::Dialler,
        dial_gate::DialFigures,
        proxy::{NotAllowed, Proxy},
        trust::Trust,
    },
    session::{
        OpenRefused, Opened, Session,
        outbox::{Taken, accept::known},
        restoring::{Progress, Restoring},
        shared::Shared,
    },
    store::{Store, data_dir::DataDir, error::StoreError, rules::Rules, sqlite::SqliteStore},
    util::{clock::Clock, seal::Seal},
    whatsapp::version::VersionSource,
};

/// All sessions.
pub struct Manager {
    /// Holds the lock of the data directory.
    data: DataDir,
    shared: Shared,
    sessions: RwLock<BTreeMap<TenantId, Arc<Session>>>,
    restoring: Arc<Restoring>,
    closing: AtomicBool,
    retention: Retention,
}

#[cfg(test)]
impl Manager {
    /// One with nothing in it, that reaches nothing.
    pub fn of_test(data: &std::path::Path) -> Self {
        use clap::Parser;
        let mut config = crate::cli::Cli::try_parse_from(["test"]).unwrap().config;
        config.data_dir = data.into();
        let trust = Trust::AnyServer { tls_roots: Vec::new() };
        let dialler = Dialler::new(None, &trust, crate::net::policy::Policy::new(false)).unwrap();
        Self::new(&config, Seal::NONE, &trust, dialler).unwrap()
    }
}

impl Manager {
    /// Takes the data directory. WhatsApp is reached with `dialler`.
    pub fn new(config: &Config, seal: Seal, trust: &Trust, dialler: Dialler) -> Result<Self, StoreError> {
        let data = DataDir::open(&config.data_dir, trust)?;
        let version = VersionSource::new(config.whatsapp_version, data.version_file());
        let rules = Rules { keep_bodies: config.keep_bodies, webhook_for_all: config.webhook_for_all().is_some() };
        tracing::info!(encrypted = seal.has_key(), "opening the database");
        let clock = Clock::new(config.clock_steady_after);
        let store = Arc::new(SqliteStore::open(&data.database(), rules, seal, clock)?);
        let media = Arc::new(MediaStore::open(data.media(), config)?);
        Ok(Self {
            data,
            shared: Shared::new(config, dialler, version, store, media),
            sessions: RwLock::default(),
            closing: AtomicBool::new(false),
            restoring: Arc::default(),
            retention: Retention {
                messages: TimeDelta::days(config.message_retention.into()),
                events: TimeDelta::days(config.event_retention.into()),
            },
        })
    }

    /// The data directory.
    pub fn folder(&self) -> &Path {
        self.data.folder()
    }

    /// Messages, their fates, and the event log.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Media that is to be sent.
    pub fn media(&self) -> &Arc<MediaStore> {
        &self.shared.media
    }

    /// Brings every linked session back, and what waits to be sent. All are known at once; they connect as the gate for
    /// dials lets them. After an error it may be called again.
    pub async fn restore(self: &Arc<Self>) -> Result<(), StoreError> {
        let linked = self.store().linked().await?;
        tracing::info!(sessions = linked.len(), "restoring");
        let mut sessions = Vec::with_capacity(linked.len());
        for (tenant, record) in linked {
            let session = self.get_or_create(&tenant).await?;
            match record {
                Ok(record) => {
                    if record.deleting {
                        self.go_on_deleting(session.clone());
                    }
                    session.know_linked(record);
                    sessions.push(session);
                }
                Err(error) => session.report_damage(&error.to_string()),
            }
        }
        self.resume().await?;
        let sessions: Vec<_> = sessions.into_iter().map(|session| (session, self.restoring.expect())).collect();
        let restoring = self.restoring.clone();
        tokio::spawn(async move {
            for (session, awaited) in sessions {
                session.bring_back(awaited).await;
            }
            restoring.report().await;
        });
        Ok(())
    }

    /// How far the process is with bringing its sessions back; `None` when that is done.
    pub fn restoring(&self) -> Option<Progress> {
        self.restoring.progress()
    }

    /// Refuses a proxy whose address tenants may not choose.
    ///
    /// # Errors
    /// It is such an address.
    pub fn check_proxy(&self, proxy: &Proxy) -> Result<(), NotAllowed> {
        proxy.check(self.shared.connector.dialler().proxies())
    }

    /// What the gate for dials is doing.
    pub fn dials(&self) -> DialFigures {
        self.shared.dials.figures()
    }

    /// How often a session's own task has panicked since the process started.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Gives the sessions what an earlier process left to be sent.
    async fn resume(&self) -> Result<(), StoreError> {
        let mut leases = Vec::new();
        for tenant in self.store().tenants_with_messages().await? {
            leases.push(self.store().lease(&tenant).await?);
        }
        let pending = self.store().recover(&leases).await?;
        tracing::info!(messages = pending.len(), "resuming");
        let (mut resumed, mut orphaned) = (Vec::with_capacity(pending.len()), BTreeSet::new());
        for message in pending {
            if let Some(file) = &message.media {
                self.media().belongs(file, &message.tenant);
            }
            match (self.get(&message.tenant), Person::kept(&message.recipient)) {
                (Some(session), Some(recipient)) => resumed.push((session, recipient, message.names, message.row)),
                _ => drop(orphaned.insert(message.tenant)),
            }
        }
        for tenant in orphaned {
            let lease = self.store().lease(&tenant).await?;
            self.store().give_up_all(&lease, crate::session::outbox::deleted()).await?;
        }
        for (session, recipient, names, row) in resumed {
            session.outbox().resume(&recipient, &names, row);
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
        known(self.store(), tenant, message, wait).await
    }

    /// Nothing new is begun from now on; resolves when what is under way is done.
    pub async fn finish(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Runs `work` to its end, also if its caller goes. It is waited for when the process stops.
    pub fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.shared.tasks.spawn(work)
    }

    /// Resolves when the process is about to end.
    pub async fn stopping(&self) {
        self.shared.stopping.cancelled().await;
    }

    /// The tenant's session, if there is one.
    pub fn get(&self, tenant: &TenantId) -> Option<Arc<Session>> {
        self.sessions.read().get(tenant).cloned()
    }

    /// The tenant's session, running, and with a pairing code on its way if `phone` wants one. A `proxy` that is given
    /// is used from now on, or none any more; without one given, the way stays what it was.
    pub async fn open(
        self: &Arc<Self>,
        tenant: &TenantId,
        phone: Option<Number>,
        proxy: Option<Option<Proxy>>,
    ) -> Result<(Arc<Session>, Opened), OpenRefused> {
        let (manager, tenant) = (self.clone(), tenant.clone());
        // On a task of its own: a caller that hangs up must not leave a session that was stopped to be started again.
        let opening = self.shared.tasks.spawn(async move { manager.open_now(&tenant, phone, proxy).await });
        opening.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    async fn open_now(
        &self,
        tenant: &TenantId,
        phone: Option<Number>,
        proxy: Option<Option<Proxy>>,
    ) -> Result<(Arc<Session>, Opened), OpenRefused> {
        loop {
            let session = self.get_or_create(tenant).await?;
            let ready = match proxy.clone() {
                Some(proxy) => session.use_proxy(proxy).await,
                None => Ok(()),
            };
            let opened = match ready {
                Ok(()) => session.open(phone.clone()).await,
                Err(refused) => Err(refused),
            };
            match opened {
                Ok(opened) => return Ok((session, opened)),
                // It was being deleted; the next round makes a new one.
                Err(OpenRefused::Gone) if !self.is_closing() => self.forget(&session),
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Whether the process is about to end.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Up to `limit` sessions whose tenants come after `after`, in order.
    pub fn list(&self, after: Option<&TenantId>, limit: usize) -> Vec<Arc<Session>> {
        self.list_only(after, limit, |_| true)
    }

    /// The same of those that are wanted.
    pub fn list_only(
        &self,
        after: Option<&TenantId>,
        limit: usize,
        wanted: impl Fn(&Session) -> bool,
    ) -> Vec<Arc<Session>> {
        let sessions = self.sessions.read();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        sessions
            .range::<TenantId, _>((start, Bound::Unbounded))
            .map(|(_, session)| session)
            .filter(|session| wanted(session))
            .take(limit)
            .cloned()
            .collect()
    }

    /// How many sessions can send right now.
    pub fn ready_count(&self) -> usize {
        let sessions = self.sessions.read();
        sessions.values().filter(|session| session.snapshot().state == State::Ready).count()
    }

    /// Stops every session, in parallel, keeping everything on disk.
    pub async fn shut_down(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let mut stopping: JoinSet<()> = self
            .list(None, usize::MAX)
            .into_iter()
            .map(|session| async move {
                session.shut_down().await;
                session.states.flush().await;
            })
            .collect();
        while stopping.join_next().await.is_some() {}
        self.store().close().await;
    }

    pub(crate) async fn get_or_create(&self, tenant: &TenantId) -> Result<Arc<Session>, StoreError> {
        if let Some(session) = self.get(tenant) {
            return Ok(session);
        }
        let lease = self.store().lease(tenant).await?;
        let mut sessions = self.sessions.write();
        let new = || Session::new(lease, &self.shared);
        Ok(sessions.entry(tenant.clone()).or_insert_with(new).clone())
    }

    fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.write();
        if sessions.get(&session.tenant).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&session.tenant);
        }
    }
}
