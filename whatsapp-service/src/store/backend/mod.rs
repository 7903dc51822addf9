//! The library's store of one linked device: what it asks for by its traits, from the one database.
//!
//! One of these is a reference to the database and a number. Nothing is kept open, and nothing is kept in memory: the
//! library has caches of its own. A write is on the disk when its future resolves. It is also written when the future
//! is dropped, unless it was never polled.

mod app_state;
mod device;
mod protocol;
mod signal;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use whatsapp_rust::{
    async_trait,
    wacore::store::error::{Result, StoreError as LibraryError},
};

#[cfg(test)]
pub use self::protocol::put_mapping;
pub use self::{
    device::device,
    protocol::{KEPT_FOR, kept_until},
    signal::number,
};
use super::{Store, StoreError, cells::Cells, tx::Tx};

/// Who runs the device that a store is for.
#[async_trait]
pub trait Owner: Send + Sync {
    /// WhatsApp hands a message over again that the library has decrypted before. Says whether it was lost, and its
    /// sender has been asked for it. `identity` is chat, sender and id.
    async fn recall(&self, identity: [String; 3]) -> bool;

    /// The library is about to tell the phone that it is linked, and has what it needs for that in its memory only.
    /// Returns when that is on the disk, or when the phone can't be told.
    async fn linking(&self);

    /// What is in the store can't be read any more. It is not used from now on.
    fn damaged(&self, why: &str);
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
