//! What WhatsApp says of how far an account may write to people who have not written to it: whether it may at all (the
//! reach-out time-lock), and to how many more of them (the quota for new chats).

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use whatsapp_rust::{MexRequest, wacore::iq::mex_operations::fetch_new_chat_message_capping_info as capping};

use crate::session::connection::Connection;

/// How soon WhatsApp may be asked again because of refusals, and how old an answer may be that explains one.
const PAUSE: Duration = Duration::from_secs(5);
/// How long WhatsApp may take to say what an account is restricted to.
const LIMIT: Duration = Duration::from_secs(10);
/// How old the quota may get before it is asked for anew, if something is sent or a connection begins. WhatsApp Web asks
/// as often (`wa_individual_new_chat_msg_capping_fetch_ttl_seconds`).
const QUOTA_LIFETIME: Duration = Duration::from_secs(3600);
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

/// What WhatsApp said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    timelock: Option<ReachoutTimelock>,
    /// When WhatsApp was last asked for the time-lock, and whether it answered.
    asked: Option<(Instant, bool)>,
    quota: Option<NewChatQuota>,
    /// When WhatsApp was last asked for the quota.
    quota_asked: Option<Instant>,
}

/// What WhatsApp says that a session's account may do, and when it was asked.
pub struct AccountLimits {
    connection: Arc<Connection>,
    known: watch::Sender<Limits>,
    /// While WhatsApp is being asked: whether to ask once more.
    asking: Mutex<Option<bool>>,
}

impl AccountLimits {
    /// Nothing is known yet.
    pub fn new(connection: Arc<Connection>) -> Arc<Self> {
        Arc::new(Self { connection, known: watch::Sender::default(), asking: Mutex::default() })
    }

    /// What WhatsApp said last of whether the account may write to people who have not written first.
    pub fn reachout_timelock(&self) -> Option<ReachoutTimelock> {
        let mut timelock = self.known.borrow().timelock.clone()?;
        timelock.active &= timelock.until.is_none_or(|until| self.connection.now() < until);
        Some(timelock)
    }

    /// What WhatsApp said last of to how many of them it may.
    pub fn new_chat_quota(&self) -> Option<NewChatQuota> {
        self.known.borrow().quota.clone()
    }

    /// Forgets what was said of another account.
    pub(crate) fn forget(&self) {
        self.known.send_replace(Limits::default());
    }

    /// Whether the account is restricted, after WhatsApp has refused a message: what it says of that, not of this
    /// recipient. `None` where it does not say.
    pub(crate) async fn is_restricted(self: &Arc<Self>) -> Option<bool> {
        let refused = Instant::now();
        self.ask();
        let mut limits = self.known.subscribe();
        let answered = |limits: &Limits| limits.asked.is_some_and(|(at, _)| at + PAUSE >= refused);
        let limits = tokio::select! {
            limits = timeout_at(refused + PAUSE + LIMIT, limits.wait_for(answered)) => limits.ok()?.ok()?,
            // What is known is written down now, or never.
            () = self.connection.stopping.cancelled() => return None,
        };
        let (_, answered) = limits.asked?;
        drop(limits);
        self.reachout_timelock().filter(|_| answered).map(|timelock| timelock.active)
    }

    /// Asks WhatsApp what the account may do.
    pub(crate) fn ask(self: &Arc<Self>) {
        // Once for many refusals, and once more after the last of them: the account is in trouble already.
        if self.asking.lock().replace(true).is_some() {
            return;
        }
        let asking = Asking(self.clone());
        tokio::spawn(async move {
            let limits = &asking.0;
            loop {
                *limits.asking.lock() = Some(false);
                let asked = Instant::now();
                let timelock = limits.fetch_timelock().await;
                if timelock.is_none() {
                    tracing::warn!(tenant = %limits.connection.tenant, "WhatsApp does not say what the account may do");
                }
                limits.known.send_modify(|known| {
                    known.asked = Some((asked, timelock.is_some()));
                    known.timelock = timelock.or_else(|| known.timelock.take());
                });
                limits.refresh_quota().await;
                tokio::time::sleep(PAUSE).await;
                if limits.asking.lock().take_if(|again| !*again).is_some() {
                    return;
                }
            }
        });
    }

    async fn fetch_timelock(&self) -> Option<ReachoutTimelock> {
        let client = self.connection.ready_client()?;
        let answer = timeout(LIMIT, client.mex().fetch_reachout_timelock()).await.ok()?.ok()?;
        let until = answer.time_enforcement_ends.and_then(|seconds| seconds.parse().ok()).filter(|at| *at != 0);
        Some(ReachoutTimelock {
            active: answer.is_active.unwrap_or_default(),
            until: until.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
            kind: answer.enforcement_type,
            checked_at: self.connection.now(),
        })
    }

    /// Asks for the quota for new chats, if that was not done lately.
    pub(crate) fn keep_quota_fresh(self: &Arc<Self>) {
        let is_stale = |limits: &Limits| limits.quota_asked.is_none_or(|at| at.elapsed() >= QUOTA_LIFETIME);
        if !is_stale(&self.known.borrow()) || self.connection.ready_client().is_none() {
            return;
        }
        let is_first = self.known.send_if_modified(|limits| {
            let stale = is_stale(limits);
            if stale {
                limits.quota_asked = Some(Instant::now());
            }
            stale
        });
        if is_first {
            let limits = self.clone();
            tokio::spawn(async move { limits.refresh_quota().await });
        }
    }

    async fn refresh_quota(&self) {
        let Some(client) = self.connection.ready_client() else { return };
        let variables = capping::Variables { input: Some(capping::Input { r#type: Some(QUOTA_TYPE.into()) }) };
        let mex = client.mex();
        let answer = timeout(LIMIT, mex.query(MexRequest::new(capping::NAME, capping::DOC_ID, variables))).await;
        // The library's own type for the answer takes some of these for numbers and others for texts; other clients
        // differ from it.
        let data = answer.ok().and_then(Result::ok).and_then(|answer| answer.data);
        let quota =
            data.and_then(|mut data| quota(data.get_mut("xwa2_message_capping_info")?.take(), self.connection.now()));
        if let Some(quota) = quota {
            self.known.send_modify(|limits| limits.quota = Some(quota));
        }
    }

    /// WhatsApp says by itself that something has changed.
    pub(crate) fn changed(&self, operation: &str, said: &Value) {
        let data = said.get("data").unwrap_or(said);
        if operation == TIMELOCK_CHANGED.0
            && let Some(timelock) = data.get(TIMELOCK_CHANGED.1)
        {
            let timelock = ReachoutTimelock {
                active: timelock["is_active"].as_bool().unwrap_or_default(),
                until: time(&timelock["time_enforcement_ends"]),
                kind: timelock["enforcement_type"].as_str().map(str::to_owned),
                checked_at: self.connection.now(),
            };
            self.known.send_modify(|limits| limits.timelock = Some(timelock));
        }
        if operation == QUOTA_CHANGED.0
            && let Some(quota) = data.get(QUOTA_CHANGED.1).and_then(|told| quota(told.clone(), self.connection.now()))
        {
            self.known.send_modify(|limits| limits.quota = Some(quota));
        }
    }
}

/// WhatsApp is being asked what an account may do. After a panic it may be asked again.
struct Asking(Arc<AccountLimits>);

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.asking.lock() = None;
        }
    }
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
