//! How much of the room on the disk is taken, by which file, and whose that is. No tenant takes all of it.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    media::NotTaken,
    model::tenant::TenantId,
    util::quota::{Full, Quota, Reservation},
};

/// The files that are there.
pub struct Room {
    quota: Arc<Quota<TenantId>>,
    files: Mutex<HashMap<String, Reservation<TenantId>>>,
}

impl Room {
    /// So many bytes, and so many for each tenant.
    pub fn new(all: u64, each: u64) -> Self {
        Self { quota: Quota::new(all, each), files: Mutex::default() }
    }

    /// So many bytes more are about to be written to this file of the tenant's.
    ///
    /// # Errors
    /// They don't fit.
    pub fn grow(&self, file: &str, tenant: &TenantId, by: u64) -> Result<(), NotTaken> {
        let not_taken = |full| match full {
            Full::Own => NotTaken::ShareFull,
            Full::All => NotTaken::RoomFull,
        };
        let mut files = self.files.lock();
        match files.get_mut(file) {
            Some(counted) => counted.grow(by).map_err(not_taken),
            None => {
                files.insert(file.to_owned(), self.quota.reserve(tenant, by).map_err(not_taken)?);
                Ok(())
            }
        }
    }

    /// This file is so long, whatever was counted for it before. Of one that an earlier process wrote, it is not known yet
    /// whose it is.
    pub fn set(&self, file: &str, owner: Option<&TenantId>, bytes: u64) {
        let mut files = self.files.lock();
        // What was counted goes first: nobody sees both.
        files.remove(file);
        files.insert(file.to_owned(), self.quota.count(owner, bytes));
    }

    /// Says whose a file is, if it is there.
    pub fn own(&self, file: &str, tenant: &TenantId) {
        if let Some(counted) = self.files.lock().get_mut(file) {
            counted.give_to(tenant);
        }
    }

    /// The file is not there any more.
    pub fn gone(&self, file: &str) {
        self.files.lock().remove(file);
    }

    /// How much is taken by all, and by this tenant.
    #[cfg(test)]
    pub fn used(&self, tenant: &str) -> (u64, u64) {
        self.quota.used(&tenant.parse().unwrap())
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
