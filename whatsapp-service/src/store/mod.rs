//! What is kept on disk: the sessions' folders ([`data_dir`]), and one database for everything else: messages and their
//! fates, the event log, webhooks.
//!
//! All SQL is in this folder. Above it nobody knows which database this is.

mod data_dir;
mod events;
mod figures;
mod messages;
mod news;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod tx;
mod webhooks;
mod writer;

use std::{path::Path, sync::Mutex, sync::atomic::Ordering};

use tokio::sync::oneshot;

pub use self::tx::Rules;
pub use self::{
    data_dir::{DataDir, Hold, Record, TenantDir, Tenants},
    events::{Event, EventKind, Received},
    figures::Figures,
    messages::{Accepted, Content, Draft, Failure, Filter, Idempotency, Message, MessageStatus, Pending},
    news::{Waiting, Watch},
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
        source: std::sync::Arc<std::io::Error>,
    },
    /// The tenant's store is not what it was when it was linked.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The database can't be read or written now.
    #[error("the database: {0}")]
    Database(std::sync::Arc<rusqlite::Error>),
    /// A write that failed took those with it that shared its transaction.
    #[error("the database gave up a whole transaction; the disk may be full")]
    TransactionLost,
    /// The database was made by a newer version of this program.
    #[error("the database has schema {found}, and this program knows only up to {known}: use the newer program")]
    TooNew {
        /// The schema of the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The process is about to end.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The database: `DATA_DIR/service.db`. Whatever its methods have returned is on the disk.
pub struct Store {
    writer: Mutex<Option<Writer>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    readers: Readers,
    news: std::sync::Arc<News>,
    /// Part of every event's id, so that those of another database are others.
    instance: String,
    rules: Rules,
}

impl Store {
    /// Opens or creates the database, and brings an older one up to date.
    pub fn open(path: &Path, rules: Rules) -> Result<Self, StoreError> {
        let connection = schema::open(path)?;
        let instance = schema::instance(&connection)?;
        let news = std::sync::Arc::new(News::default());
        let (writer, ended) = Writer::start(connection, rules, news.clone()).map_err(|source| StoreError::Io {
            doing: "start a thread for",
            path: path.into(),
            source: source.into(),
        })?;
        let readers = Readers::new(path);
        let (writer, ended) = (Mutex::new(Some(writer)), Mutex::new(Some(ended)));
        Ok(Self { writer, ended, readers, news, instance, rules })
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
        self.readers.close();
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
