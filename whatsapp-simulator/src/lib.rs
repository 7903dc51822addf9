//! An offline WhatsApp, good enough for real, unmodified multi-device clients.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use whatsapp_simulator::{Config, Phone, Simulator};
//!
//! let simulator = Simulator::bind("127.0.0.1:0".parse()?, Config::default()).await?;
//! let ana = Phone::parse("5511999999999")?;
//! simulator.add_account(&ana, "Ana")?;
//! println!("point a client at {}", simulator.ws_url());
//! simulator.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod config;
mod control;
mod media_host;
mod tls;
mod wire;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

pub use crate::config::Config;
pub use crate::tls::TlsError;
pub use crate::wire::{ServerIdentity, TrustError};
pub use crate::world::{
    AccountError, AccountSnapshot, AccountView, Addressing, ButtonReply, CallError, ChatMessage, CodeError, Contact,
    DeviceView, Draft, Fault, FaultKind, FlowReply, InvalidPhone, Kind, Linked, ListReply, Location, LoginFailure,
    Manner, MediaDraft, More, NewChatQuota, Order, Outcome, PairError, Phone, Poll, Preview, Product, ReachoutTimelock,
    Reaction, Referral, Snapshot, Status, TemplateReply, Totals, Vote, WaitingCode, WaitingQr, World, WriteError,
};

/// The path at which clients find the WebSocket.
pub const WS_PATH: &str = "/ws/chat";

/// How long open HTTP requests may take to end at a shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// The simulator could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// No server identity could be made.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No certificate for TLS could be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A simulator that listens and serves. Dropping it ends it at once; [`Simulator::shutdown`] waits for the end.
pub struct Simulator {
    addr: SocketAddr,
    world: Arc<World>,
    identity: Arc<ServerIdentity>,
    tls: Option<(SocketAddr, Tls)>,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Simulator {
    /// Listens on an address (port 0 picks a free one), and with TLS where [`Config::tls`] says, and serves in the
    /// background.
    ///
    /// # Errors
    /// Any [`StartError`].
    pub async fn bind(addr: SocketAddr, config: Config) -> Result<Self, StartError> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let with_tls = match config.tls {
            Some(addr) => Some((TcpListener::bind(addr).await?, Tls::generate()?)),
            None => None,
        };
        let identity = match config.identity.clone() {
            Some(identity) => identity,
            None => ServerIdentity::generate()?,
        };
        let identity = Arc::new(identity);
        let world = Arc::new(World::new(config));
        let stop = CancellationToken::new();
        let router = control::router(Arc::clone(&world), Arc::clone(&identity), stop.clone());
        let mut serving = JoinSet::new();
        let tls = match with_tls {
            Some((listener, tls)) => {
                let listener = tls.listen(listener)?;
                let addr = listener.local_addr()?;
                serving.spawn(serve(listener, router.clone(), stop.clone()));
                Some((addr, tls))
            }
            None => None,
        };
        // Clients go to a media host by https, so that is where it had better be.
        world.media.listens_at(tls.as_ref().map_or(addr, |(addr, _)| *addr).to_string());
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        serving.spawn(serve(listener, router, stop.clone()));
        Ok(Self { addr, world, identity, tls, stop, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address for clients, `ws://…/ws/chat`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}{WS_PATH}", self.addr)
    }

    /// The address for clients that want TLS, `wss://…/ws/chat`, if it was asked for.
    pub fn wss_url(&self) -> Option<String> {
        self.tls.as_ref().map(|(addr, _)| format!("wss://{addr}{WS_PATH}"))
    }

    /// The root certificate that those have to trust, as PEM. It is made anew at every start.
    pub fn tls_root_pem(&self) -> Option<&str> {
        self.tls.as_ref().map(|(_, tls)| tls.root_pem.as_str())
    }

    /// The address of the page and the control API, `http://…`.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The simulated WhatsApp itself: everything that the control API can do, as calls.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The server's keys: for a successor that is to be the same server, or a client that pins another root.
    pub fn identity(&self) -> &ServerIdentity {
        &self.identity
    }

    /// Makes an account, or returns the one that is there.
    ///
    /// # Errors
    /// Any [`AccountError`].
    pub fn add_account(&self, phone: &Phone, name: &str) -> Result<AccountView, AccountError> {
        Ok(self.world.add_account(phone, name)?.0)
    }

    /// Ends all connections and the listener, and waits for that.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let ended = async {
            while let Some(ended) = self.serving.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "the server task failed");
                }
            }
        };
        // Someone may hold an HTTP connection open in the middle of a request: it ends with the tasks.
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, ended).await;
        self.world.media.clear();
    }
}

/// Serves until `stop`.
async fn serve<L: Listener<Addr: std::fmt::Debug>>(listener: L, router: Router, stop: CancellationToken) {
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the listener failed");
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
