//! Accounts and linked tenants, before a load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use whatsapp_simulator::{InvalidPhone, Phone, Simulator, World};

use crate::api::Api;
use crate::at_once::at_once;

/// How many tenants are linked at the same time: each makes hundreds of keys.
const WIDTH: usize = 4;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(120);

/// A tenant of the service.
#[derive(Clone)]
pub struct Tenant {
    /// Its id.
    pub name: String,
    /// The phone that it is linked to.
    pub phone: Phone,
}

/// So many tenants.
///
/// # Errors
/// There are not so many numbers.
pub fn tenants(count: usize) -> Result<Vec<Tenant>, InvalidPhone> {
    (0..count).map(|n| Ok(Tenant { name: format!("tenant-{n}"), phone: numbered(4_915_100_000_000, n)? })).collect()
}

/// The phones of so many recipients.
///
/// # Errors
/// There are not so many numbers.
pub fn recipients(count: usize) -> Result<Vec<Phone>, InvalidPhone> {
    (0..count).map(|n| numbered(4_916_200_000_000, n)).collect()
}

fn numbered(from: u64, n: usize) -> Result<Phone, InvalidPhone> {
    Phone::parse(&(from + n as u64).to_string())
}

/// Makes the accounts. The recipients come first, which is how their counters are found.
///
/// # Errors
/// A phone's keys can't be made.
pub fn add_accounts(simulator: &Simulator, recipients: &[Phone], tenants: &[Tenant]) -> anyhow::Result<()> {
    for (n, phone) in recipients.iter().enumerate() {
        simulator.add_account(phone, &format!("Recipient {n}"))?;
    }
    for tenant in tenants {
        simulator.add_account(&tenant.phone, &tenant.name)?;
    }
    Ok(())
}

/// Waits for the service, and links each tenant to its phone.
///
/// # Errors
/// The service or the simulator doesn't do its part.
pub async fn pair_all(api: &Api, world: &Arc<World>, tenants: &[Tenant]) -> anyhow::Result<()> {
    let since = Instant::now();
    while !matches!(api.try_get(None, "/health").await, Ok((200, _))) {
        anyhow::ensure!(since.elapsed() < STEP, "the service doesn't start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let sides = Arc::new((api.clone(), Arc::clone(world)));
    at_once(WIDTH, tenants.to_vec(), &sides, |sides, tenant| async move {
        let (api, world) = &*sides;
        pair(api, world, &tenant).await.with_context(|| format!("linking {}", tenant.name))
    })
    .await
}

async fn pair(api: &Api, world: &Arc<World>, tenant: &Tenant) -> anyhow::Result<()> {
    let opened = api.request(Method::POST, "/session", Some(&tenant.name)).send().await?;
    let (status, body) = (opened.status(), opened.text().await?);
    anyhow::ensure!(status.is_success(), "POST /session: {status} {body}");
    let is_ready = |body: &Value| body["state"] == "ready";
    let shown = until(api, &tenant.name, |body| is_ready(body) || body["qrCode"].is_string()).await?;
    if let (false, Some(code)) = (is_ready(&shown), shown["qrCode"].as_str()) {
        world.scan_qr(code, Some(&tenant.phone)).await?;
        until(api, &tenant.name, is_ready).await?;
    }
    Ok(())
}

/// Waits until a tenant's status is as wanted.
async fn until(api: &Api, tenant: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let since = Instant::now();
    loop {
        let (status, body) = api.get(tenant, "/status").await?;
        if status == 200 && wanted(&body) {
            return Ok(body);
        }
        anyhow::ensure!(since.elapsed() < STEP, "GET /status stays {status} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
