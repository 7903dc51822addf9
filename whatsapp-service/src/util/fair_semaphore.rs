//! Who may do something now that only so many may do at the same time: no tenant takes all the places.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::tenant::TenantId;

/// So many places for all, and so many of them for each tenant.
pub struct FairSemaphore {
    all: Arc<Semaphore>,
    each: usize,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// A place. It is free again when this goes.
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _one: Option<OwnedSemaphorePermit>,
}

impl FairSemaphore {
    /// So many places, and so many for each tenant.
    pub fn new(all: usize, each: usize) -> Self {
        Self { all: Semaphore::new(all).into(), each, tenants: Mutex::default() }
    }

    /// Waits for a place. The tenant's own come first, so that its waiting takes nobody else's.
    pub async fn take(&self, tenant: &TenantId) -> Permit {
        let own = self.own(tenant).acquire_owned().await;
        let one = self.all.clone().acquire_owned().await;
        // They are never closed.
        Permit { _own: own.ok(), _one: one.ok() }
    }

    fn own(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = tenants.get(tenant).and_then(Weak::upgrade) {
            return own;
        }
        tenants.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.each));
        tenants.insert(tenant.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_tenant_takes_all_places() {
        let turns = FairSemaphore::new(3, 2);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let first = turns.take(&acme).await;
        let _second = turns.take(&acme).await;
        assert!(turns.take(&acme).now_or_never().is_none(), "it has both of its places");
        let _third = turns.take(&other).await;
        assert!(turns.take(&other).now_or_never().is_none(), "all places are taken");
        drop(first);
        assert!(turns.take(&other).now_or_never().is_some());
    }
}
