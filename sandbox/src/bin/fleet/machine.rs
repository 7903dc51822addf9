//! What the figures were measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::figures::Figures;

/// How often a write to the disk is timed.
const WRITES: usize = 40;

/// Adds the machine, the build and the disk.
///
/// # Errors
/// The system doesn't say, or the folder can't be written to.
pub fn describe(figures: &mut Figures, data: &Path) -> anyhow::Result<()> {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    figures.add("version", env!("CARGO_PKG_VERSION"));
    figures.add("build", if cfg!(debug_assertions) { "debug" } else { "release" });
    figures.add("machine_cores", std::thread::available_parallelism()?.get());
    figures.add("machine_processor", line("/proc/cpuinfo", "model name"));
    figures.add("machine_memory", line("/proc/meminfo", "MemTotal"));
    figures.add("machine_kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    figures.add("data_file_system", file_system(data)?);
    figures.add_number("milliseconds_per_fsync", fsync(data)?.as_secs_f64() * 1000.0);
    Ok(())
}

/// The kind of file system that a folder is on. On `tmpfs` nothing is durable.
fn file_system(folder: &Path) -> anyhow::Result<String> {
    let (folder, mounts) = (folder.canonicalize()?, fs::read_to_string("/proc/mounts")?);
    let mounts = mounts.lines().filter_map(|mount| {
        let mut fields = mount.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(place, _)| folder.starts_with(place)).max_by_key(|(place, _)| place.len());
    Ok(holding.context("no mount holds the data")?.1.to_owned())
}

/// The median time until 4 KiB are on the disk: what any durable commit costs at least.
fn fsync(folder: &Path) -> anyhow::Result<Duration> {
    let path = folder.join("fsync");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let since = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(since.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[WRITES / 2])
}
