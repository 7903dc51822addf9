//! Keys and ratchets.

use std::sync::Arc;

use whatsapp_rust::{
    async_trait,
    bytes::Bytes,
    wacore::store::{error::Result, traits::SignalStore},
};

use crate::{
    signal::DeviceBackend,
    store::{cells::Kind, tx::damaged},
};

#[async_trait]
impl SignalStore for DeviceBackend {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        let address = address.to_owned();
        self.write(move |cells| cells.put(Kind::Identity, address.as_bytes(), &key)).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let identities = identities.to_vec();
        self.write(move |cells| {
            identities.iter().try_for_each(|(address, key)| cells.put(Kind::Identity, address.as_bytes(), key))
        })
        .await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let address = address.to_owned();
        self.read(move |cells| {
            let key = cells.get(Kind::Identity, address.as_bytes())?;
            key.map(|key| key.try_into().map_err(|_| damaged("an identity key has another length"))).transpose()
        })
        .await
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.write(move |cells| cells.delete(Kind::Identity, address.as_bytes())).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        let address = address.to_owned();
        self.read(move |cells| Ok(cells.get(Kind::Session, address.as_bytes())?.map(Bytes::from))).await
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.put_sessions_batch(&[(address.into(), Bytes::copy_from_slice(session))]).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put_all(Kind::Session, sessions).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.write(move |cells| cells.delete(Kind::Session, address.as_bytes())).await
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        let address = address.to_owned();
        self.read(move |cells| cells.has(Kind::Session, address.as_bytes())).await
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        // An address is `user@server`, or `user:device@server`.
        let prefixes = ["@", ":"].map(|sign| format!("{user}{sign}"));
        self.read(move |cells| {
            for prefix in prefixes {
                for kind in [Kind::Session, Kind::Identity] {
                    if cells.has_any(kind, prefix.as_bytes())? {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
        .await
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.store_prekeys_batch(&[(id, Bytes::copy_from_slice(record))], uploaded).await
    }

    // Whether a key was uploaded is told, and never asked for.
    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _: bool) -> Result<()> {
        let keys = keys.to_vec();
        self.write(move |cells| keys.iter().try_for_each(|(id, record)| cells.put(Kind::PreKey, &number(*id), record)))
            .await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        self.read(move |cells| Ok(cells.get(Kind::PreKey, &number(id))?.map(Bytes::from))).await
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let ids = ids.to_vec();
        self.read(move |cells| {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.extend(cells.get(Kind::PreKey, &number(id))?.map(|record| (id, Bytes::from(record))));
            }
            Ok(found)
        })
        .await
    }

    async fn mark_prekeys_uploaded(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.write(move |cells| cells.delete(Kind::PreKey, &number(id))).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        self.read(|cells| cells.last_name(Kind::PreKey)?.map_or(Ok(0), |name| number_of(&name))).await
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        let record = record.to_vec();
        self.write(move |cells| cells.put(Kind::SignedPreKey, &number(id), &record)).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.read(move |cells| cells.get(Kind::SignedPreKey, &number(id))).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        self.read(|cells| {
            let keys = cells.all(Kind::SignedPreKey, &[])?;
            keys.into_iter().map(|(name, record)| Ok((number_of(&name)?, record))).collect()
        })
        .await
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.write(move |cells| cells.delete(Kind::SignedPreKey, &number(id))).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.put_sender_keys_batch(&[(address.into(), Bytes::copy_from_slice(record))]).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put_all(Kind::SenderKey, sender_keys).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        let address = address.to_owned();
        self.read(move |cells| cells.get(Kind::SenderKey, address.as_bytes())).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.write(move |cells| cells.delete(Kind::SenderKey, address.as_bytes())).await
    }
}

impl DeviceBackend {
    async fn put_all(&self, kind: Kind, records: &[(Arc<str>, Bytes)]) -> Result<()> {
        let records = records.to_vec();
        self.write(move |cells| {
            records.iter().try_for_each(|(address, record)| cells.put(kind, address.as_bytes(), record))
        })
        .await
    }
}

/// A key's number as a name: in this form the names have the order of the numbers.
pub fn number(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

fn number_of(name: &[u8]) -> rusqlite::Result<u32> {
    name.try_into().map(u32::from_be_bytes).map_err(|_| damaged("a key's number has another length"))
}
