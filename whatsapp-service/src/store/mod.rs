//! What is kept on disk: one database for everything: what linked devices need, messages and their fates, the event
//! log, webhooks.
//!
//! All SQL is in this folder. Above it nobody knows which database this is.

pub mod cells;
pub mod data_dir;
pub mod devices;
pub mod events;
pub mod figures;
pub mod files;
pub mod kept;
pub mod mark;
pub mod messages;
pub mod news;
pub mod parts;
pub mod people;
pub mod read;
pub mod referred;
pub mod rekey;
pub mod retries;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod tx;
pub mod webhooks;
pub mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::Ordering},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    store::{
        data_dir::io_error,
        devices::read_live_store,
        files::Files,
        mark::Mark,
        news::News,
        read::Readers,
        tx::{Rules, Tx},
        writer::Writer,
    },
    util::{
        clock::Clock,
        seal::{Seal, WrongKey},
    },
};

/// Why something on disk can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error("another process uses the data directory {0}")]
    InUse(std::path::PathBuf),
    /// The sandbox has used the data directory.
    #[error(
        "the sandbox has used the data directory {0}: a device that it linked takes the simulator for WhatsApp without \
         looking at its certificate again. Use another directory"
    )]
    UsedBySandbox(std::path::PathBuf),
    /// A file or folder can't be read or written.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// Something that was written down can't be read any more.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The device's store was set aside or deleted.
    #[error("the store was set aside or deleted")]
    Gone,
    /// The database can't be read or written now.
    #[error("the database: {0}")]
    Database(Arc<rusqlite::Error>),
    /// A write that failed took those with it that shared its transaction.
    #[error("the database gave up a whole transaction; the disk may be full or damaged")]
    TransactionLost,
    /// The database was made by a newer version of this program.
    #[error("the database has schema {found}, and this program knows only up to {known}: use the newer program")]
    TooNew {
        /// The schema of the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// There was a database, and there is none.
    #[error(
        "{database} is missing or empty, and there was a database here: put it back, and {database}-wal with it. To begin \
         without it, for good, delete {mark} and {database}-wal"
    )]
    Missing {
        /// The database.
        database: PathBuf,
        /// The mark beside it.
        mark: PathBuf,
    },
    /// The database has lost what was written to it last.
    #[error(
        "{database} is older than {mark} says: it is a copy, or {database}-wal is missing, which holds what was written \
         last. Put back what belongs to it. To go on without that, for good, delete {mark}: the keys of messages may then \
         be used a second time"
    )]
    Older {
        /// The database.
        database: PathBuf,
        /// The mark beside it.
        mark: PathBuf,
    },
    /// The database is another one.
    #[error("{database} is not the database that {mark} is about: put that one back, or delete the mark")]
    Another {
        /// The database.
        database: PathBuf,
        /// The mark beside it.
        mark: PathBuf,
    },
    /// A file of the database was taken away from the process that has it open.
    #[error("{0} was deleted or replaced while the service runs")]
    FileGone(PathBuf),
    /// The database and the key don't go together.
    #[error(transparent)]
    WrongKey(#[from] WrongKey),
    /// A bug in this program; the log says where.
    #[error("something in the service failed that must not")]
    Panicked,
    /// The process is about to end.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::ToSqlConversionFailure(carried) => match carried.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Database(Arc::new(rusqlite::Error::ToSqlConversionFailure(other))),
            },
            error if is_damage(&error) => Self::Damaged(error.to_string()),
            error => Self::Database(Arc::new(error)),
        }
    }
}

/// The database: `DATA_DIR/service.db`. Whatever its methods have returned is on the disk.
pub struct Store {
    writer: Mutex<Option<Writer>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    readers: Readers,
    news: Arc<News>,
    /// Part of every event's id, so that those of another database are others.
    instance: String,
    rules: Rules,
    pub seal: Seal,
    clock: Clock,
    files: Files,
    /// The file of the database that is no longer there, once that was noticed.
    gone: OnceLock<PathBuf>,
    /// Cancelled when another process is to go on with the database.
    spent: CancellationToken,
}

impl Store {
    /// Opens or creates the database, and brings an older one up to date.
    pub fn open(path: &Path, rules: Rules, seal: Seal, clock: Clock) -> Result<Self, StoreError> {
        let connection = crate::store::schema::open(path, &seal)?;
        crate::store::rekey::discard_unfinished(path)?;
        let instance = crate::store::schema::instance(&connection)?;
        if let Some(newest) = crate::store::schema::newest(&connection)? {
            clock.compare(newest);
        }
        let mark = Mark::of(path, &connection)?;
        let files = Files::of(path).map_err(io_error("look at the files of", path))?;
        let news = Arc::new(News::default());
        let no_thread = |source: std::io::Error| StoreError::Io {
            doing: "start a thread for",
            path: path.into(),
            source: source.into(),
        };
        let thread =
            crate::store::writer::Thread::new(connection, rules, seal.clone(), clock.clone(), news.clone(), mark);
        let (writer, ended) = Writer::start(thread).map_err(no_thread)?;
        let readers = Readers::start(path).map_err(no_thread)?;
        Ok(Self {
            writer: Mutex::new(Some(writer)),
            ended: Mutex::new(Some(ended)),
            readers,
            news,
            instance,
            rules,
            seal,
            clock,
            files,
            gone: OnceLock::new(),
            spent: CancellationToken::new(),
        })
    }

    /// The clock that stamps what is written, and says what is old.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether what was written last reached the disk. After a failure this tries again first.
    pub async fn is_healthy(&self) -> bool {
        if self.gone.get().is_some() {
            return false;
        }
        let failing = self.writer.lock().as_ref().is_none_or(|writer| writer.health().failing.load(Ordering::Relaxed));
        !failing || self.write(|tx| tx.touch()).await.is_ok()
    }

    /// Notices when a file of the database was deleted or replaced. Nothing is written any more then: the next process
    /// would not see it. What was in a log that is gone is brought into the database, which another process can go on
    /// with; a database that is gone itself is left to a person, for this process still has it.
    ///
    /// # Errors
    /// What was in the log can't be saved.
    pub async fn look_at_files(&self) -> Result<(), StoreError> {
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

    /// Resolves when a file of the database is gone and nothing is lost by ending the process: only the next one can
    /// write again.
    pub async fn spent(&self) -> StoreError {
        self.spent.cancelled().await;
        StoreError::FileGone(self.gone.get().cloned().unwrap_or_default())
    }

    /// Finishes what was queued and closes the file. Later writes are refused.
    pub async fn close(&self) {
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

    pub fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
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
}

impl StoreError {
    /// Whether the disk has no room, which may pass.
    pub fn is_full(&self, folder: &Path) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::TransactionLost => true,
            Self::Database(error) => match error.sqlite_error_code() {
                Some(DiskFull) => true,
                // SQLite says no more when it can't make a file, or make one longer.
                Some(CannotOpen | SystemIoFailure) => rustix::fs::statvfs(folder)
                    .is_ok_and(|disk| disk.f_bavail * disk.f_frsize < LITTLE || disk.f_favail == 0),
                _ => false,
            },
            _ => false,
        }
    }
}

/// A disk with less room than this is full, in bytes: opening a database takes some.
const LITTLE: u64 = 1024 * 1024;

/// Whether the file holds something else than what was written.
fn is_damage(error: &rusqlite::Error) -> bool {
    is_corruption(error)
        || matches!(
            error,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
        )
}

/// Whether pages of the file are damaged, and not only what stands on them.
fn is_corruption(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}
