//! What is kept for a linked device: named values of several kinds, in one table for all devices.

use chrono::{DateTime, Utc};
use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    store::{
        StoreError,
        tx::{carry, damaged},
    },
    util::seal::{Seal, VALUE},
};

/// How long a recipient's device may ask for a message again that it could not read, and how long a message that was
/// decrypted may wait to be handed over, in milliseconds.
pub const KEPT_FOR: i64 = 7 * 24 * 3600 * 1000;

/// Until when a text is kept that was stored now.
pub fn kept_until(now: DateTime<Utc>) -> i64 {
    now.timestamp_millis() + KEPT_FOR
}

/// What kind of value. The numbers are in the database: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The credentials.
    Device = 1,
    /// A peer's identity key, by its address.
    Identity = 2,
    /// A ratchet, by the peer's address.
    Session = 3,
    /// A one-time key, by its number.
    PreKey = 4,
    /// A signed key, by its number.
    SignedPreKey = 5,
    /// A group's ratchet, by the sender's name in the group.
    SenderKey = 6,
    /// A key for the app state, by its id.
    SyncKey = 7,
    /// The id of the app-state key that came last. One value, without a name.
    LatestSyncKey = 8,
    /// How far a collection of the app state is known, by its name.
    Version = 9,
    /// The MAC of a value of the app state, by collection and index.
    MutationMac = 10,
    /// Whether a device has our key of a group, by group and device.
    SenderKeyDevice = 11,
    /// Which number belongs to a LID, by the LID.
    Lid = 12,
    /// The same by number and LID. Without a value.
    Pn = 13,
    /// The base key of a session that was retried, by address and message.
    BaseKey = 14,
    /// Somebody's devices, by user.
    DeviceList = 15,
    /// A group's members and settings, by group.
    Group = 16,
    /// A contact's trust token, by contact.
    TcToken = 17,
    /// A message that was sent, should its recipient ask for it again, by chat and id.
    Sent = 18,
    /// A message that was decrypted and not yet handed over, by chat, sender and id.
    PendingInbound = 19,
    /// The secret of a message that later ones refer to, by chat, sender and id.
    MessageSecret = 20,
    /// What is kept of an incoming message beside its event, by id, chat and sender.
    Kept = 21,
    /// A device's request for a message that it could not read, by device and id.
    Retry = 22,
    /// How many such requests need no answer any more, and the digest of the last of them, by device and id.
    RetryDone = 23,
    /// How long the messages of a chat stay, by the chat.
    Timer = 24,
}

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

/// A name of several parts. No two lists of parts make the same name, and those with the same first parts stand
/// together.
pub fn name(parts: &[&str]) -> Vec<u8> {
    let Some((last, others)) = parts.split_last() else { return Vec::new() };
    let mut name = prefix(others);
    name.extend_from_slice(last.as_bytes());
    name
}

/// What all names with these first parts begin with.
pub fn prefix(parts: &[&str]) -> Vec<u8> {
    let mut prefix = Vec::new();
    for part in parts {
        prefix.extend_from_slice(&(part.len() as u32).to_be_bytes());
        prefix.extend_from_slice(part.as_bytes());
    }
    prefix
}

/// A name that comes after all those that begin with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    // No name begins with so many of these: texts never hold the byte, lengths and key numbers are far smaller.
    [prefix, &[u8::MAX; 8]].concat()
}

/// A structure of the library's as a value. JSON, because the library adds fields, and reads what lacks them.
pub fn encode<T: Serialize>(value: &T) -> rusqlite::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(damaged)
}

/// The structure, from the value.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> rusqlite::Result<T> {
    // The error itself could quote what is secret.
    serde_json::from_slice(value).map_err(|_| damaged("a value is not what was written"))
}
