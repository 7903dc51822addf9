//! How much waits, over all tenants.

use chrono::{DateTime, Utc};

use crate::store::error::StoreError;
use async_trait::async_trait;

/// How much waits.
pub struct Figures {
    /// Messages that wait to be sent, or for their acknowledgement.
    pub outbox: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<DateTime<Utc>>,
    /// Events that wait for a webhook.
    pub events_due: u64,
    /// Events that were given up, as long as they are kept.
    pub events_dead: u64,
}

/// How much waits.
#[async_trait]
pub trait Figured: Send + Sync {
    /// Counts what waits. It reads indexes only, which takes milliseconds for each hundred thousand rows.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn figures(&self) -> Result<Figures, StoreError>;
}
