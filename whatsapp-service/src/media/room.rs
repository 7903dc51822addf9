//! How much of the room on the disk is taken, by which file, and whose that is. No tenant takes all of it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    media::NotTaken,
    model::tenant::TenantId,
    util::shares::{Full, Shares},
};

/// The files that are there.
pub struct Room {
    counted: Mutex<Counted>,
}

/// What is counted for a file is what is taken off when it goes: the sums can't drift.
struct Counted {
    files: HashMap<String, (Option<TenantId>, u64)>,
    shares: Shares,
}

impl Room {
    /// So many bytes, and so many for each tenant.
    pub fn new(all: u64, each: u64) -> Self {
        Self { counted: Counted { files: HashMap::new(), shares: Shares::new(all, each) }.into() }
    }

    /// So many bytes more are about to be written to this file of the tenant's.
    pub fn grow(&self, file: &str, tenant: &TenantId, by: u64) -> Result<(), NotTaken> {
        let mut counted = self.lock();
        counted.shares.fit(tenant, by).map_err(|full| match full {
            Full::Own => NotTaken::ShareFull,
            Full::All => NotTaken::RoomFull,
        })?;
        let before = counted.files.get(file).map_or(0, |(_, bytes)| *bytes);
        counted.set(file, Some(tenant), before.saturating_add(by));
        Ok(())
    }

    /// This file is so long, whatever was counted for it before. Of one that an earlier process wrote, it is not known yet
    /// whose it is.
    pub fn set(&self, file: &str, owner: Option<&TenantId>, bytes: u64) {
        self.lock().set(file, owner, bytes);
    }

    /// Says whose a file is, if it is there.
    pub fn own(&self, file: &str, tenant: &TenantId) {
        let mut counted = self.lock();
        if let Some((_, bytes)) = counted.files.get(file).cloned() {
            counted.set(file, Some(tenant), bytes);
        }
    }

    /// The file is not there any more.
    pub fn gone(&self, file: &str) {
        self.lock().remove(file);
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is taken by all, and by this tenant.
    #[cfg(test)]
    pub fn used(&self, tenant: &str) -> (u64, u64) {
        self.lock().shares.used(&tenant.parse().unwrap())
    }
}

impl Counted {
    fn set(&mut self, file: &str, owner: Option<&TenantId>, bytes: u64) {
        self.remove(file);
        self.shares.add(owner, bytes);
        self.files.insert(file.to_owned(), (owner.cloned(), bytes));
    }

    fn remove(&mut self, file: &str) {
        if let Some((owner, bytes)) = self.files.remove(file) {
            self.shares.remove(owner.as_ref(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_takes_with_it_what_was_counted_for_it() {
        let room = Room::new(100, 60);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        room.set("old", None, 30);
        assert_eq!((room.used("acme"), room.used("other")), ((30, 0), (30, 0)), "it is not known whose it is");
        room.own("old", &acme);
        room.own("absent", &acme);
        assert_eq!(room.used("acme"), (30, 30));
        assert!(matches!(room.grow("a", &acme, 31), Err(NotTaken::ShareFull)));
        room.grow("a", &acme, 30).unwrap();
        assert!(matches!(room.grow("b", &other, 41), Err(NotTaken::RoomFull)));
        room.grow("b", &other, 40).unwrap();
        // A file may turn out longer than what was to be written to it.
        room.set("b", Some(&other), 45);
        assert_eq!((room.used("acme"), room.used("other")), ((105, 60), (105, 45)));
        for file in ["a", "b", "b", "old", "absent"] {
            room.gone(file);
        }
        assert_eq!((room.used("acme"), room.used("other")), ((0, 0), (0, 0)));
    }
}
