//! SQLite's errors as those of the store.

use std::sync::Arc;

use crate::store::error::{Disk, StoreError};

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::ToSqlConversionFailure(carried) => match carried.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => database(rusqlite::Error::ToSqlConversionFailure(other)),
            },
            error if is_damage(&error) => Self::Damaged(error.to_string()),
            error => database(error),
        }
    }
}

/// Lets an error of our own pass through a job.
impl From<StoreError> for rusqlite::Error {
    fn from(error: StoreError) -> Self {
        Self::ToSqlConversionFailure(Box::new(error))
    }
}

fn database(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let disk = match error.sqlite_error_code() {
        Some(DiskFull) => Disk::Full,
        // SQLite says no more when it can't make a file, or make one longer.
        Some(CannotOpen | SystemIoFailure) => Disk::Suspect,
        _ => Disk::Unknown,
    };
    StoreError::Database { cause: Arc::new(error), disk }
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
pub fn is_corruption(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}
