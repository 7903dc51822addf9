//! How long the messages of a tenant's chats stay, where WhatsApp shows them for a time only (disappearing messages).
//!
//! It is kept for a linked device, and goes with it.

use crate::{
    model::tenant::TenantId,
    store::{
        error::StoreError,
        key_value::{Kind, name},
        sqlite::{
            SqliteStore,
            cells::{Cells, decode, encode},
            devices::read_live_store,
            tx::Tx,
        },
        timers::{ChatTimer, Timer, Timers},
    },
};
use async_trait::async_trait;

#[async_trait]
impl Timers for SqliteStore {
    async fn timer(&self, tenant: &TenantId, chats: Vec<String>) -> Result<Option<Timer>, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| {
            let Some(store) = read_live_store(connection, &tenant)? else { return Ok(None) };
            let cells = Cells::of(connection, &seal, store);
            for chat in &chats {
                if let Some(value) = cells.get(Kind::Timer, &name(&[chat]))? {
                    return decode(&value).map(Some);
                }
            }
            Ok(None)
        })
        .await
    }

    async fn has_timers(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        let (tenant, seal) = (tenant.clone(), self.seal.clone());
        self.read(move |connection| match read_live_store(connection, &tenant)? {
            Some(store) => Cells::of(connection, &seal, store).has_any(Kind::Timer, &[]),
            None => Ok(false),
        })
        .await
    }
}

impl Tx<'_> {
    /// Remembers how long the messages of a chat stay, unless something newer is known of it. A tenant whose device is
    /// gone remembers nothing.
    pub fn learn_timer(&self, tenant: &TenantId, ChatTimer { chats, timer }: &ChatTimer) -> rusqlite::Result<()> {
        let Some(store) = self.live_store(tenant)? else { return Ok(()) };
        let cells = self.cells(store)?;
        for chat in chats {
            let known = cells.get(Kind::Timer, &name(&[chat]))?;
            // What can't be read any more is as good as unknown.
            let known = known.and_then(|value| decode::<Timer>(&value).ok());
            if known.is_none_or(|known| known.set_at <= timer.set_at && known != *timer) {
                cells.put(Kind::Timer, &name(&[chat]), &encode(timer)?)?;
            }
        }
        Ok(())
    }
}
