//! A process of this run, and what the system says about it.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
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
        unsafe { command.pre_exec(dies_with_its_parent) };
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
        usage(&self.id()?.to_string())
    }

    /// The processor time it has used.
    ///
    /// # Errors
    /// The system doesn't say, or the process has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.id()?.to_string())
    }

    /// The bytes it has had written to a disk.
    ///
    /// # Errors
    /// The system doesn't say, or the process has ended.
    pub fn written(&self) -> anyhow::Result<u64> {
        number(&fs::read_to_string(format!("/proc/{}/io", self.id()?))?, "write_bytes:")
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.0.id().context("the process has ended")
    }
}

/// What a process uses.
pub struct Usage {
    /// Resident memory, in KiB: VmRSS.
    pub rss: u64,
    /// The most that was ever resident, in KiB: VmHWM.
    pub peak: u64,
    /// Resident memory, in KiB, of shared pages only its share.
    pub pss: u64,
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

fn usage(process: &str) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    Ok(Usage {
        rss: number(&status, "VmRSS:")?,
        peak: number(&status, "VmHWM:")?,
        pss: number(&memory, "Pss:")?,
        threads: number(&status, "Threads:")?,
        descriptors: u64::try_from(fs::read_dir(format!("/proc/{process}/fd"))?.count())?,
    })
}

/// The number after a name at the start of a line.
fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}

/// The processor time that this program has used.
///
/// # Errors
/// The system doesn't say.
pub fn own_cpu() -> anyhow::Result<Duration> {
    cpu("self")
}

fn cpu(process: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name in brackets, which may hold anything, the 12th and 13th field are user and system time in ticks.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
