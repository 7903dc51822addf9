//! `w:mex`: GraphQL queries, named by the id under which the server stores them. One of them is simulated.

use serde_json::json;
use wacore_binary::NodeRef;
use wacore_binary::builder::NodeBuilder;

use super::Answer;
use crate::wire::fields::attr;
use crate::wire::inbound::Session;

/// The query that asks whether the account may write to people it does not know.
const FETCH_REACHOUT_TIMELOCK: &str = "23983697327930364";

/// Sent when the fault gives no type.
const DEFAULT_ENFORCEMENT: &str = "DEFAULT";

/// The answer to a query; `None` for those that are not simulated.
pub(crate) fn answer(session: &Session<'_>, node: &NodeRef<'_>) -> Option<Answer> {
    if attr(node.get_optional_child("query")?, "query_id")? != FETCH_REACHOUT_TIMELOCK {
        return None;
    }
    let state = match session.world.reachout_timelock(session.at) {
        Some(timelock) => json!({
            "is_active": true,
            "time_enforcement_ends": timelock.until.to_string(),
            "enforcement_type": timelock.kind.as_deref().unwrap_or(DEFAULT_ENFORCEMENT),
        }),
        None => json!({ "is_active": false }),
    };
    let data = json!({ "data": { "xwa2_fetch_account_reachout_timelock": state } });
    Some(Answer::one(NodeBuilder::new("result").bytes(data.to_string().into_bytes()).build()))
}
