//! A file in a message: what the message says about it, and what the phone found when it looked.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wacore::download::{DownloadUtils, MediaType};

use super::{MediaStore, Missing, Object};
use crate::world::lock;

/// A phone cannot show a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MediaTrouble {
    #[error("there is no such file on the media host")]
    NotFound,
    #[error("the file has expired on the media host")]
    Expired,
    #[error("the message does not say how to find or open the file")]
    Incomplete,
    #[error("the media host has other bytes than the message says")]
    OtherBytes,
    #[error("the file can't be decrypted")]
    Damaged,
    #[error("the decrypted bytes are not those that the message says")]
    OtherContent,
    #[error("the file can't be read")]
    Storage,
}

impl From<Missing> for MediaTrouble {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unknown => Self::NotFound,
            Missing::Expired => Self::Expired,
        }
    }
}

/// What the phone has in its hands after it downloaded and decrypted a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    size: u64,
    sha256: [u8; 32],
    object: Object,
}

/// A file in a message.
pub struct Attachment {
    pub(crate) what: MediaType,
    pub(crate) key: Vec<u8>,
    pub(crate) direct_path: String,
    pub(crate) enc_sha256: Vec<u8>,
    pub(crate) sha256: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) mimetype: String,
    pub(crate) filename: Option<String>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) seconds: Option<u32>,
    pub(crate) thumbnail: bool,
    pub(crate) waveform: Option<Vec<u8>>,
    pub(crate) gif: bool,
    pub(crate) animated: bool,
    pub(crate) looked: OnceLock<Result<Looked, MediaTrouble>>,
}

/// Neither keys nor paths belong into a log.
impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("mimetype", &self.mimetype).field("looked", &self.looked).finish()
    }
}

/// A file in a message, as the control API shows it.
#[derive(Serialize)]
struct View<'a> {
    mimetype: &'a str,
    /// Measured by the phone, once it has looked; before that, what the message says.
    size: u64,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u32>,
    thumbnail: bool,
    /// How loud a voice note is from its beginning to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    waveform: Option<&'a [u8]>,
    /// Whether a video plays in a loop.
    #[serde(skip_serializing_if = "is_false")]
    gif: bool,
    /// Whether a sticker moves.
    #[serde(skip_serializing_if = "is_false")]
    animated: bool,
    /// Why the phone cannot show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// As JSON, for a message's `media`.
pub(crate) fn view<S: serde::Serializer>(attachment: &Option<Arc<Attachment>>, to: S) -> Result<S::Ok, S::Error> {
    let Some(a) = attachment else { return to.serialize_none() };
    let looked = a.looked.get();
    let (size, sha256) = match looked {
        Some(Ok(looked)) => (looked.size, hex(&looked.sha256)),
        _ => (a.length, hex(&a.sha256)),
    };
    View {
        mimetype: &a.mimetype,
        size,
        sha256,
        filename: a.filename.as_deref(),
        width: a.width,
        height: a.height,
        seconds: a.seconds,
        thumbnail: a.thumbnail,
        waveform: a.waveform.as_deref(),
        gif: a.gif,
        animated: a.animated,
        error: looked.and_then(|looked| looked.err()).map(|trouble| trouble.to_string()),
    }
    .serialize(to)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        use fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Counts and hashes what is written.
#[derive(Default)]
struct Measure {
    hash: Sha256,
    size: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MediaStore {
    /// Lets a phone look at a file that it was sent, at once or, where there is a runtime, beside everything else: a
    /// large file takes a while to decrypt. `there` is what the host had when the message came.
    pub(crate) fn look(self: &Arc<Self>, attachment: &Arc<Attachment>, there: Result<Object, Missing>) {
        let object = match there {
            Ok(object) => object,
            Err(missing) => {
                let _ = attachment.looked.set(Err(missing.into()));
                return;
            }
        };
        let (store, attachment) = (Arc::clone(self), Arc::clone(attachment));
        let job = move || {
            attachment.looked.get_or_init(|| store.examine(&attachment, object));
            store.changes.send_modify(|n| *n = n.wrapping_add(1));
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(job)),
            Err(_) => job(),
        }
    }

    /// Waits until the phone has looked. Not for a thread that must not wait.
    pub(crate) fn wait(&self, attachment: &Attachment) -> Result<Looked, MediaTrouble> {
        *attachment.looked.get_or_init(|| {
            let name = attachment.direct_path.strip_prefix(super::FOLDER).ok_or(MediaTrouble::NotFound)?;
            self.examine(attachment, self.object(name)?)
        })
    }

    fn examine(&self, attachment: &Attachment, object: Object) -> Result<Looked, MediaTrouble> {
        let _one = lock(&self.looking);
        if attachment.key.len() != 32 {
            return Err(MediaTrouble::Incomplete);
        }
        // The file lies under the hash of its bytes; that was seen to when it came.
        if object.token != *attachment.enc_sha256 {
            return Err(MediaTrouble::OtherBytes);
        }
        let file = self.open(&object).map_err(|_| MediaTrouble::Storage)?;
        let mut measure = Measure::default();
        DownloadUtils::decrypt_stream_to_writer(file, &attachment.key, attachment.what, &mut measure)
            .map_err(|_| MediaTrouble::Damaged)?;
        let sha256: [u8; 32] = measure.hash.finalize().into();
        if sha256 != *attachment.sha256 || measure.size != attachment.length {
            return Err(MediaTrouble::OtherContent);
        }
        Ok(Looked { size: measure.size, sha256, object })
    }

    /// The decrypted bytes, in a file without a name, and how many there are.
    pub(crate) fn plain(&self, attachment: &Attachment) -> Result<(File, u64), MediaTrouble> {
        let looked = self.wait(attachment)?;
        let folder = lock(&self.shelves).folder().map_err(|_| MediaTrouble::Storage)?;
        let mut plain = tempfile::tempfile_in(folder).map_err(|_| MediaTrouble::Storage)?;
        let file = self.open(&looked.object).map_err(|_| MediaTrouble::Storage)?;
        DownloadUtils::decrypt_stream_to_writer(file, &attachment.key, attachment.what, &mut plain)
            .map_err(|_| MediaTrouble::Damaged)?;
        plain.rewind().map_err(|_| MediaTrouble::Storage)?;
        Ok((plain, looked.size))
    }
}
