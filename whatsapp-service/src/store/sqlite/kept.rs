//! What is kept of incoming messages beside their events: what opens a file that came with one, and a poll's votes.
//!
//! It holds keys, and so it is no part of an event. It is kept as long as events are, and goes with the device.

use chrono::{DateTime, Utc};

use async_trait::async_trait;

use crate::{
    model::tenant::TenantId,
    store::{
        error::StoreError,
        kept::{Kept, KeptFor, MessageKeys},
        key_value::{Kind, prefix},
        lease::Lease,
        sqlite::{
            SqliteStore,
            cells::{Cells, decode, encode},
            devices::read_live_store,
            tx::{Tx, millis},
        },
    },
};

#[async_trait]
impl MessageKeys for SqliteStore {
    async fn kept(&self, tenant: &TenantId, id: &str) -> Result<Vec<Kept>, StoreError> {
        let (tenant, seal, prefix) = (tenant.clone(), self.seal.clone(), prefix(&[id]));
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(Vec::new()) };
            let found = Cells::of(connection, &seal, store).all(Kind::Kept, &prefix)?;
            let mut kept = found.iter().map(|(_, value)| decode(value)).collect::<rusqlite::Result<Vec<Kept>>>()?;
            kept.sort_by_key(|kept| kept.at);
            Ok(kept)
        })
        .await
    }

    async fn moved(&self, lease: &Lease, kept: &Kept, path: String) -> Result<(), StoreError> {
        let (tenant, name) = (lease.tenant().clone(), kept.name());
        self.write_as(lease, move |tx| {
            let Some(store) = tx.live_store(&tenant)? else { return Ok(()) };
            let cells = tx.cells(store)?;
            let Some((value, until)) = cells.get_until(Kind::Kept, &name)? else { return Ok(()) };
            let mut kept: Kept = decode(&value)?;
            if let KeptFor::Media(media) = &mut kept.what {
                media.path = path;
            }
            cells.put_until(Kind::Kept, &name, &encode(&kept)?, until)
        })
        .await
    }
}

impl Tx<'_> {
    /// Keeps this until then, and says whether something is kept under the same id already. A tenant whose device is
    /// gone keeps nothing.
    pub fn keep(&self, tenant: &TenantId, kept: &Kept, until: DateTime<Utc>) -> rusqlite::Result<bool> {
        let Some(store) = self.live_store(tenant)? else { return Ok(false) };
        let cells = self.cells(store)?;
        let shares_id = cells.has_any(Kind::Kept, &prefix(&[&kept.id]))?;
        cells.put_until(Kind::Kept, &kept.name(), &encode(kept)?, Some(millis(until)))?;
        Ok(shares_id)
    }
}
