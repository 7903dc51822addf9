//! Accounts and linked tenants.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::api::{Api, Phones};

/// How long one tenant may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a tenant's state is asked for.
const POLL: Duration = Duration::from_millis(40);

/// Links these tenants, each to a phone of its own, so many at the same time.
///
/// # Errors
/// The service or the simulator doesn't do its part.
pub async fn pair(api: &Api, phones: &Phones, tenants: Range<u32>, width: u32) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU32::new(tenants.start));
    let mut running = JoinSet::new();
    for _ in 0..width {
        let (api, phones, next, end) = (api.clone(), phones.clone(), next.clone(), tenants.end);
        running.spawn(async move {
            loop {
                let tenant = next.fetch_add(1, Ordering::Relaxed);
                if tenant >= end {
                    return anyhow::Ok(());
                }
                pair_one(&api, &phones, tenant).await.with_context(|| format!("linking tenant {tenant}"))?;
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

async fn pair_one(api: &Api, phones: &Phones, tenant: u32) -> anyhow::Result<()> {
    let phone = format!("55119{tenant:08}");
    phones.add_account(&phone, &format!("Tenant {tenant}")).await?;
    let opened = api.call(Method::POST, "/session", Some(tenant)).await?;
    let shown = until(api, tenant, opened, |session| session["qrCode"].is_string()).await?;
    phones.scan(&phone, shown["qrCode"].as_str().unwrap_or_default().into()).await?;
    until(api, tenant, shown, |session| session["state"] == "ready").await.map(drop)
}

/// Waits until a tenant's status is as wanted.
async fn until(api: &Api, tenant: u32, last: Value, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let (since, mut session) = (Instant::now(), last);
    while !wanted(&session) {
        anyhow::ensure!(since.elapsed() < PATIENCE, "its state stays {}", session["state"]);
        tokio::time::sleep(POLL).await;
        session = api.call(Method::GET, "/status", Some(tenant)).await?;
    }
    Ok(session)
}
