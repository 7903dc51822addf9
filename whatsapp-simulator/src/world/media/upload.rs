//! A file on its way in. It lies on the disk from its first byte, so that an upload that breaks off can go on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{MediaStore, Object, Part, Token};
use crate::world::address::AccountId;
use crate::world::lock;

/// The longest file, as on the real hosts.
pub(crate) const MAX_LENGTH: u64 = 2 * 1024 * 1024 * 1024;

/// An upload cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the upload can't go on from there: {0} bytes are here")]
    Offset(u64),
    #[error("a file has at most 2 GiB")]
    TooLong,
    #[error("the bytes are not those that the path names")]
    Hash,
    #[error("nothing was uploaded")]
    Empty,
    #[error("the file can't be stored")]
    Storage(#[from] io::Error),
}

/// An upload. If it is dropped before it is finished, its bytes wait for the rest.
pub(crate) struct Upload {
    store: Arc<MediaStore>,
    token: Token,
    owner: AccountId,
    path: PathBuf,
    file: File,
    hash: Sha256,
    length: u64,
    finished: bool,
}

impl Upload {
    /// Starts an upload, or goes on with one at `offset`. Reads what is there already, so it takes a while.
    pub(crate) fn start(
        store: Arc<MediaStore>,
        token: Token,
        owner: AccountId,
        offset: u64,
    ) -> Result<Self, UploadError> {
        let (path, mut file) = {
            let mut shelves = lock(&store.shelves);
            match shelves.parts.remove(&token) {
                Some(part) if offset > 0 && part.length >= offset => {
                    let file = OpenOptions::new().read(true).write(true).open(&part.path)?;
                    file.set_len(offset)?;
                    (part.path, file)
                }
                part if offset > 0 => {
                    let length = part.as_ref().map_or(0, |part| part.length);
                    part.map(|part| shelves.parts.insert(token, part));
                    return Err(UploadError::Offset(length));
                }
                part => {
                    if let Some(part) = part {
                        let _ = std::fs::remove_file(part.path);
                    }
                    let name = format!("{}.part", shelves.next());
                    let path = shelves.folder()?.join(name);
                    let file = File::create_new(&path)?;
                    (path, file)
                }
            }
        };
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut length = 0;
        while length < offset {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                return Err(UploadError::Offset(length));
            }
            hash.update(&chunk[..count]);
            length += count as u64;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { store, token, owner, path, file, hash, length, finished: false })
    }

    /// Takes in some more. It goes no further than the system's cache, and needs no thread of its own.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        if self.length + bytes.len() as u64 > MAX_LENGTH {
            return Err(UploadError::TooLong);
        }
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The file is there. Is it the one that was promised?
    pub(crate) fn finish(mut self) -> Result<Object, UploadError> {
        self.finished = true;
        let kept = self.keep();
        if kept.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        kept
    }

    fn keep(&self) -> Result<Object, UploadError> {
        if self.length == 0 {
            return Err(UploadError::Empty);
        }
        let hash: Token = self.hash.clone().finalize().into();
        if hash != self.token {
            return Err(UploadError::Hash);
        }
        let mut shelves = lock(&self.store.shelves);
        let place = shelves.file(&self.token).ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
        std::fs::rename(&self.path, place)?;
        Ok(shelves.add(self.token, self.owner, self.length))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut shelves = lock(&self.store.shelves);
        if self.length == 0 || shelves.folder.is_none() {
            let _ = std::fs::remove_file(&self.path);
            return;
        }
        let part = Part { path: self.path.clone(), length: self.length };
        if let Some(other) = shelves.parts.insert(self.token, part) {
            let _ = std::fs::remove_file(other.path);
        }
    }
}

impl MediaStore {
    /// Takes in a whole file at once, as a phone brings it.
    pub(crate) fn put(self: &Arc<Self>, bytes: &[u8], token: Token, owner: AccountId) -> Result<Object, UploadError> {
        let mut upload = Upload::start(Arc::clone(self), token, owner, 0)?;
        upload.write(bytes)?;
        upload.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use crate::world::media::Progress;

    const ANA: AccountId = AccountId(0);

    #[test]
    fn an_upload_that_broke_off_goes_on() {
        let world = World::new(crate::Config::default());
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let token: Token = Sha256::digest(&bytes).into();
        let start = |offset| Upload::start(Arc::clone(&world.media), token, ANA, offset);
        assert_eq!(world.media_progress(&token), Progress::Nothing);
        let mut upload = start(0).unwrap();
        upload.write(&bytes[..70_000]).unwrap();
        drop(upload);
        assert_eq!(world.media_progress(&token), Progress::Part(70_000));
        assert!(matches!(start(70_001), Err(UploadError::Offset(70_000))));
        let mut upload = start(65_000).unwrap();
        upload.write(&bytes[65_000..]).unwrap();
        let object = upload.finish().unwrap();
        assert_eq!(world.media_progress(&token), Progress::Whole(object));
        let mut stored = Vec::new();
        world.media.open(&object).unwrap().read_to_end(&mut stored).unwrap();
        assert_eq!(stored, bytes);
    }

    #[test]
    fn other_bytes_than_promised_are_not_kept() {
        let world = World::new(crate::Config::default());
        let token = [1; 32];
        assert!(matches!(world.media.put(b"something else", token, ANA), Err(UploadError::Hash)));
        assert!(matches!(world.media.put(b"", token, ANA), Err(UploadError::Empty)));
        assert_eq!(world.media_progress(&token), Progress::Nothing);
        let folder = lock(&world.media.shelves).folder().unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        world.media.clear();
        assert!(!folder.exists(), "files go with the simulator");
    }
}
