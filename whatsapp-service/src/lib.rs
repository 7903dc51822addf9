//! Manages WhatsApp sessions for many tenants and sends their messages.
//!
//! `docs/design.md` says which room holds what, and how a message passes them.

pub mod cli;
mod config;
mod http;
pub mod log;
mod manager;
mod media;
mod metrics;
mod model;
mod net;
mod session;
mod signal;
mod store;
mod util;
mod webhooks;
mod whatsapp;

pub use self::{
    config::Config,
    manager::Manager,
    media::voice::worker,
    net::trust::Trust,
    util::descriptors,
    whatsapp::{selfcheck, version::built_in as built_in_version},
};

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Once},
    time::Duration,
};

use tokio::net::TcpListener;

use crate::{
    config::{InvalidSecret, Secrets, UnreadableSecret},
    http::{App, connections::Connections},
    net::{
        dial::{Dialler, InvalidUrl},
        policy::Policy,
    },
    store::error::StoreError,
    util::supervise::supervised,
    webhooks::{InvalidWebhook, Webhooks},
};

/// How often what was measured is sorted.
const TIDY_UP: Duration = Duration::from_secs(5);

/// How often memory that is free is given back to the system.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// How long requests that are under way may take when the process is asked to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How often it is tried again to start on a disk without room.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// How long the sessions may take to stop after that.
const STOP_LIMIT: Duration = Duration::from_secs(14);

/// Why the service can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This build would take any server for WhatsApp.
    #[error(
        "this build accepts forged server certificates (the feature danger-skip-cert-chain-verify is on): anyone on the \
         network could pose as WhatsApp. Build it on its own: cargo build --release -p whatsapp-service"
    )]
    ForgedCertificatesAccepted,
    /// Neither HTTP nor TLS can do with such a clock.
    #[error("the clock of this machine is before 1970: set it")]
    Clock,
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
    entrance: Entrance,
    app: Arc<App>,
}

/// Where callers come in.
struct Entrance {
    listener: TcpListener,
    address: SocketAddr,
    /// Says once that it is open.
    announced: Once,
    read_timeout: Duration,
    connections: Arc<Connections>,
    secrets: Secrets,
}

/// Serves until `stop`: waits for room on the disk, if there is none, brings the sessions back, and at the end finishes
/// what is under way, within limits, and writes everything down.
///
/// # Errors
/// It can't start, or can't go on.
pub async fn serve(config: &Config, trust: Trust, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let mut stop = pin!(stop);
    let server = match Server::bind(config, trust.clone()).await {
        Err(StartError::Store(error)) if error.is_full(&config.data_dir) => {
            let entrance = Entrance::open(config).await?;
            tracing::error!(%error, "the disk has no room: nothing is accepted until it has");
            let app = loop {
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    () = entrance.refuse_all() => {}
                }
                match app(config, trust.clone(), entrance.connections.limit()) {
                    Err(StartError::Store(error)) if error.is_full(&config.data_dir) => {}
                    opened => break opened?,
                }
            };
            Server { entrance, app }
        }
        bound => bound?,
    };
    server.run(stop).await
}

/// What answers requests. Takes the data directory.
fn app(config: &Config, trust: Trust, connections: usize) -> Result<Arc<App>, StartError> {
    let secrets = config.internal_secret()?.secrets()?;
    let dialler = Dialler::new(config.whatsapp_url(), &trust, Policy::new(config.allow_private_targets))?;
    let manager = Arc::new(Manager::new(config, config.seal()?, &trust, dialler)?);
    let webhooks = Webhooks::new(config, manager.store().clone())?;
    Ok(Arc::new(App::new(config, secrets, manager, webhooks, connections)))
}

impl Entrance {
    async fn open(config: &Config) -> Result<Self, StartError> {
        let secrets = config.internal_secret()?.secrets()?;
        let address = SocketAddr::new(config.host, config.port);
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let connections = Connections::new(config.max_connections);
        let read_timeout = config.read_timeout;
        Ok(Self { listener, address, announced: Once::new(), read_timeout, connections, secrets })
    }

    fn announce(&self) {
        self.announced.call_once(|| tracing::info!(address = %self.address, "listening"));
    }

    /// Says for a while that nothing can be served.
    async fn refuse_all(&self) {
        self.announce();
        let (router, pause) = (crate::http::starting::router(self.secrets.clone()), tokio::time::sleep(DISK_PAUSE));
        let open = self.connections.serve(&self.listener, router, self.read_timeout, pause).await;
        open.shutdown().await;
    }
}

impl Server {
    /// Checks that this build can be trusted, takes the data directory and binds the address.
    pub async fn bind(config: &Config, trust: Trust) -> Result<Self, StartError> {
        crate::whatsapp::library::start();
        if crate::util::clock::wall().timestamp() < 0 {
            return Err(StartError::Clock);
        }
        if matches!(trust, Trust::WhatsAppOnly) && !crate::whatsapp::selfcheck::refuses_forged_certificates() {
            return Err(StartError::ForgedCertificatesAccepted);
        }
        crate::util::process::started();
        crate::metrics::start();
        let connections = Connections::new(config.max_connections);
        let app = app(config, trust, connections.limit())?;
        let entrance = Entrance::open(config).await?;
        Ok(Self { entrance, app })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.entrance.address
    }

    /// The sessions.
    pub fn manager(&self) -> Arc<Manager> {
        self.app.manager.clone()
    }

    /// Brings the sessions back and serves until `stop`; then finishes what is under way, within limits, and writes
    /// everything down.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let (manager, webhooks, entrance) = (self.manager(), self.app.webhooks.clone(), self.entrance);
        let mut stop = pin!(stop);
        while let Err(error) = manager.restore().await {
            if !error.is_full(manager.folder()) {
                return Err(error.into());
            }
            tracing::error!(%error, "the sessions can't be brought back on a disk without room");
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = entrance.refuse_all() => {}
            }
        }
        let delivering = tokio::spawn(supervised("webhooks", {
            let webhooks = webhooks.clone();
            move || webhooks.clone().run()
        }));
        let upkeep = tokio::spawn(manager.clone().upkeep());
        let tidying = tokio::spawn(supervised("metrics", || async {
            loop {
                tokio::time::sleep(TIDY_UP).await;
                crate::metrics::tidy_up();
            }
        }));
        let giving_back = tokio::spawn(supervised("memory", || async {
            loop {
                tokio::time::sleep(GIVE_BACK).await;
                let _ = tokio::task::spawn_blocking(crate::util::process::give_back_memory).await;
            }
        }));
        entrance.announce();
        let mut spent = None;
        let ends = async {
            tokio::select! {
                () = stop => {}
                error = manager.store().spent() => spent = Some(error),
            }
        };
        let Entrance { listener, read_timeout, connections, .. } = entrance;
        let open = connections.serve(&listener, crate::http::router(self.app), read_timeout, ends).await;
        // Whoever connects from now on is refused.
        drop(listener);
        tracing::info!("stopping");
        upkeep.abort();
        tidying.abort();
        giving_back.abort();
        let under_way = async { tokio::join!(open.shutdown(), manager.finish()) };
        if tokio::time::timeout(DRAIN_LIMIT, under_way).await.is_err() {
            tracing::warn!("some requests were still under way after {DRAIN_LIMIT:?}");
        }
        webhooks.stop().await;
        delivering.abort();
        if tokio::time::timeout(STOP_LIMIT, manager.shut_down()).await.is_err() {
            tracing::warn!("some sessions were not stopped after {STOP_LIMIT:?}");
        }
        tracing::info!("stopped");
        spent.map_or(Ok(()), |error| Err(error.into()))
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
