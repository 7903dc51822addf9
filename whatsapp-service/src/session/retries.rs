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

use crate::{
    model::{error_code::ErrorCode, message::Failure},
    session::{connection::Connection, outbox::Outbox, shared::Shared},
    store::{
        Store,
        error::StoreError,
        retries::{Noted, RetryRequest},
    },
    whatsapp::{
        client::Client,
        retry::{self, Retransmission, RetryReceipt},
        retry_keys::InvalidKeys,
    },
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
    store: Arc<dyn Store>,
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
        RetryReceipt { request, author, chats }: RetryReceipt,
    ) -> Result<(), StoreError> {
        let (store, lease) = (&self.store, &self.connection.lease);
        let _tenant = lease.tenant();
        let key = (request.device.clone(), request.id.clone());
        match store.note_retry(lease, request.clone(), author.clone(), chats).await? {
            Noted::Open(settled) => {
                if let Some(recipient) = settled {
                    self.outbox.settled_by_recipient(&recipient);
                }
                self.answer_one(key);
            }
            Noted::Answered => {}
            // A stranger may ask for anything. The recipient may ask for what is no longer kept.
            Noted::NoMessage => store.unreadable(lease, &request.id, author, undecryptable()).await?,
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
        let (store, lease) = (&self.store, &self.connection.lease);
        let tenant = lease.tenant();
        while self.connection.may_send() {
            let open = self.connection.persist(|| store.open_retry(tenant, device, id)).await.flatten();
            let (Some(mut request), Some(client)) = (open, self.connection.ready_client()) else { return };
            let answer = match self.turns.acquire().await {
                Ok(_turn) => self.answer(&client, &mut request).await,
                Err(_) => return,
            };
            match answer {
                Answer::Given => drop(self.connection.persist(|| store.close_retry(lease, request.clone())).await),
                Answer::Later => return,
                Answer::Failed if usize::from(request.attempts) < PAUSES.len() => {
                    let pause = Duration::from_secs(PAUSES[usize::from(request.attempts)]);
                    request.attempts += 1;
                    self.connection.persist(|| store.update_retry(lease, request.clone())).await;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.connection.stopping.cancelled() => return,
                    }
                }
                Answer::Failed | Answer::Impossible => {
                    let author = retry::author_of(&client, device).await;
                    tracing::warn!(%tenant, "a device can't read a message, and can't be sent it again");
                    let given_up = || store.give_up_retry(lease, request.clone(), author.clone(), undecryptable());
                    self.connection.persist(given_up).await;
                }
            }
        }
    }

    async fn answer(&self, client: &Client, request: &mut RetryRequest) -> Answer {
        let deadline = Instant::now() + self.attempt_limit;
        let (store, lease) = (&self.store, &self.connection.lease);
        let tenant = lease.tenant();
        let lost = self.connection.lost();
        tokio::pin!(lost);
        let Some(chats) = retry::chats_of(client, &request.chat).await else { return Answer::Impossible };
        let Ok(sent) = store.as_sent(tenant, chats, &request.id).await else { return Answer::Failed };
        let Some(again) = Retransmission::of(client, request, sent.as_deref()) else { return Answer::Impossible };
        let sending = async {
            if !request.keys_used {
                match again.renew_keys(client).await {
                    Ok(()) => {}
                    Err(InvalidKeys::Refused) => return Err(Answer::Impossible),
                    Err(InvalidKeys::NotNow) => return Err(Answer::Failed),
                }
                request.keys_used = true;
                // Before anything is sent with them: they are not used a second time then.
                store.update_retry(lease, request.clone()).await.map_err(|_| Answer::Failed)?;
            }
            let mut acks = Vec::new();
            for _ in 0..=u8::from(request.ack_owed) {
                acks.push(self.connection.mailbox.expect_ack(&request.id));
            }
            again.send(client).await.map_err(|()| Answer::Failed)?;
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

fn undecryptable() -> Failure {
    let why = "A device of the recipient could not decrypt the message, and could not be sent it again: it shows \
               \"Waiting for this message\".";
    Failure::new(ErrorCode::RecipientCouldNotDecrypt, why, true)
}
