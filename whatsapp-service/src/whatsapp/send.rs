//! Sending one message, and what the server says of it.

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};
use whatsapp_rust::{
    Client as LibraryClient, Jid, NodeFilter, cache::Freshness, send::SendOptions, wacore::request::RequestUtils,
    wacore_binary::Node,
};

use crate::{
    model::{
        address::{Names, Person},
        content::Content,
    },
    store::{referred::Referred, timers::Timer},
    whatsapp::{
        client::Client,
        encode::{self, SentBefore, Way},
        events::{Ack, Mailbox},
        lookup,
    },
};

/// Whom a message is for, as WhatsApp has them.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The address to send to.
    jid: Jid,
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

/// A message that is to be sent.
pub struct Sending<'a> {
    /// Its id.
    pub id: &'a str,
    /// The number of the account that it is meant for, if it is meant for one.
    pub account: Option<&'a str>,
    /// To whom.
    pub to: &'a Recipient,
    /// What it says.
    pub content: &'a Content,
    /// When it was accepted. It stands in some kinds, and a repetition says the same.
    pub accepted_at: DateTime<Utc>,
    /// The message that it refers to, as far as it is known.
    pub referred: Option<&'a Referred>,
    /// The same as it was sent, if it is one's own and that is kept.
    pub said_before: Option<SentBefore>,
    /// How long the messages of the chat stay, where that is not for ever.
    pub timer: Option<Timer>,
    /// Whether the server is asked for the recipient's devices anew.
    pub fresh: bool,
}

/// A new message id, as WhatsApp's clients make them.
pub fn message_id(now: DateTime<Utc>) -> String {
    RequestUtils::message_id_at(None, now.timestamp().unsigned_abs())
}

impl Recipient {
    /// The one of these names, as WhatsApp has them. An account without devices would be sent nothing, and the server
    /// would acknowledge that: it is nobody's.
    ///
    /// # Errors
    /// Nobody has devices under these names, or WhatsApp did not say.
    pub async fn find(client: &Client, to: &Person, names: Names) -> Result<Self, Unsent> {
        let jid = lookup::jid(to, &names);
        let devices = client.library().signal().get_user_devices(std::slice::from_ref(&jid)).await;
        if devices.map_err(|_| Unsent::NotSent)?.is_empty() {
            return Err(Unsent::NotOnWhatsApp);
        }
        Ok(Self { jid, names })
    }

    /// The addresses of the chat with them.
    pub async fn chats(&self, client: &Client) -> Vec<String> {
        client.addresses(&self.jid).await
    }
}

/// The account that a message is sent from.
///
/// # Errors
/// It is another one than the message is meant for.
pub fn account_of(client: &Client, account: Option<&str>) -> Result<(), Unsent> {
    own(client.library(), account).map(drop)
}

fn own(client: &LibraryClient, account: Option<&str>) -> Result<Jid, Unsent> {
    let own = client.pn().filter(|own| account.is_none_or(|account| own.user == account));
    own.ok_or(Unsent::OtherAccount)
}

/// Sends a message, and waits for the server to acknowledge it: until `deadline` at most, and no longer than the connection
/// lasts, which is `lost` then. Returns when the server took it, by its own clock, where it says so.
///
/// # Errors
/// The server did not acknowledge it: what is known of why.
pub async fn send(
    client: &Client,
    mailbox: &Mailbox,
    sending: Sending<'_>,
    deadline: Instant,
    lost: impl Future<Output = ()>,
) -> Result<Option<DateTime<Utc>>, Unsent> {
    let (client, id, jid) = (client.library(), sending.id, &sending.to.jid);
    let own = own(client, sending.account)?;
    tokio::pin!(lost);
    // Their name for us is of the same sort as ours for them.
    let own = client.lid().filter(|_| jid.is_lid()).unwrap_or(own);
    let Sending { content, accepted_at, referred, said_before, timer, fresh, .. } = sending;
    let way = Way { chat: jid, own: &own, accepted_at, referred, said_before, timer };
    let message = encode::message(content, &way);
    // Both are asked for before the message goes, because the answers may come at once.
    let ack = mailbox.expect_ack(id);
    let mut written = client.wait_for_sent_node(NodeFilter::tag("message").attr("id", id));
    let freshness = if fresh { Freshness::Refresh } else { Freshness::CachePreferred };
    let options = SendOptions::default().with_message_id(id).with_device_freshness(freshness);
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
        _ if matches!(&stanza, Ok(Some(stanza)) if !is_for(stanza, client, jid)) => Err(Unsent::ReachedNobody),
        Some(Ok(Some(Ack { timestamp, .. }))) => Ok(timestamp),
        // From here on all depends on whether the stanza was made: only then can it have reached the wire. When a
        // connection ends, the library forgets who waits to see a stanza, and may make it all the same.
        Some(Err(())) | None if matches!(stanza, Ok(None)) => Err(Unsent::NotSent),
        _ => Err(Unsent::Unknown),
    }
}

/// Whether a message holds something for a device of `recipient`. The library also sends, and the server also
/// acknowledges, a message that is encrypted for one's own other devices only.
fn is_for(stanza: &Node, client: &LibraryClient, recipient: &Jid) -> bool {
    let Some(participants) = stanza.get_optional_child("participants") else {
        return stanza.get_optional_child("enc").is_some();
    };
    let own = [client.pn(), client.lid()];
    let to_self = own.iter().flatten().any(|jid| jid.user == recipient.user);
    let is_own = |jid: &Jid| own.iter().flatten().any(|own| own.user == jid.user);
    let mut devices = participants.get_children_by_tag("to").filter_map(|to| to.attrs().optional_jid("jid"));
    devices.any(|jid| to_self || !is_own(&jid))
}
