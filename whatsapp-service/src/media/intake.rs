//! Taking media in: from the stream of a call or from a URL, encrypted while it comes, to a file on the disk.

use crate::{
    media::{
        NotTaken,
        bounded::Bounded,
        fetch::Fetched,
        kind::{Claim, Guess, HEAD, Look},
        movie,
        part::{Part, blocking},
        shelf::{Content, Held, MediaStore, Taken, share_of},
        voice::{Recording, convert::Note},
        zip,
    },
    model::{
        media::{MediaKind, StoredMedia},
        tenant::TenantId,
    },
    whatsapp::media_crypto::have_same_keys,
};
use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use std::{io::Read, sync::Arc};

/// How much is encrypted and written at a time.
const PIECE: usize = 64 * 1024;

impl MediaStore {
    /// The answer at a URL, for a tenant, if it is all there at the deadline.
    pub async fn fetch(
        &self,
        tenant: &TenantId,
        url: &str,
        deadline: tokio::time::Instant,
    ) -> Result<Fetched, NotTaken> {
        self.fetcher.fetch(tenant, url, self.limits.highest(), deadline).await
    }

    /// Takes bytes in, as they come. When this returns, they are on the disk, as they are sent.
    pub async fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        claim: &Claim,
        bytes: impl Stream<Item = Result<Bytes, NotTaken>> + Send,
    ) -> Result<Taken, NotTaken> {
        let (part, parcel, guess) = self.receive(tenant, claim, bytes).await?;
        let given = parcel.sha256.clone();
        let guess = self.look(&part, &parcel, guess, claim).await?;
        let content = Content(tenant.clone(), share_of(guess.kind), given.clone());
        let (parcel, held) = match self.known_bytes(&content) {
            Some(known) => known,
            None => self.complete(tenant, part, parcel, content, &guess).await?,
        };
        let Guess { kind, mimetype, said, .. } = guess;
        Ok(Taken { parcel, kind, mimetype, said, given, name: None, held })
    }

    /// Writes bytes to a file, as they come, encrypted for what they seem to be.
    pub(crate) async fn receive(
        &self,
        tenant: &TenantId,
        claim: &Claim,
        bytes: impl Stream<Item = Result<Bytes, NotTaken>> + Send,
    ) -> Result<(Part, StoredMedia, Guess), NotTaken> {
        let mut bytes = std::pin::pin!(bytes.fuse());
        let (mut pending, mut rest) = (Vec::with_capacity(PIECE), Bytes::new());
        fill(&mut pending, &mut rest, &mut bytes).await?;
        if pending.is_empty() {
            return Err(NotTaken::Empty);
        }
        let guess = Guess::of(&pending[..pending.len().min(HEAD)], claim)?;
        let kind = guess.kind;
        let limit = match guess.look {
            // It may turn out the other.
            Look::Tracks if kind != MediaKind::Document => self.limits.video.max(self.limits.audio),
            _ => self.limits.of(kind),
        };
        let mut part = Part::create(&self.folder, &self.room, tenant, kind).await?;
        let mut size = 0;
        loop {
            size += pending.len() as u64;
            if size > limit {
                return Err(NotTaken::TooLarge { kind, limit });
            }
            pending = part.write(std::mem::take(&mut pending)).await?;
            fill(&mut pending, &mut rest, &mut bytes).await?;
            if pending.is_empty() {
                break;
            }
        }
        let parcel = part.finish().await?;
        Ok((part, parcel, guess))
    }

    /// Looks at the places in a file that decide what it is, where its beginning does not.
    pub(crate) async fn look(
        &self,
        part: &Part,
        parcel: &StoredMedia,
        guess: Guess,
        claim: &Claim,
    ) -> Result<Guess, NotTaken> {
        let size = parcel.size;
        let mut plain = Bounded::new(part.plain(parcel)?, size);
        match guess.look {
            Look::Tracks => {
                let movie = blocking(move || Ok(movie::read(&mut plain))).await?;
                let guess = guess.with_tracks(movie.has_video, movie.has_audio);
                if claim.gif && guess.kind != MediaKind::Video {
                    return Err(NotTaken::NoGif);
                }
                self.within_limit(guess.kind, size)?;
                Ok(guess)
            }
            Look::Archive => {
                let more = blocking(move || Ok(zip::mimetype(&mut plain))).await?;
                Ok(Guess { mimetype: more.unwrap_or(guess.mimetype), ..guess })
            }
            Look::Nothing | Look::Voice { .. } => Ok(guess),
        }
    }

    pub(crate) fn within_limit(&self, kind: MediaKind, size: u64) -> Result<(), NotTaken> {
        let limit = self.limits.of(kind);
        if size > limit { Err(NotTaken::TooLarge { kind, limit }) } else { Ok(()) }
    }

    /// Makes of a file what is sent, describes it, and gives it its own name.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        tenant: &TenantId,
        mut part: Part,
        mut parcel: StoredMedia,
        content: Content,
        guess: &Guess,
    ) -> Result<(StoredMedia, Held), NotTaken> {
        let note = match guess.look {
            Look::Voice { ready } => {
                let (made, note) = self.voice(tenant, &part, &parcel, ready).await?;
                if let Some(made) = made {
                    (part, parcel) = made;
                }
                note
            }
            _ => {
                if !have_same_keys(part.kind(), guess.kind) {
                    (part, parcel) = self.encrypted_anew(tenant, &part, &parcel, guess.kind).await?;
                }
                None
            }
        };
        parcel.kind = guess.kind;
        match note {
            Some(note) => (parcel.seconds, parcel.waveform) = (Some(note.seconds), Some(note.waveform)),
            None => {
                if let Ok(file) = part.open() {
                    parcel = self.previews.describe(parcel, guess.kind, &guess.mimetype, file).await;
                }
            }
        }
        let held = self.hold(&parcel, content);
        part.keep().await?;
        self.touch(&parcel.file, |entry| entry.on_disk = true);
        Ok((parcel, held))
    }

    /// Makes a voice note of a recording. One that is `ready` is sent as it is, also if nothing can be said of it.
    pub(crate) async fn voice(
        &self,
        tenant: &TenantId,
        part: &Part,
        parcel: &StoredMedia,
        ready: bool,
    ) -> Result<(Option<(Part, StoredMedia)>, Option<Note>), NotTaken> {
        let recording = Recording { part, key: &parcel.key, size: parcel.size };
        if ready {
            return Ok((None, self.voices.listen(tenant, recording).await.ok()));
        }
        let mut made = Part::create(&self.folder, &self.room, tenant, MediaKind::Voice).await?;
        let note = self.voices.make(tenant, recording, &mut made).await?;
        let parcel = made.finish().await?;
        self.within_limit(MediaKind::Voice, parcel.size)?;
        Ok((Some((made, parcel)), Some(note)))
    }

    /// The same bytes, encrypted for another kind: it was not what it seemed to be.
    pub(crate) async fn encrypted_anew(
        &self,
        tenant: &TenantId,
        part: &Part,
        parcel: &StoredMedia,
        kind: MediaKind,
    ) -> Result<(Part, StoredMedia), NotTaken> {
        let mut plain = part.plain(parcel)?;
        let mut anew = Part::create(&self.folder, &self.room, tenant, kind).await?;
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            (plain, piece) = blocking(move || {
                plain.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
                Ok((plain, piece))
            })
            .await?;
            if piece.is_empty() {
                break;
            }
            piece = anew.write(piece).await?;
        }
        let parcel = anew.finish().await?;
        Ok((anew, parcel))
    }
}

/// Gathers the next piece. What comes may come in larger parts, and is not copied at once.
async fn fill(
    piece: &mut Vec<u8>,
    rest: &mut Bytes,
    bytes: &mut (impl Stream<Item = Result<Bytes, NotTaken>> + Unpin),
) -> Result<(), NotTaken> {
    while piece.len() < PIECE {
        if rest.is_empty() {
            match bytes.next().await {
                Some(more) => *rest = more?,
                None => break,
            }
        }
        let length = rest.len().min(PIECE - piece.len());
        piece.extend_from_slice(&rest.split_to(length));
    }
    Ok(())
}
