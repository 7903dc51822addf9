//! Voice notes: mono Opus of 48 kHz in Ogg, made of whatever browsers and phones record.
//!
//! The work is done by processes of their own ([`worker`]), a few at a time and one of each tenant.

pub mod convert;
pub mod opus;
pub mod waveform;
pub mod worker;

use std::{os::unix::process::ExitStatusExt, process::Stdio, thread::available_parallelism, time::Duration};

use libc::{SIGHUP, SIGKILL, SIGTERM};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    media::{
        NotTaken,
        part::Part,
        voice::{
            convert::{LONGEST, Note, Refused},
            worker::{ARGUMENT, Job, Outcome},
        },
    },
    model::tenant::TenantId,
    util::fair_semaphore::FairSemaphore,
};

/// This program, also when another one has taken its place on the disk.
const PROGRAM: &str = "/proc/self/exe";
/// How many may be made at once, where there are as many processors.
const AT_ONCE: usize = 4;
/// And how many of them for one tenant.
const AT_ONCE_EACH: usize = 1;
/// How long a recording waits for its turn.
const TURN: Duration = Duration::from_secs(60);
/// And one that is sent anyway, as it is.
const LISTENING_TURN: Duration = Duration::from_secs(5);
/// How long making a note may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How much is taken over at a time.
const PIECE: usize = 64 * 1024;
/// The longest outcome, in bytes.
const OUTCOME: u64 = 4 * 1024;

/// A recording on the disk.
pub struct Recording<'a> {
    /// The file.
    pub part: &'a Part,
    /// Its key.
    pub key: &'a [u8],
    /// How many bytes it holds.
    pub size: u64,
}

/// Makes voice notes.
pub struct Voices {
    turns: FairSemaphore<TenantId>,
}

impl Default for Voices {
    /// With as many places as there are processors.
    fn default() -> Self {
        // Two at least, so that no tenant has all.
        let places = available_parallelism().map_or(2, usize::from).clamp(2, AT_ONCE);
        Self { turns: FairSemaphore::new(places, AT_ONCE_EACH) }
    }
}

impl Voices {
    /// Makes a voice note of a recording, and writes it to `to`.
    pub async fn make(&self, tenant: &TenantId, recording: Recording<'_>, to: &mut Part) -> Result<Note, NotTaken> {
        self.in_turn(tenant, TURN, work(recording, Some(to))).await
    }

    /// Says what is known of a voice note, if that is soon.
    pub async fn listen(&self, tenant: &TenantId, recording: Recording<'_>) -> Result<Note, NotTaken> {
        self.in_turn(tenant, LISTENING_TURN, work(recording, None)).await
    }

    async fn in_turn(
        &self,
        tenant: &TenantId,
        turn: Duration,
        work: impl Future<Output = Result<Note, NotTaken>>,
    ) -> Result<Note, NotTaken> {
        let _turn = timeout(turn, self.turns.take(tenant)).await.map_err(|_| NotTaken::Busy)?;
        timeout(PATIENCE, work).await.map_err(|_| NotTaken::Busy)?
    }
}

async fn work(recording: Recording<'_>, to: Option<&mut Part>) -> Result<Note, NotTaken> {
    let job = Job {
        path: recording.part.path().into(),
        key: recording.key.into(),
        size: recording.size,
        only_listen: to.is_none(),
    };
    let mut child = start(&job).await.map_err(|error| {
        tracing::error!(kind = %error.kind(), "the process that makes voice notes can't be started");
        NotTaken::Busy
    })?;
    if let Some((to, mut made)) = to.zip(child.stdout.take()) {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let ended = made.read_buf(&mut piece).await.map_err(|_| NotTaken::Busy)? == 0;
            if piece.len() >= PIECE || (ended && !piece.is_empty()) {
                piece = to.write(piece).await?;
                piece.reserve(PIECE);
            }
            if ended {
                break;
            }
        }
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(OUTCOME).read_to_end(&mut said).await.map_err(|_| NotTaken::Busy)?;
    }
    let status = child.wait().await.map_err(|_| NotTaken::Busy)?;
    match serde_json::from_slice(&said).ok().filter(|_| status.success()) {
        Some(Outcome::Note(note)) => Ok(note),
        Some(Outcome::Refused(Refused::Unreadable)) => Err(NotTaken::NoVoice),
        Some(Outcome::Refused(Refused::Video)) => Err(NotTaken::VideoForVoice),
        Some(Outcome::Refused(Refused::TooLong)) => Err(NotTaken::TooLong { seconds: LONGEST }),
        Some(Outcome::Refused(Refused::Output)) => Err(NotTaken::Busy),
        // Somebody ended it, the service's manager or the kernel that needs its memory: that says nothing of the recording.
        None if matches!(status.signal(), Some(SIGTERM | SIGKILL | SIGHUP)) => Err(NotTaken::Busy),
        // It did not come to look at the recording.
        None if status.code() == Some(1) && said.is_empty() => Err(NotTaken::Busy),
        None => {
            // It took more memory or time than it may have, or met a bug of a library.
            tracing::warn!(%status, "a recording could not be made a voice note");
            Err(NotTaken::NoVoice)
        }
    }
}

async fn start(job: &Job) -> std::io::Result<Child> {
    let mut command = Command::new(PROGRAM);
    // In a group of its own: Ctrl-C is for the service, which ends when it has answered.
    command.arg(ARGUMENT).env_clear().kill_on_drop(true).process_group(0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(job)?).await?;
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note { seconds: 1, waveform: vec![0; 64] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_waits_for_its_own_notes_and_not_for_those_of_others() {
        let voices = Voices::default();
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let endless = voices.in_turn(&acme, TURN, std::future::pending());
        let mut endless = std::pin::pin!(endless);
        assert!(futures_util::poll!(&mut endless).is_pending());
        let second = voices.in_turn(&acme, TURN, async { Ok(note()) });
        assert!(matches!(second.await, Err(NotTaken::Busy)), "it has its place");
        assert_eq!(voices.in_turn(&other, TURN, async { Ok(note()) }).await.unwrap(), note());
        // What takes too long is given up, and the next one has the place.
        assert!(matches!(endless.await, Err(NotTaken::Busy)));
        assert_eq!(voices.in_turn(&acme, TURN, async { Ok(note()) }).await.unwrap(), note());
    }
}
