//! Which number goes with which LID, as the library has learned it.

use rusqlite::Connection;
use serde::Deserialize;

use crate::{
    model::{
        address::{Lid, Names, Person, number::Number},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        key_value::{Kind, prefix},
        people::People,
        sqlite::{
            SqliteStore,
            cells::{Cells, decode},
            devices::read_live_store,
        },
    },
    util::seal::Seal,
};
use async_trait::async_trait;

#[async_trait]
impl People for SqliteStore {
    async fn names_of(&self, tenant: &TenantId, person: &Person) -> Result<Names, StoreError> {
        let (tenant, seal, person) = (tenant.clone(), self.seal.clone(), person.clone());
        self.read(move |connection| names_of(connection, &seal, &tenant, person)).await
    }

    async fn known_lid(&self, tenant: &TenantId, lids: Vec<String>) -> Result<Option<usize>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(None) };
            let cells = Cells::of(connection, &seal, store);
            for (place, lid) in lids.iter().enumerate() {
                // The library files keys under `user@lid.0`, or `user:device@lid.0`.
                if cells.has(Kind::Lid, lid.as_bytes())?
                    || cells.has_any(Kind::Identity, format!("{lid}@lid.").as_bytes())?
                    || cells.has_any_like(Kind::Identity, &format!("{lid}:"), "@lid.0")?
                {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        })
        .await
    }
}

/// A person's names, as the tenant's device knows them.
pub fn names_of(connection: &Connection, seal: &Seal, tenant: &TenantId, person: Person) -> rusqlite::Result<Names> {
    let others = match read_live_store(connection, tenant)? {
        Some(store) => {
            let cells = Cells::of(connection, seal, store);
            match &person {
                Person::Number(number) => Names {
                    lid: by_number(&cells, number.digits())?.and_then(|entry| Lid::new(&entry.lid)),
                    number: None,
                },
                Person::Lid(lid) => Names {
                    number: by_lid(&cells, lid.digits())?.and_then(|entry| Number::of_whatsapp(&entry.phone_number)),
                    lid: None,
                },
            }
        }
        None => Names::default(),
    };
    Ok(Names::of(person, others))
}

/// Which number goes with which LID, as far as it matters here: `signal/` writes it, with more, as the library has it.
#[derive(Deserialize)]
struct Mapping {
    lid: String,
    phone_number: String,
    updated_at: i64,
}

/// What is known of a LID.
fn by_lid(cells: &Cells<'_>, lid: &str) -> rusqlite::Result<Option<Mapping>> {
    cells.get(Kind::Lid, lid.as_bytes())?.map(|entry| decode(&entry)).transpose()
}

/// What is known of a number: of several LIDs, the one that was learned last.
fn by_number(cells: &Cells<'_>, phone: &str) -> rusqlite::Result<Option<Mapping>> {
    let number = prefix(&[phone]);
    let mut latest: Option<Mapping> = None;
    for (name, _) in cells.all(Kind::Pn, &number)? {
        let Some(entry) = cells.get(Kind::Lid, &name[number.len()..])? else { continue };
        let entry: Mapping = decode(&entry)?;
        if latest.as_ref().is_none_or(|latest| latest.updated_at <= entry.updated_at) {
            latest = Some(entry);
        }
    }
    Ok(latest)
}
