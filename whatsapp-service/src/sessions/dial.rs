//! How a connection to WhatsApp is opened.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring, pki_types::TrustAnchor};

use crate::Trust;

/// How many servers' session tickets are kept. There is one server, and the media hosts don't come this way.
const REMEMBERED_SERVERS: usize = 8;

/// The settings of TLS, made once for all sessions: the public roots and those that `trust` adds. TLS 1.2 and 1.3, the
/// server's name is sent (SNI), no ALPN: as the library's own dial has it.
pub fn tls_settings(trust: &Trust) -> Arc<ClientConfig> {
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
