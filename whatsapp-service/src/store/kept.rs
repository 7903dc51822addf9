//! What is kept of incoming messages beside their events: what opens a file that came with one, and a poll's votes.
//!
//! It holds keys, and so it is no part of an event. It is kept as long as events are, and goes with the device.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    model::tenant::TenantId,
    store::{
        Store, StoreError,
        cells::{Cells, Kind, decode, encode, name, prefix},
        read_live_store,
        tx::{Tx, millis},
    },
    util::encoding::base64_text,
};

/// What is kept of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// When it came, in milliseconds since 1970.
    pub at: i64,
    /// WhatsApp's address of the chat.
    pub chat: String,
    /// Who wrote it.
    pub sender: String,
    /// Its id, which the sender's device chose.
    pub id: String,
    /// Whether the account itself wrote it, on another device.
    pub from_me: bool,
    /// What it is for.
    pub what: KeptFor,
}

/// What something is kept for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptFor {
    /// To fetch the file that came with it.
    Media(MediaSource),
    /// To read the votes.
    Votes(PollKey),
}

/// Where a file is, and what opens it.
#[derive(Clone, Serialize, Deserialize)]
pub struct MediaSource {
    /// What it is encrypted as: a voice note counts as a sound.
    pub kind: crate::model::media::MediaKind,
    /// Its path at WhatsApp's media hosts.
    pub path: String,
    /// What it is encrypted with.
    #[serde(with = "base64_text")]
    pub key: Vec<u8>,
    /// Its SHA-256.
    #[serde(with = "base64_text")]
    pub sha256: Vec<u8>,
    /// The SHA-256 of what is stored at WhatsApp.
    #[serde(with = "base64_text")]
    pub encrypted_sha256: Vec<u8>,
    /// Its size, as the sender says.
    pub size: Option<u64>,
    /// Its MIME type, as the sender says.
    pub mimetype: Option<String>,
    /// Its name, as the sender says.
    pub filename: Option<String>,
}

impl std::fmt::Debug for MediaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaSource").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What opens the votes on a poll.
#[derive(Clone, Serialize, Deserialize)]
pub struct PollKey {
    /// The poll's secret.
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
    /// Who asks, under both of their names if both are known.
    pub creators: Vec<String>,
    /// What can be chosen.
    pub options: Vec<String>,
}

impl std::fmt::Debug for PollKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollKey").finish_non_exhaustive()
    }
}

impl Kept {
    /// What tells this message from another with the same id: senders choose those.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{}\n{}", self.chat, self.sender, self.id));
        hex::encode(&digest[..8])
    }

    fn name(&self) -> Vec<u8> {
        name(&[&self.id, &self.chat, &self.sender])
    }
}

impl Store {
    /// What is kept of the messages with this id, in the order in which they came. Of two people's messages with one id
    /// both are here.
    pub async fn kept(&self, tenant: &TenantId, id: &str) -> Result<Vec<Kept>, StoreError> {
        let (tenant, seal, prefix) = (tenant.clone(), self.seal.clone(), prefix(&[id]));
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(Vec::new()) };
            let found = Cells::of(connection, &seal, store).all(Kind::Kept, &prefix)?;
            let mut kept = found.iter().map(|(_, value)| decode(value)).collect::<rusqlite::Result<Vec<Kept>>>()?;
            kept.sort_by_key(|kept| kept.at);
            Ok(kept)
        })
        .await
    }

    /// Writes down another path for a file, if it is still kept: the phone has uploaded it again.
    pub async fn moved(&self, tenant: &TenantId, kept: &Kept, path: String) -> Result<(), StoreError> {
        let (tenant, name) = (tenant.clone(), kept.name());
        self.write(move |tx| {
            let Some(store) = tx.live_store(&tenant)? else { return Ok(()) };
            let cells = tx.cells(store)?;
            let Some((value, until)) = cells.get_until(Kind::Kept, &name)? else { return Ok(()) };
            let mut kept: Kept = decode(&value)?;
            if let KeptFor::Media(media) = &mut kept.what {
                media.path = path;
            }
            cells.put_until(Kind::Kept, &name, &encode(&kept)?, until)
        })
        .await
    }
}

impl Tx<'_> {
    /// Keeps this until then, and says whether something is kept under the same id already. A tenant whose device is
    /// gone keeps nothing.
    pub fn keep(&self, tenant: &TenantId, kept: &Kept, until: DateTime<Utc>) -> rusqlite::Result<bool> {
        let Some(store) = self.live_store(tenant)? else { return Ok(false) };
        let cells = self.cells(store)?;
        let shares_id = cells.has_any(Kind::Kept, &prefix(&[&kept.id]))?;
        cells.put_until(Kind::Kept, &kept.name(), &encode(kept)?, Some(millis(until)))?;
        Ok(shares_id)
    }
}
