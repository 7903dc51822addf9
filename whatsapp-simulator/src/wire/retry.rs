//! "Send it again": the children of a retry receipt, with the keys for a new session.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use super::fields::{attr, child_bytes, child_key, child_number};
use crate::world::keys::{Bundle, SignedPrekey};

/// Builds the children of a retry receipt.
pub(crate) fn request(id: &str, count: u8, timestamp: i64, registration: u32, bundle: &Bundle) -> Vec<Node> {
    let retry =
        NodeBuilder::new("retry").attr("v", "1").attr("id", id).attr("count", count).attr("t", timestamp).build();
    let registration = NodeBuilder::new("registration").bytes(registration.to_be_bytes()).build();
    let mut keys = vec![NodeBuilder::new("type").bytes([5]).build()];
    keys.extend(bundle_children(bundle));
    vec![retry, registration, NodeBuilder::new("keys").children(keys).build()]
}

/// `identity`, `key`, `skey` and `device-identity`, as bundles and retry receipts have them.
pub(crate) fn bundle_children(bundle: &Bundle) -> Vec<Node> {
    let child = |tag, bytes: &[u8]| NodeBuilder::new(tag).bytes(bytes).build();
    let id = |id: u32| child("id", &id.to_be_bytes()[1..]);
    let signed = &bundle.signed_prekey;
    let mut children = vec![child("identity", &bundle.identity)];
    if let Some((prekey, key)) = &bundle.prekey {
        children.push(NodeBuilder::new("key").children([id(*prekey), child("value", key)]).build());
    }
    children.push(
        NodeBuilder::new("skey")
            .children([id(signed.id), child("value", &signed.key), child("signature", &signed.signature)])
            .build(),
    );
    if let Some(identity) = &bundle.device_identity {
        children.push(child("device-identity", identity));
    }
    children
}

/// Reads a signed prekey.
pub(crate) fn signed_prekey(node: &NodeRef<'_>) -> Option<SignedPrekey> {
    Some(SignedPrekey {
        id: child_number(node, "id")?,
        key: child_key(node, "value")?,
        signature: child_bytes(node, "signature").filter(|s| s.len() == 64)?,
    })
}

/// Reads the children of a retry receipt: how often it was asked, and the keys if they came along.
pub(crate) fn parse(node: &NodeRef<'_>) -> Option<(u8, Option<Box<Bundle>>)> {
    let retry = node.get_optional_child("retry")?;
    let count = attr(retry, "count").and_then(|c| c.parse().ok()).unwrap_or(1);
    Some((count, keys(node).map(Box::new)))
}

fn keys(node: &NodeRef<'_>) -> Option<Bundle> {
    let keys = node.get_optional_child("keys")?;
    let prekey = keys.get_optional_child("key");
    Some(Bundle {
        registration_id: child_number(node, "registration")?,
        identity: child_key(keys, "identity")?,
        signed_prekey: signed_prekey(keys.get_optional_child("skey")?)?,
        prekey: prekey.and_then(|key| Some((child_number(key, "id")?, child_key(key, "value")?))),
        device_identity: child_bytes(keys, "device-identity"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_reads_back(count in 1_u8..5, registration: u32, id in 0_u32..0x0100_0000, key: [u8; 32], identity: Option<Vec<u8>>) {
            let bundle = Bundle {
                registration_id: registration,
                identity: key,
                signed_prekey: SignedPrekey { id, key, signature: vec![1; 64] },
                prekey: Some((id, key)),
                device_identity: identity,
            };
            let node = NodeBuilder::new("receipt").children(request("A", count, 0, registration, &bundle)).build();
            prop_assert_eq!(parse(&node.as_node_ref()), Some((count, Some(Box::new(bundle)))));
        }

        #[test]
        fn any_children_are_read_or_refused(tags in proptest::collection::vec(("retry|registration|keys|[a-z]{0,4}", any::<Vec<u8>>()), 0..5)) {
            let children = tags.into_iter().map(|(tag, bytes)| NodeBuilder::new_dynamic(tag).bytes(bytes).build());
            let node = NodeBuilder::new("receipt").children(children).build();
            let _ = parse(&node.as_node_ref());
        }
    }
}
