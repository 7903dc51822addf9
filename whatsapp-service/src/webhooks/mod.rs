//! Webhooks: each tenant's events, posted to its receiver in order, until it has taken them.
//!
//! Each tenant with something to deliver has a task of its own, so that a receiver that is slow, dead or hostile delays
//! nobody else. What is to be delivered is on the disk; the task only remembers where to look.

pub mod deliver;
pub mod signature;

use std::{collections::HashMap, sync::Arc};

use chrono::TimeDelta;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, UnreadableSecret},
    model::{event::EventKind, tenant::TenantId},
    net::egress::{Egress, RefusedTarget, Target},
    store::{
        Store,
        error::StoreError,
        webhooks::{Webhook, WebhookSummary},
    },
    util::supervise::supervised,
    webhooks::{
        deliver::Trouble,
        signature::{InvalidSecret, SigningKey},
    },
};

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
pub(crate) struct Receiver {
    pub(crate) egress: Egress,
    pub(crate) target: Target,
    pub(crate) key: SigningKey,
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

    fn running(&self) -> parking_lot::MutexGuard<'_, HashMap<TenantId, Running>> {
        self.running.lock()
    }
}

#[cfg(test)]
mod tests;
