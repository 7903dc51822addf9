//! Fetching the files that came with messages, when somebody asks for them.
//!
//! WhatsApp keeps a file for some weeks. After that the account's phone, which has it too, is asked once to upload it
//! again: that is what WhatsApp's own clients do. What was fetched stays for a minute or so, for the next part of it that
//! is asked for.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE};
use hyper::StatusCode;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    model::{session_state::State, tenant::TenantId},
    net::media_host,
    session::{
        Session,
        media_file::{ComingFile, LONGEST_STORED, MediaError, MediaFile, most_stored},
        outbox::Refused,
    },
    store::{
        error::StoreError,
        kept::{Kept, MediaSource},
    },
    util::{
        fair_semaphore::{FairSemaphore, Permit},
        quota::{Full, Quota, Reservation},
    },
    whatsapp::{client::Client, decode::media::is_path, media_crypto, media_retry},
};

/// How many files may be fetched at the same time, for all tenants together, and for each.
const AT_ONCE: usize = 4;
const AT_ONCE_EACH: usize = 2;
/// How long somebody waits for his turn.
const TURN_LIMIT: Duration = Duration::from_secs(30);
/// How long one file may take, from whatever hosts.
const FETCH_LIMIT: Duration = Duration::from_secs(300);
/// How long WhatsApp may take to name its media hosts.
const HOSTS_LIMIT: Duration = Duration::from_secs(20);
/// How long the account's phone may take.
const PHONE_LIMIT: Duration = Duration::from_secs(30);
/// How long a session that is connecting is waited for.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long a file stays that nobody reads.
const IDLE: Duration = Duration::from_secs(60);
/// How many files stay for the next part that is asked for, and how long they may be together.
const STAYING: usize = 16;
const BYTES_STAYING: u64 = 1024 * 1024 * 1024;
/// How much room files may take on the disk, also those on their way and those that somebody still reads: for all tenants
/// together, and for each. The longest one has room.
const BYTES: u64 = 2 * LONGEST_STORED;
const BYTES_EACH: u64 = LONGEST_STORED;
/// How long a phone that did not help is not asked again.
const PHONE_PAUSE: Duration = Duration::from_secs(30);

/// Files on their way, and those that are here just now.
pub struct Downloads {
    folder: PathBuf,
    turns: FairSemaphore<TenantId>,
    space: Arc<Quota<TenantId>>,
    recent: Mutex<HashMap<Key, Arc<Recent>>>,
}

/// Whose file it is, and which.
type Key = (TenantId, String, String);

struct Recent {
    file: OnceCell<Arc<MediaFile>>,
    used: Mutex<Instant>,
    /// Until when the phone is not asked again.
    in_vain_until: Mutex<Option<Instant>>,
}

/// Why a file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    /// The session is needed for it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too many are on their way, or there is no room for more.
    #[error("too many files, or too large ones, are being fetched just now")]
    Busy,
    /// WhatsApp has it no longer, and the account's phone did not upload it again.
    #[error("WhatsApp has the file no longer, and the account's phone did not upload it again")]
    Expired,
    /// No media host gives it now.
    #[error("the file can't be fetched just now: {0}")]
    Unavailable(String),
    /// What WhatsApp has is not what the sender has sent.
    #[error("{0}")]
    Damaged(MediaError),
    /// The disk.
    #[error(transparent)]
    Disk(MediaError),
}

impl From<StoreError> for NotFetched {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl Downloads {
    /// Files are put into this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            turns: FairSemaphore::new(AT_ONCE, AT_ONCE_EACH),
            space: Quota::new(BYTES, BYTES_EACH),
            recent: Mutex::default(),
        }
    }

    /// A tenant's turn to fetch a file.
    async fn turn(&self, tenant: &TenantId) -> Result<Permit, NotFetched> {
        tokio::time::timeout(TURN_LIMIT, self.turns.take(tenant)).await.map_err(|_| NotFetched::Busy)
    }

    /// Space on the disk for a tenant's file: counted before the first byte comes, and until the last reader has gone, so that
    /// what the database needs is not left to chance. Those that nobody reads just now make way for it.
    fn room(&self, tenant: &TenantId, bytes: u64) -> Result<Reservation<TenantId>, NotFetched> {
        let mut recent = self.recent.lock();
        loop {
            let full = match self.space.reserve(tenant, bytes) {
                Ok(room) => return Ok(room),
                Err(full) => full,
            };
            let helps = |(key, one): &(&Key, &Arc<Recent>)| {
                one.is_unread() && Arc::strong_count(one) == 1 && (full == Full::All || key.0 == *tenant)
            };
            let oldest = oldest(recent.iter().filter(helps)).ok_or(NotFetched::Busy)?;
            recent.remove(&oldest);
        }
    }

    fn recent(&self, key: Key) -> Arc<Recent> {
        let (mut recent, now) = (self.recent.lock(), Instant::now());
        let entry = recent.entry(key).or_insert_with(|| {
            Arc::new(Recent { file: OnceCell::new(), used: Mutex::new(now), in_vain_until: Mutex::default() })
        });
        let entry = entry.clone();
        *entry.used.lock() = now;
        entry
    }

    /// Lets go of what was used longest ago until the others fit. Those who read it go on with it. What is on its way
    /// stays, and what keeps a phone from being asked again.
    fn tidy(&self) {
        let mut recent = self.recent.lock();
        recent.retain(|_, one| one.file.initialized() || Arc::strong_count(one) > 1 || one.is_in_vain());
        loop {
            let here = || recent.iter().filter(|(_, one)| one.file.initialized());
            let bytes: u64 = here().filter_map(|(_, one)| one.file.get()).map(|file| file.size()).sum();
            let count = here().count();
            if count <= STAYING && (bytes <= BYTES_STAYING || count <= 1) {
                return;
            }
            let Some(oldest) = oldest(here()) else { return };
            recent.remove(&oldest);
        }
    }

    /// Lets go of the files that nobody has asked for in a while.
    pub fn forget_idle(&self) {
        self.recent.lock().retain(|_, one| Arc::strong_count(one) > 1 || one.used.lock().elapsed() < IDLE);
    }
}

impl Recent {
    /// Whether the phone was asked in vain, a short time ago.
    fn is_in_vain(&self) -> bool {
        self.in_vain_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Whether the file is here for nobody but those who may still come.
    fn is_unread(&self) -> bool {
        self.file.get().is_some_and(|file| Arc::strong_count(file) == 1)
    }
}

/// The one that was used longest ago.
fn oldest<'a>(among: impl Iterator<Item = (&'a Key, &'a Arc<Recent>)>) -> Option<Key> {
    among.min_by_key(|(_, one)| *one.used.lock()).map(|(key, _)| key.clone())
}

impl Session {
    /// The file that came with a message. Those who ask for the same one at the same time share one download.
    pub async fn file(&self, kept: &Kept, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let downloads = &self.downloads;
        let recent = downloads.recent((self.tenant.clone(), kept.id.clone(), kept.digest()));
        let file = recent.file.get_or_try_init(|| self.fetch(kept, source, &recent)).await.cloned();
        *recent.used.lock() = Instant::now();
        drop(recent);
        downloads.tidy();
        file
    }

    async fn fetch(&self, kept: &Kept, source: &MediaSource, recent: &Recent) -> Result<Arc<MediaFile>, NotFetched> {
        let client = self.client_for_file().await?;
        match self.take_turn(&client, source).await {
            Err(NotFetched::Expired) => {}
            fetched => return fetched,
        }
        if recent.is_in_vain() {
            return Err(NotFetched::Expired);
        }
        // Nobody has to wait for this phone who waits for his turn.
        let path = match self.ask_phone(&client, kept, source).await {
            Ok(path) => path,
            Err(why) => {
                *recent.in_vain_until.lock() = Some(Instant::now() + PHONE_PAUSE);
                return Err(why);
            }
        };
        self.store.moved(&self.connection.lease, kept, path.clone()).await?;
        self.take_turn(&client, &MediaSource { path, ..source.clone() }).await
    }

    async fn take_turn(&self, client: &Client, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let downloads = &self.downloads;
        let _turn = downloads.turn(&self.tenant).await?;
        let mut room = downloads.room(&self.tenant, most_stored(source))?;
        let fetched = tokio::time::timeout(FETCH_LIMIT, self.ask_hosts(client, source)).await;
        let file =
            fetched.unwrap_or_else(|_| Err(NotFetched::Unavailable(format!("it took longer than {FETCH_LIMIT:?}"))))?;
        room.shrink(file.stored());
        Ok(Arc::new(file.in_room(room)))
    }

    /// The client, if it is there or comes back soon.
    async fn client_for_file(&self) -> Result<Client, NotFetched> {
        self.connection.accepts()?;
        if let Some(client) = self.connection.ready_client() {
            return Ok(client);
        }
        self.connection
            .wait_until(READY_LIMIT, |snapshot| snapshot.state == State::Ready || snapshot.stops_client())
            .await;
        if let Some(client) = self.connection.ready_client() {
            return Ok(client);
        }
        self.connection.accepts()?;
        let snapshot = self.connection.snapshot();
        let reason = snapshot.reason.map(|reason| reason.code);
        let retry_after = Some(Duration::from_secs(5));
        Err(Refused::NotReady { state: snapshot.state, reason, retry_after }.into())
    }

    /// Asks each media host for a file.
    async fn ask_hosts(&self, client: &Client, source: &MediaSource) -> Result<MediaFile, NotFetched> {
        let hosts = tokio::time::timeout(HOSTS_LIMIT, client.media_hosts(false)).await;
        let hosts = match hosts {
            Ok(Ok(hosts)) => hosts.hosts,
            Ok(Err(error)) => return Err(NotFetched::Unavailable(format!("WhatsApp names no media host: {error}"))),
            Err(_) => return Err(NotFetched::Unavailable("WhatsApp names no media host in time".into())),
        };
        let path = address(source);
        let mut last = NotFetched::Unavailable("WhatsApp names no media host".into());
        for host in hosts {
            match self.ask_host(&host, &path, source).await {
                Ok(file) => return Ok(file),
                // The next one has no other file, and no other disk to put it on.
                Err(NotFetched::Expired) => return Err(NotFetched::Expired),
                Err(NotFetched::Disk(error)) => return Err(NotFetched::Disk(error)),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn ask_host(&self, host: &str, path: &str, source: &MediaSource) -> Result<MediaFile, NotFetched> {
        let unavailable = |why: String| NotFetched::Unavailable(why);
        let host = host.parse().map_err(|_| unavailable("a media host's name is none".into()))?;
        let answer = media_host::get(self.connector.dialler(), self.connection.proxy().as_ref(), &host, path).await;
        let mut answer = answer.map_err(|error| unavailable(error.to_string()))?;
        match answer.status {
            StatusCode::OK => {}
            // What is no longer there is also called forbidden: the path was signed for a time.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(NotFetched::Expired);
            }
            status => return Err(unavailable(format!("a media host answers {status}"))),
        }
        let mut coming = ComingFile::create(&self.downloads.folder, source)?;
        while let Some(part) = answer.next().await.map_err(|error| unavailable(error.to_string()))? {
            coming.append(&part).await?;
        }
        Ok(coming.finish(source).await?)
    }

    /// Asks the account's phone to upload a file again, and says where it is then.
    async fn ask_phone(&self, client: &Client, kept: &Kept, source: &MediaSource) -> Result<String, NotFetched> {
        tracing::info!(tenant = %self.tenant, "a file is no longer at WhatsApp; the phone is asked for it");
        let asked = media_retry::ask_phone(client, kept, source);
        let path = tokio::time::timeout(PHONE_LIMIT, asked).await.ok().flatten();
        path.filter(|path| is_path(path)).ok_or(NotFetched::Expired)
    }
}

impl From<MediaError> for NotFetched {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::Disk(_) => Self::Disk(error),
            MediaError::Damaged | MediaError::TooLong => Self::Damaged(error),
        }
    }
}

/// A file's path at the media hosts, and what they want to know beside it.
fn address(source: &MediaSource) -> String {
    let joint = if source.path.contains('?') { '&' } else { '?' };
    let hash = BASE64_URL_SAFE.encode(&source.encrypted_sha256);
    format!("{}{joint}hash={hash}&mms-type={}&__wa-mms=", source.path, media_crypto::path_name(source.kind))
}

#[cfg(test)]
mod tests;
