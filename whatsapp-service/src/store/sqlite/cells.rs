//! What is kept for a linked device: named values of several kinds, in one table for all devices.

use std::borrow::Cow;

use crate::{
    store::{
        error::StoreError,
        key_value::{self, Batch, Key, KeyValue, Kind, Timed, Write},
        lease::Lease,
        sqlite::{SqliteStore, tx::carry},
    },
    util::seal::{Seal, VALUE},
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The values of one store.
pub struct Cells<'c> {
    connection: &'c Connection,
    seal: &'c Seal,
    store: i64,
}

impl<'c> Cells<'c> {
    /// To read from.
    pub fn of(connection: &'c Connection, seal: &'c Seal, store: i64) -> Self {
        Self { connection, seal, store }
    }

    /// To write to. What was quarantined or deleted is not written any more: a client may still be about to end.
    pub fn live(connection: &'c Connection, seal: &'c Seal, store: i64) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT 1 FROM stores WHERE key = ? AND state = 'live'")?;
        match statement.exists([store])? {
            true => Ok(Self { connection, seal, store }),
            false => Err(carry(StoreError::Gone)),
        }
    }

    /// A value.
    pub fn get(&self, kind: Kind, name: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
        Ok(self.get_until(kind, name)?.map(|(value, _)| value))
    }

    /// A value, and when it is forgotten.
    pub fn get_until(&self, kind: Kind, name: &[u8]) -> rusqlite::Result<Option<(Vec<u8>, Option<i64>)>> {
        let sql = "SELECT value, expires_at FROM state WHERE store = ? AND kind = ? AND name = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let Some((sealed, expires_at)) =
            statement.query_row(params![self.store, kind as i64, name], read).optional()?
        else {
            return Ok(None);
        };
        Ok(Some((self.open(kind, name, sealed)?, expires_at)))
    }

    /// Whether there is such a value.
    pub fn has(&self, kind: Kind, name: &[u8]) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM state WHERE store = ? AND kind = ? AND name = ?";
        self.connection.prepare_cached(sql)?.exists(params![self.store, kind as i64, name])
    }

    /// All values whose names begin like this, in the order of their names.
    pub fn all(&self, kind: Kind, prefix: &[u8]) -> rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let sql = "SELECT name, value FROM state WHERE store = ? AND kind = ? AND name >= ? AND name < ? ORDER BY name";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &rusqlite::Row<'_>| {
            let (name, sealed): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let value = self.open(kind, &name, sealed)?;
            Ok((name, value))
        };
        statement.query_map(params![self.store, kind as i64, prefix, after(prefix)], read)?.collect()
    }

    /// Whether there is a value whose name begins like this.
    pub fn has_any(&self, kind: Kind, prefix: &[u8]) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM state WHERE store = ? AND kind = ? AND name >= ? AND name < ?";
        self.connection.prepare_cached(sql)?.exists(params![self.store, kind as i64, prefix, after(prefix)])
    }

    /// Whether there is a value whose name begins and ends like this.
    pub fn has_any_like(&self, kind: Kind, prefix: &str, suffix: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM state WHERE store = ?1 AND kind = ?2 AND name >= ?3 AND name < ?4 \
                   AND substr(name, -length(?5)) = ?5";
        let (prefix, suffix) = (prefix.as_bytes(), suffix.as_bytes());
        self.connection.prepare_cached(sql)?.exists(params![self.store, kind as i64, prefix, after(prefix), suffix])
    }

    /// The last name of a kind.
    pub fn last_name(&self, kind: Kind) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT name FROM state WHERE store = ? AND kind = ? ORDER BY name DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_row(params![self.store, kind as i64], |row| row.get(0)).optional()
    }

    /// Sets a value.
    pub fn put(&self, kind: Kind, name: &[u8], value: &[u8]) -> rusqlite::Result<()> {
        self.put_until(kind, name, value, None)
    }

    /// Sets a value that is forgotten at this time, in milliseconds since 1970.
    pub fn put_until(&self, kind: Kind, name: &[u8], value: &[u8], expires_at: Option<i64>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO state (store, kind, name, value, expires_at) VALUES (?, ?, ?, ?, ?) \
                   ON CONFLICT (store, kind, name) \
                   DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at";
        let sealed = self.seal(kind, name, value);
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![self.store, kind as i64, name, sealed, expires_at]).map(drop)
    }

    /// Removes a value, if it is there.
    pub fn delete(&self, kind: Kind, name: &[u8]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM state WHERE store = ? AND kind = ? AND name = ?";
        self.connection.prepare_cached(sql)?.execute(params![self.store, kind as i64, name]).map(drop)
    }

    /// Removes all values whose names begin like this.
    pub fn delete_all(&self, kind: Kind, prefix: &[u8]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM state WHERE store = ? AND kind = ? AND name >= ? AND name < ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![self.store, kind as i64, prefix, after(prefix)]).map(drop)
    }

    /// What is written for a value. All values of this table pass here; names do not, because they are looked for.
    fn seal<'v>(&self, kind: Kind, name: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
        self.seal.seal(&VALUE, &[&self.store.to_be_bytes(), &(kind as i64).to_be_bytes(), name], value)
    }

    /// The value, from what was written.
    fn open(&self, kind: Kind, name: &[u8], sealed: Vec<u8>) -> rusqlite::Result<Vec<u8>> {
        let row = [&self.store.to_be_bytes()[..], &(kind as i64).to_be_bytes(), name];
        Ok(self.seal.open(&VALUE, &row, sealed)?.into_owned())
    }
}

/// A name that comes after all those that begin with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    // No name begins with so many of these: texts never hold the byte, lengths and key numbers are far smaller.
    [prefix, &[u8::MAX; 8]].concat()
}

/// A structure as a value.
pub fn encode<T: Serialize>(value: &T) -> rusqlite::Result<Vec<u8>> {
    Ok(key_value::encode(value)?)
}

/// The structure, from the value.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> rusqlite::Result<T> {
    Ok(key_value::decode(value)?)
}

/// The values of one device, written under a lease.
pub struct DeviceValues {
    store: Arc<SqliteStore>,
    lease: Lease,
    key: i64,
}

impl DeviceValues {
    /// Of the device with this key.
    pub fn new(store: Arc<SqliteStore>, lease: Lease, key: i64) -> Self {
        Self { store, lease, key }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cells<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (key, seal) = (self.key, self.store.seal.clone());
        self.store.read(move |connection| work(&Cells::of(connection, &seal, key))).await
    }
}

#[async_trait]
impl KeyValue for DeviceValues {
    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Timed>>, StoreError> {
        self.read(move |cells| keys.iter().map(|(kind, name)| cells.get_until(*kind, name)).collect()).await
    }

    async fn all(&self, kind: Kind, prefix: Vec<u8>) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.read(move |cells| cells.all(kind, &prefix)).await
    }

    async fn has_any(&self, kind: Kind, prefix: Vec<u8>) -> Result<bool, StoreError> {
        self.read(move |cells| cells.has_any(kind, &prefix)).await
    }

    async fn last_name(&self, kind: Kind) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |cells| cells.last_name(kind)).await
    }

    async fn apply(&self, batch: Batch) -> Result<bool, StoreError> {
        let key = self.key;
        self.store
            .write_as(&self.lease, move |tx| {
                let cells = tx.cells(key)?;
                for ((kind, name), expected) in &batch.expected {
                    if cells.get(*kind, name)? != *expected {
                        return Ok(false);
                    }
                }
                for write in &batch.writes {
                    match write {
                        Write::Put { key: (kind, name), value, until } => {
                            cells.put_until(*kind, name, value, *until)?
                        }
                        Write::Delete((kind, name)) => cells.delete(*kind, name)?,
                        Write::DeleteAll(kind, prefix) => cells.delete_all(*kind, prefix)?,
                        Write::Link(phone) => tx.note_link(key, phone)?,
                    }
                }
                Ok(true)
            })
            .await
    }
}
