//! What is kept on disk: what linked devices need, messages and their statuses, the event log, webhooks.
//!
//! [`Store`] is the boundary: above it nobody knows which database this is. It is the sum of small traits, each beside
//! the types that its methods take and give. `sqlite/` is the engine; all SQL is there.

pub mod changes;
pub mod data_dir;
pub mod devices;
pub mod error;
pub mod events;
pub mod figures;
pub mod kept;
pub mod key_value;
pub mod lease;
pub mod messages;
pub mod outbox;
pub mod parts;
pub mod people;
pub mod referred;
pub mod retries;
pub mod rules;
pub mod sqlite;
pub mod timers;
pub mod webhooks;

use async_trait::async_trait;

use crate::{
    store::{
        changes::Changes, devices::Devices, error::StoreError, events::Events, figures::Figured, kept::MessageKeys,
        lease::Leases, messages::Messages, outbox::Outbox, people::People, referred::References, retries::Retries,
        timers::Timers, webhooks::Webhooks,
    },
    util::clock::Clock,
};

/// The database. What a method that writes has returned is durable. A method does nothing before it is awaited, and what
/// it has begun to write may be written also if nobody waits for it any longer. A write is made whole or not at all.
#[async_trait]
pub trait Store:
    Changes
    + Devices
    + Events
    + Figured
    + Leases
    + MessageKeys
    + Messages
    + Outbox
    + People
    + References
    + Retries
    + Timers
    + Webhooks
{
    /// The clock that stamps what is written, and says what is old.
    fn clock(&self) -> &Clock;

    /// Whether what was written last is durable. After a failure this tries again first.
    async fn is_healthy(&self) -> bool;

    /// Looks whether the database is still the one that was opened. Once it is not, nothing is written any more.
    ///
    /// # Errors
    /// What was not yet in the database can't be saved.
    async fn inspect(&self) -> Result<(), StoreError>;

    /// Resolves when nothing can be written any more until the process starts anew, and nothing is lost by that.
    async fn spent(&self) -> StoreError;

    /// Finishes what was queued and closes the database. Later writes are refused.
    async fn close(&self);
}
