//! Where files are uploaded to and downloaded from, and with what.

use wacore_binary::builder::NodeBuilder;

use super::Answer;
use crate::wire::inbound::Session;

/// How long, in seconds, a client relies on the answer.
const LIFETIME: u32 = 3600;

pub(crate) fn answer(session: &Session<'_>) -> Answer {
    let host = NodeBuilder::new("host")
        .attr("hostname", session.world.media_host(session.host))
        .attr("type", "primary")
        .build();
    Answer::one(
        NodeBuilder::new("media_conn")
            .attr("auth", session.world.media.auth(session.at.account))
            .attr("ttl", LIFETIME)
            .attr("auth_ttl", LIFETIME)
            .attr("max_buckets", 12)
            .children([host])
            .build(),
    )
}
