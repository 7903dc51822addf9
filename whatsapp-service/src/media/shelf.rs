//! Where media stands until it was sent: `DATA_DIR/media`, a file for each, encrypted, with a name that says nothing.
//!
//! What a file needs to be read stands in the messages that hold it. A file goes when no message is left that is still to
//! be sent; what is remembered of it and of its upload goes with the process, and costs another upload at most.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
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
        fetch::Fetcher,
        part::PART,
        preview::Previews,
        room::Room,
        upload::{self, Line, NotUploaded},
        voice::Voices,
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
    whatsapp::media_crypto::path_name,
};

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
/// The share of the room that one tenant may have.
const SHARE: u64 = 4;

/// The media of all tenants that is to be sent.
pub struct MediaStore {
    pub(crate) folder: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) room: Arc<Room>,
    pub(crate) previews: Previews,
    pub(crate) voices: Voices,
    pub(crate) fetcher: Fetcher,
    /// For pages that links in texts lead to: apart from media, so that neither waits for the other.
    pub(crate) links: Fetcher,
    pub(crate) uploads: FairSemaphore<TenantId>,
    pub(crate) known: Mutex<Known>,
    /// Whether the last sweep has left something.
    pub(crate) stuck: AtomicBool,
}

/// What is remembered of files.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) files: HashMap<String, Entry>,
    pub(crate) names: HashMap<Content, String>,
    pub(crate) clock: u64,
}

/// Whose bytes, what they are encrypted as, and their SHA-256 as they came.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Content(pub(crate) TenantId, pub(crate) &'static str, pub(crate) Vec<u8>);

pub(crate) struct Entry {
    pub(crate) parcel: StoredMedia,
    pub(crate) content: Content,
    /// How many hold it that have not written down yet that they need it.
    pub(crate) holders: usize,
    /// When it was last of use, in the order of all.
    pub(crate) touched: u64,
    /// Whether the file may be there.
    pub(crate) on_disk: bool,
    pub(crate) upload: Arc<Slot>,
    pub(crate) uploaded: Option<Upload>,
}

/// The upload of a file: one is under way at a time.
#[derive(Default)]
pub(crate) struct Slot {
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
    pub(crate) held: Held,
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

pub(crate) struct Held {
    shelf: Arc<MediaStore>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shelf.touch(&self.name, |entry| entry.holders = entry.holders.saturating_sub(1));
    }
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

    /// The same bytes, if they were taken in before and are still of use.
    pub(crate) fn known_bytes(self: &Arc<Self>, content: &Content) -> Option<(StoredMedia, Held)> {
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
    pub(crate) fn hold(self: &Arc<Self>, parcel: &StoredMedia, content: Content) -> Held {
        // Nobody else is given the file before it is all there: the caller may leave at any moment.
        self.remember(parcel, content, 1, false);
        Held { shelf: self.clone(), name: parcel.file.clone() }
    }

    pub(crate) fn remember(&self, parcel: &StoredMedia, content: Content, holders: usize, on_disk: bool) {
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
    pub(crate) async fn once(
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
    pub(crate) fn slot(&self, tenant: &TenantId, parcel: &StoredMedia) -> Arc<Slot> {
        if let Some(entry) = self.lock().files.get(&parcel.file) {
            return entry.upload.clone();
        }
        self.remember(parcel, Content(tenant.clone(), share_of(parcel.kind), parcel.sha256.clone()), 0, true);
        self.lock().files.get(&parcel.file).map(|entry| entry.upload.clone()).unwrap_or_default()
    }

    /// Only a name that was made here leads to a file.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        ours.then(|| self.folder.join(name))
    }

    pub(crate) fn touch(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut known = self.lock();
        known.clock += 1;
        let now = known.clock;
        if let Some(entry) = known.files.get_mut(name) {
            entry.touched = now;
            change(entry);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
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

/// What media is encrypted and uploaded as: kinds that agree in both share their files. A voice note has its own, as it is
/// made of the bytes.
pub(crate) fn share_of(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Voice => "voice",
        MediaKind::Sticker => path_name(MediaKind::Image),
        kind => path_name(kind),
    }
}

fn is_younger(upload: &Upload, seconds: i64) -> bool {
    clock::wall().timestamp() - upload.at < seconds
}

#[cfg(test)]
mod tests;
