//! What the library's clients hold in memory, by their own account, over all sessions.

use whatsapp_rust::wacore::stats::CollectionStats;

use crate::manager::Manager;

/// After how many clients others get a turn.
const STEP: usize = 64;

/// The sums over all clients.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// How many clients there are.
    pub clients: u64,
    /// What each kind of collection holds.
    pub collections: Vec<Collection>,
}

/// What all clients' collections of one kind hold.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// The library's name for it.
    pub name: &'static str,
    /// Entries.
    pub entries: u64,
    /// Bytes, as the library estimates them.
    pub bytes: u64,
}

impl Manager {
    /// Asks every client. It takes its time: a few microseconds and some locks for each.
    pub async fn memory_report(&self) -> MemoryReport {
        let mut sums = MemoryReport::default();
        for (n, session) in self.list(None, usize::MAX).into_iter().enumerate() {
            let Some(client) = session.connection.client() else { continue };
            let report = client.memory_report().await;
            sums.clients += 1;
            sums.add([
                ("device_registry", report.device_registry_cache),
                ("dm_devices", report.dm_devices_memo),
                ("group", report.group_cache),
                ("group_devices", report.group_devices_memo),
                ("history_sync", report.history_sync_tasks),
                ("lid_pn", report.lid_pn_lid_entries),
                ("pn_lid", report.lid_pn_pn_entries),
                ("recent_messages", report.recent_messages),
                ("sender_key_devices", report.sender_key_device_cache),
                ("signal_identities", report.signal_identities),
                ("signal_sender_keys", report.signal_sender_keys),
                ("signal_sessions", report.signal_sessions),
            ]);
            if n % STEP == STEP - 1 {
                tokio::task::yield_now().await;
            }
        }
        sums
    }
}

impl MemoryReport {
    fn add<const N: usize>(&mut self, client: [(&'static str, CollectionStats); N]) {
        self.collections.resize(N, Collection { name: "", entries: 0, bytes: 0 });
        for (sum, (name, stats)) in self.collections.iter_mut().zip(client) {
            sum.name = name;
            sum.entries += stats.entries;
            sum.bytes += stats.bytes;
        }
    }
}
