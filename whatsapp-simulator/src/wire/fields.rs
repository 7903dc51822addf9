//! Small helpers to take decoded stanzas apart without trusting them.

use wacore_binary::{Jid, NodeContentRef, NodeRef};

use crate::world::keys::Key;

/// An attribute's text.
pub(crate) fn attr(node: &NodeRef<'_>, name: &str) -> Option<String> {
    node.get_attr(name).map(|value| value.as_str().into_owned())
}

/// An attribute that is a JID.
pub(crate) fn jid(node: &NodeRef<'_>, name: &str) -> Option<Jid> {
    node.get_attr(name)?.to_jid()
}

/// The content as bytes. Clients may also send short contents as strings.
pub(crate) fn bytes(node: &NodeRef<'_>) -> Option<Vec<u8>> {
    match node.content.as_ref()? {
        NodeContentRef::Bytes(bytes) => Some(bytes.to_vec()),
        NodeContentRef::String(text) => Some(text.as_bytes().to_vec()),
        NodeContentRef::Nodes(_) => None,
    }
}

/// The bytes of a child.
pub(crate) fn child_bytes(node: &NodeRef<'_>, tag: &str) -> Option<Vec<u8>> {
    bytes(node.get_optional_child(tag)?)
}

/// A child that is a public key.
pub(crate) fn child_key(node: &NodeRef<'_>, tag: &str) -> Option<Key> {
    Key::try_from(child_bytes(node, tag)?).ok()
}

/// A child that is a number of up to four bytes, big-endian.
pub(crate) fn child_number(node: &NodeRef<'_>, tag: &str) -> Option<u32> {
    number(&child_bytes(node, tag)?)
}

/// A number of one to four bytes, big-endian.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > 4 {
        return None;
    }
    Some(bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
}

/// All children, or none.
pub(crate) fn children<'n, 'a>(node: &'n NodeRef<'a>) -> &'n [NodeRef<'a>] {
    node.children().unwrap_or_default()
}
