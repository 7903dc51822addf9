//! What a tenant wants sent: written down first, then sent, until its status is known.

pub mod accept;
pub mod attempt;
pub mod dispatch;
pub mod queue;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;

use crate::{
    media::shelf::MediaStore,
    model::{
        address::{Names, Person},
        content::Content,
        error_code::ErrorCode,
        message::{Author, Failure, Idempotency, Message, MessageStatus},
        session_state::State,
        tenant::TenantId,
    },
    net::dial::Dialler,
    session::{
        connection::Connection, limits::AccountLimits, outbox::queue::SendQueue, shared::Shared, state::Snapshot,
        timers::Timers,
    },
    store::{Store, changes::Waiting, error::StoreError},
    whatsapp::{events::Ack, lookup::Numbers},
};
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::task::TaskTracker;

/// A message that somebody wants to be sent.
pub struct OutgoingMessage {
    /// To whom.
    pub to: Person,
    /// What it says.
    pub content: Content,
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// After how long it is given up.
    pub expires_in: TimeDelta,
    /// What makes a repetition of the call the same call.
    pub idempotency: Option<Idempotency>,
}

/// A message that was accepted, and how to learn more.
pub struct Taken {
    /// The message as it was written down, or as it is by now.
    pub message: Message,
    /// Resolves when it is settled; only where that was asked for, and has not happened yet.
    pub waiting: Option<Waiting>,
}

/// Why messages are not accepted at all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The session can't send, and will not without a person, or not for long.
    #[error("the session is {}", .state.as_str())]
    NotReady {
        /// Its state.
        state: State,
        /// The reason's identifier.
        reason: Option<String>,
        /// After how long it tries again by itself, if it does.
        retry_after: Option<Duration>,
    },
    /// The process is about to end, or the session is being deleted.
    #[error("the service is stopping, or the session is being deleted")]
    Stopping,
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// The session is this, and can't do what is asked of it.
    pub(crate) fn not_ready(snapshot: Snapshot, now: DateTime<Utc>) -> Self {
        let retry_at = snapshot.retry_at.filter(|_| snapshot.state == State::Failed && snapshot.phone.is_some());
        Self::NotReady {
            state: snapshot.state,
            reason: snapshot.reason.map(|reason| reason.code),
            retry_after: retry_at.map(|at| (at - now).to_std().unwrap_or_default()),
        }
    }
}

/// Why one message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many wait already.
    #[error("too many messages of this tenant wait to be sent")]
    QueueFull,
    /// The key was used for something else.
    #[error("this Idempotency-Key was used with another body")]
    Conflict,
    /// The number is somebody's LID.
    #[error(
        "`{0}`: these digits are a LID, and no phone number: an address with a LID is written with `@lid` behind it, as \
         `chat` of an event has it"
    )]
    LidAsNumber(&'static str),
    /// What it is about is not there.
    #[error("this tenant has sent no message of this id, or it was forgotten since")]
    UnknownMessage,
    /// What it is about is in another chat.
    #[error("the message that it is about is not in the chat with this recipient")]
    OtherRecipient,
    /// What it is about is nowhere to be seen, as far as anybody knows.
    #[error("the message that it is about is not sent")]
    MessageNotSent,
    /// What it is about is of a kind that it does not go with.
    #[error("only texts are edited, and reactions, edits and revocations are no messages to refer to")]
    WrongKind,
    /// What it is about was sent too long ago.
    #[error("WhatsApp takes an edit for 15 minutes after the message was sent, and a revocation for 48 hours")]
    TooOld,
}

/// One tenant's messages that are yet to be sent: it accepts them, orders them, and sends them.
pub struct Outbox {
    /// Whose they are.
    pub tenant: TenantId,
    pub(crate) connection: Arc<Connection>,
    pub(crate) store: Arc<dyn Store>,
    /// Media that is to be sent.
    pub(crate) media: Arc<MediaStore>,
    /// Opens connections to the media hosts.
    pub(crate) dialler: Arc<Dialler>,
    /// Who is on WhatsApp.
    pub(crate) numbers: Numbers,
    pub(crate) queue: Mutex<SendQueue>,
    /// Messages that the server acknowledged, since this process started.
    pub(crate) sent: AtomicU64,
    /// What WhatsApp says that the account may do.
    pub(crate) limits: Arc<AccountLimits>,
    /// Which chats have a timer.
    pub(crate) timers: Arc<Timers>,
    /// Attempts that are under way. They go on when their caller hangs up, and are waited for at the end.
    pub(crate) tasks: TaskTracker,
    /// How many messages may wait.
    pub(crate) limit: usize,
    /// How long one attempt to send may take.
    pub(crate) attempt_limit: Duration,
}

impl Outbox {
    /// An empty one.
    pub fn new(
        connection: Arc<Connection>,
        limits: Arc<AccountLimits>,
        timers: Arc<Timers>,
        shared: &Shared,
    ) -> Arc<Self> {
        Arc::new(Self {
            tenant: connection.tenant.clone(),
            connection,
            store: shared.store.clone(),
            media: shared.media.clone(),
            dialler: shared.connector.dialler().clone(),
            numbers: Numbers::default(),
            queue: Mutex::new(SendQueue::new(shared.pace)),
            sent: AtomicU64::new(0),
            limits,
            timers,
            tasks: shared.tasks.clone(),
            limit: shared.outbox_limit,
            attempt_limit: shared.attempt_limit,
        })
    }

    /// How many messages wait to be sent, those on their way included.
    pub fn pending(&self) -> usize {
        self.queue.lock().len()
    }

    /// Puts a message in its place, behind all that go to the same person.
    pub(crate) fn resume(&self, recipient: &Person, names: &Names, row: i64) {
        self.queue.lock().push(recipient, row);
        self.join(recipient, names);
    }

    /// Cancels a message that is not on its way yet: `None` if there is none of this id, `Err` with the message as it
    /// is if it is too late.
    pub async fn cancel(self: &Arc<Self>, id: &str) -> Result<Option<Result<Message, Message>>, StoreError> {
        let cancelled = self.store.cancel(&self.connection.lease, id).await?;
        if let Some(Ok(message)) = &cancelled
            && let Some(recipient) = Person::kept(&message.recipient)
        {
            self.given_up(&recipient, message.row);
        }
        Ok(cancelled)
    }

    /// A message was given up by somebody else.
    pub(crate) fn given_up(self: &Arc<Self>, recipient: &Person, row: i64) {
        self.queue.lock().remove(recipient, row);
        self.pump();
    }

    /// What the server said of a message that nobody waited for any more.
    pub(crate) async fn late_ack(self: &Arc<Self>, id: &str, ack: Ack) {
        let (store, lease) = (&self.store, &self.connection.lease);
        let Ok(Some(message)) = store.message(&self.tenant, id).await else { return };
        // What a refusal means depends on what was tried: the next attempt brings another.
        if message.status >= MessageStatus::Sent || ack.error.is_some() {
            return;
        }
        match store.sent(lease, id, ack.timestamp.unwrap_or_else(|| self.connection.now())).await {
            Ok(settled) => self.sent.fetch_add(settled.into(), Ordering::Relaxed),
            // It is sent again, and acknowledged again.
            Err(error) => {
                return tracing::warn!(tenant = %self.tenant, %error, "a late acknowledgement could not be written down");
            }
        };
        self.no_longer_waits(&message.recipient);
    }

    /// Somebody's device says that it has these messages, or that they were read. That counts for those that were sent to
    /// it. Returns when it is on the disk.
    pub(crate) async fn receipt(self: &Arc<Self>, by: Author, ids: Vec<String>, status: MessageStatus) {
        let store = &self.store;
        let settled =
            self.connection.persist(|| store.receipt(&self.connection.lease, by.clone(), ids.clone(), status)).await;
        for recipient in settled.into_iter().flatten() {
            self.settled_by_recipient(&recipient);
        }
    }

    /// A recipient's device has shown that the server took a message that waited for its acknowledgement.
    pub(crate) fn settled_by_recipient(self: &Arc<Self>, recipient: &str) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.no_longer_waits(recipient);
    }

    fn no_longer_waits(self: &Arc<Self>, recipient: &str) {
        if let Some(recipient) = Person::kept(recipient) {
            self.queue.lock().hurry(&recipient);
            self.pump();
        }
    }
}

/// The session of a message that was not sent yet is no more.
pub(crate) fn deleted() -> Failure {
    Failure::new(ErrorCode::SessionDeleted, "The session was deleted before the message was sent.", false)
}
