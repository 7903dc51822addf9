//! What a fleet of sessions costs, and how fast it sends.
//!
//! Three processes: the service, the simulator, and this one, which calls both over HTTP and reads what the system says
//! about them. The first two are this program again, started with another command, so that nothing else needs to be built:
//!
//! ```sh
//! cargo run --release -p sandbox --bin fleet -- --sessions 2000 --json
//! ```

mod api;
mod figures;
mod load;
mod machine;
mod pairing;
mod process;
mod run;
mod service;
mod simulator;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_service::descriptors;

/// Links many sessions through the service's HTTP interface, and measures what they cost.
///
/// A table of the figures goes to standard error; with --json one JSON object to standard output. Succeeds if every
/// session was ready when it had to be.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What is measured.
#[derive(clap::Args)]
pub struct Options {
    /// How many sessions. Memory per session is the slope from a quarter of them to all of them.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    sessions: u32,
    /// Print the figures as one JSON object on standard output too.
    #[arg(long)]
    json: bool,
    /// The service speaks to the simulator through TLS.
    #[arg(long)]
    tls: bool,
    /// What is not measured.
    #[arg(long, value_enum, value_delimiter = ',')]
    skip: Vec<Phase>,
    /// How many seconds the idle fleet is watched.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// How many seconds each of the two loads lasts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many callers send as fast as they are answered: enough that it is the service that sets the pace.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    callers: u32,
    /// How many tenants these callers send as.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    tenants_sending: u32,
    /// How many messages a second are offered to learn how long an answer takes.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How many tenants these messages are spread over, at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    tenants_offering: u32,
    /// How many phones are written to.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    recipients: u32,
    /// How many tenants are linked at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pairing_width: u32,
    /// How many seconds to wait, at most, until the service's memory no longer changes.
    #[arg(long, default_value_t = 30)]
    settle_seconds: u64,
    /// How many seconds all sessions may take to be ready.
    #[arg(long, default_value_t = 300)]
    ready_seconds: u64,
    /// A `sandbox` program to measure instead of the service in this one.
    #[arg(long)]
    service_binary: Option<PathBuf>,
    /// Where the service's data is kept while this runs, instead of the system's temporary folder.
    #[arg(long)]
    data_in: Option<PathBuf>,
}

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// The processor time of the idle fleet.
    Idle,
    /// Both loads.
    Sends,
    /// The kill, and the return of all sessions.
    Restart,
}

#[derive(Subcommand)]
enum Role {
    /// The offline WhatsApp.
    #[command(hide = true)]
    Simulator {
        /// Clients come through TLS; the root certificate that they have to trust is written here.
        #[arg(long)]
        tls_ca_out: Option<PathBuf>,
    },
    /// The service, as in `sandbox service`.
    #[command(hide = true)]
    Service(Box<sandbox::Service>),
}

impl Options {
    fn measures(&self, phase: Phase) -> bool {
        !self.skip.contains(&phase)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.role {
        Some(Role::Service(service)) => service.serve().map(|()| true),
        Some(Role::Simulator { tls_ca_out }) => simulator::simulate(tls_ca_out.as_deref()).map(|()| true),
        None => measure(&cli.options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and prints. Whether all sessions were ready in time.
#[tokio::main]
async fn measure(options: &Options) -> anyhow::Result<bool> {
    // Thousands of connections; the other processes inherit it.
    descriptors::raise_limit()?;
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let measured = tokio::select! {
        measured = run::run(options) => measured?,
        // What was started ends with its value, and the data goes too.
        _ = terminated.recv() => anyhow::bail!("a SIGTERM came"),
        _ = interrupted.recv() => anyhow::bail!("a SIGINT came"),
    };
    eprint!("{}", measured.figures.table());
    if options.json {
        println!("{}", measured.figures.json());
    }
    Ok(measured.all_ready)
}
