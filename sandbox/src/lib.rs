//! What the programs of this package have in common: the service beside a simulator, starting it, linking tenants,
//! judging its answers.

pub mod answer;
pub mod api;
pub mod at_once;
pub mod build_times;
pub mod order;
pub mod report;
pub mod service;
pub mod setup;
pub mod usage;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use whatsapp_service::{Config, Trust, cli};

/// The service on its own, with its usual settings, trusting whichever server `WHATSAPP_URL` leads to.
#[derive(Args)]
pub struct Service {
    #[command(flatten)]
    config: Config,

    /// A root certificate (PEM) that the server at WHATSAPP_URL proves itself with, beside the public ones.
    #[arg(long, value_name = "FILE")]
    trust_ca: Option<PathBuf>,
}

impl Service {
    /// Serves until the process is asked to stop.
    ///
    /// # Errors
    /// The address is missing or WhatsApp's own, the certificate is none, or the service can't start.
    pub fn serve(mut self) -> anyhow::Result<()> {
        let url = self.config.whatsapp_url.as_deref();
        let url = url.context("give the simulator's address, like --whatsapp-url ws://127.0.0.1:3001/ws/chat")?;
        let host = url.to_ascii_lowercase();
        anyhow::ensure!(
            !host.contains("whatsapp.net") && !host.contains("whatsapp.com"),
            "the sandbox takes any server for WhatsApp: it must not speak to the real one"
        );
        without_looking_up_the_version(&mut self.config);
        let mut roots = RootCertStore::empty();
        if let Some(file) = self.trust_ca {
            let added =
                CertificateDer::from_pem_file(&file).map_err(anyhow::Error::from).and_then(|der| Ok(roots.add(der)?));
            added.with_context(|| format!("{} is not a root certificate in PEM", file.display()))?;
        }
        cli::serve(&self.config, Trust::AnyServer { tls_roots: roots.roots })
    }
}

/// The simulator takes any version, and there is nothing to ask on a machine without a network.
pub fn without_looking_up_the_version(config: &mut Config) {
    config.whatsapp_version.get_or_insert_with(whatsapp_service::built_in_version);
}
