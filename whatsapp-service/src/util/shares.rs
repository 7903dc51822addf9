//! How much of something is taken, by all tenants together and by each: no tenant takes all of it.

use std::collections::HashMap;

use crate::model::tenant::TenantId;

/// So many bytes for all, and so many of them for each tenant.
pub struct Shares {
    all: u64,
    each: u64,
    used: u64,
    tenants: HashMap<TenantId, u64>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The tenant has too much itself.
    Own,
    /// All have too much together.
    All,
}

impl Shares {
    /// So many bytes, and so many for each tenant.
    pub fn new(all: u64, each: u64) -> Self {
        Self { all, each, used: 0, tenants: HashMap::new() }
    }

    /// Whether a tenant may take so many bytes more.
    pub fn fit(&self, tenant: &TenantId, bytes: u64) -> Result<(), Full> {
        if self.of(tenant).saturating_add(bytes) > self.each {
            return Err(Full::Own);
        }
        if self.used.saturating_add(bytes) > self.all {
            return Err(Full::All);
        }
        Ok(())
    }

    /// Counts bytes, also if they don't fit. What is nobody's counts for all only.
    pub fn add(&mut self, owner: Option<&TenantId>, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        if let Some(owner) = owner {
            let own = self.tenants.entry(owner.clone()).or_default();
            *own = own.saturating_add(bytes);
        }
    }

    /// Takes off what was counted.
    pub fn remove(&mut self, owner: Option<&TenantId>, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        if let Some(owner) = owner
            && let Some(own) = self.tenants.get_mut(owner)
        {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.tenants.remove(owner);
            }
        }
    }

    fn of(&self, tenant: &TenantId) -> u64 {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// How much is taken by all, and by this tenant.
    #[cfg(test)]
    pub fn used(&self, tenant: &TenantId) -> (u64, u64) {
        (self.used, self.of(tenant))
    }

    /// How many tenants have taken some.
    #[cfg(test)]
    pub fn owners(&self) -> usize {
        self.tenants.len()
    }
}
