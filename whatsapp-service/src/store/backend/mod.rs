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

use std::sync::Arc;

use whatsapp_rust::{
    async_trait,
    wacore::store::error::{Result, StoreError as LibraryError},
};

pub use self::{device::device, protocol::KEPT_FOR, signal::number};
use super::{Store, StoreError, cells::Cells};

/// What to do about a message that WhatsApp hands over again, and that the library has decrypted before.
#[async_trait]
pub trait Redelivery: Send + Sync {
    /// Whether it was lost, and its sender has been asked for it. `identity` is chat, sender and id.
    async fn recall(&self, identity: [String; 3]) -> bool;
}

/// The store of one device.
pub struct DeviceBackend {
    store: Arc<Store>,
    key: i64,
    redelivery: Arc<dyn Redelivery>,
}

impl DeviceBackend {
    /// Of the store with this key.
    pub fn new(store: Arc<Store>, key: i64, redelivery: Arc<dyn Redelivery>) -> Self {
        Self { store, key, redelivery }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cells<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (key, seal) = (self.key, self.store.seal.clone());
        self.store.read(move |connection| work(&Cells::of(connection, &seal, key))).await.map_err(library_error)
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cells<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = self.key;
        self.store.write(move |tx| work(&tx.cells(key)?)).await.map_err(library_error)
    }
}

fn library_error(error: StoreError) -> LibraryError {
    match error {
        StoreError::Damaged(_) => LibraryError::Serialization(Box::new(error)),
        error => LibraryError::Database(Box::new(error)),
    }
}
