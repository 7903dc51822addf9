//! What a session's account may do: asked for when WhatsApp refuses something, and now and then.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use tokio::time::{Instant, timeout_at};

use crate::{
    session::connection::Connection,
    whatsapp::account_limits::{self, Changed, LIMIT, NewChatQuota, ReachoutTimelock},
};

/// How soon WhatsApp may be asked again because of refusals, and how old an answer may be that explains one.
const PAUSE: Duration = Duration::from_secs(5);
/// How old the quota may get before it is asked for anew, if something is sent or a connection begins. WhatsApp Web asks
/// as often (`wa_individual_new_chat_msg_capping_fetch_ttl_seconds`).
const QUOTA_LIFETIME: Duration = Duration::from_secs(3600);
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
        account_limits::fetch_timelock(&self.connection.ready_client()?, self.connection.now()).await
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
        if let Some(quota) = account_limits::fetch_quota(&client, self.connection.now()).await {
            self.known.send_modify(|limits| limits.quota = Some(quota));
        }
    }

    /// WhatsApp says by itself that something has changed.
    pub(crate) fn changed(&self, changed: Changed) {
        self.known.send_modify(|limits| match changed {
            Changed::Timelock(timelock) => limits.timelock = Some(timelock),
            Changed::Quota(quota) => limits.quota = Some(quota),
        });
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
