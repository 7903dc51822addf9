//! Messages that others refer to: those that are answered, reacted to, changed, taken back, or marked as read.

use rusqlite::{Connection, params};
use serde::Deserialize;

use crate::{
    model::{message::Message, tenant::TenantId},
    store::{
        Store, StoreError,
        cells::{Cells, Kind, name},
        events::event,
        messages, read_live_store,
    },
    util::seal::Seal,
};

/// A message that another one may refer to.
pub enum Referred {
    /// One of the outbox, with what it says while that is known.
    Own(Box<Message>),
    /// One that the event log tells of.
    Logged(Box<Logged>),
}

/// A message as the event log tells it: what is needed to refer to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logged {
    /// Where it stands, as WhatsApp writes it.
    pub chat: String,
    /// The phone number of the one who wrote it, where that is known.
    pub from: Option<String>,
    /// WhatsApp's other name for them.
    pub from_lid: Option<String>,
    /// Whether the account wrote it itself, on another device.
    pub from_me: bool,
    /// What it says, or what stands below it.
    pub text: Option<String>,
    /// The place that it shows.
    pub location: Option<serde_json::Value>,
}

impl Store {
    /// The messages of this id that the tenant has sent or that it was told of: hardly ever more than one, as every
    /// device chooses its ids at random.
    pub async fn referred(&self, tenant: &TenantId, id: &str) -> Result<Vec<Referred>, StoreError> {
        let (tenant, id, instance, seal) = (tenant.clone(), id.to_owned(), self.instance.clone(), self.seal.clone());
        self.read(move |connection| {
            let own = messages::with_content(connection, &tenant, &id, &seal)?;
            let mut found: Vec<_> = own.map(Box::new).map(Referred::Own).into_iter().collect();
            found.extend(logged(connection, &tenant, &id, &instance, &seal)?);
            Ok(found)
        })
        .await
    }

    /// A message as it was sent under this id to one of these chats, in WhatsApp's bytes, as long as the library keeps it
    /// for devices that ask again.
    pub async fn as_sent(
        &self,
        tenant: &TenantId,
        chats: Vec<String>,
        id: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
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
