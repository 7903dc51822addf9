//! Chats whose messages disappear after a time: the timer is learnt from what comes in, and goes with what is sent. Phones
//! warn of a message that does not carry it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    model::tenant::TenantId,
    store::{Store, error::StoreError, timers::Timer},
};

/// Which of a session's chats have a timer.
pub struct Timers {
    tenant: TenantId,
    store: Arc<dyn Store>,
    /// Whether any has, once that is known.
    any: Mutex<Option<bool>>,
}

impl Timers {
    /// Nothing is known yet.
    pub fn new(tenant: TenantId, store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { tenant, store, any: Mutex::default() })
    }

    /// Another account is linked: nothing is known of its chats.
    pub fn forget(&self) {
        *self.any.lock() = None;
    }

    /// How long the messages of a chat stay, where they don't stay for ever. `chats` are its addresses; they are asked for
    /// only where it is needed: most tenants have no such chat.
    pub(crate) async fn of<F: Future<Output = Vec<String>>>(
        &self,
        chats: impl FnOnce() -> F,
    ) -> Result<Option<Timer>, StoreError> {
        let known = *self.any.lock();
        let has_timers = match known {
            Some(has_timers) => has_timers,
            None => {
                let has_timers = self.store.has_timers(&self.tenant).await?;
                self.any.lock().get_or_insert(has_timers);
                has_timers
            }
        };
        if !has_timers {
            return Ok(None);
        }
        match self.store.timer(&self.tenant, chats().await).await {
            // It will not be better later, and the message is to go.
            Err(StoreError::Damaged(_)) => Ok(None),
            timer => Ok(timer?.filter(|timer| timer.seconds > 0)),
        }
    }

    /// Some chat has a timer from now on.
    pub(crate) fn learn(&self) {
        *self.any.lock() = Some(true);
    }
}
