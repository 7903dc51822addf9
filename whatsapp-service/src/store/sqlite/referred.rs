//! Messages that others refer to: those that are answered, reacted to, changed, taken back, or marked as read.

use rusqlite::{Connection, params};

use crate::{
    model::tenant::TenantId,
    store::{
        error::StoreError,
        key_value::{Kind, name},
        referred::{Logged, References, Referred},
        sqlite::{SqliteStore, cells::Cells, devices::read_live_store, events::event, messages},
    },
    util::seal::Seal,
};
use async_trait::async_trait;

#[async_trait]
impl References for SqliteStore {
    async fn referred(&self, tenant: &TenantId, id: &str) -> Result<Vec<Referred>, StoreError> {
        let (tenant, id, instance, seal) = (tenant.clone(), id.to_owned(), self.instance.clone(), self.seal.clone());
        self.read(move |connection| {
            let own = messages::with_content(connection, &tenant, &id, &seal)?;
            let mut found: Vec<_> = own.map(Box::new).map(Referred::Own).into_iter().collect();
            found.extend(logged(connection, &tenant, &id, &instance, &seal)?);
            Ok(found)
        })
        .await
    }

    async fn as_sent(&self, tenant: &TenantId, chats: Vec<String>, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (tenant, id, seal) = (tenant.clone(), id.to_owned(), self.seal.clone());
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(None) };
            let cells = Cells::of(connection, &seal, store);
            for chat in &chats {
                if let Some(message) = cells.get(Kind::Sent, &name(&[chat, &id]))? {
                    return Ok(Some(message));
                }
            }
            Ok(None)
        })
        .await
    }
}

fn logged(
    connection: &Connection,
    tenant: &TenantId,
    id: &str,
    instance: &str,
    seal: &Seal,
) -> rusqlite::Result<Vec<Referred>> {
    let sql = "SELECT events.* FROM received INDEXED BY received_by_id \
               JOIN events ON events.tenant = received.tenant AND events.sequence = received.sequence \
               WHERE received.tenant = (SELECT key FROM tenants WHERE name = ?) AND received.id = ? AND received.sequence IS NOT NULL \
               ORDER BY received.sequence DESC LIMIT 8";
    let mut statement = connection.prepare_cached(sql)?;
    let events = statement.query_map(params![tenant.as_str(), id], |row| event(row, tenant, instance, seal))?;
    let mut found = Vec::new();
    for event in events {
        // One whose data is not what this version expects is not known.
        if let Ok(logged) = serde_json::from_str::<Logged>(event?.data.get()) {
            found.push(Referred::Logged(logged.into()));
        }
    }
    Ok(found)
}
