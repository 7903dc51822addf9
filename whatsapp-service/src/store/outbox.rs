//! Messages that are to be sent, and what became of them.

use chrono::{DateTime, Utc};

use async_trait::async_trait;

use crate::{
    model::{
        address::Names,
        message::{Accepted, Author, Claimed, Draft, Failure, Idempotency, Message, MessageStatus, Pending},
        tenant::TenantId,
    },
    store::{error::StoreError, lease::Lease},
};

/// Messages that are to be sent, and what becomes of them.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Writes messages down, all in one commit, but no more than there is `room` for. What comes back is in the same
    /// order.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn accept(&self, tenant: &TenantId, drafts: Vec<Draft>, room: usize) -> Result<Vec<Accepted>, StoreError>;

    /// What became of earlier calls with these keys, where there were any.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn known(
        &self,
        tenant: &TenantId,
        calls: Vec<Option<Idempotency>>,
    ) -> Result<Vec<Option<Accepted>>, StoreError>;

    /// The message, to be sent now, if that is still to be done. From now on it counts as one that may have left, unless
    /// it has media, which is brought to WhatsApp first: then it does so from [`Outbox::departs`] on.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn claim(&self, lease: &Lease, row: i64) -> Result<Claimed<Box<Message>>, StoreError>;

    /// A message whose media is where it has to be leaves now: says whether that is still to be done.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn departs(&self, lease: &Lease, row: i64) -> Result<Claimed<()>, StoreError>;

    /// An attempt came to nothing that anybody could see. `left` says whether the message may be out. Says whether
    /// something is still to be done for it.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn put_back(&self, lease: &Lease, row: i64, left: bool) -> Result<bool, StoreError>;

    /// The server acknowledged the message; `at` by its own clock. Says whether something was still to be done for it.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn sent(&self, lease: &Lease, id: &str, at: DateTime<Utc>) -> Result<bool, StoreError>;

    /// WhatsApp knows the recipient of a message by these names. It is queued to be written at once, also if nobody waits
    /// for the future.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn names(&self, lease: &Lease, id: &str, names: Names) -> Result<(), StoreError>;

    /// `author` has the messages, or has read them: those that were sent to them. Says for which recipients something was
    /// still to be done.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn receipt(
        &self,
        lease: &Lease,
        author: Author,
        ids: Vec<String>,
        status: MessageStatus,
    ) -> Result<Vec<String>, StoreError>;

    /// The message is not sent, for this reason, and not tried again.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn failed(&self, lease: &Lease, id: &str, failure: Failure) -> Result<(), StoreError>;

    /// Nothing more is done for a message. It has failed, if it can't have left; otherwise its outcome stays unknown.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn give_up(&self, lease: &Lease, row: i64, failure: Failure) -> Result<(), StoreError>;

    /// The same for all that is pending of a tenant, some at a time.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn give_up_all(&self, lease: &Lease, failure: Failure) -> Result<(), StoreError>;

    /// Cancels a message that has not been tried yet; `None` if there is no such message, and the message as it is, if
    /// it can't be cancelled any more.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn cancel(&self, lease: &Lease, id: &str) -> Result<Option<Result<Message, Message>>, StoreError>;

    /// Gives up what has passed its deadline, some at a time, and says whose they were: nothing while the clock is not
    /// steady. What is on its way for the first time is left to its attempt.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn expire(&self) -> Result<Vec<Pending>, StoreError>;

    /// What earlier owners of these tenants left to be done, in the order of acceptance. What may have left when the last
    /// one ended becomes unknown. To be called once, when the leases are new.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn recover(&self, leases: &[Lease]) -> Result<Vec<Pending>, StoreError>;

    /// Everybody who has messages that wait.
    ///
    /// # Errors
    /// The database can't be read.
    async fn tenants_with_messages(&self) -> Result<Vec<TenantId>, StoreError>;
}
