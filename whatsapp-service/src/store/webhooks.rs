//! Where a tenant's events are sent, and how far that has come.

use chrono::{DateTime, Utc};

use async_trait::async_trait;

use crate::{
    model::{
        event::{Event, EventKind},
        tenant::TenantId,
    },
    store::{error::StoreError, lease::Lease},
};

/// A webhook.
#[derive(Clone)]
pub struct Webhook {
    /// Where events are posted to.
    pub url: String,
    /// What they are signed with, as `whsec_…`.
    pub secret: String,
    /// Which events; all without it.
    pub events: Option<Vec<EventKind>>,
}

/// How the deliveries to a tenant's webhook go.
#[derive(Clone, Debug, Default)]
pub struct DeliveryState {
    /// Attempts that failed in a row.
    pub failures: u32,
    /// Not before this time.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The receiver wants no more.
    pub stopped: bool,
    /// When somebody started again what was given up.
    pub restarted_at: Option<DateTime<Utc>>,
}

/// What is to be delivered next.
pub struct Delivery {
    /// The tenant's own webhook; without it, the one for all tenants.
    pub webhook: Option<Webhook>,
    /// How it went so far.
    pub state: DeliveryState,
    /// The next events, in order.
    pub events: Vec<Event>,
}

/// What there is to say of a tenant's webhook.
pub struct WebhookSummary {
    /// The tenant's own webhook; without it, the one for all tenants.
    pub webhook: Option<Webhook>,
    /// How it goes.
    pub state: DeliveryState,
    /// Events that wait for it.
    pub pending: u64,
    /// Events that were given up.
    pub dead: u64,
}

/// Where events are sent, and how far that has come.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Sets the tenant's own webhook. What waits goes to it, and what stopped the one before is forgotten.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn put_webhook(&self, lease: &Lease, webhook: Webhook) -> Result<(), StoreError>;

    /// Removes the tenant's own webhook, and says whether there was one. What waits goes to the one for all tenants, or
    /// to nobody.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn delete_webhook(&self, lease: &Lease) -> Result<bool, StoreError>;

    /// Nobody gets any more what waits or was given up, unless there is a webhook for it by now.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn forget_deliveries(&self, lease: &Lease) -> Result<(), StoreError>;

    /// What there is to say of the tenant's webhook.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn webhook(&self, tenant: &TenantId) -> Result<WebhookSummary, StoreError>;

    /// What is to be delivered next: some events of not too many bytes, but one however large it is. `None` if nothing
    /// waits.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn next_delivery(&self, tenant: &TenantId) -> Result<Option<Delivery>, StoreError>;

    /// Everybody who has something waiting for a webhook.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn tenants_with_deliveries(&self) -> Result<Vec<TenantId>, StoreError>;

    /// The receiver took these events.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn delivered(&self, lease: &Lease, sequences: Vec<i64>) -> Result<(), StoreError>;

    /// The receiver did not take an event; it is tried again at `next_attempt_at`. Nothing is noted if the tenant has
    /// another webhook by now; says whether that is so.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn delivery_failed(
        &self,
        lease: &Lease,
        of: Option<Webhook>,
        error: String,
        next_attempt_at: DateTime<Utc>,
    ) -> Result<bool, StoreError>;

    /// What is older than this is given up.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn give_up_deliveries(&self, lease: &Lease, before: DateTime<Utc>) -> Result<usize, StoreError>;

    /// The receiver wants no more: what waits is given up, and so is what comes, until somebody starts it again. Says
    /// whether it was still the tenant's webhook.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn delivery_stopped(&self, lease: &Lease, of: Option<Webhook>, error: String) -> Result<bool, StoreError>;

    /// Starts again what was given up, and says how much that is.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn retry_deliveries(&self, lease: &Lease) -> Result<usize, StoreError>;
}
