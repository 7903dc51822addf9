//! Everything that clients like to have answered at login: pings, properties, privacy, and so on. The
//! answers say as little as the clients accept.

use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;

use super::{Answer, NOT_FOUND};
use crate::wire::fields::child_bytes;

/// The privacy settings and their values, as a new account has them.
const PRIVACY: [(&str, &str); 9] = [
    ("last", "all"),
    ("online", "all"),
    ("profile", "all"),
    ("status", "all"),
    ("readreceipts", "all"),
    ("groupadd", "all"),
    ("calladd", "all"),
    ("messages", "all"),
    ("defense", "off"),
];

/// The answer in one of these namespaces; `None` for others.
pub(crate) fn answer(namespace: &str, node: &NodeRef<'_>, set: bool) -> Option<Answer> {
    let has = |tag| node.get_optional_child(tag).is_some();
    Some(match namespace {
        "w:p" | "urn:xmpp:ping" => Answer::empty(),
        "abt" | "w" if has("props") => Answer::one(
            NodeBuilder::new("props")
                .attr("protocol", "1")
                .attr("ab_key", "simulator")
                .attr("hash", "simulator")
                .attr("refresh", 86_400)
                .attr("refresh_id", 1)
                .build(),
        ),
        "blocklist" if !set => Answer::one(NodeBuilder::new("list").build()),
        "privacy" if !set => {
            Answer::one(
                NodeBuilder::new("privacy")
                    .children(PRIVACY.map(|(name, value)| {
                        NodeBuilder::new("category").attr("name", name).attr("value", value).build()
                    }))
                    .build(),
            )
        }
        // Without a picture in a set, it is a removal.
        "w:profile:picture" if set => match child_bytes(node, "picture") {
            Some(_) => Answer::one(NodeBuilder::new("picture").attr("id", 1).build()),
            None => Answer::empty(),
        },
        "w:profile:picture" => NOT_FOUND,
        "w:g2" if has("participating") => Answer::one(NodeBuilder::new("groups").build()),
        "disappearing_mode" if !set => {
            Answer::one(NodeBuilder::new("disappearing_mode").attr("duration", 0).attr("t", 0).build())
        }
        "w:stats" => Answer::empty(),
        _ => return None,
    })
}
