//! Accepting messages: checked, then written down in one commit.
use chrono::DateTime;
use chrono::Utc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

use crate::{
    metrics,
    model::{
        address::{Names, Person},
        content::ContentKind,
        message::{Accepted, Draft, Message},
        tenant::TenantId,
    },
    session::outbox::{NotTaken, Outbox, OutgoingMessage, Refused, Taken, deleted},
    store::{Store, error::StoreError},
    whatsapp::send::message_id,
};

impl Outbox {
    /// Writes messages down, all in one commit, and sends them as soon as they may go. Runs to its end only if it is
    /// polled to its end: put it on a task that nobody drops. `wait` says whether somebody will wait for their fate.
    pub async fn submit(
        self: &Arc<Self>,
        submissions: Vec<OutgoingMessage>,
        wait: bool,
    ) -> Result<Vec<Result<Taken, NotTaken>>, Refused> {
        self.connection.accepts()?;
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
    async fn check(&self, submission: &mut OutgoingMessage) -> Result<Result<Names, NotTaken>, StoreError> {
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
        submissions: Vec<(OutgoingMessage, Names)>,
        wait: bool,
    ) -> Result<Vec<Result<Taken, NotTaken>>, Refused> {
        let (mut reserved, room) = Reserved::room(self, submissions.len());
        // A single message with nothing before it is written down as already on its way: one commit instead of two. One
        // with media is not: that is uploaded first.
        let direct = match &submissions[..] {
            [(OutgoingMessage { to, content, .. }, _)]
                if content.file().is_none() && room > 0 && self.connection.may_send() =>
            {
                reserved.place(to)
            }
            _ => false,
        };
        let recipients: Vec<_> = submissions.iter().map(|(one, names)| (one.to.clone(), names.clone())).collect();
        let (account, now) = (self.connection.snapshot().phone, self.connection.now());
        let drafts = submissions.into_iter().map(|(one, names)| draft(one, names, account.clone(), direct, now));
        let accepted = self.store.accept(&self.tenant, drafts.collect(), room).await;
        if direct && matches!(accepted.as_deref(), Ok([Accepted::New(_)])) {
            reserved.taken();
        }
        drop(reserved);
        let mut answers = Vec::with_capacity(recipients.len());
        for ((to, names), accepted) in recipients.into_iter().zip(accepted.inspect_err(|_| self.pump())?) {
            answers.push(match accepted {
                // The session was deleted meanwhile: nobody would send it.
                Accepted::New(message) if self.connection.gone.load(Ordering::Acquire) => {
                    let store = &self.store;
                    self.connection.persist(|| store.give_up(&self.connection.lease, message.row, deleted())).await;
                    let now = store.message(&self.tenant, &message.id).await.ok().flatten();
                    Ok(Taken { message: now.unwrap_or(*message), waiting: None })
                }
                Accepted::New(message) => {
                    metrics::accepted();
                    let waiting = wait.then(|| self.store.wait_for(&self.tenant, &message.id));
                    if direct {
                        self.queue.lock().fill(&to, message.row);
                        self.join(&to, &names);
                        self.set_off(to, message.row, Some(*message.clone()));
                    } else {
                        self.resume(&to, &names, message.row);
                    }
                    Ok(Taken { message: *message, waiting })
                }
                Accepted::Known(message) => Ok(known(&self.store, &self.tenant, *message, wait).await),
                Accepted::Conflict => Err(NotTaken::Conflict),
                Accepted::Full => Err(NotTaken::QueueFull),
            });
        }
        self.pump();
        // If it waits for its turn to dial, it goes before those that nobody waits for.
        self.connection.nudge.notify_one();
        Ok(answers)
    }
}

/// A message that was accepted before, and how to learn more.
pub async fn known(store: &Arc<dyn Store>, tenant: &TenantId, message: Message, wait: bool) -> Taken {
    if !wait || message.is_settled() {
        return Taken { message, waiting: None };
    }
    let waiting = store.wait_for(tenant, &message.id);
    // It may have been settled between the look at it and the waiting.
    let now = store.message(tenant, &message.id).await.ok().flatten();
    Taken { message: now.unwrap_or(message), waiting: Some(waiting) }
}

/// Room for messages that are about to be accepted, and a place on the way for a single one. Both are given back however
/// the accepting ends, also by a panic: nobody else could send to that person.
pub(crate) struct Reserved<'a> {
    outbox: &'a Outbox,
    wanted: usize,
    place: Option<Person>,
}

impl<'a> Reserved<'a> {
    /// Also says how many messages there is room for.
    pub(crate) fn room(outbox: &'a Outbox, wanted: usize) -> (Self, usize) {
        let room = outbox.queue.lock().promise(wanted, outbox.limit);
        (Self { outbox, wanted, place: None }, room)
    }

    /// Takes a place for the message to this person, and says whether there was one.
    pub(crate) fn place(&mut self, to: &Person) -> bool {
        let reserved = self.outbox.queue.lock().reserve(to, Instant::now());
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
        let mut lane = self.outbox.queue.lock();
        lane.redeem(self.wanted);
        if let Some(to) = &self.place {
            lane.release(to);
        }
    }
}

fn draft(submission: OutgoingMessage, names: Names, account: Option<String>, tried: bool, now: DateTime<Utc>) -> Draft {
    Draft {
        id: message_id(now),
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
