//! A client of the library, as the rest of the service uses it.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use whatsapp_rust::{
    Jid,
    pair_code::PairCodeOptions,
    wacore::{
        iq::{devices::RemoveCompanionDeviceSpec, keepalive::KeepaliveSpec},
        stats::CollectionStats,
    },
};

use crate::model::address::number::Number;

/// A running client. It is used for one connection.
#[derive(Clone)]
pub struct Client(Arc<whatsapp_rust::Client>);

/// Where media can be brought and fetched.
pub struct MediaHosts {
    /// What the hosts want to be shown.
    pub auth: String,
    /// Their names, the best one first.
    pub hosts: Vec<String>,
}

/// What a client's collections of one kind hold.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// The library's name for it.
    pub name: &'static str,
    /// Entries.
    pub entries: u64,
    /// Bytes, as the library estimates them.
    pub bytes: u64,
}

impl Client {
    /// Wraps the library's.
    pub(in crate::whatsapp) fn new(client: Arc<whatsapp_rust::Client>) -> Self {
        Self(client)
    }

    /// The library's own.
    pub(in crate::whatsapp) fn library(&self) -> &Arc<whatsapp_rust::Client> {
        &self.0
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Whether WhatsApp has accepted the login.
    pub fn is_logged_in(&self) -> bool {
        self.0.is_logged_in()
    }

    /// The account's number, once it is linked.
    pub fn phone(&self) -> Option<String> {
        self.0.pn().map(|jid| jid.user.to_string())
    }

    /// The account's display name.
    pub fn push_name(&self) -> String {
        self.0.push_name()
    }

    /// Ends the connection.
    pub async fn disconnect(&self) {
        self.0.disconnect().await;
    }

    /// Writes the device down.
    ///
    /// # Errors
    /// The disk did not take it.
    pub async fn flush(&self) -> Result<(), String> {
        self.0.persistence_manager().flush().await.map_err(|error| error.to_string())
    }

    /// Writes down the keys that have changed.
    ///
    /// # Errors
    /// The disk did not take them.
    pub async fn flush_keys(&self) -> Result<(), String> {
        self.0.flush_pending_signal_state().await.map_err(|error| error.to_string())
    }

    /// Whether the library has stopped writing the device down: it does after many failures, and tells nobody.
    pub fn has_stopped_saving(&self) -> bool {
        self.0.persistence_manager().is_saver_halted()
    }

    /// Asks for a pairing code. It arrives as an event, and so does a refusal.
    pub fn request_code(&self, phone: &Number) {
        let (client, phone_number) = (self.0.clone(), phone.digits().into());
        tokio::spawn(async move {
            let _ = client.pair_with_code(PairCodeOptions { phone_number, ..PairCodeOptions::default() }).await;
        });
    }

    /// The person saw the same code on the phone.
    ///
    /// # Errors
    /// The library can't go on.
    pub async fn confirm_passkey(&self) -> Result<(), String> {
        self.0.send_passkey_confirmation().await.map_err(|error| error.to_string())
    }

    /// Whether WhatsApp answers on this connection within so long.
    pub async fn answers_within(&self, limit: Duration) -> bool {
        let answer = self.0.execute(KeepaliveSpec::with_timeout(limit));
        matches!(timeout(limit, answer).await, Ok(Ok(())))
    }

    /// Ends the link at the server, and says whether the server confirmed that within so long. The library's own `logout`
    /// keeps to itself whether the server heard it. `None` if there is no link.
    pub async fn unlink(&self, limit: Duration) -> Option<bool> {
        let jid = self.0.pn()?;
        Some(matches!(timeout(limit, self.0.execute(RemoveCompanionDeviceSpec::new(&jid))).await, Ok(Ok(()))))
    }

    /// Where media can be brought and fetched; `fresh` asks the server anew.
    ///
    /// # Errors
    /// WhatsApp names no host: why.
    pub async fn media_hosts(&self, fresh: bool) -> Result<MediaHosts, String> {
        let known = self.0.refresh_media_conn(fresh).await.map_err(|error| error.to_string())?;
        let hosts = known.hosts.iter().map(|host| host.hostname.to_string()).collect();
        Ok(MediaHosts { auth: known.auth.to_string(), hosts })
    }

    /// What it holds in memory, by its own account. It takes a few microseconds and some locks.
    pub async fn memory(&self) -> [Collection; 12] {
        let report = self.0.memory_report().await;
        let of = |name, stats: CollectionStats| Collection { name, entries: stats.entries, bytes: stats.bytes };
        [
            of("device_registry", report.device_registry_cache),
            of("dm_devices", report.dm_devices_memo),
            of("group", report.group_cache),
            of("group_devices", report.group_devices_memo),
            of("history_sync", report.history_sync_tasks),
            of("lid_pn", report.lid_pn_lid_entries),
            of("pn_lid", report.lid_pn_pn_entries),
            of("recent_messages", report.recent_messages),
            of("sender_key_devices", report.sender_key_device_cache),
            of("signal_identities", report.signal_identities),
            of("signal_sender_keys", report.signal_sender_keys),
            of("signal_sessions", report.signal_sessions),
        ]
    }

    /// The account's own addresses, as far as they are known.
    pub(in crate::whatsapp) fn own(&self) -> [Option<Jid>; 2] {
        [self.0.pn(), self.0.lid()]
    }

    /// The addresses of a chat with one person: by number and by LID, as far as they are known.
    pub(in crate::whatsapp) async fn addresses(&self, chat: &Jid) -> Vec<String> {
        let other = self.0.get_lid_pn_entry(chat).await.ok().flatten();
        let others = other.map(|entry| [Jid::lid(&*entry.lid), Jid::pn(&*entry.phone_number)]);
        let chats = std::iter::once(chat.clone()).chain(others.into_iter().flatten());
        chats.map(|chat| chat.to_non_ad_string()).collect()
    }
}
