//! Fetching the files that came with messages, when somebody asks for them.
//!
//! WhatsApp keeps a file for some weeks. After that the account's phone, which has it too, is asked once to upload it
//! again: that is what WhatsApp's own clients do. What was fetched stays for a minute or so, for the next part of it that
//! is asked for.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE};
use chrono::{TimeDelta, Utc};
use hyper::StatusCode;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::Instant,
};
use whatsapp_rust::{
    Client, Jid, MediaRetryResult, NodeFilter,
    wacore::media_retry::{build_media_retry_receipt, encrypt_media_retry_receipt, parse_media_retry_notification},
};

use super::{
    inbound::is_path,
    media_file::{ComingFile, MediaError, MediaFile, media_type},
    media_host,
    outbox::Refused,
    session::{Session, lock},
    state::State,
};
use crate::{
    store::{Kept, MediaSource, StoreError},
    tenant::TenantId,
};

/// How many files may be fetched at the same time, for all tenants together.
const AT_ONCE: usize = 4;
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
/// How many files stay, and how long they may be together.
const STAYING: usize = 16;
const BYTES: u64 = 1024 * 1024 * 1024;
/// How long a phone that did not help is not asked again.
const PHONE_PAUSE: Duration = Duration::from_secs(30);

/// Files on their way, and those that are here just now.
pub struct Downloads {
    folder: PathBuf,
    turns: Semaphore,
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
    /// Too many are on their way.
    #[error("too many files are being fetched just now")]
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
        Self { folder, turns: Semaphore::new(AT_ONCE), recent: Mutex::default() }
    }

    fn recent(&self, key: Key) -> Arc<Recent> {
        let (mut recent, now) = (lock(&self.recent), Instant::now());
        let entry = recent.entry(key).or_insert_with(|| {
            Arc::new(Recent { file: OnceCell::new(), used: Mutex::new(now), in_vain_until: Mutex::default() })
        });
        let entry = entry.clone();
        *lock(&entry.used) = now;
        entry
    }

    /// Lets go of what was used longest ago until the others fit. Those who read it go on with it.
    fn make_room(&self) {
        let mut recent = lock(&self.recent);
        let size = |recent: &Recent| recent.file.get().map_or(0, |file| file.size());
        while recent.len() > STAYING || (recent.len() > 1 && recent.values().map(|one| size(one)).sum::<u64>() > BYTES)
        {
            let oldest = recent.iter().min_by_key(|(_, recent)| *lock(&recent.used)).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            recent.remove(&oldest);
        }
    }

    /// Lets go of the files that nobody has asked for in a while.
    pub fn forget_idle(&self) {
        lock(&self.recent).retain(|_, recent| lock(&recent.used).elapsed() < IDLE);
    }
}

impl Session {
    /// The file that came with a message. Those who ask for the same one at the same time share one download.
    pub async fn file(&self, kept: &Kept, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let recent = self.around.downloads.recent((self.tenant.clone(), kept.id.clone(), kept.digest()));
        let file = recent.file.get_or_try_init(|| self.fetch(kept, source, &recent)).await.cloned();
        *lock(&recent.used) = Instant::now();
        self.around.downloads.make_room();
        file
    }

    async fn fetch(&self, kept: &Kept, source: &MediaSource, recent: &Recent) -> Result<Arc<MediaFile>, NotFetched> {
        let client = self.client_for_file().await?;
        match self.take_turn(&client, source).await {
            Err(NotFetched::Expired) => {}
            fetched => return fetched,
        }
        if lock(&recent.in_vain_until).is_some_and(|until| Instant::now() < until) {
            return Err(NotFetched::Expired);
        }
        // Nobody has to wait for this phone who waits for his turn.
        let path = match self.ask_phone(&client, kept, source).await {
            Ok(path) => path,
            Err(why) => {
                *lock(&recent.in_vain_until) = Some(Instant::now() + PHONE_PAUSE);
                return Err(why);
            }
        };
        self.around.store.moved(&self.tenant, kept, path.clone()).await?;
        self.take_turn(&client, &MediaSource { path, ..source.clone() }).await
    }

    async fn take_turn(&self, client: &Client, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let turn = tokio::time::timeout(TURN_LIMIT, self.around.downloads.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(NotFetched::Busy) };
        let fetched = tokio::time::timeout(FETCH_LIMIT, self.ask_hosts(client, source)).await;
        fetched.unwrap_or_else(|_| Err(NotFetched::Unavailable(format!("it took longer than {FETCH_LIMIT:?}"))))
    }

    /// The client, if it is there or comes back soon.
    async fn client_for_file(&self) -> Result<Arc<Client>, NotFetched> {
        self.accepts()?;
        if let Some(client) = self.ready_client() {
            return Ok(client);
        }
        self.wait_until(READY_LIMIT, |snapshot| snapshot.state == State::Ready || snapshot.stops_client()).await;
        if let Some(client) = self.ready_client() {
            return Ok(client);
        }
        self.accepts()?;
        let snapshot = self.snapshot();
        let reason = snapshot.reason.map(|reason| reason.code);
        let retry_at = Some(Utc::now() + TimeDelta::seconds(5));
        Err(Refused::NotReady { state: snapshot.state, reason, retry_at }.into())
    }

    /// Asks each media host for a file.
    async fn ask_hosts(&self, client: &Client, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let hosts = tokio::time::timeout(HOSTS_LIMIT, client.refresh_media_conn(false)).await;
        let hosts = match hosts {
            Ok(Ok(hosts)) => hosts.hosts,
            Ok(Err(error)) => return Err(NotFetched::Unavailable(format!("WhatsApp names no media host: {error}"))),
            Err(_) => return Err(NotFetched::Unavailable("WhatsApp names no media host in time".into())),
        };
        let path = address(source);
        let mut last = NotFetched::Unavailable("WhatsApp names no media host".into());
        for host in hosts {
            match self.ask_host(&host.hostname, &path, source).await {
                Ok(file) => return Ok(file),
                // The next one has no other file, and no other disk to put it on.
                Err(NotFetched::Expired) => return Err(NotFetched::Expired),
                Err(NotFetched::Disk(error)) => return Err(NotFetched::Disk(error)),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn ask_host(&self, host: &str, path: &str, source: &MediaSource) -> Result<Arc<MediaFile>, NotFetched> {
        let unavailable = |why: String| NotFetched::Unavailable(why);
        let host = host.parse().map_err(|_| unavailable("a media host's name is none".into()))?;
        let answer = media_host::get(&self.around.dialler, self.proxy().as_ref(), &host, path).await;
        let mut answer = answer.map_err(|error| unavailable(error.to_string()))?;
        match answer.status {
            StatusCode::OK => {}
            // What is no longer there is also called forbidden: the path was signed for a time.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(NotFetched::Expired);
            }
            status => return Err(unavailable(format!("a media host answers {status}"))),
        }
        let mut coming = ComingFile::create(&self.around.downloads.folder, source)?;
        while let Some(part) = answer.next().await.map_err(|error| unavailable(error.to_string()))? {
            coming.append(&part).await?;
        }
        Ok(Arc::new(coming.finish(source).await?))
    }

    /// Asks the account's phone to upload a file again, and says where it is then.
    async fn ask_phone(&self, client: &Client, kept: &Kept, source: &MediaSource) -> Result<String, NotFetched> {
        let (Ok(chat), Ok(sender)) = (kept.chat.parse::<Jid>(), kept.sender.parse::<Jid>()) else {
            return Err(NotFetched::Expired);
        };
        // In a group it has to be said who wrote it.
        let participant = (chat.user != sender.user && !kept.from_me).then_some(&sender);
        // The library's own request goes to this device of the account, and not to its phone.
        let phone = client.pn().ok_or(NotFetched::Expired)?.to_non_ad();
        let (sealed, iv) = encrypt_media_retry_receipt(&source.key, &kept.id).map_err(|_| NotFetched::Expired)?;
        let request = build_media_retry_receipt(&phone, &kept.id, &chat, kept.from_me, participant, &sealed, &iv);
        let filter = NodeFilter::tag("notification").attr("type", "mediaretry").attr("id", kept.id.as_str());
        // Before it is asked: the answer may come at once.
        let answer = client.wait_for_node(filter);
        tracing::info!(tenant = %self.tenant, "a file is no longer at WhatsApp; the phone is asked for it");
        let asked = async {
            client.send_node(request).await.ok()?;
            parse_media_retry_notification(answer.await.ok()?.get(), &source.key).ok()
        };
        match tokio::time::timeout(PHONE_LIMIT, asked).await {
            Ok(Some(MediaRetryResult::Success { direct_path })) if is_path(&direct_path) => Ok(direct_path),
            _ => Err(NotFetched::Expired),
        }
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
    format!("{}{joint}hash={hash}&mms-type={}&__wa-mms=", source.path, media_type(source.kind).mms_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        ("acme".parse().unwrap(), format!("{n}"), String::new())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_lately_stays() {
        let downloads = Downloads::new(PathBuf::new());
        for n in 0..STAYING + 2 {
            downloads.recent(key(n));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        downloads.recent(key(0));
        downloads.make_room();
        let stays = |n| lock(&downloads.recent).contains_key(&key(n));
        let gone: Vec<_> = (0..STAYING + 2).filter(|&n| !stays(n)).collect();
        assert_eq!(gone, [1, 2], "they were used longest ago");
        tokio::time::advance(IDLE).await;
        downloads.recent(key(5));
        downloads.forget_idle();
        assert!(stays(5) && lock(&downloads.recent).len() == 1);
    }
}
