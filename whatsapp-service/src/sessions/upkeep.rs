//! What has to be done from time to time: giving up what has passed its deadline, and forgetting what is old.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use tokio::time::{MissedTickBehavior, interval};

use super::Manager;
use crate::{address::Person, store::StoreError};

/// How often deadlines are looked at.
const DEADLINES: Duration = Duration::from_secs(1);
/// How often media that is no longer needed is looked for.
const CLEARING: Duration = Duration::from_secs(5);
/// How often old rows are looked for.
const FORGETTING: Duration = Duration::from_secs(60);
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
        let (mut deadlines, mut forgetting) = (interval(DEADLINES), interval(FORGETTING));
        deadlines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let expiring = async {
            loop {
                deadlines.tick().await;
                report(self.expire().await);
            }
        };
        let forgetting = async {
            loop {
                forgetting.tick().await;
                self.around.downloads.forget_idle();
                report(self.forget_old().await);
            }
        };
        let clearing = async {
            let mut clearing = interval(CLEARING);
            clearing.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                clearing.tick().await;
                report(self.clear_media().await);
            }
        };
        tokio::join!(expiring, forgetting, clearing);
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
                    session.given_up(&recipient, message.row);
                }
            }
        }
    }

    /// Removes the files that no message needs any more.
    async fn clear_media(&self) -> Result<(), StoreError> {
        let idle = self.media().idle().await;
        if idle.is_empty() {
            return Ok(());
        }
        let needed = self.store().needed_media(idle.iter().map(|file| file.name.clone()).collect()).await?;
        self.media().discard(idle, &needed).await;
        Ok(())
    }

    async fn forget_old(&self) -> Result<(), StoreError> {
        let now = Utc::now();
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

fn report(done: Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "the database could not be kept up");
    }
}
