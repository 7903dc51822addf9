//! What the system says of this process.

use std::{fs, sync::OnceLock, time::SystemTime};

/// The system counts processor time in hundredths of a second for every program (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

static STARTED: OnceLock<SystemTime> = OnceLock::new();

/// What the process uses. Whatever can't be read is absent.
#[derive(Debug, Default)]
pub struct Usage {
    /// Memory that is in use, in bytes.
    pub resident: Option<u64>,
    /// The most memory that was in use at once, in bytes.
    pub resident_peak: Option<u64>,
    /// Memory that is mapped, in bytes.
    pub mapped: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Processor time so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// File descriptors that are open.
    pub open_fds: Option<u64>,
    /// File descriptors that may be open.
    pub max_fds: Option<u64>,
}

/// When the process started, in seconds since 1970: the first time that somebody asked. Ask at the start.
pub fn started() -> f64 {
    let started = STARTED.get_or_init(SystemTime::now);
    started.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}

/// Gives memory that is free back to the system. After many sessions have come back at once, glibc keeps what they took
/// for a moment: 80 MB of 180 with 500 sessions. It takes a few milliseconds.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions, and takes the locks that it needs.
    #[expect(unsafe_code, reason = "no crate in the tree offers it")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Reads `/proc`.
pub fn usage() -> Usage {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (status, limits) = (read("status"), read("limits"));
    let number = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
    };
    let bytes = |name: &str| number(name).map(|kib| kib * 1024);
    Usage {
        resident: bytes("VmRSS:"),
        resident_peak: bytes("VmHWM:"),
        mapped: bytes("VmSize:"),
        threads: number("Threads:"),
        cpu_seconds: cpu_seconds(&read("stat")),
        // The one that reads the folder is in it.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
        max_fds: limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()),
    }
}

/// User and system time (fields 14 and 15) from `/proc/self/stat`. The second field is the program's name, in brackets,
/// and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 50 0 0 0 150 25 0 0 20 0 9 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_says_what_this_process_uses() {
        let usage = usage();
        assert!(usage.resident.is_some_and(|bytes| bytes > 1024 * 1024), "{usage:?}");
        assert!(usage.resident_peak >= usage.resident && usage.mapped >= usage.resident, "{usage:?}");
        assert!(usage.threads.is_some_and(|threads| threads >= 1), "{usage:?}");
        assert!(usage.open_fds.is_some_and(|fds| fds >= 3) && usage.max_fds >= usage.open_fds, "{usage:?}");
        assert!(usage.cpu_seconds.is_some_and(|seconds| seconds >= 0.0), "{usage:?}");
    }
}
