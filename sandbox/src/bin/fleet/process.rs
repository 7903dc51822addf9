//! A process of this run, and what the system says about it.

use std::fs;
use std::process::{Command, ExitStatus};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use sandbox::usage::Usage;
use tokio::process::Child;

/// A running process. It ends with this value, and with this program, however that ends.
pub struct Process(Child);

impl Process {
    /// Starts it. Only from the main thread: when the thread that did it ends, the process is killed.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let dies_with_its_parent = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec it only makes one system call.
        #[expect(unsafe_code, reason = "the child has to learn of its parent's end, and only this sees to it")]
        unsafe {
            command.pre_exec(dies_with_its_parent)
        };
        let program = command.get_program().to_owned();
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn();
        Ok(Self(child.with_context(|| format!("{} can't be started", program.display()))?))
    }

    /// What it prints, if that was asked for.
    pub fn output(&mut self) -> Option<tokio::process::ChildStdout> {
        self.0.stdout.take()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system doesn't say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.0.kill().await?)
    }

    /// SIGTERM, and its end.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(self.id()?.try_into()?).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        Ok(self.0.wait().await?)
    }

    /// What it uses now.
    ///
    /// # Errors
    /// The system doesn't say, or the process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.id()?)
    }

    /// The bytes it has had written to a disk.
    ///
    /// # Errors
    /// The system doesn't say, or the process has ended.
    pub fn written(&self) -> anyhow::Result<u64> {
        let counters = fs::read_to_string(format!("/proc/{}/io", self.id()?))?;
        let written = counters.lines().find_map(|line| line.strip_prefix("write_bytes:"));
        Ok(written.context("no write_bytes in /proc")?.trim().parse()?)
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.0.id().context("the process has ended")
    }
}
