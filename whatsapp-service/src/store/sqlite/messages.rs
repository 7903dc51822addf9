//! A tenant's messages, as they are looked at and forgotten.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, Row, params_from_iter, types::Value};
use serde_json::value::RawValue;

use async_trait::async_trait;

use crate::{
    model::{
        address::{Lid, Names, number::Number},
        message::{Failure, Filter, Message, MessageStatus, Pending},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        key_value::{KEPT_FOR, Kind},
        messages::Messages,
        parts::{Part, Position, Room, Rows, WriteRow, gather},
        sqlite::{
            SqliteStore,
            tx::{maybe_time, millis, tenant_name, time},
        },
    },
    util::seal::{CONTENT, Seal},
};

/// What is read of a message.
pub const COLUMNS: &str = "row, id, kind, recipient, number, lid, account, content, reference, status, pending, tried, attempts, accepted_at, \
                       expires_at, unknown_at, sent_at, server_at, delivered_at, read_at, played_at, failed_at, code, reason, \
                       retryable, whatsapp_code";

/// How long a message is kept at least after its deadline, so that its fate can be learnt.
const AFTERMATH: TimeDelta = TimeDelta::days(1);
/// No deadline is further away.
const LONGEST: TimeDelta = TimeDelta::days(7);
/// How long the library keeps secrets of messages at most (its `msg_secret`, those of polls).
const SECRETS: TimeDelta = TimeDelta::days(90);
/// How far in the future something may be stamped before that counts as a clock that was ahead.
const AHEAD: TimeDelta = TimeDelta::days(1);

#[async_trait]
impl Messages for SqliteStore {
    async fn message(&self, tenant: &TenantId, id: &str) -> Result<Option<Message>, StoreError> {
        let (tenant, id, keep, seal) = (tenant.clone(), id.to_owned(), self.rules.keep_bodies, self.seal.clone());
        self.read(move |connection| {
            let found = with_content(connection, &tenant, &id, &seal)?;
            Ok(found.map(|message| if keep { message.shown() } else { message.without_content() }))
        })
        .await
    }

    async fn messages(
        &self,
        tenant: &TenantId,
        filter: Filter,
        from: Position,
        room: Room,
        write: WriteRow<Message>,
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

    async fn needed_media(&self, files: Vec<String>) -> Result<HashSet<String>, StoreError> {
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

    async fn correct_times(&self, longest: TimeDelta) -> Result<(), StoreError> {
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

    async fn forget_messages(&self, before: DateTime<Utc>, keys_before: DateTime<Utc>) -> Result<bool, StoreError> {
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

/// A message that waits.
pub fn pending(row: &Row<'_>) -> rusqlite::Result<Pending> {
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
pub fn read(row: &Row<'_>, tenant: &TenantId, seal: &Seal) -> rusqlite::Result<Message> {
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
