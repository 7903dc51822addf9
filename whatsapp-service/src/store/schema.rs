//! The schema of the database, and how an older one becomes the current one.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{StoreError, data_dir};

/// What leads from each schema to the next: the first file from nothing to 1, and so on.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// How long to wait for another program that has locked the file, such as one that makes a copy of it.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Opens the file for writing, creates it if it is not there, and brings it up to date.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    data_dir::create_private_file(path)?;
    let mut connection = Connection::open(path)?;
    prepare(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A message that is dropped is not left behind in a free page.
    connection.pragma_update(None, "secure_delete", "ON")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// What this database is called in the ids of its events.
pub fn instance(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT id FROM instance", (), |row| row.get(0))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if !(0..=known).contains(&found) {
        return Err(StoreError::TooNew { found, known });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration)?;
        tx.pragma_update(None, "user_version", version)?;
        if version == 1 {
            tx.execute("INSERT INTO instance (id) VALUES (?)", [format!("{:08x}", rand::random::<u32>())])?;
        }
        tx.commit()?;
    }
    Ok(())
}
