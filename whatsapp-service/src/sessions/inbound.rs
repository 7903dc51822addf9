//! What comes in: written down before WhatsApp is told that it arrived.

use std::sync::{Arc, Weak};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use utoipa::ToSchema;
use whatsapp_rust::{
    Client, InboundDurabilityHook, Jid, anyhow, async_trait, types::events::InboundMessage,
    wacore::proto_helpers::MessageExt, wacore_binary::JidExt, waproto::whatsapp as wa,
};

use super::session::Session;
use crate::{
    clock,
    store::{MessageStatus, Received},
};

/// Takes what one client receives into the event log of its session.
#[derive(Clone)]
pub struct Inbound(pub Weak<Session>);

impl Inbound {
    /// Takes in that a recipient has these messages. The library tells the server so as soon as this returns: when it is
    /// on the disk. Of very many at once, some are told before.
    pub fn receipt(&self, ids: Vec<String>, status: MessageStatus) {
        let Some(session) = self.0.upgrade() else { return };
        // Whoever waits here takes a thread.
        match session.around.blocking_receipts.clone().try_acquire_owned() {
            Ok(_turn) => {
                tokio::task::block_in_place(|| Handle::current().block_on(session.receipt(ids, status)));
            }
            Err(_) => drop(tokio::spawn(async move { session.receipt(ids, status).await })),
        }
    }

    /// Takes in messages that the library got from the account's own phone, past its hook, because it could not read
    /// what the server had.
    pub fn recovered<'a>(&self, batch: impl Iterator<Item = &'a InboundMessage>) {
        let recovered =
            batch.filter(|message| message.info.unavailable_request_id.is_some() && !message.info.source.is_from_me);
        let messages: Vec<_> = recovered.map(received).collect();
        if let Some(session) = self.0.upgrade().filter(|_| !messages.is_empty()) {
            tokio::spawn(async move { session.take_messages(messages).await });
        }
    }
}

impl Session {
    /// Puts messages into the event log, however long the disk takes. `None` when the process is about to end.
    async fn take_messages(&self, messages: Vec<Received>) -> Option<()> {
        self.persist(|| self.around.store.received(&self.tenant, messages.clone())).await
    }
}

#[async_trait]
impl InboundDurabilityHook for Inbound {
    async fn on_messages(&self, _: Arc<Client>, batch: &[InboundMessage]) -> anyhow::Result<()> {
        let Some(session) = self.0.upgrade() else { anyhow::bail!("the session is gone") };
        // What passes between one's own devices is in no log, and is not missed there.
        let from_others = batch.iter().filter(|message| !message.info.source.is_from_me);
        let messages: Vec<_> = from_others.map(received).collect();
        if messages.is_empty() {
            return Ok(());
        }
        // The library would try again only with the next connection.
        session.take_messages(messages).await.ok_or_else(|| anyhow::anyhow!("the process is about to end"))
    }
}

/// A message for the event log.
fn received(message: &InboundMessage) -> Received {
    let source = &message.info.source;
    let identity = [source.chat.to_string(), source.sender.to_string(), message.info.id.clone()];
    Received { identity, data: told(message) }
}

/// What is told of a message; `None` for what people don't see, for what goes to everybody (status posts, channels).
fn told(InboundMessage { message, info, .. }: &InboundMessage) -> Option<Value> {
    let source = &info.source;
    let to_all = source.chat.is_status_broadcast() || source.chat.is_newsletter();
    if to_all || is_technical(message) {
        return None;
    }
    let both = [Some(&source.sender), source.sender_alt.as_ref()];
    let user =
        |kind: fn(&Jid) -> bool| both.into_iter().flatten().find(|jid| kind(jid)).map(|jid| jid.user.to_string());
    let text = message.text_content();
    let told = ReceivedMessage {
        id: &info.id,
        kind: if text.is_some() { "text" } else { "unsupported" },
        text,
        from: user(Jid::is_pn),
        from_lid: user(Jid::is_lid),
        from_name: Some(info.push_name.as_str()).filter(|name| !name.is_empty()),
        chat: source.chat.to_non_ad().to_string(),
        timestamp: info.timestamp,
        offline: info.is_offline,
    };
    serde_json::to_value(told).ok()
}

/// What the event log says of a message that came in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedMessage<'a> {
    /// Its id at WhatsApp, chosen by the sender's device.
    id: &'a str,
    /// `text`, or `unsupported` for everything else.
    #[schema(pattern = "^(text|unsupported)$")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// The sender's phone number, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// WhatsApp's other name for the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_lid: Option<String>,
    /// The name that the sender goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_name: Option<&'a str>,
    chat: String,
    /// When it was sent, by WhatsApp's clock.
    #[serde(serialize_with = "clock::serialize")]
    timestamp: DateTime<Utc>,
    /// Whether it waited at WhatsApp while the session had no connection.
    offline: bool,
}

/// Whether a message is between devices only: keys, settings, synchronisation.
fn is_technical(message: &wa::Message) -> bool {
    let base = message.get_base_message();
    let content = wa::Message {
        protocol_message: Default::default(),
        sender_key_distribution_message: Default::default(),
        message_context_info: Default::default(),
        ..base.clone()
    };
    content == wa::Message::default()
}
