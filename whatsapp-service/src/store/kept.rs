//! What is kept of incoming messages beside their events: what opens a file that came with one, and a poll's votes.
//!
//! It holds keys, and so it is no part of an event. It is kept as long as events are, and goes with the device.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use async_trait::async_trait;

use crate::{
    model::tenant::TenantId,
    store::{error::StoreError, key_value::name, lease::Lease},
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

    /// What it is called among the values of the device.
    pub fn name(&self) -> Vec<u8> {
        name(&[&self.id, &self.chat, &self.sender])
    }
}

/// What is kept of incoming messages beside their events.
#[async_trait]
pub trait MessageKeys: Send + Sync {
    /// What is kept of the messages with this id, in the order in which they came. Of two people's messages with one id
    /// both are here.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn kept(&self, tenant: &TenantId, id: &str) -> Result<Vec<Kept>, StoreError>;

    /// Writes down another path for a file, if it is still kept: the phone has uploaded it again.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn moved(&self, lease: &Lease, kept: &Kept, path: String) -> Result<(), StoreError>;
}
