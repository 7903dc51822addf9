//! What comes in: written down before WhatsApp is told that it arrived.

pub mod calls;
pub mod permission;
pub mod placeholders;

use std::sync::{Arc, Weak};

use chrono::TimeDelta;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};
use whatsapp_rust::{
    Client, InboundDurabilityHook, Jid, OwnedNodeRef, anyhow, async_trait,
    types::{events::InboundMessage, message::MessageInfo},
    waproto::whatsapp::message::PollUpdateMessage,
};

use crate::{
    model::message::MessageStatus,
    session::{
        connection::Connection,
        inbox::calls::Calls,
        limits::AccountLimits,
        outbox::Outbox,
        retries::{Retries, author},
        timers::Timers,
    },
    store::{
        Store, StoreError,
        events::Received,
        kept::{Kept, KeptFor},
    },
    whatsapp::{
        decode::{Told, bounded::bounded, told, vote},
        timers::learnt,
        transport::ClientCell,
    },
};

/// Takes what one client receives into the event log of its session.
#[derive(Clone)]
pub struct Inbound {
    /// Where it is written down.
    pub inbox: Weak<Inbox>,
    /// The client, and its connection.
    pub wire: ClientCell,
}

impl Inbound {
    /// Takes in that somebody's device says to have these messages. The library tells the server that this arrived as
    /// soon as this returns: when it is on the disk. Of very many at once, some are told before.
    pub fn receipt(&self, by: &Jid, ids: Vec<String>, status: MessageStatus) {
        let (Some(inbox), Some(client)) = (self.inbox.upgrade(), self.wire.client()) else { return };
        let by = by.clone();
        self.before_it_is_confirmed(async move { inbox.outbox.receipt(author(&client, &by).await, ids, status).await });
    }

    /// Takes in that a device could not read a message. The library tells the server that this arrived as soon as this
    /// returns: when it is on the disk, or when the connection is no more.
    pub fn asked_again(&self, receipt: &OwnedNodeRef) {
        let (Some(inbox), Some(client)) = (self.inbox.upgrade(), self.wire.client()) else { return };
        let noted = inbox.retries.asked_again(&client, receipt.get());
        if let Err(error) = tokio::task::block_in_place(|| Handle::current().block_on(noted)) {
            // WhatsApp hands it over again on the next connection.
            self.wire.cut();
            if !matches!(error, StoreError::Closed) {
                (inbox.trouble)(&error);
            }
        }
    }

    /// Takes in that there is a message that WhatsApp shows only on the phone, such as one to be looked at once. It is
    /// confirmed to the server as soon as this returns, like a receipt.
    pub fn withheld(&self, info: &MessageInfo, why: &str) {
        let Some(inbox) = self.inbox.upgrade() else { return };
        let Some(data) = crate::whatsapp::decode::withheld(info, why) else { return };
        let own = info.source.is_from_me;
        let message = Received { identity: identity(info), data: Some(data), own, ..Received::default() };
        self.before_it_is_confirmed(async move {
            inbox.connection.persist(|| inbox.store.received(&inbox.connection.tenant, vec![message.clone()])).await;
        });
    }

    /// WhatsApp says by itself what the account may do now.
    pub fn limits_changed(&self, operation: &str, said: &serde_json::Value) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.limits.changed(operation, said);
        }
    }

    fn before_it_is_confirmed(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(inbox) = self.inbox.upgrade() else { return };
        // Whoever waits here takes a thread.
        match inbox.blocking_receipts.clone().try_acquire_owned() {
            Ok(_turn) => tokio::task::block_in_place(|| Handle::current().block_on(work)),
            Err(_) => drop(tokio::spawn(work)),
        }
    }

    /// Takes in messages that the library got from the account's own phone, past its hook, because it could not read
    /// what the server had.
    pub fn recovered<'a>(&self, batch: impl Iterator<Item = &'a InboundMessage>) {
        let recovered = batch.filter(|message| message.info.unavailable_request_id.is_some());
        let messages: Vec<_> = recovered.cloned().collect();
        if let Some(inbox) = self.inbox.upgrade().filter(|_| !messages.is_empty()) {
            let client = self.wire.client();
            tokio::spawn(async move { inbox.take_messages(client.as_ref(), &messages).await });
        }
    }
}

/// What comes in for one session, on its way to the event log.
pub struct Inbox {
    pub(crate) connection: Arc<Connection>,
    pub(crate) store: Arc<Store>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) retries: Arc<Retries>,
    pub(crate) limits: Arc<AccountLimits>,
    pub(crate) timers: Arc<Timers>,
    /// Calls that ring.
    pub(crate) calls: Mutex<Calls>,
    /// How many receipts may hold a thread until they are on the disk.
    pub(crate) blocking_receipts: Arc<Semaphore>,
    /// How long events are kept.
    pub(crate) event_retention: TimeDelta,
    /// What can't be written down is the session's affair.
    pub(crate) trouble: Box<dyn Fn(&StoreError) + Send + Sync>,
}

impl Inbox {
    /// Puts messages into the event log, however long the disk takes. `None` when the process is about to end.
    async fn take_messages(&self, client: Option<&Arc<Client>>, batch: &[InboundMessage]) -> Option<()> {
        let until = self.connection.now() + self.event_retention;
        let mut messages: Vec<Received> = Vec::with_capacity(batch.len());
        for message in batch {
            let source = &message.info.source;
            let chosen = match vote(&message.message) {
                Some(vote) => self.chosen(vote, message, &messages).await?,
                None => None,
            };
            let (mut data, kept) = told(message, chosen).map(|Told { data, kept }| (bounded(data), kept)).unzip();
            if let Some(told) = &data
                && !self.permits(client, message, told, &messages).await?
            {
                data = crate::whatsapp::decode::withheld(&message.info, "not_allowed");
            }
            let identity = identity(&message.info);
            let kept = kept.flatten().map(|kept| (kept, until));
            let timer = learnt(crate::whatsapp::decode::unwrapped(&message.message), &message.info);
            messages.push(Received { identity, data, own: source.is_from_me, kept, timer });
        }
        if messages.iter().any(|message| message.timer.is_some()) {
            self.timers.learn();
        }
        if messages.is_empty() {
            return Some(());
        }
        self.connection.persist(|| self.store.received(&self.connection.tenant, messages.clone())).await
    }

    /// What a vote chose, if its poll is known: it may have come just before, in the same batch. One that can't be read is
    /// told all the same. `None` when the process is about to end.
    async fn chosen(
        &self,
        vote: &PollUpdateMessage,
        message: &InboundMessage,
        before: &[Received],
    ) -> Option<Option<Vec<String>>> {
        let id = vote.poll_creation_message_key.id.as_deref().unwrap_or_default();
        let mut polls = self.polls(|| self.store.kept(&self.connection.tenant, id)).await?;
        let just_now = before.iter().filter_map(|one| one.kept.as_ref()).map(|(kept, _)| kept);
        polls.extend(just_now.filter(|kept| kept.id == id).cloned());
        let of = |kept: &Kept| match &kept.what {
            KeptFor::Votes(poll) => crate::whatsapp::decode::votes::chosen(vote, &message.info, id, poll),
            KeptFor::Media(_) => None,
        };
        Some(polls.iter().find_map(of))
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

/// What makes a message this one: chat, sender and id.
fn identity(info: &MessageInfo) -> [String; 3] {
    [info.source.chat.to_string(), info.source.sender.to_string(), info.id.clone()]
}

#[async_trait]
impl InboundDurabilityHook for Inbound {
    async fn on_messages(&self, client: Arc<Client>, batch: &[InboundMessage]) -> anyhow::Result<()> {
        let Some(inbox) = self.inbox.upgrade() else { anyhow::bail!("the session is gone") };
        // The library would try again only with the next connection.
        inbox.take_messages(Some(&client), batch).await.ok_or_else(|| anyhow::anyhow!("the process is about to end"))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{manager::Manager, store::kept::PollKey};

    fn poll() -> Kept {
        let what = KeptFor::Votes(PollKey { secret: vec![1; 32], creators: Vec::new(), options: Vec::new() });
        Kept { at: 0, chat: "chat".into(), sender: "sender".into(), id: "poll".into(), from_me: false, what }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_is_read_until_the_disk_gives_it() {
        let data = tempfile::TempDir::new().unwrap();
        let manager = Manager::of_test(data.path());
        let inbox = manager.get_or_create(&"acme".parse().unwrap()).inbox().clone();
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
