//! The only way out to addresses that tenants choose. It reaches public addresses alone: a name is resolved here, and
//! the connection goes to an address that was checked, so that no name can point somewhere else in between.

use crate::net::policy::Policy;
use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Body, Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect, retry,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{
    net::lookup_host,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// The longest URL, in characters.
const URL_MAX: usize = 2_048;
/// How long a name may take to resolve and a connection to open, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a name may take to resolve that is only to be checked.
const NAME_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a whole request may take, with its answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next request to the same receiver.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer is read, in bytes. A connection whose answer is longer is closed.
const ANSWER_MAX: usize = 64 * 1024;
/// How many names may be looked up at once: each takes a thread of the pool that others need too.
const LOOKUPS: usize = 64;

/// The client for requests to tenants' addresses. Clones share their connections.
#[derive(Clone)]
pub struct Egress {
    client: Client,
    resolver: Resolver,
    policy: Policy,
    timeout: Duration,
}

/// A URL that was checked by [`Egress::target`].
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTarget {
    /// More than 2,048 characters.
    #[error("url must be at most 2048 characters long")]
    TooLong,
    /// Not an absolute URL with a valid host.
    #[error("url must be an absolute URL with a valid host name or address")]
    Invalid,
    /// Neither http nor https.
    #[error("url must begin with https:// or http://")]
    Scheme,
    /// A user name or a password.
    #[error("url must not contain a user name or a password")]
    Credentials,
    /// A fragment.
    #[error("url must not contain a fragment (#…)")]
    Fragment,
    /// The host is an address that must not be reached.
    #[error("url must not point to a private, local or reserved address (the setting ALLOW_PRIVATE_TARGETS allows it)")]
    Address,
    /// The host's name leads to such an address.
    #[error(
        "url must not point to a private, local or reserved address, and its host name leads to one (the setting \
         ALLOW_PRIVATE_TARGETS allows it)"
    )]
    Name,
}

/// Why a request has no answer. The text names neither the URL nor an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// No answer in time. The receiver may have got the request.
    #[error("timed out")]
    TimedOut,
    /// The host is, or resolves to, an address that must not be reached. Nothing was sent.
    #[error("the address is not allowed")]
    NotAllowed,
    /// The name has no address, or nobody answers there. Nothing was sent.
    #[error("could not connect")]
    NotConnected,
    /// No TLS session, or no valid certificate.
    #[error("TLS failed")]
    Tls,
    /// The connection ended before the answer, or the answer is not HTTP. The receiver may have got the request.
    #[error("the connection broke")]
    Broken,
}

impl Egress {
    /// A client that reaches public addresses only, or with `allow_private` (for tests and for receivers in the same
    /// network) all but the unspecified, multicast and broadcast ones.
    pub fn new(allow_private: bool) -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::build(Policy::new(allow_private), roots, TIMEOUT, system_lookup)
    }

    fn build(policy: Policy, roots: RootCertStore, timeout: Duration, lookup: Lookup) -> Self {
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let resolver = Resolver { policy, lookup, free: Arc::new(Semaphore::new(LOOKUPS)) };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(resolver.clone())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("whatsapp-service/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("the settings are constants and valid");
        Self { client, resolver, policy, timeout }
    }

    /// Checks a URL: http or https, no credentials, no fragment, and no address that must not be reached. What a
    /// name resolves to is checked by [`Egress::post`], each time.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn target(&self, text: &str) -> Result<Target, RefusedTarget> {
        if text.chars().count() > URL_MAX {
            return Err(RefusedTarget::TooLong);
        }
        let url = Url::parse(text).map_err(|_| RefusedTarget::Invalid)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(RefusedTarget::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RefusedTarget::Credentials);
        }
        if url.fragment().is_some() {
            return Err(RefusedTarget::Fragment);
        }
        match literal(&url) {
            Some(ip) if !self.policy.allows(ip) => Err(RefusedTarget::Address),
            None if !url.host_str().is_some_and(is_name) => Err(RefusedTarget::Invalid),
            _ => Ok(Target(url)),
        }
    }

    /// Looks a target's name up, so that whoever gives it learns at once that it leads where nothing must go. A name that
    /// has no address now, or not in time, may get one: each connection looks for itself.
    ///
    /// # Errors
    /// It leads to an address that must not be reached.
    pub async fn look_up(&self, target: &Target) -> Result<(), RefusedTarget> {
        let (None, Some(name)) = (literal(&target.0), target.0.host_str()) else { return Ok(()) };
        match timeout_at(Instant::now() + NAME_TIMEOUT, self.resolver.look_up(name.to_owned())).await {
            Ok(Err(error)) if has_cause::<NotAllowed>(&*error) => Err(RefusedTarget::Name),
            _ => Ok(()),
        }
    }

    /// The target that a redirect from `target` leads to, checked like any other.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn redirected(&self, target: &Target, location: &str) -> Result<Target, RefusedTarget> {
        let mut url = target.0.join(location).map_err(|_| RefusedTarget::Invalid)?;
        // It is for whoever shows the page, and is never sent.
        url.set_fragment(None);
        self.target(url.as_str())
    }

    /// Sends one GET request and gives the answer, whatever it is, without its body: redirects are not followed. Who
    /// reads the body limits its length and the time that it takes.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn get(&self, target: &Target) -> Result<Response, PostError> {
        if literal(&target.0).is_some_and(|ip| !self.policy.allows(ip)) {
            return Err(PostError::NotAllowed);
        }
        let answer = self.client.get(target.0.clone()).send();
        Ok(timeout_at(Instant::now() + self.timeout, answer).await.map_err(|_| PostError::TimedOut)??)
    }

    /// Sends one POST request and gives the status of the answer, whatever it is: redirects are not followed. An
    /// answer that begins in time counts, even if its body never ends; at most 64 KiB of that are read.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn post(&self, target: &Target, headers: HeaderMap, body: impl Into<Body>) -> Result<u16, PostError> {
        // An address in the URL needs no resolver; and the target may be another client's, with another policy.
        if literal(&target.0).is_some_and(|ip| !self.policy.allows(ip)) {
            return Err(PostError::NotAllowed);
        }
        let deadline = Instant::now() + self.timeout;
        let request = self.client.post(target.0.clone()).headers(headers).body(body);
        let mut answer = timeout_at(deadline, request.send()).await.map_err(|_| PostError::TimedOut)??;
        // Only a connection whose answer was read to its end can be used again.
        let drain = async {
            let mut read = 0;
            while read < ANSWER_MAX
                && let Ok(Some(chunk)) = answer.chunk().await
            {
                read += chunk.len();
            }
        };
        let _ = timeout_at(deadline, drain).await;
        Ok(answer.status().as_u16())
    }
}

impl Target {
    /// The URL in its normal form. It may hold secrets of the receiver.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.0.host_str().unwrap_or_default()).finish()
    }
}

impl From<reqwest::Error> for PostError {
    fn from(error: reqwest::Error) -> Self {
        if has_cause::<NotAllowed>(&error) {
            Self::NotAllowed
        } else if error.is_timeout() {
            Self::TimedOut
        } else if has_cause::<rustls::Error>(&error) {
            Self::Tls
        } else if error.is_connect() {
            Self::NotConnected
        } else {
            Self::Broken
        }
    }
}

/// Whether an error of this type is behind this one.
fn has_cause<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    // `source` of an I/O error skips the error that it wraps.
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    error.is::<T>()
        || match wrapped {
            Some(wrapped) => has_cause::<T>(wrapped),
            None => error.source().is_some_and(has_cause::<T>),
        }
}

/// The address that stands in the URL instead of a name. The connector decides by the same rule whether it resolves.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether this is a name in the form that resolvers take: `Url` lets more pass.
fn is_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

type Lookup = fn(String) -> Looking;
type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

fn system_lookup(name: String) -> Looking {
    Box::pin(async move { Ok(lookup_host((name, 0)).await?.collect()) })
}

/// Resolves names to addresses that may be reached.
#[derive(Clone)]
struct Resolver {
    policy: Policy,
    lookup: Lookup,
    free: Arc<Semaphore>,
}

/// A name has an address that must not be reached.
#[derive(Debug, thiserror::Error)]
#[error("the address is not allowed")]
struct NotAllowed;

impl Resolver {
    fn look_up(&self, name: String) -> impl Future<Output = LookedUp> + Send + use<> {
        let (policy, lookup, free) = (self.policy, self.lookup, self.free.clone());
        async move {
            let permit = free.acquire_owned().await?;
            // A look-up can't be stopped. Its permit comes back when it has ended, not when nobody waits any more.
            let running = tokio::spawn(async move {
                let found = lookup(name).await;
                drop(permit);
                found
            });
            let found = running.await??;
            // One bad address condemns the name: which one would be tried is not ours to say.
            if !found.iter().all(|address| policy.allows(address.ip())) {
                return Err(NotAllowed.into());
            }
            Ok(found)
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.look_up(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(found.await?.into_iter()) as Addrs) })
    }
}

type LookedUp = Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>>;

#[cfg(test)]
mod tests;
