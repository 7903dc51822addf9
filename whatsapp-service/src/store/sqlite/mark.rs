//! `service.mark`, beside the database: which database this is, and how far it had come.
//!
//! A database that is gone, or that has lost what was in its log, would otherwise look like a new one, or like an older
//! one: phones would have to be linked again, or keys be used twice. The database counts the seconds in which something
//! was written to it, and the mark has that number. It is written after the commit, so it is never ahead of what reached
//! the disk.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::store::{data_dir::io_error, error::StoreError, sqlite::schema};

/// How often the number grows at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// The first schema that counts.
const COUNTING: i64 = 7;

/// What the mark says.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    instance: String,
    epoch: i64,
}

/// What the mark beside this database says; nothing if there is none. A database that is not there, and has left
/// something, is missing.
///
/// # Errors
/// The database is missing, or the mark can't be read.
pub fn expected(database: &Path) -> Result<Option<Expected>, StoreError> {
    let mark = path(database);
    let text = match fs::read_to_string(&mark) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(io_error("read", &mark))?,
    };
    let has = |file: &Path| fs::metadata(file).is_ok_and(|about| about.len() > 0);
    let log = schema::beside(database, "-wal");
    if !has(database) && (!text.is_empty() || has(&log)) {
        return Err(StoreError::Missing { database: database.into(), mark });
    }
    if text.is_empty() {
        // The disk was full when it was created.
        return Ok(None);
    }
    match text.trim_end().split_once(' ').map(|(instance, epoch)| (instance, epoch.parse())) {
        Some((instance, Ok(epoch))) => Ok(Some(Expected { instance: instance.into(), epoch })),
        _ => Err(StoreError::Damaged(format!("{} is not what was written", mark.display()))),
    }
}

impl Expected {
    /// Whether this is the database that the mark is about, and as far as it says.
    ///
    /// # Errors
    /// It is another one, or an older one.
    pub fn check(&self, connection: &Connection, database: &Path) -> Result<(), StoreError> {
        let version = schema::version(connection)?;
        let older = || StoreError::Older { database: database.into(), mark: path(database) };
        if version == 0 {
            return Err(older());
        }
        if schema::instance(connection)? != self.instance {
            return Err(StoreError::Another { database: database.into(), mark: path(database) });
        }
        let epoch = if version >= COUNTING { epoch(connection)? } else { 0 };
        if epoch < self.epoch { Err(older()) } else { Ok(()) }
    }
}

/// The mark of a database that is open.
pub struct Mark {
    path: PathBuf,
    instance: String,
    file: Option<File>,
    next: Instant,
    is_failing: bool,
}

impl Mark {
    /// Writes the mark of this database.
    pub fn of(database: &Path, connection: &Connection) -> rusqlite::Result<Self> {
        let (path, instance) = (path(database), schema::instance(connection)?);
        let mut mark = Self { path, instance, file: None, next: Instant::now(), is_failing: false };
        mark.write(epoch(connection)?);
        Ok(mark)
    }

    /// Counts in the transaction that is under way, if a second has passed since the last time. What comes back is to be
    /// written when it is committed.
    pub fn count(&mut self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        let now = Instant::now();
        if now < self.next {
            return Ok(None);
        }
        self.next = now + INTERVAL;
        let sql = "UPDATE instance SET epoch = epoch + 1 RETURNING epoch";
        connection.prepare_cached(sql)?.query_row((), |row| row.get(0)).map(Some)
    }

    /// Writes down how far the database has come. A mark that is behind is no harm, and the next one may be written.
    pub fn write(&mut self, epoch: i64) {
        match self.try_write(epoch) {
            Ok(()) => self.is_failing = false,
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!(%error, file = %self.path.display(), "how far the database has come can't be written down");
            }
            Err(_) => {}
        }
    }

    fn try_write(&mut self, epoch: i64) -> io::Result<()> {
        // Always of one length: it is written over, which a full disk takes too.
        let text = format!("{} {epoch:020}\n", self.instance);
        if let Some(file) = &self.file {
            return file.write_all_at(text.as_bytes(), 0);
        }
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_all()?;
        self.file = Some(file);
        Ok(())
    }
}

/// How far the database has come.
pub fn epoch(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT epoch FROM instance", (), |row| row.get(0))
}

fn path(database: &Path) -> PathBuf {
    database.with_extension("mark")
}
