//! One attempt to send one message, and what came of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};
use whatsapp_rust::{Client, Jid, NodeFilter, cache::Freshness, send::SendOptions, wacore_binary::Node};

use super::{
    content::{self, Way},
    events::Ack,
    recipient::Recipient,
    session::Session,
};
use crate::store::{Content, Message, Referred};

/// A message that the server acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When the server took it, by its own clock.
    pub timestamp: DateTime<Utc>,
    /// The number that WhatsApp knows the recipient by.
    pub to: String,
}

/// Why an attempt did not end with the server's acknowledgement.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsent {
    /// It did not leave, because the session can't send now.
    NotReady,
    /// It did not leave. Another attempt may succeed.
    NotSent,
    /// It did not leave, because the session is linked with another account than the one that it was meant for.
    OtherAccount,
    /// Nobody is registered under this number.
    NotOnWhatsApp,
    /// It left, but encrypted for none of the recipient's devices.
    ReachedNobody { to: String },
    /// The server refused it with this code.
    Rejected { to: String, code: String },
    /// It may or may not have left, and the server has not said a word.
    Unknown,
}

impl Session {
    /// Sends what a message says under its id, from its account if one is named, and waits for the server to acknowledge
    /// it: at most for `limit`, and no longer than the connection lasts. `fresh` asks the server for the recipient's
    /// devices anew.
    pub(super) async fn attempt(
        &self,
        Message { id, account, accepted_at, .. }: &Message,
        to: &Recipient,
        said: &Content,
        fresh: bool,
        limit: Duration,
    ) -> Result<Sent, Unsent> {
        let deadline = Instant::now() + limit;
        let client = self.ready_client().ok_or(Unsent::NotReady)?;
        let own = client.pn().filter(|own| account.as_deref().is_none_or(|account| own.user == account));
        let own = own.ok_or(Unsent::OtherAccount)?;
        let lost = self.connection_lost();
        tokio::pin!(lost);
        let found = tokio::select! {
            found = timeout_at(deadline, self.find(&client, to)) => found,
            () = &mut lost => return Err(Unsent::NotReady),
        };
        let jid = found.unwrap_or(Err(Unsent::NotSent))?;
        let number = || if jid.is_pn() { jid.user.to_string() } else { to.digits().into() };
        if number() != to.digits() {
            // Before any receipt can be, as writes keep their order.
            drop(self.around.store.number(&self.tenant, id, &number()));
        }
        let referred = self.referred(said, to).await.map_err(|_| Unsent::NotSent)?;
        // Their name for us is of the same sort as ours for them.
        let own = client.lid().filter(|_| jid.is_lid()).unwrap_or(own);
        let said_before = match (&said.reply_to, &referred) {
            (Some(id), Some(Referred::Own(_))) => self.said_before(&client, &jid, id).await,
            _ => None,
        };
        let timer = self.timer(&client, &jid).await.map_err(|_| Unsent::NotSent)?;
        let (accepted_at, referred) = (*accepted_at, referred.as_ref());
        let way = Way { chat: &jid, own: &own, accepted_at, referred, said_before, timer };
        let message = content::message(said, &way);
        // Both are asked for before the message goes, because the answers may come at once.
        let ack = self.mailbox.expect_ack(id);
        let mut written = client.wait_for_sent_node(NodeFilter::tag("message").attr("id", id.as_str()));
        let freshness = if fresh { Freshness::Refresh } else { Freshness::CachePreferred };
        let options = SendOptions::default().with_message_id(id.as_str()).with_device_freshness(freshness);
        let sending = async {
            // What the library says of a failure is not repeated: it may name people.
            client.send_message_with_options(jid.clone(), message, options).await.map_err(drop)?;
            Ok::<_, ()>(ack.await.ok())
        };
        let outcome = tokio::select! {
            outcome = timeout_at(deadline, sending) => outcome.ok(),
            () = &mut lost => None,
        };
        // Only now, when nothing can make the stanza any more, its absence means that there was none.
        let stanza = written.try_recv();
        match outcome {
            Some(Ok(Some(Ack { error: Some(code), .. }))) => Err(Unsent::Rejected { to: number(), code }),
            // The server acknowledges such a one too.
            _ if matches!(&stanza, Ok(Some(stanza)) if !is_for(stanza, &client, &jid)) => {
                Err(Unsent::ReachedNobody { to: number() })
            }
            Some(Ok(Some(Ack { timestamp, .. }))) => {
                Ok(Sent { timestamp: timestamp.unwrap_or_else(|| self.now()), to: number() })
            }
            // From here on all depends on whether the stanza was made: only then can it have reached the wire. When a
            // connection ends, the library forgets who waits to see a stanza, and may make it all the same.
            Some(Err(())) | None if matches!(stanza, Ok(None)) => Err(Unsent::NotSent),
            _ => Err(Unsent::Unknown),
        }
    }

    async fn find(&self, client: &Client, to: &Recipient) -> Result<Jid, Unsent> {
        let found = self.numbers.resolve(client, to).await.map_err(|_| Unsent::NotSent)?;
        let jid = found.ok_or(Unsent::NotOnWhatsApp)?;
        // An account without devices would be sent nothing, and the server would acknowledge that.
        let devices = client.signal().get_user_devices(std::slice::from_ref(&jid)).await;
        match devices.map_err(|_| Unsent::NotSent)?.as_slice() {
            [] => Err(Unsent::NotOnWhatsApp),
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
