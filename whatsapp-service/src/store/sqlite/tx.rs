//! One job inside of a transaction: what every write has in common.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::{
    model::{
        address::{Names, Person},
        tenant::TenantId,
    },
    store::{
        changes::Change,
        error::StoreError,
        rules::Rules,
        sqlite::{cells::Cells, error::is_corruption, people},
    },
    util::{clock::Clock, seal::Seal},
};

/// A transaction that several jobs share, each undone by itself if it fails.
pub struct Tx<'c> {
    connection: &'c Connection,
    rules: Rules,
    seal: &'c Seal,
    clock: &'c Clock,
    changes: Vec<Change>,
    lost: bool,
}

impl<'c> Tx<'c> {
    /// Right after the transaction has begun.
    pub fn new(connection: &'c Connection, rules: Rules, seal: &'c Seal, clock: &'c Clock) -> Self {
        Self { connection, rules, seal, clock, changes: Vec::new(), lost: false }
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Whether something may expire now.
    pub fn is_steady(&self) -> bool {
        self.clock.is_steady()
    }

    /// What the settings say.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// What seals values.
    pub fn seal(&self) -> &'c Seal {
        self.seal
    }

    /// Whether nothing of it can be committed: SQLite ends a transaction on a full disk, and refuses to go on with one in
    /// which a page was found damaged.
    pub fn is_lost(&self) -> bool {
        self.lost || self.connection.is_autocommit()
    }

    /// What is to be told when the transaction is committed.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Says this when the transaction is committed.
    pub fn notify(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Runs one job.
    pub fn savepoint<T>(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        // A job before this one has lost the transaction for all: what ran now might be committed by itself.
        if self.is_lost() {
            return Err(StoreError::TransactionLost);
        }
        self.execute("SAVEPOINT job", ())?;
        let changes = self.changes.len();
        // A bug in one job is not the end of all writing.
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        let result = done.unwrap_or_else(|_| Err(carry(StoreError::Panicked)));
        if let Err(error) = &result {
            self.changes.truncate(changes);
            self.lost |= is_corruption(error);
            if self.is_lost() {
                return Ok(result?);
            }
            self.execute("ROLLBACK TO job", ())?;
        }
        self.execute("RELEASE job", ())?;
        Ok(result?)
    }

    /// Runs a statement and returns how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    /// The first row, if there is one.
    pub fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.connection.prepare_cached(sql)?.query_row(params, read).optional()
    }

    /// All rows.
    pub fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.connection.prepare_cached(sql)?.query_map(params, read)?.collect()
    }

    /// The tenant's number in this database; it gets one with its first row.
    pub fn tenant(&self, tenant: &TenantId) -> rusqlite::Result<i64> {
        let known = self.known_tenant(tenant)?;
        if known != 0 {
            return Ok(known);
        }
        self.execute("INSERT INTO tenants (name) VALUES (?)", [tenant.as_str()])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// The tenant's number, if it has one. Without one it has nothing here, and no row has the number 0.
    pub fn known_tenant(&self, tenant: &TenantId) -> rusqlite::Result<i64> {
        let sql = "SELECT key FROM tenants WHERE name = ?";
        Ok(self.find(sql, [tenant.as_str()], |row| row.get(0))?.unwrap_or(0))
    }

    /// A person's names, as the tenant's device knows them.
    pub fn names_of(&self, tenant: &TenantId, person: Person) -> rusqlite::Result<Names> {
        people::names_of(self.connection, self.seal, tenant, person)
    }

    /// What is kept for a linked device, to be changed.
    pub fn cells(&self, store: i64) -> rusqlite::Result<Cells<'_>> {
        Cells::live(self.connection, self.seal, store)
    }

    /// The number of the row that was inserted last.
    pub fn last_row(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Writes a few pages and takes them back, to see whether writing works. A row that stays as it is is not written.
    pub fn touch(&self) -> rusqlite::Result<()> {
        let sql =
            "INSERT INTO idempotency (tenant, key, fingerprint, message, at) VALUES (0, '', zeroblob(16384), 0, 0)";
        self.execute(sql, ())?;
        self.execute("DELETE FROM idempotency WHERE tenant = 0", ()).map(drop)
    }
}

/// A tenant's name as the database has it. It was checked when it came.
pub fn tenant_name(row: &Row<'_>, column: &str) -> rusqlite::Result<TenantId> {
    let name: String = row.get(column)?;
    name.parse().map_err(|_| rusqlite::Error::InvalidColumnName("a tenant's name is damaged".into()))
}

/// Milliseconds since 1970, as all times are kept.
pub fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

/// A time from its milliseconds.
pub fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<DateTime<Utc>> {
    Ok(DateTime::from_timestamp_millis(row.get(column)?).unwrap_or_default())
}

/// A time that may not have come.
pub fn maybe_time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<DateTime<Utc>>> {
    Ok(row.get::<_, Option<i64>>(column)?.and_then(DateTime::from_timestamp_millis))
}

/// Lets an error of our own pass through a job.
pub fn carry(error: StoreError) -> rusqlite::Error {
    error.into()
}

/// For what can't be read any more.
pub fn damaged(error: impl std::fmt::Display) -> rusqlite::Error {
    carry(StoreError::Damaged(error.to_string()))
}
