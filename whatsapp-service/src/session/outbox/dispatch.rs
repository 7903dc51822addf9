//! Whose turn it is, and what came of each attempt.
use crate::{
    media::upload::{Line, NotUploaded},
    metrics::{Attempted, attempted, refused},
    model::{
        address::Person,
        content::{Content, ContentKind},
        error_code::ErrorCode,
        message::{Claimed, Failure, Message, MessageStatus},
    },
    session::outbox::{
        Outbox,
        queue::{After, Next},
    },
    whatsapp::send::Unsent,
};
use chrono::DateTime;
use chrono::Utc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait before the next attempt, by the number of those that were made. A connection that comes back ends
/// the wait.
const PAUSES: [u64; 6] = [1, 5, 15, 60, 120, 300];
/// How long to wait before something is written again that could not be.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before a message is looked at again whose deadline seems to have passed, while the clock can't be
/// relied on.
const CLOCK_PAUSE: Duration = Duration::from_secs(10);

/// What WhatsApp's servers say of messages, as codes of their acknowledgements.
mod nack {
    /// The list of the recipient's devices, or of a group's members, was out of date.
    pub const STALE: [&str; 2] = ["479", "421"];
    /// The account may not write to this person.
    pub const RESTRICTED: &str = "463";
    /// The account may not open any more chats.
    pub const CAPPED: &str = "475";
}

impl Outbox {
    /// Sends what may go now, and looks again when more may.
    pub(crate) fn pump(self: &Arc<Self>) {
        while self.connection.may_send() {
            let next = self.queue.lock().next(Instant::now());
            match next {
                Next::Start(recipient, row) => self.set_off(recipient, row, None),
                Next::At(at) => return self.look_again(at),
                Next::Nothing => return,
            }
        }
    }

    fn look_again(self: &Arc<Self>, at: Instant) {
        let mut lane = self.queue.lock();
        if lane.alarm.is_some_and(|alarm| alarm <= at && alarm > Instant::now()) {
            return;
        }
        lane.alarm = Some(at);
        drop(lane);
        let outbox = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(outbox) = outbox.upgrade() {
                outbox.queue.lock().alarm.take_if(|alarm| *alarm <= at);
                outbox.pump();
            }
        });
    }

    /// Starts an attempt; the lane knows that it is on its way.
    pub(crate) fn set_off(self: &Arc<Self>, recipient: Person, row: i64, message: Option<Message>) {
        let mut attempt = SendAttempt { outbox: self.clone(), recipient, row, after: soon() };
        self.tasks.spawn(async move {
            attempt.after = attempt.run(message).await;
            drop(attempt);
        });
    }

    /// What it means that WhatsApp refused a message with this code.
    async fn refused(self: &Arc<Self>, code: String) -> Failure {
        let restricted = match code.as_str() {
            nack::RESTRICTED => self.limits.is_restricted().await,
            nack::CAPPED => {
                self.limits.ask();
                None
            }
            _ => None,
        };
        let failure = match restricted {
            Some(true) => {
                let why =
                    "WhatsApp restricts the account: for now it can't write to people who have not written to it.";
                Failure::new(ErrorCode::AccountRestricted, why, false)
            }
            Some(false) => {
                let why =
                    "WhatsApp takes no message for this recipient from this account. The account is not restricted.";
                Failure::new(ErrorCode::RecipientRestricted, why, false)
            }
            None => {
                let why = format!("WhatsApp refused the message with code {code}.");
                Failure::new(ErrorCode::MessageRejected, &why, false)
            }
        };
        Failure { whatsapp_code: Some(code), ..failure }
    }
}

/// A message on its way. However the attempt ends, the lane learns of it.
struct SendAttempt {
    outbox: Arc<Outbox>,
    /// A name that its queue goes by.
    recipient: Person,
    row: i64,
    after: After,
}

impl Drop for SendAttempt {
    fn drop(&mut self) {
        self.outbox.queue.lock().finished(&self.recipient, self.row, self.after);
        self.outbox.pump();
    }
}

/// A message on its way that has given its place to another, until this is dropped.
struct Aside<'a>(&'a Outbox);

impl<'a> Aside<'a> {
    fn step(outbox: &'a Arc<Outbox>) -> Option<Self> {
        let aside = outbox.queue.lock().step_aside().then_some(Self(outbox))?;
        outbox.pump();
        Some(aside)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().step_back();
    }
}

impl SendAttempt {
    async fn run(&self, message: Option<Message>) -> After {
        let (outbox, store, tenant) = (&self.outbox, &self.outbox.store, &self.outbox.tenant);
        let lease = &outbox.connection.lease;
        let claimed = match message {
            Some(message) => Ok(Claimed::Now(Box::new(message))),
            None => store.claim(lease, self.row).await,
        };
        let message = match claimed {
            Ok(Claimed::Now(message)) => *message,
            Ok(Claimed::Later) => return After::Again(Instant::now() + CLOCK_PAUSE),
            Ok(Claimed::Never) => return After::Done,
            Err(_) => return soon(),
        };
        let content = message.content.as_ref().and_then(|content| serde_json::from_str::<Content>(content.get()).ok());
        let Some(content) = content else { return self.unreadable(&message).await };
        let has_file = content.file().is_some();
        // A receipt for an earlier copy can settle it at any time, before its acknowledgement too.
        let mut settled = store.wait_for(tenant, &message.id);
        let mut begun = Instant::now();
        let finding = outbox.find(&message, begun + outbox.attempt_limit);
        let found = tokio::select! {
            biased;
            found = finding => found,
            Ok(_) = &mut settled => return After::Done,
        };
        let found = match found {
            Ok(found) => found,
            Err(unsent) => return self.record(&message, Err(unsent), begun.elapsed()).await,
        };
        let content = match self.uploaded(content).await {
            Ok(content) => content,
            Err(NotUploaded::Later) => return self.record(&message, Err(Unsent::NotSent), begun.elapsed()).await,
            Err(NotUploaded::Lost) => return self.unreadable(&message).await,
        };
        // Meanwhile it may have been cancelled or given up, or a receipt may have come for an earlier copy.
        if has_file {
            begun = Instant::now();
            match store.departs(lease, self.row).await {
                Ok(Claimed::Now(())) => {}
                Ok(Claimed::Later) => return After::Again(Instant::now() + CLOCK_PAUSE),
                Ok(Claimed::Never) => return After::Done,
                Err(_) => return soon(),
            }
        }
        // What was found out of it or of others may have shown that it overtakes one to the same person.
        if !outbox.queue.lock().is_first(&self.recipient, self.row) {
            let pending = outbox.connection.persist(|| store.put_back(lease, self.row, false)).await;
            return if pending == Some(false) { After::Done } else { After::Again(Instant::now()) };
        }
        let attempt = |fresh, since| {
            let deadline = since + outbox.attempt_limit;
            outbox.attempt(&message, &found, &content, fresh, deadline)
        };
        let attempts = async {
            match attempt(false, begun).await {
                Err(Unsent::Rejected(code)) if nack::STALE.contains(&code.as_str()) => {
                    attempt(true, Instant::now()).await
                }
                outcome => outcome,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = attempts => outcome,
            Ok(_) = &mut settled => {
                attempted(Attempted::Acknowledged, begun.elapsed());
                return After::Done;
            }
        };
        self.record(&message, outcome, begun.elapsed()).await
    }

    async fn unreadable(&self, message: &Message) -> After {
        self.fail(message, Failure::new(ErrorCode::ContentUnreadable, "What it says can't be read any more.", false))
            .await
    }

    /// What a message says, with its media where WhatsApp's clients can fetch it. That may take longer than an attempt,
    /// and survives a connection that ends meanwhile.
    async fn uploaded(&self, mut content: Content) -> Result<Content, NotUploaded> {
        let outbox = &self.outbox;
        let ContentKind::Media(media) = &mut content.kind else { return Ok(content) };
        let client = outbox.connection.ready_client().ok_or(NotUploaded::Later)?;
        let line = Line { client: &client, dialler: &outbox.dialler, proxy: outbox.connection.proxy() };
        let _place = Aside::step(outbox);
        let upload = tokio::select! {
            upload = outbox.media.upload(&outbox.tenant, &line, &media.parcel) => upload?,
            () = outbox.connection.stopping.cancelled() => return Err(NotUploaded::Later),
        };
        media.parcel.upload = Some(upload);
        Ok(content)
    }

    async fn record(&self, message: &Message, outcome: Result<DateTime<Utc>, Unsent>, took: Duration) -> After {
        let (outbox, store, _tenant) = (&self.outbox, &self.outbox.store, &self.outbox.tenant);
        let lease = &outbox.connection.lease;
        attempted(outcome_of(&outcome), took);
        let failure = match outcome {
            Ok(timestamp) => {
                let settled = outbox.connection.persist(|| store.sent(lease, &message.id, timestamp)).await;
                outbox.sent.fetch_add(settled.unwrap_or_default().into(), Ordering::Relaxed);
                outbox.limits.keep_quota_fresh();
                return After::Done;
            }
            Err(unsent @ (Unsent::NotReady | Unsent::NotSent | Unsent::Unknown)) => {
                let left = unsent == Unsent::Unknown;
                if outbox.connection.persist(|| store.put_back(lease, self.row, left)).await == Some(false) {
                    return After::Done;
                }
                let pause = PAUSES[(message.attempts as usize).clamp(1, PAUSES.len()) - 1];
                return After::Again(Instant::now() + Duration::from_secs(pause));
            }
            Err(Unsent::OtherAccount) => {
                let why = "The tenant is linked with another account than the one that it was to be sent from.";
                Failure::new(ErrorCode::AccountChanged, why, false)
            }
            Err(Unsent::NotOnWhatsApp) => {
                let why = match Person::kept(&message.recipient) {
                    Some(Person::Lid(_)) => "Nobody on WhatsApp has this LID.",
                    _ => "This number is not on WhatsApp.",
                };
                Failure::new(ErrorCode::RecipientNotOnWhatsApp, why, false)
            }
            Err(Unsent::ReachedNobody) => {
                let why = "The message could not be encrypted for any device of the recipient.";
                Failure::new(ErrorCode::RecipientUnreachable, why, false)
            }
            Err(Unsent::Rejected(code)) => {
                refused(&code);
                outbox.refused(code).await
            }
        };
        self.fail(message, failure).await
    }

    async fn fail(&self, message: &Message, failure: Failure) -> After {
        let (outbox, store, _tenant) = (&self.outbox, &self.outbox.store, &self.outbox.tenant);
        let lease = &outbox.connection.lease;
        if message.status == MessageStatus::Unknown {
            // An earlier copy may have arrived, whatever became of this one.
            outbox.connection.persist(|| store.give_up(lease, self.row, failure.clone())).await;
        } else {
            outbox.connection.persist(|| store.failed(lease, &message.id, failure.clone())).await;
        }
        After::Done
    }
}

/// The same for the metrics.
fn outcome_of(outcome: &Result<DateTime<Utc>, Unsent>) -> Attempted {
    match outcome {
        Ok(_) => Attempted::Acknowledged,
        Err(Unsent::Rejected(_)) => Attempted::Refused,
        Err(Unsent::NotReady | Unsent::NotSent) => Attempted::NotSent,
        Err(Unsent::Unknown) => Attempted::Unknown,
        Err(Unsent::OtherAccount | Unsent::NotOnWhatsApp | Unsent::ReachedNobody) => Attempted::Impossible,
    }
}

fn soon() -> After {
    After::Again(Instant::now() + WRITE_PAUSE)
}
