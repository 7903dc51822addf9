//! The stanzas of pairing.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef, Server};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::fields::{attr, child_bytes, child_key, jid};
use crate::world::Addressing;
use crate::world::address::Names;
use crate::world::keys::Key;

/// The server's own JID.
pub(crate) fn server() -> Jid {
    Jid::new("", Server::Pn)
}

/// `pair-device`: the refs for the client's QR codes.
pub(crate) fn pair_device(id: &str, refs: &[String]) -> Node {
    let refs = refs.iter().map(|r| NodeBuilder::new("ref").bytes(r.as_bytes()).build());
    md_iq(id, NodeBuilder::new("pair-device").children(refs).build()).build()
}

/// `pair-success`: a phone took the client in; it has to sign its identity.
pub(crate) fn pair_success(id: &str, sealed: Vec<u8>, names: &Names, device: u16, timestamp: i64) -> Node {
    // Accounts of today keep their chats under LIDs.
    let props = wa::ClientPairingProps { is_chat_db_lid_migrated: Some(true), ..Default::default() };
    let success = NodeBuilder::new("pair-success")
        .children([
            NodeBuilder::new("device-identity").bytes(sealed).build(),
            NodeBuilder::new("platform").attr("name", "android").build(),
            NodeBuilder::new("device")
                .attr("jid", names.device(Addressing::Pn, device))
                .attr("lid", names.device(Addressing::Lid, device))
                .build(),
            NodeBuilder::new("client-props").bytes(props.encode_to_vec()).build(),
        ])
        .build();
    md_iq(id, success).attr("t", timestamp).build()
}

fn md_iq(id: &str, child: Node) -> NodeBuilder {
    NodeBuilder::new("iq")
        .attr("from", server())
        .attr("type", "set")
        .attr("id", id)
        .attr("xmlns", "md")
        .children([child])
}

/// The notice that a code was typed on the phone.
pub(crate) fn primary_hello(id: &str, wrapped: &[u8], identity: &Key, reference: &[u8], timestamp: i64) -> Node {
    let child = |tag, bytes: &[u8]| NodeBuilder::new(tag).bytes(bytes).build();
    let hello = NodeBuilder::new("link_code_companion_reg")
        .attr("stage", "primary_hello")
        .children([
            child("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped),
            child("primary_identity_pub", identity),
            child("link_code_pairing_ref", reference),
        ])
        .build();
    NodeBuilder::new("notification")
        .attr("from", server())
        .attr("type", "link_code_companion_reg")
        .attr("id", id)
        .attr("t", timestamp)
        .children([hello])
        .build()
}

/// What an unpaired client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Are you there?
    Ping {
        iq: String,
    },
    /// The signed device identity, or `None` if the client refuses.
    Confirmation {
        iq: String,
        identity: Option<Vec<u8>>,
    },
    /// It wants a pairing code for this phone.
    CompanionHello {
        iq: String,
        phone: Jid,
        wrapped: Vec<u8>,
    },
    /// Its key bundle, after the code was typed.
    CompanionFinish {
        iq: String,
        bundle: Vec<u8>,
        identity: Key,
        reference: Vec<u8>,
    },
    /// A request about pairing that lacks something.
    Nonsense {
        iq: String,
    },
    Other,
}

/// Reads a stanza of an unpaired client.
pub(crate) fn parse(node: &NodeRef<'_>) -> Said {
    let Some(iq) = attr(node, "id").filter(|_| node.tag == "iq") else { return Said::Other };
    match attr(node, "type").as_deref() {
        Some("error") => return Said::Confirmation { iq, identity: None },
        Some("result") => {
            let Some(sign) = node.get_optional_child("pair-device-sign") else { return Said::Other };
            return Said::Confirmation { iq, identity: child_bytes(sign, "device-identity") };
        }
        _ => {}
    }
    // A client that waits to be paired also asks whether the server is still there, and leaves if it hears nothing.
    if matches!(attr(node, "xmlns").as_deref(), Some("w:p" | "urn:xmpp:ping")) {
        return Said::Ping { iq };
    }
    let Some(request) = node.get_optional_child("link_code_companion_reg") else { return Said::Other };
    let parsed = match attr(request, "stage").as_deref() {
        Some("companion_hello") => jid(request, "jid")
            .zip(child_bytes(request, "link_code_pairing_wrapped_companion_ephemeral_pub"))
            .map(|(phone, wrapped)| Said::CompanionHello { iq: iq.clone(), phone, wrapped }),
        Some("companion_finish") => child_bytes(request, "link_code_pairing_wrapped_key_bundle")
            .zip(child_key(request, "companion_identity_public"))
            .zip(child_bytes(request, "link_code_pairing_ref"))
            .map(|((bundle, identity), reference)| Said::CompanionFinish {
                iq: iq.clone(),
                bundle,
                identity,
                reference,
            }),
        _ => None,
    };
    parsed.unwrap_or(Said::Nonsense { iq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_confirmation_is_read() {
        let sign = NodeBuilder::new("pair-device-sign")
            .children([NodeBuilder::new("device-identity").attr("key-index", 1).bytes([1, 2]).build()])
            .build();
        let node = NodeBuilder::new("iq").attr("id", "7").attr("type", "result").children([sign]).build();
        let said = parse(&node.as_node_ref());
        assert_eq!(said, Said::Confirmation { iq: "7".to_owned(), identity: Some(vec![1, 2]) });
    }

    proptest! {
        #[test]
        fn any_pairing_request_is_read_or_refused(stage in "companion_hello|companion_finish|[a-z_]{0,8}", to in ".{0,30}", fields in proptest::collection::vec(("link_code_pairing_wrapped_companion_ephemeral_pub|link_code_pairing_wrapped_key_bundle|companion_identity_public|link_code_pairing_ref", any::<Vec<u8>>()), 0..5)) {
            let children = fields.into_iter().map(|(tag, bytes)| NodeBuilder::new_dynamic(tag).bytes(bytes).build());
            let request = NodeBuilder::new("link_code_companion_reg").attr("stage", stage.as_str()).attr("jid", to.as_str()).children(children).build();
            let node = NodeBuilder::new("iq").attr("id", "1").attr("type", "set").children([request]).build();
            prop_assert_ne!(parse(&node.as_node_ref()), Said::Other);
        }
    }
}
