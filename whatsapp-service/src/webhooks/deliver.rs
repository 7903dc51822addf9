//! Delivering one tenant's events, in order, until its receiver has taken them.

use crate::{
    metrics::{self, Delivered},
    model::{event::Event, tenant::TenantId},
    store::{
        error::StoreError,
        lease::Lease,
        webhooks::{Delivery, Webhook},
    },
    util::clock,
    webhooks::{Receiver, Webhooks},
};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use std::time::{Duration, Instant};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

/// The wait after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long to wait when the database can't be read: it doubles each time, up to so much.
const STORE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(60);

/// What became of an attempt.
pub(crate) enum Attempt {
    Taken,
    Gone,
    Failed(String),
}

impl Webhooks {
    pub(crate) async fn deliver_all(&self, tenant: &TenantId, woken: &Notify) {
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

    /// Writes down which events were taken, in order, also when the one who says so goes. What comes while a write is under
    /// way shares the next one.
    fn record(&self, lease: Lease) -> (mpsc::UnboundedSender<i64>, JoinHandle<Result<(), StoreError>>) {
        let (taken, mut waiting) = mpsc::unbounded_channel();
        let store = self.store.clone();
        let recording = self.tasks.spawn(async move {
            let mut sequences = Vec::new();
            while waiting.recv_many(&mut sequences, 1000).await > 0 {
                store.delivered(&lease, std::mem::take(&mut sequences)).await?;
            }
            Ok(())
        });
        (taken, recording)
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
        // Each is written down at once and in order, and waited for at the end: a kill repeats as few as can be, and
        // never one without those behind it.
        let (taken, recording) = self.record(lease.clone());
        let (mut some_taken, mut failed) = (false, None);
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
                    some_taken = true;
                    // Nobody listens only after an error, which is met below.
                    let _ = taken.send(event.sequence);
                }
                failure => {
                    failed = Some((event, failure));
                    break;
                }
            }
        }
        drop(taken);
        recording.await.unwrap_or(Err(StoreError::Panicked))?;
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
}

/// Posts one event.
pub(crate) async fn attempt(event: &Event, Receiver { egress, target, key }: &Receiver) -> Attempt {
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
pub(crate) struct Trouble {
    told: Option<String>,
    times: u32,
}

impl Trouble {
    /// Whether this is something else than before.
    pub(crate) fn is_news(&mut self, error: &StoreError) -> bool {
        let text = error.to_string();
        self.told.replace(text.clone()) != Some(text)
    }

    /// How long to wait now.
    pub(crate) fn pause(&mut self) -> Duration {
        let doubled = STORE_PAUSE.saturating_mul(2_u32.saturating_pow(self.times.min(16)));
        self.times += 1;
        doubled.min(LONGEST_STORE_PAUSE)
    }

    /// All is well: whether it was not before.
    pub(crate) fn is_over(&mut self) -> bool {
        self.times = 0;
        self.told.take().is_some()
    }
}

/// The wait after so many failures before this one: doubling, and a quarter more or less, so that receivers that came
/// back together are not hit together.
pub(crate) fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.75..1.25))
}
