//! TLS: a root of its own for each simulator, and a listener whose handshakes don't wait for each other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections may wait, their handshakes done, until the server takes them.
const ACCEPTED: usize = 64;

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates could not be made.
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// They can't be used.
    #[error("the certificate can't be used: {0}")]
    Settings(#[from] rustls::Error),
}

/// What a simulator proves itself with.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// The certificate that a client has to trust.
    pub(crate) root_pem: String,
}

impl Tls {
    /// A fresh root, and a certificate by it for this machine's own addresses.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut root = CertificateParams::default();
        // A name of its own: a certificate that is named like its issuer passes for self-signed with some clients.
        root.distinguished_name.push(DnType::CommonName, "WhatsApp simulator");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_pem = root.self_signed(&root_key)?.pem();
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(root, root_key))?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        // A client that comes back is known by its ticket; nothing is kept here for the thousands that might.
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { acceptor: Arc::new(config).into(), root_pem })
    }

    /// Listens with TLS on `listener`.
    pub(crate) fn listen(&self, listener: TcpListener) -> io::Result<TlsListener> {
        let addr = listener.local_addr()?;
        let (accepted, ready) = mpsc::channel(ACCEPTED);
        tokio::spawn(accept(listener, self.acceptor.clone(), accepted));
        Ok(TlsListener { addr, ready })
    }
}

/// Hands out connections whose handshake is done. Dropping it ends the listening.
pub(crate) struct TlsListener {
    addr: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.addr)
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let (stream, peer) = tokio::select! {
            () = accepted.closed() => return,
            connection = Listener::accept(&mut listener) => connection,
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(accepted.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}
