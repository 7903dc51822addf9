//! Sending a message, and telling what became of it.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};
use whatsapp_rust::{
    Client, Jid, NodeFilter, send::SendOptions, wacore::proto_helpers::MessageBuilderExt, wacore_binary::Node,
    waproto::whatsapp as wa,
};

use super::{events::Ack, recipient::Recipient, session::Session, state::State};

/// A message that the server acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    /// WhatsApp's id of the message.
    pub id: String,
    /// When the server took it, by its own clock.
    pub timestamp: DateTime<Utc>,
    /// The number that WhatsApp knows the recipient by.
    pub to: String,
}

/// Why a message was not sent, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// The session can't send now. Nothing was sent.
    #[error("the session is {}", .0.as_str())]
    NotReady(State),
    /// Nobody is registered under this number. Nothing was sent.
    #[error("this number is not on WhatsApp")]
    NotOnWhatsApp,
    /// The server did not say whether the number is registered. Nothing was sent.
    #[error("the number could not be looked up: {0}")]
    LookupFailed(String),
    /// The message did not leave this process.
    #[error("the message was not sent: {0}")]
    NotSent(String),
    /// It left, but encrypted for none of the recipient's devices.
    #[error("the message could not be encrypted for any device of the recipient")]
    ReachedNobody {
        /// The message's id.
        id: String,
    },
    /// The server refused it with this code.
    #[error("WhatsApp refused the message with code {code}")]
    Rejected {
        /// The message's id.
        id: String,
        /// WhatsApp's code.
        code: String,
    },
    /// It may or may not have been sent.
    #[error("WhatsApp did not acknowledge the message in time")]
    Unknown {
        /// The message's id.
        id: String,
    },
}

impl Session {
    /// Sends a text and waits, at most `limit` in all, for the server to acknowledge it.
    pub async fn send_text(&self, to: &Recipient, text: String, limit: Duration) -> Result<Sent, SendFailure> {
        let deadline = Instant::now() + limit;
        let client = self.ready_client().ok_or_else(|| SendFailure::NotReady(self.snapshot().state))?;
        let jid = match timeout_at(deadline, self.find(&client, to)).await {
            Ok(found) => found?,
            Err(_) => return Err(SendFailure::LookupFailed("no answer in time".into())),
        };
        let id = client.generate_message_id();
        // Both are asked for before the message goes, because the answers may come at once.
        let ack = self.mailbox.expect_ack(&id);
        let mut written = client.wait_for_sent_node(NodeFilter::tag("message").attr("id", &id));
        let options = SendOptions::default().with_message_id(&id);
        let sending = async {
            let message = wa::Message::text(text);
            client.send_message_with_options(jid.clone(), message, options).await.map_err(|error| error.to_string())?;
            Ok(ack.await.ok())
        };
        let outcome = timeout_at(deadline, sending).await;
        // Only now, when nothing can make the stanza any more, its absence means that there was none.
        let stanza = written.try_recv();
        match outcome {
            Ok(Ok(Some(Ack { error: Some(code), .. }))) => Err(SendFailure::Rejected { id, code }),
            Ok(Ok(Some(_))) if matches!(&stanza, Ok(Some(stanza)) if !is_for(stanza, &client, &jid)) => {
                Err(SendFailure::ReachedNobody { id })
            }
            Ok(Ok(Some(Ack { timestamp, .. }))) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                Ok(Sent {
                    id,
                    timestamp: timestamp.unwrap_or_else(Utc::now),
                    to: if jid.is_pn() { jid.user.to_string() } else { to.digits().into() },
                })
            }
            // From here on all depends on whether the stanza was made: only then can it have reached the wire. When a
            // connection ends, the library forgets who waits to see a stanza, and may make it all the same.
            Ok(Err(why)) if matches!(stanza, Ok(None)) => Err(SendFailure::NotSent(why)),
            Err(_) if matches!(stanza, Ok(None)) => Err(SendFailure::NotSent("WhatsApp was too slow".into())),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(SendFailure::Unknown { id }),
        }
    }

    async fn find(&self, client: &Client, to: &Recipient) -> Result<Jid, SendFailure> {
        let found = self.numbers.resolve(client, to).await.map_err(SendFailure::LookupFailed)?;
        let jid = found.ok_or(SendFailure::NotOnWhatsApp)?;
        // An account without devices would be sent nothing, and the server would acknowledge that.
        let devices = client.signal().get_user_devices(std::slice::from_ref(&jid)).await;
        match devices.map_err(|error| SendFailure::LookupFailed(error.to_string()))?.as_slice() {
            [] => Err(SendFailure::NotOnWhatsApp),
            _ => Ok(jid),
        }
    }
}

/// Whether a message holds something for a device of `recipient`. The library also sends, and the server also
/// acknowledges, a message that is encrypted for one's own other devices only.
fn is_for(stanza: &Node, client: &Client, recipient: &Jid) -> bool {
    let Some(participants) = stanza.get_optional_child("participants") else {
        return stanza.get_optional_child("enc").is_some();
    };
    let own = [client.pn(), client.lid()];
    let to_self = own.iter().flatten().any(|jid| jid.user == recipient.user);
    let is_own = |jid: &Jid| own.iter().flatten().any(|own| own.user == jid.user);
    let mut devices = participants.get_children_by_tag("to").filter_map(|to| to.attrs().optional_jid("jid"));
    devices.any(|jid| to_self || !is_own(&jid))
}
