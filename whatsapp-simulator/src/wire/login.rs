//! A client with an account logs in and stays.

use std::sync::Arc;

use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;

use super::inbound::{Session, Then};
use super::outbound::{failure, info, success};
use crate::world::address::Address;
use crate::world::faults::FaultKind;
use crate::world::queue::Link;
use crate::world::stanza::Stanza;
use crate::world::{Login, Phone, Sent, World, now};

/// What a client sends back on its next connection, in front of the handshake.
const ROUTING_INFO: &[u8] = &[0x08, 0x02, 0x08, 0x05];

/// A logged-in connection.
pub(crate) struct LoggedIn {
    world: Arc<World>,
    pub(crate) at: Address,
    pub(crate) phone: Phone,
    link: Link,
    host: Option<Arc<str>>,
}

/// Logs in. `None` means that the client was turned down and told so, if it is told at all.
pub(crate) fn log_in(
    world: &Arc<World>,
    link: &Link,
    host: Option<Arc<str>>,
    username: u64,
    device: u16,
    noise_key: [u8; 32],
    ik: bool,
) -> Option<LoggedIn> {
    match world.login(username, device, noise_key, link, ik) {
        Login::Welcome { at, phone, lid, created } => {
            link.send(Stanza::Raw(success(&lid, created, now())));
            let routing = NodeBuilder::new("routing_info").bytes(ROUTING_INFO).build();
            link.send(Stanza::Raw(info(NodeBuilder::new("edge_routing").children([routing]).build())));
            if world.trouble(&phone, link) == Sent::Nothing
                && world.faults.take(Some(&phone), |k| (*k == FaultKind::SilentSuccess).then_some(())).is_some()
            {
                link.silence();
            }
            tracing::info!(link = link.id, phone = phone.masked(), device, ik, "logged in");
            Some(LoggedIn { world: Arc::clone(world), at, phone, link: link.clone(), host })
        }
        Login::Refused(reason) => {
            tracing::info!(link = link.id, reason = reason.reason, "login refused");
            link.send(Stanza::Raw(failure(reason)));
            link.close(std::time::Duration::from_millis(50));
            None
        }
        Login::Cut => {
            link.cut.cancel();
            None
        }
    }
}

impl LoggedIn {
    /// Handles one stanza, unless the server has fallen silent.
    pub(crate) fn handle(&self, node: &NodeRef<'_>) {
        if self.link.is_silent() {
            return;
        }
        let session = Session { world: &self.world, at: self.at, link: &self.link, host: self.host.as_deref() };
        if session.handle(node) == Then::WatchBacklog {
            tokio::spawn(watch_backlog(Arc::clone(&self.world), self.at, self.link.clone()));
        }
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.world.logout(self.at, self.link.id);
    }
}

/// Delivers a backlog to a client that does not ask for it, as older ones don't: as much as the connection takes, and as
/// long as the client does not ask, some more each time.
async fn watch_backlog(world: Arc<World>, at: Address, link: Link) {
    let patience = world.config.offline_batch_timeout;
    let mut before = world.backlog_requests(at);
    loop {
        tokio::select! {
            () = link.cut.cancelled() => return,
            () = tokio::time::sleep(patience) => {}
        }
        if world.backlog_requests(at) == before {
            world.request_batch(at, usize::MAX);
        }
        before = world.backlog_requests(at);
        if before.is_none() {
            return;
        }
    }
}
