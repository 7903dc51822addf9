//! Calls of the service and of the simulator.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// The service's INTERNAL_SECRET.
pub const SECRET: &str = "fleet";

/// How long one call may take: longer than a send, which is answered after 20 seconds in any case.
const CALL: Duration = Duration::from_secs(60);

/// A client for both. Clones share its connections.
///
/// # Errors
/// It can't be made.
pub fn client() -> anyhow::Result<Client> {
    // This build brings TLS, which wants to be told whose arithmetic and certificates to use; nothing here is reached
    // by TLS.
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(CALL).build()?)
}

/// The service's HTTP interface.
#[derive(Clone)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// Of the service on this port.
    pub fn new(http: Client, port: u16) -> Self {
        Self { http, url: format!("http://127.0.0.1:{port}") }
    }

    /// A call, as a tenant if one is named.
    pub fn request(&self, method: Method, path: &str, tenant: Option<u32>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).header("X-Internal-Secret", SECRET);
        match tenant {
            Some(tenant) => request.header("X-Tenant-Id", format!("tenant-{tenant}")),
            None => request,
        }
    }

    /// The answer to a call, if it succeeds.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn call(&self, method: Method, path: &str, tenant: Option<u32>) -> anyhow::Result<Value> {
        answer(self.request(method, path, tenant), path).await
    }

    /// How many sessions are ready; `None` if the service doesn't say.
    pub async fn ready(&self) -> Option<u64> {
        self.call(Method::GET, "/health", None).await.ok()?["sessions"].as_u64()
    }

    /// How many transactions of the database have reached the disk.
    ///
    /// # Errors
    /// The service doesn't say.
    pub async fn commits(&self) -> anyhow::Result<f64> {
        const COMMITS: &str = "whatsapp_store_commits_total{outcome=\"ok\"} ";
        let metrics = self.request(Method::GET, "/metrics", None).send().await?.error_for_status()?.text().await?;
        let commits = metrics.lines().find_map(|line| line.strip_prefix(COMMITS));
        Ok(commits.context("no commits in /metrics")?.parse()?)
    }
}

/// The simulator's control API.
#[derive(Clone)]
pub struct Phones {
    http: Client,
    url: String,
}

impl Phones {
    /// At this address.
    pub fn new(http: Client, url: String) -> Self {
        Self { http, url }
    }

    /// Makes an account.
    ///
    /// # Errors
    /// The simulator refuses.
    pub async fn add_account(&self, phone: &str, name: &str) -> anyhow::Result<()> {
        let path = "/admin/accounts";
        let body = serde_json::json!({"phone": phone, "name": name});
        answer(self.http.post(format!("{}{path}", self.url)).json(&body), path).await.map(drop)
    }

    /// Has a phone scan a QR code.
    ///
    /// # Errors
    /// The simulator refuses.
    pub async fn scan(&self, phone: &str, code: String) -> anyhow::Result<()> {
        let path = "/admin/mock-phone/scan-qr";
        answer(self.http.post(format!("{}{path}?phone={phone}", self.url)).body(code), path).await.map(drop)
    }
}

async fn answer(request: RequestBuilder, path: &str) -> anyhow::Result<Value> {
    let response = request.send().await.with_context(|| format!("no answer to {path}"))?;
    let (status, text) = (response.status(), response.text().await?);
    anyhow::ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}
