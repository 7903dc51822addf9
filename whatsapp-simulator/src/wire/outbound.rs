//! The server's stanzas in the wire's form.

use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use super::pairing::server;
use crate::world::LoginFailure;
use crate::world::address::Addressing;
use crate::world::stanza::{Ack, DeviceChange, Enc, Message, Receipt, Stanza};

/// Sent instead of a code when a ban has an end but no kind: clients read only bans that have both.
const DEFAULT_BAN_CODE: u16 = 101;

/// Builds the node of a stanza; `offline` marks what comes from the backlog.
pub(crate) fn node(stanza: &Stanza, offline: bool) -> Node {
    let mut node = match stanza {
        Stanza::Message(m) => message(m),
        Stanza::Receipt(r) => receipt(r),
        Stanza::Ack(a) => ack(a),
        Stanza::DeviceChange(d) => device_change(d),
        Stanza::Call { id, from, notify, timestamp, action } => NodeBuilder::new("call")
            .attr("from", from)
            .attr("id", id)
            .attr("t", *timestamp)
            .attr("notify", notify)
            .children([action.clone()])
            .build(),
        Stanza::ServerSync { id, from, collection, version, timestamp } => NodeBuilder::new("notification")
            .attr("from", from)
            .attr("type", "server_sync")
            .attr("id", id)
            .attr("t", *timestamp)
            .children([NodeBuilder::new("collection").attr("name", collection).attr("version", *version).build()])
            .build(),
        Stanza::PrekeysLow { id, count, timestamp } => NodeBuilder::new("notification")
            .attr("from", server())
            .attr("type", "encrypt")
            .attr("id", id)
            .attr("t", *timestamp)
            .children([NodeBuilder::new("count").attr("value", *count).build()])
            .build(),
        Stanza::Mex { id, operation, data, timestamp } => NodeBuilder::new("notification")
            .attr("from", server())
            .attr("type", "mex")
            .attr("id", id)
            .attr("t", *timestamp)
            .children([NodeBuilder::new("update").attr("op_name", *operation).bytes(data.clone().into_bytes()).build()])
            .build(),
        Stanza::Presence { from, available, last_seen } => {
            let mut presence = NodeBuilder::new("presence").attr("from", from);
            if !available {
                presence = presence
                    .attr("type", "unavailable")
                    .attr("last", last_seen.map_or("deny".to_owned(), |t| t.to_string()));
            }
            presence.build()
        }
        Stanza::ChatState { from, state } => {
            NodeBuilder::new("chatstate").attr("from", from).children([state.clone()]).build()
        }
        Stanza::OfflinePreview { messages, receipts, notifications } => info(
            NodeBuilder::new("offline_preview")
                .attr("count", messages + receipts + notifications)
                .attr("message", *messages)
                .attr("receipt", *receipts)
                .attr("notification", *notifications)
                .attr("appdata", 0)
                .attr("call", 0)
                .build(),
        ),
        Stanza::OfflineEnd { count } => info(NodeBuilder::new("offline").attr("count", *count).build()),
        Stanza::EdgeRouting { routing } => {
            let routing = NodeBuilder::new("routing_info").bytes(routing.clone()).build();
            info(NodeBuilder::new("edge_routing").children([routing]).build())
        }
        Stanza::StreamError { code } => NodeBuilder::new("stream:error").attr("code", code).build(),
        Stanza::Conflict { kind } => {
            let error = NodeBuilder::new("stream:error");
            let error = if kind == "device_removed" { error.attr("code", "401") } else { error };
            error.children([NodeBuilder::new("conflict").attr("type", kind).build()]).build()
        }
        Stanza::Raw(node) => node.clone(),
    };
    if offline {
        node.attrs.insert("offline", "0");
    }
    node
}

/// `<ib>`: information from the server.
pub(crate) fn info(child: Node) -> Node {
    NodeBuilder::new("ib").attr("from", server()).children([child]).build()
}

/// `<success>`: the login worked.
pub(crate) fn success(lid: &str, created: i64, timestamp: i64) -> Node {
    NodeBuilder::new("success")
        .attr("t", timestamp)
        .attr("creation", created)
        .attr("props", "27")
        .attr("location", "sim")
        .attr("lid", lid.parse::<wacore_binary::Jid>().unwrap_or_else(|_| server()))
        .build()
}

/// `<failure>`: it did not.
pub(crate) fn failure(failure: LoginFailure) -> Node {
    let mut node = NodeBuilder::new("failure").attr("reason", failure.reason).attr("location", "sim");
    if let Some(expire) = failure.expire {
        node = node.attr("expire", expire);
    }
    if let Some(code) = failure.code.or(failure.expire.map(|_| DEFAULT_BAN_CODE)) {
        node = node.attr("code", code);
    }
    if let Some(token) = failure.appeal_token {
        node = node.attr("appeal_token", token);
    }
    node.build()
}

fn enc(enc: &Enc) -> Node {
    let mut node = NodeBuilder::new("enc").attr("type", enc.kind.as_str()).bytes(enc.bytes.clone()).build();
    for (name, value) in &enc.attrs {
        node.attrs.insert(name.clone(), value.as_str());
    }
    node
}

fn message(m: &Message) -> Node {
    let alt = if Addressing::of(&m.from) == Some(Addressing::Lid) { "sender_pn" } else { "sender_lid" };
    let mut node = NodeBuilder::new("message").attr("from", &m.from);
    if let Some(other) = &m.from_alt {
        node = node.attr(alt, other);
    }
    node = node.attr("id", &m.id).attr("type", &m.kind).attr("t", m.timestamp).attr("notify", &m.notify);
    if let Some((recipient, other)) = &m.recipient {
        let lid = Addressing::of(recipient) == Some(Addressing::Lid);
        node = node.attr("recipient", recipient);
        if let Some(other) = other {
            node = node
                .attr(if lid { "peer_recipient_pn" } else { "peer_recipient_lid" }, other)
                .attr(if lid { "recipient_pn" } else { "recipient_lid" }, other);
        }
    }
    if let Some(category) = &m.category {
        node = node.attr("category", category);
    }
    if let Some(edit) = &m.edit {
        node = node.attr("edit", edit);
    }
    let mut children: Vec<Node> = m.encs.iter().map(enc).collect();
    if m.encs.is_empty() {
        let unavailable = NodeBuilder::new("unavailable");
        children.push(match m.withheld_as {
            Some(why) => unavailable.attr("type", why).build(),
            None => unavailable.build(),
        });
    }
    if let Some(identity) = &m.device_identity {
        children.push(NodeBuilder::new("device-identity").bytes(identity.clone()).build());
    }
    children.extend(m.extras.iter().cloned());
    node.children(children).build()
}

fn receipt(r: &Receipt) -> Node {
    let mut ids = r.ids.iter();
    let mut node = NodeBuilder::new("receipt")
        .attr("from", &r.from)
        .attr("id", ids.next().map_or("", String::as_str))
        .attr("t", r.timestamp);
    if let Some(kind) = &r.kind {
        node = node.attr("type", kind);
    }
    if let Some(recipient) = &r.recipient {
        node = node.attr("recipient", recipient);
    }
    let mut children = r.extras.clone();
    let items: Vec<Node> = ids.map(|id| NodeBuilder::new("item").attr("id", id).build()).collect();
    if !items.is_empty() {
        children.push(NodeBuilder::new("list").children(items).build());
    }
    if children.is_empty() { node.build() } else { node.children(children).build() }
}

fn ack(a: &Ack) -> Node {
    let mut node = NodeBuilder::new("ack").attr("class", a.class).attr("id", &a.id).attr("t", a.timestamp);
    if let Some(from) = &a.from {
        node = node.attr("from", from);
    }
    if let Some(kind) = &a.kind {
        node = node.attr("type", kind);
    }
    if let Some(participant) = &a.participant {
        node = node.attr("participant", participant);
    }
    if let Some(error) = a.error {
        node = node.attr("error", error);
    }
    node.build()
}

fn device_change(d: &DeviceChange) -> Node {
    let mut device = NodeBuilder::new("device").attr("jid", &d.device).attr("key-index", d.key_index);
    if let Some(lid) = &d.device_lid {
        device = device.attr("lid", lid);
    }
    let device = device.build();
    let list = NodeBuilder::new("key-index-list").attr("ts", d.timestamp).bytes(d.key_index_list.clone()).build();
    let mut node = NodeBuilder::new("notification").attr("from", &d.user);
    if let Some(lid) = &d.user_lid {
        node = node.attr("lid", lid);
    }
    node.attr("type", "devices")
        .attr("id", &d.id)
        .attr("t", d.timestamp)
        .children([NodeBuilder::new(if d.added { "add" } else { "remove" }).children([device, list]).build()])
        .build()
}
