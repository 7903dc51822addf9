//! The stanzas of a logged-in client, taken apart and handed to the world.

use bytes::BytesMut;
use wacore_binary::util::unpack_bytes;
use wacore_binary::{BinaryError, Jid, Node, NodeRef, OwnedNodeRef};

use super::fields::{attr, bytes, child_bytes, children, jid};
use super::{iq, retry};
use crate::world::World;
use crate::world::address::Address;
use crate::world::media::retry::Reupload;
use crate::world::now;
use crate::world::queue::Link;
use crate::world::receipts::OutReceipt;
use crate::world::routing::OutMessage;
use crate::world::stanza::{Ack, Confirmation, Enc, Stanza};

/// Reads a decrypted frame. Whatever is compressed may not become longer than a frame can be, and stanzas may not be
/// nested without end; the library sees to both.
pub(crate) fn decode(frame: BytesMut) -> Result<OwnedNodeRef, BinaryError> {
    unpack_bytes(frame).and_then(OwnedNodeRef::new)
}

/// What the connection has to do after a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// A backlog waits to be asked for; look after it in a while.
    WatchBacklog,
}

/// A connection's place in the world.
pub(crate) struct Session<'a> {
    pub(crate) world: &'a World,
    pub(crate) at: Address,
    pub(crate) link: &'a Link,
    /// The host under which the client reached the simulator.
    pub(crate) host: Option<&'a str>,
}

impl Session<'_> {
    pub(crate) fn reply(&self, node: Node) {
        self.link.send(Stanza::Raw(node));
    }

    fn ack(&self, class: &'static str, node: &NodeRef<'_>) {
        let Some(id) = attr(node, "id") else { return };
        self.link.send(Stanza::Ack(Ack {
            class,
            id,
            from: jid(node, "to"),
            kind: attr(node, "type"),
            participant: jid(node, "participant"),
            error: None,
            timestamp: now(),
        }));
    }

    /// Handles one stanza.
    pub(crate) fn handle(&self, node: &NodeRef<'_>) -> Then {
        match node.tag.as_ref() {
            "iq" => return iq::handle(self, node),
            "message" => {
                if let Some(message) = parse_message(node) {
                    self.world.accept_message(self.at, message, Some(self.link));
                }
            }
            "receipt" => {
                if let Some(receipt) = parse_receipt(node) {
                    self.world.accept_receipt(self.at, receipt);
                }
                self.ack("receipt", node);
            }
            "ack" => {
                if let (Some(class), Some(id)) = (attr(node, "class"), attr(node, "id")) {
                    let confirmation = Confirmation { class, id, of: jid(node, "to"), kind: attr(node, "type") };
                    self.world.confirm(self.at, &confirmation);
                }
            }
            "ib" => {
                if let Some(batch) = node.get_optional_child("offline_batch") {
                    let count = attr(batch, "count").and_then(|c| c.parse().ok()).unwrap_or_default();
                    self.world.request_batch(self.at, count);
                }
            }
            "presence" => self.presence(node),
            "chatstate" => {
                if let (Some(to), Some(state)) = (jid(node, "to"), children(node).first()) {
                    self.world.chat_state(self.at, &to, &state.to_owned());
                }
            }
            "notification" => self.ack("notification", node),
            "call" => self.ack("call", node),
            other => tracing::debug!(stanza = other, "a stanza that is not simulated"),
        }
        Then::Nothing
    }

    fn presence(&self, node: &NodeRef<'_>) {
        let name = attr(node, "name").map(|n| n.chars().take(128).collect());
        match (attr(node, "type").as_deref(), jid(node, "to")) {
            (Some("subscribe"), Some(to)) => self.world.subscribe_presence(self.at, &to),
            (Some("available"), _) => self.world.set_presence(self.at, Some(true), name),
            (Some("unavailable"), _) => self.world.set_presence(self.at, Some(false), name),
            (None, _) if name.is_some() => self.world.set_presence(self.at, None, name),
            _ => {}
        }
    }
}

/// Children of a message that stay behind: they are for the server, or handled by themselves.
const NOT_PASSED_ON: [&str; 5] = ["participants", "enc", "device-identity", "tctoken", "cstoken"];

fn enc(node: &NodeRef<'_>) -> Option<Enc> {
    let attrs = node.attrs_iter().filter(|(name, _)| &***name != "type");
    Some(Enc {
        kind: attr(node, "type")?,
        attrs: attrs.map(|(name, value)| (name.to_string(), value.as_str().into_owned())).collect(),
        bytes: bytes(node)?,
    })
}

fn encs(node: &NodeRef<'_>) -> Vec<Enc> {
    children(node).iter().filter(|c| c.tag == "enc").filter_map(enc).collect()
}

/// Reads a message. `None` if it has no id, no addressee or nothing in it.
fn parse_message(node: &NodeRef<'_>) -> Option<OutMessage> {
    let to: Jid = jid(node, "to")?;
    let mut parts: Vec<(Jid, Vec<Enc>)> = Vec::new();
    let direct = encs(node);
    if !direct.is_empty() {
        parts.push((to.clone(), direct));
    }
    if let Some(participants) = node.get_optional_child("participants") {
        parts.extend(children(participants).iter().filter_map(|p| Some((jid(p, "jid")?, encs(p)))));
    }
    Some(OutMessage {
        id: attr(node, "id").filter(|id| !id.is_empty() && id.len() <= 128)?,
        recipient: jid(node, "recipient"),
        kind: attr(node, "type").unwrap_or_else(|| "text".to_owned()),
        category: attr(node, "category"),
        edit: attr(node, "edit"),
        device_identity: child_bytes(node, "device-identity"),
        extras: children(node)
            .iter()
            .filter(|c| !NOT_PASSED_ON.contains(&c.tag.as_ref()))
            .map(NodeRef::to_owned)
            .collect(),
        to,
        parts,
        withheld_as: None,
    })
}

/// Reads a receipt. `None` if it lacks an id or an addressee.
fn parse_receipt(node: &NodeRef<'_>) -> Option<OutReceipt> {
    let mut ids = vec![attr(node, "id")?];
    if let Some(list) = node.get_optional_child("list") {
        ids.extend(children(list).iter().filter_map(|item| attr(item, "id")));
    }
    let kind = attr(node, "type");
    let is_retry = kind.as_deref() == Some("retry");
    let of_a_retry = |c: &&NodeRef<'_>| matches!(c.tag.as_ref(), "retry" | "registration" | "keys");
    Some(OutReceipt {
        ids,
        to: jid(node, "to")?,
        recipient: jid(node, "recipient"),
        extras: children(node).iter().filter(of_a_retry).map(NodeRef::to_owned).collect(),
        retry: if is_retry { Some(retry::parse(node).unwrap_or((1, None))) } else { None },
        reupload: if kind.as_deref() == Some("server-error") { parse_reupload(node).map(Box::new) } else { None },
        kind,
    })
}

/// Reads what a companion says about a file that it found expired.
fn parse_reupload(node: &NodeRef<'_>) -> Option<Reupload> {
    let sealed = node.get_optional_child("encrypt")?;
    Some(Reupload {
        ciphertext: child_bytes(sealed, "enc_p")?,
        iv: child_bytes(sealed, "enc_iv")?,
        about: node.get_optional_child("rmr")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wacore_binary::builder::NodeBuilder;

    fn any_node() -> impl Strategy<Value = Node> {
        let tag = "message|receipt|enc|participants|to|list|item|iq|presence|chatstate|ib|ack|[a-z]{1,6}";
        let name = "id|to|type|jid|from|count|class|recipient|participant|xmlns|[a-z]{1,6}";
        let attrs = proptest::collection::vec((name, "[0-9@.:a-z]{0,30}"), 0..5);
        let leaf = (tag, attrs, any::<Option<Vec<u8>>>()).prop_map(|(tag, attrs, content)| {
            let mut node = NodeBuilder::new_dynamic(tag).build();
            attrs.into_iter().for_each(|(name, value)| node.attrs.insert(name, value));
            node.content = content.map(wacore_binary::NodeContent::Bytes);
            node
        });
        leaf.prop_recursive(3, 24, 4, move |inner| {
            (inner.clone(), proptest::collection::vec(inner, 0..4)).prop_map(|(mut node, children)| {
                node.content = Some(wacore_binary::NodeContent::Nodes(children));
                node
            })
        })
    }

    #[test]
    fn a_message_comes_apart() {
        let enc = |bytes: &[u8]| NodeBuilder::new("enc").attr("type", "msg").attr("v", "2").bytes(bytes).build();
        let to = |jid: &str, bytes: &[u8]| NodeBuilder::new("to").attr("jid", jid).children([enc(bytes)]).build();
        let node = NodeBuilder::new("message")
            .attr("id", "A")
            .attr("to", "1@lid")
            .attr("type", "text")
            .children([
                NodeBuilder::new("participants").children([to("1:2@lid", &[1]), to("3:4@lid", &[2])]).build(),
                NodeBuilder::new("meta").build(),
                NodeBuilder::new("tctoken").build(),
            ])
            .build();
        let message = parse_message(&node.as_node_ref()).unwrap();
        assert_eq!(message.parts.len(), 2);
        assert_eq!(message.parts[0].1[0].attrs, [("v".to_owned(), "2".to_owned())]);
        assert_eq!(message.extras.len(), 1);
    }

    /// Bytes that come out of zlib as `length` zeros.
    fn bomb(length: usize) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![2], flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![0; length]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = bomb(64 * 1024 * 1024);
        assert!(bomb.len() < 100_000);
        assert!(decode(BytesMut::from(bomb.as_slice())).is_err());
    }

    #[test]
    fn endless_nesting_is_refused() {
        // A list of two, whose second element is a list of one, and so on.
        let mut frame = vec![0];
        (0..1_000_000).for_each(|_| frame.extend_from_slice(&[0xf8, 2, 5, 0xf8, 1]));
        assert!(decode(BytesMut::from(frame.as_slice())).is_err());
    }

    proptest! {
        #[test]
        fn any_frame_is_a_stanza_or_not(frame: Vec<u8>) {
            let _ = decode(BytesMut::from(frame.as_slice()));
        }

        #[test]
        fn a_damaged_stanza_is_read_or_refused(node in any_node(), at: usize, with: u8) {
            let mut frame = wacore_binary::marshal::marshal(&node).unwrap();
            let at = at % frame.len();
            frame[at] ^= with;
            if let Ok(node) = decode(BytesMut::from(frame.as_slice())) {
                let _ = (parse_message(node.get()), parse_receipt(node.get()));
            }
        }

        #[test]
        fn any_stanza_is_handled(node in any_node()) {
            let world = World::new(crate::Config::default());
            let phone = crate::Phone::parse("5511999999999").unwrap();
            world.add_account(&phone, "Ana").unwrap();
            let (link, _rx) = Link::new(1);
            let at = Address::new(crate::world::address::AccountId(0), 1);
            let session = Session { world: &world, at, link: &link, host: None };
            session.handle(&node.as_node_ref());
            let _ = (parse_message(&node.as_node_ref()), parse_receipt(&node.as_node_ref()));
            let _ = super::super::pairing::parse(&node.as_node_ref());
        }
    }
}
