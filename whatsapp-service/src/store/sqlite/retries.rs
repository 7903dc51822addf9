//! Retry receipts: devices that could not read a message, and ask for it again.
//!
//! They are kept with the device's keys, as long as the messages that they ask for. That one was answered is kept too, so
//! that the same receipt is not answered once more when WhatsApp hands it over again.

use async_trait::async_trait;

use crate::{
    model::{
        message::{Author, Failure, MessageStatus},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        key_value::{Kind, kept_until, name},
        lease::Lease,
        retries::{Noted, Retries, RetryRequest},
        sqlite::{
            SqliteStore,
            cells::{Cells, decode, encode},
            devices::read_live_store,
            transitions::Of,
            tx::Tx,
        },
    },
};

/// How often a device gets a message again, whatever it says of how often it has asked: WhatsApp Web asks four times, and
/// a device that is set up anew may begin again.
const ANSWERS: u8 = 12;

#[async_trait]
impl Retries for SqliteStore {
    async fn note_retry(
        &self,
        lease: &Lease,
        mut request: RetryRequest,
        author: Author,
        chats: Vec<String>,
    ) -> Result<Noted, StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
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

    async fn open_retries(&self, tenant: &TenantId) -> Result<Vec<(String, String)>, StoreError> {
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

    async fn open_retry(&self, tenant: &TenantId, device: &str, id: &str) -> Result<Option<RetryRequest>, StoreError> {
        let (tenant, seal, name) = (tenant.clone(), self.seal.clone(), name(&[device, id]));
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(None) };
            open_retry(&Cells::of(connection, &seal, store), &name)
        })
        .await
    }

    async fn update_retry(&self, lease: &Lease, request: RetryRequest) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| match tx.same_retry(&tenant, &request)? {
            Some(store) => tx.put_retry(store, &request),
            None => Ok(()),
        })
        .await
    }

    async fn close_retry(&self, lease: &Lease, request: RetryRequest) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| tx.close_retry(&tenant, &request)).await
    }

    async fn give_up_retry(
        &self,
        lease: &Lease,
        request: RetryRequest,
        author: Author,
        failure: Failure,
    ) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            tx.close_retry(&tenant, &request)?;
            tx.unreadable(&tenant, &request.id, &author, failure)
        })
        .await
    }

    async fn unreadable(&self, lease: &Lease, id: &str, author: Author, failure: Failure) -> Result<(), StoreError> {
        let (tenant, id) = (lease.tenant().clone(), id.to_owned());
        self.write_as(lease, move |tx| tx.unreadable(&tenant, &id, &author, failure)).await
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
