//! Messages that a kill has lost between their decryption and the disk are asked for again.
//!
//! The library writes the state of its ciphers and the messages that they have decrypted one after the other. A kill in
//! between leaves a message that can't be decrypted a second time; when WhatsApp hands it over again, the library takes
//! it for one that it knows. It looks for the message in its store first, and the store asks here.

use whatsapp_rust::{
    Jid, RetryRequestOptions,
    wacore_binary::{JidExt, builder::NodeBuilder},
};

use crate::session::inbox::Inbox;

impl Inbox {
    /// Whether a message that the library has decrypted before is in no event log; then its sender is asked to send it
    /// again.
    pub(crate) async fn recall(&self, identity: [String; 3]) -> bool {
        let Some(client) = self.connection.client() else { return false };
        let [chat, sender, id] = &identity;
        let (Ok(from), Ok(author)) = (chat.parse::<Jid>(), sender.parse::<Jid>()) else { return false };
        let own = [client.pn(), client.lid()];
        let is_own = |jid: &Jid| own.iter().flatten().any(|own| own.user == jid.user);
        // What passes between one's own devices is not in the log.
        if is_own(&from) {
            return false;
        }
        let store = &self.store;
        if !store.is_lost(&self.connection.tenant, identity.clone()).await.unwrap_or(true) {
            return false;
        }
        let node = NodeBuilder::new("message").attr("id", id.as_str()).attr("type", "text");
        let node = node.attr("t", self.connection.now().timestamp());
        let node = if from.user == author.user {
            node.attr("from", author)
        } else if is_own(&author) && !from.is_group() {
            node.attr("from", author).attr("recipient", from)
        } else {
            node.attr("from", from).attr("participant", author)
        };
        let node = node.build();
        tracing::warn!(tenant = %self.connection.tenant, "a message was lost by a kill; its sender is asked to send it again");
        // Not here: the library holds locks of this chat.
        tokio::spawn(async move {
            let _ = client.request_message_retry(&node.as_node_ref(), RetryRequestOptions::new()).await;
        });
        true
    }
}
