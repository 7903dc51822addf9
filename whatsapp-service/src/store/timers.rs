//! How long the messages of a tenant's chats stay, where WhatsApp shows them for a time only (disappearing messages).
//!
//! It is kept for a linked device, and goes with it.

use serde::{Deserialize, Serialize};

use crate::{
    model::tenant::TenantId,
    store::{
        Store, StoreError,
        cells::{Cells, Kind, decode, encode, name},
        devices::read_live_store,
        tx::Tx,
    },
};

/// How long the messages of a chat stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// In seconds; 0: for ever.
    pub seconds: u32,
    /// When that was decided, in seconds since 1970; 0: nobody said.
    pub set_at: i64,
}

/// The same of one chat, under all names that it goes by.
#[derive(Clone, Debug)]
pub struct ChatTimer {
    /// WhatsApp's addresses of the chat.
    pub chats: Vec<String>,
    /// How long its messages stay.
    pub timer: Timer,
}

impl Store {
    /// How long the messages of a chat stay, by the first of these names that is known.
    pub async fn timer(&self, tenant: &TenantId, chats: Vec<String>) -> Result<Option<Timer>, StoreError> {
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

    /// Whether any of a tenant's chats has a timer, or had one.
    pub async fn has_timers(&self, tenant: &TenantId) -> Result<bool, StoreError> {
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
