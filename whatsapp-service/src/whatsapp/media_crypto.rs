//! A file of media, encrypted as WhatsApp wants it: written while the bytes come, and read back at any place.

use crate::model::media::{MediaKind, StoredMedia};
use chrono::Utc;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use aes::{
    Aes256,
    cipher::{Block, BlockModeDecrypt, InnerIvInit, KeyInit},
};
use whatsapp_rust::wacore::{
    download::{DownloadUtils, MediaType},
    upload::{EncryptedMediaInfo, MediaEncryptor},
};

const BLOCK: u64 = 16;
/// How much is decrypted at a time, where one reads on.
const WINDOW: u64 = 64 * 1024;
/// And where one begins to read: most that jump read a few bytes only.
const GLIMPSE: u64 = 4 * 1024;

/// A file that is being written.
pub struct Writing {
    file: File,
    encryptor: MediaEncryptor,
    buffer: Vec<u8>,
}

impl Writing {
    /// Into `file`, for this type of media, with a key of its own.
    pub fn new(file: File, kind: MediaKind) -> io::Result<Self> {
        let media_type = media_type(kind);
        let plays = matches!(media_type, MediaType::Audio | MediaType::Video);
        let encryptor = MediaEncryptor::new_with_sidecar(media_type, plays).map_err(io::Error::other)?;
        Ok(Self { file, encryptor, buffer: Vec::new() })
    }

    /// Adds these bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        self.encryptor.update(bytes, &mut self.buffer);
        self.file.write_all(&self.buffer)
    }

    /// Adds what ends the file, and waits until it is on the disk.
    pub fn finish(mut self) -> io::Result<EncryptedMediaInfo> {
        self.buffer.clear();
        let info = self.encryptor.finalize(&mut self.buffer).map_err(io::Error::other)?;
        self.file.write_all(&self.buffer)?;
        self.file.sync_all()?;
        Ok(info)
    }
}

/// Reads what was written, decrypted. It is not checked again: the file is our own.
pub struct Plain {
    file: File,
    cipher: Aes256,
    iv: [u8; 16],
    size: u64,
    at: u64,
    /// The decrypted bytes from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
}

impl Plain {
    /// What is in `file`, which was written with this key for this type, and holds `size` bytes.
    pub fn new(file: File, key: &[u8], kind: MediaKind, size: u64) -> io::Result<Self> {
        let (iv, key, _) = DownloadUtils::get_media_keys(key, media_type(kind)).map_err(io::Error::other)?;
        let cipher = Aes256::new(&key.into());
        Ok(Self { file, cipher, iv, size, at: 0, window: Vec::new(), window_at: 0 })
    }

    fn fill(&mut self) -> io::Result<()> {
        let from = self.at / BLOCK * BLOCK;
        let padded = (self.size / BLOCK + 1) * BLOCK;
        let reads_on = self.at == self.window_at + self.window.len() as u64;
        let length = if reads_on { WINDOW } else { GLIMPSE }.min(padded - from) as usize;
        self.window.resize(length, 0);
        read_blocks(&self.file, &self.cipher, self.iv, from, &mut self.window)?;
        self.window_at = from;
        Ok(())
    }
}

/// Reads whole blocks of an encrypted file, from the beginning of one on, and decrypts them. Each is mixed with the one
/// before it, as it is stored; the first one of the file with `iv`.
pub fn read_blocks(file: &File, cipher: &Aes256, iv: [u8; 16], from: u64, blocks: &mut [u8]) -> io::Result<()> {
    let mut before = iv;
    if from > 0 {
        file.read_exact_at(&mut before, from - BLOCK)?;
    }
    file.read_exact_at(blocks, from)?;
    let mut decryptor = cbc::Decryptor::inner_iv_init(cipher.clone(), &before.into());
    decryptor.decrypt_blocks(Block::<Aes256>::slice_as_chunks_mut(blocks).0);
    Ok(())
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || into.is_empty() {
            return Ok(0);
        }
        let within = self.at.checked_sub(self.window_at).filter(|at| *at < self.window.len() as u64);
        let from = match within {
            Some(from) => from,
            None => {
                self.fill()?;
                self.at - self.window_at
            }
        } as usize;
        let left = (self.size - self.at).min((self.window.len() - from) as u64) as usize;
        let count = left.min(into.len());
        into[..count].copy_from_slice(&self.window[from..from + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Plain {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// What a media host calls it, in the query of a download.
pub fn path_name(kind: MediaKind) -> &'static str {
    media_type(kind).mms_type()
}

/// The path at a media host that it is uploaded to.
pub fn upload_path(kind: MediaKind) -> &'static str {
    media_type(kind).upload_path()
}

/// The keys of a file.
pub struct MediaKeys {
    /// The initialization vector.
    pub iv: [u8; 16],
    /// The key of the cipher.
    pub cipher: [u8; 32],
    /// The key of the MAC.
    pub mac: [u8; 32],
}

impl MediaKeys {
    /// Derived from the key that stands in the message, for this kind of media.
    ///
    /// # Errors
    /// The key is none.
    pub fn derive(key: &[u8], kind: MediaKind) -> Result<Self, InvalidMediaKey> {
        let keys = DownloadUtils::get_media_keys(key, media_type(kind));
        keys.map(|(iv, cipher, mac)| Self { iv, cipher, mac }).map_err(|_| InvalidMediaKey)
    }
}

/// Whether files of these two kinds have the same keys: then one file can be sent as either.
pub fn have_same_keys(one: MediaKind, other: MediaKind) -> bool {
    media_type(one) == media_type(other)
}

/// A key that no file has.
#[derive(Debug, thiserror::Error)]
#[error("a file's key is none")]
pub struct InvalidMediaKey;

/// What the library calls it: the keys are derived for it, and it is uploaded to a place of its own.
fn media_type(kind: MediaKind) -> MediaType {
    match kind {
        MediaKind::Image => MediaType::Image,
        MediaKind::Video => MediaType::Video,
        MediaKind::Audio | MediaKind::Voice => MediaType::Audio,
        MediaKind::Document => MediaType::Document,
        MediaKind::Sticker => MediaType::Sticker,
    }
}

/// A file of which nothing more is known than what it was encrypted with.
pub fn parcel(file: String, kind: MediaKind, info: EncryptedMediaInfo) -> StoredMedia {
    StoredMedia {
        file,
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
        waveform: None,
        animated: false,
        thumbnail: None,
        upload: None,
    }
}

/// A document, encrypted as the library's own clients do it.
#[cfg(test)]
pub fn encrypted_document(plain: &[u8]) -> whatsapp_rust::wacore::upload::EncryptedMedia {
    whatsapp_rust::wacore::upload::encrypt_media(plain, MediaType::Document).unwrap()
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::wacore::upload::{encrypt_media, encrypted_len};

    use super::*;

    /// A file with these bytes in it, written in pieces of `piece` bytes.
    fn written(bytes: &[u8], piece: usize) -> (File, EncryptedMediaInfo) {
        let file = tempfile::tempfile().unwrap();
        let mut writing = Writing::new(file.try_clone().unwrap(), MediaKind::Video).unwrap();
        bytes.chunks(piece).for_each(|piece| writing.write(piece).unwrap());
        (file, writing.finish().unwrap())
    }

    #[test]
    fn what_is_written_is_what_whatsapp_wants_and_is_read_back_from_anywhere() {
        for (length, piece) in [(1, 1), (15, 4), (16, 5), (17, 16), (200_000, 977), (131_072, 65_536)] {
            let bytes: Vec<u8> = (0..length).map(|n: u32| (n * 31 % 251) as u8).collect();
            let (mut file, info) = written(&bytes, piece);
            assert_eq!(info.file_length, u64::from(length));
            let mut encrypted = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut encrypted).unwrap();
            assert_eq!(encrypted.len(), encrypted_len(bytes.len()));
            let decrypted =
                DownloadUtils::verify_and_decrypt(&encrypted, &info.media_key, MediaType::Video).expect("the MAC fits");
            assert_eq!(decrypted, bytes);
            assert!(info.streaming_sidecar.is_some());
            let mut plain = Plain::new(file, &info.media_key, MediaKind::Video, info.file_length).unwrap();
            let mut read = Vec::new();
            plain.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
            for at in [0, 1, 15, 16, 17, 65_535, 65_536, 65_537, 131_071, 199_999] {
                let Some(expected) = bytes.get(at..) else { continue };
                plain.seek(SeekFrom::Start(at as u64)).unwrap();
                let mut some = vec![0; expected.len().min(100)];
                plain.read_exact(&mut some).unwrap();
                assert_eq!(some, expected[..some.len()], "{length} bytes, from {at}");
            }
        }
        // Nothing of the bytes can be seen in the file, and no two files are the same.
        let same = |_| encrypt_media(&[7; 64], MediaType::Image).unwrap().data_to_upload;
        assert_ne!(same(0), same(1));
    }
}
