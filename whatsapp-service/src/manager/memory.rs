//! What the library's clients hold in memory, by their own account, over all sessions.

use crate::{manager::Manager, whatsapp::client::Collection};

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

impl Manager {
    /// Asks every client. It takes its time: a few microseconds and some locks for each.
    pub async fn memory_report(&self) -> MemoryReport {
        let mut sums = MemoryReport::default();
        for (n, session) in self.list(None, usize::MAX).into_iter().enumerate() {
            let Some(client) = session.connection.client() else { continue };
            sums.clients += 1;
            sums.add(client.memory().await);
            if n % STEP == STEP - 1 {
                tokio::task::yield_now().await;
            }
        }
        sums
    }
}

impl MemoryReport {
    fn add<const N: usize>(&mut self, client: [Collection; N]) {
        self.collections.resize(N, Collection { name: "", entries: 0, bytes: 0 });
        for (sum, of_client) in self.collections.iter_mut().zip(client) {
            sum.name = of_client.name;
            sum.entries += of_client.entries;
            sum.bytes += of_client.bytes;
        }
    }
}
