//! What the protocol needs beside keys: groups, contacts, devices, tokens, and messages on their way.

use std::collections::HashMap;

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
        error::StoreError,
        key_value::{Batch, Kind, Timed, Write, decode, encode, kept_until, name, prefix},
    },
};

/// The servers of chats with one person, in their addresses.
const DIRECT: [&str; 5] = ["@s.whatsapp.net", "@lid", "@hosted", "@hosted.lid", "@bot"];

#[async_trait]
impl ProtocolStore for DeviceBackend {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let group = prefix(&[group_jid]);
        let devices = self.all(Kind::SenderKeyDevice, &group).await?;
        let readable = |name: Vec<u8>| String::from_utf8_lossy(&name[group.len()..]).into_owned();
        Ok(devices.into_iter().map(|(name, has_key)| (readable(name), has_key == [1])).collect())
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        let put = |(device, has_key): &(&str, bool)| {
            Write::put(Kind::SenderKeyDevice, &name(&[group_jid, device]), &[u8::from(*has_key)])
        };
        self.write(entries.iter().map(put).collect()).await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        self.write(vec![Write::DeleteAll(Kind::SenderKeyDevice, prefix(&[group_jid]))]).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        // The groups are not known; what follows a group in a name is compared. A row that comes meanwhile is of a key that
        // was handed out anew.
        let names = self.all(Kind::SenderKeyDevice, &[]).await?.into_iter().map(|(name, _)| name);
        let theirs = |name: &Vec<u8>| {
            let (length, rest) = name.split_first_chunk().unwrap_or((&[0; 4], &[]));
            let device = rest.get(u32::from_be_bytes(*length) as usize..);
            device.is_some_and(|device| device_jids.iter().any(|known| known.as_bytes() == device))
        };
        let writes: Vec<_> = names.filter(theirs).map(|name| Write::delete(Kind::SenderKeyDevice, &name)).collect();
        if writes.is_empty() { Ok(()) } else { self.write(writes).await }
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        self.write(vec![Write::DeleteAll(Kind::SenderKeyDevice, Vec::new())]).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.get_as(Kind::Lid, lid.as_bytes()).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        // Of several LIDs, the one that was learned last.
        let number = prefix(&[phone]);
        let lids =
            self.all(Kind::Pn, &number).await?.into_iter().map(|(name, _)| (Kind::Lid, name[number.len()..].to_vec()));
        let found = self.get_many(lids.collect()).await?;
        let entries = found.into_iter().flatten().map(|entry| decode(&entry)).collect();
        let entries: Vec<LidPnMappingEntry> = self.checked(async { entries }).await?;
        Ok(entries.into_iter().max_by_key(|entry| entry.updated_at))
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
        let keys = entries.iter().map(|entry| (Kind::Lid, entry.lid.as_bytes().to_vec())).collect();
        let written = self.update(keys, |known| put_mappings(entries, known)).await;
        if linking {
            self.owner.linking().await;
        }
        written
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let entries = self.all(Kind::Lid, &[]).await?;
        self.checked(async { entries.iter().map(|(_, entry)| decode(entry)).collect() }).await
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        self.write(vec![Write::put(Kind::BaseKey, &name(&[address, message_id]), base_key)]).await
    }

    async fn has_same_base_key(&self, address: &str, message_id: &str, current_base_key: &[u8]) -> Result<bool> {
        let saved = self.get(Kind::BaseKey, &name(&[address, message_id])).await?;
        Ok(saved.is_some_and(|saved| saved == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::BaseKey, &name(&[address, message_id]))]).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let put =
            |record: &DeviceListRecord| Ok(Write::put(Kind::DeviceList, record.user.as_bytes(), &encode(record)?));
        let writes = records.iter().map(put).collect();
        self.write(self.checked(async { writes }).await?).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        self.get_as(Kind::DeviceList, user.as_bytes()).await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::DeviceList, user.as_bytes())]).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::Group, group_jid.as_bytes()).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.write(vec![Write::put(Kind::Group, group_jid.as_bytes(), blob)]).await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::Group, group_jid.as_bytes())]).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.get_as(Kind::TcToken, jid.as_bytes()).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let put = self.checked(async { put_tc_token(jid, entry) }).await?;
        self.write(vec![put]).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        self.write(vec![Write::delete(Kind::TcToken, jid.as_bytes())]).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        let tokens = self.all(Kind::TcToken, &[]).await?;
        Ok(tokens.iter().map(|(jid, _)| String::from_utf8_lossy(jid).into_owned()).collect())
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let mut deleted = 0;
        for (jid, value) in self.all(Kind::TcToken, &[]).await? {
            let token: TcTokenEntry = self.checked(async { decode(&value) }).await?;
            let received = !token.token.is_empty() && token.token_timestamp >= token_cutoff;
            if !received && token.sender_timestamp.is_none_or(|at| at < sender_cutoff) {
                // One that was renewed meanwhile stays.
                let writes = vec![Write::delete(Kind::TcToken, &jid)];
                deleted +=
                    u32::from(self.apply(Batch { expected: vec![((Kind::TcToken, jid), Some(value))], writes }).await?);
            }
        }
        Ok(deleted)
    }

    async fn touch_tc_token_sender_timestamp(&self, jid: &str, sender_timestamp: i64) -> Result<()> {
        self.update(vec![(Kind::TcToken, jid.as_bytes().to_vec())], |known| {
            let new = || TcTokenEntry { token: Vec::new(), token_timestamp: sender_timestamp, sender_timestamp: None };
            let mut token = tc_token(known)?.unwrap_or_else(new);
            token.sender_timestamp = token.sender_timestamp.max(Some(sender_timestamp));
            Ok(vec![put_tc_token(jid, &token)?])
        })
        .await
    }

    async fn store_received_tc_token(&self, jid: &str, token: &[u8], token_timestamp: i64) -> Result<()> {
        self.update(vec![(Kind::TcToken, jid.as_bytes().to_vec())], |known| {
            let known = tc_token(known)?;
            if known.as_ref().is_some_and(|known| !known.token.is_empty() && known.token_timestamp > token_timestamp) {
                return Ok(Vec::new());
            }
            let sender_timestamp = known.and_then(|known| known.sender_timestamp);
            Ok(vec![put_tc_token(jid, &TcTokenEntry { token: token.to_vec(), token_timestamp, sender_timestamp })?])
        })
        .await
    }

    async fn store_sent_message(&self, chat_jid: &str, message_id: &str, payload: &[u8]) -> Result<()> {
        let name = name(&[chat_jid, message_id]);
        self.write(vec![Write::put_until(Kind::Sent, &name, payload, Some(self.kept_until()))]).await
    }

    /// The library looks here when a device asks for a message again, after it has acknowledged that: a kill in between
    /// would leave the message unread for good. The session answers such a device by itself, so the library finds
    /// nothing, but for groups. There it takes the message out to put it back in; it stays here meanwhile.
    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        if DIRECT.iter().any(|server| chat_jid.ends_with(server)) {
            return Ok(None);
        }
        self.get(Kind::Sent, &name(&[chat_jid, message_id])).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_sent_messages(&self, _: i64) -> Result<u32> {
        Ok(0)
    }

    async fn store_pending_inbound(&self, chat: &str, sender: &str, id: &str, message: &[u8]) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow { chat, sender, id, message }]).await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let until = Some(self.kept_until());
        let put = |row: &PendingInboundRow<'_>| {
            Write::put_until(Kind::PendingInbound, &name(&[row.chat, row.sender, row.id]), row.message, until)
        };
        self.write(rows.iter().map(put).collect()).await
    }

    /// The library looks here before it acknowledges a message that it has decrypted before. It writes the state of its
    /// ciphers and the messages one after the other: a kill in between leaves a message that is nowhere.
    async fn get_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let pending = self.get(Kind::PendingInbound, &name(&[chat, sender, id])).await?;
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
        let delete =
            |key: &PendingInboundKey<'_>| Write::delete(Kind::PendingInbound, &name(&[key.chat, key.sender, key.id]));
        self.write(keys.iter().map(delete).collect()).await
    }

    /// What has expired is removed for all tenants at once: see `Store::forget_expired`.
    async fn delete_expired_pending_inbound(&self, _: i64) -> Result<u32> {
        Ok(0)
    }
}

/// What writes down which numbers belong to LIDs. When that was first learned stays.
pub fn put_mappings(
    entries: &[LidPnMappingEntry],
    known: &[Option<Timed>],
) -> std::result::Result<Vec<Write>, StoreError> {
    let mut latest: HashMap<&str, LidPnMappingEntry> = HashMap::new();
    for (entry, (known, _)) in entries.iter().zip(known).filter_map(|(entry, known)| Some((entry, known.as_ref()?))) {
        latest.insert(&entry.lid, decode(known)?);
    }
    let mut writes = Vec::new();
    for entry in entries {
        let mut entry_now = entry.clone();
        if let Some(known) = latest.get(&*entry.lid) {
            entry_now.created_at = known.created_at;
            if known.phone_number != entry.phone_number {
                writes.push(Write::delete(Kind::Pn, &name(&[&known.phone_number, &known.lid])));
            }
        }
        writes.push(Write::put(Kind::Lid, entry.lid.as_bytes(), &encode(&entry_now)?));
        writes.push(Write::put(Kind::Pn, &name(&[&entry.phone_number, &entry.lid]), &[]));
        latest.insert(&entry.lid, entry_now);
    }
    Ok(writes)
}

fn tc_token(known: &[Option<Timed>]) -> std::result::Result<Option<TcTokenEntry>, StoreError> {
    known.iter().flatten().next().map(|(token, _)| decode(token)).transpose()
}

fn put_tc_token(jid: &str, token: &TcTokenEntry) -> std::result::Result<Write, StoreError> {
    Ok(Write::put(Kind::TcToken, jid.as_bytes(), &encode(token)?))
}

impl DeviceBackend {
    fn kept_until(&self) -> i64 {
        kept_until(self.clock.now())
    }
}
