//! The simulator as a process of its own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use whatsapp_simulator::Config;

use crate::process::Process;

/// Is the simulator, until it is killed. Its addresses are the first line of its standard output.
///
/// # Errors
/// It can't listen, or the root certificate can't be written.
#[tokio::main]
pub async fn simulate(tls_ca_out: Option<&Path>) -> anyhow::Result<()> {
    let anywhere = "127.0.0.1:0".parse()?;
    let config = Config { tls: tls_ca_out.map(|_| anywhere), ..Config::default() };
    let simulator = whatsapp_simulator::Simulator::bind(anywhere, config).await?;
    if let (Some(file), Some(root)) = (tls_ca_out, simulator.tls_root_pem()) {
        std::fs::write(file, root)?;
    }
    let whatsapp = simulator.wss_url().unwrap_or_else(|| simulator.ws_url());
    let addresses = json!({"control": simulator.http_url(), "whatsapp": whatsapp});
    writeln!(std::io::stdout(), "{addresses}")?;
    std::future::pending().await
}

/// The running simulator.
pub struct Simulator {
    pub process: Process,
    /// The address of its control API.
    pub control: String,
    /// The address that the service dials.
    pub whatsapp: String,
}

impl Simulator {
    /// Starts it, and waits until it listens: with TLS for its clients, if there is a file for its root certificate.
    ///
    /// # Errors
    /// It can't be started, or does not listen.
    pub async fn start(tls_ca_out: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("simulator").stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(file) = tls_ca_out {
            command.arg("--tls-ca-out").arg(file);
        }
        let mut process = Process::spawn(command)?;
        let output = process.output().context("the simulator's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let addresses: Value = serde_json::from_str(&line).context("the simulator does not listen")?;
        let address = |name: &str| anyhow::Ok(addresses[name].as_str().context("an address")?.to_owned());
        Ok(Self { process, control: address("control")?, whatsapp: address("whatsapp")? })
    }
}
