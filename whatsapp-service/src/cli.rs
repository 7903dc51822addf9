//! The command line: serving, and the commands that talk to a running service.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::{
    asked_to_stop,
    config::{self, Config, SecretText},
    http::{connections, qr},
    log,
    net::trust::Trust,
    store::{self, data_dir::DataDir},
    util::descriptors,
};

/// Manages WhatsApp sessions for many tenants and sends their messages.
///
/// Without a command it serves. Every option can be set by the environment variable named with it.
/// `rekey` works on the data directory of a service that is stopped. The other commands talk to a service that runs
/// already; they use the same INTERNAL_SECRET and PORT.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  INTERNAL_SECRET=… whatsapp-service                    serve on port 3000, keeping sessions in ./sessions
  INTERNAL_SECRET=… whatsapp-service pair acme          link a phone: draws the QR code here
  INTERNAL_SECRET=… whatsapp-service send acme 5511999999999 'Hello!'
  INTERNAL_SECRET=… whatsapp-service status             all tenants and their states
  NEW_ENCRYPTION_KEY_FILE=key whatsapp-service rekey    encrypt ./sessions";

#[derive(Subcommand)]
enum Command {
    /// Link a phone to a tenant: draws the QR code, redraws it when it rotates, ends when the phone is linked.
    Pair {
        /// The tenant's id.
        tenant: String,
        /// Link by a code to be typed on this phone, instead of a QR code.
        #[arg(long, value_name = "NUMBER")]
        phone: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Send a text, and print the answer once WhatsApp has acknowledged it.
    Send {
        /// The tenant's id.
        tenant: String,
        /// The recipient's number with the country code, or a LID, as in 713715344025739@lid.
        to: String,
        /// The text.
        message: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print what is known of a tenant's session, or one line for each tenant.
    Status {
        /// The tenant's id.
        tenant: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Succeed if the service answers: for health checks of containers.
    Health {
        #[command(flatten)]
        target: Target,
    },
    /// Encrypt what is in DATA_DIR with a new key, or decrypt it for good. The service must be stopped.
    ///
    /// What is encrypted already needs its key as ENCRYPTION_KEY or ENCRYPTION_KEY_FILE. It is safe to interrupt this at
    /// any time: until it ends, the old key is the right one.
    Rekey {
        /// The new key: 32 bytes in base64.
        #[arg(long, env = "NEW_ENCRYPTION_KEY", hide_env_values = true)]
        new_encryption_key: Option<SecretText>,
        /// A file that holds NEW_ENCRYPTION_KEY, instead of it.
        #[arg(long, env = "NEW_ENCRYPTION_KEY_FILE", value_parser = config::path_parser())]
        new_encryption_key_file: Option<PathBuf>,
        /// Keep everything unencrypted from now on.
        #[arg(long)]
        decrypt: bool,
    },
}

#[derive(Args)]
struct Target {
    /// Where the service listens [default: http://127.0.0.1:PORT]
    #[arg(long, env = "WHATSAPP_SERVICE_URL")]
    url: Option<String>,
}

/// Does what the command line says.
pub fn run(cli: Cli, trust: Trust) -> ExitCode {
    let config = &cli.config;
    let done = match cli.command {
        None => serve(config, trust),
        Some(Command::Pair { tenant, phone, target }) => {
            Api::new(config, target).and_then(|api| pair(&api, &tenant, phone))
        }
        Some(Command::Send { tenant, to, message, target }) => {
            Api::new(config, target).and_then(|api| send(&api, &tenant, to, message))
        }
        Some(Command::Status { tenant, target }) => Api::new(config, target).and_then(|api| status(&api, tenant)),
        Some(Command::Health { target }) => {
            Api::new(config, target).and_then(|api| api.call("GET", "/health", None, None)).map(drop)
        }
        Some(Command::Rekey { new_encryption_key: text, new_encryption_key_file: file, decrypt }) => {
            rekey(config, text.as_ref(), file.as_deref(), decrypt)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whatsapp-service: {}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is asked to stop.
pub fn serve(config: &Config, trust: Trust) -> anyhow::Result<()> {
    log::start(config.log_format, config.log_level);
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(connections::warm_up).build()?;
    runtime.block_on(async {
        let stop = asked_to_stop()?;
        anyhow::Ok(crate::serve(config, trust, stop).await?)
    })?;
    // What is left are tasks of clients that did not stop in time; they don't hold the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(())
}

/// An error with its causes, each said once: many name their cause themselves.
pub fn in_full(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| match cause.to_string() {
        cause if said.is_empty() => cause,
        cause if said.contains(&cause) => said,
        cause => format!("{said}: {cause}"),
    })
}

fn pair(api: &Api, tenant: &str, phone: Option<String>) -> anyhow::Result<()> {
    let mut session = api.call("POST", "/session", Some(tenant), Some(json!({"phone": phone})))?;
    let mut shown = String::new();
    loop {
        match session["status"].as_str() {
            Some("ready") => {
                println!("Linked with {}.", session["phone"].as_str().unwrap_or("the phone"));
                return Ok(());
            }
            _ if session["state"] == "passkey_required" => bail!(
                "WhatsApp asks this account for a passkey, which takes a page or an app: see POST /session/passkey"
            ),
            Some("initializing") => show_code(&session, &mut shown)?,
            _ => bail!("not linked: {}", why(&session)),
        }
        sleep(Duration::from_millis(500));
        session = api.call("GET", "/status", Some(tenant), None)?;
    }
}

/// Draws the code that is valid now, or says why there is none, if that is not what was shown before.
fn show_code(session: &Value, shown: &mut String) -> anyhow::Result<()> {
    let (pairing_code, qr) = (session["pairingCode"].as_str(), session["qrCode"].as_str());
    let Some(code) = pairing_code.or(qr).or(session["message"].as_str()).filter(|code| code != shown) else {
        return Ok(());
    };
    *shown = code.into();
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        write!(out, "\x1b[2J\x1b[H")?;
    }
    match pairing_code {
        Some(code) => {
            let (left, right) = code.split_at_checked(4).unwrap_or((code, ""));
            writeln!(out, "WhatsApp > Linked devices > Link with phone number: {left}-{right}")?;
        }
        // No code yet, and a reason why.
        None if qr.is_none() => writeln!(out, "{code}")?,
        None => {
            let picture = qr::for_terminal(code).context("the QR code can't be drawn")?;
            writeln!(out, "{picture}\nScan it with WhatsApp > Linked devices > Link a device. It changes by itself.")?;
        }
    }
    Ok(out.flush()?)
}

fn send(api: &Api, tenant: &str, to: String, message: String) -> anyhow::Result<()> {
    let sent = api.call("POST", "/send", Some(tenant), Some(json!({"to": to, "message": message})))?;
    println!("{sent}");
    Ok(())
}

fn status(api: &Api, tenant: Option<String>) -> anyhow::Result<()> {
    if let Some(tenant) = tenant {
        println!("{:#}", api.call("GET", "/status", Some(&tenant), None)?);
        return Ok(());
    }
    let mut path = "/sessions".to_owned();
    loop {
        let page = api.call("GET", &path, None, None)?;
        for session in page["sessions"].as_array().into_iter().flatten() {
            let text = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
            println!("{}\t{}\t{}\t{}", text("tenantId"), text("state"), text("since"), text("reason"));
        }
        match page["nextCursor"].as_str() {
            // A tenant's id holds nothing that a query would need escaped but these two, which are allowed in one.
            Some(cursor) => path = format!("/sessions?cursor={cursor}"),
            None => return Ok(()),
        }
    }
}

fn rekey(config: &Config, text: Option<&SecretText>, file: Option<&Path>, decrypt: bool) -> anyhow::Result<()> {
    let (old, new) = (config.seal()?, config::seal("NEW_ENCRYPTION_KEY", text, file)?);
    match (new.has_key(), decrypt) {
        (true, true) => bail!("give either a new key or --decrypt"),
        (false, false) => bail!("set NEW_ENCRYPTION_KEY or NEW_ENCRYPTION_KEY_FILE, or give --decrypt"),
        _ => {}
    }
    let data = DataDir::existing(&config.data_dir)?;
    let values = store::sqlite::rekey::rekey(&data.database(), &old, &new)?;
    match decrypt {
        true => println!("{values} values are kept unencrypted now. Start the service without ENCRYPTION_KEY."),
        false => println!("{values} values are encrypted with the new key now. Start the service with it."),
    }
    Ok(())
}

/// A running service.
struct Api {
    agent: ureq::Agent,
    url: String,
    secret: String,
}

impl Api {
    fn new(config: &Config, target: Target) -> anyhow::Result<Self> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(config.send_timeout + Duration::from_secs(40)))
            .http_status_as_error(false)
            .build();
        Ok(Self {
            agent: agent.into(),
            url: target
                .url
                .filter(|url| !url.is_empty())
                .unwrap_or_else(|| format!("http://127.0.0.1:{}", config.port)),
            secret: config.internal_secret()?.first().into(),
        })
    }

    fn call(&self, method: &str, path: &str, tenant: Option<&str>, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        request = request.header("X-Internal-Secret", &self.secret).header("Content-Type", "application/json");
        if let Some(tenant) = tenant {
            request = request.header("X-Tenant-Id", tenant);
        }
        let request = request.body(body.map(|body| body.to_string()).unwrap_or_default())?;
        let mut response = self.agent.run(request).with_context(|| format!("no answer from {url}"))?;
        let text = response.body_mut().read_to_string()?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("{url} did not answer in JSON"))?;
        if !response.status().is_success() {
            bail!("{} {}", response.status().as_u16(), why(&answer));
        }
        Ok(answer)
    }
}

/// What an answer says of a failure, in its own words.
fn why(answer: &Value) -> String {
    let fields = ["error", "code", "state", "reason", "message"];
    let words: Vec<_> = fields.iter().filter_map(|&field| answer[field].as_str()).collect();
    words.join(": ")
}
