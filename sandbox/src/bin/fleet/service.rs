//! The service as a process of its own: its start, its ends, and its memory.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::usage::Usage;

use crate::api::{Api, SECRET};
use crate::process::Process;

/// How long a start may take.
const START: Duration = Duration::from_secs(120);

/// How many lines of the service's log are shown when it ended by itself.
const TAIL: usize = 15;

/// For so long memory must not change for it to have settled.
const STILL: Duration = Duration::from_secs(3);

/// How the service is started, each time in the same way.
pub struct Program {
    /// The program, which has a command `service`.
    pub binary: PathBuf,
    /// The port to listen on, on this machine only.
    pub port: u16,
    /// Holds its data and its log.
    pub folder: PathBuf,
    /// Where it finds WhatsApp.
    pub whatsapp: String,
    /// The root certificate to trust there, if it takes TLS.
    pub trust_ca: Option<PathBuf>,
}

impl Program {
    fn spawn(&self) -> anyhow::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.binary);
        command.arg("service").stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log);
        if let Some(file) = &self.trust_ca {
            command.arg("--trust-ca").arg(file);
        }
        command.env("INTERNAL_SECRET", SECRET).env("HOST", "127.0.0.1").env("PORT", self.port.to_string());
        command.env("DATA_DIR", self.folder.join("data")).env("WHATSAPP_URL", &self.whatsapp);
        command.env("LOG_LEVEL", "warn");
        // All may dial at once: what is measured is how long the service takes, not how long it waits out of politeness.
        command.env("DIAL_RATE", "0").env("DIAL_CONCURRENCY", "64");
        Process::spawn(command)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("service.log")
    }
}

/// The running service.
pub struct Service {
    program: Program,
    api: Api,
    pub process: Process,
}

impl Service {
    /// Starts it, and waits until it answers. How long that took.
    ///
    /// # Errors
    /// It can't be started, or does not answer.
    pub async fn start(program: Program, api: Api) -> anyhow::Result<(Self, Duration)> {
        let since = Instant::now();
        let process = program.spawn()?;
        let mut service = Self { program, api, process };
        service.until_up().await?;
        Ok((service, since.elapsed()))
    }

    /// Starts it once more, and waits until it answers. How long that took.
    ///
    /// # Errors
    /// It can't be started, or does not answer.
    pub async fn start_again(&mut self) -> anyhow::Result<Duration> {
        let since = Instant::now();
        self.process = self.program.spawn()?;
        self.until_up().await?;
        Ok(since.elapsed())
    }

    /// Waits until it says that it is well.
    async fn until_up(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        while self.api.ready().await.is_none() {
            self.check()?;
            anyhow::ensure!(since.elapsed() < START, "the service doesn't answer {START:?} after its start");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Waits until so many sessions are ready, for so long. How many are.
    ///
    /// # Errors
    /// The service ended by itself.
    pub async fn until_ready(&mut self, sessions: u32, limit: Duration) -> anyhow::Result<u64> {
        let since = Instant::now();
        loop {
            let ready = self.api.ready().await.unwrap_or_default();
            if ready >= u64::from(sessions) || since.elapsed() > limit {
                return Ok(ready);
            }
            self.check()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until its memory no longer changes, for so long, and says what it uses, and whether that has settled.
    ///
    /// # Errors
    /// The service ended by itself.
    pub async fn settled(&mut self, limit: Duration) -> anyhow::Result<(Usage, bool)> {
        let since = Instant::now();
        let (mut still_since, mut before) = (since, self.process.usage()?.rss_kib);
        loop {
            self.check()?;
            let usage = self.process.usage()?;
            // Half a percent, or what a few requests may leave behind.
            if usage.rss_kib.abs_diff(before) > (before / 200).max(256) {
                (still_since, before) = (Instant::now(), usage.rss_kib);
            }
            if still_since.elapsed() >= STILL || since.elapsed() >= limit {
                return Ok((usage, still_since.elapsed() >= STILL));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// That it runs.
    fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.ended()? else { return Ok(()) };
        let log = std::fs::read_to_string(self.program.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        anyhow::bail!("the service ended by itself, with {status}; its last words:\n{tail}")
    }
}
