//! What comes in: written down before WhatsApp is told that it arrived.

pub mod permission;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    model::{
        event::EventKind,
        message::{Author, MessageStatus},
    },
    session::{connection::Connection, limits::AccountLimits, outbox::Outbox, retries::Retries, timers::Timers},
    store::{Store, error::StoreError, events::Received, kept::Kept},
    whatsapp::{
        account_limits,
        client::Client,
        inbound::{Incoming, Receiver},
        resend_request::Again,
        retry::RetryReceipt,
    },
};

/// What comes in for one session, on its way to the event log.
pub struct Inbox {
    pub(crate) connection: Arc<Connection>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) retries: Arc<Retries>,
    pub(crate) limits: Arc<AccountLimits>,
    pub(crate) timers: Arc<Timers>,
    /// How many receipts may hold a thread until they are on the disk.
    pub(crate) blocking_receipts: Arc<Semaphore>,
    /// How long events are kept.
    pub(crate) event_retention: TimeDelta,
    /// What can't be written down is the session's affair.
    pub(crate) trouble: Box<dyn Fn(&StoreError) + Send + Sync>,
}

impl Inbox {
    /// Puts messages into the event log, however long the disk takes. `None` when the process is about to end.
    async fn take_messages(&self, client: Option<&Client>, batch: &[Incoming]) -> Option<()> {
        let until = self.connection.now() + self.event_retention;
        let mut messages: Vec<Received> = Vec::with_capacity(batch.len());
        for message in batch {
            let chosen = match message.poll() {
                Some(id) => self.chosen(id, message, &messages).await?,
                None => None,
            };
            let (mut data, kept) = message.told(chosen).unzip();
            if let Some(told) = &data
                && !self.permits(client, message, told, &messages).await?
            {
                data = message.withheld("not_allowed");
            }
            let kept = kept.flatten().map(|kept| (kept, until));
            let (identity, own, timer) = (message.identity(), message.is_own(), message.timer());
            messages.push(Received { identity, data, own, kept, timer });
        }
        if messages.iter().any(|message| message.timer.is_some()) {
            self.timers.learn();
        }
        if messages.is_empty() {
            return Some(());
        }
        let (store, lease) = (&self.store, &self.connection.lease);
        self.connection.persist(|| store.received(lease, messages.clone())).await
    }

    /// What a vote chose, if its poll is known: it may have come just before, in the same batch. One that can't be read is
    /// told all the same. `None` when the process is about to end.
    async fn chosen(&self, poll: &str, message: &Incoming, before: &[Received]) -> Option<Option<Vec<String>>> {
        let mut polls = self.polls(|| self.store.kept(&self.connection.tenant, poll)).await?;
        let just_now = before.iter().filter_map(|one| one.kept.as_ref()).map(|(kept, _)| kept);
        polls.extend(just_now.filter(|kept| kept.id == poll).cloned());
        Some(polls.iter().find_map(|kept| message.chosen(kept)))
    }

    /// Polls, however long the disk takes to give them: a vote is told once. `None` when the process is about to end.
    async fn polls<F>(&self, read: impl Fn() -> F) -> Option<Vec<Kept>>
    where
        F: Future<Output = Result<Vec<Kept>, StoreError>>,
    {
        let read = async || match read().await {
            // This will not be better later, and nothing else that comes in is to wait for it.
            Err(StoreError::Damaged(_)) => Ok(Vec::new()),
            read => read,
        };
        self.connection.persist(read).await
    }
}

#[async_trait]
impl Receiver for Inbox {
    async fn messages(&self, client: Option<&Client>, batch: &[Incoming]) -> bool {
        self.take_messages(client, batch).await.is_some()
    }

    async fn message(&self, message: Received) {
        let (store, lease) = (&self.store, &self.connection.lease);
        self.connection.persist(|| store.received(lease, vec![message.clone()])).await;
    }

    async fn once(&self, identity: [String; 3], kind: EventKind, data: Value) {
        let (store, lease) = (&self.store, &self.connection.lease);
        self.connection.persist(|| store.told_once(lease, identity.clone(), kind, data.clone())).await;
    }

    async fn receipt(&self, by: Author, ids: Vec<String>, status: MessageStatus) {
        self.outbox.receipt(by, ids, status).await;
    }

    async fn retry(&self, receipt: RetryReceipt) -> Result<(), StoreError> {
        self.retries.asked_again(receipt).await
    }

    /// Messages that a kill has lost between their decryption and the disk are asked for again.
    async fn is_lost(&self, identity: [String; 3]) -> bool {
        let again = self.connection.client().and_then(|client| Again::of(client, &identity));
        let Some(again) = again else { return false };
        let tenant = &self.connection.tenant;
        if !self.store.is_lost(&self.connection.lease, identity).await.unwrap_or(true) {
            return false;
        }
        tracing::warn!(%tenant, "a message was lost by a kill; its sender is asked to send it again");
        again.ask_for(self.connection.now());
        true
    }

    fn limits_changed(&self, operation: &str, said: &Value) {
        if let Some(changed) = account_limits::changed(operation, said, self.connection.now()) {
            self.limits.changed(changed);
        }
    }

    fn hold_thread(&self) -> Option<OwnedSemaphorePermit> {
        self.blocking_receipts.clone().try_acquire_owned().ok()
    }

    fn storage_failed(&self, error: &StoreError) {
        (self.trouble)(error);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        manager::Manager,
        store::kept::{KeptFor, PollKey},
    };

    fn poll() -> Kept {
        let what = KeptFor::Votes(PollKey { secret: vec![1; 32], creators: Vec::new(), options: Vec::new() });
        Kept { at: 0, chat: "chat".into(), sender: "sender".into(), id: "poll".into(), from_me: false, what }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_is_read_until_the_disk_gives_it() {
        let data = tempfile::TempDir::new().unwrap();
        let manager = Manager::of_test(data.path());
        let inbox = manager.get_or_create(&"acme".parse().unwrap()).await.unwrap().inbox().clone();
        let after = async |answers: Vec<Result<Vec<Kept>, StoreError>>| {
            let answers = Mutex::new(answers.into_iter());
            let read = inbox.polls(|| std::future::ready(answers.lock().next().expect("one more"))).await;
            (read.map(|polls| polls.len()), answers.lock().len())
        };
        let hiccup = || Err(StoreError::TransactionLost);
        assert_eq!(after(vec![hiccup(), hiccup(), Ok(vec![poll()])]).await, (Some(1), 0));
        assert_eq!(after(vec![hiccup(), Err(StoreError::Closed), Ok(vec![poll()])]).await, (None, 1));
        let damaged = StoreError::Damaged("a value".into());
        assert_eq!(after(vec![Err(damaged), Ok(vec![poll()])]).await, (Some(0), 1), "the vote is told all the same");
    }
}
