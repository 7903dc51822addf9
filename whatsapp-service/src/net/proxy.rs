//! A tenant's own way to WhatsApp: a SOCKS5 or HTTP proxy. Tenants choose it, so that it is reached only at addresses that
//! they may choose.

use std::{
    fmt,
    future::{Ready, poll_fn, ready},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    vec,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hyper::{Uri, header::HeaderValue};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::Name,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;
use ureq::{
    config::Config,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::net::{dial::in_full, policy::Policy};

/// The longest name and the longest password: SOCKS5 has one byte for each length (RFC 1929).
const MAX_LOGIN: usize = 255;

/// A SOCKS5 or HTTP proxy. Whatever prints it leaves out the name and the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy {
    /// As it was given, with the password.
    text: String,
    kind: Kind,
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// RFC 1928. The proxy looks names up, as curl's `socks5h:` has it.
    Socks5,
    /// `CONNECT`, RFC 9110.
    Http,
}

/// A text is not a proxy's address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// It is no URL.
    #[error("it is not a URL, as socks5://user:password@host:port")]
    NotAUrl,
    /// There are only these.
    #[error("its scheme is not socks5 or http")]
    Scheme,
    /// Ports are not guessed.
    #[error("it needs a host and a port")]
    Address,
    /// There is nothing that it could mean.
    #[error("nothing can follow the port")]
    Path,
    /// SOCKS5 can't carry it.
    #[error("its user name and password are both needed if one is there, and have up to 255 bytes each")]
    Login,
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let url: Uri = text.parse().map_err(|_| InvalidProxy::NotAUrl)?;
        let kind = match url.scheme_str() {
            Some("socks5" | "socks5h") => Kind::Socks5,
            Some("http") => Kind::Http,
            _ => return Err(InvalidProxy::Scheme),
        };
        let host = url.host().filter(|host| !host.is_empty() && host.len() <= 255).ok_or(InvalidProxy::Address)?;
        let port = url.port_u16().filter(|port| *port != 0).ok_or(InvalidProxy::Address)?;
        if !url.path().trim_start_matches('/').is_empty() || url.query().is_some() {
            return Err(InvalidProxy::Path);
        }
        // What ureq reads from it decides, so that both ways of a tenant, the socket and HTTP, have the same login.
        let parsed = ureq::Proxy::new(text).map_err(|_| InvalidProxy::NotAUrl)?;
        let fits = |text: &str| (1..=MAX_LOGIN).contains(&text.len());
        let login = match (parsed.username(), parsed.password()) {
            (None, None) => None,
            (Some(name), Some(password)) if fits(name) && fits(password) => {
                Some((name.to_owned(), password.to_owned()))
            }
            _ => return Err(InvalidProxy::Login),
        };
        Ok(Self { text: text.into(), kind, host: host.into(), port, login })
    }
}

impl TryFrom<String> for Proxy {
    type Error = InvalidProxy;

    fn try_from(text: String) -> Result<Self, InvalidProxy> {
        text.parse()
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> Self {
        proxy.text
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.kind == Kind::Http { "http" } else { "socks5" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The proxy is, or its name leads to, an address that tenants may not choose.
#[derive(Debug, thiserror::Error)]
#[error("its address is private, local or reserved, which needs ALLOW_PRIVATE_TARGETS=true")]
pub struct NotAllowed;

impl Proxy {
    /// Refuses an address that stands in the text and may not be chosen. What a name leads to is checked when the proxy is
    /// connected to, each time.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, policy: Policy) -> Result<(), NotAllowed> {
        let literal = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if literal.is_ok_and(|ip| !policy.allows(ip)) { Err(NotAllowed) } else { Ok(()) }
    }

    /// Has the proxy open a connection to a host and port. An error is for the operator, and holds no password.
    pub(crate) async fn connect(
        &self,
        tcp: HttpConnector<CheckedLookup>,
        to: Uri,
    ) -> Result<TokioIo<TcpStream>, String> {
        let address =
            format!("http://{}:{}", self.host, self.port).parse::<Uri>().map_err(|error| error.to_string())?;
        // Opened here, because what follows leaves out why it could not be.
        let tcp = Opened(Some(through(tcp, address.clone()).await.map_err(|error| in_full(&error))?));
        match self.kind {
            Kind::Socks5 => {
                let mut socks = SocksV5::new(address, tcp);
                if let Some((name, password)) = &self.login {
                    socks = socks.with_auth(name.clone(), password.clone());
                }
                through(socks, to).await.map_err(|error| in_full(&error))
            }
            Kind::Http => {
                let mut tunnel = Tunnel::new(address, tcp);
                if let Some((name, password)) = &self.login {
                    let login = format!("Basic {}", BASE64.encode(format!("{name}:{password}")));
                    tunnel = tunnel.with_auth(HeaderValue::try_from(login).map_err(|error| error.to_string())?);
                }
                through(tunnel, to).await.map_err(|error| in_full(&error))
            }
        }
    }

    /// The same proxy for HTTP; it looks names up there too.
    pub(crate) fn for_http(&self) -> Result<ureq::Proxy, ureq::Error> {
        let kind = if self.kind == Kind::Http { ureq::ProxyProtocol::Http } else { ureq::ProxyProtocol::Socks5h };
        let proxy = ureq::Proxy::builder(kind).host(&self.host).port(self.port).resolve_target(false);
        match &self.login {
            Some((name, password)) => proxy.username(name).password(password).build(),
            None => proxy.build(),
        }
    }
}

/// A connection that is there already, for whatever opens one.
struct Opened(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Opened {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::other("there is one connection")))
    }
}

/// Looks up the names of proxies. One bad address condemns the name: which one would be tried is not ours to say.
#[derive(Clone, Copy)]
pub struct CheckedLookup(pub Policy);

impl CheckedLookup {
    fn check(self, found: &[SocketAddr]) -> Result<(), NotAllowed> {
        if found.iter().all(|address| self.0.allows(address.ip())) { Ok(()) } else { Err(NotAllowed) }
    }
}

impl Service<Name> for CheckedLookup {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = *self;
        Box::pin(async move {
            let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
            lookup.check(&found).map_err(io::Error::other)?;
            Ok(found.into_iter())
        })
    }
}

impl fmt::Debug for CheckedLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedLookup")
    }
}

impl Resolver for CheckedLookup {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        self.check(&found).map_err(io::Error::other)?;
        Ok(found)
    }
}

/// Opens a connection by whatever opens connections.
pub(crate) async fn through<S: Service<Uri>>(mut opener: S, to: Uri) -> Result<S::Response, S::Error> {
    poll_fn(|context| opener.poll_ready(context)).await?;
    opener.call(to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_proxy_holds_no_secret() {
        for (text, shown) in [
            ("socks5://user:p%40ss@proxy.example:1080", "socks5://proxy.example:1080"),
            ("socks5h://proxy.example:1080", "socks5://proxy.example:1080"),
            ("http://user:pass@127.0.0.1:3128/", "http://127.0.0.1:3128"),
            ("http://[::1]:3128", "http://[::1]:3128"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.into(), shown.into()));
            assert_eq!(String::from(proxy.clone()), text, "as it was given, to be kept");
            assert!(proxy.for_http().is_ok(), "{text}");
        }
        let proxy: Proxy = "socks5://user:p%40ss@proxy.example:1080".parse().unwrap();
        assert_eq!(proxy.login, Some(("user".into(), "p@ss".into())));
        let for_http = proxy.for_http().unwrap();
        assert_eq!((for_http.username(), for_http.password()), (Some("user"), Some("p@ss")));
        assert!(!for_http.resolve_target(), "the proxy looks names up");
    }

    #[test]
    fn an_address_that_tenants_may_not_choose_is_refused() {
        let check = |text: &str, allow| text.parse::<Proxy>().unwrap().check(Policy::new(allow)).is_ok();
        for (text, public, private) in [
            ("socks5://8.8.8.8:1080", true, true),
            ("http://[2606:4700:4700::1111]:3128", true, true),
            ("http://user:pass@10.0.0.1:3128", false, true),
            ("socks5://127.0.0.1:22", false, true),
            ("socks5://169.254.169.254:80", false, true),
            ("http://[::1]:3128", false, true),
            ("http://[::ffff:192.168.0.1]:3128", false, true),
            ("socks5://0.0.0.0:1080", false, false),
            // What a name leads to is seen when it is looked up.
            ("socks5://localhost:1080", true, true),
            ("socks5://2130706433:1080", true, true),
        ] {
            assert_eq!((check(text, false), check(text, true)), (public, private), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_each_of_its_addresses_checked() {
        let look = async |name: &str, allow| {
            let found = CheckedLookup(Policy::new(allow)).call(name.parse().unwrap()).await;
            found.map(Iterator::count).map_err(|error| error.to_string())
        };
        for name in ["localhost", "2130706433", "127.1"] {
            assert_eq!(look(name, false).await, Err(NotAllowed.to_string()), "{name}");
            assert!(look(name, true).await.unwrap() > 0, "{name}");
        }
        let both = |other: [u8; 4]| [SocketAddr::from(([8, 8, 8, 8], 0)), SocketAddr::from((other, 0))];
        assert!(CheckedLookup(Policy::new(false)).check(&both([1, 1, 1, 1])).is_ok());
        assert!(CheckedLookup(Policy::new(false)).check(&both([10, 0, 0, 1])).is_err(), "one is enough");
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        let long = format!("socks5://{}:x@host:1", "u".repeat(256));
        for (text, why) in [
            ("", InvalidProxy::NotAUrl),
            ("socks5://ho st:1080", InvalidProxy::NotAUrl),
            ("proxy.example:1080", InvalidProxy::Scheme),
            ("https://proxy.example:443", InvalidProxy::Scheme),
            ("socks4://proxy.example:1080", InvalidProxy::Scheme),
            ("file:///etc/passwd", InvalidProxy::NotAUrl),
            ("socks5://proxy.example", InvalidProxy::Address),
            ("socks5://proxy.example:0", InvalidProxy::Address),
            ("http://proxy.example:3128/path", InvalidProxy::Path),
            ("http://proxy.example:3128/?query", InvalidProxy::Path),
            ("socks5://user@proxy.example:1080", InvalidProxy::Login),
            ("socks5://user:@proxy.example:1080", InvalidProxy::Login),
            (&long, InvalidProxy::Login),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(why), "{text}");
        }
    }
}
