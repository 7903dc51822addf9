//! One running client of the library, on one tenant's store. It is used until it ends and then thrown away: a client
//! that has disconnected can't be used again.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use ureq::{Agent, unversioned::transport::DefaultConnector};
use whatsapp_rust::{
    CacheConfig, RawNodeLease,
    bot::{Bot, BotHandle},
    client::ConnectError,
    handshake::HandshakeError,
    http::{HttpClient, UreqHttpClient},
    passkey::PasskeyAuthenticator,
    runtime_impl::TokioRuntime,
    store::Backend,
    wacore::{
        handshake::HandshakeError as NoiseError,
        store::{DevicePropsOverride, InMemoryBackend},
    },
    waproto::whatsapp::device_props::PlatformType,
};

use crate::{
    net::{
        dial::{DialError, Dialler},
        dial_gate::{Dials, Urgency},
        proxy::{CheckedLookup, Proxy},
    },
    whatsapp::{
        client::Client,
        events::{Heard, Listener, Mailbox},
        fact::Fact,
        inbound::{Inbound, Receiver},
        passkey::RemoteAuthenticator,
        transport::{ClientCell, Dial, WatchedTransport},
        version::{Version, VersionSource},
    },
};

/// How long a client may take to say goodbye and write down what it holds.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How many one-time keys a device hands to the server at a time, for people who write to it for the first time. It asks
/// for more when they run out. WhatsApp Web hands over 812, whatsmeow 50 (its `WantedPreKeyCount`). The frame that carries
/// them leaves its size behind in two buffers of every connection: 812 keys cost 80 KiB, for as long as it lasts.
const PRE_KEYS: usize = 100;
/// How long a verdict on the server's certificate is good for all sessions.
const VERDICT_LIFETIME: Duration = Duration::from_secs(30);

/// What starts clients.
pub struct Connector {
    /// Opens the connections to WhatsApp.
    dialler: Arc<Dialler>,
    /// How this device is called on the phone.
    device_name: String,
    /// Fetches what the library fetches by HTTP, for tenants without a proxy.
    http: UreqHttpClient,
    /// Which version of WhatsApp Web to say we are.
    version: VersionSource,
    /// Who may connect, and when.
    dials: Arc<Dials>,
    verdict: tokio::sync::Mutex<Option<(Instant, Fact)>>,
}

impl Connector {
    /// Shared by all sessions of a process.
    pub fn new(device_name: String, dialler: Dialler, version: VersionSource, dials: Arc<Dials>) -> Arc<Self> {
        Arc::new(Self {
            dialler: dialler.into(),
            device_name,
            http: http_client(None),
            version,
            dials,
            verdict: tokio::sync::Mutex::default(),
        })
    }

    /// Opens the connections to WhatsApp, and to its media hosts.
    pub fn dialler(&self) -> &Arc<Dialler> {
        &self.dialler
    }

    /// WhatsApp says that the version is too old: it is looked up again.
    pub fn doubt_version(&self) {
        self.version.doubt();
    }

    /// The version of WhatsApp Web to say we are.
    async fn version(&self) -> Version {
        let http: Arc<dyn HttpClient> = Arc::new(self.http.clone());
        self.version.get(&http).await
    }

    /// Why no client gets through the handshake: asks once more, with a client that holds nothing, because the library
    /// tells the reason only to its log. Sessions that fail together share the answer, but for those with a proxy: what
    /// that leads to is nobody else's affair.
    pub async fn examine_server(&self, proxy: Option<Proxy>) -> Fact {
        if proxy.is_some() {
            return self.dial_once(proxy).await;
        }
        let mut verdict = self.verdict.lock().await;
        if let Some((at, signal)) = &*verdict
            && at.elapsed() < VERDICT_LIFETIME
        {
            return signal.clone();
        }
        let signal = self.dial_once(None).await;
        *verdict = Some((Instant::now(), signal.clone()));
        signal
    }

    async fn dial_once(&self, proxy: Option<Proxy>) -> Fact {
        // Without a proxy, all that failed wait for this one.
        let urgency = if proxy.is_some() { Urgency::Routine } else { Urgency::Person };
        let _pass = self.dials.pass(urgency).await;
        let backend: Arc<dyn Backend> = Arc::new(InMemoryBackend::new());
        let transport = WatchedTransport::new(self.dialler.clone(), proxy, ClientCell::default(), |_| {});
        let built = Bot::builder()
            .with_backend_arc(backend)
            .with_transport_factory(transport)
            .with_http_client(self.http.clone())
            .with_runtime(TokioRuntime)
            .with_version(self.version().await)
            .build()
            .await;
        let client = match built {
            Ok(bot) => bot.client(),
            Err(error) => return Fact::DialFailed(error.to_string()),
        };
        let answer = client.connect().await;
        client.disconnect().await;
        match answer {
            Err(ConnectError::Handshake(HandshakeError::Core(NoiseError::CertVerification(why)))) => {
                Fact::CertificateRefused(format!("The server's certificate is not WhatsApp's: {why}"))
            }
            Err(ConnectError::Transport(error)) => match error.downcast_ref() {
                Some(DialError::Proxy(why)) => Fact::ProxyFailed(why.clone()),
                _ => Fact::DialFailed(error.to_string()),
            },
            Err(error) => Fact::DialFailed(error.to_string()),
            Ok(()) => Fact::DialFailed("The connection ended before the login.".into()),
        }
    }
}

/// ureq waits for ever and reads without a limit unless it is told otherwise.
fn http_client(proxy: Option<(ureq::Proxy, CheckedLookup)>) -> UreqHttpClient {
    let config = Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_global(Some(Duration::from_secs(10)));
    let agent = match proxy {
        Some((proxy, lookup)) => {
            Agent::with_parts(config.proxy(Some(proxy)).build(), DefaultConnector::default(), lookup)
        }
        None => config.build().into(),
    };
    UreqHttpClient::with_agent(agent).with_max_body_bytes(16 * 1024 * 1024)
}

/// A running client.
pub struct Link {
    /// The library's client.
    pub client: Client,
    /// Takes the passkey assertion that the client may wait for.
    pub authenticator: Arc<RemoteAuthenticator>,
    handle: BotHandle,
    _raw_nodes: RawNodeLease,
}

impl Link {
    /// Starts a client on `backend`, which reaches everything through `proxy` if there is one. What it has to say arrives
    /// on the returned channel, in order and without loss.
    pub async fn start(
        connector: &Connector,
        backend: Arc<dyn Backend>,
        proxy: Option<Proxy>,
        mailbox: Arc<Mailbox>,
        receiver: Weak<dyn Receiver>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Heard>), String> {
        let (signals, heard) = mpsc::unbounded_channel();
        let http = match &proxy {
            Some(proxy) => {
                let lookup = CheckedLookup(connector.dialler.proxies());
                http_client(Some((proxy.for_http().map_err(|error| error.to_string())?, lookup)))
            }
            None => connector.http.clone(),
        };
        let (dialler, wire) = (connector.dialler.clone(), ClientCell::default());
        let transport = WatchedTransport::new(dialler, proxy, wire.clone(), report_dials(signals.clone()));
        let inbound = Inbound { receiver, mailbox: mailbox.clone(), wire: wire.clone() };
        let props = DevicePropsOverride::new().with_os(&connector.device_name).with_platform_type(PlatformType::CHROME);
        let bot = Bot::builder()
            .with_backend_arc(backend)
            .with_transport_factory(transport)
            .with_http_client(http)
            .with_runtime(TokioRuntime)
            .with_version(connector.version().await)
            .with_device_props(props)
            .with_event_handler(Listener { signals, mailbox, inbound: inbound.clone() })
            .with_inbound_durability_hook(inbound)
            // What was sent is forgotten by the store.
            .with_cache_config(CacheConfig { sent_message_ttl_secs: 0, ..CacheConfig::default() })
            .with_wanted_pre_key_count(PRE_KEYS)
            .skip_history_sync()
            .build()
            .await
            .map_err(|error| error.to_string())?;
        let client = bot.client();
        wire.is_for(&client);
        // One client, one dial: when the next one follows is for the session and the gate to say.
        client.enable_auto_reconnect.store(false, Ordering::Relaxed);
        let raw_nodes = client.acquire_raw_node_forwarding();
        let authenticator = Arc::new(RemoteAuthenticator::default());
        client.set_passkey_authenticator(authenticator.clone() as Arc<dyn PasskeyAuthenticator>).await;
        Ok((Self { client: Client::new(client), authenticator, handle: bot.spawn(), _raw_nodes: raw_nodes }, heard))
    }

    /// Resolves when the client has stopped by itself.
    pub async fn ended(&mut self) {
        (&mut self.handle).await;
    }

    /// Disconnects and writes down what is not yet written. Bounded: a peer or a disk that hangs can't hold us.
    pub async fn stop(self) {
        if tokio::time::timeout(STOP_LIMIT, self.handle.shutdown()).await.is_err() {
            tracing::warn!("a client did not stop within {STOP_LIMIT:?}; it was dropped");
        }
    }
}

fn report_dials(signals: mpsc::UnboundedSender<Heard>) -> impl Fn(Dial) + Clone + Send + Sync + 'static {
    move |dial| {
        let _ = signals.send(match dial {
            Dial::Started => Heard::Fact(Fact::Offline),
            Dial::Failed(why) => Heard::Fact(Fact::DialFailed(why)),
            Dial::ProxyFailed(why) => Heard::Fact(Fact::ProxyFailed(why)),
            Dial::Abandoned => Heard::Abandoned,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use whatsapp_rust::http::HttpRequest;

    use super::*;
    use crate::net::policy::Policy;

    /// A SOCKS5 proxy for one connection, which answers in the server's place. Returns the name it was asked for.
    fn proxy_for_one(listener: &TcpListener) -> String {
        let mut client = listener.accept().unwrap().0;
        let methods = read(&mut client, 2)[1];
        read(&mut client, methods);
        client.write_all(&[5, 0]).unwrap();
        let request = read(&mut client, 5);
        assert_eq!(request[..4], [5, 1, 0, 3], "a connection, to a name");
        let name = read(&mut client, request[4]);
        read(&mut client, 2);
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.append(&mut read(&mut client, 1));
        }
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").unwrap();
        String::from_utf8(name).unwrap()
    }

    fn read(client: &mut TcpStream, length: u8) -> Vec<u8> {
        let mut bytes = vec![0; length.into()];
        client.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn what_is_fetched_goes_through_the_proxy_which_looks_up_the_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy: Proxy = format!("socks5://{}", listener.local_addr().unwrap()).parse().unwrap();
        let proxied = tokio::task::spawn_blocking(move || proxy_for_one(&listener));
        let with =
            |allow_private| http_client(Some((proxy.for_http().unwrap(), CheckedLookup(Policy::new(allow_private)))));
        let refused = with(false).execute(HttpRequest::get("http://media.invalid/file")).await;
        assert!(refused.is_err(), "the proxy's own address is checked");
        let http = with(true);
        let answer = http.execute(HttpRequest::get("http://media.invalid/file")).await.unwrap();
        assert_eq!((answer.status_code, answer.body), (200, b"well".to_vec()));
        assert_eq!(proxied.await.unwrap(), "media.invalid");
    }
}
