//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Each session has a socket, and each caller too.
const ENOUGH: u64 = 65_536;

/// Lets this process open as many as the system allows it at all (the hard limit of `ulimit -n`). Many systems set the
/// limit that counts to 1,024, for programs that can't deal with more.
///
/// # Errors
/// The system refuses.
pub fn raise_limit() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    if let Some(limit) = maximum.filter(|&limit| limit < ENOUGH) {
        tracing::warn!(limit, "few files may be open at once: each session and each caller takes one (ulimit -Hn)");
    }
    Ok(())
}

/// How many that are; nothing where there is no limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
