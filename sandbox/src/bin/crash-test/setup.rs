//! Accounts and linked tenants, before the load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;

use crate::at_once::at_once;
use crate::run::Run;

/// How many tenants are linked at the same time: each makes hundreds of keys.
const WIDTH: usize = 4;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(120);

/// Makes the accounts. The recipients come first, which is how their counters are found.
///
/// # Errors
/// A phone's keys can't be made.
pub fn add_accounts(run: &Run) -> anyhow::Result<()> {
    for (n, phone) in run.plan.recipients.iter().enumerate() {
        run.simulator.add_account(phone, &format!("Recipient {n}"))?;
    }
    for tenant in &run.plan.tenants {
        run.simulator.add_account(&tenant.phone, &tenant.name)?;
    }
    Ok(())
}

/// Waits for the service, and links each tenant to its phone.
///
/// # Errors
/// The service or the simulator doesn't do its part.
pub async fn pair_all(run: &Arc<Run>) -> anyhow::Result<()> {
    let since = Instant::now();
    while !matches!(run.api.try_get(None, "/health").await, Ok((200, _))) {
        anyhow::ensure!(since.elapsed() < STEP, "the service doesn't start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = (0..run.plan.tenants.len()).collect();
    at_once(WIDTH, all, run, |run, index| async move {
        let name = &run.plan.tenants[index].name;
        pair(&run, index).await.with_context(|| format!("linking {name}"))
    })
    .await
}

async fn pair(run: &Run, index: usize) -> anyhow::Result<()> {
    let tenant = &run.plan.tenants[index];
    let opened = run.api.request(Method::POST, "/session", Some(&tenant.name)).send().await?;
    let (status, body) = (opened.status(), opened.text().await?);
    anyhow::ensure!(status.is_success(), "POST /session: {status} {body}");
    let is_ready = |body: &Value| body["state"] == "ready";
    let shown = until(run, &tenant.name, |body| is_ready(body) || body["qrCode"].is_string()).await?;
    if let (false, Some(code)) = (is_ready(&shown), shown["qrCode"].as_str()) {
        run.world().scan_qr(code, Some(&tenant.phone)).await?;
        until(run, &tenant.name, is_ready).await?;
    }
    Ok(())
}

/// Waits until a tenant's status is as wanted.
async fn until(run: &Run, tenant: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let since = Instant::now();
    loop {
        let (status, body) = run.api.get(tenant, "/status").await?;
        if status == 200 && wanted(&body) {
            return Ok(body);
        }
        anyhow::ensure!(since.elapsed() < STEP, "GET /status stays {status} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
