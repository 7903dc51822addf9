//! The app state: settings and names that an account's devices share.

use std::collections::HashMap;

use whatsapp_rust::{
    async_trait,
    wacore::{
        appstate::{hash::HashState, processor::AppStateMutationMAC},
        store::{
            error::Result,
            traits::{AppStateSyncKey, AppSyncStore},
        },
    },
};

use crate::{
    signal::DeviceBackend,
    store::cells::{Kind, decode, encode, prefix},
};

#[async_trait]
impl AppSyncStore for DeviceBackend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        let key_id = key_id.to_vec();
        self.read(move |cells| cells.get(Kind::SyncKey, &key_id)?.map(|key| decode(&key)).transpose()).await
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let key_id = key_id.to_vec();
        self.write(move |cells| {
            cells.put(Kind::SyncKey, &key_id, &encode(&key)?)?;
            cells.put(Kind::LatestSyncKey, &[], &key_id)
        })
        .await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        let name = name.to_owned();
        self.read(move |cells| {
            cells.get(Kind::Version, name.as_bytes())?.map_or_else(|| Ok(HashState::default()), |state| decode(&state))
        })
        .await
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        let name = name.to_owned();
        self.write(move |cells| cells.put(Kind::Version, name.as_bytes(), &encode(&state)?)).await
    }

    async fn put_mutation_macs(&self, name: &str, _: u64, mutations: &[AppStateMutationMAC]) -> Result<()> {
        let (collection, mutations) = (prefix(&[name]), mutations.to_vec());
        self.write(move |cells| {
            mutations.iter().try_for_each(|mutation| {
                cells.put(Kind::MutationMac, &[&collection, &mutation.index_mac[..]].concat(), &mutation.value_mac)
            })
        })
        .await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        let name = [&prefix(&[name]), index_mac].concat();
        self.read(move |cells| cells.get(Kind::MutationMac, &name)).await
    }

    async fn get_mutation_macs(&self, name: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let (collection, index_macs) = (prefix(&[name]), index_macs.to_vec());
        self.read(move |cells| {
            let mut found = HashMap::with_capacity(index_macs.len());
            for index in index_macs {
                let value = cells.get(Kind::MutationMac, &[&collection, &index[..]].concat())?;
                found.extend(value.map(|value| (index, value)));
            }
            Ok(found)
        })
        .await
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let (collection, index_macs) = (prefix(&[name]), index_macs.to_vec());
        self.write(move |cells| {
            let mut names = index_macs.iter().map(|index| [&collection, &index[..]].concat());
            names.try_for_each(|name| cells.delete(Kind::MutationMac, &name))
        })
        .await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        let collection = prefix(&[name]);
        self.write(move |cells| cells.delete_all(Kind::MutationMac, &collection)).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.read(|cells| cells.get(Kind::LatestSyncKey, &[])).await
    }
}
