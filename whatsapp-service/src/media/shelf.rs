//! Where media stands until it was sent: `DATA_DIR/media`, a file for each, encrypted, with a name that says nothing.
//!
//! What a file needs to be read stands in the messages that hold it. A file goes when no message is left that is still to
//! be sent; what is remembered of it and of its upload goes with the process, and costs another upload at most.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    config::Config,
    media::{
        NotTaken,
        bounded::Bounded,
        fetch::{Fetched, Fetcher},
        kind::{Claim, Guess, HEAD, Look},
        movie,
        part::{PART, Part, blocking},
        preview::Previews,
        room::Room,
        upload::{self, Line, NotUploaded},
        voice::{Recording, Voices, convert::Note},
        zip,
    },
    model::{
        media::{Limits, MediaKind, StoredMedia, Upload},
        tenant::TenantId,
    },
    net::egress::Egress,
    store::{
        data_dir::{create_private_dir, io_error},
        error::StoreError,
    },
    util::{clock, fair_semaphore::FairSemaphore},
    whatsapp::media_crypto::{have_same_keys, path_name},
};
use axum::body::Bytes;
use futures_util::{Stream, StreamExt};

/// How much is encrypted and written at a time.
const PIECE: usize = 64 * 1024;
/// How many files are remembered after they went, so that the same bytes are not uploaded again.
const REMEMBERED: usize = 1_000;
/// For how long an upload is used for further messages, in seconds: WhatsApp keeps it for weeks.
const FRESH: i64 = 24 * 3600;
/// For how long an upload is used for messages that were accepted while the file was there, in seconds.
const GOOD: i64 = 14 * 24 * 3600;
/// How many uploads may be under way.
const UPLOADS: usize = 32;
/// And how many of them for one tenant.
const UPLOADS_EACH: usize = 4;
/// How long a message waits for one of these places.
const TURN: Duration = Duration::from_secs(60);
/// After how long without a change such a file is nobody's: bytes that come more slowly are given up much earlier.
const ABANDONED: Duration = Duration::from_secs(3600);
/// The share of the room that one tenant may have.
const SHARE: u64 = 4;

/// The media of all tenants that is to be sent.
pub struct MediaStore {
    folder: PathBuf,
    limits: Limits,
    room: Arc<Room>,
    pub(crate) previews: Previews,
    voices: Voices,
    fetcher: Fetcher,
    /// For pages that links in texts lead to: apart from media, so that neither waits for the other.
    pub(crate) links: Fetcher,
    uploads: FairSemaphore<TenantId>,
    known: Mutex<Known>,
    /// Whether the last sweep has left something.
    stuck: AtomicBool,
}

/// What is remembered of files.
#[derive(Default)]
struct Known {
    files: HashMap<String, Entry>,
    names: HashMap<Content, String>,
    clock: u64,
}

/// Whose bytes, what they are encrypted as, and their SHA-256 as they came.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Content(TenantId, &'static str, Vec<u8>);

struct Entry {
    parcel: StoredMedia,
    content: Content,
    /// How many hold it that have not written down yet that they need it.
    holders: usize,
    /// When it was last of use, in the order of all.
    touched: u64,
    /// Whether the file may be there.
    on_disk: bool,
    upload: Arc<Slot>,
    uploaded: Option<Upload>,
}

/// The upload of a file: one is under way at a time.
#[derive(Default)]
struct Slot {
    done: tokio::sync::Mutex<Option<Upload>>,
    /// How many attempts have failed.
    failures: AtomicU64,
}

/// Media that was taken in. Its file stays as long as this is held, and then as long as a message needs it.
pub struct Taken {
    /// What it is.
    pub parcel: StoredMedia,
    /// What it is sent as.
    pub kind: MediaKind,
    /// Its MIME type.
    pub mimetype: String,
    /// Whether the caller said that type.
    pub said: bool,
    /// SHA-256 of the bytes as they came: a voice note is made of them.
    pub given: Vec<u8>,
    /// What whoever sent the bytes calls them.
    pub name: Option<String>,
    held: Held,
}

impl Taken {
    /// The same for another message.
    pub fn again(&self) -> Self {
        let name = self.held.name.clone();
        self.held.shelf.touch(&name, |entry| entry.holders += 1);
        let held = Held { shelf: self.held.shelf.clone(), name };
        let Self { parcel, kind, mimetype, said, given, name, .. } = self;
        let (mimetype, given, name) = (mimetype.clone(), given.clone(), name.clone());
        Self { parcel: parcel.clone(), kind: *kind, mimetype, said: *said, given, name, held }
    }
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Taken").field(&self.kind).finish()
    }
}

struct Held {
    shelf: Arc<MediaStore>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shelf.touch(&self.name, |entry| entry.holders = entry.holders.saturating_sub(1));
    }
}

/// A file that nobody holds, and when it was last of use.
pub struct Idle {
    /// Its name.
    pub name: String,
    touched: u64,
}

impl MediaStore {
    /// Opens the folder, creates it if it is not there, and clears away what was not complete.
    pub fn open(folder: PathBuf, config: &Config) -> Result<Self, StoreError> {
        create_private_dir(&folder)?;
        let limits = config.media_limits();
        let room = Room::new(config.media_room, (config.media_room / SHARE).max(limits.highest()));
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let entry = entry.map_err(io_error("list", &folder))?;
            if entry.path().extension().is_some_and(|extension| extension == PART) {
                fs::remove_file(entry.path()).map_err(io_error("remove", &entry.path()))?;
            } else {
                let length = entry.metadata().map_err(io_error("look at", &entry.path()))?.len();
                room.set(&entry.file_name().to_string_lossy(), None, length);
            }
        }
        Ok(Self {
            folder,
            limits,
            room: room.into(),
            previews: Previews::new(config.media_preview_memory),
            voices: Voices::default(),
            fetcher: Fetcher::new(Egress::new(config.allow_private_targets)),
            links: Fetcher::new(Egress::new(config.allow_private_targets)),
            uploads: FairSemaphore::new(UPLOADS, UPLOADS_EACH),
            known: Mutex::default(),
            stuck: AtomicBool::new(false),
        })
    }

    /// Says whose a file is that an earlier process took in.
    pub fn belongs(&self, file: &str, tenant: &TenantId) {
        self.room.own(file, tenant);
    }

    /// How much a piece of media may hold, of any kind.
    pub fn highest_limit(&self) -> u64 {
        self.limits.highest()
    }

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
    async fn receive(
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
    async fn look(&self, part: &Part, parcel: &StoredMedia, guess: Guess, claim: &Claim) -> Result<Guess, NotTaken> {
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

    fn within_limit(&self, kind: MediaKind, size: u64) -> Result<(), NotTaken> {
        let limit = self.limits.of(kind);
        if size > limit { Err(NotTaken::TooLarge { kind, limit }) } else { Ok(()) }
    }

    /// Makes of a file what is sent, describes it, and gives it its own name.
    async fn complete(
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
    async fn voice(
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
    async fn encrypted_anew(
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

    /// The same bytes, if they were taken in before and are still of use.
    fn known_bytes(self: &Arc<Self>, content: &Content) -> Option<(StoredMedia, Held)> {
        let mut known = self.lock();
        let name = known.names.get(content)?.clone();
        let entry = known.files.get_mut(&name)?;
        let upload = entry.uploaded.clone().filter(|upload| is_younger(upload, FRESH));
        if upload.is_none() && !entry.on_disk {
            return None;
        }
        entry.holders += 1;
        let parcel = StoredMedia { upload, ..entry.parcel.clone() };
        drop(known);
        Some((parcel, Held { shelf: self.clone(), name }))
    }
    fn hold(self: &Arc<Self>, parcel: &StoredMedia, content: Content) -> Held {
        // Nobody else is given the file before it is all there: the caller may leave at any moment.
        self.remember(parcel, content, 1, false);
        Held { shelf: self.clone(), name: parcel.file.clone() }
    }

    fn remember(&self, parcel: &StoredMedia, content: Content, holders: usize, on_disk: bool) {
        let mut known = self.lock();
        known.clock += 1;
        let entry = Entry {
            parcel: parcel.clone(),
            content: content.clone(),
            holders,
            touched: known.clock,
            on_disk,
            upload: Arc::default(),
            uploaded: None,
        };
        known.names.insert(content, parcel.file.clone());
        known.files.insert(parcel.file.clone(), entry);
        if known.files.len() > REMEMBERED {
            known.forget_some();
        }
    }

    /// Has the bytes where WhatsApp's clients can fetch them, and says where that is. The same file is uploaded once,
    /// however many messages ask for it at the same time.
    pub async fn upload(
        &self,
        tenant: &TenantId,
        line: &Line<'_>,
        parcel: &StoredMedia,
    ) -> Result<Upload, NotUploaded> {
        // It was fresh when the message was accepted, and no message waits for longer than a week.
        if let Some(upload) = &parcel.upload {
            return Ok(upload.clone());
        }
        let path = self.path(&parcel.file).ok_or(NotUploaded::Lost)?;
        self.once(tenant, parcel, upload::upload(line, parcel, &path)).await
    }

    /// Does the `work` of uploading a file, or waits for somebody else's and takes what comes of it.
    async fn once(
        &self,
        tenant: &TenantId,
        parcel: &StoredMedia,
        work: impl Future<Output = Result<Upload, NotUploaded>>,
    ) -> Result<Upload, NotUploaded> {
        let slot = self.slot(tenant, parcel);
        let failures = slot.failures.load(Ordering::Relaxed);
        let mut done = slot.done.lock().await;
        if let Some(upload) = done.as_ref().filter(|upload| is_younger(upload, GOOD)) {
            return Ok(upload.clone());
        }
        if slot.failures.load(Ordering::Relaxed) != failures {
            return Err(NotUploaded::Later);
        }
        let outcome = match tokio::time::timeout(TURN, self.uploads.take(tenant)).await {
            Ok(_turn) => work.await,
            Err(_) => Err(NotUploaded::Later),
        };
        match &outcome {
            Ok(upload) => {
                *done = Some(upload.clone());
                self.touch(&parcel.file, |entry| entry.uploaded = Some(upload.clone()));
            }
            Err(NotUploaded::Later) => drop(slot.failures.fetch_add(1, Ordering::Relaxed)),
            Err(NotUploaded::Lost) => {
                // The same bytes, if they come again, are stored again.
                self.touch(&parcel.file, |entry| entry.on_disk = false);
                self.room.gone(&parcel.file);
            }
        }
        outcome
    }

    /// The upload of a file, also of one that an earlier process took in.
    fn slot(&self, tenant: &TenantId, parcel: &StoredMedia) -> Arc<Slot> {
        if let Some(entry) = self.lock().files.get(&parcel.file) {
            return entry.upload.clone();
        }
        self.remember(parcel, Content(tenant.clone(), share_of(parcel.kind), parcel.sha256.clone()), 0, true);
        self.lock().files.get(&parcel.file).map(|entry| entry.upload.clone()).unwrap_or_default()
    }

    /// Only a name that was made here leads to a file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        ours.then(|| self.folder.join(name))
    }

    /// The files that nobody is about to need. Whether a message needs them, the database says. What was never completed
    /// is cleared away on the way, unless the clock can't say how old it is.
    pub async fn idle(&self, is_steady: bool) -> Vec<Idle> {
        let (folder, room) = (self.folder.clone(), self.room.clone());
        let Ok(names) = blocking(move || names(&folder, &room, is_steady)).await else { return Vec::new() };
        let known = self.lock();
        let idle = names.into_iter().filter_map(|name| match known.files.get(&name) {
            Some(entry) if entry.holders > 0 => None,
            Some(entry) => Some(Idle { touched: entry.touched, name }),
            None => Some(Idle { touched: 0, name }),
        });
        idle.collect()
    }

    /// Removes files that are not among the `needed`, unless they were of use since they were found idle.
    pub async fn discard(&self, idle: Vec<Idle>, needed: &HashSet<String>) {
        let mut gone = Vec::new();
        {
            let mut known = self.lock();
            for Idle { name, touched } in idle {
                if needed.contains(&name) {
                    continue;
                }
                match known.files.get_mut(&name) {
                    Some(entry) if entry.holders > 0 || entry.touched != touched => continue,
                    Some(entry) => entry.on_disk = false,
                    None => {}
                }
                gone.extend(self.path(&name).map(|path| (name, path)));
            }
        }
        let room = self.room.clone();
        let removed = blocking(move || {
            let mut left = 0;
            for (name, path) in gone {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => left += 1,
                    _ => room.gone(&name),
                }
            }
            Ok(left)
        });
        let left = removed.await.unwrap_or(1);
        // The next sweep is soon, and finds the same.
        if !self.stuck.swap(left > 0, Ordering::Relaxed) && left > 0 {
            tracing::warn!(files = left, "media that is no longer needed could not be removed");
        }
    }

    fn touch(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut known = self.lock();
        known.clock += 1;
        let now = known.clock;
        if let Some(entry) = known.files.get_mut(name) {
            entry.touched = now;
            change(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl Known {
    /// Forgets a tenth of what nobody holds, that which was of no use for the longest time.
    fn forget_some(&mut self) {
        let idle = self.files.iter().filter(|(_, entry)| entry.holders == 0);
        let mut idle: Vec<_> = idle.map(|(name, entry)| (entry.touched, name.clone())).collect();
        idle.sort_unstable();
        for (_, name) in idle.into_iter().take(REMEMBERED / 10) {
            if let Some(entry) = self.files.remove(&name)
                && self.names.get(&entry.content) == Some(&name)
            {
                self.names.remove(&entry.content);
            }
        }
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

/// What media is encrypted and uploaded as: kinds that agree in both share their files. A voice note has its own, as it is
/// made of the bytes.
fn share_of(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Voice => "voice",
        MediaKind::Sticker => path_name(MediaKind::Image),
        kind => path_name(kind),
    }
}

fn is_younger(upload: &Upload, seconds: i64) -> bool {
    clock::wall().timestamp() - upload.at < seconds
}

/// The names of the files that are complete. What is not, and was left behind, is removed.
fn names(folder: &Path, room: &Room, is_steady: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match name.split_once('.') {
            None => names.push(name),
            Some((name, PART)) if is_steady && is_abandoned(&entry) && fs::remove_file(entry.path()).is_ok() => {
                room.gone(name)
            }
            Some(_) => {}
        }
    }
    Ok(names)
}

fn is_abandoned(entry: &fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|about| about.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > ABANDONED))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use futures_util::stream;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        config: Config,
    }

    fn shelf(folder: &TempDir, settings: &[&str]) -> Arc<MediaStore> {
        let settings = Settings::parse_from(std::iter::once(&"test").chain(settings));
        MediaStore::open(folder.path().join("media"), &settings.config).unwrap().into()
    }

    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path().join("media")).unwrap().count()
    }

    async fn take(shelf: &Arc<MediaStore>, tenant: &str, bytes: &[u8]) -> Result<Taken, NotTaken> {
        let pieces = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        shelf.take(&tenant.parse().unwrap(), &Claim::default(), stream::iter(pieces)).await
    }

    async fn clear(shelf: &MediaStore, needed: &[&str]) {
        let idle = shelf.idle(true).await;
        shelf.discard(idle, &needed.iter().map(ToString::to_string).collect()).await;
    }

    #[tokio::test]
    async fn a_file_stays_while_it_is_held_or_needed() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let taken = take(&shelf, "acme", &[7; 200_000]).await.unwrap();
        let (name, again) = (taken.parcel.file.clone(), taken.again());
        clear(&shelf, &[]).await;
        drop(taken);
        clear(&shelf, &[]).await;
        assert_eq!(files(&folder), 1, "it is held");
        drop(again);
        clear(&shelf, &[&name]).await;
        assert_eq!(files(&folder), 1, "it is needed");
        // What was found idle and was of use since is not removed.
        let idle = shelf.idle(true).await;
        drop(take(&shelf, "acme", &[7; 200_000]).await.unwrap());
        shelf.discard(idle, &HashSet::new()).await;
        assert_eq!(files(&folder), 1, "it was of use");
        clear(&shelf, &[]).await;
        assert_eq!((files(&folder), shelf.room.used("acme")), (0, (0, 0)));
    }

    #[tokio::test]
    async fn the_same_bytes_of_the_same_tenant_are_one_file() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let (first, second) =
            (take(&shelf, "acme", &[7; 9_000]).await.unwrap(), take(&shelf, "acme", &[7; 9_000]).await.unwrap());
        assert_eq!(first.parcel, second.parcel);
        let other = take(&shelf, "other", &[7; 9_000]).await.unwrap();
        assert_ne!((&first.parcel.file, &first.parcel.key), (&other.parcel.file, &other.parcel.key));
        assert_eq!(files(&folder), 2);
        // A file that is gone, and was never uploaded, is not given to anybody.
        drop((first, second, other));
        clear(&shelf, &[]).await;
        let anew = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
        assert_eq!(files(&folder), 1);
        let path = shelf.path(&anew.parcel.file).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_upload_is_used_again_for_a_day() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let taken = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
        for (age, is_used) in [(FRESH - 60, true), (FRESH + 60, false)] {
            let at = clock::wall().timestamp() - age;
            let upload = Upload { url: "https://host/v/1".into(), direct_path: "/v/1".into(), at };
            shelf.touch(&taken.parcel.file, |entry| entry.uploaded = Some(upload.clone()));
            let again = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
            assert_eq!(again.parcel.upload, is_used.then_some(upload), "after {age} seconds");
        }
    }

    #[tokio::test]
    async fn only_so_many_files_are_remembered_and_what_is_held_is_among_them() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let held = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
        for n in 0..REMEMBERED {
            let parcel = StoredMedia { file: format!("{n:032x}"), ..held.parcel.clone() };
            let content = Content("acme".parse().unwrap(), "document", n.to_be_bytes().to_vec());
            shelf.remember(&parcel, content, 0, false);
            let known = shelf.lock();
            assert!(known.files.len() <= REMEMBERED && known.names.len() == known.files.len());
        }
        let known = shelf.lock();
        assert!(known.files.contains_key(&held.parcel.file));
        assert!(!known.files.contains_key(&format!("{:032x}", 0)), "the oldest goes first");
        assert!(known.files.contains_key(&format!("{:032x}", REMEMBERED - 1)));
    }

    #[tokio::test]
    async fn what_is_not_taken_leaves_nothing_behind() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &["--media-max-document", "100000", "--media-room", "150000"]);
        assert!(matches!(take(&shelf, "acme", b"").await, Err(NotTaken::Empty)));
        let too_large = take(&shelf, "acme", &[7; 100_001]).await;
        assert!(matches!(too_large, Err(NotTaken::TooLarge { limit: 100_000, kind: MediaKind::Document })));
        let broken = stream::iter([Ok(Bytes::from(vec![7; 90_000])), Err(NotTaken::BrokenOff)]);
        let broken = shelf.take(&"acme".parse().unwrap(), &Claim::default(), broken).await;
        assert!(matches!(broken, Err(NotTaken::BrokenOff)));
        assert_eq!((files(&folder), shelf.room.used("acme")), (0, (0, 0)));
        let _first = take(&shelf, "acme", &[1; 100_000]).await.unwrap();
        assert!(matches!(take(&shelf, "acme", &[2; 100_000]).await, Err(NotTaken::RoomFull)));
        assert_eq!(files(&folder), 1);
    }

    #[tokio::test]
    async fn only_names_that_were_made_here_lead_to_files() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        for name in ["", "../../service.db", "/etc/passwd", &"g".repeat(32), &"a".repeat(31)] {
            assert_eq!(shelf.path(name), None, "{name}");
        }
    }

    /// No kind may have more than this in these tests.
    const MOST: u64 = 10_000;

    /// A shelf where each tenant may have four of the largest files, and all together sixteen.
    fn small(folder: &TempDir) -> Arc<MediaStore> {
        let kinds = ["image", "video", "audio", "document", "sticker"];
        let limits = kinds.map(|kind| format!("--media-max-{kind}={MOST}"));
        let room = format!("--media-room={}", 16 * (MOST + 100));
        let settings: Vec<_> = limits.iter().chain([&room]).map(String::as_str).collect();
        shelf(folder, &settings)
    }

    #[tokio::test]
    async fn a_tenant_fills_its_share_and_leaves_the_rest_to_the_others() {
        let folder = TempDir::new().unwrap();
        let shelf = small(&folder);
        let bytes = |n: u8| vec![n; MOST as usize];
        let mut held = Vec::new();
        for n in 0..4 {
            held.push(take(&shelf, "acme", &bytes(n)).await.unwrap());
        }
        assert!(matches!(take(&shelf, "acme", &bytes(4)).await, Err(NotTaken::ShareFull)));
        held.push(take(&shelf, "other", &bytes(4)).await.unwrap());
        // The next process learns whose the files are from the messages that need them.
        let used = (shelf.room.used("acme"), shelf.room.used("other"));
        let names: Vec<_> = held.iter().map(|taken| taken.parcel.file.clone()).collect();
        drop((shelf, held));
        let shelf = small(&folder);
        assert_eq!(shelf.room.used("acme"), (used.0.0, 0));
        names[..4].iter().for_each(|name| shelf.belongs(name, &"acme".parse().unwrap()));
        shelf.belongs(&names[4], &"other".parse().unwrap());
        assert_eq!((shelf.room.used("acme"), shelf.room.used("other")), used);
        assert!(matches!(take(&shelf, "acme", &bytes(5)).await, Err(NotTaken::ShareFull)));
        // And has room again when one of them goes.
        clear(&shelf, &names.iter().skip(1).map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(files(&folder), 4);
        take(&shelf, "acme", &bytes(5)).await.unwrap();
    }

    #[tokio::test]
    async fn one_file_of_the_largest_kind_fits_into_every_share() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &["--media-room", "80000000"]);
        let largest = stream::iter((0..64).map(|_| Ok(Bytes::from(vec![7; 1 << 20]))));
        shelf.take(&"acme".parse().unwrap(), &Claim::default(), largest).await.unwrap();
    }

    #[tokio::test]
    async fn bytes_whose_file_was_lost_are_stored_again() {
        let folder = TempDir::new().unwrap();
        let acme = "acme".parse().unwrap();
        let parcel = take(&shelf(&folder, &[]), "acme", &[7; 9_000]).await.unwrap().parcel;
        let shelf = shelf(&folder, &[]);
        fs::remove_file(shelf.path(&parcel.file).unwrap()).unwrap();
        assert_eq!(shelf.once(&acme, &parcel, async { Err(NotUploaded::Lost) }).await, Err(NotUploaded::Lost));
        assert_eq!(shelf.room.used("acme"), (0, 0));
        for _ in 0..2 {
            let anew = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
            assert!(shelf.path(&anew.parcel.file).unwrap().exists());
        }
    }

    #[tokio::test]
    async fn what_can_not_be_removed_keeps_nothing_else() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        drop(take(&shelf, "acme", &[7; 9_000]).await.unwrap());
        // A folder is no file, and stays.
        let stuck = "a".repeat(32);
        fs::create_dir(shelf.path(&stuck).unwrap()).unwrap();
        let mut idle = shelf.idle(true).await;
        idle.sort_by_key(|file| file.name != stuck);
        assert_eq!((idle.len(), &idle[0].name), (2, &stuck));
        shelf.discard(idle, &HashSet::new()).await;
        assert_eq!((files(&folder), shelf.room.used("acme")), (1, (0, 0)));
        assert!(shelf.stuck.load(Ordering::Relaxed));
        fs::remove_dir(shelf.path(&stuck).unwrap()).unwrap();
        clear(&shelf, &[]).await;
        assert!(!shelf.stuck.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_was_never_completed_goes_when_it_is_old() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let part = |name: &str| shelf.folder.join(name.repeat(32)).with_extension(PART);
        let old = fs::File::create(part("a")).unwrap();
        old.set_modified(std::time::SystemTime::now() - ABANDONED - Duration::from_secs(1)).unwrap();
        fs::write(part("b"), b"x").unwrap();
        clear(&shelf, &[]).await;
        assert_eq!((part("a").exists(), part("b").exists()), (false, true));
    }

    #[tokio::test]
    async fn who_waits_for_an_upload_shares_its_failure() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let acme = "acme".parse().unwrap();
        let parcel = take(&shelf, "acme", &[7; 9_000]).await.unwrap().parcel;
        let attempts = AtomicU64::new(0);
        let attempt = |outcome| {
            let work = async {
                attempts.fetch_add(1, Ordering::Relaxed);
                // Now the others come to wait for it.
                tokio::task::yield_now().await;
                outcome
            };
            shelf.once(&acme, &parcel, work)
        };
        let failed = Err(NotUploaded::Later);
        let (first, second, third) =
            tokio::join!(attempt(failed.clone()), attempt(failed.clone()), attempt(failed.clone()));
        assert_eq!([&first, &second, &third], [&failed, &failed, &failed]);
        assert_eq!(attempts.load(Ordering::Relaxed), 1, "nobody does it again");
        // Whoever comes later makes an attempt of its own, and who waits for it has its success.
        let upload = Upload { url: "u".into(), direct_path: "d".into(), at: clock::wall().timestamp() };
        let (first, second) = tokio::join!(attempt(Ok(upload.clone())), attempt(failed));
        assert_eq!((first.as_ref(), second.as_ref()), (Ok(&upload), Ok(&upload)));
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn nobody_waits_without_end_for_a_place() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &[]);
        let acme = "acme".parse().unwrap();
        let parcel = take(&shelf, "acme", &[7; 9_000]).await.unwrap().parcel;
        let mut places = Vec::new();
        for _ in 0..UPLOADS_EACH {
            places.push(shelf.uploads.take(&acme).await);
        }
        // The clock jumps to whatever is waited for.
        tokio::time::pause();
        let upload = shelf.once(&acme, &parcel, async { unreachable!("there is no place") });
        let upload = tokio::time::timeout(10 * TURN, upload).await;
        assert_eq!(upload, Ok(Err(NotUploaded::Later)));
    }
}
