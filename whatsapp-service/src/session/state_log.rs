//! A session's states, on their way to the event log.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::store::{Store, lease::Lease};

/// The states that are not in the event log yet, in order.
pub struct StateLog {
    lease: Lease,
    store: Arc<dyn Store>,
    waiting: Mutex<VecDeque<serde_json::Value>>,
    /// Held by the one who writes them: they stay in order.
    turn: tokio::sync::Mutex<()>,
}

impl StateLog {
    /// None yet.
    pub fn new(lease: Lease, store: Arc<dyn Store>) -> Self {
        Self { lease, store, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Puts a state into the event log, behind all that came before.
    pub fn push(self: &Arc<Self>, state: serde_json::Value) {
        self.waiting.lock().push_back(state);
        let log = self.clone();
        tokio::spawn(async move { log.flush().await });
    }

    /// Resolves when all that came before is in the event log, or can't be put there.
    pub async fn flush(&self) {
        let _turn = self.turn.lock().await;
        loop {
            let Some(state) = self.waiting.lock().pop_front() else { return };
            if let Err(error) = self.store.session_state(&self.lease, state).await {
                let tenant = self.lease.tenant();
                tracing::warn!(%tenant, %error, "a session's state could not be put into the event log");
            }
        }
    }
}
