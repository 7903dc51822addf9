//! What is kept for a linked device: named values of several kinds.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};

use crate::store::error::StoreError;

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

/// A value that is looked for: its kind and name.
pub type Key = (Kind, Vec<u8>);

/// One change of a device's values.
#[derive(Clone, Debug)]
pub enum Write {
    /// Sets a value, until this time in milliseconds since 1970, if it is forgotten.
    Put {
        /// Which one.
        key: Key,
        /// What it is from now on.
        value: Vec<u8>,
        /// When it is forgotten.
        until: Option<i64>,
    },
    /// Removes a value, if it is there.
    Delete(Key),
    /// Removes all values of a kind whose names begin like this.
    DeleteAll(Kind, Vec<u8>),
    /// Notes in the record of the tenant's session that its device is linked to the account with this number.
    Link(String),
}

impl Write {
    /// Sets a value that is not forgotten by itself.
    pub fn put(kind: Kind, name: &[u8], value: &[u8]) -> Self {
        Self::Put { key: (kind, name.to_vec()), value: value.to_vec(), until: None }
    }

    /// Sets a value that is forgotten at this time, in milliseconds since 1970.
    pub fn put_until(kind: Kind, name: &[u8], value: &[u8], until: Option<i64>) -> Self {
        Self::Put { key: (kind, name.to_vec()), value: value.to_vec(), until }
    }

    /// Removes a value, if it is there.
    pub fn delete(kind: Kind, name: &[u8]) -> Self {
        Self::Delete((kind, name.to_vec()))
    }
}

/// Changes that are made together, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Values that must still be as they were read; `None` stands for one that is not there.
    pub expected: Vec<(Key, Option<Vec<u8>>)>,
    /// What is changed, in this order.
    pub writes: Vec<Write>,
}

/// A value, and when it is forgotten, in milliseconds since 1970.
pub type Timed = (Vec<u8>, Option<i64>);

/// The values of one linked device. What was put aside or deleted can't be written to any more.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// The values with these names, in the same order, as they were at one moment.
    ///
    /// # Errors
    /// The database can't be read, or a value is not what was written.
    async fn get_many(&self, keys: Vec<Key>) -> Result<Vec<Option<Timed>>, StoreError>;

    /// All values whose names begin like this, in the order of their names.
    ///
    /// # Errors
    /// The database can't be read, or a value is not what was written.
    async fn all(&self, kind: Kind, prefix: Vec<u8>) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError>;

    /// Whether there is a value whose name begins like this.
    ///
    /// # Errors
    /// The database can't be read.
    async fn has_any(&self, kind: Kind, prefix: Vec<u8>) -> Result<bool, StoreError>;

    /// The last name of a kind.
    ///
    /// # Errors
    /// The database can't be read.
    async fn last_name(&self, kind: Kind) -> Result<Option<Vec<u8>>, StoreError>;

    /// Makes all these changes in one transaction, if everything is as expected, and says whether it was.
    ///
    /// # Errors
    /// The database can't be written, the lease is no longer in force, or the device was put aside or deleted. Nothing
    /// is changed then.
    async fn apply(&self, batch: Batch) -> Result<bool, StoreError>;

    /// The value with this name.
    ///
    /// # Errors
    /// The database can't be read, or the value is not what was written.
    async fn get(&self, kind: Kind, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.get_many(vec![(kind, name.to_vec())]).await?;
        Ok(found.into_iter().flatten().next().map(|(value, _)| value))
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

/// A structure of the library's as a value. JSON, because the library adds fields, and reads what lacks them.
///
/// # Errors
/// It can't be written as JSON.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// The structure, from the value.
///
/// # Errors
/// The value is not what was written.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    // The error itself could quote what is secret.
    serde_json::from_slice(value).map_err(|_| StoreError::Damaged("a value is not what was written".into()))
}
