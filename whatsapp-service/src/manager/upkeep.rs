//! What has to be done from time to time: giving up what has passed its deadline, and forgetting what is old. Neither is
//! done while the clock is not steady.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use tokio::time::{MissedTickBehavior, interval};

use crate::{manager::Manager, model::address::Person, store::error::StoreError, util::supervise::supervised};

/// How often deadlines are looked at.
const DEADLINES: Duration = Duration::from_secs(1);
/// How often media that is no longer needed is looked for.
const CLEARING: Duration = Duration::from_secs(5);
/// How often old rows are looked for.
const FORGETTING: Duration = Duration::from_secs(60);
/// How often the database's files are looked for.
const FILES: Duration = Duration::from_secs(15);
/// The pause between two steps of forgetting, so that those who send don't have to wait for it.
const STEP: Duration = Duration::from_millis(50);
/// How long a caller's key is remembered.
const KEYS: TimeDelta = TimeDelta::hours(24);

/// How long things are kept.
#[derive(Clone, Copy)]
pub struct Retention {
    /// Messages and their fates, from their acceptance on.
    pub messages: TimeDelta,
    /// The event log.
    pub events: TimeDelta,
}

impl Manager {
    /// Never ends.
    pub async fn upkeep(self: Arc<Self>) {
        tokio::join!(
            every(DEADLINES, "deadlines", || self.expire()),
            every(CLEARING, "clearing media", || self.clear_media()),
            every(FORGETTING, "forgetting", || self.forget_old()),
            every(FILES, "looking at files", || self.store().inspect()),
        );
    }

    async fn expire(&self) -> Result<(), StoreError> {
        loop {
            let expired = self.store().expire().await?;
            if expired.is_empty() {
                return Ok(());
            }
            for message in expired {
                if let (Some(session), Some(recipient)) = (self.get(&message.tenant), Person::kept(&message.recipient))
                {
                    session.outbox().given_up(&recipient, message.row);
                }
            }
        }
    }

    /// Removes the files that no message needs any more.
    async fn clear_media(&self) -> Result<(), StoreError> {
        let idle = self.media().idle(self.store().clock().is_steady()).await;
        if idle.is_empty() {
            return Ok(());
        }
        let needed = self.store().needed_media(idle.iter().map(|file| file.name.clone()).collect()).await?;
        self.media().discard(idle, &needed).await;
        Ok(())
    }

    async fn forget_old(&self) -> Result<(), StoreError> {
        self.shared.downloads.forget_idle();
        let clock = self.store().clock();
        if !clock.is_steady() {
            return Ok(());
        }
        self.store().correct_times(self.retention.events).await?;
        let now = clock.now();
        while self.store().forget_messages(now - self.retention.messages, now - KEYS).await? {
            tokio::time::sleep(STEP).await;
        }
        while self.store().forget_events(now - self.retention.events).await? {
            tokio::time::sleep(STEP).await;
        }
        while self.store().forget_expired(now).await? {
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

/// Does something again and again, also after a panic. The log is told when it begins to fail, and when that is over.
async fn every<F>(pause: Duration, what: &'static str, work: impl Fn() -> F)
where
    F: Future<Output = Result<(), StoreError>>,
{
    let is_failing = AtomicBool::new(false);
    supervised(what, || async {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let done = work().await;
            match (is_failing.swap(done.is_err(), Ordering::Relaxed), done) {
                (false, Err(error)) => tracing::warn!(what, %error, "the database can't be kept up"),
                (true, Ok(())) => tracing::info!(what, "the database is kept up again"),
                _ => {}
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        address::Names,
        content::Content,
        message::{Accepted, Draft, Idempotency},
        tenant::TenantId,
    };

    fn draft(id: &str, manager: &Manager) -> Draft {
        Draft {
            id: id.into(),
            recipient: Person::parse("5511888888888").unwrap(),
            names: Names::default(),
            account: None,
            content: Content::text(id.to_owned()),
            reference: None,
            expires_at: manager.store().clock().now() + TimeDelta::hours(1),
            tried: false,
            idempotency: Some(Idempotency { key: "key".into(), fingerprint: [1; 32] }),
        }
    }

    #[tokio::test]
    async fn nothing_is_forgotten_before_the_clock_has_been_steady() {
        let data = tempfile::TempDir::new().unwrap();
        let manager = Manager::of_test(data.path());
        let (store, clock, acme) = (manager.store(), manager.store().clock(), "acme".parse::<TenantId>().unwrap());
        let is_new = async |id: &str| {
            let accepted = store.accept(&acme, vec![draft(id, &manager)], 9).await.unwrap().remove(0);
            matches!(accepted, Accepted::New(_))
        };
        assert!(is_new("A").await);
        for by in [TimeDelta::hours(25), TimeDelta::days(40 * 365)] {
            clock.jump(by);
            manager.forget_old().await.unwrap();
            clock.pass(TimeDelta::minutes(9));
            manager.forget_old().await.unwrap();
            assert!(!is_new("B").await, "the same call would be sent twice");
            clock.jump(-by);
            clock.pass(TimeDelta::minutes(11));
            manager.forget_old().await.unwrap();
            assert!(!is_new("C").await);
        }
        clock.jump(TimeDelta::hours(25));
        assert!(!clock.is_steady());
        clock.pass(TimeDelta::minutes(10));
        manager.forget_old().await.unwrap();
        assert!(is_new("D").await, "a clock that stays where it is counts in the end");
    }
}
