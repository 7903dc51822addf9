//! Messages that others refer to: those that are answered, reacted to, changed, taken back, or marked as read.

use serde::Deserialize;

use crate::{
    model::{message::Message, tenant::TenantId},
    store::error::StoreError,
};
use async_trait::async_trait;

/// A message that another one may refer to.
pub enum Referred {
    /// One of the outbox, with what it says while that is known.
    Own(Box<Message>),
    /// One that the event log tells of.
    Logged(Box<Logged>),
}

/// A message as the event log tells it: what is needed to refer to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logged {
    /// Where it stands, as WhatsApp writes it.
    pub chat: String,
    /// The phone number of the one who wrote it, where that is known.
    pub from: Option<String>,
    /// WhatsApp's other name for them.
    pub from_lid: Option<String>,
    /// Whether the account wrote it itself, on another device.
    pub from_me: bool,
    /// What it says, or what stands below it.
    pub text: Option<String>,
    /// The place that it shows.
    pub location: Option<serde_json::Value>,
}

/// Messages that others refer to.
#[async_trait]
pub trait References: Send + Sync {
    /// The messages of this id that the tenant has sent or that it was told of: hardly ever more than one, as every
    /// device chooses its ids at random.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn referred(&self, tenant: &TenantId, id: &str) -> Result<Vec<Referred>, StoreError>;

    /// A message as it was sent under this id to one of these chats, in WhatsApp's bytes, as long as the library keeps it
    /// for devices that ask again.
    ///
    /// # Errors
    /// The database can't be read or written.
    async fn as_sent(&self, tenant: &TenantId, chats: Vec<String>, id: &str) -> Result<Option<Vec<u8>>, StoreError>;
}
