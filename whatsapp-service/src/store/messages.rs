//! A tenant's messages, as they are looked at and forgotten.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use async_trait::async_trait;

use crate::{
    model::{
        message::{Filter, Message},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        parts::{Part, Position, Room, WriteRow},
    },
};

/// A tenant's messages, as they are looked at and forgotten.
#[async_trait]
pub trait Messages: Send + Sync {
    /// A tenant's message.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn message(&self, tenant: &TenantId, id: &str) -> Result<Option<Message>, StoreError>;

    /// The next part of a tenant's messages, the newest first, written by `write`.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn messages(
        &self,
        tenant: &TenantId,
        filter: Filter,
        from: Position,
        room: Room,
        write: WriteRow<Message>,
    ) -> Result<Part, StoreError>;

    /// Which of these files of media are still needed.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn needed_media(&self, files: Vec<String>) -> Result<HashSet<String>, StoreError>;

    /// What a clock that was far ahead has stamped counts as of now: nobody would ever forget it, nor give it up.
    ///
    /// What is kept for a device is kept for so long at most.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn correct_times(&self, longest: TimeDelta) -> Result<(), StoreError>;

    /// Forgets, at most a few hundred rows at a time, what is settled and older than this, and which keys were used
    /// before `keys_before`. Says whether there may be more.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn forget_messages(&self, before: DateTime<Utc>, keys_before: DateTime<Utc>) -> Result<bool, StoreError>;
}
