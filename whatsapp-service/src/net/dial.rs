//! How a connection to WhatsApp is opened: TCP or a tenant's proxy, TLS, and the upgrade to a WebSocket.

use std::{error::Error, io, sync::Arc, time::Duration};

use hyper::{
    Uri,
    header::{HeaderValue, ORIGIN},
    http::uri::Authority,
};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{ServerName, TrustAnchor},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{client::IntoClientRequest, protocol::WebSocketConfig},
};
use tokio_util::either::Either;

use crate::net::{
    policy::Policy,
    proxy::{CheckedLookup, Proxy, through},
    trust::Trust,
};

/// Where WhatsApp Web comes from, as it says itself (whatsmeow and the library send the same).
pub const WHATSAPP_WEB_ORIGIN: &str = "https://web.whatsapp.com";
/// Where WhatsApp Web connects to.
const WHATSAPP_WEB_WS_URL: &str = "wss://web.whatsapp.com/ws/chat";

/// How long opening a TCP connection may take, and how long the proxy may take to open its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For how long nothing may come before the kernel asks whether the other end is still there, and how often it asks.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// How long what was sent may stay without the other kernel's acknowledgement.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(30);
/// The longest frame of the protocol is 16 MiB; a message may hold its length and an intro too.
const MAX_MESSAGE: usize = 16 * 1024 * 1024 + 64 * 1024;
/// What each connection holds to read into. Most frames are shorter, and thousands of connections hold one each.
pub const READ_BUFFER: usize = 2 * 1024;
/// How many servers' session tickets are kept: there is one server, and a few media hosts.
const REMEMBERED_SERVERS: usize = 8;

/// What is said of a proxy that fails, whatever the cause.
pub const PROXY_FAILED: &str = "The session's proxy does not lead to WhatsApp.";

/// An open connection.
pub type WebSocket = WebSocketStream<Stream>;

/// A connection, with TLS or without.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// WhatsApp's address is none.
#[derive(Debug, thiserror::Error)]
#[error("WHATSAPP_URL is not the address of a WebSocket, as wss://host:port/path")]
pub struct InvalidUrl;

/// Why there is no connection, for a person.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The tenant's proxy led nowhere. Why is for the operator's log: whoever chooses proxies could learn from it which
    /// hosts and ports answer here, and what they say.
    #[error("{PROXY_FAILED}")]
    Proxy(String),
    /// The server could not be reached, or is not what it must be.
    #[error("{0}")]
    Server(String),
}

/// Opens connections to one server, for all sessions.
pub struct Dialler {
    /// Where the WebSocket is.
    url: Uri,
    /// The server's host and port.
    address: Uri,
    /// For `wss:`.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    tcp: HttpConnector,
    proxies: Policy,
}

impl Dialler {
    /// For the server at `url`, or WhatsApp's own. Proxies may have the addresses that `proxies` allows.
    pub fn new(url: Option<&str>, trust: &Trust, proxies: Policy) -> Result<Self, InvalidUrl> {
        let url: Uri = url.unwrap_or(WHATSAPP_WEB_WS_URL).parse().map_err(|_| InvalidUrl)?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or(InvalidUrl)?;
        let (tls, usual_port) = match url.scheme_str() {
            Some("wss") => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                (Some((tls_settings(trust).into(), ServerName::try_from(name).map_err(|_| InvalidUrl)?)), 443)
            }
            Some("ws") => (None, 80),
            _ => return Err(InvalidUrl),
        };
        let port = url.port_u16().unwrap_or(usual_port);
        let address = format!("http://{host}:{port}").parse().map_err(|_| InvalidUrl)?;
        Ok(Self { url, address, tls, tcp: tcp_settings(GaiResolver::new()), proxies })
    }

    /// Which addresses proxies may have.
    pub fn proxies(&self) -> Policy {
        self.proxies
    }

    /// Opens a connection, through `proxy` if there is one. The proxy looks up the server's name.
    pub async fn dial(&self, proxy: Option<&Proxy>) -> Result<WebSocket, DialError> {
        let name = self.tls.as_ref().map(|(_, name)| name.clone());
        let stream = self.open(self.address.clone(), name, proxy).await?;
        let mut request = self.url.clone().into_client_request().map_err(failed)?;
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static(WHATSAPP_WEB_ORIGIN));
        let settings = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(settings)).await;
        Ok(upgraded.map_err(failed)?.0)
    }

    /// Opens a connection to a media host of WhatsApp's, on the same terms: through the tenant's proxy, and with TLS if
    /// WhatsApp itself is reached with it.
    pub async fn reach(&self, host: &Authority, proxy: Option<&Proxy>) -> Result<Stream, DialError> {
        let port = host.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let address = format!("http://{}:{port}", host.host()).parse().map_err(failed)?;
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        self.open(address, Some(ServerName::try_from(name).map_err(failed)?), proxy).await
    }

    /// Opens a connection, with TLS if WhatsApp is reached with it. Until TLS has shown who answers, all that goes wrong on
    /// the way through a proxy is the proxy's.
    async fn open(
        &self,
        address: Uri,
        name: Option<ServerName<'static>>,
        proxy: Option<&Proxy>,
    ) -> Result<Stream, DialError> {
        let tcp = match proxy {
            Some(proxy) => {
                // An address that stands in its text is not looked up.
                proxy.check(self.proxies).map_err(|why| DialError::Proxy(why.to_string()))?;
                let tcp = tcp_settings(CheckedLookup(self.proxies));
                let opened = tokio::time::timeout(CONNECT_LIMIT, proxy.connect(tcp, address)).await;
                opened
                    .unwrap_or_else(|_| Err(format!("no answer within {CONNECT_LIMIT:?}")))
                    .map_err(DialError::Proxy)?
            }
            None => through(self.tcp.clone(), address).await.map_err(failed)?,
        };
        let tcp = TokioIo::into_inner(tcp);
        let (Some((tls, _)), Some(name)) = (&self.tls, name) else { return Ok(Either::Left(tcp)) };
        let secured = tls.connect(name, tcp).await;
        let failed = |error: io::Error| match proxy {
            Some(_) => DialError::Proxy(in_full(&error)),
            None => failed(error),
        };
        Ok(Either::Right(secured.map_err(failed)?))
    }
}

/// How TCP connections are opened, to WhatsApp and to proxies.
fn tcp_settings<R>(lookup: R) -> HttpConnector<R> {
    let mut tcp = HttpConnector::new_with_resolver(lookup);
    let (quiet, interval, retries) = KEEPALIVE;
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_keepalive(Some(quiet));
    tcp.set_keepalive_interval(Some(interval));
    tcp.set_keepalive_retries(Some(retries));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT));
    tcp
}

/// The settings of TLS, made once for all sessions: the public roots and those that `trust` adds, TLS 1.2 and 1.3, the
/// server's name is sent (SNI), no ALPN. The library's own dial has the same, made anew each time.
fn tls_settings(trust: &Trust) -> Arc<ClientConfig> {
    let added: &[TrustAnchor<'static>] = match trust {
        Trust::WhatsAppOnly => &[],
        Trust::AnyServer { tls_roots } => tls_roots,
    };
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().chain(added).cloned());
    let mut settings = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS);
    Arc::new(settings)
}

fn failed(error: impl Error) -> DialError {
    DialError::Server(in_full(&error))
}

/// An error and what caused it, in one sentence.
pub fn in_full(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some say their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_websocket_will_do() {
        let dialler = |url| Dialler::new(Some(url), &Trust::WhatsAppOnly, Policy::new(false));
        let address = |url| dialler(url).map(|dialler| (dialler.address.to_string(), dialler.tls.is_some())).ok();
        assert_eq!(address("wss://example.com/ws/chat"), Some(("http://example.com:443/".into(), true)));
        assert_eq!(address("ws://127.0.0.1:3001/ws/chat"), Some(("http://127.0.0.1:3001/".into(), false)));
        assert_eq!(address("wss://[::1]:8443/"), Some(("http://[::1]:8443/".into(), true)));
        assert!(Dialler::new(None, &Trust::WhatsAppOnly, Policy::new(false)).is_ok(), "WhatsApp's own address");
        for url in ["", "example.com", "https://example.com/", "wss://", "wss:///path", "ws://a b/", "wss://-/"] {
            assert!(dialler(url).is_err(), "{url}");
        }
    }
}
