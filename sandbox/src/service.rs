//! The service as a process of its own.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::api::{Api, SECRET};

/// How long a start may take.
const START: Duration = Duration::from_secs(120);

/// How many lines of the service's log are shown when it ended by itself.
const TAIL: usize = 15;

/// The `sandbox` program: this one, or the one beside the program that runs.
///
/// # Errors
/// There is none.
pub fn sandbox_program(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let beside = || anyhow::Ok(std::env::current_exe()?.with_file_name("sandbox"));
    let binary = given.map_or_else(beside, Ok)?;
    anyhow::ensure!(binary.exists(), "{} is not there: cargo build -p sandbox makes it", binary.display());
    Ok(binary)
}

/// How the service is started, each time in the same way.
pub struct Program {
    /// The `sandbox` program.
    pub binary: PathBuf,
    /// The port to listen on, on this machine only.
    pub port: u16,
    /// Holds its data and its log.
    pub folder: PathBuf,
    /// Further settings.
    pub env: Vec<(&'static str, String)>,
}

impl Program {
    /// The service's log, of all its lives.
    fn log(&self) -> PathBuf {
        self.folder.join("service.log")
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.binary);
        command.arg("service").stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log);
        command.env("INTERNAL_SECRET", SECRET).env("HOST", "127.0.0.1").env("PORT", self.port.to_string());
        command.env("DATA_DIR", self.folder.join("data")).env("LOG_FORMAT", "json");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.spawn().with_context(|| format!("{} can't be started", self.binary.display()))
    }
}

/// A port that stays free while nobody listens on it: one that the system gives to no outgoing connection.
///
/// # Errors
/// None was found.
pub fn lasting_port() -> anyhow::Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut candidates = (0..200).map(|_| rand::random_range(20_000..32_000));
    candidates.find(free).context("no free port was found")
}

/// The running service. It ends with this value.
pub struct Service {
    program: Program,
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// Starts it. It answers some time later.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(program: Program) -> anyhow::Result<Self> {
        let child = program.spawn()?;
        Ok(Self { program, child })
    }

    /// Its process, until it is killed.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// That it runs.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(self.program.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        anyhow::bail!("the service ended by itself, with {status}; its last words:\n{tail}")
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended by itself, or took too long.
    pub async fn until_up(&mut self, api: &Api) -> anyhow::Result<()> {
        let since = Instant::now();
        while !matches!(api.try_get(None, "/health").await, Ok((200, _))) {
            self.check()?;
            anyhow::ensure!(since.elapsed() < START, "the service doesn't answer {START:?} after its start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// It can't be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        while self.child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Starts it again after a kill.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = self.program.spawn()?;
        Ok(())
    }

    /// Watches over it.
    ///
    /// # Errors
    /// It ended by itself.
    pub async fn until_ended(&mut self) -> anyhow::Result<Infallible> {
        loop {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
