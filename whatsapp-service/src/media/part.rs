//! A file that is being written, encrypted: it counts against the quota while it grows, and goes unless it is kept.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    media::{NotTaken, room::Room},
    model::{
        media::{MediaKind, StoredMedia},
        tenant::TenantId,
    },
    whatsapp::media_crypto::{Plain, Writing, parcel},
};

/// How a file is called that is not complete.
pub const PART: &str = "part";

/// A file that is being written.
pub struct Part {
    name: String,
    path: PathBuf,
    room: Arc<Room>,
    tenant: TenantId,
    kind: MediaKind,
    writing: Option<Writing>,
    kept: bool,
}

impl Part {
    /// An empty file for media of this kind.
    pub async fn create(folder: &Path, room: &Arc<Room>, tenant: &TenantId, kind: MediaKind) -> Result<Self, NotTaken> {
        let name = format!("{:032x}", rand::random::<u128>());
        let path = folder.join(&name).with_extension(PART);
        let (room, tenant) = (room.clone(), tenant.clone());
        let mut part = Self { name, path: path.clone(), room, tenant, kind, writing: None, kept: false };
        let created = blocking(move || {
            let file = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            Writing::new(file, kind)
        });
        part.writing = Some(created.await?);
        Ok(part)
    }

    /// Adds these bytes, and gives back what held them, empty.
    pub async fn write(&mut self, piece: Vec<u8>) -> Result<Vec<u8>, NotTaken> {
        self.room.grow(&self.name, &self.tenant, piece.len() as u64).inspect_err(|full| {
            if matches!(full, NotTaken::RoomFull) {
                tracing::warn!("there is no room for more media: see MEDIA_ROOM");
            }
        })?;
        let mut writing = self.writing.take().ok_or(NotTaken::Disk)?;
        let written = blocking(move || {
            writing.write(&piece)?;
            let mut piece = piece;
            piece.clear();
            Ok((writing, piece))
        });
        let piece;
        (self.writing, piece) = written.await.map(|(writing, piece)| (Some(writing), piece))?;
        Ok(piece)
    }

    /// Ends the file, and says what it takes to read it. When this returns, its bytes are on the disk.
    pub async fn finish(&mut self) -> Result<StoredMedia, NotTaken> {
        let (writing, path) = (self.writing.take().ok_or(NotTaken::Disk)?, self.path.clone());
        let (info, length) = blocking(move || Ok((writing.finish()?, fs::metadata(path)?.len()))).await?;
        self.room.set(&self.name, Some(&self.tenant), length);
        Ok(parcel(self.name.clone(), self.kind, info))
    }

    /// What is in it, decrypted.
    pub fn plain(&self, parcel: &StoredMedia) -> Result<Plain, NotTaken> {
        let plain = self.open().and_then(|file| Plain::new(file, &parcel.key, self.kind, parcel.size));
        plain.map_err(|error| {
            tracing::error!(kind = %error.kind(), "media could not be read back from the disk");
            NotTaken::Disk
        })
    }

    /// What it is encrypted for.
    pub fn kind(&self) -> MediaKind {
        self.kind
    }

    /// Where it is until it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to be read.
    pub fn open(&self) -> io::Result<fs::File> {
        fs::File::open(&self.path)
    }

    /// Gives it its own name.
    pub async fn keep(mut self) -> Result<(), NotTaken> {
        let (from, to) = (self.path.clone(), self.path.with_extension(""));
        blocking(move || {
            fs::rename(from, &to)?;
            // A name that is not on the disk would be a message without its media.
            fs::File::open(to.parent().ok_or(io::ErrorKind::NotFound)?)?.sync_all()
        })
        .await?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What is not there under this name may have got its own just now. It counts until it is swept.
        if !self.kept && fs::remove_file(&self.path).is_ok() {
            self.room.gone(&self.name);
        }
    }
}

/// Runs what waits for the disk. Why it did not work is for the log alone.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, NotTaken> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::error!(kind = %error.kind(), "media could not be written to the disk");
            Err(NotTaken::Disk)
        }
        Err(_) => Err(NotTaken::Disk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_leaves_at_the_last_moment_leaves_the_sums_right() {
        let folder = tempfile::TempDir::new().unwrap();
        let (room, tenant) = (Arc::new(Room::new(1_000_000, 1_000_000)), "acme".parse().unwrap());
        let mut part = Part::create(folder.path(), &room, &tenant, MediaKind::Document).await.unwrap();
        part.write(vec![0; 50_000]).await.unwrap();
        // As when the file has its own name already, and nobody is left to say so.
        fs::rename(&part.path, part.path.with_extension("")).unwrap();
        drop(part);
        assert_eq!(room.used("acme").0, 50_000, "what is on the disk counts");
        drop(Part::create(folder.path(), &room, &tenant, MediaKind::Document).await.unwrap());
        assert_eq!(room.used("acme").0, 50_000);
    }
}
