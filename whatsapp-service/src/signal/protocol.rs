//! What the protocol needs beside keys: groups, contacts, devices, tokens, and messages on their way.

use whatsapp_rust::{
    async_trait,
    wacore::{
        store::{
            error::{Result, StoreError as LibraryError},
            traits::{
                DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore, TcTokenEntry,
            },
        },
        types::LearningSource,
    },
};

use crate::{
    signal::DeviceBackend,
    store::{
        cells::{Cells, Kind, decode, encode, kept_until, name, prefix},
        people,
    },
};

/// The servers of chats with one person, in their addresses.
const DIRECT: [&str; 5] = ["@s.whatsapp.net", "@lid", "@hosted", "@hosted.lid", "@bot"];

#[async_trait]
impl ProtocolStore for DeviceBackend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let group = prefix(&[group_jid]);
        self.read(move |cells| {
            let devices = cells.all(Kind::SenderKeyDevice, &group)?;
            let readable = |name: Vec<u8>| String::from_utf8_lossy(&name[group.len()..]).into_owned();
            Ok(devices.into_iter().map(|(name, has_key)| (readable(name), has_key == [1])).collect())
        })
        .await
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let entries: Vec<_> = entries.iter().map(|(device, has_key)| (name(&[group_jid, device]), *has_key)).collect();
        self.write(move |cells| {
            let mut entries = entries.iter();
            entries.try_for_each(|(name, has_key)| cells.put(Kind::SenderKeyDevice, name, &[u8::from(*has_key)]))
        })
        .await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        let group = prefix(&[group_jid]);
        self.write(move |cells| cells.delete_all(Kind::SenderKeyDevice, &group)).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        // The groups are not known; what follows a group in a name is compared.
        let devices: Vec<_> = device_jids.iter().map(|jid| jid.as_bytes().to_vec()).collect();
        self.write(move |cells| {
            let names = cells.all(Kind::SenderKeyDevice, &[])?.into_iter().map(|(name, _)| name);
            let theirs = |name: &Vec<u8>| {
                let (length, rest) = name.split_first_chunk().unwrap_or((&[0; 4], &[]));
                let device = rest.get(u32::from_be_bytes(*length) as usize..);
                device.is_some_and(|device| devices.iter().any(|known| known == device))
            };
            names.filter(theirs).try_for_each(|name| cells.delete(Kind::SenderKeyDevice, &name))
        })
        .await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.write(|cells| cells.delete_all(Kind::SenderKeyDevice, &[])).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        let lid = lid.to_owned();
        self.read(move |cells| people::by_lid(cells, &lid)).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let phone = phone.to_owned();
        self.read(move |cells| people::by_number(cells, &phone)).await
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // The library writes the account's own mapping right before it confirms a link to the phone, and the link itself
        // after that (its pair.rs): a kill in between would leave a device on the phone that nobody has.
        let linking = entries.iter().any(|entry| entry.learning_source == LearningSource::Pairing.as_str());
        let entries = entries.to_vec();
        let written =
            self.write(move |cells| entries.into_iter().try_for_each(|entry| put_mapping(cells, entry))).await;
        if linking {
            self.owner.linking().await;
        }
        written
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        self.read(|cells| cells.all(Kind::Lid, &[])?.iter().map(|(_, entry)| decode(entry)).collect()).await
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        let (name, base_key) = (name(&[address, message_id]), base_key.to_vec());
        self.write(move |cells| cells.put(Kind::BaseKey, &name, &base_key)).await
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current_base_key: &[u8]) -> Result<bool> {
        let name = name(&[address, message_id]);
        let saved = self.read(move |cells| cells.get(Kind::BaseKey, &name)).await?;
        Ok(saved.is_some_and(|saved| saved == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        let name = name(&[address, message_id]);
        self.write(move |cells| cells.delete(Kind::BaseKey, &name)).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        self.write(move |cells| {
            records.iter().try_for_each(|record| cells.put(Kind::DeviceList, record.user.as_bytes(), &encode(record)?))
        })
        .await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        let user = user.to_owned();
        self.read(move |cells| cells.get(Kind::DeviceList, user.as_bytes())?.map(|list| decode(&list)).transpose())
            .await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        let user = user.to_owned();
        self.write(move |cells| cells.delete(Kind::DeviceList, user.as_bytes())).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        let group = group_jid.to_owned();
        self.read(move |cells| cells.get(Kind::Group, group.as_bytes())).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        let (group, blob) = (group_jid.to_owned(), blob.to_vec());
        self.write(move |cells| cells.put(Kind::Group, group.as_bytes(), &blob)).await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        let group = group_jid.to_owned();
        self.write(move |cells| cells.delete(Kind::Group, group.as_bytes())).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        let jid = jid.to_owned();
        self.read(move |cells| tc_token(cells, &jid)).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let (jid, entry) = (jid.to_owned(), entry.clone());
        self.write(move |cells| put_tc_token(cells, &jid, &entry)).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        let jid = jid.to_owned();
        self.write(move |cells| cells.delete(Kind::TcToken, jid.as_bytes())).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        self.read(|cells| {
            let tokens = cells.all(Kind::TcToken, &[])?;
            Ok(tokens.iter().map(|(jid, _)| String::from_utf8_lossy(jid).into_owned()).collect())
        })
        .await
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        self.write(move |cells| {
            let mut deleted = 0;
            for (jid, token) in cells.all(Kind::TcToken, &[])? {
                let token: TcTokenEntry = decode(&token)?;
                let received = !token.token.is_empty() && token.token_timestamp >= token_cutoff;
                if !received && token.sender_timestamp.is_none_or(|at| at < sender_cutoff) {
                    cells.delete(Kind::TcToken, &jid)?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
        .await
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        let jid = jid.to_owned();
        self.write(move |cells| {
            let new = || TcTokenEntry { token: Vec::new(), token_timestamp: sender_timestamp, sender_timestamp: None };
            let mut token = tc_token(cells, &jid)?.unwrap_or_else(new);
            token.sender_timestamp = token.sender_timestamp.max(Some(sender_timestamp));
            put_tc_token(cells, &jid, &token)
        })
        .await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        let (jid, token) = (jid.to_owned(), token.to_vec());
        self.write(move |cells| {
            let known = tc_token(cells, &jid)?;
            if known.as_ref().is_some_and(|known| !known.token.is_empty() && known.token_timestamp > token_timestamp) {
                return Ok(());
            }
            let sender_timestamp = known.and_then(|known| known.sender_timestamp);
            put_tc_token(cells, &jid, &TcTokenEntry { token, token_timestamp, sender_timestamp })
        })
        .await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        let (name, payload, until) = (name(&[chat_jid, message_id]), payload.to_vec(), Some(self.kept_until()));
        self.write(move |cells| cells.put_until(Kind::Sent, &name, &payload, until)).await
    }

    /// The library looks here when a device asks for a message again, after it has acknowledged that: a kill in between
    /// would leave the message unread for good. The session answers such a device by itself, so the library finds
    /// nothing, but for groups. There it takes the message out to put it back in; it stays here meanwhile.
    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let name = name(&[chat_jid, message_id]);
        if DIRECT.iter().any(|server| chat_jid.ends_with(server)) {
            return Ok(None);
        }
        self.read(move |cells| cells.get(Kind::Sent, &name)).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_sent_messages(&self, _: i64) -> Result<u32> {
        Ok(0)
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow { chat, sender, id, message }]).await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let rows: Vec<_> =
            rows.iter().map(|row| (name(&[row.chat, row.sender, row.id]), row.message.to_vec())).collect();
        let until = Some(self.kept_until());
        self.write(move |cells| {
            let mut rows = rows.iter();
            rows.try_for_each(|(name, message)| cells.put_until(Kind::PendingInbound, name, message, until))
        })
        .await
    }

    /// The library looks here before it acknowledges a message that it has decrypted before. It writes the state of its
    /// ciphers and the messages one after the other: a kill in between leaves a message that is nowhere.
    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let name = name(&[chat, sender, id]);
        let pending = self.read(move |cells| cells.get(Kind::PendingInbound, &name)).await?;
        if pending.is_none() && self.owner.recall([chat, sender, id].map(str::to_owned)).await {
            // Without an answer the library leaves the message unacknowledged.
            return Err(LibraryError::Io(std::io::Error::other("the message has to be sent again")));
        }
        Ok(pending)
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.delete_pending_inbound_batch(&[PendingInboundKey { chat, sender, id }]).await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let names: Vec<_> = keys.iter().map(|key| name(&[key.chat, key.sender, key.id])).collect();
        self.write(move |cells| names.iter().try_for_each(|name| cells.delete(Kind::PendingInbound, name))).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_pending_inbound(&self, _: i64) -> Result<u32> {
        Ok(0)
    }
}

/// Writes down which number belongs to a LID. When that was first learned stays.
pub fn put_mapping(cells: &Cells<'_>, mut entry: LidPnMappingEntry) -> rusqlite::Result<()> {
    if let Some(known) = cells.get(Kind::Lid, entry.lid.as_bytes())? {
        let known: LidPnMappingEntry = decode(&known)?;
        entry.created_at = known.created_at;
        if known.phone_number != entry.phone_number {
            cells.delete(Kind::Pn, &name(&[&known.phone_number, &known.lid]))?;
        }
    }
    cells.put(Kind::Lid, entry.lid.as_bytes(), &encode(&entry)?)?;
    cells.put(Kind::Pn, &name(&[&entry.phone_number, &entry.lid]), &[])
}

fn tc_token(cells: &Cells<'_>, jid: &str) -> rusqlite::Result<Option<TcTokenEntry>> {
    cells.get(Kind::TcToken, jid.as_bytes())?.map(|token| decode(&token)).transpose()
}

fn put_tc_token(cells: &Cells<'_>, jid: &str, token: &TcTokenEntry) -> rusqlite::Result<()> {
    cells.put(Kind::TcToken, jid.as_bytes(), &encode(token)?)
}

impl DeviceBackend {
    fn kept_until(&self) -> i64 {
        kept_until(self.store.clock().now())
    }
}
