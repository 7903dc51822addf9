//! The credentials of the device, and the secrets of messages.

use std::sync::Arc;

use whatsapp_rust::{
    ClientProfile, async_trait,
    wacore::{
        stats::StorageResourceReport,
        store::{
            Device,
            device::DEVICE_PROPS,
            error::Result,
            traits::{
                DeviceStore, MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry, merge_msg_secret_message_ts,
            },
        },
    },
};

use crate::{
    signal::DeviceBackend,
    store::{
        cells::{Cells, Kind, decode, encode, name},
        tx::damaged,
    },
};

#[async_trait]
impl DeviceStore for DeviceBackend {
    async fn save(&self, device: &Device) -> Result<()> {
        let (device, key) = (device.clone(), self.key);
        // The link, and that there is one, become known to the next process together.
        self.change(move |tx| {
            put_device(&tx.cells(key)?, &device)?;
            device.pn.map_or(Ok(()), |account| tx.note_link(key, &account.user))
        })
        .await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.read(device).await
    }

    async fn exists(&self) -> Result<bool> {
        self.read(|cells| cells.has(Kind::Device, &[])).await
    }

    async fn create(&self) -> Result<i32> {
        let new = Device::new();
        self.write(move |cells| if cells.has(Kind::Device, &[])? { Ok(()) } else { put_device(cells, &new) }).await?;
        // There is one device in a store.
        Ok(1)
    }

    async fn resource_report(&self) -> StorageResourceReport {
        // What is cached is cached for all sessions together.
        StorageResourceReport { memory_bytes: Some(0), ..StorageResourceReport::default() }
    }
}

/// The credentials, with what is the same for all devices and not written down.
pub fn device(cells: &Cells<'_>) -> rusqlite::Result<Option<Device>> {
    let Some(device) = cells.get(Kind::Device, &[])? else { return Ok(None) };
    let device: Device = decode(&device)?;
    Ok(Some(Device { device_props: Arc::new(DEVICE_PROPS.clone()), client_profile: ClientProfile::web(), ..device }))
}

/// Writes the credentials down.
fn put_device(cells: &Cells<'_>, device: &Device) -> rusqlite::Result<()> {
    cells.put(Kind::Device, &[], &encode(device)?)
}

#[async_trait]
impl MsgSecretStore for DeviceBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        self.write(move |cells| {
            entries.iter().try_for_each(|entry| put_secret(cells, entry))?;
            Ok(entries.len())
        })
        .await
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_msg_secret_with_ts(chat, sender, msg_id).await?.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let name = name(&[chat, sender, msg_id]);
        self.read(move |cells| cells.get(Kind::MessageSecret, &name)?.map(|value| secret(&value)).transpose()).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_msg_secrets(&self, _: i64) -> Result<u32> {
        Ok(0)
    }
}

/// Writes a message's secret down. What is known of it already may only become known for longer.
fn put_secret(cells: &Cells<'_>, entry: &MsgSecretEntry) -> rusqlite::Result<()> {
    let name = name(&[&entry.chat, &entry.sender, &entry.msg_id]);
    let (mut expires_at, mut message_ts) = (entry.expires_at, entry.message_ts);
    if let Some((known, known_until)) = cells.get_until(Kind::MessageSecret, &name)? {
        expires_at = merge_msg_secret_expiry(known_until.map_or(0, |until| until / 1000), expires_at);
        message_ts = merge_msg_secret_message_ts(secret(&known)?.1, message_ts);
    }
    let value = [&entry.secret[..], &message_ts.to_be_bytes()].concat();
    // The library says 0 where something never expires.
    let expires_at = (expires_at != 0).then(|| expires_at.saturating_mul(1000));
    cells.put_until(Kind::MessageSecret, &name, &value, expires_at)
}

/// The secret, and the time of its message.
fn secret(value: &[u8]) -> rusqlite::Result<(Vec<u8>, i64)> {
    let (secret, time) = value.split_last_chunk().ok_or_else(|| damaged("a message's secret is too short"))?;
    Ok((secret.to_vec(), i64::from_be_bytes(*time)))
}
