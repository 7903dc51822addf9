//! The credentials of the device, and the secrets of messages.

use std::{collections::HashSet, sync::Arc};

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
        error::StoreError,
        key_value::{Batch, KeyValue, Kind, Timed, Write, decode, encode, name},
    },
};

#[async_trait]
impl DeviceStore for DeviceBackend {
    async fn save(&self, device: &Device) -> Result<()> {
        // The link, and that there is one, become known to the next process together.
        let link = device.pn.as_ref().map(|account| Write::Link(account.user.to_string()));
        let put = self.checked(async { put_device(device) }).await?;
        self.write(std::iter::once(put).chain(link).collect()).await
    }

    async fn load(&self) -> Result<Option<Device>> {
        self.checked(device(&*self.values)).await
    }

    async fn exists(&self) -> Result<bool> {
        Ok(self.get(Kind::Device, &[]).await?.is_some())
    }

    async fn create(&self) -> Result<i32> {
        let new = self.checked(async { put_device(&Device::new()) }).await?;
        self.apply(Batch { expected: vec![((Kind::Device, Vec::new()), None)], writes: vec![new] }).await?;
        // There is one device in a store.
        Ok(1)
    }

    async fn resource_report(&self) -> StorageResourceReport {
        // What is cached is cached for all sessions together.
        StorageResourceReport { memory_bytes: Some(0), ..StorageResourceReport::default() }
    }
}

/// The credentials, with what is the same for all devices and not written down.
pub async fn device(values: &dyn KeyValue) -> std::result::Result<Option<Device>, StoreError> {
    let Some(device) = values.get(Kind::Device, &[]).await? else { return Ok(None) };
    let device: Device = decode(&device)?;
    Ok(Some(Device { device_props: Arc::new(DEVICE_PROPS.clone()), client_profile: ClientProfile::web(), ..device }))
}

/// What writes the credentials down.
fn put_device(device: &Device) -> std::result::Result<Write, StoreError> {
    Ok(Write::put(Kind::Device, &[], &encode(device)?))
}

#[async_trait]
impl MsgSecretStore for DeviceBackend {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let names = entries.iter().map(|entry| name(&[&entry.chat, &entry.sender, &entry.msg_id]));
        let keys: Vec<_> = names.map(|name| (Kind::MessageSecret, name)).collect();
        // What is given twice is put twice: the second has to see the first.
        let is_once = keys.iter().map(|(_, name)| name).collect::<HashSet<_>>().len() == keys.len();
        let chunk = if is_once { entries.len().max(1) } else { 1 };
        for (entries, keys) in entries.chunks(chunk).zip(keys.chunks(chunk)) {
            self.update(keys.to_vec(), |known| {
                entries.iter().zip(known).map(|(entry, known)| put_secret(entry, known.as_ref())).collect()
            })
            .await?;
        }
        Ok(entries.len())
    }

    async fn get_msg_secret(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_msg_secret_with_ts(chat, sender, msg_id).await?.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(&self, chat: &str, sender: &str, msg_id: &str) -> Result<Option<(Vec<u8>, i64)>> {
        let value = self.get(Kind::MessageSecret, &name(&[chat, sender, msg_id])).await?;
        self.checked(async { value.map(|value| secret(&value)).transpose() }).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_msg_secrets(&self, _: i64) -> Result<u32> {
        Ok(0)
    }
}

/// What writes a message's secret down. What is known of it already may only become known for longer.
fn put_secret(entry: &MsgSecretEntry, known: Option<&Timed>) -> std::result::Result<Write, StoreError> {
    let (mut expires_at, mut message_ts) = (entry.expires_at, entry.message_ts);
    if let Some((known, known_until)) = known {
        expires_at = merge_msg_secret_expiry(known_until.map_or(0, |until| until / 1000), expires_at);
        message_ts = merge_msg_secret_message_ts(secret(known)?.1, message_ts);
    }
    let value = [&entry.secret[..], &message_ts.to_be_bytes()].concat();
    // The library says 0 where something never expires.
    let expires_at = (expires_at != 0).then(|| expires_at.saturating_mul(1000));
    let name = name(&[&entry.chat, &entry.sender, &entry.msg_id]);
    Ok(Write::put_until(Kind::MessageSecret, &name, &value, expires_at))
}

/// The secret, and the time of its message.
fn secret(value: &[u8]) -> std::result::Result<(Vec<u8>, i64), StoreError> {
    let short = || StoreError::Damaged("a message's secret is too short".into());
    let (secret, time) = value.split_last_chunk().ok_or_else(short)?;
    Ok((secret.to_vec(), i64::from_be_bytes(*time)))
}
