//! The way to WhatsApp, watched: dials are reported, and no peer can hold a client for ever.
//!
//! The library's own transport waits without a limit for a peer that stopped reading, with a lock held, and the library
//! reports a connection that failed before the login to its log only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use whatsapp_rust::{
    anyhow::{self, anyhow},
    async_channel::Receiver,
    async_trait,
    bytes::Bytes,
    transport::{TokioWebSocketTransportFactory, Transport, TransportEvent, TransportFactory},
};

use crate::metrics::{self, Dialled};

/// How long one frame may take to be written.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// How long opening a connection may take. The library gives up after 20 seconds, and tells nobody.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// From this length on a hello carries the login too (Noise IK: the client knows the server's key already). A plain one
/// (Noise XX) is an ephemeral key of 32 bytes and some framing.
const LONG_HELLO: usize = 200;
/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What became of an attempt to connect, before the client has anything to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// A new attempt: whatever connection there was is gone.
    Started,
    /// No connection: the reason.
    Failed(String),
    /// The client left before the server had proved who it is.
    Abandoned,
}

/// Dials WhatsApp, or another address, and reports what became of it.
pub struct WatchedTransport<F> {
    dialler: TokioWebSocketTransportFactory,
    report: F,
}

impl<F: Fn(Dial) + Clone + Send + Sync + 'static> WatchedTransport<F> {
    /// Dials `url`, or WhatsApp without one.
    pub fn new(url: Option<&str>, report: F) -> Self {
        let dialler = TokioWebSocketTransportFactory::new();
        Self { dialler: if let Some(url) = url { dialler.with_url(url) } else { dialler }, report }
    }
}

#[async_trait]
impl<F: Fn(Dial) + Clone + Send + Sync + 'static> TransportFactory for WatchedTransport<F> {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        (self.report)(Dial::Started);
        let dialled = tokio::time::timeout(DIAL_LIMIT, self.dialler.create_transport()).await;
        match dialled.unwrap_or_else(|_| Err(anyhow!("no answer within {DIAL_LIMIT:?}"))) {
            Ok((transport, events)) => {
                metrics::dialled(Dialled::Opened);
                let (report, hello) = (self.report.clone(), AtomicUsize::new(0));
                Ok((Arc::new(Bounded { transport, hello, report }), events))
            }
            Err(error) => {
                metrics::dialled(Dialled::Failed);
                (self.report)(Dial::Failed(error.to_string()));
                Err(error)
            }
        }
    }
}

/// A transport that gives up in time.
struct Bounded<F> {
    transport: Arc<dyn Transport>,
    /// The length of the one frame that was sent; 0 before it, and `usize::MAX` once that no longer matters.
    hello: AtomicUsize,
    report: F,
}

#[async_trait]
impl<F: Fn(Dial) + Send + Sync> Transport for Bounded<F> {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        let next = |sent| if sent == 0 { data.len() } else { usize::MAX };
        let _ = self.hello.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| Some(next(sent)));
        match tokio::time::timeout(SEND_LIMIT, self.transport.send(data)).await {
            Ok(sent) => sent,
            Err(_) => {
                // The peer reads nothing any more: whatever follows would wait behind this frame.
                self.disconnect().await;
                Err(anyhow!("the server did not take a frame within {SEND_LIMIT:?}"))
            }
        }
    }

    async fn disconnect(&self) {
        // The client speaks first (hello), the server proves who it is, and only then the client goes on. One that
        // leaves after a short hello got no answer, or was not convinced by it.
        if (1..LONG_HELLO).contains(&self.hello.swap(usize::MAX, Ordering::Relaxed)) {
            metrics::handshake_abandoned();
            (self.report)(Dial::Abandoned);
        }
        if tokio::time::timeout(CLOSE_LIMIT, self.transport.disconnect()).await.is_err() {
            tracing::debug!("the server did not take the goodbye within {CLOSE_LIMIT:?}");
        }
    }
}
