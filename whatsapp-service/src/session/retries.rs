//! Retry receipts: a device that could not read a message gets it again.
//!
//! The library would answer them too, but it acknowledges them first: a kill in between would leave the message unread
//! for good. So it is not given what was sent (see `store/backend/protocol.rs`), and they are answered here. A receipt is
//! on the disk before it is acknowledged, and stays open until WhatsApp's server has taken an answer or the device has the
//! message, over lost connections and restarts.

use std::collections::HashSet;

use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use tokio::time::{Instant, timeout_at};
use whatsapp_rust::{
    Client, Jid, OwnedNodeRef,
    bytes::BytesMut,
    features::MessageRetransmission,
    wacore::{
        messages::{unwrap_device_sent, wrap_device_sent},
        protocol::retry::MAX_RETRY_COUNT,
    },
    wacore_binary::{JidExt, NodeRef, Server, marshal::marshal, util::unpack_bytes},
    waproto::codec,
};

use crate::{
    model::{
        error_code::ErrorCode,
        message::{Author, Failure},
    },
    session::{connection::Connection, outbox::Outbox, shared::Shared},
    store::{
        Store, StoreError,
        retries::{Noted, RetryRequest},
    },
    whatsapp::retry_keys::{self, InvalidKeys},
};

/// How many receipts a session answers at the same time.
const AT_ONCE: usize = 8;
/// How long to wait after an answer that came to nothing. After the last one the receipt is given up.
const PAUSES: [u64; 4] = [1, 5, 30, 120];
/// How often a device is asked for by its receipts while an acknowledgement is awaited.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What came of an answer.
enum Answer {
    /// The server or the device has it.
    Given,
    /// The connection is gone; the next one goes on.
    Later,
    /// It came to nothing.
    Failed,
    /// There is nothing to answer with.
    Impossible,
}

/// A retry receipt that is being answered, by device and message.
pub type Answering = (String, String);

/// Removes it from those that are being answered.
struct Running(Arc<Retries>, Answering);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.answering.lock().remove(&self.1);
    }
}

/// Retry receipts of a session's devices and recipients.
pub struct Retries {
    connection: Arc<Connection>,
    store: Arc<Store>,
    outbox: Arc<Outbox>,
    /// Those that are being answered.
    answering: Mutex<HashSet<Answering>>,
    turns: Semaphore,
    tasks: TaskTracker,
    attempt_limit: Duration,
}

impl Retries {
    /// None yet.
    pub fn new(connection: Arc<Connection>, outbox: Arc<Outbox>, shared: &Shared) -> Arc<Self> {
        Arc::new(Self {
            connection,
            store: shared.store.clone(),
            outbox,
            answering: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            tasks: shared.tasks.clone(),
            attempt_limit: shared.attempt_limit,
        })
    }

    /// Writes a retry receipt down, to be answered. WhatsApp is told that it arrived as soon as this returns.
    pub(crate) async fn asked_again(
        self: &Arc<Self>,
        client: &Arc<Client>,
        receipt: &NodeRef<'_>,
    ) -> Result<(), StoreError> {
        let Some((request, chat)) = read(receipt, [client.pn(), client.lid()]) else { return Ok(()) };
        let (store, tenant) = (&self.store, &self.connection.tenant);
        let chats = names_of(client, &chat).await;
        let device = request.device.parse::<Jid>().unwrap_or_default();
        let author = author(client, &device).await;
        let key = (request.device.clone(), request.id.clone());
        match store.note_retry(tenant, request.clone(), author.clone(), chats).await? {
            Noted::Open(settled) => {
                if let Some(recipient) = settled {
                    self.outbox.settled_by_recipient(&recipient);
                }
                self.answer_one(key);
            }
            Noted::Answered => {}
            // A stranger may ask for anything. The recipient may ask for what is no longer kept.
            Noted::NoMessage => store.unreadable(tenant, &request.id, author, undecryptable()).await?,
        }
        Ok(())
    }

    /// Answers what an earlier connection, or process, has left.
    pub(crate) fn answer_open(self: &Arc<Self>) {
        let session = self.clone();
        self.tasks.spawn(async move {
            let open = session.connection.persist(|| session.store.open_retries(&session.connection.tenant)).await;
            for key in open.into_iter().flatten() {
                session.answer_one(key);
            }
        });
    }

    /// Answers a receipt that was written down, unless that is being done.
    fn answer_one(self: &Arc<Self>, key: Answering) {
        if !self.answering.lock().insert(key.clone()) {
            return;
        }
        let running = Running(self.clone(), key);
        self.tasks.spawn(async move {
            running.0.see_to(&running.1).await;
            let (session, key) = (running.0.clone(), running.1.clone());
            drop(running);
            // A connection, or another receipt of the same device, may have come just before.
            let (store, tenant) = (&session.store, &session.connection.tenant);
            if session.connection.may_send() && matches!(store.open_retry(tenant, &key.0, &key.1).await, Ok(Some(_))) {
                session.answer_one(key);
            }
        });
    }

    /// Answers one receipt, as long as there is a connection and it is not answered.
    async fn see_to(self: &Arc<Self>, (device, id): &Answering) {
        let (store, tenant) = (&self.store, &self.connection.tenant);
        while self.connection.may_send() {
            let open = self.connection.persist(|| store.open_retry(tenant, device, id)).await.flatten();
            let (Some(mut request), Some(client)) = (open, self.connection.ready_client()) else { return };
            let answer = match self.turns.acquire().await {
                Ok(_turn) => self.answer(&client, &mut request).await,
                Err(_) => return,
            };
            match answer {
                Answer::Given => drop(self.connection.persist(|| store.close_retry(tenant, request.clone())).await),
                Answer::Later => return,
                Answer::Failed if usize::from(request.attempts) < PAUSES.len() => {
                    let pause = Duration::from_secs(PAUSES[usize::from(request.attempts)]);
                    request.attempts += 1;
                    self.connection.persist(|| store.update_retry(tenant, request.clone())).await;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.connection.stopping.cancelled() => return,
                    }
                }
                Answer::Failed | Answer::Impossible => {
                    let author = author(&client, &device.parse().unwrap_or_default()).await;
                    tracing::warn!(%tenant, "a device can't read a message, and can't be sent it again");
                    let given_up = || store.give_up_retry(tenant, request.clone(), author.clone(), undecryptable());
                    self.connection.persist(given_up).await;
                }
            }
        }
    }

    async fn answer(&self, client: &Arc<Client>, request: &mut RetryRequest) -> Answer {
        let deadline = Instant::now() + self.attempt_limit;
        let (store, tenant) = (&self.store, &self.connection.tenant);
        let lost = self.connection.lost();
        tokio::pin!(lost);
        let Ok(asked) = unpack_bytes(BytesMut::from(&request.receipt[..])).and_then(OwnedNodeRef::new) else {
            return Answer::Impossible;
        };
        let (Ok(device), Ok(chat)) = (request.device.parse::<Jid>(), request.chat.parse::<Jid>()) else {
            return Answer::Impossible;
        };
        let Ok(sent) = store.as_sent(tenant, names_of(client, &chat).await, &request.id).await else {
            return Answer::Failed;
        };
        let message = sent.and_then(|sent| codec::message_decode(&sent).ok());
        let Some(message) = message.filter(|_| request.count < MAX_RETRY_COUNT) else { return Answer::Impossible };
        // An own device asks for what went to somebody else, and gets it as a copy of that.
        let recipient = is_own(&device, &[client.pn(), client.lid()]).then(|| chat.clone());
        let message = unwrap_device_sent(message);
        let message = match &recipient {
            Some(recipient) => wrap_device_sent(message, recipient.to_string()),
            None => message,
        };
        let sending = async {
            if !request.keys_used {
                match retry_keys::renew_session(client, &device, request.count, asked.get()).await {
                    Ok(()) => {}
                    Err(InvalidKeys::Refused) => return Err(Answer::Impossible),
                    Err(InvalidKeys::NotNow) => return Err(Answer::Failed),
                }
                request.keys_used = true;
                // Before anything is sent with them: they are not used a second time then.
                store.update_retry(tenant, request.clone()).await.map_err(|_| Answer::Failed)?;
            }
            let mut acks = Vec::new();
            for _ in 0..=u8::from(request.ack_owed) {
                acks.push(self.connection.mailbox.expect_ack(&request.id));
            }
            let again = MessageRetransmission::new(chat, device, message, request.id.clone(), request.count);
            let again = match recipient {
                Some(recipient) => again.with_recipient(recipient),
                None => again,
            };
            client.retransmit_message(again).await.map_err(|_| Answer::Failed)?;
            Ok(acks)
        };
        let acks = tokio::select! {
            sent = timeout_at(deadline, sending) => match sent {
                Ok(Ok(acks)) => acks,
                Ok(Err(answer)) => return answer,
                Err(_) => return Answer::Failed,
            },
            () = &mut lost => return Answer::Later,
        };
        // It was owed on this connection only.
        request.ack_owed = false;
        let acknowledged = async {
            for ack in acks {
                match ack.await {
                    Ok(ack) if ack.error.is_none() => {}
                    Ok(_) => return Answer::Failed,
                    // Somebody else waits under this id now.
                    Err(_) => std::future::pending().await,
                }
            }
            Answer::Given
        };
        let read = async {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                if let Ok(None) = store.open_retry(tenant, &request.device, &request.id).await {
                    return;
                }
            }
        };
        tokio::select! {
            answer = timeout_at(deadline, acknowledged) => answer.unwrap_or(Answer::Failed),
            () = read => Answer::Given,
            () = lost => Answer::Later,
        }
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
pub(crate) async fn names_of(client: &Client, user: &Jid) -> Vec<String> {
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
pub(crate) async fn author(client: &Client, device: &Jid) -> Author {
    Author { device: device.to_string(), names: names_of(client, device).await }
}

fn undecryptable() -> Failure {
    let why = "A device of the recipient could not decrypt the message, and could not be sent it again: it shows \
               \"Waiting for this message\".";
    Failure::new(ErrorCode::RecipientCouldNotDecrypt, why, true)
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
