//! How a message moves on: only forward, each step in the event log.

use rusqlite::{Row, params};

use crate::{
    model::{
        error_code::ErrorCode,
        event::EventKind,
        message::{Claimed, Failure, Message, MessageStatus},
        tenant::TenantId,
    },
    store::{
        changes::Change,
        sqlite::{
            messages::{COLUMNS, read},
            tx::{Tx, millis},
        },
    },
};

/// Which message.
pub enum Of<'a> {
    /// By its place in the order of acceptance.
    Row(i64),
    /// By its id, of a tenant's.
    Id(&'a str),
}

impl Tx<'_> {
    /// What was found to be done for a message; if nothing, whether that is because of a clock that can't be relied on.
    pub fn claimed<T>(&self, row: i64, found: Option<T>) -> rusqlite::Result<Claimed<T>> {
        let pending = "SELECT 1 FROM messages WHERE row = ? AND pending = 1";
        Ok(match found {
            Some(found) => Claimed::Now(found),
            None if !self.is_steady() && self.find(pending, [row], |_| Ok(()))?.is_some() => Claimed::Later,
            None => Claimed::Never,
        })
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

    pub fn advance_to(
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

    pub fn give_up(&mut self, tenant: &TenantId, row: i64, failure: Failure) -> rusqlite::Result<()> {
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
        self.notify(Change::Message(tenant.clone(), told.into()));
        Ok(())
    }
}
