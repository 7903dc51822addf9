//! Retry receipts, as WhatsApp writes them, and the answer to one.

use whatsapp_rust::{
    Client as LibraryClient, Jid, OwnedNodeRef,
    bytes::BytesMut,
    features::MessageRetransmission,
    wacore::{
        messages::{unwrap_device_sent, wrap_device_sent},
        protocol::retry::MAX_RETRY_COUNT,
    },
    wacore_binary::{JidExt, NodeRef, Server, marshal::marshal, util::unpack_bytes},
    waproto::{codec, whatsapp as wa},
};

use crate::{
    model::message::Author,
    store::retries::RetryRequest,
    whatsapp::{
        client::Client,
        retry_keys::{self, InvalidKeys},
    },
};

/// A retry receipt, and what is known of who asks.
pub struct RetryReceipt {
    /// Which message, of which chat, which device.
    pub request: RetryRequest,
    /// Whose device it is.
    pub author: Author,
    /// The addresses of the chat.
    pub chats: Vec<String>,
}

impl RetryReceipt {
    /// Reads one: nothing where the library answers by itself, or nobody can.
    pub(in crate::whatsapp) async fn read(client: &Client, receipt: &NodeRef<'_>) -> Option<Self> {
        let (request, chat) = read(receipt, client.own())?;
        let chats = names_of(client.library(), &chat).await;
        let device = request.device.parse::<Jid>().unwrap_or_default();
        let author = author(client.library(), &device).await;
        Some(Self { request, author, chats })
    }
}

/// Whose device this is.
pub async fn author_of(client: &Client, device: &str) -> Author {
    author(client.library(), &device.parse().unwrap_or_default()).await
}

/// The addresses of a chat with one person, as far as they are known.
pub async fn chats_of(client: &Client, chat: &str) -> Option<Vec<String>> {
    Some(names_of(client.library(), &chat.parse().ok()?).await)
}

/// A message that is sent again to one device.
pub struct Retransmission {
    device: Jid,
    chat: Jid,
    id: String,
    count: u8,
    /// An own device asks for what went to somebody else, and gets it as a copy of that.
    recipient: Option<Jid>,
    message: wa::Message,
    asked: OwnedNodeRef,
}

impl Retransmission {
    /// The answer to a request, from what was sent; nothing if there is none.
    pub fn of(client: &Client, request: &RetryRequest, sent: Option<&[u8]>) -> Option<Self> {
        let asked = unpack_bytes(BytesMut::from(&request.receipt[..])).and_then(OwnedNodeRef::new).ok()?;
        let (device, chat) = (request.device.parse::<Jid>().ok()?, request.chat.parse::<Jid>().ok()?);
        let message = sent.and_then(|sent| codec::message_decode(sent).ok());
        let message = message.filter(|_| request.count < MAX_RETRY_COUNT)?;
        let recipient = is_own(&device, &client.own()).then(|| chat.clone());
        let message = unwrap_device_sent(message);
        let message = match &recipient {
            Some(recipient) => wrap_device_sent(message, recipient.to_string()),
            None => message,
        };
        Some(Self { device, chat, id: request.id.clone(), count: request.count, recipient, message, asked })
    }

    /// Begins a session with the keys that came with the receipt.
    ///
    /// # Errors
    /// The keys are none, or something else went wrong.
    pub async fn renew_keys(&self, client: &Client) -> Result<(), InvalidKeys> {
        retry_keys::renew_session(client.library(), &self.device, self.count, self.asked.get()).await
    }

    /// Sends it.
    ///
    /// # Errors
    /// It did not leave.
    pub async fn send(self, client: &Client) -> Result<(), ()> {
        let again = MessageRetransmission::new(self.chat, self.device, self.message, self.id, self.count);
        let again = match self.recipient {
            Some(recipient) => again.with_recipient(recipient),
            None => again,
        };
        // What the library says of a failure is not repeated: it may name people.
        client.library().retransmit_message(again).await.map(drop).map_err(drop)
    }
}

/// Who asks for which message of which chat: nothing where the library answers by itself, or nobody can.
fn read(receipt: &NodeRef<'_>, own: [Option<Jid>; 2]) -> Option<(RetryRequest, Jid)> {
    let (from, retry) = (receipt.attrs().optional_jid("from")?, receipt.get_optional_child("retry")?);
    if from.is_group() || from.is_status_broadcast() || from.is_broadcast_list() {
        return None;
    }
    // An own device asks for what it should have seen being sent to somebody.
    let chat =
        if is_own(&from, &own) { receipt.attrs().optional_jid("recipient")?.to_non_ad() } else { from.to_non_ad() };
    let mut node = receipt.to_owned();
    node.attrs.0.retain(|(name, _)| name != "offline");
    let request = RetryRequest {
        device: from.to_string(),
        id: retry.get_attr("id")?.as_str().into_owned(),
        chat: chat.to_string(),
        count: retry.get_attr("count").and_then(|count| count.as_str().parse().ok()).unwrap_or(1),
        receipt: marshal(&node).ok()?,
        keys_used: false,
        ack_owed: false,
        attempts: 0,
    };
    Some((request, chat))
}

fn is_own(device: &Jid, own: &[Option<Jid>; 2]) -> bool {
    own.iter().flatten().any(|own| own.user == device.user && own.server == device.server)
}

/// Somebody's addresses at WhatsApp, as far as they are known.
pub(in crate::whatsapp) async fn names_of(client: &LibraryClient, user: &Jid) -> Vec<String> {
    let user = user_of(user);
    let other = client.get_lid_pn_entry(&user).await.ok().flatten();
    let other = other.map(|entry| if user.is_lid() { Jid::pn(&*entry.phone_number) } else { Jid::lid(&*entry.lid) });
    std::iter::once(user).chain(other).map(|jid| jid.to_string()).collect()
}

/// Whose device it is. A business's number may be at home with a provider, and is the same number.
fn user_of(device: &Jid) -> Jid {
    match device.server {
        Server::Hosted => Jid::pn(&*device.user),
        Server::HostedLid => Jid::lid(&*device.user),
        _ => device.to_non_ad(),
    }
}

/// Whose device this is, by name.
pub(in crate::whatsapp) async fn author(client: &LibraryClient, device: &Jid) -> Author {
    Author { device: device.to_string(), names: names_of(client, device).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_belongs_to_its_number_or_lid_wherever_it_is_at_home() {
        for (device, user) in [
            ("5511888888888:3@s.whatsapp.net", "5511888888888@s.whatsapp.net"),
            ("713715344025739:3@lid", "713715344025739@lid"),
            ("5511888888888:99@hosted", "5511888888888@s.whatsapp.net"),
            ("713715344025739:99@hosted.lid", "713715344025739@lid"),
        ] {
            assert_eq!(user_of(&device.parse().unwrap()).to_string(), user, "{device}");
        }
    }
}
