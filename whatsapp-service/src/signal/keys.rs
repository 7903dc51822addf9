//! Keys and ratchets.

use std::sync::Arc;

use whatsapp_rust::{
    async_trait,
    bytes::Bytes,
    wacore::store::{error::Result, traits::SignalStore},
};

use crate::{
    signal::DeviceBackend,
    store::{
        error::StoreError,
        key_value::{Kind, Write},
    },
};

#[async_trait]
impl SignalStore for DeviceBackend {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.write(vec![Write::put(Kind::Identity, address.as_bytes(), &key)]).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        let put = |(address, key): &(Arc<str>, [u8; 32])| Write::put(Kind::Identity, address.as_bytes(), key);
        self.write(identities.iter().map(put).collect()).await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let key = self.get(Kind::Identity, address.as_bytes()).await?;
        let whole =
            key.map(|key| key.try_into().map_err(|_| damaged("an identity key has another length"))).transpose();
        self.checked(async { whole }).await
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::Identity, address.as_bytes())]).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        Ok(self.get(Kind::Session, address.as_bytes()).await?.map(Bytes::from))
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.put_sessions_batch(&[(address.into(), Bytes::copy_from_slice(session))]).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put_all(Kind::Session, sessions).await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::Session, address.as_bytes())]).await
    }

    async fn has_session(&self, address: &str) -> Result<bool> {
        Ok(self.get(Kind::Session, address.as_bytes()).await?.is_some())
    }

    async fn has_signal_state_for_user(&self, user: &str) -> Result<bool> {
        // An address is `user@server`, or `user:device@server`.
        for prefix in ["@", ":"].map(|sign| format!("{user}{sign}")) {
            for kind in [Kind::Session, Kind::Identity] {
                if self.checked(self.values.has_any(kind, prefix.clone().into_bytes())).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        self.store_prekeys_batch(&[(id, Bytes::copy_from_slice(record))], uploaded).await
    }

    // Whether a key was uploaded is told, and never asked for.
    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _: bool) -> Result<()> {
        self.write(keys.iter().map(|(id, record)| Write::put(Kind::PreKey, &number(*id), record)).collect()).await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        Ok(self.get(Kind::PreKey, &number(id)).await?.map(Bytes::from))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let found = self.get_many(ids.iter().map(|id| (Kind::PreKey, number(*id).to_vec())).collect()).await?;
        Ok(ids.iter().zip(found).filter_map(|(id, record)| Some((*id, Bytes::from(record?)))).collect())
    }

    async fn mark_prekeys_uploaded(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        self.write(vec![Write::delete(Kind::PreKey, &number(id))]).await
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        self.checked(async { self.values.last_name(Kind::PreKey).await?.map_or(Ok(0), |name| number_of(&name)) }).await
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.write(vec![Write::put(Kind::SignedPreKey, &number(id), record)]).await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SignedPreKey, &number(id)).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let keys = self.all(Kind::SignedPreKey, &[]).await?;
        let numbered = keys.into_iter().map(|(name, record)| Ok((number_of(&name)?, record))).collect();
        self.checked(async { numbered }).await
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.write(vec![Write::delete(Kind::SignedPreKey, &number(id))]).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.put_sender_keys_batch(&[(address.into(), Bytes::copy_from_slice(record))]).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put_all(Kind::SenderKey, sender_keys).await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SenderKey, address.as_bytes()).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::SenderKey, address.as_bytes())]).await
    }
}

impl DeviceBackend {
    async fn put_all(&self, kind: Kind, records: &[(Arc<str>, Bytes)]) -> Result<()> {
        let put = |(address, record): &(Arc<str>, Bytes)| Write::put(kind, address.as_bytes(), record);
        self.write(records.iter().map(put).collect()).await
    }
}

/// A key's number as a name: in this form the names have the order of the numbers.
pub fn number(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

fn number_of(name: &[u8]) -> std::result::Result<u32, StoreError> {
    name.try_into().map(u32::from_be_bytes).map_err(|_| damaged("a key's number has another length"))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.into())
}
