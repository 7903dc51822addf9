//! The library's store of one linked device: what it asks for by its traits, from the one database.
//!
//! One of these is a reference to the database and a number. Nothing is kept open, and nothing is kept in memory: the
//! library has caches of its own. A write is on the disk when its future resolves. It is also written when the future
//! is dropped, unless it was never polled.

pub mod app_state;
pub mod device;
pub mod keys;
pub mod owner;
pub mod protocol;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use whatsapp_rust::{
    store::Backend,
    wacore::store::error::{Result, StoreError as LibraryError},
};

use crate::{
    signal::owner::Owner,
    store::{
        Store,
        error::StoreError,
        key_value::{Batch, Key, KeyValue, Kind, Write, decode},
        lease::Lease,
    },
    util::clock::Clock,
};

/// The store for a tenant's device. One that was linked must still be there and whole: it is never made anew.
pub async fn open(
    store: &Arc<dyn Store>,
    lease: &Lease,
    owner: Arc<dyn Owner>,
) -> std::result::Result<Arc<dyn Backend>, StoreError> {
    let (record, values) = store.clone().device(lease).await?;
    let device = device::device(&*values).await?;
    if record.paired && device.is_none_or(|device| device.pn.is_none()) {
        return Err(StoreError::Damaged("the store of a linked device no longer holds its link".into()));
    }
    Ok(Arc::new(DeviceBackend::new(values, store.clock().clone(), owner)))
}

/// The store of one device.
pub struct DeviceBackend {
    values: Arc<dyn KeyValue>,
    clock: Clock,
    owner: Arc<dyn Owner>,
    damaged: AtomicBool,
}

impl DeviceBackend {
    /// Of the device with these values.
    pub fn new(values: Arc<dyn KeyValue>, clock: Clock, owner: Arc<dyn Owner>) -> Self {
        Self { values, clock, owner, damaged: AtomicBool::new(false) }
    }

    async fn get(&self, kind: Kind, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.checked(self.values.get(kind, name)).await
    }

    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Vec<u8>>>> {
        let found = self.checked(self.values.get_many(keys)).await?;
        Ok(found.into_iter().map(|found| found.map(|(value, _)| value)).collect())
    }

    async fn all(&self, kind: Kind, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.checked(self.values.all(kind, prefix.to_vec())).await
    }

    /// A structure of the library's, if it is there.
    async fn get_as<T: serde::de::DeserializeOwned>(&self, kind: Kind, name: &[u8]) -> Result<Option<T>> {
        let found = self.get(kind, name).await?;
        self.checked(async { found.map(|value| decode(&value)).transpose() }).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        self.apply(Batch { expected: Vec::new(), writes }).await.map(drop)
    }

    async fn apply(&self, batch: Batch) -> Result<bool> {
        // Whoever runs into a damaged page takes those with him who share his transaction: once is enough.
        if self.damaged.load(Ordering::Relaxed) {
            return Err(library_error(StoreError::Damaged("it was found damaged before".into())));
        }
        self.checked(self.values.apply(batch)).await
    }

    /// Changes values by what they are: `change` is asked again when somebody else has changed them meanwhile.
    async fn update(
        &self,
        keys: Vec<Key>,
        change: impl Fn(&[Option<(Vec<u8>, Option<i64>)>]) -> std::result::Result<Vec<Write>, StoreError> + Send + Sync,
    ) -> Result<()> {
        loop {
            let known = self.checked(self.values.get_many(keys.clone())).await?;
            let writes = self.checked(std::future::ready(change(&known))).await?;
            if writes.is_empty() {
                return Ok(());
            }
            let expected = keys.iter().cloned().zip(known.into_iter().map(|found| found.map(|(value, _)| value)));
            if self.apply(Batch { expected: expected.collect(), writes }).await? {
                return Ok(());
            }
        }
    }

    async fn checked<T>(&self, work: impl Future<Output = std::result::Result<T, StoreError>>) -> Result<T> {
        let result = work.await;
        if let Err(StoreError::Damaged(why)) = &result
            && !self.damaged.swap(true, Ordering::Relaxed)
        {
            self.owner.damaged(why);
        }
        result.map_err(library_error)
    }
}

fn library_error(error: StoreError) -> LibraryError {
    match error {
        StoreError::Damaged(_) => LibraryError::Serialization(Box::new(error)),
        error => LibraryError::Database(Box::new(error)),
    }
}
