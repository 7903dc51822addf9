//! The devices that tenants have linked: which there are, what is known of their sessions, and where their keys are.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

use async_trait::async_trait;
use std::sync::Arc;

use crate::{
    model::tenant::TenantId,
    store::{
        devices::{Devices, Linked, Record, RecordChange},
        error::StoreError,
        key_value::KeyValue,
        lease::Lease,
        sqlite::{
            SqliteStore,
            cells::{DeviceValues, decode, encode},
            tx::{Tx, damaged, millis, tenant_name},
        },
    },
    util::seal::{RECORD, Seal},
};

const LIVE: &str = "SELECT key FROM stores WHERE state = 'live' AND tenant = (SELECT key FROM tenants WHERE name = ?)";

#[async_trait]
impl Devices for SqliteStore {
    async fn linked(&self) -> Result<Vec<Linked>, StoreError> {
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

    async fn recorded(&self, tenant: &TenantId) -> Result<Record, StoreError> {
        Ok(self.live_store(tenant).await?.map(|(_, record)| record).unwrap_or_default())
    }

    async fn change_record(&self, lease: &Lease, changes: Vec<RecordChange>) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let record = changes.into_iter().fold(tx.live_record(&tenant)?.unwrap_or_default(), Record::with);
            match tx.live_store(&tenant)? {
                Some(store) => tx.put_record(store, &tenant, &record),
                None => tx.new_store(&tenant, &record).map(drop),
            }
        })
        .await
    }

    async fn device(self: Arc<Self>, lease: &Lease) -> Result<(Record, Arc<dyn KeyValue>), StoreError> {
        let tenant = lease.tenant().clone();
        let (key, record) = match self.live_store(&tenant).await? {
            Some(live) => live,
            None => {
                let new = self.write_as(lease, move |tx| tx.new_store(&tenant, &Record::default()));
                (new.await?, Record::default())
            }
        };
        Ok((record, Arc::new(DeviceValues::new(self, lease.clone(), key))))
    }

    async fn quarantine(&self, lease: &Lease) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let sql = "UPDATE stores SET state = 'quarantined', at = ? WHERE tenant = ? AND state = 'live'";
            tx.execute(sql, params![millis(tx.now()), tx.known_tenant(&tenant)?]).map(drop)
        })
        .await
    }

    async fn start_over(&self, lease: &Lease) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let Some(record) = tx.live_record(&tenant)? else { return Ok(()) };
            let sql = "UPDATE stores SET state = 'quarantined', at = ? WHERE tenant = ? AND state = 'live'";
            tx.execute(sql, params![millis(tx.now()), tx.known_tenant(&tenant)?])?;
            tx.new_store(&tenant, &Record { proxy: record.proxy, ..Record::default() }).map(drop)
        })
        .await
    }

    async fn delete_device(&self, lease: &Lease) -> Result<(), StoreError> {
        let name = lease.tenant().clone();
        let deleted = self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&name)?;
            let live = "SELECT key FROM stores WHERE tenant = ? AND state = 'live'";
            tx.execute(&format!("DELETE FROM state WHERE store IN ({live})"), [key])?;
            tx.execute("DELETE FROM stores WHERE tenant = ? AND state = 'live'", [key]).map(drop)
        });
        match deleted.await {
            // Pages that can't be read can't be emptied either. Nobody is to be held up by that.
            Err(StoreError::Damaged(why)) => {
                tracing::error!(tenant = %lease.tenant(), why, "a damaged store could not be deleted; it was put aside");
                self.quarantine(lease).await
            }
            done => done,
        }
    }

    async fn forget_expired(&self, now: DateTime<Utc>) -> Result<bool, StoreError> {
        const STEP: usize = 500;
        self.write(move |tx| {
            let sql = "DELETE FROM state WHERE (store, kind, name) IN \
                       (SELECT store, kind, name FROM state WHERE expires_at <= ? LIMIT 500)";
            Ok(tx.execute(sql, [millis(now)])? == STEP)
        })
        .await
    }
}

impl SqliteStore {
    async fn live_store(&self, tenant: &TenantId) -> Result<Option<(i64, Record)>, StoreError> {
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
