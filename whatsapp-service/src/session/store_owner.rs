//! What a device's store asks of the session that runs the device.

use crate::session::Session;
use std::sync::Weak;

use async_trait::async_trait;

use crate::{signal::owner::Owner, whatsapp::inbound::Receiver};

/// Who stands behind the store of a session's device.
pub struct StoreOwner(pub Weak<Session>);

#[async_trait]
impl Owner for StoreOwner {
    async fn recall(&self, identity: [String; 3]) -> bool {
        match self.0.upgrade() {
            Some(session) => session.inbox().is_lost(identity).await,
            None => false,
        }
    }

    async fn linking(&self) {
        if let Some(session) = self.0.upgrade() {
            session.linking().await;
        }
    }

    fn damaged(&self, why: &str) {
        if let Some(session) = self.0.upgrade() {
            session.report_damage(why);
        }
    }
}
