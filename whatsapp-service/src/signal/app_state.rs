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
    store::key_value::{Kind, Write, encode, prefix},
};

#[async_trait]
impl AppSyncStore for DeviceBackend {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        self.get_as(Kind::SyncKey, key_id).await
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        let key = self.checked(async { encode(&key) }).await?;
        self.write(vec![Write::put(Kind::SyncKey, key_id, &key), Write::put(Kind::LatestSyncKey, &[], key_id)]).await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        Ok(self.get_as(Kind::Version, name.as_bytes()).await?.unwrap_or_default())
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        let state = self.checked(async { encode(&state) }).await?;
        self.write(vec![Write::put(Kind::Version, name.as_bytes(), &state)]).await
    }

    async fn put_mutation_macs(&self, name: &str, _: u64, mutations: &[AppStateMutationMAC]) -> Result<()> {
        let collection = prefix(&[name]);
        let put = |mutation: &AppStateMutationMAC| {
            Write::put(Kind::MutationMac, &[&collection, &mutation.index_mac[..]].concat(), &mutation.value_mac)
        };
        self.write(mutations.iter().map(put).collect()).await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(Kind::MutationMac, &[&prefix(&[name]), index_mac].concat()).await
    }

    async fn get_mutation_macs(&self, name: &str, index_macs: &[[u8; 32]]) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let collection = prefix(&[name]);
        let keys = index_macs.iter().map(|index| (Kind::MutationMac, [&collection, &index[..]].concat())).collect();
        let found = self.get_many(keys).await?;
        Ok(index_macs.iter().zip(found).filter_map(|(index, value)| Some((*index, value?))).collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let collection = prefix(&[name]);
        let delete = |index: &Vec<u8>| Write::delete(Kind::MutationMac, &[&collection, &index[..]].concat());
        self.write(index_macs.iter().map(delete).collect()).await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        self.write(vec![Write::DeleteAll(Kind::MutationMac, prefix(&[name]))]).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.get(Kind::LatestSyncKey, &[]).await
    }
}
