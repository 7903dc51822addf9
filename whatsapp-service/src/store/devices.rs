//! The devices that tenants have linked: which there are, what is known of their sessions, and where their keys are.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    model::{session_state::State, tenant::TenantId},
    net::proxy::Proxy,
    store::{
        Store, StoreError,
        cells::{decode, encode},
        tx::{Tx, damaged, millis, tenant_name},
    },
    util::seal::{RECORD, Seal},
};

/// What is known of a tenant's session from one process to the next, beside its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whether it is linked.
    pub paired: bool,
    /// The account's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Why it must not dial, if WhatsApp said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<LoginHold>,
    /// When another connection last took the session's place and that was not believed, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<i64>,
    /// Whether the session is being deleted: that goes on until it is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// The way to WhatsApp that its owner has chosen. It holds a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// What WhatsApp said of an account that a new process has to respect too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginHold {
    /// Banned, locked or replaced.
    pub state: State,
    /// The reason's identifier.
    pub reason: String,
    /// The reason for a person.
    pub message: String,
    /// When that was, in milliseconds since 1970. The first version did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Until when, in milliseconds since 1970; without it, until a person decides.
    pub until: Option<i64>,
    /// What a locked account's owner needs for an appeal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal_token: Option<String>,
}

impl LoginHold {
    /// Whether it still forbids dialling.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now.timestamp_millis() < until)
    }

    /// How long it goes on, if it ends by itself. Never longer than it was to last when it began: a clock that is set
    /// back must not make a ban out of an hour that lasts a day.
    pub fn remaining(&self, now: DateTime<Utc>) -> Option<Duration> {
        let until = self.until?;
        let longest = self.since.map_or(i64::MAX, |since| until.saturating_sub(since));
        let left = until.saturating_sub(now.timestamp_millis()).min(longest);
        Some(Duration::from_millis(left.max(0).unsigned_abs()))
    }
}

/// A tenant whose device was linked, and what was written down of its session, if that can be read.
pub type Linked = (TenantId, Result<Record, StoreError>);

impl Store {
    /// All tenants that are linked.
    pub async fn linked(&self) -> Result<Vec<Linked>, StoreError> {
        let seal = self.seal.clone();
        self.read(move |connection| {
            let sql = "SELECT name, stores.key AS store, record FROM stores JOIN tenants ON tenants.key = stores.tenant \
                       WHERE state = 'live' ORDER BY name";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(())?;
            let mut linked = Vec::new();
            while let Some(row) = rows.next()? {
                let Ok(tenant) = tenant_name(row, "name") else {
                    tracing::error!("a store names a tenant that can't be one; it is left alone");
                    continue;
                };
                match read_record(row, "store", &tenant, &seal) {
                    Ok(record) if !record.paired => {}
                    record => linked.push((tenant, record.map_err(StoreError::from))),
                }
            }
            Ok(linked)
        })
        .await
    }

    /// What was last written down of a tenant's session. What can't be read is not taken for nothing.
    pub async fn recorded(&self, tenant: &TenantId) -> Result<Record, StoreError> {
        Ok(self.live_store(tenant).await?.map(|(_, record)| record).unwrap_or_default())
    }

    /// Changes what is known of a tenant's session; of a tenant without a store that is nothing yet.
    pub async fn change_record(
        &self,
        tenant: &TenantId,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let mut record = tx.live_record(&tenant)?.unwrap_or_default();
            change(&mut record);
            match tx.live_store(&tenant)? {
                Some(store) => tx.put_record(store, &tenant, &record),
                None => tx.new_store(&tenant, &record).map(drop),
            }
        })
        .await
    }

    /// Puts a tenant's store aside: the next one begins anew. Nothing is destroyed: a person may still need what is in
    /// it.
    pub async fn quarantine(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let sql = "UPDATE stores SET state = 'quarantined', at = ? WHERE tenant = ? AND state = 'live'";
            tx.execute(sql, params![millis(tx.now()), tx.known_tenant(&tenant)?]).map(drop)
        })
        .await
    }

    /// The same, and the next one begins with the tenant's way to WhatsApp.
    pub async fn start_over(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let Some(record) = tx.live_record(&tenant)? else { return Ok(()) };
            let sql = "UPDATE stores SET state = 'quarantined', at = ? WHERE tenant = ? AND state = 'live'";
            tx.execute(sql, params![millis(tx.now()), tx.known_tenant(&tenant)?])?;
            tx.new_store(&tenant, &Record { proxy: record.proxy, ..Record::default() }).map(drop)
        })
        .await
    }

    /// Deletes a tenant's store, but for what was put aside before. Only for a person who asked for it.
    pub async fn delete_device(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let name = tenant.clone();
        let deleted = self.write(move |tx| {
            let key = tx.known_tenant(&name)?;
            let live = "SELECT key FROM stores WHERE tenant = ? AND state = 'live'";
            tx.execute(&format!("DELETE FROM state WHERE store IN ({live})"), [key])?;
            tx.execute("DELETE FROM stores WHERE tenant = ? AND state = 'live'", [key]).map(drop)
        });
        match deleted.await {
            // Pages that can't be read can't be emptied either. Nobody is to be held up by that.
            Err(StoreError::Damaged(why)) => {
                tracing::error!(%tenant, why, "a damaged store could not be deleted; it was put aside");
                self.quarantine(tenant).await
            }
            done => done,
        }
    }

    /// Forgets what devices keep only for a time: at most a few hundred values, of all tenants. Says whether there may
    /// be more.
    pub async fn forget_expired(&self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        const STEP: usize = 500;
        self.write(move |tx| {
            let sql = "DELETE FROM state WHERE (store, kind, name) IN \
                       (SELECT store, kind, name FROM state WHERE expires_at <= ? LIMIT 500)";
            Ok(tx.execute(sql, [millis(now)])? == STEP)
        })
        .await
    }

    pub async fn live_store(&self, tenant: &TenantId) -> Result<Option<(i64, Record)>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let sql = "SELECT key, record FROM stores WHERE state = 'live' \
                       AND tenant = (SELECT key FROM tenants WHERE name = ?)";
            let mut statement = connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| Ok((row.get("key")?, read_record(row, "key", &tenant, &seal)?));
            statement.query_row([tenant.as_str()], read).optional()
        })
        .await
    }
}

const LIVE: &str = "SELECT key FROM stores WHERE state = 'live' AND tenant = (SELECT key FROM tenants WHERE name = ?)";

/// The store of a tenant's device, if it has one that is in use.
pub fn read_live_store(connection: &Connection, tenant: &TenantId) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(LIVE)?.query_row([tenant.as_str()], |row| row.get(0)).optional()
}

impl Tx<'_> {
    /// The store of a tenant's device, if it has one that is in use.
    pub fn live_store(&self, tenant: &TenantId) -> rusqlite::Result<Option<i64>> {
        self.find(LIVE, [tenant.as_str()], |row| row.get(0))
    }

    /// What is known of the session of a tenant with a device.
    fn live_record(&self, tenant: &TenantId) -> rusqlite::Result<Option<Record>> {
        let live = "SELECT key, record FROM stores WHERE tenant = ? AND state = 'live'";
        self.find(live, [self.tenant(tenant)?], |row| read_record(row, "key", tenant, self.seal()))
    }

    /// Begins a store for a tenant that has none, and returns its key.
    pub fn new_store(&self, tenant: &TenantId, record: &Record) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO stores (tenant, state, at, record) VALUES (?, 'live', ?, x'')";
        self.execute(sql, params![self.tenant(tenant)?, millis(self.now())])?;
        let store = self.last_row();
        self.put_record(store, tenant, record)?;
        Ok(store)
    }

    /// Writes down that the device of this store is linked to the account with this number, if that is news.
    pub fn note_link(&self, store: i64, phone: &str) -> rusqlite::Result<()> {
        let sql = "SELECT name, stores.key AS store, record FROM stores JOIN tenants ON tenants.key = stores.tenant \
                   WHERE stores.key = ?";
        let read = |row: &Row<'_>| {
            let tenant = tenant_name(row, "name")?;
            Ok((read_record(row, "store", &tenant, self.seal())?, tenant))
        };
        match self.find(sql, [store], read)? {
            Some((known, tenant)) if !known.paired => {
                self.put_record(store, &tenant, &Record { paired: true, phone: Some(phone.into()), ..known })
            }
            _ => Ok(()),
        }
    }

    fn put_record(&self, store: i64, tenant: &TenantId, record: &Record) -> rusqlite::Result<()> {
        let record = encode(record)?;
        let record = self.seal().seal(&RECORD, &[tenant.as_str().as_bytes(), &store.to_be_bytes()], &record);
        self.execute("UPDATE stores SET record = ? WHERE key = ?", params![record, store]).map(drop)
    }
}

/// What is known of a tenant's session; the row has its store's key in the column `key`.
fn read_record(row: &Row<'_>, key: &str, tenant: &TenantId, seal: &Seal) -> rusqlite::Result<Record> {
    let store: i64 = row.get(key)?;
    let place = [tenant.as_str().as_bytes(), &store.to_be_bytes()];
    let record = seal.open(&RECORD, &place, row.get_ref("record")?.as_bytes()?)?;
    decode(&record).map_err(|_| damaged("what is known of the session can't be read"))
}
