//! What a fleet of sessions costs, and how fast it sends: the service as a process of its own, the simulator and the
//! callers in this one.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use whatsapp_simulator::{Config, Phone, Simulator};

const SECRET: &str = "fleet";
/// How many sessions are linked at the same time.
const PAIRING_WIDTH: usize = 8;
/// How long any one step may take.
const STEP: Duration = Duration::from_secs(300);

/// Links many sessions through the service's HTTP interface, and measures: one JSON object on standard output, a table on
/// standard error.
#[derive(Parser)]
struct Options {
    /// How many sessions.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// How long each of the two loads lasts, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many callers send as fast as they are answered.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// How many messages a second are offered to measure how long an answer takes.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// The phones that are written to.
    #[arg(long, default_value_t = 50)]
    recipients: usize,
    /// The service's binary; without it, `sandbox` beside this one.
    #[arg(long)]
    service_binary: Option<PathBuf>,
    /// Print nothing but the JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let measured = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(measure(&options)));
    match measured {
        Ok(figures) => {
            if !options.json {
                for (name, value) in figures.as_object().into_iter().flatten() {
                    eprintln!("{name:<34} {value}");
                }
            }
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> anyhow::Result<Value> {
    let simulator = Simulator::bind("127.0.0.1:0".parse()?, Config::default()).await?;
    let recipients: Vec<_> = (0..options.recipients.max(1)).map(|n| format!("49162{n:08}")).collect();
    for number in &recipients {
        simulator.add_account(&Phone::parse(number)?, "Recipient")?;
    }
    let mut service = Service::start(options, &simulator).await?;
    let before = service.usage()?;
    let half = options.sessions / 2;
    let pairing = Instant::now();
    pair(&service, &simulator, 0..half).await?;
    let at_half = service.usage()?;
    pair(&service, &simulator, half..options.sessions).await?;
    let pairing = pairing.elapsed();
    let paired = service.usage()?;
    let load =
        Arc::new(Load { api: service.api.clone(), recipients, tenants: options.sessions, next: AtomicUsize::new(0) });
    let fast = load.as_fast_as_answered(options.callers, Duration::from_secs(options.seconds)).await?;
    let steady = load.at_rate(options.rate, Duration::from_secs(options.seconds)).await?;
    let loaded = service.usage()?;
    let killed = Instant::now();
    service.kill_and_restart(options).await?;
    service.until_ready(options.sessions).await?;
    let recovered = killed.elapsed();
    let terminated = Instant::now();
    service.terminate().await?;
    let terminated = terminated.elapsed();
    simulator.shutdown().await;
    let sessions = options.sessions.max(1) as f64;
    let slope = (paired.rss_kib as f64 - at_half.rss_kib as f64) / (options.sessions - half).max(1) as f64;
    Ok(json!({
        "sessions": options.sessions,
        "tls": false,
        "kib_per_session": round(slope),
        "rss_kib_empty": before.rss_kib,
        "rss_kib_paired": paired.rss_kib,
        "rss_kib_after_load": loaded.rss_kib,
        "peak_kib": loaded.peak_kib,
        "descriptors_per_session": round((paired.descriptors as f64 - before.descriptors as f64) / sessions),
        "threads": paired.threads,
        "pairings_per_second": round(sessions / pairing.as_secs_f64()),
        "sends_per_second": round(fast.sent as f64 / fast.lasted.as_secs_f64()),
        "sends_callers": options.callers,
        "sends_not_acknowledged": fast.other,
        "sends_p50_ms": fast.percentile(50.0),
        "sends_p99_ms": fast.percentile(99.0),
        "service_cpu_ms_per_send": round((loaded.cpu_ms - paired.cpu_ms) / (fast.sent + steady.sent).max(1) as f64),
        "offered_per_second": options.rate,
        "offered_p50_ms": steady.percentile(50.0),
        "offered_p99_ms": steady.percentile(99.0),
        "offered_not_acknowledged": steady.other,
        "seconds_from_kill_to_all_ready": round(recovered.as_secs_f64()),
        "seconds_to_terminate": round(terminated.as_secs_f64()),
    }))
}

/// Calls of the service.
#[derive(Clone)]
struct Api {
    http: Client,
    url: String,
}

impl Api {
    fn new(port: u16) -> anyhow::Result<Self> {
        // The service's way out brings TLS into this build, which wants to be told whose arithmetic and certificates to
        // use; nothing here is reached by TLS.
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(STEP).build()?;
        Ok(Self { http, url: format!("http://127.0.0.1:{port}") })
    }

    fn request(&self, method: Method, path: &str, tenant: Option<usize>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url)).header("X-Internal-Secret", SECRET);
        match tenant {
            Some(tenant) => request.header("X-Tenant-Id", format!("tenant-{tenant}")),
            None => request,
        }
    }

    async fn json(&self, method: Method, path: &str, tenant: Option<usize>) -> anyhow::Result<Value> {
        Ok(self.request(method, path, tenant).send().await?.json().await?)
    }
}

/// The service, running. It ends with this value.
struct Service {
    api: Api,
    child: Child,
    port: u16,
    data: TempDir,
    whatsapp_url: String,
}

/// What the service's process uses.
struct Usage {
    rss_kib: u64,
    peak_kib: u64,
    threads: u64,
    descriptors: usize,
    cpu_ms: f64,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    async fn start(options: &Options, simulator: &Simulator) -> anyhow::Result<Self> {
        let (data, port) = (TempDir::with_prefix("fleet-")?, free_port()?);
        let whatsapp_url = simulator.ws_url();
        let child = spawn(options, &data, port, &whatsapp_url)?;
        let mut service = Self { api: Api::new(port)?, child, port, data, whatsapp_url };
        service.until_ready(0).await?;
        Ok(service)
    }

    async fn kill_and_restart(&mut self, options: &Options) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(options, &self.data, self.port, &self.whatsapp_url)?;
        Ok(())
    }

    async fn terminate(&mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(sent.success(), "SIGTERM could not be sent");
        while self.child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until so many sessions are ready.
    async fn until_ready(&mut self, sessions: usize) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let health = self.api.json(Method::GET, "/health", None).await;
            if health.is_ok_and(|health| health["sessions"].as_u64().is_some_and(|ready| ready >= sessions as u64)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the service ended by itself with {status}");
            }
            anyhow::ensure!(since.elapsed() < STEP, "{sessions} sessions are not ready after {STEP:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(folder.join("status"))?;
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).context("a line of /proc/PID/status")?;
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            anyhow::Ok(digits.parse::<u64>()?)
        };
        let stat = fs::read_to_string(folder.join("stat"))?;
        // After the name in brackets: user and system time are the 12th and 13th, in hundredths of a second.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Usage {
            rss_kib: number("VmRSS:")?,
            peak_kib: number("VmHWM:")?,
            threads: number("Threads:")?,
            descriptors: fs::read_dir(folder.join("fd"))?.count(),
            cpu_ms: ticks as f64 * 10.0,
        })
    }
}

fn spawn(options: &Options, data: &TempDir, port: u16, whatsapp_url: &str) -> anyhow::Result<Child> {
    let beside = std::env::current_exe()?.with_file_name("sandbox");
    let binary = options.service_binary.as_ref().unwrap_or(&beside);
    let log = File::create(data.path().join("service.log"))?;
    let mut command = Command::new(binary);
    command.arg("service").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.env("INTERNAL_SECRET", SECRET).env("HOST", "127.0.0.1").env("PORT", port.to_string());
    command.env("DATA_DIR", data.path().join("data")).env("LOG_LEVEL", "warn").env("WHATSAPP_URL", whatsapp_url);
    command.env("DIAL_RATE", "0");
    command.spawn().with_context(|| format!("{} can't be started", binary.display()))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Links these tenants, each to a phone of its own.
async fn pair(service: &Service, simulator: &Simulator, tenants: std::ops::Range<usize>) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(tenants.start));
    let mut running = JoinSet::new();
    for _ in 0..PAIRING_WIDTH {
        let (api, world, next, end) = (service.api.clone(), simulator.world().clone(), next.clone(), tenants.end);
        running.spawn(async move {
            loop {
                let tenant = next.fetch_add(1, Ordering::Relaxed);
                if tenant >= end {
                    return anyhow::Ok(());
                }
                let phone = Phone::parse(&format!("55119{tenant:08}"))?;
                world.add_account(&phone, &format!("Tenant {tenant}"))?;
                let since = Instant::now();
                let mut session = api.json(Method::POST, "/session", Some(tenant)).await?;
                while !session["qrCode"].is_string() {
                    anyhow::ensure!(since.elapsed() < STEP, "no QR code for tenant {tenant}: {session}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    session = api.json(Method::GET, "/status", Some(tenant)).await?;
                }
                world.scan_qr(session["qrCode"].as_str().unwrap_or_default(), Some(&phone)).await?;
                while session["state"] != "ready" {
                    anyhow::ensure!(since.elapsed() < STEP, "tenant {tenant} is not ready: {session}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    session = api.json(Method::GET, "/status", Some(tenant)).await?;
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// Callers of `POST /send`, the tenants in turn.
struct Load {
    api: Api,
    recipients: Vec<String>,
    tenants: usize,
    next: AtomicUsize,
}

/// What came of a load.
struct Outcome {
    /// Answered with 200.
    sent: u64,
    /// Answered with anything else, or not at all.
    other: u64,
    lasted: Duration,
    /// Of each answer, in microseconds.
    micros: Vec<u64>,
}

impl Load {
    async fn send(&self) -> (bool, u64) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let to = &self.recipients[(n / self.tenants.max(1) + n) % self.recipients.len()];
        let body = json!({"to": to, "message": format!("message {n}")});
        let started = Instant::now();
        let answer = self.api.request(Method::POST, "/send", Some(n % self.tenants.max(1))).json(&body).send().await;
        let sent = match answer {
            Ok(answer) => answer.status() == 200 && answer.bytes().await.is_ok(),
            Err(_) => false,
        };
        (sent, started.elapsed().as_micros() as u64)
    }

    /// As many callers, each of which sends again as soon as it is answered. Each tenant sends once before, so that
    /// nobody's first message is counted.
    async fn as_fast_as_answered(self: &Arc<Self>, callers: usize, lasting: Duration) -> anyhow::Result<Outcome> {
        let (sent, other) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut warming = JoinSet::new();
        for _ in 0..callers {
            let (load, each) = (self.clone(), 3 * self.tenants.max(callers) / callers);
            warming.spawn(async move {
                for _ in 0..each {
                    load.send().await;
                }
            });
        }
        warming.join_all().await;
        let started = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let (load, sent, other) = (self.clone(), sent.clone(), other.clone());
            running.spawn(async move {
                let mut micros = Vec::new();
                while started.elapsed() < lasting {
                    let (ok, took) = load.send().await;
                    if ok { &sent } else { &other }.fetch_add(1, Ordering::Relaxed);
                    micros.push(took);
                }
                micros
            });
        }
        let micros = running.join_all().await.concat();
        let (sent, other) = (sent.load(Ordering::Relaxed), other.load(Ordering::Relaxed));
        Ok(Outcome { sent, other, lasted: started.elapsed(), micros }.sorted())
    }

    /// So many messages a second, whether the ones before are answered or not.
    async fn at_rate(self: &Arc<Self>, rate: u64, lasting: Duration) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate.max(1))?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut running = JoinSet::new();
        while started.elapsed() < lasting {
            ticks.tick().await;
            let load = self.clone();
            running.spawn(async move { load.send().await });
        }
        let answers = running.join_all().await;
        let sent = answers.iter().filter(|(ok, _)| *ok).count() as u64;
        let micros = answers.iter().map(|(_, took)| *took).collect();
        Ok(Outcome { sent, other: answers.len() as u64 - sent, lasted: started.elapsed(), micros }.sorted())
    }
}

impl Outcome {
    fn sorted(mut self) -> Self {
        self.micros.sort_unstable();
        self
    }

    /// In milliseconds.
    fn percentile(&self, percent: f64) -> f64 {
        let at = (self.micros.len() as f64 * percent / 100.0) as usize;
        round(self.micros.get(at.min(self.micros.len().saturating_sub(1))).copied().unwrap_or_default() as f64 / 1000.0)
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
