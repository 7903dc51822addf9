//! Messages that can't be read yet: phones show "Waiting for this message" in their place. The sender is asked to send it
//! again, or the account's own phone, which has it; then it is told like any other, with the same id.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};
use whatsapp_rust::{
    NackReason, NodeFilter,
    types::{
        events::UndecryptableMessage,
        message::{MessageCategory, MessageInfo},
    },
};

use crate::{
    model::event::EventKind,
    store::events::Received,
    whatsapp::{
        decode::{self, bounded::bounded},
        inbound::{Inbound, identity},
    },
};

/// How long the library may take to say that it can't make anything of a message.
const VERDICT_LIMIT: Duration = Duration::from_secs(30);
/// For how many messages at once that is waited for.
static VERDICTS: Semaphore = Semaphore::const_new(64);

impl Inbound {
    /// Takes in that there is a message, and that it can't be read. It is on the disk when this returns; only then the
    /// library asks for the message, and confirms this one.
    pub fn unreadable(&self, message: &UndecryptableMessage) {
        let info = &message.info;
        let why = &message.unavailable_type;
        if message.is_unavailable && why.is_unrecoverable_fanout() {
            return self.withheld(info, why.as_str());
        }
        // What one's own devices tell each other is no message.
        if info.category == MessageCategory::Peer {
            return;
        }
        let (Some(receiver), Some(envelope)) = (self.receiver.upgrade(), decode::envelope(info)) else { return };
        if !message.is_unavailable {
            self.tell_if_malformed(info);
        }
        let (identity, data) = (identity(info), bounded(json!(envelope)));
        self.before_it_is_confirmed(async move { receiver.once(identity, EventKind::MessagePlaceholder, data).await });
    }

    /// A message that was decrypted, and that the library can't make anything of (in too many wrappers, for one), comes
    /// here as one that could not be decrypted. It differs in what the library answers: a refusal, for good.
    fn tell_if_malformed(&self, info: &Arc<MessageInfo>) {
        let (Some(receiver), Some(client)) = (self.receiver.upgrade(), self.wire.client()) else { return };
        let (Ok(turn), Some(data)) = (VERDICTS.try_acquire(), decode::malformed(info)) else { return };
        let code = NackReason::InvalidProtobuf.code().to_string();
        // It follows when this returns: before it can come, somebody waits for it.
        let refused = client.wait_for_sent_node(
            NodeFilter::tag("ack").attr("class", "message").attr("id", info.id.as_str()).attr("error", code.as_str()),
        );
        let message =
            Received { identity: identity(info), data: Some(data), own: info.source.is_from_me, ..Received::default() };
        tokio::spawn(async move {
            let _turn = turn;
            if let Ok(Ok(_)) = timeout(VERDICT_LIMIT, refused).await {
                receiver.message(message).await;
            }
        });
    }
}
