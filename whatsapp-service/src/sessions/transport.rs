//! The way to WhatsApp, watched: dials are reported, and no peer can hold a client for ever.
//!
//! The library's own transport waits without a limit for a peer that stopped reading, with a lock held, and the library
//! reports a connection that failed before the login to its log only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
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

/// How long one frame may take to be written.
const SEND_LIMIT: Duration = Duration::from_secs(15);
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
        match self.dialler.create_transport().await {
            Ok((transport, events)) => {
                let (report, frames_sent) = (self.report.clone(), AtomicU32::new(0));
                Ok((Arc::new(Bounded { transport, frames_sent, report }), events))
            }
            Err(error) => {
                (self.report)(Dial::Failed(error.to_string()));
                Err(error)
            }
        }
    }
}

/// A transport that gives up in time.
struct Bounded<F> {
    transport: Arc<dyn Transport>,
    frames_sent: AtomicU32,
    report: F,
}

#[async_trait]
impl<F: Fn(Dial) + Send + Sync> Transport for Bounded<F> {
    async fn send(&self, data: Bytes) -> anyhow::Result<()> {
        self.frames_sent.fetch_add(1, Ordering::Relaxed);
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
        // leaves after a single frame got no answer, or was not convinced by it.
        if self.frames_sent.swap(u32::MAX, Ordering::Relaxed) == 1 {
            (self.report)(Dial::Abandoned);
        }
        if tokio::time::timeout(CLOSE_LIMIT, self.transport.disconnect()).await.is_err() {
            tracing::debug!("the server did not take the goodbye within {CLOSE_LIMIT:?}");
        }
    }
}
