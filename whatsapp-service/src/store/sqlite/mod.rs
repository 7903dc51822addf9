//! One machine: everything in one SQLite database, which one process has open.

pub mod accept;
pub mod cells;
pub mod devices;
pub mod error;
pub mod events;
pub mod figures;
pub mod files;
pub mod kept;
pub mod mark;
pub mod messages;
pub mod outbox;
pub mod people;
pub mod read;
pub mod referred;
pub mod rekey;
pub mod retries;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod transitions;
pub mod tx;
pub mod webhooks;
pub mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::Ordering},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    model::tenant::TenantId,
    store::{
        Store,
        changes::{ChangeNotifier, Changes},
        data_dir::io_error,
        error::StoreError,
        lease::{Lease, Leases},
        rules::Rules,
        sqlite::{files::Files, mark::Mark, read::Readers, tx::Tx, writer::Writer},
    },
    util::{clock::Clock, seal::Seal},
};

/// The database: `DATA_DIR/service.db`. Whatever its methods have returned is on the disk.
pub struct SqliteStore {
    writer: Mutex<Option<Writer>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    readers: Readers,
    changes: Arc<ChangeNotifier>,
    /// Part of every event's id, so that those of another database are others.
    instance: String,
    /// Greater than that of every earlier process that has written.
    epoch: i64,
    rules: Rules,
    pub seal: Seal,
    clock: Clock,
    files: Files,
    /// The file of the database that is no longer there, once that was noticed.
    gone: OnceLock<PathBuf>,
    /// Cancelled when another process is to go on with the database.
    spent: CancellationToken,
}

impl SqliteStore {
    /// Opens or creates the database, and brings an older one up to date.
    pub fn open(path: &Path, rules: Rules, seal: Seal, clock: Clock) -> Result<Self, StoreError> {
        let connection = schema::open(path, &seal)?;
        rekey::discard_unfinished(path)?;
        let instance = schema::instance(&connection)?;
        if let Some(newest) = schema::newest(&connection)? {
            clock.compare(newest);
        }
        // The first commit of a process counts, so the next process finds more than this.
        let epoch = mark::epoch(&connection)? + 1;
        let mark = Mark::of(path, &connection)?;
        let files = Files::of(path).map_err(io_error("look at the files of", path))?;
        let changes = Arc::new(ChangeNotifier::default());
        let no_thread = |source: std::io::Error| StoreError::Io {
            doing: "start a thread for",
            path: path.into(),
            source: source.into(),
        };
        let thread = writer::Thread::new(connection, rules, seal.clone(), clock.clone(), changes.clone(), mark);
        let (writer, ended) = Writer::start(thread).map_err(no_thread)?;
        let readers = Readers::start(path).map_err(no_thread)?;
        Ok(Self {
            writer: Mutex::new(Some(writer)),
            ended: Mutex::new(Some(ended)),
            readers,
            changes,
            instance,
            epoch,
            rules,
            seal,
            clock,
            files,
            gone: OnceLock::new(),
            spent: CancellationToken::new(),
        })
    }

    /// Writes, in the order in which this was called: see [`Writer::write`].
    pub(crate) fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let gone = self.gone.get().cloned();
        let queued = self.writer.lock().as_ref().filter(|_| gone.is_none()).map(|writer| writer.write(work));
        async move {
            match (queued, gone) {
                (Some(written), _) => written.await,
                (None, Some(path)) => Err(StoreError::FileGone(path)),
                (None, None) => Err(StoreError::Closed),
            }
        }
    }

    /// The same on behalf of a tenant. The lock file keeps other processes out, so a lease of this process stays in force.
    pub(crate) fn write_as<T, W>(
        &self,
        lease: &Lease,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let in_force = lease.epoch() == self.epoch && lease.node() == self.instance;
        let written = in_force.then(|| self.write(work));
        async move {
            match written {
                Some(written) => written.await,
                None => Err(StoreError::Fenced),
            }
        }
    }
}

impl Changes for SqliteStore {
    fn changes(&self) -> &ChangeNotifier {
        &self.changes
    }
}

#[async_trait]
impl Leases for SqliteStore {
    async fn lease(&self, tenant: &TenantId) -> Result<Lease, StoreError> {
        Ok(Lease::new(tenant.clone(), self.instance.clone(), self.epoch))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn is_healthy(&self) -> bool {
        if self.gone.get().is_some() {
            return false;
        }
        let failing = self.writer.lock().as_ref().is_none_or(|writer| writer.health().failing.load(Ordering::Relaxed));
        !failing || self.write(|tx| tx.touch()).await.is_ok()
    }

    async fn inspect(&self) -> Result<(), StoreError> {
        if self.spent.is_cancelled() {
            return Ok(());
        }
        let Some(path) = self.files.gone() else { return Ok(()) };
        if self.gone.set(path.into()).is_ok() {
            let error = StoreError::FileGone(path.into());
            tracing::error!(%error, pid = std::process::id(), "nothing is accepted any more");
        }
        if self.files.is_database(path) {
            return Ok(());
        }
        let folded = self.writer.lock().as_ref().map(Writer::fold);
        if let Some(folded) = folded {
            folded.await?;
            tracing::warn!("what was in the log of the database is in the database now");
            self.spent.cancel();
        }
        Ok(())
    }

    async fn spent(&self) -> StoreError {
        self.spent.cancelled().await;
        StoreError::FileGone(self.gone.get().cloned().unwrap_or_default())
    }

    async fn close(&self) {
        let (writer, ended) = (self.writer.lock().take(), self.ended.lock().take());
        let Some(writer) = writer else { return };
        let (commits, jobs) = (&writer.health().commits, &writer.health().jobs);
        tracing::debug!(commits = commits.load(Ordering::Relaxed), jobs = jobs.load(Ordering::Relaxed), "store closed");
        // The last connection to close tidies up the files.
        self.readers.close().await;
        drop(writer);
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }
}
