//! Callers of `POST /send`: as fast as they are answered, or at a rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;

/// How many of the recipients each tenant writes to.
pub const RECIPIENTS_OF_A_TENANT: usize = 2;

/// Messages of some tenants, in turn, each to a few recipients.
pub struct Load {
    pub api: Api,
    pub recipients: Vec<String>,
    pub tenants: u32,
    /// The number of the next message.
    pub next: AtomicUsize,
}

/// What came of a load.
pub struct Outcome {
    /// From the first call to the last answer.
    pub lasted: Duration,
    /// How many answers had which status; 0 stands for no answer.
    pub answers: BTreeMap<u16, usize>,
    /// How long each answer took, shortest first.
    latencies: Vec<Duration>,
}

impl Load {
    /// By these tenants.
    pub fn new(api: &Api, recipients: &[String], tenants: u32) -> Arc<Self> {
        Arc::new(Self { api: api.clone(), recipients: recipients.to_vec(), tenants, next: AtomicUsize::new(0) })
    }

    /// The next message, as a tenant's call. The status of the answer.
    async fn send(&self) -> u16 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let (round, tenant) = (n / self.tenants as usize, (n % self.tenants as usize) as u32);
        let to = &self.recipients[(tenant as usize + round % RECIPIENTS_OF_A_TENANT) % self.recipients.len()];
        let body = json!({"to": to, "message": format!("message {n}")});
        match self.api.request(Method::POST, "/send", Some(tenant)).json(&body).send().await {
            // The whole answer, or the connection can't be used again.
            Ok(answer) => {
                let status = answer.status().as_u16();
                if answer.bytes().await.is_ok() { status } else { 0 }
            }
            Err(_) => 0,
        }
    }

    /// Each tenant writes to each of its recipients once, so that no first message, which looks the number up and
    /// fetches keys, is in the figures. How many were not acknowledged.
    ///
    /// # Errors
    /// A caller panicked.
    pub async fn warm_up(self: &Arc<Self>, callers: u32) -> anyhow::Result<usize> {
        let all = self.tenants as usize * RECIPIENTS_OF_A_TENANT;
        let outcome = self.call(callers, move |load| load.next.load(Ordering::Relaxed) < all).await?;
        Ok(outcome.failed())
    }

    /// As many callers, for so long, each of which sends again as soon as it is answered.
    ///
    /// # Errors
    /// A caller panicked.
    pub async fn as_fast_as_answered(self: &Arc<Self>, callers: u32, lasting: Duration) -> anyhow::Result<Outcome> {
        let end = Instant::now() + lasting;
        self.call(callers, move |_| Instant::now() < end).await
    }

    async fn call(
        self: &Arc<Self>,
        callers: u32,
        more: impl Fn(&Self) -> bool + Clone + Send + 'static,
    ) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let (load, more) = (self.clone(), more.clone());
            running.spawn(async move {
                let mut calls = Vec::new();
                while more(&load) {
                    let since = Instant::now();
                    let status = load.send().await;
                    calls.push((status, since.elapsed()));
                }
                calls
            });
        }
        let mut calls = Vec::new();
        while let Some(made) = running.join_next().await {
            calls.extend(made?);
        }
        Ok(Outcome::of(calls, started.elapsed()))
    }

    /// So many messages a second, for so long, whether the ones before are answered or not. How long an answer takes is
    /// counted from the moment its message was due: a service that falls behind can't hide it by slowing its callers.
    ///
    /// # Errors
    /// A caller panicked.
    pub async fn at_rate(self: &Arc<Self>, rate: u32, lasting: Duration) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let messages = (f64::from(rate) * lasting.as_secs_f64()) as u32;
        let mut running = JoinSet::new();
        for n in 0..messages {
            let due = started + Duration::from_secs_f64(f64::from(n) / f64::from(rate));
            tokio::time::sleep_until(due).await;
            let load = self.clone();
            running.spawn(async move { (load.send().await, due.elapsed()) });
        }
        let mut calls = Vec::new();
        while let Some(made) = running.join_next().await {
            calls.push(made?);
        }
        Ok(Outcome::of(calls, started.elapsed()))
    }
}

impl Outcome {
    fn of(calls: Vec<(u16, Duration)>, lasted: Duration) -> Self {
        let mut answers = BTreeMap::new();
        for (status, _) in &calls {
            *answers.entry(*status).or_default() += 1;
        }
        let mut latencies: Vec<_> = calls.into_iter().map(|(_, latency)| latency).collect();
        latencies.sort_unstable();
        Self { lasted, answers, latencies }
    }

    /// How many were answered with 200: WhatsApp has acknowledged them.
    pub fn sent(&self) -> usize {
        self.answers.get(&200).copied().unwrap_or_default()
    }

    /// How many were answered with anything else, or not at all.
    pub fn failed(&self) -> usize {
        self.latencies.len() - self.sent()
    }

    /// So many percent of all answers took no longer than this.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}
