//! The process that makes a voice note: this same program, started anew with one argument and nothing of the
//! environment. What a recording says of itself can make a decoder take any amount of memory and time, or end: here it has
//! so much of both, and only the note is lost.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use crate::{
    media::voice::convert::{Note, Refused, convert},
    model::media::MediaKind,
    util::encoding::base64_text,
    whatsapp::media_crypto::Plain,
};

/// The argument that asks for it.
pub const ARGUMENT: &str = "convert-voice-note";
/// How much memory it may have, in bytes.
const MEMORY: u64 = 128 * 1024 * 1024;
/// How long it may use a processor, in seconds.
const PROCESSOR: u64 = 120;
/// How far it steps back behind the service.
const NICE: i32 = 10;

/// What is to be done, as it is written to its standard input.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// The file, encrypted.
    pub path: PathBuf,
    /// Its key.
    #[serde(with = "base64_text")]
    pub key: Vec<u8>,
    /// How many bytes it holds.
    pub size: u64,
    /// Whether it is only to be listened to.
    pub only_listen: bool,
}

/// What came of it, as it is written to its standard error; the note itself goes to its standard output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is made.
    Note(Note),
    /// It is not.
    Refused(Refused),
}

/// Whether this process is one of these.
pub fn is_asked() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// All that such a process does.
pub fn run() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work() -> io::Result<()> {
    let limits = [
        (Resource::Data, MEMORY, MEMORY),
        // A signal of its own says that its time is over; the second one, that it did not end.
        (Resource::Cpu, PROCESSOR, PROCESSOR + 1),
        // It writes no files, and leaves none behind.
        (Resource::Fsize, 0, 0),
        (Resource::Core, 0, 0),
    ];
    for (resource, current, maximum) in limits {
        let already = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let (current, maximum) = (Some(current.min(already)), Some(maximum.min(already)));
        setrlimit(resource, Rlimit { current, maximum })?;
    }
    let _ = nice(NICE);
    let job: Job = serde_json::from_reader(io::stdin().lock())?;
    let plain = Plain::new(File::open(job.path)?, &job.key, MediaKind::Voice, job.size)?;
    let to = (!job.only_listen).then(|| BufWriter::with_capacity(64 * 1024, io::stdout().lock()));
    let outcome = match convert(plain, job.size, to) {
        Ok(note) => Outcome::Note(note),
        Err(refused) => Outcome::Refused(refused),
    };
    io::stderr().write_all(&serde_json::to_vec(&outcome)?)
}
