//! The data directory: one process at a time, and for the sandbox or for WhatsApp, never both.
//!
//! ```text
//! DATA_DIR/lock              held by the one process that uses this folder
//! DATA_DIR/sandbox           there only if the sandbox has used this folder
//! DATA_DIR/service.db        everything else: see the schema beside this file
//! DATA_DIR/service.mark      which database that is, and how far it had come
//! DATA_DIR/media/…           media that is to be sent, encrypted as WhatsApp wants it
//! DATA_DIR/downloads/        where files are put for as long as somebody reads them; without names, so seemingly empty
//! DATA_DIR/whatsapp-version  the last good version of WhatsApp Web
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{net::trust::Trust, store::error::StoreError};

/// The data directory. One process at a time: the lock goes when this does, or when the process ends.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens or creates the directory and takes its lock.
    pub fn open(root: &Path, trust: &Trust) -> Result<Self, StoreError> {
        create_private_dir(root)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(io_error("protect", root))?;
        let path = root.join("lock");
        let lock = take_lock(root, &path)?;
        let mark = root.join("sandbox");
        match trust {
            Trust::AnyServer { .. } => drop(private_file(&mark).map_err(io_error("create", &mark))?),
            Trust::WhatsAppOnly if mark.exists() => return Err(StoreError::UsedBySandbox(root.into())),
            Trust::WhatsAppOnly => {}
        }
        Ok(Self { root: root.into(), _lock: lock })
    }

    /// Takes the lock of a directory in which there is a database; creates none.
    pub fn existing(root: &Path) -> Result<Self, StoreError> {
        let (database, path) = (root.join("service.db"), root.join("lock"));
        fs::metadata(&database).map_err(io_error("find", &database))?;
        Ok(Self { root: root.into(), _lock: take_lock(root, &path)? })
    }

    /// The directory.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("service.db")
    }

    /// Where media stands until it was sent.
    pub fn media(&self) -> PathBuf {
        self.root.join("media")
    }

    /// The file that remembers WhatsApp Web's version.
    pub fn version_file(&self) -> PathBuf {
        self.root.join("whatsapp-version")
    }
}

fn take_lock(root: &Path, path: &Path) -> Result<File, StoreError> {
    let lock = private_file(path).map_err(io_error("open", path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(root.into())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", path)(source)),
    }
}

/// Creates a folder and what leads to it, so that only this user can look into it.
pub fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}

/// Creates the file, if it is not there, so that only this user can read it.
pub fn create_private_file(path: &Path) -> Result<(), StoreError> {
    private_file(path).map(drop).map_err(io_error("create", path))
}

fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// What went wrong with a file or folder.
pub fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { doing, path, source: source.into() }
}
