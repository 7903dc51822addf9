//! The schema of the database, and how an older one becomes the current one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::{
    store::{data_dir, error::StoreError, sqlite::mark},
    util::seal::{CONTENT, CONTENT_WITHOUT_RECIPIENT, Seal},
};

/// What leads from each schema to the next: the first file from nothing to 1, and so on.
const MIGRATIONS: [&str; 9] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
    include_str!("migrations/8.sql"),
    include_str!("migrations/9.sql"),
];

/// The first schema that says whether it is sealed.
const SEALING: i64 = 3;
/// The first schema in which what a message says is sealed with its recipient.
const RECIPIENTS: i64 = 9;

/// How long to wait for another program that has locked the file, such as one that makes a copy of it.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Opens the file for writing, creates it if it is not there, and brings it up to date. A file that `seal` does not go
/// with, one of a newer program, and one that is not what its mark says, is only looked at.
pub fn open(path: &Path, seal: &Seal) -> Result<Connection, StoreError> {
    let expected = mark::expected(path)?;
    if path.exists() {
        make_writable(path)?;
        let reader = open_reader(path)?;
        if let Some(expected) = expected {
            expected.check(&reader, path)?;
        }
        check(&reader, seal)?;
    }
    data_dir::create_private_file(path)?;
    let mut connection = Connection::open(path)?;
    prepare(&connection)?;
    // Of a file that has no pages yet. Most writes are a few bytes here and there, and each takes a whole page to the disk.
    connection.pragma_update(None, "page_size", 2048)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In KiB, if negative. What many tenants write to again and again stays at hand, and is copied from the log into the
    // database less often: after so many pages, 16 MiB.
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
    // A message that is dropped is not left behind in a free page.
    connection.pragma_update(None, "secure_delete", "ON")?;
    migrate(&mut connection, seal)?;
    Ok(connection)
}

/// A file of SQLite's own beside the database.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_path_buf();
    path.as_mut_os_string().push(suffix);
    path
}

/// A database that can't be written to is left alone. SQLite would leave files beside it with the same permissions, which
/// nobody could open any more; such files of an earlier start are mended.
fn make_writable(path: &Path) -> Result<(), StoreError> {
    fs::File::options().read(true).write(true).open(path).map_err(data_dir::io_error("write to", path))?;
    for file in ["-wal", "-shm"].map(|suffix| beside(path, suffix)) {
        if fs::metadata(&file).is_ok_and(|about| about.permissions().mode() & 0o600 != 0o600) {
            let mended = fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
            mended.map_err(data_dir::io_error("make writable", &file))?;
        }
    }
    Ok(())
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

/// The newest time that stands in it.
pub fn newest(connection: &Connection) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let sql = "SELECT max(at) FROM (SELECT max(at) AS at FROM events UNION ALL SELECT max(at) FROM idempotency \
               UNION ALL SELECT max(at) FROM received \
               UNION ALL SELECT accepted_at FROM messages WHERE row = (SELECT max(row) FROM messages))";
    let newest: Option<i64> = connection.query_row(sql, (), |row| row.get(0))?;
    Ok(newest.and_then(DateTime::from_timestamp_millis))
}

/// Which schema the file has; 0 is none yet.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn check(connection: &Connection, seal: &Seal) -> Result<(), StoreError> {
    let (found, known) = (version(connection)?, MIGRATIONS.len() as i64);
    if !(0..=known).contains(&found) {
        return Err(StoreError::TooNew { found, known });
    }
    let proof: Option<Vec<u8>> = match found {
        0 => return Ok(()),
        1..SEALING => None,
        _ => connection.query_row("SELECT proof FROM sealing", (), |row| row.get(0)).optional()?,
    };
    Ok(seal.check(proof.as_deref())?)
}

/// In one transaction: there is never a database that does not know yet whether it is sealed.
fn migrate(connection: &mut Connection, seal: &Seal) -> Result<(), StoreError> {
    let found = version(connection)?;
    // A disk that is full must not keep a database from being read that is up to date.
    if found == MIGRATIONS.len() as i64 {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.into_iter().skip(found as usize) {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    if (SEALING..RECIPIENTS).contains(&found) && seal.has_key() {
        seal_with_recipients(&tx, seal)?;
    }
    if found == 0 {
        tx.execute("INSERT INTO instance (id) VALUES (?)", [format!("{:08x}", rand::random::<u32>())])?;
        if let Some(proof) = seal.proof() {
            tx.execute("INSERT INTO sealing (proof) VALUES (?)", [proof])?;
        }
    }
    Ok(tx.commit()?)
}

/// What messages say was sealed without their recipients: whoever could write the file could redirect them. What can't be
/// opened stays as it is, and is of no use to anybody.
fn seal_with_recipients(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let rows: Vec<i64> = connection
        .prepare("SELECT row FROM messages WHERE content IS NOT NULL")?
        .query_map((), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut read = connection.prepare(
        "SELECT tenants.name, id, recipient, content FROM messages JOIN tenants ON key = tenant WHERE row = ?",
    )?;
    let mut write = connection.prepare("UPDATE messages SET content = ? WHERE row = ?")?;
    for row in rows {
        let found = read.query_row([row], |row| {
            let (tenant, id, recipient): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = [tenant.as_bytes(), id.as_bytes(), recipient.as_bytes()];
            let opened = seal.open(&CONTENT_WITHOUT_RECIPIENT, &place[..2], row.get_ref(3)?.as_bytes()?).ok();
            Ok(opened.map(|content| seal.seal(&CONTENT, &place, &content).into_owned()))
        });
        if let Some(content) = found.optional()?.flatten() {
            write.execute(params![content, row])?;
        }
    }
    Ok(())
}
