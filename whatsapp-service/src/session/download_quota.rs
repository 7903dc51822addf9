//! Room on the disk for files that are fetched. It is counted before the first byte comes, and until the last reader has
//! gone: what the database needs is not left to chance.

use std::sync::{Arc, Mutex};

use crate::{
    model::tenant::TenantId,
    util::{
        shares::{Full, Shares},
        sync::lock,
    },
};

/// So much room for all, and so much of it for each tenant.
pub struct Space {
    taken: Mutex<Shares>,
}

/// Room that is taken. It is free again when this goes.
pub struct Room {
    space: Arc<Space>,
    tenant: TenantId,
    bytes: u64,
}

impl Space {
    /// So many bytes, and so many for each tenant.
    pub fn new(all: u64, each: u64) -> Arc<Self> {
        Self { taken: Shares::new(all, each).into() }.into()
    }

    /// Takes room for so many bytes, if there is any now.
    pub fn take(self: &Arc<Self>, tenant: &TenantId, bytes: u64) -> Result<Room, Full> {
        let mut taken = lock(&self.taken);
        taken.fit(tenant, bytes)?;
        taken.add(Some(tenant), bytes);
        Ok(Room { space: self.clone(), tenant: tenant.clone(), bytes })
    }

    fn give_back(&self, tenant: &TenantId, bytes: u64) {
        lock(&self.taken).remove(Some(tenant), bytes);
    }
}

impl Room {
    /// Keeps no more than so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        self.space.give_back(&self.tenant, self.bytes.saturating_sub(bytes));
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.space.give_back(&self.tenant, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_takes_all_the_room_and_what_goes_is_free_again() {
        let space = Space::new(100, 60);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let mut first = space.take(&acme, 40).unwrap();
        assert_eq!(space.take(&acme, 21).err(), Some(Full::Own));
        assert_eq!(space.take(&acme, u64::MAX).err(), Some(Full::Own));
        let second = space.take(&acme, 20).unwrap();
        assert_eq!(space.take(&other, 41).err(), Some(Full::All));
        let _third = space.take(&other, 40).unwrap();
        // It turned out to be shorter.
        first.shrink(10);
        first.shrink(30);
        let fourth = space.take(&acme, 30).unwrap();
        assert_eq!(space.take(&other, 1).err(), Some(Full::All));
        drop((first, second, fourth));
        assert_eq!(lock(&space.taken).owners(), 1, "who has nothing is forgotten");
        assert!(space.take(&acme, 60).is_ok());
    }
}
