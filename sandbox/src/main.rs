//! The service and an offline WhatsApp, together on this machine: to try it, to test a gateway, and to run the tests.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sandbox::{build_times, without_looking_up_the_version};
use tempfile::TempDir;
use whatsapp_service::{Config, Manager, Server, Trust, asked_to_stop, cli, log, worker};
use whatsapp_simulator::{Phone, Simulator, World};

/// Starts the service and an offline WhatsApp with two phones, and says what to do next.
///
/// Nothing here touches the real WhatsApp, and nothing listens beyond this machine.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    sandbox: Sandbox,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Sandbox {
    /// Where the service listens.
    #[arg(long, default_value = "127.0.0.1:3000")]
    service: SocketAddr,

    /// Where the simulator listens: the phones' page, and WhatsApp itself.
    #[arg(long, default_value = "127.0.0.1:3001")]
    simulator: SocketAddr,

    /// The service's INTERNAL_SECRET.
    #[arg(long, default_value = "sandbox")]
    secret: String,

    /// An account, as NUMBER=NAME. May be given several times.
    #[arg(long = "account", value_name = "NUMBER=NAME", value_parser = parse_account,
          default_values = ["5511999999999=Ana", "5511888888888=Bruno"])]
    accounts: Vec<(Phone, String)>,

    /// Where the service keeps its sessions. Without it, in a temporary folder that goes with the process.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Start only the service, with its usual settings, trusting whichever server WHATSAPP_URL leads to.
    Service(Box<sandbox::Service>),
}

fn main() -> ExitCode {
    if worker::is_asked() {
        return worker::run();
    }
    if let Ok(program) = std::env::current_exe() {
        build_times::mend(&program);
    }
    // A service that trusts any server is for this machine only, unless somebody says otherwise.
    let local = |service: clap::Command| service.mut_arg("host", |host| host.default_value("127.0.0.1"));
    let matches = Cli::command().mut_subcommand("service", local).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = match cli.command {
        Some(Command::Service(service)) => service.serve(),
        None => run(cli.sandbox),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox: {}", cli::in_full(&error));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(options: Sandbox) -> anyhow::Result<()> {
    let simulator = Simulator::bind(options.simulator, whatsapp_simulator::Config::default()).await;
    let simulator = simulator.with_context(|| format!("the simulator on {}", options.simulator))?;
    for (phone, name) in &options.accounts {
        simulator.add_account(phone, name)?;
    }
    let temporary = match &options.data_dir {
        Some(_) => None,
        None => Some(TempDir::with_prefix("whatsapp-sandbox-")?),
    };
    let config = service_config(&options, &simulator, temporary.as_ref())?;
    log::start(config.log_format, config.log_level);
    let stop = asked_to_stop()?;
    let server = Server::bind(&config, Trust::AnyServer { tls_roots: Vec::new() }).await?;
    println!("{}", instructions(&options, server.address(), &simulator));
    let showing = tokio::spawn(show_qr_codes(server.manager(), simulator.world().clone()));
    server.run(stop).await?;
    showing.abort();
    simulator.shutdown().await;
    Ok(())
}

/// The service's usual settings, with those that a sandbox decides.
fn service_config(options: &Sandbox, simulator: &Simulator, temporary: Option<&TempDir>) -> anyhow::Result<Config> {
    let mut config = cli::Cli::try_parse_from(["sandbox"])?.config;
    (config.internal_secret, config.internal_secret_file) = (options.secret.as_str().into(), None);
    (config.host, config.port) = (options.service.ip(), options.service.port());
    config.whatsapp_url = Some(simulator.ws_url());
    if let Some(data_dir) = options.data_dir.as_deref().or(temporary.map(TempDir::path)) {
        config.data_dir = data_dir.into();
    }
    without_looking_up_the_version(&mut config);
    Ok(config)
}

/// Holds the service's QR codes up to the phones, so that the page can offer to scan them.
async fn show_qr_codes(manager: Arc<Manager>, world: Arc<World>) {
    let mut shown = Vec::new();
    loop {
        let sessions = manager.list(None, usize::MAX);
        let codes: Vec<_> = sessions.iter().filter_map(|session| Some(session.snapshot().qr?.text)).collect();
        for code in codes.iter().filter(|code| !shown.contains(*code)) {
            if let Err(error) = world.hold_up_qr(code) {
                tracing::debug!(%error, "a QR code can't be shown to the phones");
            }
        }
        shown = codes;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn instructions(options: &Sandbox, service: SocketAddr, simulator: &Simulator) -> String {
    let phones = simulator.http_url();
    let service = format!("http://{service}");
    let secret = &options.secret;
    let headers = format!("-H 'X-Internal-Secret: {secret}' -H 'X-Tenant-Id: demo'");
    let (ana, ana_name) = &options.accounts[0];
    let (bruno, bruno_name) = options.accounts.get(1).unwrap_or(&options.accounts[0]);
    format!(
        "\
The sandbox runs. Nothing here touches WhatsApp, and only this machine reaches it.

  phones    {phones}    (open it in a browser)
  service   {service}    (secret: {secret})

1. Create a session for the tenant `demo`. Its QR code is in the answer, and appears on the phones' page:

   curl -X POST {service}/session {headers}

2. Scan it with {ana_name}'s phone: press the button on the page, or

   curl -s {service}/status {headers} \\
     | sed 's/.*\"qrCode\":\"\\([^\"]*\\)\".*/\\1/' \\
     | curl --data-binary @- '{phones}/admin/mock-phone/scan-qr?phone={ana}'

3. Send {bruno_name} a message, as {ana_name}:

   curl {service}/send {headers} \\
     -H 'Content-Type: application/json' -d '{{\"to\":\"{bruno}\",\"message\":\"Hello from the sandbox!\"}}'

4. See it on {bruno_name}'s phone: on the page, or

   curl {phones}/admin/accounts/{bruno}/messages

Ctrl-C ends it.
"
    )
}

fn parse_account(text: &str) -> Result<(Phone, String), String> {
    let (phone, name) = text.split_once('=').ok_or("NUMBER=NAME, like 5511999999999=Ana")?;
    Ok((Phone::parse(phone).map_err(|error| error.to_string())?, name.into()))
}
