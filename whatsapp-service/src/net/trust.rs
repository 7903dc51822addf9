//! Which servers are believed.

use rustls::pki_types::TrustAnchor;

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
