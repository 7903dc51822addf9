//! A client without an account shows QR codes, or a pairing code, and waits for a phone.

use std::sync::Arc;
use std::time::Duration;

use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;

use super::iq::{Answer, BAD_REQUEST, reply};
use super::pairing::{Said, pair_device, parse};
use crate::world::World;
use crate::world::pairing::Registration;
use crate::world::queue::Link;
use crate::world::stanza::Stanza;

/// An unpaired connection.
pub(crate) struct Unpaired {
    world: Arc<World>,
    link: Link,
}

/// Hands out the refs and sees to it that the connection ends with them.
pub(crate) fn register(world: &Arc<World>, link: &Link, registration: Registration) -> Unpaired {
    let refs = world.register(link, registration);
    link.send(Stanza::Raw(pair_device(&world.next_id(), &refs)));
    tokio::spawn(expire(Arc::clone(world), link.clone()));
    tracing::info!(link = link.id, refs = refs.len(), "a companion waits to be paired");
    Unpaired { world: Arc::clone(world), link: link.clone() }
}

async fn expire(world: Arc<World>, link: Link) {
    let mut wait = world.config.qr_lifetime();
    loop {
        tokio::select! {
            () = link.cut.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if !world.is_pairing(link.id) {
            tracing::info!(link = link.id, "all QR refs have expired");
            link.close(Duration::ZERO);
            return;
        }
        wait = Duration::from_secs(1);
    }
}

impl Unpaired {
    /// Handles one stanza.
    pub(crate) fn handle(&self, node: &NodeRef<'_>) {
        let link = self.link.id;
        let (iq, answer) = match parse(node) {
            Said::Confirmation { iq, identity } => {
                self.world.confirm_pairing(link, &iq, identity);
                return;
            }
            Said::CompanionHello { iq, phone, wrapped } => {
                let answer = self.world.request_code(link, &phone, wrapped).map(|reference| {
                    let reference = NodeBuilder::new("link_code_pairing_ref").bytes(reference).build();
                    Answer::one(
                        NodeBuilder::new("link_code_companion_reg")
                            .attr("stage", "companion_hello")
                            .children([reference])
                            .build(),
                    )
                });
                (iq, answer)
            }
            Said::CompanionFinish { iq, bundle, identity, reference } => {
                let answer = self.world.finish_code(link, &bundle, identity, &reference).map(|()| Answer::empty());
                (iq, answer)
            }
            Said::Ping { iq } => (iq, Some(Answer::empty())),
            Said::Nonsense { iq } => (iq, None),
            Said::Other => return,
        };
        self.link.send(Stanza::Raw(reply(&iq, answer.unwrap_or(BAD_REQUEST))));
    }
}

impl Drop for Unpaired {
    fn drop(&mut self) {
        self.world.unregister(self.link.id);
    }
}
