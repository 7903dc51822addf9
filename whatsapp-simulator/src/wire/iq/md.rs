//! `md`: a companion unlinks itself, or another one.

use wacore_binary::NodeRef;

use super::{Answer, BAD_REQUEST};
use crate::wire::fields::{attr, jid};
use crate::wire::inbound::Session;
use crate::world::address::Address;

pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>) -> Answer {
    let Some(remove) = node.get_optional_child("remove-companion-device") else { return BAD_REQUEST };
    let device = jid(remove, "jid").map_or(session.at.device, |jid| jid.device);
    if device == 0 {
        return Answer::Error(405, "not-allowed");
    }
    // The answer goes out before the connection it may end.
    if device == session.at.device
        && let Some(id) = attr(node, "id")
    {
        session.reply(super::reply(&id, Answer::empty()));
    }
    session.world.unlink_at(Address::new(session.at.account, device));
    Answer::empty()
}
