//! Whether the files of the database are still where they were. Whoever deletes one takes nothing from the process that
//! has it open, which would go on for days with what no other process will ever see.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::store::sqlite::schema;

/// The files, as they were when the database was opened.
pub struct Files(Vec<(PathBuf, (u64, u64))>);

impl Files {
    /// Of a database that is open.
    pub fn of(database: &Path) -> io::Result<Self> {
        let paths = [database.into(), schema::beside(database, "-wal"), schema::beside(database, "-shm")];
        Ok(Self(paths.into_iter().map(|path| Ok((path.clone(), identity(&path)?))).collect::<io::Result<_>>()?))
    }

    /// Whether this is the database itself, and not one of the files beside it.
    pub fn is_database(&self, path: &Path) -> bool {
        self.0.first().is_some_and(|(database, _)| database == path)
    }

    /// The first that is gone, or that another one has taken the place of.
    pub fn gone(&self) -> Option<&Path> {
        let is_there = |path: &Path, before: (u64, u64)| match identity(path) {
            Ok(now) => now == before,
            // What can't be looked at may well be there.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        self.0.iter().find(|(path, before)| !is_there(path, *before)).map(|(path, _)| path.as_path())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|about| (about.dev(), about.ino()))
}
