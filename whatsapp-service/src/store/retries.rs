//! Retry receipts: devices that could not read a message, and ask for it again.
//!
//! They are kept with the device's keys, as long as the messages that they ask for. That one was answered is kept too, so
//! that the same receipt is not answered once more when WhatsApp hands it over again.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use async_trait::async_trait;

use crate::{
    model::{
        message::{Author, Failure},
        tenant::TenantId,
    },
    store::{error::StoreError, key_value::name, lease::Lease},
    util::encoding::base64_text,
};

/// A device's request for a message that it could not read.
#[derive(Clone, Serialize, Deserialize)]
pub struct RetryRequest {
    /// WhatsApp's address of the device.
    pub device: String,
    /// The message.
    pub id: String,
    /// WhatsApp's address of its chat.
    pub chat: String,
    /// How often the device has asked for it, this time included.
    pub count: u8,
    /// The receipt, as it came.
    #[serde(with = "base64_text")]
    pub receipt: Vec<u8>,
    /// Whether the keys that came with it are in use already: they can be used once.
    #[serde(default)]
    pub keys_used: bool,
    /// Whether the server's acknowledgement of the first copy may yet come, and be taken for one of the answer.
    #[serde(default)]
    pub ack_owed: bool,
    /// How often an answer was given and came to nothing.
    #[serde(default)]
    pub attempts: u8,
}

/// What there is to do for a retry receipt.
#[derive(Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is written down, and to be answered. If the message was still waiting for its acknowledgement, it does so no
    /// longer: this is its recipient.
    Open(Option<String>),
    /// It was answered before, or the device has asked for the same message too often.
    Answered,
    /// There is no such message in this chat, or no longer.
    NoMessage,
}

impl RetryRequest {
    /// What it is called among the values of the device.
    pub fn name(&self) -> Vec<u8> {
        name(&[&self.device, &self.id])
    }

    /// What tells this receipt from another.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.receipt).into()
    }
}

/// Retry receipts.
#[async_trait]
pub trait Retries: Send + Sync {
    /// Writes a retry receipt down. `chats` are the names of the chat that `author` asks in.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn note_retry(
        &self,
        lease: &Lease,
        request: RetryRequest,
        author: Author,
        chats: Vec<String>,
    ) -> Result<Noted, StoreError>;

    /// The devices and messages of all receipts that are to be answered.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn open_retries(&self, tenant: &TenantId) -> Result<Vec<(String, String)>, StoreError>;

    /// The receipt of this device for this message, if it is to be answered.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn open_retry(&self, tenant: &TenantId, device: &str, id: &str) -> Result<Option<RetryRequest>, StoreError>;

    /// Writes down how far it is with a receipt, unless the device has sent a later one.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn update_retry(&self, lease: &Lease, request: RetryRequest) -> Result<(), StoreError>;

    /// Nothing more is to be done for a receipt, unless the device has sent a later one.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn close_retry(&self, lease: &Lease, request: RetryRequest) -> Result<(), StoreError>;

    /// Nothing more is done for a receipt, and `author` can't read the message. That is told, unless another device of
    /// the recipient has it.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn give_up_retry(
        &self,
        lease: &Lease,
        request: RetryRequest,
        author: Author,
        failure: Failure,
    ) -> Result<(), StoreError>;

    /// The same for a receipt that was not written down, as there is nothing to answer it with.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn unreadable(&self, lease: &Lease, id: &str, author: Author, failure: Failure) -> Result<(), StoreError>;
}
