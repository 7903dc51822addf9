//! A real `whatsapp-rust` client for tests: it remembers every event, and a test waits for the one that it expects.

#![allow(dead_code, reason = "each test binary uses a different part of it")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse, UreqHttpClient};
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::prelude::*;
use whatsapp_rust::wacore::net::{StreamingHttpResponse, UploadBody};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::types::events::{Event, EventHandler};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_simulator::{Linked, Phone, Simulator};

/// How long a test waits for anything; all of it happens within a second or so.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test wants to know about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Qr(String),
    PairCode(String),
    Paired,
    Connected,
    Disconnected,
    Replaced,
    LoggedOut {
        on_connect: bool,
    },
    Banned {
        seconds: i64,
    },
    Text {
        id: String,
        from: String,
        text: String,
        from_me: bool,
    },
    /// Any message, encoded; a text is a `Text` too.
    Message {
        id: String,
        from_me: bool,
        encoded: Vec<u8>,
    },
    Unreadable(String),
    Ack {
        id: String,
        error: Option<String>,
    },
    Receipt {
        ids: Vec<String>,
        kind: String,
    },
    PushName(String),
    Other(String),
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    news: tokio::sync::Notify,
}

struct Recorder(Arc<Log>);

impl EventHandler for Recorder {
    fn handle_event(&self, event: Arc<Event>) {
        let mut seen = self.0.seen.lock().unwrap();
        match &*event {
            Event::PairingQrCode(qr) => seen.push(Seen::Qr(qr.code.clone())),
            Event::PairingCode(code) => seen.push(Seen::PairCode(code.code.clone())),
            Event::PairSuccess(_) => seen.push(Seen::Paired),
            Event::Connected(_) => seen.push(Seen::Connected),
            Event::Disconnected(_) => seen.push(Seen::Disconnected),
            Event::StreamReplaced(_) => seen.push(Seen::Replaced),
            Event::LoggedOut(out) => seen.push(Seen::LoggedOut { on_connect: out.on_connect }),
            Event::TemporaryBan(ban) => seen.push(Seen::Banned { seconds: ban.expire.num_seconds() }),
            Event::Messages(batch) => seen.extend(batch.iter().flat_map(|m| {
                let text = m.message.text_content().map(|text| Seen::Text {
                    id: m.info.id.clone(),
                    from: m.info.source.sender.user.to_string(),
                    text: text.to_owned(),
                    from_me: m.info.source.is_from_me,
                });
                let any = Seen::Message {
                    id: m.info.id.clone(),
                    from_me: m.info.source.is_from_me,
                    encoded: m.message.encode_to_vec(),
                };
                text.into_iter().chain([any])
            })),
            Event::UndecryptableMessage(m) => seen.push(Seen::Unreadable(m.info.id.clone())),
            Event::ServerAck(ack) if ack.class.as_deref() == Some("message") => {
                seen.push(Seen::Ack { id: ack.id.clone(), error: ack.error.clone() });
            }
            Event::Receipt(r) => {
                seen.push(Seen::Receipt { ids: r.message_ids.clone(), kind: format!("{:?}", r.r#type) });
            }
            Event::SelfPushNameUpdated(update) => seen.push(Seen::PushName(update.new_name.clone())),
            other => seen.push(Seen::Other(format!("{:?}", other.kind()))),
        }
        drop(seen);
        self.0.news.notify_waiters();
    }
}

/// Clients go to media hosts by https, whatever the WebSocket was; the simulator here speaks plain HTTP.
struct PlainHttp(UreqHttpClient);

fn plain(mut request: HttpRequest) -> HttpRequest {
    request.url = request.url.replacen("https://127.0.0.1:", "http://127.0.0.1:", 1);
    request
}

#[whatsapp_rust::async_trait]
impl HttpClient for PlainHttp {
    async fn execute(&self, request: HttpRequest) -> whatsapp_rust::anyhow::Result<HttpResponse> {
        self.0.execute(plain(request)).await
    }

    fn supports_streaming(&self) -> bool {
        self.0.supports_streaming()
    }

    fn execute_streaming(&self, request: HttpRequest) -> whatsapp_rust::anyhow::Result<StreamingHttpResponse> {
        self.0.execute_streaming(plain(request))
    }

    fn supports_upload_streaming(&self) -> bool {
        self.0.supports_upload_streaming()
    }

    fn execute_upload(
        &self,
        request: HttpRequest,
        body: UploadBody,
        length: u64,
    ) -> whatsapp_rust::anyhow::Result<HttpResponse> {
        self.0.execute_upload(plain(request), body, length)
    }
}

/// What a client keeps when it goes, and comes back with.
pub type Store = Arc<InMemoryBackend>;

/// A running client.
pub struct TestClient {
    handle: Option<BotHandle>,
    pub client: Arc<Client>,
    pub store: Store,
    log: Arc<Log>,
}

#[derive(Default)]
pub struct Options {
    pub store: Store,
    pub pair_code_for: Option<String>,
}

impl TestClient {
    /// Starts a client that knows nothing yet.
    pub async fn start(simulator: &Simulator) -> Self {
        Self::start_with(&simulator.ws_url(), Options::default()).await
    }

    /// Starts a client with what another one left.
    pub async fn resume(simulator: &Simulator, store: Store) -> Self {
        Self::start_with(&simulator.ws_url(), Options { store, ..Options::default() }).await
    }

    pub async fn start_with(url: &str, options: Options) -> Self {
        let log = Arc::new(Log::default());
        let mut builder = Bot::builder()
            .with_backend_arc(options.store.clone())
            .with_transport_factory(whatsapp_rust::transport::TokioWebSocketTransportFactory::new().with_url(url))
            .with_http_client(PlainHttp(UreqHttpClient::new()))
            .with_runtime(whatsapp_rust::TokioRuntime)
            .with_version((2, 3000, 1))
            .with_wanted_pre_key_count(40)
            .skip_history_sync()
            .with_event_handler(Recorder(Arc::clone(&log)));
        if let Some(phone_number) = options.pair_code_for {
            builder = builder.with_pair_code(PairCodeOptions { phone_number, ..Default::default() });
        }
        let bot = builder.build().await.expect("a client");
        let client = bot.client();
        Self { client, handle: Some(bot.spawn()), store: options.store, log }
    }

    /// Starts a client and lets a phone scan its QR code.
    pub async fn paired(simulator: &Simulator, phone: &Phone) -> (Self, Linked) {
        let client = Self::start(simulator).await;
        let qr = client.qr().await;
        let linked = simulator.world().scan_qr(&qr, Some(phone)).await.expect("the phone takes the client in");
        client.wait("connected", |seen| (*seen == Seen::Connected).then_some(())).await;
        (client, linked)
    }

    pub async fn qr(&self) -> String {
        self.wait("a QR code", |seen| if let Seen::Qr(text) = seen { Some(text.clone()) } else { None }).await
    }

    /// Waits until an event, past or future, is the one. Fails with the whole history.
    pub async fn wait<T>(&self, what: &str, pick: impl Fn(&Seen) -> Option<T>) -> T {
        self.wait_for_count(what, 1, pick).await
    }

    /// Waits until there are so many of these events, and returns the last.
    pub async fn wait_for_count<T>(&self, what: &str, count: usize, pick: impl Fn(&Seen) -> Option<T>) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let news = self.log.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(found) = self.log.seen.lock().unwrap().iter().filter_map(&pick).nth(count - 1) {
                    return found;
                }
                news.await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; this happened instead: {:#?}", self.history()),
        }
    }

    pub fn history(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    pub fn count(&self, pick: impl Fn(&Seen) -> bool) -> usize {
        self.log.seen.lock().unwrap().iter().filter(|seen| pick(seen)).count()
    }

    pub async fn text(&self, expected: &str) -> Seen {
        self.wait(&format!("text {expected:?}"), |seen| {
            matches!(seen, Seen::Text { text, .. } if text == expected).then(|| seen.clone())
        })
        .await
    }

    /// The message with this id, once it is there.
    pub async fn message(&self, expected: &str) -> wa::Message {
        let encoded = self
            .wait(&format!("message {expected}"), |seen| match seen {
                Seen::Message { id, encoded, .. } if id == expected => Some(encoded.clone()),
                _ => None,
            })
            .await;
        wa::Message::decode_from_slice(&encoded).expect("a message")
    }

    pub async fn acked(&self, id: &str) -> Option<String> {
        self.wait("acknowledgement", |seen| match seen {
            Seen::Ack { id: acked, error } if acked == id => Some(error.clone()),
            _ => None,
        })
        .await
    }

    pub async fn receipt(&self, id: &str, kind: &str) {
        self.wait(&format!("{kind:?} receipt"), |seen| match seen {
            Seen::Receipt { ids, kind: k } if k == kind && ids.iter().any(|i| i == id) => Some(()),
            _ => None,
        })
        .await;
    }

    /// Sends a text to a phone number and returns its id.
    pub async fn send(&self, to: &Phone, text: &str) -> String {
        let sent = self.client.send_text(Jid::pn(to.as_str()), text).await;
        sent.unwrap_or_else(|error| panic!("cannot send: {error:?}; {:#?}", self.history())).message_id
    }

    /// Sends any message to a phone number and returns its id.
    pub async fn send_any(&self, to: &Phone, message: wa::Message) -> String {
        let sent = self.client.send_message(Jid::pn(to.as_str()), message).await;
        sent.unwrap_or_else(|error| panic!("cannot send: {error:?}; {:#?}", self.history())).message_id
    }

    /// Stops as a program would, and leaves its store.
    pub async fn stop(mut self) -> Store {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
        self.store.clone()
    }
}

/// Waits until something is so.
pub async fn until<T: Debug>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let started = std::time::Instant::now();
    loop {
        match check() {
            Ok(found) => return found,
            Err(instead) if started.elapsed() > PATIENCE => panic!("not {what}: {instead}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
