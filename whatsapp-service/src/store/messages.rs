//! Messages that are to be sent, and what became of them.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, Row, params, params_from_iter, types::Value};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    model::{
        address::{Lid, Names, Person, number::Number},
        error_code::ErrorCode,
        event::EventKind,
        message::{Accepted, Author, Claimed, Draft, Failure, Filter, Idempotency, Message, MessageStatus, Pending},
        tenant::TenantId,
    },
    store::{
        Store, StoreError,
        cells::{KEPT_FOR, Kind},
        news::Told,
        parts::{Part, Position, Room, Rows, gather},
        tx::{Tx, maybe_time, millis, tenant_name, time},
    },
    util::seal::{CONTENT, FINGERPRINT, Seal},
};

const COLUMNS: &str = "row, id, kind, recipient, number, lid, account, content, reference, status, pending, tried, attempts, accepted_at, \
                       expires_at, unknown_at, sent_at, server_at, delivered_at, read_at, played_at, failed_at, code, reason, \
                       retryable, whatsapp_code";

impl Store {
    /// Writes messages down, all in one commit, but no more than there is `room` for. What comes back is in the same
    /// order.
    pub fn accept(
        &self,
        tenant: &TenantId,
        drafts: Vec<Draft>,
        mut room: usize,
    ) -> impl Future<Output = Result<Vec<Accepted>, StoreError>> + Send + use<> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let (key, now) = (tx.tenant(&tenant)?, tx.now());
            drafts.into_iter().map(|draft| tx.accept(key, &tenant, draft, now, &mut room)).collect()
        })
    }

    /// The message, to be sent now, if that is still to be done. From now on it counts as one that may have left, unless
    /// it has media, which is brought to WhatsApp first: then it does so from [`Store::departs`] on.
    pub async fn claim(&self, tenant: &TenantId, row: i64) -> Result<Claimed<Box<Message>>, StoreError> {
        let sql = format!(
            "UPDATE messages SET tried = (tried OR media IS NULL), attempts = attempts + 1 \
             WHERE row = ? AND pending = 1 AND expires_at > ? RETURNING {COLUMNS}"
        );
        let lost = "SELECT 1 FROM messages WHERE row = ? AND pending = 1 AND tried = 1 AND status = 'queued'";
        let tenant = tenant.clone();
        self.write(move |tx| {
            let claimed = tx.find(&sql, [row, millis(tx.now())], |row| read(row, &tenant, tx.seal()))?;
            let claimed = tx.claimed(row, claimed.map(Box::new))?;
            // Its deadline has passed, and an earlier attempt broke off before it could say what came of it.
            if matches!(claimed, Claimed::Never) && tx.find(lost, [row], |_| Ok(()))?.is_some() {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            Ok(claimed)
        })
        .await
    }

    /// A message whose media is where it has to be leaves now: says whether that is still to be done.
    pub async fn departs(&self, row: i64) -> Result<Claimed<()>, StoreError> {
        self.write(move |tx| {
            let sql = "UPDATE messages SET tried = 1 WHERE row = ? AND pending = 1 AND expires_at > ?";
            let departs = tx.execute(sql, [row, millis(tx.now())])? == 1;
            tx.claimed(row, departs.then_some(()))
        })
        .await
    }

    /// An attempt came to nothing that anybody could see. `left` says whether the message may be out. Says whether
    /// something is still to be done for it.
    pub async fn put_back(&self, tenant: &TenantId, row: i64, left: bool) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            tx.execute("UPDATE messages SET tried = (status <> 'queued' OR ?2) WHERE row = ?1", params![row, left])?;
            if left {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            let pending = tx.find("SELECT pending FROM messages WHERE row = ?", [row], |row| row.get(0))?;
            Ok(pending.unwrap_or_default())
        })
        .await
    }

    /// The server acknowledged the message; `at` by its own clock. Says whether something was still to be done for it.
    pub async fn sent(&self, tenant: &TenantId, id: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.write(move |tx| {
            let of = Of::Id(&id);
            let settled = tx.advance_to(&tenant, &of, MessageStatus::Sent, |message| message.server_at = Some(at))?;
            Ok(settled.is_some())
        })
        .await
    }

    /// WhatsApp knows the recipient of a message by these names. It is queued to be written at once, also if nobody waits
    /// for the future.
    pub fn names(
        &self,
        tenant: &TenantId,
        id: &str,
        names: Names,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.write(move |tx| {
            let sql =
                "UPDATE messages SET number = coalesce(?, number), lid = coalesce(?, lid) WHERE tenant = ? AND id = ?";
            let (number, lid) = (names.number.as_ref(), names.lid.as_ref());
            let (number, lid) = (number.map(|number| number.digits()), lid.map(|lid| lid.digits()));
            tx.execute(sql, params![number, lid, tx.known_tenant(&tenant)?, id]).map(drop)
        })
    }

    /// `author` has the messages, or has read them: those that were sent to them. Says for which recipients something was
    /// still to be done.
    pub async fn receipt(
        &self,
        tenant: &TenantId,
        author: Author,
        ids: Vec<String>,
        status: MessageStatus,
    ) -> Result<Vec<String>, StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let mut settled = Vec::new();
            for id in &ids {
                let message = tx.message(&tenant, &Of::Id(id))?;
                if let Some(message) = message.filter(|message| author.is_recipient_of(message)) {
                    settled.extend(tx.advance(&tenant, message, status, |_| {})?);
                }
            }
            tx.close_retries(&tenant, &author.device, &ids)?;
            Ok(settled)
        })
        .await
    }

    /// The message is not sent, for this reason, and not tried again.
    pub async fn failed(&self, tenant: &TenantId, id: &str, failure: Failure) -> Result<(), StoreError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        self.write(move |tx| {
            let of = Of::Id(&id);
            tx.advance_to(&tenant, &of, MessageStatus::Failed, |message| message.failure = Some(failure)).map(drop)
        })
        .await
    }

    /// Nothing more is done for a message. It has failed, if it can't have left; otherwise its outcome stays unknown.
    pub async fn give_up(&self, tenant: &TenantId, row: i64, failure: Failure) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| tx.give_up(&tenant, row, failure)).await
    }

    /// The same for all that is pending of a tenant, some at a time.
    pub async fn give_up_all(&self, tenant: &TenantId, failure: Failure) -> Result<(), StoreError> {
        const STEP: usize = 200;
        loop {
            let (tenant, failure) = (tenant.clone(), failure.clone());
            let given_up = self.write(move |tx| {
                let sql = "SELECT row FROM messages INDEXED BY messages_by_status \
                           WHERE tenant = ? AND status IN ('queued', 'unknown') AND pending = 1 LIMIT 200";
                let rows = tx.all(sql, [tx.known_tenant(&tenant)?], |row| row.get::<_, i64>(0))?;
                for row in &rows {
                    tx.give_up(&tenant, *row, failure.clone())?;
                }
                Ok(rows.len())
            });
            if given_up.await? < STEP {
                return Ok(());
            }
        }
    }

    /// What became of earlier calls with these keys, where there were any.
    pub async fn known(
        &self,
        tenant: &TenantId,
        calls: Vec<Option<Idempotency>>,
    ) -> Result<Vec<Option<Accepted>>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let sql = format!(
                "SELECT fingerprint, {COLUMNS} FROM idempotency JOIN messages ON row = message \
                 WHERE idempotency.tenant = (SELECT key FROM tenants WHERE name = ?) AND key = ?"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut known = Vec::with_capacity(calls.len());
            for call in calls {
                known.push(match call {
                    None => None,
                    Some(Idempotency { key, fingerprint }) => {
                        let read = |row: &Row<'_>| keyed(row, &tenant, &key, &seal);
                        let found = statement.query_map([tenant.as_str(), &key], read)?.next().transpose()?;
                        found.map(|found| same_call(found, &fingerprint))
                    }
                });
            }
            Ok(known)
        })
        .await
    }

    /// Cancels a message that has not been tried yet; `None` if there is no such message, and the message as it is, if
    /// it can't be cancelled any more.
    pub async fn cancel(&self, tenant: &TenantId, id: &str) -> Result<Option<Result<Message, Message>>, StoreError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        let failure = Failure::new(ErrorCode::Cancelled, "The message was cancelled before it left.", true);
        self.write(move |tx| {
            let Some(message) = tx.message(&tenant, &Of::Id(&id))? else { return Ok(None) };
            if !message.pending || message.tried || message.status != MessageStatus::Queued {
                return Ok(Some(Err(message)));
            }
            tx.give_up(&tenant, message.row, failure)?;
            Ok(tx.message(&tenant, &Of::Id(&id))?.map(Ok))
        })
        .await
    }

    /// Gives up what has passed its deadline, some at a time, and says whose they were: nothing while the clock is not
    /// steady. What is on its way for the first time is left to its attempt.
    pub async fn expire(&self) -> Result<Vec<Pending>, StoreError> {
        if !self.clock.is_steady() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let due = self.read(move |connection| {
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages JOIN tenants ON key = tenant \
                       WHERE pending = 1 AND expires_at <= ? AND NOT (tried = 1 AND status = 'queued') LIMIT 200";
            connection.prepare_cached(sql)?.query_map([millis(now)], pending)?.collect::<Result<Vec<_>, _>>()
        });
        let due = due.await?;
        if due.is_empty() {
            return Ok(due);
        }
        let failure = Failure::new(ErrorCode::Expired, "The message was not sent before its deadline.", true);
        self.write(move |tx| {
            for Pending { tenant, row, .. } in &due {
                tx.give_up(tenant, *row, failure.clone())?;
            }
            Ok(due)
        })
        .await
    }

    /// What earlier processes left to be done, in the order of acceptance. What may have left when the last one ended
    /// becomes unknown.
    pub async fn recover(&self) -> Result<Vec<Pending>, StoreError> {
        self.write(move |tx| {
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages INDEXED BY messages_pending \
                       JOIN tenants ON key = tenant WHERE pending = 1 AND tried = 1 AND status = 'queued' ORDER BY row";
            for Pending { tenant, row, .. } in tx.all(sql, (), pending)? {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages INDEXED BY messages_pending \
                       JOIN tenants ON key = tenant WHERE pending = 1 ORDER BY row";
            let mut left = tx.all(sql, (), pending)?;
            // What was learned of people since their messages were accepted is known to the device.
            let mut known: HashMap<(TenantId, Person), Names> = HashMap::new();
            for message in &mut left {
                let Some(person) = Person::kept(&message.recipient) else { continue };
                let names = match known.entry((message.tenant.clone(), person.clone())) {
                    Entry::Occupied(names) => names.into_mut(),
                    Entry::Vacant(place) => place.insert(tx.names_of(&message.tenant, person)?),
                };
                let Names { number, lid } = std::mem::take(&mut message.names);
                message.names =
                    Names { number: number.or_else(|| names.number.clone()), lid: lid.or_else(|| names.lid.clone()) };
            }
            Ok(left)
        })
        .await
    }

    /// A tenant's message.
    pub async fn message(&self, tenant: &TenantId, id: &str) -> Result<Option<Message>, StoreError> {
        let (tenant, id, keep, seal) = (tenant.clone(), id.to_owned(), self.rules.keep_bodies, self.seal.clone());
        self.read(move |connection| {
            let found = with_content(connection, &tenant, &id, &seal)?;
            Ok(found.map(|message| if keep { message.shown() } else { message.without_content() }))
        })
        .await
    }

    /// Which of these files of media are still needed.
    pub async fn needed_media(&self, files: Vec<String>) -> Result<HashSet<String>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT 1 FROM messages INDEXED BY messages_by_media \
                       WHERE media = ? AND media IS NOT NULL AND pending = 1 LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let mut needed = HashSet::new();
            for file in files {
                if statement.exists([&file])? {
                    needed.insert(file);
                }
            }
            Ok(needed)
        })
        .await
    }

    /// The next part of a tenant's messages, the newest first, written by `write`.
    pub async fn messages(
        &self,
        tenant: &TenantId,
        filter: Filter,
        from: Position,
        room: Room,
        write: fn(&Message, bool) -> Vec<u8>,
    ) -> Result<Part, StoreError> {
        let (tenant, keep, seal) = (tenant.clone(), self.rules.keep_bodies, self.seal.clone());
        let mut sql = format!(
            "SELECT {COLUMNS} FROM messages WHERE tenant = (SELECT key FROM tenants WHERE name = ?1) \
             AND row < ?2 AND accepted_at >= ?3"
        );
        // They are not in the order of their times where the clock was put back.
        let since = filter.since.map_or(i64::MIN, millis);
        let mut values: Vec<Value> = vec![tenant.as_str().to_owned().into(), from.row.into(), since.into()];
        if let Some(Names { number, lid }) = filter.recipient {
            values.push(number.map(|number| number.digits().to_owned()).into());
            values.push(lid.map(|lid| lid.digits().to_owned()).into());
            let (number, lid) = (values.len() - 1, values.len());
            sql += &format!(
                " AND (recipient IN (?{number}, ?{lid} || '@lid') OR messages.number = ?{number} OR lid = ?{lid})"
            );
        }
        let mut only = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                sql += &format!(" AND {}", condition.replace('?', &format!("?{}", values.len())));
            }
        };
        only("status = ?", filter.status.map(|status| status.as_str().to_owned().into()));
        only("coalesce(kind, 'text') = ?", filter.kind.map(Value::from));
        only("reference = ?", filter.reference.map(Value::from));
        only("accepted_at < ?", filter.until.map(|until| millis(until).into()));
        sql += " ORDER BY row DESC";
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let read = |row: &Row<'_>| {
                let message = read(row, &tenant, &seal)?;
                Ok((message.row, if keep { message.shown() } else { message.without_content() }))
            };
            gather(Rows::Changing, statement.query_map(params_from_iter(values), read)?, from, room, write)
        })
        .await
    }

    /// What a clock that was far ahead has stamped counts as of now: nobody would ever forget it, nor give it up.
    ///
    /// What is kept for a device is kept for so long at most.
    pub async fn correct_times(&self, longest: TimeDelta) -> Result<(), StoreError> {
        self.write(move |tx| {
            let now = tx.now();
            let [ahead, now, latest] = [now + AHEAD, now, now + LONGEST].map(millis);
            for sql in [
                "UPDATE events SET at = ?2 WHERE at > ?1",
                "UPDATE received SET at = ?2 WHERE at > ?1",
                "UPDATE idempotency SET at = ?2 WHERE at > ?1",
                "UPDATE messages SET accepted_at = ?2, expires_at = ?2 WHERE pending = 0 AND accepted_at > ?1",
            ] {
                tx.execute(sql, [ahead, now])?;
            }
            let sql = "UPDATE messages SET expires_at = ?2 WHERE pending = 1 AND expires_at > ?1";
            tx.execute(sql, [latest + AHEAD.num_milliseconds(), latest])?;
            let longest = now + longest.num_milliseconds().max(KEPT_FOR);
            // Far enough ahead that the index passes over the secrets of polls, which are right so far ahead.
            let far = longest.max(now + SECRETS.num_milliseconds()) + AHEAD.num_milliseconds();
            let kinds = [Kind::Sent, Kind::PendingInbound, Kind::Kept, Kind::Retry, Kind::RetryDone];
            let kinds = kinds.map(|kind| (kind as i64).to_string()).join(", ");
            let sql = format!("UPDATE state SET expires_at = ?2 WHERE expires_at > ?1 AND kind IN ({kinds})");
            tx.execute(&sql, [far, longest]).map(drop)
        })
        .await
    }

    /// Forgets, at most a few hundred rows at a time, what is settled and older than this, and which keys were used
    /// before `keys_before`. Says whether there may be more.
    pub async fn forget_messages(&self, before: DateTime<Utc>, keys_before: DateTime<Utc>) -> Result<bool, StoreError> {
        const STEP: usize = 500;
        self.write(move |tx| {
            let messages = tx.execute(
                "DELETE FROM messages WHERE row IN \
                 (SELECT row FROM messages WHERE pending = 0 AND accepted_at < ? AND expires_at < ? LIMIT 500)",
                [millis(before), millis(tx.now() - AFTERMATH)],
            )?;
            let keys = tx.execute(
                "DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key FROM idempotency WHERE at < ? LIMIT 500)",
                [millis(keys_before)],
            )?;
            Ok(messages == STEP || keys == STEP)
        })
        .await
    }
}

/// How long a message is kept at least after its deadline, so that its fate can be learnt.
const AFTERMATH: TimeDelta = TimeDelta::days(1);
/// No deadline is further away.
const LONGEST: TimeDelta = TimeDelta::days(7);
/// How long the library keeps secrets of messages at most (its `msg_secret`, those of polls).
const SECRETS: TimeDelta = TimeDelta::days(90);
/// How far in the future something may be stamped before that counts as a clock that was ahead.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// Which message.
pub enum Of<'a> {
    /// By its place in the order of acceptance.
    Row(i64),
    /// By its id, of a tenant's.
    Id(&'a str),
}

impl Tx<'_> {
    /// What was found to be done for a message; if nothing, whether that is because of a clock that can't be relied on.
    fn claimed<T>(&self, row: i64, found: Option<T>) -> rusqlite::Result<Claimed<T>> {
        let pending = "SELECT 1 FROM messages WHERE row = ? AND pending = 1";
        Ok(match found {
            Some(found) => Claimed::Now(found),
            None if !self.is_steady() && self.find(pending, [row], |_| Ok(()))?.is_some() => Claimed::Later,
            None => Claimed::Never,
        })
    }

    fn accept(
        &mut self,
        tenant: i64,
        name: &TenantId,
        draft: Draft,
        now: DateTime<Utc>,
        room: &mut usize,
    ) -> rusqlite::Result<Accepted> {
        if let Some(Idempotency { key, fingerprint }) = &draft.idempotency {
            let sql = format!(
                "SELECT fingerprint, {COLUMNS} FROM idempotency JOIN messages ON row = message \
                 WHERE idempotency.tenant = ? AND key = ?"
            );
            let read = |row: &Row<'_>| keyed(row, name, key, self.seal());
            if let Some(known) = self.find(&sql, params![tenant, key], read)? {
                return Ok(same_call(known, fingerprint));
            }
        }
        match room.checked_sub(1) {
            Some(left) => *room = left,
            None => return Ok(Accepted::Full),
        }
        let content =
            to_raw_value(&draft.content).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let recipient = draft.recipient.address();
        let place = [name.as_str().as_bytes(), draft.id.as_bytes(), recipient.as_bytes()];
        let mut message = Message {
            row: 0,
            id: draft.id.clone(),
            kind: draft.content.kind.word().into(),
            number: recipient.clone(),
            lid: None,
            recipient: recipient.clone(),
            reference: draft.reference,
            status: MessageStatus::Queued,
            pending: true,
            tried: draft.tried,
            attempts: draft.tried.into(),
            account: draft.account,
            accepted_at: now,
            expires_at: draft.expires_at,
            unknown_at: None,
            sent_at: None,
            server_at: None,
            delivered_at: None,
            read_at: None,
            played_at: None,
            failed_at: None,
            failure: None,
            content: None,
        };
        message.show(&draft.names);
        self.execute(
            "INSERT INTO messages (tenant, id, recipient, number, lid, account, content, reference, status, pending, tried, \
             attempts, accepted_at, expires_at, kind, media) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', 1, ?9, ?9, ?10, ?11, ?12, ?13)",
            params![
                tenant,
                message.id,
                message.recipient,
                message.known_number(),
                message.lid,
                message.account,
                self.seal().seal(&CONTENT, &place, content.get().as_bytes()),
                message.reference,
                message.tried,
                millis(now),
                millis(message.expires_at),
                message.kind,
                draft.content.file(),
            ],
        )?;
        let row = self.last_row();
        (message.row, message.content) = (row, Some(content));
        if let Some(Idempotency { key, fingerprint }) = draft.idempotency {
            let place = [name.as_str().as_bytes(), key.as_bytes()];
            let fingerprint = self.seal().seal(&FINGERPRINT, &place, &fingerprint);
            self.execute(
                "INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, message, at) VALUES (?, ?, ?, ?, ?)",
                params![tenant, key, fingerprint, row, millis(now)],
            )?;
        }
        Ok(Accepted::New(message.into()))
    }

    /// A tenant's message.
    pub fn message(&self, tenant: &TenantId, of: &Of<'_>) -> rusqlite::Result<Option<Message>> {
        let read = |row: &Row<'_>| read(row, tenant, self.seal());
        match of {
            Of::Row(row) => self.find(&format!("SELECT {COLUMNS} FROM messages WHERE row = ?"), [row], read),
            Of::Id(id) => {
                let sql = format!("SELECT {COLUMNS} FROM messages WHERE tenant = ? AND id = ?");
                self.find(&sql, params![self.known_tenant(tenant)?, id], read)
            }
        }
    }

    fn advance_to(
        &mut self,
        tenant: &TenantId,
        of: &Of<'_>,
        status: MessageStatus,
        change: impl FnOnce(&mut Message),
    ) -> rusqlite::Result<Option<String>> {
        match self.message(tenant, of)? {
            Some(message) => self.advance(tenant, message, status, change),
            None => Ok(None),
        }
    }

    /// Moves a message on, unless it is there already or further, and puts that into the event log. Returns the
    /// recipient if there was still something to do for the message before.
    pub fn advance(
        &mut self,
        tenant: &TenantId,
        mut message: Message,
        status: MessageStatus,
        change: impl FnOnce(&mut Message),
    ) -> rusqlite::Result<Option<String>> {
        let (was_pending, at) = (message.pending, message.next_time(self.now()));
        // The server acknowledges also what was encrypted for nobody.
        let proves_nothing = status == MessageStatus::Sent
            && message.failure.as_ref().is_some_and(|failure| failure.is(ErrorCode::RecipientUnreachable));
        if status <= message.status || proves_nothing {
            return Ok(None);
        }
        change(&mut message);
        if status < MessageStatus::Sent {
            message.status = status;
            *if status == MessageStatus::Failed { &mut message.failed_at } else { &mut message.unknown_at } = Some(at);
            message.pending = status == MessageStatus::Unknown;
            self.save(tenant, &message)?;
            return Ok(was_pending.then_some(message.recipient));
        }
        // What is further implies what is before it, and whoever follows the events sees every step.
        (message.failure, message.pending) = (None, false);
        for step in [MessageStatus::Sent, MessageStatus::Delivered, MessageStatus::Read, MessageStatus::Played] {
            if step <= message.status || step > status {
                continue;
            }
            message.status = step;
            match step {
                MessageStatus::Delivered => message.delivered_at = Some(at),
                MessageStatus::Read => message.read_at = Some(at),
                MessageStatus::Played => message.played_at = Some(at),
                _ => message.sent_at = Some(at),
            }
            self.save(tenant, &message)?;
        }
        Ok(was_pending.then_some(message.recipient))
    }

    fn give_up(&mut self, tenant: &TenantId, row: i64, failure: Failure) -> rusqlite::Result<()> {
        let Some(mut message) = self.message(tenant, &Of::Row(row))?.filter(|message| message.pending) else {
            return Ok(());
        };
        let now = message.next_time(self.now());
        message.pending = false;
        message.failure = Some(if message.tried {
            let reason = format!("It may have arrived: it left, and was never acknowledged. {}", failure.reason);
            Failure { reason, retryable: false, ..failure }
        } else {
            failure
        });
        if !message.tried {
            message.status = MessageStatus::Failed;
            message.failed_at = Some(now);
        } else if message.status == MessageStatus::Queued {
            message.status = MessageStatus::Unknown;
            message.unknown_at = Some(now);
        }
        self.save(tenant, &message)
    }

    /// Writes a message down as it is now, and puts that into the event log.
    pub fn save(&mut self, tenant: &TenantId, message: &Message) -> rusqlite::Result<()> {
        let failure = message.failure.as_ref();
        self.execute(
            "UPDATE messages SET number = ?, lid = ?, status = ?, pending = ?, attempts = ?, unknown_at = ?, sent_at = ?, \
             server_at = ?, delivered_at = ?, read_at = ?, played_at = ?, failed_at = ?, code = ?, reason = ?, retryable = ?, \
             whatsapp_code = ?, content = CASE WHEN ? THEN content END WHERE row = ?",
            params![
                message.known_number(),
                message.lid,
                message.status.as_str(),
                message.pending,
                message.attempts,
                message.unknown_at.map(millis),
                message.sent_at.map(millis),
                message.server_at.map(millis),
                message.delivered_at.map(millis),
                message.read_at.map(millis),
                message.played_at.map(millis),
                message.failed_at.map(millis),
                failure.map(|failure| &failure.code),
                failure.map(|failure| &failure.reason),
                failure.map(|failure| failure.retryable),
                failure.and_then(|failure| failure.whatsapp_code.as_ref()),
                message.pending || self.rules().keep_bodies,
                message.row,
            ],
        )?;
        let told = message.without_content();
        self.append(tenant, EventKind::MessageStatus, &told)?;
        self.tell(Told::Message(tenant.clone(), told.into()));
        Ok(())
    }
}

/// A tenant's message, with what it says for as long as that is known.
pub fn with_content(
    connection: &Connection,
    tenant: &TenantId,
    id: &str,
    seal: &Seal,
) -> rusqlite::Result<Option<Message>> {
    let sql =
        format!("SELECT {COLUMNS} FROM messages WHERE tenant = (SELECT key FROM tenants WHERE name = ?) AND id = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map([tenant.as_str(), id], |row| read(row, tenant, seal))?.next().transpose()
}

/// A message that was accepted with a key, and the digest of that call.
fn keyed(row: &Row<'_>, tenant: &TenantId, key: &str, seal: &Seal) -> rusqlite::Result<(Vec<u8>, Message)> {
    let place = [tenant.as_str().as_bytes(), key.as_bytes()];
    let fingerprint = seal.open(&FINGERPRINT, &place, row.get_ref("fingerprint")?.as_bytes()?)?.into_owned();
    Ok((fingerprint, read(row, tenant, seal)?))
}

fn same_call((known, message): (Vec<u8>, Message), fingerprint: &[u8; 32]) -> Accepted {
    if known == fingerprint { Accepted::Known(message.into()) } else { Accepted::Conflict }
}

fn pending(row: &Row<'_>) -> rusqlite::Result<Pending> {
    Ok(Pending {
        tenant: tenant_name(row, "tenant")?,
        recipient: row.get("recipient")?,
        names: Names {
            number: row.get::<_, Option<String>>("number")?.as_deref().and_then(Number::of_whatsapp),
            lid: row.get::<_, Option<String>>("lid")?.as_deref().and_then(Lid::new),
        },
        row: row.get("row")?,
        media: row.get("media")?,
    })
}

/// One of this tenant's messages. One whose text can't be read is one without.
fn read(row: &Row<'_>, tenant: &TenantId, seal: &Seal) -> rusqlite::Result<Message> {
    let (recipient, code): (String, Option<String>) = (row.get("recipient")?, row.get("code")?);
    let id: String = row.get("id")?;
    let content = row.get_ref("content")?.as_bytes_or_null()?;
    let place = [tenant.as_str().as_bytes(), id.as_bytes(), recipient.as_bytes()];
    let content = content.and_then(|kept| seal.open_text(&CONTENT, &place, kept).ok());
    let status: String = row.get("status")?;
    let failure = match code {
        Some(code) => Some(Failure {
            code,
            reason: row.get::<_, Option<String>>("reason")?.unwrap_or_default(),
            retryable: row.get::<_, Option<bool>>("retryable")?.unwrap_or_default(),
            whatsapp_code: row.get("whatsapp_code")?,
        }),
        None => None,
    };
    Ok(Message {
        row: row.get("row")?,
        id,
        kind: row.get::<_, Option<String>>("kind")?.unwrap_or_else(|| "text".into()),
        number: row.get::<_, Option<String>>("number")?.unwrap_or_else(|| recipient.clone()),
        lid: row.get("lid")?,
        recipient,
        reference: row.get("reference")?,
        status: MessageStatus::parse(&status)
            .ok_or_else(|| rusqlite::Error::InvalidColumnName(format!("a message's status is {status:?}")))?,
        pending: row.get("pending")?,
        tried: row.get("tried")?,
        attempts: row.get("attempts")?,
        account: row.get("account")?,
        accepted_at: time(row, "accepted_at")?,
        expires_at: time(row, "expires_at")?,
        unknown_at: maybe_time(row, "unknown_at")?,
        sent_at: maybe_time(row, "sent_at")?,
        server_at: maybe_time(row, "server_at")?,
        delivered_at: maybe_time(row, "delivered_at")?,
        read_at: maybe_time(row, "read_at")?,
        played_at: maybe_time(row, "played_at")?,
        failed_at: maybe_time(row, "failed_at")?,
        failure,
        content: content.and_then(|text| RawValue::from_string(text).ok()),
    })
}
