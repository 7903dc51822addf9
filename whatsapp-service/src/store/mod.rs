//! What is kept on disk: one database for everything: what linked devices need, messages and their fates, the event
//! log, webhooks.
//!
//! All SQL is in this folder. Above it nobody knows which database this is.

mod backend;
mod cells;
mod content;
mod data_dir;
mod devices;
mod events;
mod figures;
mod kept;
mod legacy;
mod messages;
mod news;
mod people;
mod read;
mod referred;
mod rekey;
mod schema;
mod seal;
#[cfg(test)]
mod tests;
mod tx;
mod webhooks;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
};

use tokio::sync::oneshot;

pub use self::tx::Rules;
pub use self::{
    backend::Owner,
    content::{Contact, Content, ContentKind, Edit, Location, Media, Reaction, Revoke},
    data_dir::{DataDir, create_private_dir, io_error},
    devices::{Hold, Linked, Record},
    events::{Event, EventKind, Received},
    figures::Figures,
    kept::{Kept, KeptFor, MediaSource, PollKey},
    legacy::DamagedFolder,
    messages::{Accepted, Draft, Failure, Filter, Idempotency, Message, MessageStatus, Pending},
    news::{Waiting, Watch},
    referred::{Logged, Referred},
    rekey::rekey,
    seal::{InvalidKey, Seal, WrongKey},
    webhooks::{Delivery, DeliveryState, Webhook, WebhookSummary},
};
use self::{news::News, read::Readers, tx::Tx, writer::Writer};

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
    seal: Seal,
    /// Where an earlier version had a folder for each tenant.
    folders: PathBuf,
}

impl Store {
    /// Opens or creates the database, and brings an older one up to date.
    pub fn open(path: &Path, rules: Rules, seal: Seal) -> Result<Self, StoreError> {
        let connection = schema::open(path, &seal)?;
        rekey::discard_unfinished(path)?;
        let instance = schema::instance(&connection)?;
        let news = Arc::new(News::default());
        let no_thread = |source: std::io::Error| StoreError::Io {
            doing: "start a thread for",
            path: path.into(),
            source: source.into(),
        };
        let (writer, ended) = Writer::start(connection, rules, seal.clone(), news.clone()).map_err(no_thread)?;
        let readers = Readers::start(path).map_err(no_thread)?;
        let (writer, ended) = (Mutex::new(Some(writer)), Mutex::new(Some(ended)));
        Ok(Self { writer, ended, readers, news, instance, rules, seal, folders: path.with_file_name("tenants") })
    }

    /// Whether what was written last reached the disk. After a failure this tries again first.
    pub async fn is_healthy(&self) -> bool {
        let failing = lock(&self.writer).as_ref().is_none_or(|writer| writer.health().failing.load(Ordering::Relaxed));
        !failing || self.write(|tx| tx.touch()).await.is_ok()
    }

    /// Finishes what was queued and closes the file. Later writes are refused.
    pub async fn close(&self) {
        let (writer, ended) = (lock(&self.writer).take(), lock(&self.ended).take());
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

    fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let queued = lock(&self.writer).as_ref().map(|writer| writer.write(work));
        async move {
            match queued {
                Some(written) => written.await,
                None => Err(StoreError::Closed),
            }
        }
    }
}

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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
