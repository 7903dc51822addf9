//! How much waits, over all tenants.

use chrono::DateTime;

use crate::store::{
    error::StoreError,
    figures::{Figured, Figures},
    sqlite::SqliteStore,
};
use async_trait::async_trait;

#[async_trait]
impl Figured for SqliteStore {
    async fn figures(&self) -> Result<Figures, StoreError> {
        self.read(|connection| {
            let count = |sql: &str| connection.prepare_cached(sql)?.query_row((), |row| row.get::<_, i64>(0));
            // Messages are numbered in the order of acceptance.
            let sql = "SELECT waiting, accepted_at FROM \
                       (SELECT count(*) AS waiting, min(row) AS first FROM messages INDEXED BY messages_pending \
                        WHERE pending = 1) LEFT JOIN messages ON row = first";
            let (outbox, oldest) = connection
                .prepare_cached(sql)?
                .query_row((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)))?;
            let due = count("SELECT count(*) FROM events INDEXED BY events_due WHERE delivery = 0")?;
            let dead = count("SELECT count(*) FROM events INDEXED BY events_dead WHERE delivery = 1")?;
            Ok(Figures {
                outbox: outbox.cast_unsigned(),
                oldest: oldest.and_then(DateTime::from_timestamp_millis),
                events_due: due.cast_unsigned(),
                events_dead: dead.cast_unsigned(),
            })
        })
        .await
    }
}
