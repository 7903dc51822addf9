//! Chats whose messages disappear after a time: the timer is learnt from what comes in, and goes with what is sent. Phones
//! warn of a message that does not carry it.

use std::sync::Arc;

use parking_lot::Mutex;
use whatsapp_rust::{Client, Jid};

use crate::{
    model::tenant::TenantId,
    store::{Store, StoreError, timers::Timer},
};

/// Which of a session's chats have a timer.
pub struct Timers {
    tenant: TenantId,
    store: Arc<Store>,
    /// Whether any has, once that is known.
    any: Mutex<Option<bool>>,
}

impl Timers {
    /// Nothing is known yet.
    pub fn new(tenant: TenantId, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { tenant, store, any: Mutex::default() })
    }

    /// Another account is linked: nothing is known of its chats.
    pub fn forget(&self) {
        *self.any.lock() = None;
    }

    /// How long the messages of the chat with this person stay, where they don't stay for ever.
    pub(crate) async fn of(&self, client: &Client, chat: &Jid) -> Result<Option<Timer>, StoreError> {
        let (store, tenant) = (&self.store, &self.tenant);
        let known = *self.any.lock();
        // Most tenants have no such chat.
        let has_timers = match known {
            Some(has_timers) => has_timers,
            None => {
                let has_timers = store.has_timers(tenant).await?;
                self.any.lock().get_or_insert(has_timers);
                has_timers
            }
        };
        if !has_timers {
            return Ok(None);
        }
        let other = client.get_lid_pn_entry(chat).await.ok().flatten();
        let others = other.map(|entry| [Jid::lid(&*entry.lid), Jid::pn(&*entry.phone_number)]);
        let chats = std::iter::once(chat.clone()).chain(others.into_iter().flatten());
        let timer = store.timer(tenant, chats.map(|chat| chat.to_non_ad_string()).collect()).await;
        match timer {
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
