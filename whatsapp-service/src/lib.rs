//! Manages WhatsApp sessions for many tenants and sends their messages.
//!
//! Two halves: [`http`] is the server that gateways speak to, [`sessions`] the WhatsApp manager behind it. [`store`] is
//! what is kept on disk, [`config`] every setting, [`cli`] the commands of the binary.

pub mod address;
pub mod cli;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod egress;
pub mod encoding;
pub mod http;
pub mod log;
pub mod media;
pub mod metrics;
pub mod process;
pub mod selfcheck;
pub mod sessions;
pub mod shares;
pub mod store;
pub mod tenant;
pub mod webhooks;

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustls::pki_types::TrustAnchor;
use tokio::net::TcpListener;

use self::{
    config::{Config, InvalidSecret, UnreadableSecret},
    egress::Policy,
    http::App,
    sessions::{Dialler, InvalidUrl, Manager},
    store::StoreError,
    webhooks::{InvalidWebhook, Webhooks},
};

/// How often what was measured is sorted.
const TIDY_UP: Duration = Duration::from_secs(5);

/// How often memory that is free is given back to the system.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// How long requests that are under way may take when the process is asked to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long the sessions may take to stop after that.
const STOP_LIMIT: Duration = Duration::from_secs(14);

/// Which servers a build may be made to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// WhatsApp's, and no other.
    WhatsAppOnly,
    /// Any: only the sandbox says this.
    AnyServer {
        /// Who may vouch for its address by TLS, beside the public roots.
        tls_roots: Vec<TrustAnchor<'static>>,
    },
}

/// Why the service can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This build would take any server for WhatsApp.
    #[error(
        "this build accepts forged server certificates (the feature danger-skip-cert-chain-verify is on): anyone on the \
         network could pose as WhatsApp. Build it on its own: cargo build --release -p whatsapp-service"
    )]
    ForgedCertificatesAccepted,
    /// The secret can't be used.
    #[error(transparent)]
    Secret(#[from] InvalidSecret),
    /// WhatsApp's address can't be used.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A secret can't be read, or is not what it should be.
    #[error(transparent)]
    UnreadableSecret(#[from] UnreadableSecret),
    /// The data directory can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The webhook for all tenants can't be used.
    #[error(transparent)]
    Webhook(#[from] InvalidWebhook),
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The service, bound to its address and its data, not yet serving.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    read_timeout: Duration,
    app: Arc<App>,
}

impl Server {
    /// Checks that this build can be trusted, takes the data directory and binds the address.
    pub async fn bind(config: &Config, trust: Trust) -> Result<Self, StartError> {
        if matches!(trust, Trust::WhatsAppOnly) && !selfcheck::refuses_forged_certificates() {
            return Err(StartError::ForgedCertificatesAccepted);
        }
        process::started();
        metrics::start();
        let secrets = config.internal_secret()?.secrets()?;
        let dialler = Dialler::new(config.whatsapp_url(), &trust, Policy::new(config.allow_private_targets))?;
        let manager = Arc::new(Manager::new(config, config.seal()?, &trust, dialler)?);
        let webhooks = Webhooks::new(config, manager.store().clone())?;
        let address = SocketAddr::new(config.host, config.port);
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = Arc::new(App::new(config, secrets, manager, webhooks));
        Ok(Self { listener, address, read_timeout: config.read_timeout, app })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sessions.
    pub fn manager(&self) -> Arc<Manager> {
        self.app.manager.clone()
    }

    /// Brings the sessions back and serves until `stop`; then finishes what is under way, within limits, and writes
    /// everything down.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let (manager, webhooks) = (self.manager(), self.app.webhooks.clone());
        let delivering = tokio::spawn(webhooks.clone().run());
        manager.restore().await?;
        let upkeep = tokio::spawn(manager.clone().upkeep());
        let tidying = tokio::spawn(async {
            loop {
                tokio::time::sleep(TIDY_UP).await;
                metrics::tidy_up();
            }
        });
        let giving_back = tokio::spawn(async {
            loop {
                tokio::time::sleep(GIVE_BACK).await;
                let _ = tokio::task::spawn_blocking(process::give_back_memory).await;
            }
        });
        tracing::info!(address = %self.address, "listening");
        let connections = self.serve(stop).await;
        tracing::info!("stopping");
        upkeep.abort();
        tidying.abort();
        giving_back.abort();
        let under_way = async { tokio::join!(connections.shutdown(), manager.finish()) };
        if tokio::time::timeout(DRAIN_LIMIT, under_way).await.is_err() {
            tracing::warn!("some requests were still under way after {DRAIN_LIMIT:?}");
        }
        webhooks.stop().await;
        delivering.abort();
        if tokio::time::timeout(STOP_LIMIT, manager.shut_down()).await.is_err() {
            tracing::warn!("some sessions were not stopped after {STOP_LIMIT:?}");
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Accepts connections until `stop`. Each may take `read_timeout` to send the head of a request, also the first.
    /// Returns the connections that are still open.
    async fn serve(self, stop: impl Future<Output = ()>) -> GracefulShutdown {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.read_timeout);
        let router = http::router(self.app);
        let connections = GracefulShutdown::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let service = TowerToHyperService::new(router.clone());
                    let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
                    // A connection that breaks is its peer's affair.
                    tokio::spawn(async move { connection.await.ok() });
                }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would only burn the processor.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections
    }
}

/// From now on SIGTERM and Ctrl-C no longer end the process at once; the future resolves when the first of them comes.
pub fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
