//! Requests of logged-in clients and their answers, one file per family of namespaces.

mod app_state;
mod encrypt;
mod md;
mod media;
mod mex;
mod settings;
mod usync;

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use super::fields::attr;
use super::inbound::{Session, Then};
use super::pairing::server;

/// The answer to a request: children of the result, or an error.
pub(crate) enum Answer {
    Result(Vec<Node>),
    Error(u16, &'static str),
}

impl Answer {
    pub(crate) fn empty() -> Self {
        Self::Result(Vec::new())
    }

    pub(crate) fn one(node: Node) -> Self {
        Self::Result(vec![node])
    }
}

pub(crate) const BAD_REQUEST: Answer = Answer::Error(400, "bad-request");
pub(crate) const NOT_FOUND: Answer = Answer::Error(404, "item-not-found");
const NOT_SIMULATED: Answer = Answer::Error(501, "feature-not-implemented");

/// Builds the stanza of an answer.
pub(crate) fn reply(id: &str, answer: Answer) -> Node {
    let iq = NodeBuilder::new("iq").attr("from", server()).attr("id", id);
    match answer {
        Answer::Result(children) if children.is_empty() => iq.attr("type", "result").build(),
        Answer::Result(children) => iq.attr("type", "result").children(children).build(),
        Answer::Error(code, text) => iq
            .attr("type", "error")
            .children([NodeBuilder::new("error").attr("code", code).attr("text", text).build()])
            .build(),
    }
}

fn not_simulated(namespace: &str, set: bool) -> Answer {
    tracing::debug!(namespace, set, "a request that is not simulated");
    if set { Answer::empty() } else { NOT_SIMULATED }
}

/// Answers a request.
pub(crate) fn handle(session: &Session<'_>, node: &NodeRef<'_>) -> Then {
    let (Some(id), Some(kind)) = (attr(node, "id"), attr(node, "type")) else { return Then::Nothing };
    let set = match kind.as_str() {
        "get" => false,
        "set" => true,
        // An answer to a ping of ours, or an error: nothing to say to it.
        _ => return Then::Nothing,
    };
    let mut then = Then::Nothing;
    let namespace = attr(node, "xmlns").unwrap_or_default();
    let answer = match namespace.as_str() {
        "encrypt" => encrypt::answer(session, node, set),
        "usync" => usync::answer(session, node),
        "w:sync:app:state" => app_state::answer(session, node),
        "md" => md::answer(session, node),
        "w:m" => media::answer(session),
        "passive" => {
            session.reply(reply(&id, Answer::empty()));
            if node.get_optional_child("active").is_some() && session.world.activate(session.at) {
                then = Then::WatchBacklog;
            }
            return then;
        }
        "w:mex" => mex::answer(session, node).unwrap_or_else(|| not_simulated(&namespace, set)),
        other => settings::answer(other, node, set).unwrap_or_else(|| not_simulated(other, set)),
    };
    session.reply(reply(&id, answer));
    then
}
