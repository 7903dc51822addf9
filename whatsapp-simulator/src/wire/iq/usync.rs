//! `usync`: who is on WhatsApp, under which names, with which devices.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};

use super::{Answer, BAD_REQUEST};
use crate::wire::fields::{attr, bytes, children, jid};
use crate::wire::inbound::Session;
use crate::world::Addressing;
use crate::world::keys::list_hash;
use crate::world::lookup::Contact;

pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>) -> Answer {
    let Some(usync) = node.get_optional_child("usync") else { return BAD_REQUEST };
    let (Some(query), Some(list)) = (usync.get_optional_child("query"), usync.get_optional_child("list")) else {
        return BAD_REQUEST;
    };
    let protocols: Vec<String> = children(query).iter().map(|p| p.tag.to_string()).collect();
    let watch = protocols.iter().any(|p| p == "devices");
    let users: Vec<Node> = children(list)
        .iter()
        .filter_map(|user| {
            let asked = Asked::parse(user)?;
            let contact = asked.jid.as_ref().and_then(|jid| session.world.look_up(session.at, jid, watch));
            Some(answer_user(&protocols, &asked, contact.as_ref()))
        })
        .collect();
    let result = protocols.iter().map(|p| NodeBuilder::new_dynamic(p.clone()).build());
    let mut answer = NodeBuilder::new("usync");
    for name in ["sid", "mode", "context", "index", "last"] {
        if let Some(value) = attr(usync, name) {
            answer = answer.attr(name, value);
        }
    }
    Answer::one(
        answer
            .children([
                NodeBuilder::new("result").children(result.collect::<Vec<_>>()).build(),
                NodeBuilder::new("list").children(users).build(),
            ])
            .build(),
    )
}

/// Whom a client asks about.
struct Asked {
    jid: Option<Jid>,
    /// The number as it was written in `<contact>`.
    number: Option<String>,
}

impl Asked {
    fn parse(user: &NodeRef<'_>) -> Option<Self> {
        let number = user
            .get_optional_child("contact")
            .and_then(bytes)
            .and_then(|b| String::from_utf8(b).ok())
            .filter(|text| !text.is_empty() && text.len() <= 32);
        // `+5511…`, or, from older clients, `+5511…@c.us`.
        let digits = number.as_deref().map(|n| n.split_once('@').map_or(n, |(user, _)| user).trim_start_matches('+'));
        let by_number = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit())).map(Jid::pn);
        let jid = jid(user, "jid").or(by_number).or_else(|| jid(user, "pn_jid"));
        (jid.is_some() || number.is_some()).then_some(Self { jid, number })
    }
}

fn answer_user(protocols: &[String], asked: &Asked, contact: Option<&Contact>) -> Node {
    let mut user = NodeBuilder::new("user");
    match (contact, &asked.jid) {
        // The number under which the account is registered, whatever spelling was asked for.
        (Some(contact), _) => {
            user = user.attr("jid", contact.names.user(contact.addressing));
            let by_lid = contact.addressing == Addressing::Lid && (contact.own || !contact.names.number_hidden);
            // Whoever asks for a number has it.
            if asked.number.is_some() || by_lid {
                user = user.attr("pn_jid", contact.names.user(Addressing::Pn));
            }
        }
        (None, Some(jid)) => user = user.attr("jid", jid),
        (None, None) => {}
    }
    let answers = protocols.iter().filter_map(|protocol| match protocol.as_str() {
        "contact" => {
            let mut node = NodeBuilder::new("contact").attr("type", if contact.is_some() { "in" } else { "out" });
            if let Some(number) = &asked.number {
                node = node.string_content(number.as_str());
            }
            Some(node.build())
        }
        "devices" => contact.map(devices),
        "lid" => contact.map(|c| NodeBuilder::new("lid").attr("val", c.names.user(Addressing::Lid)).build()),
        "status" => contact.map(|_| NodeBuilder::new("status").attr("t", 0).build()),
        "disappearing_mode" => {
            contact.map(|_| NodeBuilder::new("disappearing_mode").attr("duration", 0).attr("t", 0).build())
        }
        "business" => contact.map(|_| NodeBuilder::new("business").build()),
        _ => None,
    });
    let answers: Vec<Node> = answers.collect();
    user.children(answers).build()
}

fn devices(contact: &Contact) -> Node {
    let list = &contact.devices;
    let mut devices = Vec::new();
    if list.phone {
        devices.push(NodeBuilder::new("device").attr("id", 0).build());
    }
    devices.extend(
        list.companions
            .iter()
            .map(|(device, index)| NodeBuilder::new("device").attr("id", *device).attr("key-index", *index).build()),
    );
    let indexes: Vec<u32> = list.companions.iter().map(|(_, index)| *index).collect();
    let mut children =
        vec![NodeBuilder::new("device-list").attr("hash", list_hash(&indexes)).children(devices).build()];
    if !list.key_index_list.is_empty() {
        children.push(
            NodeBuilder::new("key-index-list").attr("ts", list.timestamp).bytes(list.key_index_list.clone()).build(),
        );
    }
    NodeBuilder::new("devices").children(children).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(number: &str) -> Option<Asked> {
        let contact = NodeBuilder::new("contact").string_content(number).build();
        Asked::parse(&NodeBuilder::new("user").children([contact]).build().as_node_ref())
    }

    #[test]
    fn a_number_is_read_in_the_forms_that_clients_use() {
        for form in ["+5511999999999", "5511999999999", "+5511999999999@c.us"] {
            assert_eq!(asked(form).and_then(|a| a.jid), Some(Jid::pn("5511999999999")), "{form}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_read_or_not(number in ".{0,40}") {
            let _ = asked(&number);
        }
    }
}
