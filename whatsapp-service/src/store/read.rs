//! Reading: beside the writer, and beside each other.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rusqlite::Connection;

use super::{Store, StoreError, lock, schema};

/// How many idle connections are kept.
const IDLE: usize = 4;

/// Connections that only read.
pub struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// None are open yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), idle: Arc::default() }
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
        let (idle, path) = (self.readers.idle.clone(), self.readers.path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let taken = lock(&idle).pop();
            let connection = match taken {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            let result = work(&connection)?;
            let mut idle = lock(&idle);
            if idle.len() < IDLE {
                idle.push(connection);
            }
            Ok(result)
        });
        reading.await.unwrap_or(Err(StoreError::Closed))
    }
}
