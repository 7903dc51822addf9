//! Webhooks: each tenant's events, posted to its receiver in order, until it has taken them.
//!
//! Each tenant with something to deliver has a task of its own, so that a receiver that is slow, dead or hostile delays
//! nobody else. What is to be delivered is on the disk; the task only remembers where to look.

pub mod signature;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, UnreadableSecret},
    metrics::{self, Delivered},
    model::{
        event::{Event, EventKind},
        tenant::TenantId,
    },
    net::egress::{Egress, RefusedTarget, Target},
    store::{
        Store,
        error::StoreError,
        webhooks::{Delivery, Webhook, WebhookSummary},
    },
    util::{clock, supervise::supervised},
    webhooks::signature::{InvalidSecret, SigningKey},
};

/// The wait after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long to wait when the database can't be read: it doubles each time, up to so much.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(60);

/// Why the webhook for all tenants can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// The address.
    #[error("WEBHOOK_URL: {0}")]
    Url(RefusedTarget),
    /// The secret.
    #[error("WEBHOOK_SECRET: {0}")]
    Secret(InvalidSecret),
    /// There is an address, and nothing to sign with.
    #[error("WEBHOOK_URL is set and WEBHOOK_SECRET is not: a receiver could not tell our events from anybody's")]
    NoSecret,
    /// The secret can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableSecret),
}

/// Why a tenant's webhook is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutRefused {
    /// The address.
    #[error(transparent)]
    Url(#[from] RefusedTarget),
    /// The secret.
    #[error("`secret`: {0}")]
    Secret(#[from] InvalidSecret),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of an attempt.
enum Attempt {
    Taken,
    Gone,
    Failed(String),
}

/// Delivers events.
pub struct Webhooks {
    store: Arc<dyn Store>,
    /// For the tenants' own webhooks.
    egress: Egress,
    for_all: Option<ForAll>,
    retry_for: TimeDelta,
    running: Mutex<HashMap<TenantId, Running>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// The webhook for all tenants. Whoever runs the service may point it at any address.
struct ForAll {
    webhook: Webhook,
    receiver: Receiver,
}

/// Where events are posted to, how, and what they are signed with.
#[derive(Clone)]
struct Receiver {
    egress: Egress,
    target: Target,
    key: SigningKey,
}

/// A tenant's task.
#[derive(Default)]
struct Running {
    woken: Arc<Notify>,
    /// Whether something came since it looked last.
    again: bool,
}

impl Webhooks {
    /// Checks the settings.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Result<Arc<Self>, InvalidWebhook> {
        let egress = Egress::new(config.allow_private_targets);
        let for_all = match (config.webhook_for_all(), config.webhook_secret()?) {
            (None, _) => None,
            (Some(_), None) => return Err(InvalidWebhook::NoSecret),
            (Some(url), Some(secret)) => {
                let key: SigningKey = secret.text().parse().map_err(InvalidWebhook::Secret)?;
                let webhook = Webhook { url: url.into(), secret: secret.text().into(), events: None };
                let trusted = Egress::new(true);
                let target = trusted.target(url).map_err(InvalidWebhook::Url)?;
                Some(ForAll { webhook, receiver: Receiver { egress: trusted, target, key } })
            }
        };
        Ok(Arc::new(Self {
            store,
            egress,
            for_all,
            retry_for: TimeDelta::from_std(config.webhook_retry_for).unwrap_or(TimeDelta::MAX),
            running: Mutex::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Delivers until [`Webhooks::stop`], starting with what an earlier process left.
    pub async fn run(self: Arc<Self>) {
        let mut due = self.store.due_deliveries();
        let waiting = async {
            let mut trouble = Trouble::default();
            loop {
                match self.store.tenants_with_deliveries().await {
                    Ok(tenants) => return tenants,
                    Err(error) => {
                        if trouble.is_news(&error) {
                            tracing::warn!(%error, "what waits for webhooks can't be read");
                        }
                        tokio::time::sleep(trouble.pause()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.stopping.cancelled() => return,
            tenants = waiting => tenants.into_iter().for_each(|tenant| self.wake(tenant)),
        }
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                Some(tenant) = due.recv() => self.wake(tenant),
            }
        }
    }

    /// Ends every delivery that is under way. What was not taken is delivered again by the next process.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sets a tenant's own webhook. Without a secret it keeps the one that it has, or gets a new one, which is returned.
    pub async fn put(
        self: &Arc<Self>,
        tenant: &TenantId,
        url: String,
        secret: Option<String>,
        events: Option<Vec<EventKind>>,
    ) -> Result<Option<String>, PutRefused> {
        let target = self.egress.target(&url)?;
        self.egress.look_up(&target).await?;
        let kept = match &secret {
            Some(secret) => Some(secret.parse::<SigningKey>()?.reveal()),
            None => self.store.webhook(tenant).await?.webhook.map(|webhook| webhook.secret),
        };
        let generated = kept.is_none().then(|| SigningKey::generate().reveal());
        let secret = kept.or_else(|| generated.clone()).unwrap_or_default();
        let lease = self.store.lease(tenant).await?;
        self.store.put_webhook(&lease, Webhook { url, secret, events }).await?;
        self.restart(tenant);
        Ok(generated)
    }

    /// Removes a tenant's own webhook, and says whether there was one.
    pub async fn delete(self: &Arc<Self>, tenant: &TenantId) -> Result<bool, StoreError> {
        let lease = self.store.lease(tenant).await?;
        let removed = self.store.delete_webhook(&lease).await?;
        if removed {
            self.restart(tenant);
        }
        Ok(removed)
    }

    /// Starts again what was given up, and says how much that is.
    pub async fn retry(self: &Arc<Self>, tenant: &TenantId) -> Result<usize, StoreError> {
        let lease = self.store.lease(tenant).await?;
        let restarted = self.store.retry_deliveries(&lease).await?;
        self.restart(tenant);
        Ok(restarted)
    }

    /// The webhook that counts for a tenant, whether it is its own, and how it goes; `None` without one.
    pub async fn summary(&self, tenant: &TenantId) -> Result<Option<(Webhook, bool, WebhookSummary)>, StoreError> {
        let summary = self.store.webhook(tenant).await?;
        let for_all = self.for_all.as_ref().map(|for_all| (for_all.webhook.clone(), false));
        let own = summary.webhook.clone().map(|webhook| (webhook, true));
        Ok(own.or(for_all).map(|(webhook, own)| (webhook, own, summary)))
    }

    /// Has a tenant's task look at what waits, and starts it if it does not run.
    fn wake(self: &Arc<Self>, tenant: TenantId) {
        let mut running = self.running();
        if let Some(task) = running.get_mut(&tenant) {
            task.again = true;
            return;
        }
        let woken = running.entry(tenant.clone()).or_default().woken.clone();
        drop(running);
        let webhooks = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = webhooks.stopping.cancelled() => {}
                () = supervised("webhook", || webhooks.deliver_all(&tenant, &woken)) => {}
            }
        });
    }

    /// The same, and has it begin anew: what it waited for, or tried, may not count any more.
    fn restart(self: &Arc<Self>, tenant: &TenantId) {
        self.wake(tenant.clone());
        if let Some(task) = self.running().get(tenant) {
            task.woken.notify_one();
        }
    }

    async fn deliver_all(&self, tenant: &TenantId, woken: &Notify) {
        let mut trouble = Trouble::default();
        loop {
            let done = match self.store.next_delivery(tenant).await {
                Ok(Some(delivery)) => self.deliver(tenant, delivery, woken).await,
                Ok(None) => {
                    let mut running = self.running();
                    match running.get_mut(tenant) {
                        Some(task) if task.again => task.again = false,
                        _ => {
                            running.remove(tenant);
                            return;
                        }
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) if trouble.is_over() => tracing::info!(%tenant, "a webhook can be read and written down again"),
                Ok(()) => {}
                Err(error) => {
                    if trouble.is_news(&error) {
                        tracing::warn!(%tenant, %error, "a webhook can't be read, or how it goes not be written down");
                    }
                    // There may be another receiver by then.
                    tokio::select! {
                        () = tokio::time::sleep(trouble.pause()) => {}
                        () = woken.notified() => {}
                    }
                }
            }
        }
    }

    /// Delivers some events, up to the first that is not taken.
    async fn deliver(&self, tenant: &TenantId, delivery: Delivery, woken: &Notify) -> Result<(), StoreError> {
        let Delivery { webhook, state, events } = delivery;
        if let Some(at) = state.next_attempt_at
            && let Ok(wait) = (at - self.store.clock().now()).to_std()
            // Only a clock that was put back makes it longer.
            && wait <= LONGEST_PAUSE.mul_f64(1.5)
        {
            // The wait may be long, and what is to be delivered is on the disk.
            drop(events);
            // It may be woken because there is another receiver now.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = woken.notified() => {}
            }
            return Ok(());
        }
        let lease = self.store.lease(tenant).await?;
        let receiver = match &webhook {
            Some(Webhook { url, secret, .. }) => self
                .egress
                .target(url)
                .ok()
                .zip(secret.parse().ok())
                .map(|(target, key)| Receiver { egress: self.egress.clone(), target, key }),
            None => match &self.for_all {
                Some(for_all) => Some(for_all.receiver.clone()),
                // The one for all tenants was taken away since.
                None => return self.store.forget_deliveries(&lease).await,
            },
        };
        // Each is written down at once, and waited for at the end: a kill repeats as few as can be.
        let (mut taken, mut failed) = (Vec::new(), None);
        for event in &events {
            let attempt = match &receiver {
                Some(receiver) => tokio::select! {
                    biased;
                    () = woken.notified() => return Ok(()),
                    attempt = attempt(event, receiver) => attempt,
                },
                None => Attempt::Failed("the address is not allowed".into()),
            };
            match attempt {
                Attempt::Taken => {
                    let (store, lease, sequence) = (self.store.clone(), lease.clone(), event.sequence);
                    taken.push(self.tasks.spawn(async move { store.delivered(&lease, sequence).await }));
                }
                failure => {
                    failed = Some((event, failure));
                    break;
                }
            }
        }
        let some_taken = !taken.is_empty();
        for written in taken {
            written.await.unwrap_or(Err(StoreError::Panicked))?;
        }
        if some_taken && state.failures > 0 {
            tracing::info!(%tenant, "a webhook takes events again");
        }
        match failed {
            Some((_, Attempt::Gone)) => {
                if self.store.delivery_stopped(&lease, webhook, "the receiver answered 410".into()).await? {
                    tracing::warn!(%tenant, "a webhook's receiver answered 410: it gets nothing until it is started again");
                }
                Ok(())
            }
            Some((event, Attempt::Failed(error))) => {
                let failures = if some_taken { 0 } else { state.failures };
                let clock = self.store.clock();
                let is_news = failures == 0 || state.last_error.as_ref() != Some(&error);
                let next = clock.now() + pause(failures);
                let counts = self.store.delivery_failed(&lease, webhook, error.clone(), next).await?;
                if counts && is_news {
                    tracing::warn!(%tenant, error, "a webhook does not take events");
                }
                let given_up = clock.now() - self.retry_for;
                if counts && clock.is_steady() && event.timestamp.max(state.restarted_at.unwrap_or_default()) < given_up
                {
                    let dead = self.store.give_up_deliveries(&lease, given_up).await?;
                    metrics::given_up(dead);
                    tracing::warn!(%tenant, dead, "events were given up: a webhook's receiver did not take them");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn running(&self) -> parking_lot::MutexGuard<'_, HashMap<TenantId, Running>> {
        self.running.lock()
    }
}

/// Posts one event.
async fn attempt(event: &Event, Receiver { egress, target, key }: &Receiver) -> Attempt {
    let Ok(body) = serde_json::to_string(event) else { return Attempt::Failed("the event is damaged".into()) };
    let timestamp = clock::wall().timestamp();
    let signature = key.sign(&event.id, timestamp, body.as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let signed = [
        ("webhook-id", event.id.clone()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ];
    for (name, value) in signed {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    let begun = Instant::now();
    let answer = egress.post(target, headers, body).await;
    let outcome = match &answer {
        Ok(200..=299) => Delivered::Taken,
        Ok(410) => Delivered::Stopped,
        Ok(_) => Delivered::Refused,
        Err(_) => Delivered::Unreachable,
    };
    metrics::delivered(outcome, begun.elapsed());
    match answer {
        Ok(200..=299) => Attempt::Taken,
        Ok(410) => Attempt::Gone,
        Ok(status) => Attempt::Failed(format!("the receiver answered {status}")),
        Err(error) => Attempt::Failed(error.to_string()),
    }
}

/// What is wrong with the database, so that the log is told once.
#[derive(Default)]
struct Trouble {
    told: Option<String>,
    times: u32,
}

impl Trouble {
    /// Whether this is something else than before.
    fn is_news(&mut self, error: &StoreError) -> bool {
        let text = error.to_string();
        self.told.replace(text.clone()) != Some(text)
    }

    /// How long to wait now.
    fn pause(&mut self) -> Duration {
        let doubled = STORE_PAUSE.saturating_mul(2_u32.saturating_pow(self.times.min(16)));
        self.times += 1;
        doubled.min(LONGEST_STORE_PAUSE)
    }

    /// All is well: whether it was not before.
    fn is_over(&mut self) -> bool {
        self.times = 0;
        self.told.take().is_some()
    }
}

/// The wait after so many failures before this one: doubling, and a quarter more or less, so that receivers that came
/// back together are not hit together.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_has_an_end() {
        for (failures, seconds) in [(0, 1.0), (1, 2.0), (5, 32.0), (11, 2048.0), (12, 3600.0), (u32::MAX, 3600.0)] {
            let pause = pause(failures).as_secs_f64();
            assert!((seconds * 0.75..seconds * 1.25).contains(&pause), "{failures}: {pause}");
        }
    }
}
