//! `w:mex`: GraphQL queries, named by the id under which the server stores them. Two of them are simulated.

use serde_json::json;
use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;

use super::Answer;
use crate::wire::fields::attr;
use crate::wire::inbound::Session;
use crate::world::{quota_json, timelock_json};

/// The query that asks whether the account may write to people it does not know.
const FETCH_REACHOUT_TIMELOCK: &str = "23983697327930364";

/// The query that asks how many more people the account may write to first.
const FETCH_NEW_CHAT_QUOTA: &str = "24503548349331633";

/// The answer to a query; `None` for those that are not simulated.
pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>) -> Option<Answer> {
    let world = session.world;
    let data = match attr(node.get_optional_child("query")?, "query_id")?.as_str() {
        FETCH_REACHOUT_TIMELOCK => {
            json!({ "xwa2_fetch_account_reachout_timelock": timelock_json(world.reachout_timelock(session.at).as_ref()) })
        }
        FETCH_NEW_CHAT_QUOTA => {
            json!({ "xwa2_message_capping_info": quota_json(world.new_chat_quota(session.at).as_ref()) })
        }
        _ => return None,
    };
    let data = json!({ "data": data }).to_string();
    Some(Answer::one(NodeBuilder::new("result").bytes(data.into_bytes()).build()))
}
