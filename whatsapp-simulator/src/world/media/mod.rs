//! The media host's storage: encrypted files on disk, who brought them, and where they are found.
//!
//! A file is known by the hash of its encrypted bytes. Each upload of it is an object with a path of its own, because
//! a path is what runs out, and a new upload of the same bytes is what helps then.

pub(crate) mod attachment;
pub(crate) mod retry;
pub(crate) mod upload;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tempfile::TempDir;
use tokio::sync::watch;

use super::address::AccountId;
use super::faults::FaultKind;
use super::{World, lock};

/// The SHA-256 of an encrypted file: its name.
pub(crate) type Token = [u8; 32];

/// Where all files lie, as on the real hosts.
pub(crate) const FOLDER: &str = "/v/t62.7118-24/";
const SUFFIX: &str = ".enc";

/// A file that one can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Counts uploads: a path is good for one of them.
    number: u64,
    token: Token,
    owner: AccountId,
    pub(crate) length: u64,
}

impl Object {
    /// The hash of its bytes.
    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// Who brought it.
    pub(crate) fn owner(&self) -> AccountId {
        self.owner
    }

    /// The path under which it can be had.
    pub(crate) fn direct_path(&self) -> String {
        format!("{FOLDER}{}_{}{SUFFIX}", self.number, BASE64.encode(self.token))
    }
}

/// Reads the hash in a path or a query.
pub(crate) fn token(text: &str) -> Option<Token> {
    BASE64.decode(text.trim_end_matches('=').replace('+', "-").replace('/', "_")).ok()?.try_into().ok()
}

/// Takes the last part of a path apart.
fn parse_name(name: &str) -> Option<(u64, Token)> {
    let (number, hash) = name.strip_suffix(SUFFIX)?.split_once('_')?;
    Some((number.parse().ok()?, token(hash)?))
}

/// What the server has of a file that someone is about to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Whole(Object),
    /// An upload broke off after so many bytes.
    Part(u64),
    Nothing,
}

/// A file cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// There never was such a path.
    Unknown,
    /// Its time is over.
    Expired,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    length: u64,
}

#[derive(Debug, Default)]
struct Shelves {
    /// Made when the first file comes: most simulators never see one.
    folder: Option<TempDir>,
    objects: HashMap<u64, Object>,
    newest: HashMap<Token, u64>,
    parts: HashMap<Token, Part>,
    last: u64,
    /// Objects up to this number were there when they were last declared to be expired.
    expired: u64,
}

impl Shelves {
    fn folder(&mut self) -> io::Result<PathBuf> {
        if self.folder.is_none() {
            self.folder = Some(tempfile::Builder::new().prefix("whatsapp-simulator-").tempdir()?);
        }
        self.folder.as_ref().map(|dir| dir.path().to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, token: &Token) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.path().join(BASE64.encode(token)))
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn add(&mut self, token: Token, owner: AccountId, length: u64) -> Object {
        let object = Object { number: self.next(), token, owner, length };
        self.objects.insert(object.number, object);
        self.newest.insert(token, object.number);
        object
    }
}

/// All files of a simulator. They go when it goes.
#[derive(Debug)]
pub(crate) struct MediaStore {
    /// What the upload tokens are made with.
    secret: [u8; 32],
    /// How often all tokens have expired: those of another issue are no good.
    issue: AtomicU64,
    /// Where the simulator listens: what clients are told when they don't say how they reached it.
    address: OnceLock<String>,
    shelves: Mutex<Shelves>,
    /// Phones look at one file at a time: there may be many of them, and there are few processors.
    looking: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl MediaStore {
    pub(crate) fn new(changes: watch::Sender<u64>) -> Self {
        Self {
            secret: rand::random(),
            issue: AtomicU64::default(),
            address: OnceLock::new(),
            shelves: Mutex::default(),
            looking: Mutex::default(),
            changes,
        }
    }

    /// Says where the simulator listens.
    pub(crate) fn listens_at(&self, address: String) {
        let _ = self.address.set(address);
    }

    /// The host, if nothing better is known.
    pub(crate) fn address(&self) -> &str {
        self.address.get().map_or("localhost", String::as_str)
    }

    /// Deletes all files.
    pub(crate) fn clear(&self) {
        *lock(&self.shelves) = Shelves::default();
    }

    /// What lets an account upload.
    pub(crate) fn auth(&self, account: AccountId) -> String {
        let issue = self.issue.load(Ordering::Relaxed).to_be_bytes();
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret);
        let mac = mac.map(|mac| mac.chain_update(issue).chain_update(account.0.to_be_bytes()));
        // A key of any length will do for an HMAC; there is nothing that could go wrong.
        let mac = mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default();
        format!("{}.{}", account.0, BASE64.encode(mac))
    }

    /// Makes all tokens that were handed out worthless.
    pub(crate) fn expire_tokens(&self) {
        self.issue.fetch_add(1, Ordering::Relaxed);
    }

    /// Whose token this is.
    pub(crate) fn account(&self, auth: &str) -> Option<AccountId> {
        let account = AccountId(auth.split_once('.')?.0.parse().ok()?);
        bool::from(self.auth(account).as_bytes().ct_eq(auth.as_bytes())).then_some(account)
    }

    /// The file at a path, expired or not.
    fn object(&self, name: &str) -> Result<Object, Missing> {
        let (number, token) = parse_name(name).ok_or(Missing::Unknown)?;
        let object = lock(&self.shelves).objects.get(&number).copied();
        object.filter(|object| object.token == token).ok_or(Missing::Unknown)
    }

    /// Opens a file.
    pub(crate) fn open(&self, object: &Object) -> io::Result<File> {
        let path = lock(&self.shelves).file(&object.token).ok_or(io::ErrorKind::NotFound)?;
        File::open(path)
    }

    /// The same file under a new path.
    pub(crate) fn again(&self, direct_path: &str, owner: AccountId) -> Result<Object, Missing> {
        let object = self.object(direct_path.strip_prefix(FOLDER).ok_or(Missing::Unknown)?)?;
        Ok(lock(&self.shelves).add(object.token, owner, object.length))
    }

    /// From now on, what is there can be declared to be expired.
    pub(crate) fn age(&self) {
        let mut shelves = lock(&self.shelves);
        shelves.expired = shelves.last;
    }

    fn is_old(&self, object: &Object) -> bool {
        object.number <= lock(&self.shelves).expired
    }
}

impl World {
    /// What is there of a file that an account is about to upload.
    pub(crate) fn media_progress(&self, token: &Token) -> Progress {
        let newest = {
            let shelves = lock(&self.media.shelves);
            match shelves.newest.get(token).and_then(|number| shelves.objects.get(number)) {
                Some(object) => *object,
                None => return shelves.parts.get(token).map_or(Progress::Nothing, |part| Progress::Part(part.length)),
            }
        };
        if self.is_expired(&newest, false) { Progress::Nothing } else { Progress::Whole(newest) }
    }

    fn is_expired(&self, object: &Object, use_up: bool) -> bool {
        if !self.media.is_old(object) {
            return false;
        }
        let owner = self.number_of(object.owner);
        let expired = |kind: &FaultKind| (*kind == FaultKind::MediaExpired).then_some(());
        if use_up {
            self.faults.take(owner.as_ref(), expired).is_some()
        } else {
            self.faults.peek(owner.as_ref(), expired).is_some()
        }
    }

    /// The file with this name, for someone who wants to download it.
    pub(crate) fn find_media(&self, name: &str) -> Result<Object, Missing> {
        let object = self.media.object(name)?;
        if self.is_expired(&object, true) { Err(Missing::Expired) } else { Ok(object) }
    }

    /// Whether a phone that gets this path now gets the file too.
    pub(crate) fn media_at(&self, direct_path: &str) -> Result<Object, Missing> {
        let object = self.media.object(direct_path.strip_prefix(FOLDER).ok_or(Missing::Unknown)?)?;
        if self.is_expired(&object, false) { Err(Missing::Expired) } else { Ok(object) }
    }
    /// The name under which a client finds the media host: the one that it is told to use, or the one that it used.
    pub(crate) fn media_host<'a>(&'a self, reached: Option<&'a str>) -> &'a str {
        self.config.media_host.as_deref().or(reached).unwrap_or_else(|| self.media.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> MediaStore {
        MediaStore::new(watch::Sender::new(0))
    }

    #[test]
    fn a_token_is_good_for_its_account_only() {
        let store = store();
        let auth = store.auth(AccountId(7));
        assert_eq!(store.account(&auth), Some(AccountId(7)));
        for wrong in [auth.replacen('7', "8", 1), super::tests::store().auth(AccountId(7)), "7.".to_owned(), "x".into()]
        {
            assert_eq!(store.account(&wrong), None, "{wrong}");
        }
        store.expire_tokens();
        assert_eq!(store.account(&auth), None);
        assert_eq!(store.account(&store.auth(AccountId(7))), Some(AccountId(7)));
    }

    #[test]
    fn a_path_leads_to_one_upload() {
        let store = store();
        let object = lock(&store.shelves).add([7; 32], AccountId(1), 26);
        let path = object.direct_path();
        let name = path.strip_prefix(FOLDER).unwrap();
        assert_eq!(store.object(name), Ok(object));
        for wrong in [name.replacen('1', "2", 1), name.replacen("_B", "_C", 1), name.replace(SUFFIX, ""), String::new()]
        {
            assert_eq!(store.object(&wrong), Err(Missing::Unknown), "{wrong}");
        }
        let again = store.again(&path, AccountId(1)).unwrap();
        assert_ne!(again.direct_path(), path);
        assert_eq!(again.token, object.token);
    }
}
