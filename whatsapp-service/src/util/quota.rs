//! How much of something there may be: of all owners together, and of each. No owner takes all of it.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// So much for all, and so much of it for each owner.
pub struct Quota<O: Clone + Eq + Hash> {
    all: u64,
    each: u64,
    sums: Mutex<Sums<O>>,
}

struct Sums<O> {
    used: u64,
    owners: HashMap<O, u64>,
}

/// Why nothing more is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The owner has too much itself.
    Own,
    /// All have too much together.
    All,
}

/// What is counted for an owner, until this is dropped. The sums can't drift: what was added is what is taken off.
pub struct Reservation<O: Clone + Eq + Hash> {
    quota: Arc<Quota<O>>,
    owner: Option<O>,
    amount: u64,
}

impl<O: Clone + Eq + Hash> Quota<O> {
    /// So much, and so much for each owner.
    pub fn new(all: u64, each: u64) -> Arc<Self> {
        Self { all, each, sums: Sums { used: 0, owners: HashMap::new() }.into() }.into()
    }

    /// Says whether an owner may have so much more now. Nothing is reserved.
    ///
    /// # Errors
    /// It may not: too much is reserved.
    pub fn fits(&self, owner: &O, amount: u64) -> Result<(), Full> {
        self.fits_in(&self.sums.lock(), owner, amount)
    }

    /// Reserves so much for an owner.
    ///
    /// # Errors
    /// Too much is reserved already.
    pub fn reserve(self: &Arc<Self>, owner: &O, amount: u64) -> Result<Reservation<O>, Full> {
        let mut reservation = self.count(Some(owner), 0);
        reservation.grow(amount)?;
        Ok(reservation)
    }

    /// Counts what is there, also if it does not fit. What is nobody's counts for all only.
    pub fn count(self: &Arc<Self>, owner: Option<&O>, amount: u64) -> Reservation<O> {
        self.sums.lock().add(owner, amount);
        Reservation { quota: self.clone(), owner: owner.cloned(), amount }
    }

    fn fits_in(&self, sums: &Sums<O>, owner: &O, amount: u64) -> Result<(), Full> {
        if sums.of(owner).saturating_add(amount) > self.each {
            return Err(Full::Own);
        }
        if sums.used.saturating_add(amount) > self.all {
            return Err(Full::All);
        }
        Ok(())
    }

    /// How much is reserved by all, and by this owner.
    #[cfg(test)]
    pub fn used(&self, owner: &O) -> (u64, u64) {
        let sums = self.sums.lock();
        (sums.used, sums.of(owner))
    }

    /// How many owners have something.
    #[cfg(test)]
    pub fn owners(&self) -> usize {
        self.sums.lock().owners.len()
    }
}

impl<O: Clone + Eq + Hash> Sums<O> {
    fn add(&mut self, owner: Option<&O>, amount: u64) {
        self.used = self.used.saturating_add(amount);
        if let Some(owner) = owner.filter(|_| amount > 0) {
            let own = self.owners.entry(owner.clone()).or_default();
            *own = own.saturating_add(amount);
        }
    }

    fn remove(&mut self, owner: Option<&O>, amount: u64) {
        self.used = self.used.saturating_sub(amount);
        if let Some(owner) = owner
            && let Some(own) = self.owners.get_mut(owner)
        {
            *own = own.saturating_sub(amount);
            if *own == 0 {
                self.owners.remove(owner);
            }
        }
    }

    fn of(&self, owner: &O) -> u64 {
        self.owners.get(owner).copied().unwrap_or_default()
    }
}

impl<O: Clone + Eq + Hash> Reservation<O> {
    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Reserves so much more. What is nobody's has no limit of its own.
    ///
    /// # Errors
    /// Too much is reserved already; nothing changes.
    pub fn grow(&mut self, by: u64) -> Result<(), Full> {
        let mut sums = self.quota.sums.lock();
        if let Some(owner) = &self.owner {
            self.quota.fits_in(&sums, owner, by)?;
        }
        sums.add(self.owner.as_ref(), by);
        self.amount = self.amount.saturating_add(by);
        Ok(())
    }

    /// Keeps no more than so much.
    pub fn shrink(&mut self, to: u64) {
        self.set(self.amount.min(to));
    }

    /// It is so much, also if that does not fit.
    pub fn set(&mut self, amount: u64) {
        let mut sums = self.quota.sums.lock();
        sums.remove(self.owner.as_ref(), self.amount);
        sums.add(self.owner.as_ref(), amount);
        self.amount = amount;
    }

    /// It is this owner's, whosever it was.
    pub fn give_to(&mut self, owner: &O) {
        let mut sums = self.quota.sums.lock();
        sums.remove(self.owner.as_ref(), self.amount);
        sums.add(Some(owner), self.amount);
        self.owner = Some(owner.clone());
    }
}

impl<O: Clone + Eq + Hash> Drop for Reservation<O> {
    fn drop(&mut self) {
        self.quota.sums.lock().remove(self.owner.as_ref(), self.amount);
    }
}

impl<O: Clone + Eq + Hash> std::fmt::Debug for Reservation<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("amount", &self.amount).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_owner_takes_all_and_what_goes_is_free_again() {
        let quota = Quota::new(100, 60);
        let mut first = quota.reserve(&"acme", 40).unwrap();
        assert_eq!(quota.reserve(&"acme", 21).err(), Some(Full::Own));
        assert_eq!(quota.reserve(&"acme", u64::MAX).err(), Some(Full::Own));
        let second = quota.reserve(&"acme", 20).unwrap();
        assert_eq!(quota.reserve(&"other", 41).err(), Some(Full::All));
        let _third = quota.reserve(&"other", 40).unwrap();
        // It turned out to be shorter.
        first.shrink(10);
        first.shrink(30);
        let fourth = quota.reserve(&"acme", 30).unwrap();
        assert_eq!(quota.reserve(&"other", 1).err(), Some(Full::All));
        drop((first, second, fourth));
        assert_eq!(quota.owners(), 1, "who has nothing is forgotten");
        assert!(quota.reserve(&"acme", 60).is_ok());
    }

    #[test]
    fn what_is_nobodys_counts_for_all_until_it_is_somebodys() {
        let quota = Quota::new(100, 60);
        let mut found = quota.count(None, 80);
        assert_eq!(quota.used(&"acme"), (80, 0));
        found.give_to(&"acme");
        assert_eq!(quota.used(&"acme"), (80, 80));
        assert_eq!(found.grow(1).err(), Some(Full::Own));
        found.set(10);
        found.grow(50).unwrap();
        assert_eq!((quota.used(&"acme"), found.amount()), ((60, 60), 60));
    }
}
