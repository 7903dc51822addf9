//! What a process uses, as Linux counts it.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Its share of the memory that it shares with others, and all that is its own, in KiB.
    pub pss_kib: u64,
    /// The most that was ever resident, in KiB.
    pub peak_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Processor time so far, in seconds.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// It is gone, or this is no Linux.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let folder = Path::new("/proc").join(process.to_string());
        let read =
            |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("/proc/{process}/{name}"));
        let (status, rollup, stat) = (read("status")?, read("smaps_rollup")?, read("stat")?);
        // After the name in brackets, user and system time are the 12th and the 13th, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Self {
            rss_kib: number(&status, "VmRSS:")?,
            pss_kib: number(&rollup, "Pss:")?,
            peak_kib: number(&status, "VmHWM:")?,
            descriptors: fs::read_dir(folder.join("fd"))?.count() as u64,
            threads: number(&status, "Threads:")?,
            cpu_seconds: ticks as f64 / 100.0,
        })
    }

    /// As it stands in a report.
    pub fn to_json(self) -> Value {
        json!({
            "rssKib": self.rss_kib, "pssKib": self.pss_kib, "peakKib": self.peak_kib,
            "descriptors": self.descriptors, "threads": self.threads, "cpuSeconds": self.cpu_seconds,
        })
    }
}

/// The number on the line that begins so.
fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let digits = line.split_whitespace().next().unwrap_or_default();
    digits.parse().with_context(|| format!("{name}{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_kib > 0 && usage.pss_kib > 0 && usage.peak_kib >= usage.rss_kib, "{usage:?}");
        assert!(usage.threads > 0 && usage.descriptors > 0, "{usage:?}");
    }
}
