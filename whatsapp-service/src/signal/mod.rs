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

use crate::{
    model::tenant::TenantId,
    signal::owner::Owner,
    store::{Store, StoreError, cells::Cells, devices::Record, tx::Tx},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use whatsapp_rust::{
    store::Backend,
    wacore::store::error::{Result, StoreError as LibraryError},
};

/// The store for a tenant's device. One that was linked must still be there and whole: it is never made anew.
pub async fn open(
    store: &Arc<Store>,
    tenant: &TenantId,
    owner: Arc<dyn Owner>,
) -> std::result::Result<Arc<dyn Backend>, StoreError> {
    let seal = store.seal.clone();
    let key = match store.live_store(tenant).await? {
        Some((key, record)) => {
            let device = store.read(move |connection| device::device(&Cells::of(connection, &seal, key))).await?;
            if record.paired && device.is_none_or(|device| device.pn.is_none()) {
                return Err(StoreError::Damaged("the store of a linked device no longer holds its link".into()));
            }
            key
        }
        None => {
            let tenant = tenant.clone();
            store.write(move |tx| tx.new_store(&tenant, &Record::default())).await?
        }
    };
    Ok(Arc::new(DeviceBackend::new(store.clone(), key, owner)))
}

/// The store of one device.
pub struct DeviceBackend {
    store: Arc<Store>,
    key: i64,
    owner: Arc<dyn Owner>,
    damaged: AtomicBool,
}

impl DeviceBackend {
    /// Of the store with this key.
    pub fn new(store: Arc<Store>, key: i64, owner: Arc<dyn Owner>) -> Self {
        Self { store, key, owner, damaged: AtomicBool::new(false) }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cells<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (key, seal) = (self.key, self.store.seal.clone());
        self.checked(self.store.read(move |connection| work(&Cells::of(connection, &seal, key)))).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cells<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = self.key;
        self.change(move |tx| work(&tx.cells(key)?)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        // Whoever runs into a damaged page takes those with him who share his transaction: once is enough.
        if self.damaged.load(Ordering::Relaxed) {
            return Err(library_error(StoreError::Damaged("it was found damaged before".into())));
        }
        self.checked(self.store.write(work)).await
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
