//! The event log: what happened to a tenant, numbered without gaps.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use async_trait::async_trait;

use crate::{
    model::{
        event::{Event, EventKind},
        tenant::TenantId,
    },
    store::{
        changes::Change,
        error::StoreError,
        events::{Events, Received},
        lease::Lease,
        parts::{Part, Position, Room, Rows, WriteRow, gather},
        sqlite::{
            SqliteStore,
            tx::{Tx, millis, time},
        },
    },
    util::seal::{DATA, Seal},
};

#[async_trait]
impl Events for SqliteStore {
    async fn received(&self, lease: &Lease, messages: Vec<Received>) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let (key, now) = (tx.tenant(&tenant)?, tx.now());
            for Received { identity, data, own, kept, timer } in messages {
                let sql = "INSERT INTO received (tenant, message, at) VALUES (?, ?, ?) \
                           ON CONFLICT DO UPDATE SET asked = NULL WHERE asked IS NOT NULL";
                let is_new = tx.execute(sql, params![key, digest(&identity), millis(now)])? == 1;
                if let Some(timer) = timer.filter(|_| is_new) {
                    tx.learn_timer(&tenant, &timer)?;
                }
                let Some(mut data) = data.filter(|_| is_new) else { continue };
                let [.., id] = &identity;
                let sent = "SELECT 1 FROM messages WHERE tenant = ? AND id = ?";
                if own && tx.find(sent, params![key, id], |_| Ok(()))?.is_some() {
                    continue;
                }
                if let Some((kept, until)) = &kept
                    && tx.keep(&tenant, kept, *until)?
                    && let Some(serde_json::Value::String(url)) = data.get_mut("mediaUrl")
                {
                    // The id alone leads to the one that came first.
                    url.push_str(&format!("?of={}", kept.digest()));
                }
                let sequence = tx.append(&tenant, EventKind::MessageReceived, &data)?;
                let sql = "UPDATE received SET id = ?, sequence = ? WHERE tenant = ? AND message = ?";
                tx.execute(sql, params![id, sequence, key, digest(&identity)])?;
            }
            Ok(())
        })
        .await
    }

    async fn told_once(
        &self,
        lease: &Lease,
        identity: [String; 3],
        kind: EventKind,
        data: serde_json::Value,
    ) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        // It is not in the log itself, and may be asked for.
        let asked = (kind == EventKind::MessagePlaceholder).then_some(0);
        self.write_as(lease, move |tx| {
            let sql = "INSERT INTO received (tenant, message, at, asked) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let is_new =
                tx.execute(sql, params![tx.tenant(&tenant)?, digest(&identity), millis(tx.now()), asked])? == 1;
            if is_new {
                tx.append(&tenant, kind, &data)?;
            }
            Ok(())
        })
        .await
    }

    async fn is_lost(&self, lease: &Lease, identity: [String; 3]) -> Result<bool, StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let now = tx.now();
            let sql = "INSERT INTO received (tenant, message, at, asked) VALUES (?, ?, ?, 1) \
                       ON CONFLICT DO UPDATE SET asked = asked + 1 WHERE asked < 5";
            Ok(tx.execute(sql, params![tx.tenant(&tenant)?, digest(&identity), millis(now)])? == 1)
        })
        .await
    }

    async fn session_state(&self, lease: &Lease, data: serde_json::Value) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| tx.append(&tenant, EventKind::SessionState, &data).map(drop)).await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        from: Position,
        room: Room,
        write: WriteRow<Event>,
    ) -> Result<Part, StoreError> {
        let (tenant, instance, seal) = (tenant.clone(), self.instance.clone(), self.seal.clone());
        self.read(move |connection| {
            let sql = "SELECT * FROM events WHERE tenant = (SELECT key FROM tenants WHERE name = ?) AND sequence > ? \
                       ORDER BY sequence";
            let mut statement = connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| event(row, &tenant, &instance, &seal).map(|event| (event.sequence, event));
            gather(Rows::Fixed, statement.query_map(params![tenant.as_str(), from.row], read)?, from, room, write)
        })
        .await
    }

    async fn last_sequence(&self, tenant: &TenantId) -> Result<i64, StoreError> {
        let tenant = tenant.clone();
        self.read(move |connection| last_sequence(connection, &tenant)).await
    }

    async fn forget_events(&self, before: DateTime<Utc>) -> Result<bool, StoreError> {
        const STEP: usize = 500;
        self.write(move |tx| {
            let sql = "DELETE FROM events WHERE (tenant, sequence) IN \
                       (SELECT tenant, sequence FROM events WHERE at < ? AND delivery IS NOT 0 LIMIT 500)";
            let events = tx.execute(sql, [millis(before)])?;
            let sql = "DELETE FROM received WHERE (tenant, message) IN \
                       (SELECT tenant, message FROM received WHERE at < ? LIMIT 500)";
            let received = tx.execute(sql, [millis(before)])?;
            Ok(events == STEP || received == STEP)
        })
        .await
    }
}

impl Tx<'_> {
    /// Adds an event to the log, and to what the tenant's webhook is to get. Returns its number.
    pub fn append(&mut self, tenant: &TenantId, kind: EventKind, data: &impl Serialize) -> rusqlite::Result<i64> {
        let data = to_raw_value(data).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let key = self.tenant(tenant)?;
        let delivery = self.delivery(key, kind)?;
        let sql = "UPDATE tenants SET last_sequence = last_sequence + 1 WHERE key = ? RETURNING last_sequence";
        let sequence: i64 = self.find(sql, [key], |row| row.get(0))?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let data =
            self.seal().seal(&DATA, &[tenant.as_str().as_bytes(), &sequence.to_be_bytes()], data.get().as_bytes());
        self.execute(
            "INSERT INTO events (tenant, sequence, kind, at, data, delivery) VALUES (?, ?, ?, ?, ?, ?)",
            params![key, sequence, kind.as_str(), millis(self.now()), data, delivery],
        )?;
        self.notify(Change::Event { tenant: tenant.clone(), sequence, due: delivery == Some(0) });
        Ok(sequence)
    }
}

fn digest(identity: &[String; 3]) -> Vec<u8> {
    Sha256::digest(identity.join("\n"))[..16].to_vec()
}

fn last_sequence(connection: &Connection, tenant: &TenantId) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(last_sequence), 0) FROM tenants WHERE name = ?";
    connection.prepare_cached(sql)?.query_row([tenant.as_str()], |row| row.get(0))
}

/// An event from its row.
pub fn event(row: &Row<'_>, tenant: &TenantId, instance: &str, seal: &Seal) -> rusqlite::Result<Event> {
    let (key, sequence): (i64, i64) = (row.get("tenant")?, row.get("sequence")?);
    let damaged = |what: &str| rusqlite::Error::InvalidColumnName(format!("an event's {what} is damaged"));
    let place = [tenant.as_str().as_bytes(), &sequence.to_be_bytes()];
    let data = seal.open_text(&DATA, &place, row.get_ref("data")?.as_bytes()?)?;
    Ok(Event {
        id: format!("evt_{instance}_{key}_{sequence}"),
        kind: EventKind::parse(&row.get::<_, String>("kind")?).ok_or_else(|| damaged("kind"))?,
        timestamp: time(row, "at")?,
        tenant_id: tenant.to_string(),
        sequence,
        data: RawValue::from_string(data).map_err(|_| damaged("data"))?,
    })
}
