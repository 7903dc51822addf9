//! Reading: beside the writer, and beside each other.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Store, StoreError, lock, schema};

/// How many may read at the same time, and how many connections are kept for them.
const READERS: usize = 8;

/// Connections that only read.
pub struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Semaphore,
}

impl Readers {
    /// None are open yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), idle: Arc::default(), turns: Semaphore::new(READERS) }
    }

    /// Closes those that are idle.
    pub fn close(&self) {
        lock(&self.idle).clear();
    }
}

impl Store {
    /// Reads what was committed, on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.readers.turns.acquire().await.map_err(|_| StoreError::Closed)?;
        let (idle, path) = (self.readers.idle.clone(), self.readers.path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let taken = lock(&idle).pop();
            let connection = match taken {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            let result = work(&connection)?;
            lock(&idle).push(connection);
            Ok(result)
        });
        reading.await.unwrap_or(Err(StoreError::Closed))
    }
}
