//! The devices that tenants have linked: which there are, what is known of their sessions, and where their keys are.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use async_trait::async_trait;
use std::sync::Arc;

use crate::{
    model::{session_state::State, tenant::TenantId},
    net::proxy::Proxy,
    store::{error::StoreError, key_value::KeyValue, lease::Lease},
};

/// What is known of a tenant's session from one process to the next, beside its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whether it is linked.
    pub paired: bool,
    /// The account's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Why it must not dial, if WhatsApp said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<LoginHold>,
    /// When another connection last took the session's place and that was not believed, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<i64>,
    /// Whether the session is being deleted: that goes on until it is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// The way to WhatsApp that its owner has chosen. It holds a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// What WhatsApp said of an account that a new process has to respect too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginHold {
    /// Banned, locked or replaced.
    pub state: State,
    /// The reason's identifier.
    pub reason: String,
    /// The reason for a person.
    pub message: String,
    /// When that was, in milliseconds since 1970. The first version did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Until when, in milliseconds since 1970; without it, until a person decides.
    pub until: Option<i64>,
    /// What a locked account's owner needs for an appeal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal_token: Option<String>,
}

impl LoginHold {
    /// Whether it still forbids dialling.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now.timestamp_millis() < until)
    }

    /// How long it goes on, if it ends by itself. Never longer than it was to last when it began: a clock that is set
    /// back must not make a ban out of an hour that lasts a day.
    pub fn remaining(&self, now: DateTime<Utc>) -> Option<Duration> {
        let until = self.until?;
        let longest = self.since.map_or(i64::MAX, |since| until.saturating_sub(since));
        let left = until.saturating_sub(now.timestamp_millis()).min(longest);
        Some(Duration::from_millis(left.max(0).unsigned_abs()))
    }
}

/// A change of what is known of a tenant's session.
#[derive(Clone, Debug)]
pub enum RecordChange {
    /// It is linked, to the account with this number if that is known.
    Linked(Option<String>),
    /// Why it must not dial, if it must not.
    Hold(Option<LoginHold>),
    /// When another connection last took its place and that was not believed, in milliseconds since 1970.
    ReplacedAt(Option<i64>),
    /// It is being deleted.
    Deleting,
    /// The way to WhatsApp that its owner has chosen.
    Proxy(Option<Proxy>),
}

impl Record {
    /// What is known after this change.
    #[must_use]
    pub fn with(self, change: RecordChange) -> Self {
        match change {
            RecordChange::Linked(phone) => Self { paired: true, phone, ..self },
            RecordChange::Hold(hold) => Self { hold, ..self },
            RecordChange::ReplacedAt(replaced_at) => Self { replaced_at, ..self },
            RecordChange::Deleting => Self { deleting: true, ..self },
            RecordChange::Proxy(proxy) => Self { proxy, ..self },
        }
    }
}

/// A tenant whose device was linked, and what was written down of its session, if that can be read.
pub type Linked = (TenantId, Result<Record, StoreError>);

/// The devices that tenants have linked.
#[async_trait]
pub trait Devices: Send + Sync {
    /// All tenants that are linked.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn linked(&self) -> Result<Vec<Linked>, StoreError>;

    /// What was last written down of a tenant's session. What can't be read is not taken for nothing.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn recorded(&self, tenant: &TenantId) -> Result<Record, StoreError>;

    /// Changes what is known of a tenant's session; of a tenant without a store that is nothing yet.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn change_record(&self, lease: &Lease, changes: Vec<RecordChange>) -> Result<(), StoreError>;

    /// What is known of a tenant's session, and the values of its device. A tenant without a device gets one.
    ///
    /// # Errors
    /// The database can't be read or written, or the lease is no longer in force.
    async fn device(self: Arc<Self>, lease: &Lease) -> Result<(Record, Arc<dyn KeyValue>), StoreError>;

    /// Puts a tenant's store aside: the next one begins anew. Nothing is destroyed: a person may still need what is in
    /// it.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn quarantine(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The same, and the next one begins with the tenant's way to WhatsApp.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn start_over(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Deletes a tenant's store, but for what was put aside before. Only for a person who asked for it.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn delete_device(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Forgets what devices keep only for a time: at most a few hundred values, of all tenants. Says whether there may
    /// be more.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn forget_expired(&self, now: DateTime<Utc>) -> Result<bool, StoreError>;
}
