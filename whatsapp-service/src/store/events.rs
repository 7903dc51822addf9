//! The event log: what happened to a tenant, numbered without gaps.

use chrono::{DateTime, Utc};

use async_trait::async_trait;

use crate::{
    model::{
        event::{Event, EventKind},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        kept::Kept,
        lease::Lease,
        parts::{Part, Position, Room, WriteRow},
        timers::ChatTimer,
    },
};

/// An incoming message, for the log.
#[derive(Clone, Default)]
pub struct Received {
    /// Who wrote it where, and its id there: what makes it this message.
    pub identity: [String; 3],
    /// What is told of it, if anything is.
    pub data: Option<serde_json::Value>,
    /// Whether the account wrote it itself. One that was sent from here is not told as one that came in.
    pub own: bool,
    /// What is kept of it beside that, and until when.
    pub kept: Option<(Kept, DateTime<Utc>)>,
    /// How long the messages of its chat stay, if it says so.
    pub timer: Option<ChatTimer>,
}

/// The event log, and what is told once.
#[async_trait]
pub trait Events: Send + Sync {
    /// Puts incoming messages into the log, all in one commit, each once: WhatsApp may hand one over again.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn received(&self, lease: &Lease, messages: Vec<Received>) -> Result<(), StoreError>;

    /// Puts something into the log that is told once, however often WhatsApp says it. A message that can't be read yet is
    /// told again when it can.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn told_once(
        &self,
        lease: &Lease,
        identity: [String; 3],
        kind: EventKind,
        data: serde_json::Value,
    ) -> Result<(), StoreError>;

    /// Whether a message that was handed over again is not in the log. It counts as asked for, and after a few times it is
    /// given up.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn is_lost(&self, lease: &Lease, identity: [String; 3]) -> Result<bool, StoreError>;

    /// Puts a session's new state into the log, after what was written before this call.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn session_state(&self, lease: &Lease, data: serde_json::Value) -> Result<(), StoreError>;

    /// The next part of a tenant's log, in order, written by `write`.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn events(
        &self,
        tenant: &TenantId,
        from: Position,
        room: Room,
        write: WriteRow<Event>,
    ) -> Result<Part, StoreError>;

    /// The number of the tenant's newest event; 0 without any.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn last_sequence(&self, tenant: &TenantId) -> Result<i64, StoreError>;

    /// Forgets, at most a few hundred rows at a time, what is older than this and not waiting for a webhook. Says
    /// whether there may be more.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn forget_events(&self, before: DateTime<Utc>) -> Result<bool, StoreError>;
}
