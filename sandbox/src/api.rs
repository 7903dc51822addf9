//! Calls of the service.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Client, Method, RequestBuilder};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde_json::Value;

/// What the service and the programs that try it share.
pub const SECRET: &str = "trial";

/// How long a call may take that does not wait for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections without a call end after this time, so that they are not taken for a leak of the service.
const IDLE: Duration = Duration::from_secs(5);

/// The service's address, which survives its ends.
#[derive(Clone)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// A service that listens on this port of this machine.
    ///
    /// # Errors
    /// No HTTP client could be made.
    pub fn new(port: u16) -> anyhow::Result<Self> {
        // The service's way out brings TLS into this build, which then wants to be told whose arithmetic and whose
        // certificates to use; nothing here is reached by TLS. A proxy of the environment is for other machines.
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into());
        let tls = tls.with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(PATIENCE)
            .pool_idle_timeout(IDLE)
            .build()?;
        Ok(Self { http, url: format!("http://127.0.0.1:{port}") })
    }

    /// A request with the secret; of a tenant, if there is one.
    pub fn request(&self, method: Method, path: &str, tenant: Option<&str>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).header("X-Internal-Secret", SECRET);
        match tenant {
            Some(tenant) => request.header("X-Tenant-Id", tenant),
            None => request,
        }
    }

    /// One attempt to get something: HTTP status and body.
    ///
    /// # Errors
    /// There was no whole answer, or it is not JSON.
    pub async fn try_get(&self, tenant: Option<&str>, path: &str) -> anyhow::Result<(u16, Value)> {
        let response = self.request(Method::GET, path, tenant).send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await?))
    }

    /// Gets something from a service that may be coming back; anything but no answer and a 5xx counts.
    ///
    /// # Errors
    /// It did not come back.
    pub async fn get(&self, tenant: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        let since = Instant::now();
        loop {
            let last = match self.try_get(Some(tenant), path).await {
                Ok((status, body)) if status < 500 => return Ok((status, body)),
                Ok((status, body)) => anyhow::anyhow!("{status} {body}"),
                Err(error) => error,
            };
            if since.elapsed() > 4 * PATIENCE {
                return Err(last).with_context(|| format!("GET {path} has no answer"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// An answer other than 200, or one that is not as the list says.
    pub async fn all(&self, tenant: &str, list: &List) -> anyhow::Result<Vec<Value>> {
        let List { path, items, next, parameter, start } = list;
        let (mut all, mut cursor) = (Vec::new(), start.map(str::to_owned));
        loop {
            let from = cursor.map(|cursor| format!("&{parameter}={}", escaped(&cursor))).unwrap_or_default();
            let page = format!("{path}?limit=1000{from}");
            let (status, mut body) = self.get(tenant, &page).await?;
            anyhow::ensure!(status == 200, "GET {page}: {status} {body}");
            let Value::Array(found) = body[items].take() else { anyhow::bail!("GET {page}: no {items} in {body}") };
            let empty = found.is_empty();
            all.extend(found);
            cursor = Some(match &body[next] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Ok(all),
            });
            anyhow::ensure!(!empty, "GET {page}: an empty page that is not the last");
        }
    }
}

/// A list that comes in pages.
pub struct List {
    path: &'static str,
    /// The field with the page's items.
    items: &'static str,
    /// The field that leads to the next page, and the parameter that takes it.
    next: &'static str,
    parameter: &'static str,
    start: Option<&'static str>,
}

/// A tenant's messages.
pub const MESSAGES: List =
    List { path: "/messages", items: "messages", next: "nextCursor", parameter: "cursor", start: None };

/// A tenant's events, from the first.
pub const EVENTS: List =
    List { path: "/events", items: "events", next: "nextAfter", parameter: "after", start: Some("0") };

/// All tenants' sessions.
pub const SESSIONS: List =
    List { path: "/sessions", items: "sessions", next: "nextCursor", parameter: "cursor", start: None };

/// A text as it may stand in a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
