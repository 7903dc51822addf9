//! Retry receipts: devices that could not read a message, and ask for it again.
//!
//! They are kept with the device's keys, as long as the messages that they ask for. That one was answered is kept too, so
//! that the same receipt is not answered once more when WhatsApp hands it over again.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    model::{
        message::{Author, Failure, MessageStatus},
        tenant::TenantId,
    },
    store::{
        Store, StoreError,
        cells::{Cells, Kind, decode, encode, kept_until, name},
        messages::Of,
        read_live_store,
        tx::Tx,
    },
    util::encoding::base64_text,
};

/// How often a device gets a message again, whatever it says of how often it has asked: WhatsApp Web asks four times, and
/// a device that is set up anew may begin again.
const ANSWERS: u8 = 12;

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

impl Store {
    /// Writes a retry receipt down. `chats` are the names of the chat that `author` asks in.
    pub async fn note_retry(
        &self,
        tenant: &TenantId,
        mut request: RetryRequest,
        author: Author,
        chats: Vec<String>,
    ) -> Result<Noted, StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let Some(store) = tx.live_store(&tenant)? else { return Ok(Noted::NoMessage) };
            let cells = tx.cells(store)?;
            let (answers, last) = answered(&cells, &request.name())?;
            if answers >= ANSWERS || last == request.digest() {
                return Ok(Noted::Answered);
            }
            if open_retry(&cells, &request.name())?.is_some_and(|known| known.receipt == request.receipt) {
                return Ok(Noted::Open(None));
            }
            let is_sent = |chat: &String| cells.has(Kind::Sent, &name(&[chat, &request.id]));
            let mut found = false;
            for chat in &chats {
                found |= is_sent(chat)?;
            }
            if !found {
                return Ok(Noted::NoMessage);
            }
            // Who asks for it has something of it: the server took it.
            let message = tx.message(&tenant, &Of::Id(&request.id))?.filter(|message| author.is_recipient_of(message));
            let unsettled = message.filter(|message| message.status < MessageStatus::Sent);
            request.ack_owed = unsettled.is_some();
            let settled = match unsettled {
                Some(message) => tx.advance(&tenant, message, MessageStatus::Sent, |_| {})?,
                None => None,
            };
            tx.put_retry(store, &request)?;
            Ok(Noted::Open(settled))
        })
        .await
    }

    /// The devices and messages of all receipts that are to be answered.
    pub async fn open_retries(&self, tenant: &TenantId) -> Result<Vec<(String, String)>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(Vec::new()) };
            let mut open = Vec::new();
            for (_, value) in Cells::of(connection, &seal, store).all(Kind::Retry, &[])? {
                let RetryRequest { device, id, .. } = decode(&value)?;
                open.push((device, id));
            }
            Ok(open)
        })
        .await
    }

    /// The receipt of this device for this message, if it is to be answered.
    pub async fn open_retry(
        &self,
        tenant: &TenantId,
        device: &str,
        id: &str,
    ) -> Result<Option<RetryRequest>, StoreError> {
        let (tenant, seal, name) = (tenant.clone(), self.seal.clone(), name(&[device, id]));
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(None) };
            open_retry(&Cells::of(connection, &seal, store), &name)
        })
        .await
    }

    /// Writes down how far it is with a receipt, unless the device has sent a later one.
    pub async fn update_retry(&self, tenant: &TenantId, request: RetryRequest) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| match tx.same_retry(&tenant, &request)? {
            Some(store) => tx.put_retry(store, &request),
            None => Ok(()),
        })
        .await
    }

    /// Nothing more is to be done for a receipt, unless the device has sent a later one.
    pub async fn close_retry(&self, tenant: &TenantId, request: RetryRequest) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| tx.close_retry(&tenant, &request)).await
    }

    /// Nothing more is done for a receipt, and `author` can't read the message. That is told, unless another device of
    /// the recipient has it.
    pub async fn give_up_retry(
        &self,
        tenant: &TenantId,
        request: RetryRequest,
        author: Author,
        failure: Failure,
    ) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            tx.close_retry(&tenant, &request)?;
            tx.unreadable(&tenant, &request.id, &author, failure)
        })
        .await
    }

    /// The same for a receipt that was not written down, as there is nothing to answer it with.
    pub async fn unreadable(
        &self,
        tenant: &TenantId,
        id: &str,
        author: Author,
        failure: Failure,
    ) -> Result<(), StoreError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.write(move |tx| tx.unreadable(&tenant, &id, &author, failure)).await
    }
}

impl RetryRequest {
    fn name(&self) -> Vec<u8> {
        name(&[&self.device, &self.id])
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.receipt).into()
    }
}

fn open_retry(cells: &Cells<'_>, name: &[u8]) -> rusqlite::Result<Option<RetryRequest>> {
    cells.get(Kind::Retry, name)?.map(|value| decode(&value)).transpose()
}

/// How many requests of a device for a message need no answer any more, and the digest of the last.
fn answered(cells: &Cells<'_>, name: &[u8]) -> rusqlite::Result<(u8, Vec<u8>)> {
    let done = cells.get(Kind::RetryDone, name)?.unwrap_or_default();
    let (answers, last) = done.split_first().unwrap_or((&0, &[]));
    Ok((*answers, last.to_vec()))
}

impl Tx<'_> {
    /// A device has these messages: what it asked for needs no answer any more.
    pub fn close_retries(&self, tenant: &TenantId, device: &str, ids: &[String]) -> rusqlite::Result<()> {
        let Some(store) = self.live_store(tenant)? else { return Ok(()) };
        for id in ids {
            if let Some(known) = open_retry(&self.cells(store)?, &name(&[device, id]))? {
                self.close_retry(tenant, &known)?;
            }
        }
        Ok(())
    }

    /// The device's store, if the receipt is open and the last one of its sender.
    fn same_retry(&self, tenant: &TenantId, request: &RetryRequest) -> rusqlite::Result<Option<i64>> {
        let Some(store) = self.live_store(tenant)? else { return Ok(None) };
        let known = open_retry(&self.cells(store)?, &request.name())?;
        Ok(known.filter(|known| known.receipt == request.receipt).map(|_| store))
    }

    fn close_retry(&self, tenant: &TenantId, request: &RetryRequest) -> rusqlite::Result<()> {
        let Some(store) = self.same_retry(tenant, request)? else { return Ok(()) };
        let (cells, name) = (self.cells(store)?, request.name());
        cells.delete(Kind::Retry, &name)?;
        let answers = answered(&cells, &name)?.0.saturating_add(1);
        let done = [&[answers][..], &request.digest()].concat();
        cells.put_until(Kind::RetryDone, &name, &done, Some(kept_until(self.now())))
    }

    fn put_retry(&self, store: i64, request: &RetryRequest) -> rusqlite::Result<()> {
        self.cells(store)?.put_until(Kind::Retry, &request.name(), &encode(request)?, Some(kept_until(self.now())))
    }

    fn unreadable(&mut self, tenant: &TenantId, id: &str, author: &Author, failure: Failure) -> rusqlite::Result<()> {
        let message = self.message(tenant, &Of::Id(id))?.filter(|message| author.is_recipient_of(message));
        match message.filter(|message| message.status == MessageStatus::Sent) {
            Some(mut message) if message.failure.as_ref().is_none_or(|known| known.code != failure.code) => {
                message.failure = Some(failure);
                self.save(tenant, &message)
            }
            _ => Ok(()),
        }
    }
}
