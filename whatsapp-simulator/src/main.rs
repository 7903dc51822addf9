//! The simulator as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use whatsapp_simulator::{Config, Phone, Simulator};

/// An offline WhatsApp for tests. Real clients pair with it and talk through it; nothing leaves this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen, for clients, the control API and the page.
    #[arg(long, env = "SIMULATOR_LISTEN", default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// Where to listen with TLS too, under a root certificate that is made at start.
    #[arg(long, env = "SIMULATOR_TLS_LISTEN")]
    tls_listen: Option<SocketAddr>,
    /// Where to write that root certificate, as PEM: it is there once the addresses are printed.
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_ca_out: Option<PathBuf>,
    /// An account to start with, as PHONE=NAME or PHONE; may be repeated.
    #[arg(long = "account", value_name = "PHONE=NAME", value_parser = account)]
    accounts: Vec<(Phone, String)>,
    /// How long each frame of the server is on its way, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    link_delay_ms: u64,
    /// How many QR refs a companion gets. The first is good for 60 seconds, each further one for 20.
    #[arg(long, value_name = "N", default_value_t = 6)]
    qr_refs: usize,
    /// The host, maybe with a port, that clients are told to upload files to and download them from. They reach it by
    /// https. By default it is the host under which they reached the simulator.
    #[arg(long, env = "SIMULATOR_MEDIA_HOST", value_name = "HOST")]
    media_host: Option<String>,
}

fn account(text: &str) -> Result<(Phone, String), String> {
    let (phone, name) = text.split_once('=').unwrap_or((text, ""));
    Ok((Phone::parse(phone).map_err(|error| error.to_string())?, name.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whatsapp-simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config {
        tls: args.tls_listen,
        link_delay: Duration::from_millis(args.link_delay_ms),
        qr_refs: args.qr_refs,
        media_host: args.media_host,
        ..Config::default()
    };
    let simulator = Simulator::bind(args.listen, config).await?;
    for (phone, name) in &args.accounts {
        simulator.add_account(phone, name)?;
    }
    if let (Some(file), Some(pem)) = (&args.tls_ca_out, simulator.tls_root_pem()) {
        std::fs::write(file, pem).with_context(|| format!("can't write {}", file.display()))?;
    }
    println!("page and control API: {}/", simulator.http_url());
    println!("clients connect to:   {}", simulator.ws_url());
    if let Some(url) = simulator.wss_url() {
        println!("clients with TLS to:  {url}");
    }
    stop_signal().await?;
    simulator.shutdown().await;
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
