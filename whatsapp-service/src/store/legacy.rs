//! Data directories of the first version: there each tenant had a folder, with a file that named it and a database in
//! the library's own layout. What is in such a folder is taken over, once.
//!
//! The folder is moved away then. It must never be used again: keys are used once, and its ratchets stand where they
//! stood that day.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, Row};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use whatsapp_rust::{
    Jid,
    wacore::{
        appstate::hash::HashState,
        store::{
            Device,
            traits::{AppStateSyncKey, DeviceInfo, DeviceListRecord, LidPnMappingEntry, TcTokenEntry},
        },
    },
};

use super::{
    Record, Store, StoreError, backend,
    cells::{Kind, encode, name, prefix},
    data_dir::{create_private_dir, io_error},
    tx::{carry, damaged},
};
use crate::{clock, encoding::hexadecimal, tenant::TenantId};

const NOTE: &str = "The folders in here were used by an earlier version. What was in them is in service.db now.\n\
                    Never use them again: message keys are used once, and these would be used a second time.\n\
                    Once the sessions work, delete them.\n";

/// A folder that can't be taken over.
#[derive(Debug)]
pub struct DamagedFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is, if that can be read.
    pub tenant: Option<TenantId>,
    /// What is wrong with it.
    pub why: String,
}

/// What `tenant.json` says.
#[derive(Deserialize)]
struct TenantFile {
    tenant: String,
    #[serde(flatten)]
    record: Record,
}

/// What a folder holds.
struct Contents {
    tenant: TenantId,
    record: Record,
    values: Vec<Value>,
}

struct Value {
    kind: Kind,
    name: Vec<u8>,
    value: Vec<u8>,
    expires_at: Option<i64>,
}

impl Store {
    /// Takes over what an earlier version has left. Folders that can't be read are left alone, and returned.
    pub async fn import_all(&self) -> Result<Vec<DamagedFolder>, StoreError> {
        let entries = match fs::read_dir(&self.folders) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &self.folders)(error)),
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut damaged = Vec::new();
        for path in paths.map_err(io_error("list", &self.folders))? {
            match self.import_folder(&path).await {
                Ok(()) => {}
                Err(error @ (StoreError::Damaged(_) | StoreError::Io { .. })) => {
                    tracing::error!(folder = %path.display(), %error, "a tenant's folder can't be taken over");
                    let tenant = read_tenant_file(&path).ok().and_then(|file| file.tenant.parse().ok());
                    let tenant = tenant.filter(|tenant| self.folder(tenant) == path);
                    damaged.push(DamagedFolder { path, tenant, why: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        // Goes only if it is empty.
        let _ = fs::remove_dir(&self.folders);
        Ok(damaged)
    }

    /// Takes over a tenant's folder, if there still is one.
    pub(super) async fn import(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let path = self.folder(tenant);
        match path.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => self.import_folder(&path).await,
            Err(error) => Err(io_error("look at", &path)(error)),
        }
    }

    /// Deletes a tenant's folder, if there still is one.
    pub(super) fn delete_folder(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let path = self.folder(tenant);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("delete", &path)(source)),
            _ => Ok(()),
        }
    }

    /// The folder that a tenant had.
    pub fn folder(&self, tenant: &TenantId) -> PathBuf {
        let digest = hexadecimal(&Sha256::digest(tenant.as_str()));
        self.folders.join(digest)
    }

    async fn import_folder(&self, path: &Path) -> Result<(), StoreError> {
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = folder.clone();
        let is_known = move |connection: &Connection| {
            connection.prepare_cached("SELECT 1 FROM imported WHERE folder = ?")?.exists([known])
        };
        if !self.read(is_known).await? {
            let reading = path.to_path_buf();
            let contents = tokio::task::spawn_blocking(move || read_folder(&reading)).await;
            let contents = contents.map_err(|error| StoreError::Damaged(error.to_string()))??;
            if self.folder(&contents.tenant) != path {
                return Err(StoreError::Damaged("the folder names a tenant that is not its own".into()));
            }
            self.write(move |tx| {
                let Contents { tenant, record, values } = contents;
                let live = "SELECT 1 FROM stores WHERE state = 'live' AND tenant = ?";
                let has_newer = tx.find(live, [tx.known_tenant(&tenant)?], |_| Ok(()))?.is_some();
                if record.paired && !has_newer {
                    let store = tx.new_store(&tenant, &record)?;
                    let cells = tx.cells(store)?;
                    for Value { kind, name, value, expires_at } in values {
                        cells.put_until(kind, &name, &value, expires_at)?;
                    }
                }
                // In the same transaction: whatever happens to the folder from here on, it is not taken over again.
                tx.execute("INSERT INTO imported (folder) VALUES (?) ON CONFLICT DO NOTHING", [&folder]).map(drop)
            })
            .await?;
        }
        move_away(path)
    }
}

/// Out of the way, and never used again.
fn move_away(path: &Path) -> Result<(), StoreError> {
    let Some((root, folder)) = path.parent().and_then(Path::parent).zip(path.file_name()) else { return Ok(()) };
    let migrated = root.join("migrated");
    create_private_dir(&migrated)?;
    let note = migrated.join("README");
    fs::write(&note, NOTE).map_err(io_error("write", &note))?;
    let mut target = migrated.join(folder);
    if target.exists() {
        target.as_mut_os_string().push(clock::wall().format("-%Y%m%dT%H%M%S%.6f").to_string());
    }
    fs::rename(path, target).map_err(io_error("move away", path))
}

fn read_tenant_file(folder: &Path) -> Result<TenantFile, StoreError> {
    let path = folder.join("tenant.json");
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| StoreError::Damaged(format!("tenant.json: {error}")))
}

fn read_folder(folder: &Path) -> Result<Contents, StoreError> {
    let TenantFile { tenant, record } = read_tenant_file(folder)?;
    let tenant = tenant.parse().map_err(|_| StoreError::Damaged("the folder names nobody".into()))?;
    let mut values = Vec::new();
    if record.paired {
        let path = folder.join("whatsapp.db");
        check_head(&path)?;
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if sound != "ok" {
            return Err(StoreError::Damaged("the database is not whole".into()));
        }
        // A table that is not there is damage too.
        values = read_database(&connection).map_err(|error| match StoreError::from(error) {
            StoreError::Database(error) => StoreError::Damaged(error.to_string()),
            error => error,
        })?;
    }
    Ok(Contents { tenant, record, values })
}

/// Refuses what SQLite would take for an empty database, and what is none.
fn check_head(path: &Path) -> Result<(), StoreError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut head = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(io_error("read", path))?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(io_error("open", path)(source)),
    };
    match head {
        head if head == MAGIC => Ok(()),
        head if head.is_empty() => {
            Err(StoreError::Damaged("the database of a linked device is empty or missing".into()))
        }
        _ => Err(StoreError::Damaged("the file is not a database".into())),
    }
}

/// All that the library had written, in its schema of version 0.7.0.
fn read_database(connection: &Connection) -> rusqlite::Result<Vec<Value>> {
    let mut values = Values { connection, values: Vec::new() };
    values.take("SELECT * FROM device WHERE id = 1", |row| Ok((Kind::Device, Vec::new(), device(row)?, None)))?;
    if values.values.is_empty() {
        return Err(damaged("the credentials of a linked device are missing"));
    }
    values.take("SELECT address, key FROM identities WHERE device_id = 1", |row| {
        Ok((Kind::Identity, text(row, 0)?, row.get(1)?, None))
    })?;
    values.take("SELECT address, record FROM sessions WHERE device_id = 1", |row| {
        Ok((Kind::Session, text(row, 0)?, row.get(1)?, None))
    })?;
    values.take("SELECT id, key FROM prekeys WHERE device_id = 1", |row| {
        Ok((Kind::PreKey, backend::number(row.get(0)?).to_vec(), row.get(1)?, None))
    })?;
    values.take("SELECT id, record FROM signed_prekeys WHERE device_id = 1", |row| {
        Ok((Kind::SignedPreKey, backend::number(row.get(0)?).to_vec(), row.get(1)?, None))
    })?;
    values.take("SELECT address, record FROM sender_keys WHERE device_id = 1", |row| {
        Ok((Kind::SenderKey, text(row, 0)?, row.get(1)?, None))
    })?;
    values.take("SELECT name, index_mac, value_mac FROM app_state_mutation_macs WHERE device_id = 1", |row| {
        let (collection, index): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok((Kind::MutationMac, [prefix(&[&collection]), index].concat(), row.get(2)?, None))
    })?;
    values.take("SELECT group_jid, device_jid, has_key FROM sender_key_devices WHERE device_id = 1", |row| {
        Ok((Kind::SenderKeyDevice, names(row, 2)?, vec![u8::from(row.get::<_, bool>(2)?)], None))
    })?;
    values.take("SELECT address, message_id, base_key FROM base_keys WHERE device_id = 1", |row| {
        Ok((Kind::BaseKey, names(row, 2)?, row.get(2)?, None))
    })?;
    values.take("SELECT * FROM device_registry WHERE device_id = 1", |row| {
        let devices: String = row.get("devices_json")?;
        let list = DeviceListRecord {
            user: row.get("user_id")?,
            devices: serde_json::from_str::<Vec<DeviceInfo>>(&devices)
                .map_err(|_| damaged("a list of devices can't be read"))?,
            timestamp: row.get("timestamp")?,
            phash: row.get("phash")?,
            raw_id: row.get::<_, Option<i64>>("raw_id")?.map(|id| id as u32),
        };
        Ok((Kind::DeviceList, list.user.clone().into_bytes(), encode(&list)?, None))
    })?;
    values.take("SELECT group_jid, info FROM group_metadata WHERE device_id = 1", |row| {
        Ok((Kind::Group, text(row, 0)?, row.get(1)?, None))
    })?;
    values.take("SELECT * FROM tc_tokens WHERE device_id = 1", |row| {
        let token = TcTokenEntry {
            token: row.get("token")?,
            token_timestamp: row.get("token_timestamp")?,
            sender_timestamp: row.get("sender_timestamp")?,
        };
        Ok((Kind::TcToken, row.get::<_, String>("jid")?.into_bytes(), encode(&token)?, None))
    })?;
    values.take("SELECT chat_jid, message_id, payload, created_at FROM sent_messages WHERE device_id = 1", |row| {
        Ok((Kind::Sent, names(row, 2)?, row.get(2)?, Some(row.get::<_, i64>(3)? * 1000 + backend::KEPT_FOR)))
    })?;
    let sql = "SELECT chat, sender, id, message, inserted_at FROM pending_inbound_messages WHERE device_id = 1";
    values.take(sql, |row| {
        Ok((Kind::PendingInbound, names(row, 3)?, row.get(3)?, Some(row.get::<_, i64>(4)? * 1000 + backend::KEPT_FOR)))
    })?;
    let sql = "SELECT chat, sender, msg_id, secret, message_ts, expires_at FROM msg_secrets WHERE device_id = 1";
    values.take(sql, |row| {
        let (secret, time): (Vec<u8>, i64) = (row.get(3)?, row.get(4)?);
        let until = Some(row.get::<_, i64>(5)?).filter(|until| *until != 0).map(|until| until.saturating_mul(1000));
        Ok((Kind::MessageSecret, names(row, 3)?, [secret, time.to_be_bytes().to_vec()].concat(), until))
    })?;
    values.take("SELECT * FROM lid_pn_mapping WHERE device_id = 1", |row| {
        let entry = mapping(row)?;
        Ok((Kind::Lid, entry.lid.clone().into_bytes(), encode(&entry)?, None))
    })?;
    values.take("SELECT * FROM lid_pn_mapping WHERE device_id = 1", |row| {
        let entry = mapping(row)?;
        Ok((Kind::Pn, name(&[&entry.phone_number, &entry.lid]), Vec::new(), None))
    })?;
    app_state(&mut values)?;
    Ok(values.values)
}

/// What is not readable here is asked for again by the library, so it is left out.
fn app_state(values: &mut Values<'_>) -> rusqlite::Result<()> {
    let sql = "SELECT key_id, key_data FROM app_state_keys WHERE device_id = 1 ORDER BY key_id";
    let mut latest = None;
    for (id, key) in values.pairs::<Vec<u8>>(sql)? {
        if let Some(key) = sync_key(&key) {
            values.push(Kind::SyncKey, id.clone(), encode(&key)?);
            latest = Some(id);
        }
    }
    if let Some(latest) = latest {
        values.push(Kind::LatestSyncKey, Vec::new(), latest);
    }
    for (collection, state) in
        values.pairs::<String>("SELECT name, state_data FROM app_state_versions WHERE device_id = 1")?
    {
        if let Some(state) = hash_state(&state) {
            values.push(Kind::Version, collection.into_bytes(), encode(&state)?);
        }
    }
    Ok(())
}

struct Values<'c> {
    connection: &'c Connection,
    values: Vec<Value>,
}

impl Values<'_> {
    fn take(
        &mut self,
        sql: &str,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<(Kind, Vec<u8>, Vec<u8>, Option<i64>)>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (kind, name, value, expires_at) = read(row)?;
            self.values.push(Value { kind, name, value, expires_at });
        }
        Ok(())
    }

    fn pairs<T: rusqlite::types::FromSql>(&self, sql: &str) -> rusqlite::Result<Vec<(T, Vec<u8>)>> {
        self.connection.prepare(sql)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    fn push(&mut self, kind: Kind, name: Vec<u8>, value: Vec<u8>) {
        self.values.push(Value { kind, name, value, expires_at: None });
    }
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(row.get::<_, String>(column)?.into_bytes())
}

/// The name that the first columns make.
fn names(row: &Row<'_>, columns: usize) -> rusqlite::Result<Vec<u8>> {
    let parts = (0..columns).map(|column| row.get::<_, String>(column)).collect::<Result<Vec<_>, _>>()?;
    Ok(name(&parts.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn mapping(row: &Row<'_>) -> rusqlite::Result<LidPnMappingEntry> {
    Ok(LidPnMappingEntry {
        lid: row.get("lid")?,
        phone_number: row.get("phone_number")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        learning_source: row.get("learning_source")?,
    })
}

/// The credentials. The server's certificate is left out: the library asks for it again when it has none.
fn device(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    let jid = |column: &str| Ok::<_, rusqlite::Error>(row.get::<_, String>(column)?.parse::<Jid>().ok());
    let bytes = |column: &str| row.get::<_, Vec<u8>>(column);
    let maybe_bytes = |column: &str| row.get::<_, Option<Vec<u8>>>(column);
    // The library's database kept these as signed numbers.
    let unsigned = |column: &str| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)? as u32);
    let device = json!({
        "pn": jid("pn")?,
        "lid": jid("lid")?,
        "registration_id": unsigned("registration_id")?,
        "noise_key": bytes("noise_key")?,
        "identity_key": bytes("identity_key")?,
        "signed_pre_key": bytes("signed_pre_key")?,
        "signed_pre_key_id": unsigned("signed_pre_key_id")?,
        "signed_pre_key_signature": bytes("signed_pre_key_signature")?,
        "adv_secret_key": bytes("adv_secret_key")?,
        "account": maybe_bytes("account")?,
        "push_name": row.get::<_, String>("push_name")?,
        "app_version_primary": unsigned("app_version_primary")?,
        "app_version_secondary": unsigned("app_version_secondary")?,
        "app_version_tertiary": unsigned("app_version_tertiary")?,
        "app_version_last_fetched_ms": row.get::<_, i64>("app_version_last_fetched_ms")?,
        "edge_routing_info": maybe_bytes("edge_routing_info")?,
        "props_hash": row.get::<_, Option<String>>("props_hash")?,
        "next_pre_key_id": unsigned("next_pre_key_id")?,
        "first_unupload_pre_key_id": unsigned("first_unupload_pre_key_id")?,
        "server_has_prekeys": row.get::<_, bool>("server_has_prekeys")?,
        "nct_salt": maybe_bytes("nct_salt")?,
        "login_counter": row.get::<_, i32>("login_counter")?,
        "lid_migrated": row.get::<_, bool>("lid_migrated")?,
        "last_signed_pre_key_rotation_ms": row.get::<_, i64>("last_signed_pre_key_rotation_ms")?,
        "read_receipts_disabled": row.get::<_, bool>("read_receipts_disabled")?,
    });
    let device: Device =
        serde_json::from_value(device).map_err(|_| damaged("the credentials of a linked device can't be read"))?;
    if device.pn.is_none() {
        return Err(carry(StoreError::Damaged("the store of a linked device holds no link".into())));
    }
    encode(&device)
}

fn sync_key(message: &[u8]) -> Option<AppStateSyncKey> {
    let mut key = AppStateSyncKey::default();
    for field in fields(message)? {
        match field {
            (1, Field::Bytes(bytes)) => key.key_data = bytes.to_vec(),
            (2, Field::Bytes(bytes)) => key.fingerprint = bytes.to_vec(),
            (3, Field::Number(number)) => key.timestamp = number as i64,
            _ => {}
        }
    }
    (key.key_data.len() == 32).then_some(key)
}

fn hash_state(message: &[u8]) -> Option<HashState> {
    let (mut state, mut known) = (HashState::default(), HashMap::new());
    for field in fields(message)? {
        match field {
            (1, Field::Number(number)) => state.version = number,
            (2, Field::Bytes(bytes)) => state.hash = bytes.try_into().ok()?,
            (3, Field::Bytes(entry)) => {
                let (mut key, mut value) = (String::new(), Vec::new());
                for field in fields(entry)? {
                    match field {
                        (1, Field::Bytes(bytes)) => key = String::from_utf8(bytes.to_vec()).ok()?,
                        (2, Field::Bytes(bytes)) => value = bytes.to_vec(),
                        _ => {}
                    }
                }
                known.insert(key, value);
            }
            (4, Field::Number(number)) => state.mac_mismatch_fatal = number != 0,
            _ => {}
        }
    }
    state.index_value_map = known;
    Some(state)
}

enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a protobuf message that are varints or bytes; there are no others in what the library wrote.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(value),
            2 => {
                let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        fields.push((tag >> 3, field));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
