//! The data directory: the database, and one folder for each tenant with its name and the library's store.
//!
//! ```text
//! DATA_DIR/lock                          held by the one process that uses this folder
//! DATA_DIR/sandbox                       there only if the sandbox has used this folder
//! DATA_DIR/service.db                    messages, events, webhooks: see the schema beside this file
//! DATA_DIR/whatsapp-version              the last good version of WhatsApp Web
//! DATA_DIR/tenants/<digest>/tenant.json  which tenant it is, whether it is linked, and whether it is banned
//! DATA_DIR/tenants/<digest>/whatsapp.db  keys, ratchets, contacts: the library's
//! DATA_DIR/quarantine/…                  stores that were unlinked or replaced; never deleted by this program
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use whatsapp_rust::store::{Backend, SqliteStore, SqliteStoreConfig, Synchronous};

use super::StoreError;
use crate::{
    Trust,
    sessions::{Proxy, State},
    tenant::TenantId,
};

/// The data directory. One process at a time: the lock goes when this does, or when the process ends.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// The tenants of a data directory.
#[derive(Debug, Default)]
pub struct Tenants {
    /// Those that were linked.
    pub paired: Vec<TenantId>,
    /// The folders of which nobody can say whose they are, and why.
    pub damaged: Vec<(PathBuf, String)>,
}

/// A tenant's folder.
#[derive(Clone, Debug)]
pub struct TenantDir {
    /// Where it is.
    pub path: PathBuf,
    quarantine: PathBuf,
}

/// What `tenant.json` says.
#[derive(Serialize, Deserialize)]
struct TenantFile {
    tenant: String,
    #[serde(flatten)]
    record: Record,
}

/// What is known of a tenant's session from one process to the next, beside its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whether it is linked.
    pub paired: bool,
    /// The account's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Why it must not dial, if WhatsApp said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The way to WhatsApp that its owner has chosen. It holds a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// What WhatsApp said of an account that a new process has to respect too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Banned or locked.
    pub state: State,
    /// The reason's identifier.
    pub reason: String,
    /// The reason for a person.
    pub message: String,
    /// Until when, in milliseconds since 1970; without it, until a person decides.
    pub until: Option<i64>,
}

impl Hold {
    /// Whether it still forbids dialling.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now.timestamp_millis() < until)
    }
}

impl DataDir {
    /// Opens or creates the directory and takes its lock.
    pub fn open(root: &Path, trust: &Trust) -> Result<Self, StoreError> {
        create_private_dir(&root.join("tenants"))?;
        create_private_dir(&root.join("quarantine"))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(io_error("protect", root))?;
        let path = root.join("lock");
        let lock = private_file(&path).map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(root.into())),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        let mark = root.join("sandbox");
        match trust {
            Trust::AnyServer { .. } => drop(private_file(&mark).map_err(io_error("create", &mark))?),
            Trust::WhatsAppOnly if mark.exists() => return Err(StoreError::UsedBySandbox(root.into())),
            Trust::WhatsAppOnly => {}
        }
        Ok(Self { root: root.into(), _lock: lock })
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("service.db")
    }

    /// The file that remembers WhatsApp Web's version.
    pub fn version_file(&self) -> PathBuf {
        self.root.join("whatsapp-version")
    }

    /// The folder of `tenant`, which may not exist yet.
    pub fn tenant(&self, tenant: &TenantId) -> TenantDir {
        let digest: String = Sha256::digest(tenant.as_str()).iter().map(|byte| format!("{byte:02x}")).collect();
        TenantDir { path: self.root.join("tenants").join(digest), quarantine: self.root.join("quarantine") }
    }

    /// What is there. A folder that can't be read is left alone.
    pub fn tenants(&self) -> Result<Tenants, StoreError> {
        let path = self.root.join("tenants");
        let Tenants { mut paired, mut damaged } = Tenants::default();
        for entry in fs::read_dir(&path).map_err(io_error("list", &path))? {
            let path = entry.map_err(io_error("list", &path))?.path();
            match read_tenant_file(&path).map(|file| (file.record.paired, file.tenant.parse::<TenantId>())) {
                Ok((true, Ok(tenant))) if self.tenant(&tenant).path == path => paired.push(tenant),
                Ok((false, Ok(_))) => {}
                Ok((_, _)) => damaged.push((path, "the folder names a tenant that is not its own".to_owned())),
                Err(error) => damaged.push((path, error.to_string())),
            }
        }
        for (path, why) in &damaged {
            tracing::error!(folder = %path.display(), why, "a tenant's folder can't be read");
        }
        Ok(Tenants { paired, damaged })
    }
}

impl TenantDir {
    /// Whether this tenant was linked when that was last written down.
    pub fn is_paired(&self) -> Result<bool, StoreError> {
        Ok(self.recorded()?.paired)
    }

    /// What was last written down. A file that can't be read is not taken for none.
    pub fn recorded(&self) -> Result<Record, StoreError> {
        match read_tenant_file(&self.path) {
            Ok(file) => Ok(file.record),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes down which tenant this is and what is known of its session, durably.
    pub fn record(&self, tenant: &TenantId, record: Record) -> Result<(), StoreError> {
        create_private_dir(&self.path)?;
        let (path, new) = (self.path.join("tenant.json"), self.path.join("tenant.json.new"));
        let record = TenantFile { tenant: tenant.to_string(), record };
        let write = || -> io::Result<()> {
            let mut file = private_file(&new)?;
            file.set_len(0)?;
            serde_json::to_writer(&file, &record)?;
            file.flush()?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(io_error("write", &path))
    }

    /// Opens the library's store. One that was linked must still be there and whole: it is never created anew.
    pub async fn open(&self) -> Result<Arc<dyn Backend>, StoreError> {
        let path = self.path.join("whatsapp.db");
        check_database(&path, self.is_paired()?)?;
        create_private_dir(&self.path)?;
        if !path.exists() {
            private_file(&path).map_err(io_error("create", &path))?;
        }
        let Some(name) = path.to_str() else {
            return Err(StoreError::Damaged("the data directory's path is not UTF-8".into()));
        };
        let config =
            SqliteStoreConfig { synchronous: Synchronous::Full, cache_size_kib: 128, ..SqliteStoreConfig::default() };
        let store =
            SqliteStore::with_config(name, config).await.map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(Arc::new(store))
    }

    /// Moves the folder out of the way. Nothing is destroyed: a person may still need what is in it.
    pub fn quarantine(&self) -> Result<(), StoreError> {
        if !self.path.exists() {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.quarantine.join(format!("{name}-{}", Utc::now().format("%Y%m%dT%H%M%S%.6f")));
        fs::rename(&self.path, &target).map_err(io_error("set aside", &self.path))
    }

    /// Deletes the folder. Only for a person who asked for it.
    pub fn delete(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("delete", &self.path)(source)),
            _ => Ok(()),
        }
    }
}

/// Refuses a file that SQLite would take for an empty database although it held a linked device, and one that is
/// something else. The pool would retry to open such a file for half a minute.
fn check_database(path: &Path, was_paired: bool) -> Result<(), StoreError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut head = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(io_error("read", path))?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(io_error("open", path)(source)),
    };
    if head == MAGIC || (head.is_empty() && !was_paired) {
        Ok(())
    } else if head.is_empty() {
        Err(StoreError::Damaged("the database of a linked device is empty or missing".into()))
    } else {
        Err(StoreError::Damaged("the file is not a database".into()))
    }
}

fn read_tenant_file(folder: &Path) -> Result<TenantFile, StoreError> {
    let path = folder.join("tenant.json");
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| StoreError::Damaged(format!("tenant.json: {error}")))
}

fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}

/// Creates the file, if it is not there, so that only this user can read it.
pub fn create_private_file(path: &Path) -> Result<(), StoreError> {
    private_file(path).map(drop).map_err(io_error("create", path))
}

fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { doing, path, source: source.into() }
}
