//! One attempt to send one message, and what came of it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout, timeout_at};
use whatsapp_rust::{Client, Jid, NodeFilter, cache::Freshness, send::SendOptions, wacore_binary::Node};

use crate::{
    model::{
        address::{Names, Person},
        content::Content,
        message::Message,
    },
    session::{events::Ack, outbox::Outbox},
    store::referred::Referred,
    whatsapp::{
        encode::{self, Way},
        lookup,
    },
};

/// How many people are looked up at most before a message leaves that could be for one of them.
const STRANGERS: usize = 16;
/// How long that may take.
const STRANGERS_LIMIT: Duration = Duration::from_secs(5);

/// Whom a message is for, as WhatsApp has them.
#[derive(Clone, Debug)]
pub struct Found {
    /// The address to send to.
    pub jid: Jid,
    /// The names that are known.
    pub names: Names,
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
    /// Nobody is registered under this address.
    NotOnWhatsApp,
    /// It left, but encrypted for none of the recipient's devices.
    ReachedNobody,
    /// The server refused it with this code.
    Rejected(String),
    /// It may or may not have left, and the server has not said a word.
    Unknown,
}

impl Outbox {
    /// Finds out whom a message is for, until `deadline` at most, and no longer than the connection lasts. By then the lane
    /// knows all their names, and the message shows them.
    pub(crate) async fn find(&self, message: &Message, deadline: Instant) -> Result<Found, Unsent> {
        let (client, _) = self.sender_of(message)?;
        let to = Person::kept(&message.recipient).ok_or(Unsent::NotOnWhatsApp)?;
        let found = tokio::select! {
            found = timeout_at(deadline, self.look_for(&client, &to, message.row)) => found,
            () = self.connection.lost() => return Err(Unsent::NotReady),
        };
        let found = found.unwrap_or(Err(Unsent::NotSent))?;
        self.join(&to, &found.names);
        if !message.shows(&found.names) {
            // Before any receipt can be, as writes keep their order.
            drop(self.store.names(&self.tenant, &message.id, found.names.clone()));
        }
        Ok(found)
    }

    async fn look_for(&self, client: &Client, to: &Person, row: i64) -> Result<Found, Unsent> {
        let names = self.numbers.resolve(client, to).await.map_err(|_| Unsent::NotSent)?;
        let mut names = names.ok_or(Unsent::NotOnWhatsApp)?;
        let jid = lookup::jid(to, &names);
        // An account without devices would be sent nothing, and the server would acknowledge that.
        let devices = client.signal().get_user_devices(std::slice::from_ref(&jid)).await;
        if devices.map_err(|_| Unsent::NotSent)?.is_empty() {
            return Err(Unsent::NotOnWhatsApp);
        }
        if names.number.is_none() {
            // One of the numbers that messages before this one go to may be theirs.
            let _ = timeout(STRANGERS_LIMIT, self.look_at_strangers(client, row)).await;
            names = lookup::with_learned(client, names).await;
        }
        Ok(Found { jid, names })
    }

    /// Asks for the names of those to whom earlier messages go by numbers of which nothing else is known yet. Who is asked
    /// for already is not asked for twice.
    async fn look_at_strangers(&self, client: &Client, row: i64) {
        let strangers = self.queue.lock().strangers_before(row, STRANGERS);
        for stranger in &strangers {
            if let Ok(Some(names)) = self.numbers.resolve(client, stranger).await {
                self.join(stranger, &names);
            }
        }
    }

    /// The client to send a message with, and its account.
    fn sender_of(&self, Message { account, .. }: &Message) -> Result<(Arc<Client>, Jid), Unsent> {
        let client = self.connection.ready_client().ok_or(Unsent::NotReady)?;
        let own = client.pn().filter(|own| account.as_deref().is_none_or(|account| own.user == account));
        Ok((client, own.ok_or(Unsent::OtherAccount)?))
    }

    /// Sends what a message says under its id, from its account if one is named, and waits for the server to acknowledge
    /// it: until `deadline` at most, and no longer than the connection lasts. `fresh` asks the server for the recipient's
    /// devices anew. Returns when the server took it, by its own clock.
    pub(crate) async fn attempt(
        &self,
        message: &Message,
        Found { jid, names }: &Found,
        said: &Content,
        fresh: bool,
        deadline: Instant,
    ) -> Result<DateTime<Utc>, Unsent> {
        let (client, own) = self.sender_of(message)?;
        let (id, accepted_at) = (&message.id, message.accepted_at);
        let lost = self.connection.lost();
        tokio::pin!(lost);
        let referred = self.referred(said, names).await.map_err(|_| Unsent::NotSent)?;
        // Their name for us is of the same sort as ours for them.
        let own = client.lid().filter(|_| jid.is_lid()).unwrap_or(own);
        let said_before = match (&said.reply_to, &referred) {
            (Some(id), Some(Referred::Own(_))) => self.said_before(names, id).await,
            _ => None,
        };
        let timer = self.timers.of(&client, jid).await.map_err(|_| Unsent::NotSent)?;
        let referred = referred.as_ref();
        let way = Way { chat: jid, own: &own, accepted_at, referred, said_before, timer };
        let message = encode::message(said, &way);
        // Both are asked for before the message goes, because the answers may come at once.
        let ack = self.connection.mailbox.expect_ack(id);
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
            Some(Ok(Some(Ack { error: Some(code), .. }))) => Err(Unsent::Rejected(code)),
            // The server acknowledges such a one too.
            _ if matches!(&stanza, Ok(Some(stanza)) if !is_for(stanza, &client, jid)) => Err(Unsent::ReachedNobody),
            Some(Ok(Some(Ack { timestamp, .. }))) => Ok(timestamp.unwrap_or_else(|| self.connection.now())),
            // From here on all depends on whether the stanza was made: only then can it have reached the wire. When a
            // connection ends, the library forgets who waits to see a stanza, and may make it all the same.
            Some(Err(())) | None if matches!(stanza, Ok(None)) => Err(Unsent::NotSent),
            _ => Err(Unsent::Unknown),
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
