//! A file that came with a message: kept on the disk as WhatsApp stores it, encrypted, and decrypted as it is read.
//!
//! It has no name, so that the system deletes it with its last reader, also after a kill. It is read only once all of it
//! is there and was found to be what the sender has sent.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aes::{Aes256, cipher::KeyInit as _};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::io::AsyncWriteExt;
use zeroize::Zeroizing;

use crate::{
    model::tenant::TenantId,
    store::{data_dir::create_private_dir, kept::MediaSource},
    util::quota::Reservation,
    whatsapp::media_crypto::{MediaKeys, read_blocks},
};

const BLOCK: usize = 16;
/// How much of the MAC is stored, behind the file.
const MAC: usize = 10;
/// What encryption adds at most: the padding, and the MAC.
const OVERHEAD: u64 = (BLOCK + MAC) as u64;
/// How much is decrypted at a time.
pub const CHUNK: usize = 64 * 1024;
/// The longest file, whatever its sender says: WhatsApp takes none that is longer.
const LONGEST: u64 = 2 * 1024 * 1024 * 1024;
/// What the longest file takes on the disk.
pub const LONGEST_STORED: u64 = LONGEST + OVERHEAD;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// It is not what the sender has sent.
    #[error("the file is not what its sender says that it is")]
    Damaged,
    /// It is longer than the sender says.
    #[error("the file is longer than its sender says")]
    TooLong,
    /// The disk.
    #[error("a file in DATA_DIR/downloads: {0}")]
    Disk(#[from] io::Error),
}

/// A file that is all there, and right.
pub struct MediaFile {
    file: File,
    iv: [u8; BLOCK],
    key: Zeroizing<[u8; 32]>,
    size: u64,
    /// Until the file is gone.
    _room: Option<Reservation<TenantId>>,
}

/// A file that is coming.
pub struct ComingFile {
    file: tokio::fs::File,
    mac: Hmac<Sha256>,
    digest: Sha256,
    /// The last bytes that came: they may be the MAC.
    tail: Vec<u8>,
    length: u64,
    limit: u64,
    iv: [u8; BLOCK],
    key: Zeroizing<[u8; 32]>,
}

impl ComingFile {
    /// Makes a file in this folder for what `source` tells of.
    pub fn create(folder: &Path, source: &MediaSource) -> Result<Self, MediaError> {
        let MediaKeys { iv, cipher: key, mac: mac_key } =
            MediaKeys::derive(&source.key, source.kind).map_err(|_| MediaError::Damaged)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&mac_key).expect("HMAC takes keys of every length");
        mac.update(&iv);
        let file = nameless_file(folder)?;
        Ok(Self {
            file: file.into(),
            mac,
            digest: Sha256::new(),
            tail: Vec::with_capacity(MAC),
            length: 0,
            limit: most_stored(source),
            iv,
            key: Zeroizing::new(key),
        })
    }

    /// Takes what came next.
    pub async fn append(&mut self, part: &[u8]) -> Result<(), MediaError> {
        self.length += part.len() as u64;
        if self.length > self.limit {
            return Err(MediaError::TooLong);
        }
        self.digest.update(part);
        // All but the last bytes: of those before it and of these.
        let beyond = (self.tail.len() + part.len()).saturating_sub(MAC);
        let from_tail = beyond.min(self.tail.len());
        self.mac.update(&self.tail[..from_tail]);
        self.tail.drain(..from_tail);
        let (inside, last) = part.split_at(beyond - from_tail);
        self.mac.update(inside);
        self.tail.extend_from_slice(last);
        Ok(self.file.write_all(part).await?)
    }

    /// All has come: checks it, by the keys and by what the sender says of it.
    pub async fn finish(mut self, source: &MediaSource) -> Result<MediaFile, MediaError> {
        let encrypted = self.length.checked_sub(MAC as u64).ok_or(MediaError::Damaged)?;
        let is_whole = encrypted > 0 && encrypted % BLOCK as u64 == 0;
        let stored_is_right = bool::from(self.digest.finalize().ct_eq(&source.encrypted_sha256));
        let mac_is_right = bool::from(self.mac.finalize().into_bytes()[..MAC].ct_eq(&self.tail));
        if !is_whole || !stored_is_right || !mac_is_right {
            return Err(MediaError::Damaged);
        }
        self.file.flush().await?;
        let file = self.file.into_std().await;
        let mut media = MediaFile { file, iv: self.iv, key: self.key, size: encrypted, _room: None };
        let sha256 = source.sha256.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let last = media.read(encrypted - BLOCK as u64..encrypted)?;
            let padding = usize::from(*last.last().ok_or(MediaError::Damaged)?);
            let is_padding = (1..=BLOCK).contains(&padding)
                && last[BLOCK - padding..].iter().all(|&byte| usize::from(byte) == padding);
            if !is_padding {
                return Err(MediaError::Damaged);
            }
            media.size = encrypted - padding as u64;
            let (mut digest, mut at) = (Sha256::new(), 0);
            while at < media.size {
                let part = media.read(at..media.size.min(at + CHUNK as u64))?;
                digest.update(&part);
                at += part.len() as u64;
            }
            if digest.finalize()[..] == sha256[..] { Ok(media) } else { Err(MediaError::Damaged) }
        });
        checked.await.unwrap_or_else(|_| Err(io::Error::other("the check broke off").into()))
    }
}

impl MediaFile {
    /// Holds the room that was taken for it.
    pub fn in_room(self, room: Reservation<TenantId>) -> Self {
        Self { _room: Some(room), ..self }
    }

    /// How much it takes on the disk at most.
    pub fn stored(&self) -> u64 {
        self.size + OVERHEAD
    }

    /// How long the file is.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A part of the file, which must be in it. It blocks, and holds all of the part.
    pub fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let block = BLOCK as u64;
        let (first, end) = (range.start / block * block, range.end.div_ceil(block) * block);
        let length = usize::try_from(end - first).map_err(io::Error::other)?;
        let mut part = vec![0; length];
        read_blocks(&self.file, &Aes256::new((&*self.key).into()), self.iv, first, &mut part)?;
        let skipped = usize::try_from(range.start - first).map_err(io::Error::other)?;
        part.truncate(usize::try_from(range.end - first).map_err(io::Error::other)?);
        part.drain(..skipped);
        Ok(part)
    }
}

/// How much the file that `source` tells of takes on the disk at most.
pub fn most_stored(source: &MediaSource) -> u64 {
    source.size.map_or(LONGEST, |size| size.min(LONGEST)) + OVERHEAD
}

/// A file that nobody else can open.
fn nameless_file(folder: &Path) -> io::Result<File> {
    create_private_dir(folder).map_err(io::Error::other)?;
    let path = folder.join(format!("{:032x}", rand::random::<u128>()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
use crate::{model::media::MediaKind, whatsapp::media_crypto::encrypted_document};

#[cfg(test)]
impl MediaFile {
    /// A file that holds these bytes.
    pub fn holding(plain: &[u8]) -> Self {
        let stored = encrypted_document(plain);
        let MediaKeys { iv, cipher: key, .. } = MediaKeys::derive(&stored.media_key, MediaKind::Document).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &stored.data_to_upload).unwrap();
        Self { file, iv, key: Zeroizing::new(key), size: plain.len() as u64, _room: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn source(plain: &[u8]) -> (MediaSource, Vec<u8>) {
        let stored = encrypted_document(plain);
        let source = MediaSource {
            kind: MediaKind::Document,
            path: "/v/1".into(),
            key: stored.media_key.to_vec(),
            sha256: stored.file_sha256.to_vec(),
            encrypted_sha256: stored.file_enc_sha256.to_vec(),
            size: Some(plain.len() as u64),
            mimetype: None,
            filename: None,
        };
        (source, stored.data_to_upload)
    }

    async fn taken(source: &MediaSource, parts: impl IntoIterator<Item = &[u8]>) -> Result<MediaFile, MediaError> {
        let folder = TempDir::new().unwrap();
        let mut coming = ComingFile::create(&folder.path().join("downloads"), source)?;
        for part in parts {
            coming.append(part).await?;
        }
        assert_eq!(fs::read_dir(folder.path().join("downloads")).unwrap().count(), 0, "nothing has a name");
        coming.finish(source).await
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However long the file is, however it comes, and whatever is read of it.
        #[test]
        fn every_part_is_what_was_sent(
            plain in prop::collection::vec(any::<u8>(), 1..500),
            step in 1_usize..100,
            (a, b) in (0_usize..500, 0_usize..500),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (source, stored) = source(&plain);
            let file = runtime.block_on(taken(&source, stored.chunks(step))).unwrap();
            prop_assert_eq!(file.size(), plain.len() as u64);
            let (a, b) = (a.min(b).min(plain.len()), a.max(b).min(plain.len()));
            prop_assert_eq!(file.read(a as u64..b as u64).unwrap(), &plain[a..b]);
        }
    }

    #[tokio::test]
    async fn what_is_not_what_was_sent_is_refused() {
        let plain = vec![7; 100_000];
        let (source, stored) = source(&plain);
        let refused = async |source: &MediaSource, stored: &[u8]| match taken(source, [stored]).await {
            Err(MediaError::Damaged) => "damaged",
            Err(MediaError::TooLong) => "too long",
            Err(MediaError::Disk(_)) => "disk",
            Ok(_) => "taken",
        };
        assert_eq!(refused(&source, &stored).await, "taken");
        for at in [0, 50_000, stored.len() - 1] {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            assert_eq!(refused(&source, &changed).await, "damaged", "at {at}");
        }
        for length in [0, 5, 10, 20, 26, stored.len() - 16, stored.len() - 1] {
            assert_eq!(refused(&source, &stored[..length]).await, "damaged", "{length} bytes");
        }
        let other_digest = MediaSource { sha256: vec![0; 32], ..source.clone() };
        assert_eq!(refused(&other_digest, &stored).await, "damaged");
        // By the digest of what is stored alone, the MAC being right.
        let other_digest = MediaSource { encrypted_sha256: vec![0; 32], ..source.clone() };
        assert_eq!(refused(&other_digest, &stored).await, "damaged");
        let longer = [&stored[..], &[0; 64]].concat();
        assert_eq!(refused(&source, &longer).await, "too long");
        let unknown_size = MediaSource { size: None, ..source.clone() };
        assert_eq!(refused(&unknown_size, &stored).await, "taken");
        let boastful = MediaSource { size: Some(u64::MAX), ..source };
        assert_eq!(refused(&boastful, &stored).await, "taken");
    }
}
