//! What can go wrong with what is kept.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::util::seal::WrongKey;

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
    #[error("the database: {cause}")]
    Database {
        /// What it says.
        cause: Arc<dyn std::error::Error + Send + Sync>,
        /// Whether its disk has no room.
        disk: Disk,
    },
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
    /// The lease of a write is no longer in force: nothing of it was written.
    #[error("the tenant's lease is no longer in force")]
    Fenced,
    /// A bug in this program; the log says where.
    #[error("something in the service failed that must not")]
    Panicked,
    /// The process is about to end.
    #[error("the database is closed")]
    Closed,
}

/// What an error of the database says about its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing.
    Unknown,
    /// It has no room.
    Full,
    /// It may have no room: the disk itself has to be asked.
    Suspect,
}

/// A disk with less room than this is full, in bytes: opening a database takes some.
const LITTLE: u64 = 1024 * 1024;

impl StoreError {
    /// Whether the disk has no room, which may pass.
    pub fn is_full(&self, folder: &Path) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::TransactionLost | Self::Database { disk: Disk::Full, .. } => true,
            Self::Database { disk: Disk::Suspect, .. } => rustix::fs::statvfs(folder)
                .is_ok_and(|disk| disk.f_bavail * disk.f_frsize < LITTLE || disk.f_favail == 0),
            _ => false,
        }
    }
}
