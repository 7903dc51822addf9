//! Who may do something now that only so many may do at the same time: no owner takes all the places.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places for all, and so many of them for each owner.
pub struct FairSemaphore<O> {
    all: Arc<Semaphore>,
    each: usize,
    owners: Mutex<HashMap<O, Weak<Semaphore>>>,
}

/// A place. It is free again when this goes.
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _one: Option<OwnedSemaphorePermit>,
}

impl<O: Clone + Eq + Hash> FairSemaphore<O> {
    /// So many places, and so many for each owner.
    pub fn new(all: usize, each: usize) -> Self {
        Self { all: Semaphore::new(all).into(), each, owners: Mutex::default() }
    }

    /// Waits for a place. The owner's own come first, so that its waiting takes nobody else's.
    pub async fn take(&self, owner: &O) -> Permit {
        let own = self.own(owner).acquire_owned().await;
        let one = self.all.clone().acquire_owned().await;
        // They are never closed.
        Permit { _own: own.ok(), _one: one.ok() }
    }

    fn own(&self, owner: &O) -> Arc<Semaphore> {
        let mut owners = self.owners.lock();
        if let Some(own) = owners.get(owner).and_then(Weak::upgrade) {
            return own;
        }
        owners.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.each));
        owners.insert(owner.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_owner_takes_all_places() {
        let turns = FairSemaphore::new(3, 2);
        let (acme, other) = ("acme", "other");
        let first = turns.take(&acme).await;
        let _second = turns.take(&acme).await;
        assert!(turns.take(&acme).now_or_never().is_none(), "it has both of its places");
        let _third = turns.take(&other).await;
        assert!(turns.take(&other).now_or_never().is_none(), "all places are taken");
        drop(first);
        assert!(turns.take(&other).now_or_never().is_some());
    }
}
