//! What a tenant wants sent: written down first, then sent, until its fate is known.

pub mod attempt;
pub mod queue;

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use whatsapp_rust::wacore::request::RequestUtils;

use crate::{
    media::upload::{Line, NotUploaded},
    metrics::{self, Attempted},
    model::{
        address::{Names, Person},
        content::{Content, ContentKind},
        message::{Accepted, Author, Claimed, Draft, Failure, Idempotency, Message, MessageStatus},
        session_state::State,
        tenant::TenantId,
    },
    session::{
        client::Surroundings,
        events::Ack,
        outbox::{
            attempt::Unsent,
            queue::{After, Next},
        },
        state::Snapshot,
        supervisor::Session,
    },
    store::{StoreError, news::Waiting},
    util::sync::lock,
};

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

/// A message that somebody wants to be sent.
pub struct Submission {
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

impl Session {
    /// How many messages wait to be sent, those on their way included.
    pub fn pending(&self) -> usize {
        lock(&self.lane).len()
    }

    /// Writes messages down, all in one commit, and sends them as soon as they may go. Runs to its end only if it is
    /// polled to its end: put it on a task that nobody drops. `wait` says whether somebody will wait for their fate.
    pub async fn submit(
        self: &Arc<Self>,
        submissions: Vec<Submission>,
        wait: bool,
    ) -> Result<Vec<Result<Taken, NotTaken>>, Refused> {
        self.accepts()?;
        let (mut answers, mut good) = (Vec::with_capacity(submissions.len()), Vec::new());
        for mut submission in submissions {
            answers.push(match self.check(&mut submission).await? {
                Ok(names) => {
                    good.push((submission, names));
                    None
                }
                Err(refused) => Some(Err(refused)),
            });
        }
        let mut accepted = self.accept(good, wait).await?.into_iter();
        Ok(answers.into_iter().filter_map(|answer| answer.or_else(|| accepted.next())).collect())
    }

    /// Whether a message may be sent, and what is known of whom it is for.
    async fn check(&self, submission: &mut Submission) -> Result<Result<Names, NotTaken>, StoreError> {
        let mentions = submission.content.mentions.iter().map(|one| ("mentions", Person::kept(one)));
        let contact = match &submission.content.kind {
            ContentKind::Contact(contact) => Some(("contact.phone", Person::parse(&contact.phone).ok())),
            _ => None,
        };
        let named = mentions.chain(contact).filter_map(|(field, person)| Some((field, person?)));
        let all = std::iter::once(("to", submission.to.clone())).chain(named);
        if let Some(field) = self.lid_among(all).await? {
            return Ok(Err(NotTaken::LidAsNumber(field)));
        }
        let names = self.names_of(&submission.to).await?;
        Ok(self.check_reference(submission, &names).await?.map(|()| names))
    }

    async fn accept(
        self: &Arc<Self>,
        submissions: Vec<(Submission, Names)>,
        wait: bool,
    ) -> Result<Vec<Result<Taken, NotTaken>>, Refused> {
        let (mut reserved, room) = Reserved::room(self, submissions.len());
        // A single message with nothing before it is written down as already on its way: one commit instead of two. One
        // with media is not: that is uploaded first.
        let direct = match &submissions[..] {
            [(Submission { to, content, .. }, _)] if content.file().is_none() && room > 0 && self.may_send() => {
                reserved.place(to)
            }
            _ => false,
        };
        let recipients: Vec<_> = submissions.iter().map(|(one, names)| (one.to.clone(), names.clone())).collect();
        let (account, now) = (self.snapshot().phone, self.now());
        let drafts = submissions.into_iter().map(|(one, names)| draft(one, names, account.clone(), direct, now));
        let accepted = self.around.store.accept(&self.tenant, drafts.collect(), room).await;
        if direct && matches!(accepted.as_deref(), Ok([Accepted::New(_)])) {
            reserved.taken();
        }
        drop(reserved);
        let mut answers = Vec::with_capacity(recipients.len());
        for ((to, names), accepted) in recipients.into_iter().zip(accepted.inspect_err(|_| self.pump())?) {
            answers.push(match accepted {
                // The session was deleted meanwhile: nobody would send it.
                Accepted::New(message) if self.gone.load(Ordering::Acquire) => {
                    let store = &self.around.store;
                    self.persist(|| store.give_up(&self.tenant, message.row, deleted())).await;
                    let now = store.message(&self.tenant, &message.id).await.ok().flatten();
                    Ok(Taken { message: now.unwrap_or(*message), waiting: None })
                }
                Accepted::New(message) => {
                    metrics::accepted();
                    let waiting = wait.then(|| self.around.store.wait_for(&self.tenant, &message.id));
                    if direct {
                        lock(&self.lane).fill(&to, message.row);
                        self.join(&to, &names);
                        self.set_off(to, message.row, Some(*message.clone()));
                    } else {
                        self.resume(&to, &names, message.row);
                    }
                    Ok(Taken { message: *message, waiting })
                }
                Accepted::Known(message) => Ok(self.around.taken(&self.tenant, *message, wait).await),
                Accepted::Conflict => Err(NotTaken::Conflict),
                Accepted::Full => Err(NotTaken::QueueFull),
            });
        }
        self.pump();
        // If it waits for its turn to dial, it goes before those that nobody waits for.
        self.nudge.notify_one();
        Ok(answers)
    }

    /// Whether messages are taken now: the session can send them, or will by itself before long.
    pub fn accepts(&self) -> Result<(), Refused> {
        if self.around.stopping.is_cancelled() || self.gone.load(Ordering::Acquire) {
            return Err(Refused::Stopping);
        }
        let snapshot = self.snapshot();
        match snapshot.state {
            State::Ready => Ok(()),
            State::Connecting | State::Reconnecting if snapshot.is_paired() => Ok(()),
            _ => Err(Refused::not_ready(snapshot, self.now())),
        }
    }

    /// Puts a message in its place, behind all that go to the same person.
    pub(crate) fn resume(&self, recipient: &Person, names: &Names, row: i64) {
        lock(&self.lane).push(recipient, row);
        self.join(recipient, names);
    }

    /// Cancels a message that is not on its way yet: `None` if there is none of this id, `Err` with the message as it
    /// is if it is too late.
    pub async fn cancel(self: &Arc<Self>, id: &str) -> Result<Option<Result<Message, Message>>, StoreError> {
        let cancelled = self.around.store.cancel(&self.tenant, id).await?;
        if let Some(Ok(message)) = &cancelled
            && let Some(recipient) = Person::kept(&message.recipient)
        {
            self.given_up(&recipient, message.row);
        }
        Ok(cancelled)
    }

    /// A message was given up by somebody else.
    pub(crate) fn given_up(self: &Arc<Self>, recipient: &Person, row: i64) {
        lock(&self.lane).remove(recipient, row);
        self.pump();
    }

    /// Sends what may go now, and looks again when more may.
    pub(crate) fn pump(self: &Arc<Self>) {
        while self.may_send() {
            let next = lock(&self.lane).next(Instant::now());
            match next {
                Next::Start(recipient, row) => self.set_off(recipient, row, None),
                Next::At(at) => return self.look_again(at),
                Next::Nothing => return,
            }
        }
    }

    pub(crate) fn may_send(&self) -> bool {
        let ending = self.around.stopping.is_cancelled() || self.gone.load(Ordering::Acquire);
        !ending && self.ready_client().is_some()
    }

    fn look_again(self: &Arc<Self>, at: Instant) {
        let mut lane = lock(&self.lane);
        if lane.alarm.is_some_and(|alarm| alarm <= at && alarm > Instant::now()) {
            return;
        }
        lane.alarm = Some(at);
        drop(lane);
        let session = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(session) = session.upgrade() {
                lock(&session.lane).alarm.take_if(|alarm| *alarm <= at);
                session.pump();
            }
        });
    }

    /// Starts an attempt; the lane knows that it is on its way.
    fn set_off(self: &Arc<Self>, recipient: Person, row: i64, message: Option<Message>) {
        let mut departure = Departure { session: self.clone(), recipient, row, after: soon() };
        self.around.sends.spawn(async move {
            departure.after = departure.run(message).await;
            drop(departure);
        });
    }

    /// What the server said of a message that nobody waited for any more.
    pub(crate) async fn late_ack(self: &Arc<Self>, id: &str, ack: Ack) {
        let (store, tenant) = (&self.around.store, &self.tenant);
        let Ok(Some(message)) = store.message(tenant, id).await else { return };
        // What a refusal means depends on what was tried: the next attempt brings another.
        if message.status >= MessageStatus::Sent || ack.error.is_some() {
            return;
        }
        match store.sent(tenant, id, ack.timestamp.unwrap_or_else(|| self.now())).await {
            Ok(settled) => self.sent.fetch_add(settled.into(), Ordering::Relaxed),
            // It is sent again, and acknowledged again.
            Err(error) => return tracing::warn!(%tenant, %error, "a late acknowledgement could not be written down"),
        };
        self.no_longer_waits(&message.recipient);
    }

    /// Somebody's device says that it has these messages, or that they were read. That counts for those that were sent to
    /// it. Returns when it is on the disk.
    pub(crate) async fn receipt(self: &Arc<Self>, by: Author, ids: Vec<String>, status: MessageStatus) {
        let store = &self.around.store;
        let settled = self.persist(|| store.receipt(&self.tenant, by.clone(), ids.clone(), status)).await;
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
            lock(&self.lane).hurry(&recipient);
            self.pump();
        }
    }

    /// What it means that WhatsApp refused a message with this code.
    async fn refused(self: &Arc<Self>, code: String) -> Failure {
        let restricted = match code.as_str() {
            nack::RESTRICTED => self.is_restricted().await,
            nack::CAPPED => {
                self.ask_for_limits();
                None
            }
            _ => None,
        };
        let failure = match restricted {
            Some(true) => {
                let why =
                    "WhatsApp restricts the account: for now it can't write to people who have not written to it.";
                Failure::new(Failure::ACCOUNT_RESTRICTED, why, false)
            }
            Some(false) => {
                let why =
                    "WhatsApp takes no message for this recipient from this account. The account is not restricted.";
                Failure::new(Failure::RECIPIENT_RESTRICTED, why, false)
            }
            None => {
                let why = format!("WhatsApp refused the message with code {code}.");
                Failure::new("message_rejected", &why, false)
            }
        };
        Failure { whatsapp_code: Some(code), ..failure }
    }

    /// Writes until it is written: what happened does not unhappen because the disk is full. `None` when the process is
    /// about to end.
    pub(crate) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        write: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            match write().await {
                Ok(written) => return Some(written),
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "what happened could not be written down yet");
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
            }
        }
    }
}

/// Room for messages that are about to be accepted, and a place on the way for a single one. Both are given back however
/// the accepting ends, also by a panic: nobody else could send to that person.
struct Reserved<'a> {
    session: &'a Session,
    wanted: usize,
    place: Option<Person>,
}

impl<'a> Reserved<'a> {
    /// Also says how many messages there is room for.
    fn room(session: &'a Session, wanted: usize) -> (Self, usize) {
        let room = lock(&session.lane).promise(wanted, session.around.outbox_limit);
        (Self { session, wanted, place: None }, room)
    }

    /// Takes a place for the message to this person, and says whether there was one.
    fn place(&mut self, to: &Person) -> bool {
        let reserved = lock(&self.session.lane).reserve(to, Instant::now());
        self.place = reserved.then(|| to.clone());
        reserved
    }

    /// The message was accepted, and has its place.
    fn taken(&mut self) {
        self.place = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut lane = lock(&self.session.lane);
        lane.redeem(self.wanted);
        if let Some(to) = &self.place {
            lane.release(to);
        }
    }
}

/// A message on its way. However the attempt ends, the lane learns of it.
struct Departure {
    session: Arc<Session>,
    /// A name that its queue goes by.
    recipient: Person,
    row: i64,
    after: After,
}

impl Drop for Departure {
    fn drop(&mut self) {
        lock(&self.session.lane).finished(&self.recipient, self.row, self.after);
        self.session.pump();
    }
}

/// A message on its way that has given its place to another, until this is dropped.
struct Aside<'a>(&'a Session);

impl<'a> Aside<'a> {
    fn step(session: &'a Arc<Session>) -> Option<Self> {
        let aside = lock(&session.lane).step_aside().then_some(Self(session))?;
        session.pump();
        Some(aside)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        lock(&self.0.lane).step_back();
    }
}

impl Departure {
    async fn run(&self, message: Option<Message>) -> After {
        let (session, store, tenant) = (&self.session, &self.session.around.store, &self.session.tenant);
        let claimed = match message {
            Some(message) => Ok(Claimed::Now(Box::new(message))),
            None => store.claim(tenant, self.row).await,
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
        let finding = session.find(&message, begun + session.around.attempt_limit);
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
            match store.departs(self.row).await {
                Ok(Claimed::Now(())) => {}
                Ok(Claimed::Later) => return After::Again(Instant::now() + CLOCK_PAUSE),
                Ok(Claimed::Never) => return After::Done,
                Err(_) => return soon(),
            }
        }
        // What was found out of it or of others may have shown that it overtakes one to the same person.
        if !lock(&session.lane).is_first(&self.recipient, self.row) {
            let pending = session.persist(|| store.put_back(tenant, self.row, false)).await;
            return if pending == Some(false) { After::Done } else { After::Again(Instant::now()) };
        }
        let attempt = |fresh, since| {
            let deadline = since + session.around.attempt_limit;
            session.attempt(&message, &found, &content, fresh, deadline)
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
                metrics::attempted(Attempted::Acknowledged, begun.elapsed());
                return After::Done;
            }
        };
        self.record(&message, outcome, begun.elapsed()).await
    }

    async fn unreadable(&self, message: &Message) -> After {
        self.fail(message, Failure::new("content_unreadable", "What it says can't be read any more.", false)).await
    }

    /// What a message says, with its media where WhatsApp's clients can fetch it. That may take longer than an attempt,
    /// and survives a connection that ends meanwhile.
    async fn uploaded(&self, mut content: Content) -> Result<Content, NotUploaded> {
        let session = &self.session;
        let ContentKind::Media(media) = &mut content.kind else { return Ok(content) };
        let client = session.ready_client().ok_or(NotUploaded::Later)?;
        let line = Line { client: &client, dialler: &session.around.dialler, proxy: session.proxy() };
        let _place = Aside::step(session);
        let upload = tokio::select! {
            upload = session.around.media.upload(&session.tenant, &line, &media.parcel) => upload?,
            () = session.around.stopping.cancelled() => return Err(NotUploaded::Later),
        };
        media.parcel.upload = Some(upload);
        Ok(content)
    }

    async fn record(&self, message: &Message, outcome: Result<DateTime<Utc>, Unsent>, took: Duration) -> After {
        let (session, store, tenant) = (&self.session, &self.session.around.store, &self.session.tenant);
        metrics::attempted(outcome_of(&outcome), took);
        let failure = match outcome {
            Ok(timestamp) => {
                let settled = session.persist(|| store.sent(tenant, &message.id, timestamp)).await;
                session.sent.fetch_add(settled.unwrap_or_default().into(), Ordering::Relaxed);
                session.keep_quota_fresh();
                return After::Done;
            }
            Err(unsent @ (Unsent::NotReady | Unsent::NotSent | Unsent::Unknown)) => {
                let left = unsent == Unsent::Unknown;
                if session.persist(|| store.put_back(tenant, self.row, left)).await == Some(false) {
                    return After::Done;
                }
                let pause = PAUSES[(message.attempts as usize).clamp(1, PAUSES.len()) - 1];
                return After::Again(Instant::now() + Duration::from_secs(pause));
            }
            Err(Unsent::OtherAccount) => {
                let why = "The tenant is linked with another account than the one that it was to be sent from.";
                Failure::new("account_changed", why, false)
            }
            Err(Unsent::NotOnWhatsApp) => {
                let why = match Person::kept(&message.recipient) {
                    Some(Person::Lid(_)) => "Nobody on WhatsApp has this LID.",
                    _ => "This number is not on WhatsApp.",
                };
                Failure::new("recipient_not_on_whatsapp", why, false)
            }
            Err(Unsent::ReachedNobody) => {
                let why = "The message could not be encrypted for any device of the recipient.";
                Failure::new(Failure::UNREACHABLE, why, false)
            }
            Err(Unsent::Rejected(code)) => {
                metrics::refused(&code);
                session.refused(code).await
            }
        };
        self.fail(message, failure).await
    }

    async fn fail(&self, message: &Message, failure: Failure) -> After {
        let (session, store, tenant) = (&self.session, &self.session.around.store, &self.session.tenant);
        if message.status == MessageStatus::Unknown {
            // An earlier copy may have arrived, whatever became of this one.
            session.persist(|| store.give_up(tenant, self.row, failure.clone())).await;
        } else {
            session.persist(|| store.failed(tenant, &message.id, failure.clone())).await;
        }
        After::Done
    }
}

impl Surroundings {
    /// A message that was accepted before, and how to learn more.
    pub async fn taken(&self, tenant: &TenantId, message: Message, wait: bool) -> Taken {
        if !wait || message.is_settled() {
            return Taken { message, waiting: None };
        }
        let waiting = self.store.wait_for(tenant, &message.id);
        // It may have been settled between the look at it and the waiting.
        let now = self.store.message(tenant, &message.id).await.ok().flatten();
        Taken { message: now.unwrap_or(message), waiting: Some(waiting) }
    }
}

/// The session of a message that was not sent yet is no more.
pub(crate) fn deleted() -> Failure {
    Failure::new("session_deleted", "The session was deleted before the message was sent.", false)
}

fn draft(submission: Submission, names: Names, account: Option<String>, tried: bool, now: DateTime<Utc>) -> Draft {
    Draft {
        id: RequestUtils::message_id_at(None, now.timestamp().unsigned_abs()),
        recipient: submission.to,
        names,
        account,
        content: submission.content,
        reference: submission.reference,
        expires_at: now + submission.expires_in,
        tried,
        idempotency: submission.idempotency,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Manager;

    #[tokio::test]
    async fn what_was_reserved_is_given_back_also_by_a_panic() {
        let data = tempfile::TempDir::new().unwrap();
        let manager = Manager::of_test(data.path());
        let session = manager.get_or_create(&"acme".parse().unwrap());
        let to = Person::parse("5511888888888").unwrap();
        for _ in 0..2 {
            let (session, to) = (session.clone(), to.clone());
            let panicked = tokio::spawn(async move {
                let (mut reserved, room) = Reserved::room(&session, 1);
                assert_eq!(room, session.around.outbox_limit);
                assert!(reserved.place(&to), "the place of the one before is free again");
                assert_eq!(session.pending(), 1);
                panic!("a test asked for it");
            });
            assert!(panicked.await.unwrap_err().is_panic());
            assert_eq!(manager.get_or_create(&"acme".parse().unwrap()).pending(), 0);
        }
    }
}
