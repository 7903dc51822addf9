//! Where a tenant's events are sent, and how far that has come.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};

use async_trait::async_trait;

use crate::{
    model::{event::EventKind, tenant::TenantId},
    store::{
        error::StoreError,
        lease::Lease,
        sqlite::{
            SqliteStore,
            events::event,
            tx::{Tx, maybe_time, millis, tenant_name},
        },
        webhooks::{Delivery, DeliveryState, Webhook, WebhookSummary, Webhooks},
    },
    util::seal::{Column, Seal, WEBHOOK_SECRET, WEBHOOK_URL},
};

/// How many events are read at a time for a webhook, and how many bytes of them.
const BATCH: i64 = 32;
const BATCH_BYTES: usize = 64 * 1024;

const PENDING: Deliveries = Deliveries { value: 0, index: "events_due" };
const DEAD: Deliveries = Deliveries { value: 1, index: "events_dead" };
const NO_WEBHOOK: &str = "NOT EXISTS (SELECT 1 FROM webhooks WHERE tenant = ?1)";

#[async_trait]
impl Webhooks for SqliteStore {
    async fn put_webhook(&self, lease: &Lease, webhook: Webhook) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let key = tx.tenant(&tenant)?;
            let events = webhook.events.map(|events| serde_json::to_string(&events).unwrap_or_default());
            let (seal, row) = (tx.seal(), [tenant.as_str().as_bytes()]);
            let url = seal.seal(&WEBHOOK_URL, &row, webhook.url.as_bytes());
            let secret = seal.seal(&WEBHOOK_SECRET, &row, webhook.secret.as_bytes());
            tx.execute(
                "INSERT OR REPLACE INTO webhooks (tenant, url, secret, events) VALUES (?, ?, ?, ?)",
                params![key, url, secret, events],
            )?;
            tx.execute("DELETE FROM deliveries WHERE tenant = ?", [key]).map(drop)
        })
        .await
    }

    async fn delete_webhook(&self, lease: &Lease) -> Result<bool, StoreError> {
        let (name, for_all) = (lease.tenant().clone(), self.rules.webhook_for_all);
        let removed = self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&name)?;
            let removed = tx.execute("DELETE FROM webhooks WHERE tenant = ?", [key])? == 1;
            if removed {
                tx.execute("DELETE FROM deliveries WHERE tenant = ?", [key])?;
            }
            Ok(removed)
        });
        let removed = removed.await?;
        if removed && !for_all {
            self.forget_deliveries(lease).await?;
        }
        Ok(removed)
    }

    async fn forget_deliveries(&self, lease: &Lease) -> Result<(), StoreError> {
        self.mark(lease, PENDING, "NULL", Some(NO_WEBHOOK), None).await?;
        self.mark(lease, DEAD, "NULL", Some(NO_WEBHOOK), None).await.map(drop)
    }

    async fn webhook(&self, tenant: &TenantId) -> Result<WebhookSummary, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let key = key(connection, &tenant)?;
            let count = |Deliveries { index, value }: Deliveries| {
                let sql =
                    format!("SELECT count(*) FROM events INDEXED BY {index} WHERE tenant = ? AND delivery = {value}");
                connection.prepare_cached(&sql)?.query_row([key], |row| row.get::<_, i64>(0))
            };
            Ok(WebhookSummary {
                webhook: webhook(connection, key, &tenant, &seal)?,
                state: state(connection, key)?,
                pending: count(PENDING)?.cast_unsigned(),
                dead: count(DEAD)?.cast_unsigned(),
            })
        })
        .await
    }

    async fn next_delivery(&self, tenant: &TenantId) -> Result<Option<Delivery>, StoreError> {
        let (tenant, instance, seal) = (tenant.clone(), self.instance.clone(), self.seal.clone());
        self.read(move |connection| {
            let key = key(connection, &tenant)?;
            let sql = "SELECT * FROM events INDEXED BY events_due WHERE tenant = ? AND delivery = 0 \
                       ORDER BY sequence LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let due = statement.query_map(params![key, BATCH], |row| event(row, &tenant, &instance, &seal))?;
            let (mut events, mut bytes) = (Vec::new(), 0);
            for event in due {
                let event = event?;
                bytes += event.data.get().len();
                if bytes > BATCH_BYTES && !events.is_empty() {
                    break;
                }
                events.push(event);
            }
            if events.is_empty() {
                return Ok(None);
            }
            let webhook = webhook(connection, key, &tenant, &seal)?;
            Ok(Some(Delivery { webhook, state: state(connection, key)?, events }))
        })
        .await
    }

    async fn tenants_with_deliveries(&self) -> Result<Vec<TenantId>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT name FROM tenants WHERE EXISTS \
                       (SELECT 1 FROM events INDEXED BY events_due WHERE events.tenant = tenants.key AND delivery = 0)";
            connection.prepare_cached(sql)?.query_map((), |row| tenant_name(row, "name"))?.collect()
        })
        .await
    }

    async fn delivered(&self, lease: &Lease, sequences: Vec<i64>) -> Result<(), StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&tenant)?;
            for sequence in sequences {
                tx.execute("UPDATE events SET delivery = NULL WHERE tenant = ? AND sequence = ?", [key, sequence])?;
            }
            let sql = "UPDATE deliveries SET failures = 0, next_attempt_at = NULL, last_error = NULL \
                       WHERE tenant = ? AND stopped = 0 AND failures > 0";
            tx.execute(sql, [key]).map(drop)
        })
        .await
    }

    async fn delivery_failed(
        &self,
        lease: &Lease,
        of: Option<Webhook>,
        error: String,
        next_attempt_at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let tenant = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&tenant)?;
            if key == 0 || !tx.still_counts(key, &tenant, of)? {
                return Ok(false);
            }
            tx.execute(
                "INSERT INTO deliveries (tenant, failures, next_attempt_at, last_error) VALUES (?1, 1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET failures = failures + 1, next_attempt_at = ?2, last_error = ?3",
                params![key, millis(next_attempt_at), error],
            )?;
            Ok(true)
        })
        .await
    }

    async fn give_up_deliveries(&self, lease: &Lease, before: DateTime<Utc>) -> Result<usize, StoreError> {
        self.mark(lease, PENDING, "1", None, Some(before)).await
    }

    async fn delivery_stopped(&self, lease: &Lease, of: Option<Webhook>, error: String) -> Result<bool, StoreError> {
        let name = lease.tenant().clone();
        let stopped = self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&name)?;
            if key == 0 || !tx.still_counts(key, &name, of)? {
                return Ok(false);
            }
            tx.execute(
                "INSERT INTO deliveries (tenant, failures, last_error, stopped) VALUES (?1, 1, ?2, 1) \
                 ON CONFLICT DO UPDATE SET failures = failures + 1, last_error = ?2, stopped = 1, next_attempt_at = NULL",
                params![key, error],
            )?;
            Ok(true)
        });
        let stopped = stopped.await?;
        if stopped {
            let still = "(SELECT stopped FROM deliveries WHERE tenant = ?1)";
            self.mark(lease, PENDING, "1", Some(still), None).await?;
        }
        Ok(stopped)
    }

    async fn retry_deliveries(&self, lease: &Lease) -> Result<usize, StoreError> {
        let name = lease.tenant().clone();
        self.write_as(lease, move |tx| {
            let key = tx.known_tenant(&name)?;
            if key == 0 {
                return Ok(0);
            }
            let sql = "INSERT OR REPLACE INTO deliveries (tenant, restarted_at) VALUES (?, ?)";
            tx.execute(sql, params![key, millis(tx.now())])
        })
        .await?;
        self.mark(lease, DEAD, "0", None, None).await
    }
}

impl SqliteStore {
    /// Changes what is noted of a tenant's events, in steps, so that others can write in between. Says how many.
    async fn mark(
        &self,
        lease: &Lease,
        from: Deliveries,
        to: &'static str,
        only_if: Option<&'static str>,
        before: Option<DateTime<Utc>>,
    ) -> Result<usize, StoreError> {
        const STEP: usize = 500;
        let only_if = only_if.unwrap_or("1");
        let sql = format!(
            "UPDATE events SET delivery = {to} WHERE tenant = ?1 AND sequence IN \
             (SELECT sequence FROM events INDEXED BY {} WHERE tenant = ?1 AND delivery = {} AND at < ?2 AND {only_if} \
              ORDER BY sequence LIMIT 500)",
            from.index, from.value
        );
        let mut marked = 0;
        loop {
            let (tenant, sql, before) = (lease.tenant().clone(), sql.clone(), before.map_or(i64::MAX, millis));
            let step =
                self.write_as(lease, move |tx| tx.execute(&sql, params![tx.known_tenant(&tenant)?, before])).await?;
            marked += step;
            if step < STEP {
                return Ok(marked);
            }
        }
    }
}

/// What the log notes of an event for the webhook, and the index that finds it.
#[derive(Clone, Copy)]
struct Deliveries {
    value: i64,
    index: &'static str,
}

impl Tx<'_> {
    /// Whether a webhook is still the tenant's; `None` stands for the one for all tenants.
    fn still_counts(&self, key: i64, tenant: &TenantId, webhook: Option<Webhook>) -> rusqlite::Result<bool> {
        let read = |row: &rusqlite::Row<'_>| target(row, tenant, self.seal());
        let now = self.find("SELECT url, secret FROM webhooks WHERE tenant = ?", [key], read)?;
        Ok(now == webhook.map(|webhook| (webhook.url, webhook.secret)))
    }

    /// What to note of an event of this kind for the tenant's webhook.
    pub fn delivery(&self, tenant: i64, kind: EventKind) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT events FROM webhooks WHERE tenant = ?";
        let own = self.find(sql, [tenant], |row| row.get::<_, Option<String>>(0))?;
        let wanted = match own {
            Some(Some(events)) => serde_json::from_str::<Vec<EventKind>>(&events).unwrap_or_default().contains(&kind),
            Some(None) => true,
            None => self.rules().webhook_for_all,
        };
        if !wanted {
            return Ok(None);
        }
        let sql = "SELECT stopped FROM deliveries WHERE tenant = ?";
        Ok(Some(self.find(sql, [tenant], |row| row.get(0))?.unwrap_or(0)))
    }
}

fn key(connection: &rusqlite::Connection, tenant: &TenantId) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT key FROM tenants WHERE name = ?")?;
    // No row has the key 0: a tenant of which nothing is known has nothing.
    Ok(statement.query_row([tenant.as_str()], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn webhook(
    connection: &rusqlite::Connection,
    key: i64,
    tenant: &TenantId,
    seal: &Seal,
) -> rusqlite::Result<Option<Webhook>> {
    let mut statement = connection.prepare_cached("SELECT url, secret, events FROM webhooks WHERE tenant = ?")?;
    let read = |row: &rusqlite::Row<'_>| {
        let events: Option<String> = row.get("events")?;
        let events = events.map(|events| serde_json::from_str(&events).unwrap_or_default());
        let (url, secret) = target(row, tenant, seal)?;
        Ok(Webhook { url, secret, events })
    };
    statement.query_row([key], read).optional()
}

/// Where a webhook leads, and what it is signed with.
fn target(row: &rusqlite::Row<'_>, tenant: &TenantId, seal: &Seal) -> rusqlite::Result<(String, String)> {
    let place = [tenant.as_str().as_bytes()];
    let text = |column: &'static Column| -> rusqlite::Result<String> {
        Ok(seal.open_text(column, &place, row.get_ref(column.name)?.as_bytes()?)?)
    };
    Ok((text(&WEBHOOK_URL)?, text(&WEBHOOK_SECRET)?))
}

fn state(connection: &rusqlite::Connection, key: i64) -> rusqlite::Result<DeliveryState> {
    let mut statement = connection.prepare_cached("SELECT * FROM deliveries WHERE tenant = ?")?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(DeliveryState {
            failures: row.get("failures")?,
            next_attempt_at: maybe_time(row, "next_attempt_at")?,
            last_error: row.get("last_error")?,
            stopped: row.get("stopped")?,
            restarted_at: maybe_time(row, "restarted_at")?,
        })
    };
    Ok(statement.query_row([key], read).optional()?.unwrap_or_default())
}
