//! Who may write on behalf of a tenant.

use async_trait::async_trait;

use crate::{model::tenant::TenantId, store::error::StoreError};

/// The proof that a node owns a tenant. Every write on behalf of the tenant takes it, and writes nothing once the tenant
/// has another owner. Only a store makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    tenant: TenantId,
    node: String,
    epoch: i64,
}

impl Lease {
    /// The lease that a store has given out.
    pub(in crate::store) fn new(tenant: TenantId, node: String, epoch: i64) -> Self {
        Self { tenant, node, epoch }
    }

    /// Whose writes it allows.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Who owns the tenant.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// How often the tenant changed hands: it only grows.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// Who gives leases.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Makes this node the owner of a tenant. One that owns it already gets the same lease.
    ///
    /// # Errors
    /// The database can't be read or written, or another node owns the tenant.
    async fn lease(&self, tenant: &TenantId) -> Result<Lease, StoreError>;
}
