//! Messages that are to be sent, and what became of them.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};

use async_trait::async_trait;

use crate::{
    model::{
        address::{Names, Person},
        error_code::ErrorCode,
        message::{Accepted, Author, Claimed, Draft, Failure, Idempotency, Message, MessageStatus, Pending},
        tenant::TenantId,
    },
    store::{
        error::StoreError,
        lease::Lease,
        outbox::Outbox,
        sqlite::{
            SqliteStore,
            accept::{keyed, same_call},
            messages::{COLUMNS, pending, read},
            transitions::Of,
            tx::{millis, tenant_name},
        },
    },
};

#[async_trait]
impl Outbox for SqliteStore {
    async fn accept(
        &self,
        tenant: &TenantId,
        drafts: Vec<Draft>,
        mut room: usize,
    ) -> Result<Vec<Accepted>, StoreError> {
        let tenant = tenant.clone();
        self.write(move |tx| {
            let (key, now) = (tx.tenant(&tenant)?, tx.now());
            drafts.into_iter().map(|draft| tx.accept(key, &tenant, draft, now, &mut room)).collect()
        })
        .await
    }

    async fn known(
        &self,
        tenant: &TenantId,
        calls: Vec<Option<Idempotency>>,
    ) -> Result<Vec<Option<Accepted>>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let sql = format!(
                "SELECT fingerprint, {COLUMNS} FROM idempotency JOIN messages ON row = message \
                 WHERE idempotency.tenant = (SELECT key FROM tenants WHERE name = ?) AND key = ?"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut known = Vec::with_capacity(calls.len());
            for call in calls {
                known.push(match call {
                    None => None,
                    Some(Idempotency { key, fingerprint }) => {
                        let read = |row: &Row<'_>| keyed(row, &tenant, &key, &seal);
                        let found = statement.query_map([tenant.as_str(), &key], read)?.next().transpose()?;
                        found.map(|found| same_call(found, &fingerprint))
                    }
                });
            }
            Ok(known)
        })
        .await
    }

    async fn claim(&self, lease: &Lease, row: i64) -> Result<Claimed<Box<Message>>, StoreError> {
        let sql = format!(
            "UPDATE messages SET tried = (tried OR media IS NULL), attempts = attempts + 1 \
             WHERE row = ? AND pending = 1 AND expires_at > ? RETURNING {COLUMNS}"
        );
        let lost = "SELECT 1 FROM messages WHERE row = ? AND pending = 1 AND tried = 1 AND status = 'queued'";
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let claimed = tx.find(&sql, [row, millis(tx.now())], |row| read(row, &tenant, tx.seal()))?;
            let claimed = tx.claimed(row, claimed.map(Box::new))?;
            // Its deadline has passed, and an earlier attempt broke off before it could say what came of it.
            if matches!(claimed, Claimed::Never) && tx.find(lost, [row], |_| Ok(()))?.is_some() {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            Ok(claimed)
        })
        .await
    }

    async fn departs(&self, lease: &Lease, row: i64) -> Result<Claimed<()>, StoreError> {
        self.write_as(lease, move |tx| {
            let sql = "UPDATE messages SET tried = 1 WHERE row = ? AND pending = 1 AND expires_at > ?";
            let departs = tx.execute(sql, [row, millis(tx.now())])? == 1;
            tx.claimed(row, departs.then_some(()))
        })
        .await
    }

    async fn put_back(&self, lease: &Lease, row: i64, left: bool) -> Result<bool, StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            tx.execute("UPDATE messages SET tried = (status <> 'queued' OR ?2) WHERE row = ?1", params![row, left])?;
            if left {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            let pending = tx.find("SELECT pending FROM messages WHERE row = ?", [row], |row| row.get(0))?;
            Ok(pending.unwrap_or_default())
        })
        .await
    }

    async fn sent(&self, lease: &Lease, id: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let (tenant, id) = (lease.tenant().clone(), id.to_owned());
        self.write_as(lease, move |tx| {
            let of = Of::Id(&id);
            let settled = tx.advance_to(&tenant, &of, MessageStatus::Sent, |message| message.server_at = Some(at))?;
            Ok(settled.is_some())
        })
        .await
    }

    async fn names(&self, lease: &Lease, id: &str, names: Names) -> Result<(), StoreError> {
        let (tenant, id) = (lease.tenant().clone(), id.to_owned());
        self.write_as(lease, move |tx| {
            let sql =
                "UPDATE messages SET number = coalesce(?, number), lid = coalesce(?, lid) WHERE tenant = ? AND id = ?";
            let (number, lid) = (names.number.as_ref(), names.lid.as_ref());
            let (number, lid) = (number.map(|number| number.digits()), lid.map(|lid| lid.digits()));
            tx.execute(sql, params![number, lid, tx.known_tenant(&tenant)?, id]).map(drop)
        })
        .await
    }

    async fn receipt(
        &self,
        lease: &Lease,
        author: Author,
        ids: Vec<String>,
        status: MessageStatus,
    ) -> Result<Vec<String>, StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let mut settled = Vec::new();
            for id in &ids {
                let message = tx.message(&tenant, &Of::Id(id))?;
                if let Some(message) = message.filter(|message| author.is_recipient_of(message)) {
                    settled.extend(tx.advance(&tenant, message, status, |_| {})?);
                }
            }
            tx.close_retries(&tenant, &author.device, &ids)?;
            Ok(settled)
        })
        .await
    }

    async fn failed(&self, lease: &Lease, id: &str, failure: Failure) -> Result<(), StoreError> {
        let (tenant, id) = (lease.tenant().clone(), id.to_owned());
        self.write_as(lease, move |tx| {
            let of = Of::Id(&id);
            tx.advance_to(&tenant, &of, MessageStatus::Failed, |message| message.failure = Some(failure)).map(drop)
        })
        .await
    }

    async fn give_up(&self, lease: &Lease, row: i64, failure: Failure) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| tx.give_up(&tenant, row, failure)).await
    }

    async fn give_up_all(&self, lease: &Lease, failure: Failure) -> Result<(), StoreError> {
        const STEP: usize = 200;
        loop {
            let (tenant, failure) = (lease.tenant().clone(), failure.clone());
            let given_up = self.write_as(lease, move |tx| {
                let sql = "SELECT row FROM messages INDEXED BY messages_by_status \
                           WHERE tenant = ? AND status IN ('queued', 'unknown') AND pending = 1 LIMIT 200";
                let rows = tx.all(sql, [tx.known_tenant(&tenant)?], |row| row.get::<_, i64>(0))?;
                for row in &rows {
                    tx.give_up(&tenant, *row, failure.clone())?;
                }
                Ok(rows.len())
            });
            if given_up.await? < STEP {
                return Ok(());
            }
        }
    }

    async fn cancel(&self, lease: &Lease, id: &str) -> Result<Option<Result<Message, Message>>, StoreError> {
        let (tenant, id) = (lease.tenant().clone(), id.to_owned());
        let failure = Failure::new(ErrorCode::Cancelled, "The message was cancelled before it left.", true);
        self.write_as(lease, move |tx| {
            let Some(message) = tx.message(&tenant, &Of::Id(&id))? else { return Ok(None) };
            if !message.pending || message.tried || message.status != MessageStatus::Queued {
                return Ok(Some(Err(message)));
            }
            tx.give_up(&tenant, message.row, failure)?;
            Ok(tx.message(&tenant, &Of::Id(&id))?.map(Ok))
        })
        .await
    }

    async fn expire(&self) -> Result<Vec<Pending>, StoreError> {
        if !self.clock.is_steady() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let due = self.read(move |connection| {
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages JOIN tenants ON key = tenant \
                       WHERE pending = 1 AND expires_at <= ? AND NOT (tried = 1 AND status = 'queued') LIMIT 200";
            connection.prepare_cached(sql)?.query_map([millis(now)], pending)?.collect::<Result<Vec<_>, _>>()
        });
        let due = due.await?;
        if due.is_empty() {
            return Ok(due);
        }
        let failure = Failure::new(ErrorCode::Expired, "The message was not sent before its deadline.", true);
        self.write(move |tx| {
            for one in &due {
                tx.give_up(&one.tenant, one.row, failure.clone())?;
            }
            Ok(due)
        })
        .await
    }

    async fn recover(&self, leases: &[Lease]) -> Result<Vec<Pending>, StoreError> {
        let Some(first) = leases.first() else { return Ok(Vec::new()) };
        // All leases of one process are in force, or none.
        if leases.iter().any(|lease| lease.epoch() != first.epoch() || lease.node() != first.node()) {
            return Err(StoreError::Fenced);
        }
        let owned: HashSet<TenantId> = leases.iter().map(|lease| lease.tenant().clone()).collect();
        self.write_as(first, move |tx| {
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages INDEXED BY messages_pending \
                       JOIN tenants ON key = tenant WHERE pending = 1 AND tried = 1 AND status = 'queued' ORDER BY row";
            let in_flight = tx.all(sql, (), pending)?.into_iter().filter(|one| owned.contains(&one.tenant));
            for Pending { tenant, row, .. } in in_flight {
                tx.advance_to(&tenant, &Of::Row(row), MessageStatus::Unknown, |_| {})?;
            }
            let sql = "SELECT tenants.name AS tenant, recipient, number, lid, row, media FROM messages INDEXED BY messages_pending \
                       JOIN tenants ON key = tenant WHERE pending = 1 ORDER BY row";
            let mut left = tx.all(sql, (), pending)?;
            left.retain(|one| owned.contains(&one.tenant));
            // What was learned of people since their messages were accepted is known to the device.
            let mut known: HashMap<(TenantId, Person), Names> = HashMap::new();
            for message in &mut left {
                let Some(person) = Person::kept(&message.recipient) else { continue };
                let names = match known.entry((message.tenant.clone(), person.clone())) {
                    Entry::Occupied(names) => names.into_mut(),
                    Entry::Vacant(place) => place.insert(tx.names_of(&message.tenant, person)?),
                };
                let Names { number, lid } = std::mem::take(&mut message.names);
                message.names =
                    Names { number: number.or_else(|| names.number.clone()), lid: lid.or_else(|| names.lid.clone()) };
            }
            Ok(left)
        })
        .await
    }

    async fn tenants_with_messages(&self) -> Result<Vec<TenantId>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT DISTINCT tenants.name AS tenant FROM messages INDEXED BY messages_pending \
                       JOIN tenants ON key = tenant WHERE pending = 1";
            connection.prepare_cached(sql)?.query_map((), |row| tenant_name(row, "tenant"))?.collect()
        })
        .await
    }
}
