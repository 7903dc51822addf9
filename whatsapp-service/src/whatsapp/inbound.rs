//! What a client receives, on its way to those who write it down. The library tells WhatsApp's server that something
//! arrived as soon as it was handed over here: by then it has to be on the disk.

use std::sync::{Arc, Weak};
use whatsapp_rust::wacore_binary::JidExt;

use serde_json::Value;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};
use whatsapp_rust::{
    Client as LibraryClient, InboundDurabilityHook, Jid, OwnedNodeRef, anyhow, async_trait,
    types::{events::InboundMessage, message::MessageInfo},
};

use crate::{
    model::{
        event::EventKind,
        message::{Author, MessageStatus},
    },
    store::{
        error::StoreError,
        events::Received,
        kept::{Kept, KeptFor},
        timers::ChatTimer,
    },
    whatsapp::{
        client::Client,
        decode::{self, Told, bounded::bounded, told, vote, votes},
        events::Mailbox,
        retry::{RetryReceipt, author, names_of},
        timers,
        transport::ClientCell,
    },
};

/// Who writes down what comes in for one session. What a method has been given is on the disk when it returns, unless the
/// process is about to end.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Messages, in the order in which they came. Says whether they were written down.
    async fn messages(&self, client: Option<&Client>, batch: &[Incoming]) -> bool;
    /// A message of which all is known that can be told.
    async fn message(&self, message: Received);
    /// Something that is told once, whatever it is.
    async fn once(&self, identity: [String; 3], kind: EventKind, data: Value);
    /// Somebody's device has these messages, or they were read.
    async fn receipt(&self, by: Author, ids: Vec<String>, status: MessageStatus);
    /// A device could not read a message.
    async fn retry(&self, receipt: RetryReceipt) -> Result<(), StoreError>;
    /// A message that the library has decrypted before came again. Says whether it was lost.
    async fn is_lost(&self, identity: [String; 3]) -> bool;
    /// WhatsApp says by itself what the account may do.
    fn limits_changed(&self, operation: &str, said: &Value);
    /// The right to hold a thread until something is on the disk, if there is one left.
    fn hold_thread(&self) -> Option<OwnedSemaphorePermit>;
    /// The disk does not accept what the connection is for.
    fn storage_failed(&self, error: &StoreError);
}

/// A message that came in.
#[derive(Clone)]
pub struct Incoming(InboundMessage);

/// Who wrote a message, and where.
pub struct Speaker {
    /// Their addresses.
    pub names: Vec<String>,
    /// Whether it is the account itself, on another device.
    pub is_own: bool,
    /// The chat's addresses: of a chat with one person those of that person.
    pub chat: Vec<String>,
    /// Whether several people write there.
    pub is_group: bool,
}

impl Incoming {
    /// What makes a message this one: chat, sender and id.
    pub fn identity(&self) -> [String; 3] {
        identity(&self.0.info)
    }

    /// Whether the account wrote it itself.
    pub fn is_own(&self) -> bool {
        self.0.info.source.is_from_me
    }

    /// The id of the poll that it is a vote on, if it is one.
    pub fn poll(&self) -> Option<&str> {
        let vote = vote(&self.0.message)?;
        Some(vote.poll_creation_message_key.id.as_deref().unwrap_or_default())
    }

    /// What it chose, if it is a vote on this poll.
    pub fn chosen(&self, poll: &Kept) -> Option<Vec<String>> {
        match &poll.what {
            KeptFor::Votes(key) => votes::chosen(vote(&self.0.message)?, &self.0.info, self.poll()?, key),
            KeptFor::Media(_) => None,
        }
    }

    /// What is told of it, and what is kept beside that; nothing of what people don't see.
    pub fn told(&self, chosen: Option<Vec<String>>) -> Option<(Value, Option<Kept>)> {
        told(&self.0, chosen).map(|Told { data, kept }| (bounded(data), kept))
    }

    /// What is told of it without what it says, and why.
    pub fn withheld(&self, why: &str) -> Option<Value> {
        decode::withheld(&self.0.info, why)
    }

    /// What it says of its chat's timer.
    pub fn timer(&self) -> Option<ChatTimer> {
        timers::learnt(decode::unwrapped(&self.0.message), &self.0.info)
    }

    /// Who wrote it, and where.
    pub async fn speaker(&self, client: Option<&Client>) -> Speaker {
        speaker(client.map(Client::library), &self.0).await
    }
}

async fn speaker(client: Option<&Arc<LibraryClient>>, message: &InboundMessage) -> Speaker {
    let source = &message.info.source;
    let names = async |known: [Option<&Jid>; 3]| {
        let mut names = Vec::new();
        for jid in known.into_iter().flatten() {
            match client {
                Some(client) => names.extend(names_of(client, jid).await),
                None => names.push(jid.to_non_ad().to_string()),
            }
        }
        names
    };
    let own = names([Some(&source.sender), source.sender_alt.as_ref(), None]).await;
    let (is_own, is_group) = (source.is_from_me, source.chat.is_group());
    let chat = if is_group {
        vec![source.chat.to_string()]
    } else if is_own {
        names([Some(&source.chat), source.recipient_alt.as_ref(), message.info.peer_recipient_pn.as_ref()]).await
    } else {
        own.clone()
    };
    Speaker { names: own, is_own, chat, is_group }
}

/// Takes what one client receives into the event log of its session.
#[derive(Clone)]
pub struct Inbound {
    /// Who writes it down.
    pub receiver: Weak<dyn Receiver>,
    /// What is known from one client of the session to the next.
    pub mailbox: Arc<Mailbox>,
    /// The client, and its connection.
    pub wire: ClientCell,
}

impl Inbound {
    /// Takes in that somebody's device says to have these messages. The library tells the server that this arrived as
    /// soon as this returns: when it is on the disk. Of very many at once, some are told before.
    pub fn receipt(&self, by: &Jid, ids: Vec<String>, status: MessageStatus) {
        let (Some(receiver), Some(client)) = (self.receiver.upgrade(), self.wire.client()) else { return };
        let by = by.clone();
        self.before_it_is_confirmed(async move { receiver.receipt(author(&client, &by).await, ids, status).await });
    }

    /// Takes in that a device could not read a message. The library tells the server that this arrived as soon as this
    /// returns: when it is on the disk, or when the connection is no more.
    pub fn asked_again(&self, receipt: &OwnedNodeRef) {
        let (Some(receiver), Some(client)) = (self.receiver.upgrade(), self.wire.client()) else { return };
        let client = Client::new(client);
        let noted = async {
            match RetryReceipt::read(&client, receipt.get()).await {
                Some(receipt) => receiver.retry(receipt).await,
                None => Ok(()),
            }
        };
        if let Err(error) = tokio::task::block_in_place(|| Handle::current().block_on(noted)) {
            // WhatsApp hands it over again on the next connection.
            self.wire.cut();
            if !matches!(error, StoreError::Closed) {
                receiver.storage_failed(&error);
            }
        }
    }

    /// Takes in that there is a message that WhatsApp shows only on the phone, such as one to be looked at once. It is
    /// confirmed to the server as soon as this returns, like a receipt.
    pub fn withheld(&self, info: &MessageInfo, why: &str) {
        let Some(receiver) = self.receiver.upgrade() else { return };
        let Some(data) = decode::withheld(info, why) else { return };
        let own = info.source.is_from_me;
        let message = Received { identity: identity(info), data: Some(data), own, ..Received::default() };
        self.before_it_is_confirmed(async move { receiver.message(message).await });
    }

    /// WhatsApp says by itself what the account may do now.
    pub fn limits_changed(&self, operation: &str, said: &Value) {
        if let Some(receiver) = self.receiver.upgrade() {
            receiver.limits_changed(operation, said);
        }
    }

    pub(in crate::whatsapp) fn before_it_is_confirmed(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(receiver) = self.receiver.upgrade() else { return };
        // Whoever waits here takes a thread.
        match receiver.hold_thread() {
            Some(_thread) => tokio::task::block_in_place(|| Handle::current().block_on(work)),
            None => drop(tokio::spawn(work)),
        }
    }

    /// Takes in messages that the library got from the account's own phone, past its hook, because it could not read
    /// what the server had.
    pub fn recovered<'a>(&self, batch: impl Iterator<Item = &'a InboundMessage>) {
        let recovered = batch.filter(|message| message.info.unavailable_request_id.is_some());
        let messages: Vec<_> = recovered.cloned().map(Incoming).collect();
        if let Some(receiver) = self.receiver.upgrade().filter(|_| !messages.is_empty()) {
            let client = self.wire.client().map(Client::new);
            tokio::spawn(async move { receiver.messages(client.as_ref(), &messages).await });
        }
    }
}

/// What makes a message this one: chat, sender and id.
pub(in crate::whatsapp) fn identity(info: &MessageInfo) -> [String; 3] {
    [info.source.chat.to_string(), info.source.sender.to_string(), info.id.clone()]
}

#[async_trait]
impl InboundDurabilityHook for Inbound {
    async fn on_messages(&self, client: Arc<LibraryClient>, batch: &[InboundMessage]) -> anyhow::Result<()> {
        let Some(receiver) = self.receiver.upgrade() else { anyhow::bail!("the session is gone") };
        let batch: Vec<_> = batch.iter().cloned().map(Incoming).collect();
        // The library would try again only with the next connection.
        anyhow::ensure!(receiver.messages(Some(&Client::new(client)), &batch).await, "the process is about to end");
        Ok(())
    }
}
