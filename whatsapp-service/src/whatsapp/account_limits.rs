//! What WhatsApp says of how far an account may write to people who have not written to it: whether it may at all (the
//! reach-out time-lock), and to how many more of them (the quota for new chats).

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::timeout;
use whatsapp_rust::{MexRequest, wacore::iq::mex_operations::fetch_new_chat_message_capping_info as capping};

use crate::whatsapp::client::Client;

/// How long WhatsApp may take to say what an account is restricted to.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Which quota is asked for.
const QUOTA_TYPE: &str = "INDIVIDUAL_NEW_CHAT_MSG";
/// What WhatsApp says by itself when the time-lock changes, and under which name. (From Baileys, `messages-recv.ts`.)
const TIMELOCK_CHANGED: (&str, &str) =
    ("NotificationUserReachoutTimelockUpdate", "xwa2_notify_account_reachout_timelock");
/// The same of the quota.
const QUOTA_CHANGED: (&str, &str) =
    ("MessageCappingInfoNotification", "xwa2_notify_new_chat_messages_capping_info_update");

/// A restriction that WhatsApp put on an account: no messages to people who have not written first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachoutTimelock {
    /// Whether it is in force.
    pub active: bool,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Its kind, in WhatsApp's words.
    pub kind: Option<String>,
    /// When WhatsApp was asked.
    pub checked_at: DateTime<Utc>,
}

/// To how many people who have not written first an account may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChatQuota {
    /// How many in all; nothing if WhatsApp names no number.
    pub total: Option<i64>,
    /// To how many of them it has written.
    pub used: Option<i64>,
    /// How it stands, in WhatsApp's words.
    pub status: Option<String>,
    /// When the count began.
    pub cycle_start: Option<DateTime<Utc>>,
    /// When it begins anew.
    pub cycle_end: Option<DateTime<Utc>>,
    /// When WhatsApp said so.
    pub checked_at: DateTime<Utc>,
}

/// What WhatsApp says by itself to have changed.
pub enum Changed {
    /// The time-lock.
    Timelock(ReachoutTimelock),
    /// The quota.
    Quota(NewChatQuota),
}

/// Asks WhatsApp for the time-lock; nothing if it does not answer.
pub async fn fetch_timelock(client: &Client, now: DateTime<Utc>) -> Option<ReachoutTimelock> {
    let answer = timeout(LIMIT, client.library().mex().fetch_reachout_timelock()).await.ok()?.ok()?;
    let until = answer.time_enforcement_ends.and_then(|seconds| seconds.parse().ok()).filter(|at| *at != 0);
    Some(ReachoutTimelock {
        active: answer.is_active.unwrap_or_default(),
        until: until.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        kind: answer.enforcement_type,
        checked_at: now,
    })
}

/// Asks WhatsApp for the quota for new chats; nothing if it does not answer, or names none.
pub async fn fetch_quota(client: &Client, now: DateTime<Utc>) -> Option<NewChatQuota> {
    let variables = capping::Variables { input: Some(capping::Input { r#type: Some(QUOTA_TYPE.into()) }) };
    let mex = client.library().mex();
    let answer = timeout(LIMIT, mex.query(MexRequest::new(capping::NAME, capping::DOC_ID, variables))).await;
    // The library's own type for the answer takes some of these for numbers and others for texts; other clients
    // differ from it.
    let data = answer.ok().and_then(Result::ok).and_then(|answer| answer.data);
    data.and_then(|mut data| quota(data.get_mut("xwa2_message_capping_info")?.take(), now))
}

/// What a notification says to have changed, if it is about the limits.
pub fn changed(operation: &str, said: &Value, now: DateTime<Utc>) -> Option<Changed> {
    let data = said.get("data").unwrap_or(said);
    if operation == TIMELOCK_CHANGED.0 {
        let timelock = data.get(TIMELOCK_CHANGED.1)?;
        return Some(Changed::Timelock(ReachoutTimelock {
            active: timelock["is_active"].as_bool().unwrap_or_default(),
            until: time(&timelock["time_enforcement_ends"]),
            kind: timelock["enforcement_type"].as_str().map(str::to_owned),
            checked_at: now,
        }));
    }
    if operation == QUOTA_CHANGED.0 {
        return quota(data.get(QUOTA_CHANGED.1)?.clone(), now).map(Changed::Quota);
    }
    None
}

/// The quota, from WhatsApp's words for it; nothing if these are none.
fn quota(said: Value, now: DateTime<Utc>) -> Option<NewChatQuota> {
    if !said.is_object() {
        return None;
    }
    Some(NewChatQuota {
        total: number(&said["total_quota"]).filter(|total| *total >= 0),
        used: number(&said["used_quota"]).filter(|used| *used >= 0),
        status: said["capping_status"].as_str().map(str::to_owned),
        cycle_start: time(&said["cycle_start_timestamp"]),
        cycle_end: time(&said["cycle_end_timestamp"]),
        checked_at: now,
    })
}

/// A number, or a text that is one.
fn number(said: &Value) -> Option<i64> {
    said.as_i64().or_else(|| said.as_str()?.parse().ok())
}

/// A time in seconds since 1970; 0 is none.
fn time(said: &Value) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(number(said).filter(|seconds| *seconds != 0)?, 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_is_read_in_every_form() {
        let read = |said: Value| {
            quota(said, Utc::now()).map(|quota| (quota.total, quota.used, quota.cycle_end.map(|at| at.timestamp())))
        };
        let known = Some((Some(30), Some(12), Some(1_770_000_000)));
        assert_eq!(read(json!({"total_quota": "30", "used_quota": "12", "cycle_end_timestamp": 1_770_000_000})), known);
        assert_eq!(read(json!({"total_quota": 30, "used_quota": 12, "cycle_end_timestamp": "1770000000"})), known);
        assert_eq!(
            read(json!({"total_quota": -1, "used_quota": null, "cycle_end_timestamp": "0"})),
            Some((None, None, None))
        );
        assert_eq!(quota(json!({"capping_status": "NONE"}), Utc::now()).unwrap().status.as_deref(), Some("NONE"));
        for nothing in [json!(null), json!("CAPPED"), json!([1])] {
            assert_eq!(read(nothing), None);
        }
    }
}
