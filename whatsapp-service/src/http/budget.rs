//! How much memory the bodies of requests take, all of them together. No tenant takes all of it.

use std::sync::Arc;

use crate::{
    http::problem::Problem,
    model::tenant::TenantId,
    util::quota::{Quota, Reservation},
};

/// How often a byte of a body counts: as it came, and as it was read.
const TIMES: u64 = 2;

/// The memory for bodies.
pub struct Budget {
    memory: Arc<Quota<TenantId>>,
    each: u64,
}

/// Memory that is taken for one body, until this is dropped.
pub struct Reserved(Reservation<TenantId>);

impl Budget {
    /// So many bytes, but enough for a few bodies of the usual size. A tenant may have three quarters of it.
    pub fn new(all: u64, body_limit: usize) -> Arc<Self> {
        let all = all.max(4 * TIMES * body_limit as u64);
        let each = all / 4 * 3;
        Arc::new(Self { memory: Quota::new(all, each), each })
    }

    /// The longest body that fits when nothing else is there.
    pub fn longest(&self) -> usize {
        usize::try_from(self.each / TIMES).unwrap_or(usize::MAX)
    }

    /// Memory for a body that is about to come, of this length if that is known. Nothing is taken yet.
    ///
    /// # Errors
    /// Such a body does not fit now.
    pub fn begin(&self, tenant: &TenantId, length: u64) -> Result<Reserved, Problem> {
        self.memory.fits(tenant, length.saturating_mul(TIMES)).map_err(|_| Problem::bodies_full())?;
        Ok(Reserved(self.memory.count(Some(tenant), 0)))
    }
}

impl Reserved {
    /// So much more of the body has come.
    ///
    /// # Errors
    /// It does not fit.
    pub fn grow(&mut self, length: usize) -> Result<(), Problem> {
        self.0.grow((length as u64).saturating_mul(TIMES)).map_err(|_| Problem::bodies_full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_no_tenant_takes_all() {
        let budget = Budget::new(800, 10);
        let [acme, other] = ["acme", "other"].map(|name| name.parse::<TenantId>().unwrap());
        assert_eq!(budget.longest(), 300);
        assert!(budget.begin(&acme, 301).is_err());
        let mut first = budget.begin(&acme, 300).unwrap();
        let mut second = budget.begin(&acme, 300).unwrap();
        first.grow(200).unwrap();
        assert!(second.grow(101).is_err(), "a tenant has three quarters");
        second.grow(100).unwrap();
        let mut others = budget.begin(&other, 100).unwrap();
        assert!(others.grow(101).is_err(), "all have all of it");
        others.grow(100).unwrap();
        drop(first);
        second.grow(200).unwrap();
        drop((second, others));
        assert_eq!((budget.memory.used(&acme), budget.memory.owners()), ((0, 0), 0));
    }

    #[test]
    fn a_few_bodies_of_the_usual_size_always_fit() {
        let budget = Budget::new(0, 100);
        assert!(budget.longest() >= 100);
    }
}
