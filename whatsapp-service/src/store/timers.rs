//! How long the messages of a tenant's chats stay, where WhatsApp shows them for a time only (disappearing messages).
//!
//! It is kept for a linked device, and goes with it.

use serde::{Deserialize, Serialize};

use crate::{model::tenant::TenantId, store::error::StoreError};
use async_trait::async_trait;

/// How long the messages of a chat stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// In seconds; 0: for ever.
    pub seconds: u32,
    /// When that was decided, in seconds since 1970; 0: nobody said.
    pub set_at: i64,
}

/// The same of one chat, under all names that it goes by.
#[derive(Clone, Debug)]
pub struct ChatTimer {
    /// WhatsApp's addresses of the chat.
    pub chats: Vec<String>,
    /// How long its messages stay.
    pub timer: Timer,
}

/// How long the messages of chats stay.
#[async_trait]
pub trait Timers: Send + Sync {
    /// How long the messages of a chat stay, by the first of these names that is known.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn timer(&self, tenant: &TenantId, chats: Vec<String>) -> Result<Option<Timer>, StoreError>;

    /// Whether any of a tenant's chats has a timer, or had one.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn has_timers(&self, tenant: &TenantId) -> Result<bool, StoreError>;
}
