//! Where media stands until it was sent: `DATA_DIR/media`, a file for each, encrypted, with a name that says nothing.
//!
//! What a file needs to be read stands in the messages that hold it. A file goes when no message is left that is still to
//! be sent; what is remembered of it and of its upload goes with the process, and costs another upload at most.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::body::Bytes;
use chrono::Utc;
use futures_util::{Stream, StreamExt};
use whatsapp_rust::wacore::download::MediaType;

use super::{
    Claim, Kind, Limits, NotTaken, Parcel, Upload,
    fetch::{Fetched, Fetcher},
    kind::HEAD,
    preview::Previews,
    sealed::Writing,
    turns::Turns,
    upload::{self, Line, NotUploaded},
};
use crate::{
    config::Config,
    egress::Egress,
    store::{StoreError, create_private_dir, io_error},
    tenant::TenantId,
};

/// How much is encrypted and written at a time.
const PIECE: usize = 64 * 1024;
/// How many files are remembered after they went, so that the same bytes are not uploaded again.
const REMEMBERED: usize = 1_000;
/// For how long an upload is used for further messages, in seconds: WhatsApp keeps it for weeks.
const FRESH: i64 = 24 * 3600;
/// For how long an upload is good for a message that was accepted with it, in seconds.
const GOOD: i64 = 14 * 24 * 3600;
/// How many uploads may be under way.
const UPLOADS: usize = 32;
/// And how many of them for one tenant.
const UPLOADS_EACH: usize = 4;
/// How a file is called that is not complete.
const PART: &str = "part";

/// The media of all tenants that is to be sent.
pub struct Shelf {
    folder: PathBuf,
    limits: Limits,
    room: u64,
    used: Arc<AtomicU64>,
    previews: Previews,
    fetcher: Fetcher,
    uploads: Turns,
    known: Mutex<Known>,
}

/// What is remembered of files.
#[derive(Default)]
struct Known {
    files: HashMap<String, Entry>,
    names: HashMap<Content, String>,
    clock: u64,
}

/// Whose bytes, what they are encrypted as, and their SHA-256.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Content(TenantId, &'static str, Vec<u8>);

struct Entry {
    parcel: Parcel,
    content: Content,
    /// How many hold it that have not written down yet that they need it.
    holders: usize,
    /// When it was last of use, in the order of all.
    touched: u64,
    /// Whether the file may be there.
    on_disk: bool,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    uploaded: Option<Upload>,
}

/// Media that was taken in. Its file stays as long as this is held, and then as long as a message needs it.
pub struct Taken {
    /// What it is.
    pub parcel: Parcel,
    /// What it is sent as.
    pub kind: Kind,
    /// Its MIME type.
    pub mimetype: String,
    held: Held,
}

impl Taken {
    /// The same for another message.
    pub fn again(&self) -> Self {
        let Self { parcel, kind, mimetype, held } = self;
        let name = held.name.clone();
        held.shelf.touch(&name, |entry| entry.holders += 1);
        let held = Held { shelf: held.shelf.clone(), name };
        Self { parcel: parcel.clone(), kind: *kind, mimetype: mimetype.clone(), held }
    }
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Taken").field(&self.kind).finish()
    }
}

struct Held {
    shelf: Arc<Shelf>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shelf.touch(&self.name, |entry| entry.holders = entry.holders.saturating_sub(1));
    }
}

/// A file that is being written. It goes unless it is kept.
struct Part {
    path: PathBuf,
    used: Arc<AtomicU64>,
    bytes: u64,
    kept: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
            self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A file that nobody holds, and when it was last of use.
pub struct Idle {
    /// Its name.
    pub name: String,
    touched: u64,
}

impl Shelf {
    /// Opens the folder, creates it if it is not there, and clears away what was not complete.
    pub fn open(folder: PathBuf, config: &Config) -> Result<Self, StoreError> {
        create_private_dir(&folder)?;
        let mut used = 0;
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let entry = entry.map_err(io_error("list", &folder))?;
            if entry.path().extension().is_some_and(|extension| extension == PART) {
                fs::remove_file(entry.path()).map_err(io_error("remove", &entry.path()))?;
            } else {
                used += entry.metadata().map_err(io_error("look at", &entry.path()))?.len();
            }
        }
        Ok(Self {
            folder,
            limits: config.media_limits(),
            room: config.media_room,
            used: Arc::new(used.into()),
            previews: Previews::new(config.media_preview_memory),
            fetcher: Fetcher::new(Egress::new(config.allow_private_targets)),
            uploads: Turns::new(UPLOADS, UPLOADS_EACH),
            known: Mutex::default(),
        })
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

    /// Takes bytes in, as they come. When this returns, they are on the disk.
    pub async fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        claim: &Claim,
        bytes: impl Stream<Item = Result<Bytes, NotTaken>> + Send,
    ) -> Result<Taken, NotTaken> {
        let mut bytes = std::pin::pin!(bytes.fuse());
        let (mut pending, mut rest) = (Vec::with_capacity(PIECE), Bytes::new());
        fill(&mut pending, &mut rest, &mut bytes).await?;
        if pending.is_empty() {
            return Err(NotTaken::Empty);
        }
        let (kind, mimetype) = Kind::of(&pending[..pending.len().min(HEAD)], claim)?;
        let limit = self.limits.of(kind);
        let name = format!("{:032x}", rand::random::<u128>());
        let path = self.folder.join(&name).with_extension(PART);
        let mut part = Part { path: path.clone(), used: self.used.clone(), bytes: 0, kept: false };
        let created = blocking(move || {
            let file = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            Writing::new(file, kind.media_type())
        });
        let mut writing = created.await?;
        let mut size = 0;
        loop {
            size += pending.len() as u64;
            if size > limit {
                return Err(NotTaken::TooLarge { kind, limit });
            }
            let piece = std::mem::take(&mut pending);
            part.bytes += piece.len() as u64;
            if self.used.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64 > self.room {
                tracing::warn!("there is no room for more media: see MEDIA_ROOM");
                return Err(NotTaken::NoRoom);
            }
            (writing, pending) = blocking(move || {
                writing.write(&piece)?;
                let mut piece = piece;
                piece.clear();
                Ok((writing, piece))
            })
            .await?;
            fill(&mut pending, &mut rest, &mut bytes).await?;
            if pending.is_empty() {
                break;
            }
        }
        let info = blocking(move || writing.finish()).await?;
        let content = Content(tenant.clone(), keys_of(kind), info.file_sha256.to_vec());
        if let Some(taken) = self.known_bytes(&content, kind, &mimetype) {
            return Ok(taken);
        }
        let mut parcel = Parcel {
            file: name.clone(),
            kind,
            key: info.media_key.to_vec(),
            sha256: info.file_sha256.to_vec(),
            encrypted_sha256: info.file_enc_sha256.to_vec(),
            size: info.file_length,
            at: Utc::now().timestamp(),
            sidecar: info.streaming_sidecar,
            width: None,
            height: None,
            seconds: None,
            thumbnail: None,
            upload: None,
        };
        if let Ok(file) = fs::File::open(&part.path) {
            parcel = self.previews.describe(parcel, kind, &mimetype, file).await;
        }
        let held = self.hold(&parcel, content);
        let (from, to, folder) = (part.path.clone(), self.folder.join(&name), self.folder.clone());
        blocking(move || {
            fs::rename(from, to)?;
            // A name that is not on the disk would be a message without its media.
            fs::File::open(folder)?.sync_all()
        })
        .await?;
        part.kept = true;
        self.touch(&name, |entry| entry.on_disk = true);
        Ok(Taken { parcel, kind, mimetype, held })
    }

    /// The same bytes, if they were taken in before and are still of use.
    fn known_bytes(self: &Arc<Self>, content: &Content, kind: Kind, mimetype: &str) -> Option<Taken> {
        let mut known = self.lock();
        let name = known.names.get(content)?.clone();
        let entry = known.files.get_mut(&name)?;
        let upload = entry.uploaded.clone().filter(|upload| is_younger(upload, FRESH));
        if upload.is_none() && !entry.on_disk {
            return None;
        }
        entry.holders += 1;
        let parcel = Parcel { upload, ..entry.parcel.clone() };
        drop(known);
        let held = Held { shelf: self.clone(), name };
        Some(Taken { parcel, kind, mimetype: mimetype.into(), held })
    }

    fn hold(self: &Arc<Self>, parcel: &Parcel, content: Content) -> Held {
        // Nobody else is given the file before it is all there: the caller may leave at any moment.
        self.remember(parcel, content, 1, false);
        Held { shelf: self.clone(), name: parcel.file.clone() }
    }

    fn remember(&self, parcel: &Parcel, content: Content, holders: usize, on_disk: bool) {
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
    pub async fn upload(&self, tenant: &TenantId, line: &Line<'_>, parcel: &Parcel) -> Result<Upload, NotUploaded> {
        if let Some(upload) = parcel.upload.as_ref().filter(|upload| is_younger(upload, GOOD)) {
            return Ok(upload.clone());
        }
        let slot = self.slot(tenant, parcel);
        let mut slot = slot.lock().await;
        if let Some(upload) = slot.as_ref().filter(|upload| is_younger(upload, GOOD)) {
            return Ok(upload.clone());
        }
        let _turn = self.uploads.take(tenant).await;
        let path = self.path(&parcel.file).ok_or(NotUploaded::Lost)?;
        let upload = upload::upload(line, parcel, &path).await?;
        *slot = Some(upload.clone());
        self.touch(&parcel.file, |entry| entry.uploaded = Some(upload.clone()));
        Ok(upload)
    }

    /// The upload of a file, also of one that an earlier process took in.
    fn slot(&self, tenant: &TenantId, parcel: &Parcel) -> Arc<tokio::sync::Mutex<Option<Upload>>> {
        if let Some(entry) = self.lock().files.get(&parcel.file) {
            return entry.upload.clone();
        }
        self.remember(parcel, Content(tenant.clone(), keys_of(parcel.kind), parcel.sha256.clone()), 0, true);
        self.lock().files.get(&parcel.file).map(|entry| entry.upload.clone()).unwrap_or_default()
    }

    /// Only a name that was made here leads to a file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        ours.then(|| self.folder.join(name))
    }

    /// The files that nobody is about to need. Whether a message needs them, the database says.
    pub async fn idle(&self) -> Vec<Idle> {
        let folder = self.folder.clone();
        let Ok(names) = blocking(move || names(&folder)).await else { return Vec::new() };
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
                gone.extend(self.path(&name));
            }
        }
        let used = self.used.clone();
        let removed = blocking(move || {
            for path in gone {
                let length = fs::metadata(&path)?.len();
                fs::remove_file(&path)?;
                let _ =
                    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(length)));
            }
            Ok(())
        });
        if removed.await.is_err() {
            tracing::warn!("media that is no longer needed could not be removed");
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
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What media is encrypted and uploaded as: kinds that agree in both share their files.
fn keys_of(kind: Kind) -> &'static str {
    match kind.media_type() {
        MediaType::Sticker => MediaType::Image.mms_type(),
        media_type => media_type.mms_type(),
    }
}

fn is_younger(upload: &Upload, seconds: i64) -> bool {
    Utc::now().timestamp() - upload.at < seconds
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let names: io::Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.is_empty() && !name.contains('.')).collect())
}

/// Runs what waits for the disk. Why it did not work is for the log alone.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, NotTaken> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::error!(kind = %error.kind(), "media could not be written to the disk");
            Err(NotTaken::NoRoom)
        }
        Err(_) => Err(NotTaken::NoRoom),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures_util::stream;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        config: Config,
    }

    fn shelf(folder: &TempDir, settings: &[&str]) -> Arc<Shelf> {
        let settings = Settings::parse_from(std::iter::once(&"test").chain(settings));
        Shelf::open(folder.path().join("media"), &settings.config).unwrap().into()
    }

    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path().join("media")).unwrap().count()
    }

    async fn take(shelf: &Arc<Shelf>, tenant: &str, bytes: &[u8]) -> Result<Taken, NotTaken> {
        let pieces = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        shelf.take(&tenant.parse().unwrap(), &Claim::default(), stream::iter(pieces)).await
    }

    async fn clear(shelf: &Shelf, needed: &[&str]) {
        let idle = shelf.idle().await;
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
        let idle = shelf.idle().await;
        drop(take(&shelf, "acme", &[7; 200_000]).await.unwrap());
        shelf.discard(idle, &HashSet::new()).await;
        assert_eq!(files(&folder), 1, "it was of use");
        clear(&shelf, &[]).await;
        assert_eq!((files(&folder), shelf.used.load(Ordering::Relaxed)), (0, 0));
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
        assert!(shelf.path(&anew.parcel.file).unwrap().exists());
    }

    #[tokio::test]
    async fn what_is_not_taken_leaves_nothing_behind() {
        let folder = TempDir::new().unwrap();
        let shelf = shelf(&folder, &["--media-max-document", "100000", "--media-room", "150000"]);
        assert!(matches!(take(&shelf, "acme", b"").await, Err(NotTaken::Empty)));
        let too_large = take(&shelf, "acme", &[7; 100_001]).await;
        assert!(matches!(too_large, Err(NotTaken::TooLarge { limit: 100_000, kind: Kind::Document })));
        let broken = stream::iter([Ok(Bytes::from(vec![7; 90_000])), Err(NotTaken::BrokenOff)]);
        let broken = shelf.take(&"acme".parse().unwrap(), &Claim::default(), broken).await;
        assert!(matches!(broken, Err(NotTaken::BrokenOff)));
        assert_eq!((files(&folder), shelf.used.load(Ordering::Relaxed)), (0, 0));
        let _first = take(&shelf, "acme", &[1; 100_000]).await.unwrap();
        assert!(matches!(take(&shelf, "acme", &[2; 100_000]).await, Err(NotTaken::NoRoom)));
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
}
