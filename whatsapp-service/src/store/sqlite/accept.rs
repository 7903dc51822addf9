//! How a message is accepted, once for each idempotency key.

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use serde_json::value::to_raw_value;

use crate::{
    model::{
        message::{Accepted, Draft, Idempotency, Message, MessageStatus},
        tenant::TenantId,
    },
    store::sqlite::{
        messages::{COLUMNS, read},
        tx::{Tx, millis},
    },
    util::seal::{CONTENT, FINGERPRINT, Seal},
};

impl Tx<'_> {
    /// Writes a message down, if it is new.
    pub fn accept(
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
}

/// A message that was accepted with a key, and the digest of that call.
pub fn keyed(row: &Row<'_>, tenant: &TenantId, key: &str, seal: &Seal) -> rusqlite::Result<(Vec<u8>, Message)> {
    let place = [tenant.as_str().as_bytes(), key.as_bytes()];
    let fingerprint = seal.open(&FINGERPRINT, &place, row.get_ref("fingerprint")?.as_bytes()?)?.into_owned();
    Ok((fingerprint, read(row, tenant, seal)?))
}

/// What an earlier call with the same key means.
pub fn same_call((known, message): (Vec<u8>, Message), fingerprint: &[u8; 32]) -> Accepted {
    if known == fingerprint { Accepted::Known(message.into()) } else { Accepted::Conflict }
}
