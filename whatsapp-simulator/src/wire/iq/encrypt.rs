//! `encrypt`: the server's store of public keys.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use super::{Answer, BAD_REQUEST, NOT_FOUND};
use crate::wire::fields::{child_key, child_number, children, jid};
use crate::wire::inbound::Session;
use crate::wire::retry::{bundle_children, signed_prekey};
use crate::world::keys::Bundle;

/// The type of all keys: Curve25519 in Signal's numbering.
const KEY_TYPE: [u8; 1] = [5];

pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>, set: bool) -> Answer {
    if set {
        return match node.get_optional_child("rotate") {
            Some(rotate) => rotate_key(session, rotate),
            None => upload(session, node),
        };
    }
    if let Some(key) = node.get_optional_child("key") {
        return fetch(session, key);
    }
    if node.get_optional_child("count").is_some() {
        let count = session.world.with_keys(session.at, |keys| keys.count()).unwrap_or_default();
        return Answer::one(NodeBuilder::new("count").attr("value", count).build());
    }
    if node.get_optional_child("digest").is_some() {
        return digest(session);
    }
    BAD_REQUEST
}

fn upload(session: &Session<'_>, node: &NodeRef<'_>) -> Answer {
    let identity = child_key(node, "identity");
    let signed = node.get_optional_child("skey").and_then(signed_prekey);
    let (Some(identity), Some(signed)) = (identity, signed) else { return BAD_REQUEST };
    let list = node.get_optional_child("list").map(children).unwrap_or_default();
    let prekeys = list.iter().filter_map(|key| Some((child_number(key, "id")?, child_key(key, "value")?)));
    if session.world.upload_keys(session.at, identity, signed, prekeys.collect()) {
        Answer::empty()
    } else {
        Answer::Error(406, "not-acceptable")
    }
}

fn rotate_key(session: &Session<'_>, rotate: &NodeRef<'_>) -> Answer {
    let Some(signed) = rotate.get_optional_child("skey").and_then(signed_prekey) else { return BAD_REQUEST };
    session.world.with_keys(session.at, |keys| keys.signed_prekey = signed);
    Answer::empty()
}

fn fetch(session: &Session<'_>, key: &NodeRef<'_>) -> Answer {
    let users = children(key).iter().filter_map(|user| {
        let device = jid(user, "jid")?;
        let entry = NodeBuilder::new("user").attr("jid", &device);
        Some(match session.world.take_bundle(&device) {
            Some(bundle) => entry.children(user_children(&bundle)).build(),
            None => entry
                .children([NodeBuilder::new("error").attr("code", 406).attr("text", "not-acceptable").build()])
                .build(),
        })
    });
    Answer::one(NodeBuilder::new("list").children(users.collect::<Vec<_>>()).build())
}

fn user_children(bundle: &Bundle) -> Vec<Node> {
    let mut children = vec![
        NodeBuilder::new("registration").bytes(bundle.registration_id.to_be_bytes()).build(),
        NodeBuilder::new("type").bytes(KEY_TYPE).build(),
    ];
    children.extend(bundle_children(bundle));
    children
}

fn digest(session: &Session<'_>) -> Answer {
    let digest = session.world.with_keys(session.at, |keys| {
        let (ids, hash) = keys.digest()?;
        Some((keys.registration_id, keys.identity, keys.signed_prekey.clone(), ids, hash))
    });
    let Some(Some((registration, identity, signed, ids, hash))) = digest else { return NOT_FOUND };
    let child = |tag, bytes: &[u8]| NodeBuilder::new(tag).bytes(bytes).build();
    let id = |id: u32| child("id", &id.to_be_bytes()[1..]);
    Answer::one(
        NodeBuilder::new("digest")
            .children([
                child("registration", &registration.to_be_bytes()),
                child("type", &KEY_TYPE),
                child("identity", &identity),
                NodeBuilder::new("skey")
                    .children([id(signed.id), child("value", &signed.key), child("signature", &signed.signature)])
                    .build(),
                NodeBuilder::new("list").children(ids.into_iter().map(id).collect::<Vec<_>>()).build(),
                child("hash", &hash),
            ])
            .build(),
    )
}
