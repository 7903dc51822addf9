//! `w:sync:app:state`: reading and adding patches, several collections at a time.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use super::{Answer, BAD_REQUEST};
use crate::wire::fields::{attr, bytes, children};
use crate::wire::inbound::Session;
use crate::world::app_state::{NAMES, Pushed};

pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>) -> Answer {
    let Some(sync) = node.get_optional_child("sync") else { return BAD_REQUEST };
    let collections = children(sync).iter().filter(|c| c.tag == "collection").filter_map(|c| collection(session, c));
    Answer::one(NodeBuilder::new("sync").children(collections.collect::<Vec<_>>()).build())
}

fn collection(session: &Session<'_>, node: &NodeRef<'_>) -> Option<Node> {
    let name = attr(node, "name")?;
    let answer = NodeBuilder::new("collection").attr("name", name.as_str());
    if !NAMES.contains(&name.as_str()) {
        return Some(error(answer, 404, "item-not-found", Vec::new()));
    }
    let since: u64 = attr(node, "version").and_then(|v| v.parse().ok()).unwrap_or_default();
    let Some(patch) = node.get_optional_child("patch").and_then(bytes) else {
        let (version, patches) = session.world.read_collection(session.at, &name, since);
        let answer = answer.attr("version", version);
        return Some(if patches.is_empty() { answer.build() } else { answer.children([patch_list(patches)]).build() });
    };
    Some(match session.world.push_patch(session.at, &name, since, &patch) {
        Pushed::Stored { version } => answer.attr("version", version).build(),
        Pushed::Conflict { patches } => error(answer, 409, "conflict", patches),
        Pushed::Unreadable => error(answer, 400, "bad-request", Vec::new()),
    })
}

fn patch_list(patches: Vec<Vec<u8>>) -> Node {
    let patches = patches.into_iter().map(|patch| NodeBuilder::new("patch").bytes(patch).build());
    NodeBuilder::new("patches").children(patches).build()
}

fn error(collection: NodeBuilder, code: u16, text: &'static str, patches: Vec<Vec<u8>>) -> Node {
    let mut children = vec![NodeBuilder::new("error").attr("code", code).attr("text", text).build()];
    if !patches.is_empty() {
        children.push(patch_list(patches));
    }
    collection.attr("type", "error").children(children).build()
}
