//! Which number goes with which LID, as the library has learned it.

use crate::{
    model::{
        address::{Names, Person},
        tenant::TenantId,
    },
    store::error::StoreError,
};
use async_trait::async_trait;

/// Which number goes with which LID.
#[async_trait]
pub trait People: Send + Sync {
    /// A person's names, as the tenant's device knows them.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn names_of(&self, tenant: &TenantId, person: &Person) -> Result<Names, StoreError>;

    /// The first of these that is the LID of somebody whom the tenant's device knows: by a number that goes with it, or by
    /// keys.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn known_lid(&self, tenant: &TenantId, lids: Vec<String>) -> Result<Option<usize>, StoreError>;
}
