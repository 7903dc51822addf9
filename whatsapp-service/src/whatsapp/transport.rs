//! The way to WhatsApp, watched: dials are reported, a dead connection is noticed, and no peer can hold a client for
//! ever.
//!
//! The library's own transport waits without a limit for a peer that stopped reading, with a lock held, and the library
//! reports a connection that failed before the login to its log only. It asks an idle server whether it is still there
//! up to 45 seconds after the last word from it and waits 20 more; here it is asked in time for both to take less than
//! a minute.

use std::{
    io::ErrorKind,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::ProtocolError,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;
use whatsapp_rust::{
    Client,
    anyhow::{self, anyhow},
    async_channel::{self, Receiver, Sender},
    async_trait,
    bytes::Bytes,
    transport::{DisconnectReason, Transport, TransportEvent, TransportFactory},
    wacore::{iq::keepalive::KeepaliveSpec, stats::TransportResourceReport},
};

use crate::{
    metrics::{self, Dialled},
    net::{
        dial::{DialError, Dialler, READ_BUFFER, WebSocket},
        proxy::Proxy,
    },
};

/// How long one frame may take to be written.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// How long opening a connection may take. The library gives up after 20 seconds, and tells nobody.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// From this length on a hello carries the login too (Noise IK: the client knows the server's key already). A plain one
/// (Noise XX) is an ephemeral key of 32 bytes and some framing.
const LONG_HELLO: usize = 200;
/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// After so long without a word from the server it is asked for one. The library asks an idle one every 15 to 30
/// seconds, and then there is nothing to ask.
const QUIET_LIMIT: Duration = Duration::from_secs(32);
/// The same, counted from the first frame that has not been followed by a word from the server.
const UNANSWERED_LIMIT: Duration = Duration::from_secs(5);
/// How long the server may take to say that word. WhatsApp Web gives a connection up after the same time
/// (`deadSocketTime`).
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How many messages may wait until the client takes them.
const UNREAD: usize = 8;

/// What became of an attempt to connect, before the client has anything to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// A new attempt: whatever connection there was is gone.
    Started,
    /// No connection: the reason.
    Failed(String),
    /// The tenant's proxy leads nowhere: the reason, for the operator.
    ProxyFailed(String),
    /// The client left before the server had proved who it is.
    Abandoned,
}

/// The client that a transport is for, which is made after it, and its connection.
pub type ClientCell = Arc<ClientWire>;

/// See [`ClientCell`].
#[derive(Default)]
pub struct ClientWire {
    client: OnceLock<Weak<Client>>,
    connection: Mutex<Option<CancellationToken>>,
}

impl ClientWire {
    /// Names the client, once it is there.
    pub fn is_for(&self, client: &Arc<Client>) {
        let _ = self.client.set(Arc::downgrade(client));
    }

    /// The client, unless it is gone.
    pub fn client(&self) -> Option<Arc<Client>> {
        self.client.get()?.upgrade()
    }

    /// Ends the connection at once: from now on nothing is written to it.
    pub fn cut(&self) {
        if let Some(connection) = &*self.connection.lock() {
            connection.cancel();
        }
    }
}

/// Dials, and reports what became of it.
pub struct WatchedTransport<F> {
    dialler: Arc<Dialler>,
    proxy: Option<Proxy>,
    client: ClientCell,
    report: F,
}

impl<F: Fn(Dial) + Clone + Send + Sync + 'static> WatchedTransport<F> {
    /// Dials with `dialler`, through `proxy` if there is one. The server is asked for a word with `client`.
    pub fn new(dialler: Arc<Dialler>, proxy: Option<Proxy>, client: ClientCell, report: F) -> Self {
        Self { dialler, proxy, client, report }
    }
}

#[async_trait]
impl<F: Fn(Dial) + Clone + Send + Sync + 'static> TransportFactory for WatchedTransport<F> {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        (self.report)(Dial::Started);
        let dialled = tokio::time::timeout(DIAL_LIMIT, self.dialler.dial(self.proxy.as_ref())).await;
        let blamed = if self.proxy.is_some() { DialError::Proxy } else { DialError::Server };
        let late = |_| Err(blamed(format!("no answer within {DIAL_LIMIT:?}")));
        let socket = match dialled.unwrap_or_else(late) {
            Ok(socket) => socket,
            Err(error) => {
                metrics::dialled(match &error {
                    DialError::Server(_) => Dialled::Failed,
                    DialError::Proxy(_) => Dialled::ProxyFailed,
                });
                (self.report)(match &error {
                    DialError::Server(why) => Dial::Failed(why.clone()),
                    DialError::Proxy(why) => Dial::ProxyFailed(why.clone()),
                });
                return Err(error.into());
            }
        };
        metrics::dialled(Dialled::Opened);
        let (sink, stream) = socket.split();
        let (events, received) = async_channel::bounded(UNREAD);
        // There is room for it, and it comes before what the server says.
        let _ = events.try_send(TransportEvent::Connected);
        let wire = Arc::new(Wire::default());
        *self.client.connection.lock() = Some(wire.closed.clone());
        tokio::spawn(read(stream, events, wire.clone(), self.client.clone()));
        let transport =
            Watched { sink: Some(sink).into(), wire, hello: AtomicUsize::new(0), report: self.report.clone() };
        Ok((Arc::new(transport), received))
    }
}

/// What both directions of a connection know of each other.
#[derive(Default)]
struct Wire {
    /// It is over.
    closed: CancellationToken,
    /// When the first frame was sent that has not been followed by a word from the server.
    unanswered: Mutex<Option<Instant>>,
    /// That there is such a frame now.
    sent: Notify,
}

impl Wire {
    fn sends(&self) {
        let mut unanswered = self.unanswered.lock();
        if unanswered.is_none() {
            *unanswered = Some(Instant::now());
            self.sent.notify_one();
        }
    }

    fn heard(&self) {
        *self.unanswered.lock() = None;
    }

    /// When the server should be asked for a word that was last `heard` then.
    fn doubtful_at(&self, heard: Instant) -> Instant {
        let quiet = heard + QUIET_LIMIT;
        self.unanswered.lock().map_or(quiet, |sent| quiet.min(sent + UNANSWERED_LIMIT))
    }
}

/// Passes on what the server says, until the connection ends or is dead.
async fn read(mut stream: SplitStream<WebSocket>, events: Sender<TransportEvent>, wire: Arc<Wire>, client: ClientCell) {
    let reason = listen(&mut stream, &events, &wire, &client).await;
    wire.closed.cancel();
    drop(stream);
    let _ = events.send(TransportEvent::Disconnected(reason)).await;
}

async fn listen(
    stream: &mut SplitStream<WebSocket>,
    events: &Sender<TransportEvent>,
    wire: &Wire,
    client: &ClientWire,
) -> DisconnectReason {
    let (mut heard, mut asked) = (Instant::now(), None::<Instant>);
    loop {
        let due = asked.map_or_else(|| wire.doubtful_at(heard), |asked| asked + ANSWER_LIMIT);
        let message = tokio::select! {
            biased;
            () = wire.closed.cancelled() => return DisconnectReason::Unknown,
            message = stream.next() => message,
            () = wire.sent.notified(), if asked.is_none() => continue,
            () = tokio::time::sleep_until(due) => {
                if asked.is_some() {
                    return DisconnectReason::ReadError("the server no longer answers".into());
                }
                asked = Some(Instant::now());
                ask(client);
                continue;
            }
        };
        (heard, asked) = (Instant::now(), None);
        wire.heard();
        match message {
            Some(Ok(Message::Binary(data))) => tokio::select! {
                biased;
                () = wire.closed.cancelled() => return DisconnectReason::Unknown,
                passed = events.send(TransportEvent::DataReceived(data)) => if passed.is_err() {
                    return DisconnectReason::Unknown;
                },
            },
            Some(Ok(Message::Close(goodbye))) => return closed_by_server(goodbye),
            Some(Ok(_)) => {}
            None
            | Some(Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return DisconnectReason::StreamEnded;
            }
            // A server that ends TLS without a word.
            Some(Err(Error::Io(error))) if error.kind() == ErrorKind::UnexpectedEof => {
                return DisconnectReason::StreamEnded;
            }
            Some(Err(error)) => return DisconnectReason::ReadError(error.to_string()),
        }
    }
}

fn closed_by_server(goodbye: Option<CloseFrame>) -> DisconnectReason {
    let (code, reason) = goodbye.map(|goodbye| (u16::from(goodbye.code), goodbye.reason.to_string())).unzip();
    DisconnectReason::ServerClose { code, reason: reason.unwrap_or_default() }
}

/// Asks the server for a word. Its answer, like anything else that it says, is heard on the wire.
fn ask(client: &ClientWire) {
    if let Some(client) = client.client() {
        tokio::spawn(async move {
            let _ = client.execute(KeepaliveSpec::with_timeout(ANSWER_LIMIT)).await;
        });
    }
}

/// The writing half, which gives up in time.
struct Watched<F> {
    sink: tokio::sync::Mutex<Option<SplitSink<WebSocket, Message>>>,
    wire: Arc<Wire>,
    /// The length of the one frame that was sent; 0 before it, and `usize::MAX` once that no longer matters.
    hello: AtomicUsize,
    report: F,
}

#[async_trait]
impl<F: Fn(Dial) + Send + Sync> Transport for Watched<F> {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        let next = |sent| if sent == 0 { data.len() } else { usize::MAX };
        let _ = self.hello.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| Some(next(sent)));
        self.wire.sends();
        let written = async {
            let mut sink = self.sink.lock().await;
            sink.as_mut().ok_or(Error::AlreadyClosed)?.send(Message::Binary(data)).await
        };
        tokio::select! {
            biased;
            () = self.wire.closed.cancelled() => Err(anyhow!("the connection is closed")),
            written = tokio::time::timeout(SEND_LIMIT, written) => match written {
                Ok(written) => Ok(written?),
                Err(_) => {
                    // The peer reads nothing any more: whatever follows would wait behind this frame.
                    self.disconnect().await;
                    Err(anyhow!("the server did not take a frame within {SEND_LIMIT:?}"))
                }
            },
        }
    }

    async fn disconnect(&self) {
        // The client speaks first (hello), the server proves who it is, and only then the client goes on. One that
        // leaves after a short hello got no answer, or was not convinced by it.
        if (1..LONG_HELLO).contains(&self.hello.swap(usize::MAX, Ordering::Relaxed)) {
            metrics::handshake_abandoned();
            (self.report)(Dial::Abandoned);
        }
        // From here on nobody holds the sink for long: who writes stops.
        self.wire.closed.cancel();
        let goodbye = async {
            if let Some(mut sink) = self.sink.lock().await.take() {
                let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                let _ = sink.send(Message::Close(Some(goodbye))).await;
            }
        };
        if tokio::time::timeout(CLOSE_LIMIT, goodbye).await.is_err() {
            tracing::debug!("the server did not take the goodbye within {CLOSE_LIMIT:?}");
        }
    }

    fn resource_report(&self) -> Option<TransportResourceReport> {
        // What TLS holds can't be asked.
        Some(TransportResourceReport { read_buffer_bytes: Some(READ_BUFFER as u64), ..Default::default() })
    }
}

#[cfg(test)]
mod tests;
