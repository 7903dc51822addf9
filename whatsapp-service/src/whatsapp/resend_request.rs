//! Messages that a kill has lost between their decryption and the disk are asked for again.
//!
//! The library writes the state of its ciphers and the messages that they have decrypted one after the other. A kill in
//! between leaves a message that can't be decrypted a second time; when WhatsApp hands it over again, the library takes
//! it for one that it knows. It looks for the message in its store first, and the store asks here.

use whatsapp_rust::{
    Jid, RetryRequestOptions,
    wacore_binary::{JidExt, builder::NodeBuilder},
};

use chrono::{DateTime, Utc};

use crate::whatsapp::client::Client;

/// A message that the library has decrypted before, and that WhatsApp hands over again.
pub struct Again {
    client: Client,
    chat: Jid,
    author: Jid,
    id: String,
}

impl Again {
    /// The one with this chat, sender and id; nothing of what passes between one's own devices: that is not in the log.
    pub fn of(client: Client, [chat, sender, id]: &[String; 3]) -> Option<Self> {
        let (chat, author) = (chat.parse::<Jid>().ok()?, sender.parse::<Jid>().ok()?);
        let is_between_own = is_own(&client, &chat);
        (!is_between_own).then(|| Self { client, chat, author, id: id.clone() })
    }

    /// Asks its sender to send it again.
    pub fn ask_for(self, now: DateTime<Utc>) {
        let Self { client, chat: from, author, id } = self;
        let node = NodeBuilder::new("message").attr("id", id.as_str()).attr("type", "text");
        let node = node.attr("t", now.timestamp());
        let node = if from.user == author.user {
            node.attr("from", author)
        } else if is_own(&client, &author) && !from.is_group() {
            node.attr("from", author).attr("recipient", from)
        } else {
            node.attr("from", from).attr("participant", author)
        };
        let node = node.build();
        // Not here: the library holds locks of this chat.
        tokio::spawn(async move {
            let options = RetryRequestOptions::new();
            let _ = client.library().request_message_retry(&node.as_node_ref(), options).await;
        });
    }
}

fn is_own(client: &Client, jid: &Jid) -> bool {
    client.own().iter().flatten().any(|own| own.user == jid.user)
}
