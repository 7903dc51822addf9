//! Media that is to be sent: taken in as a stream, encrypted while it comes as WhatsApp wants it, kept in a file until it
//! was sent, and uploaded once for all messages that hold the same bytes.

mod bounded;
mod fetch;
mod jpeg;
mod kind;
mod link_preview;
mod mime;
mod movie;
pub mod names;
mod part;
mod preview;
mod room;
mod sealed;
mod shelf;
mod turns;
mod upload;
pub mod voice;
mod webp;
mod zip;

pub use self::{
    fetch::{FetchFailure, Fetched},
    kind::{Claim, Kind},
    link_preview::{LINK_PREVIEW_LIMIT, first_link},
    sealed::read_blocks,
    shelf::{Idle, Shelf, Taken},
    turns::{Turn, Turns},
    upload::{Line, NotUploaded},
};

use chrono::Utc;
use serde::{Deserialize, Serialize};
use whatsapp_rust::wacore::upload::EncryptedMediaInfo;

use crate::encoding::{base64_text, maybe_base64_text};

/// The most bytes of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a picture.
    pub image: u64,
    /// Of a film.
    pub video: u64,
    /// Of a sound file or a voice note.
    pub audio: u64,
    /// Of a document.
    pub document: u64,
    /// Of a sticker.
    pub sticker: u64,
}

impl Limits {
    /// The most bytes of this kind.
    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Image => self.image,
            Kind::Video => self.video,
            Kind::Audio | Kind::Voice => self.audio,
            Kind::Document => self.document,
            Kind::Sticker => self.sticker,
        }
    }

    /// The most bytes of any kind.
    pub fn highest(&self) -> u64 {
        [self.image, self.video, self.audio, self.document, self.sticker].into_iter().max().unwrap_or_default()
    }
}

/// Why media is not taken. What it says is for the caller, who wrote what it is about.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Something about it is wrong.
    #[error("{0}")]
    Invalid(String),
    /// More than one of these is asked for.
    #[error("`voice`, `sticker`, `document` and `gif`: only one of them can be true")]
    Clash,
    /// There are no bytes.
    #[error("`media` is empty")]
    Empty,
    /// The bytes are not what they are said to be, or not what the kind needs.
    #[error("{0}")]
    Type(String),
    /// There is no audio that a voice note can be made of.
    #[error(
        "`voice` needs audio that can be read here: Opus, AAC, MP3, WAV, FLAC or Vorbis. See docs/conversion.md for others"
    )]
    NoVoice,
    /// A voice note is to be made of a video.
    #[error("`voice` needs a recording without pictures, and the bytes are a video")]
    VideoForVoice,
    /// A voice note is to be made of something very long.
    #[error("`voice` makes voice notes of recordings that play for {} minutes at most", seconds / 60)]
    TooLong {
        /// How long it may play.
        seconds: u64,
    },
    /// There is no video that can play in a loop.
    #[error("`gif` needs a video: MP4 with moving pictures. See docs/conversion.md for how a GIF becomes one")]
    NoGif,
    /// Others are in the way, and it would take too long.
    #[error("too many voice notes are being made")]
    Busy,
    /// More bytes than allowed.
    #[error("`media` is larger than {limit} bytes, which is the most for this kind ({})", .kind.as_str())]
    TooLarge {
        /// What it would be sent as.
        kind: Kind,
        /// How many bytes are allowed.
        limit: u64,
    },
    /// More bytes than any kind may have, as whoever sends them announces.
    #[error("`media` is larger than {limit} bytes, which is the most for any kind")]
    Oversized {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The URL led to nothing that can be sent. It is not said why: that would tell about the network of the service.
    #[error("the media could not be fetched from `media.url`")]
    NotFetched(FetchFailure),
    /// The stream broke off.
    #[error("the media broke off before its end")]
    BrokenOff,
    /// The bytes did not come in time.
    #[error("the media did not arrive in time")]
    TooSlow,
    /// The tenant has its share of the room for media.
    #[error("the media of this tenant that waits to be sent fills its share of the room")]
    ShareFull,
    /// All tenants together have filled the room for media.
    #[error("the media of all tenants that waits to be sent fills the room")]
    RoomFull,
    /// The disk does not take it.
    #[error("the media can't be stored now")]
    Disk,
}

/// Bytes that were taken in, as they are written down with the message that they belong to. Whoever has the key and the
/// file, or the upload, can read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parcel {
    /// The name of the file that holds them, encrypted.
    pub file: String,
    /// What they were encrypted for: the keys of each type are others.
    pub kind: Kind,
    /// The key.
    #[serde(with = "base64_text")]
    pub key: Vec<u8>,
    /// SHA-256 of the bytes.
    #[serde(with = "base64_text")]
    pub sha256: Vec<u8>,
    /// SHA-256 of the file.
    #[serde(with = "base64_text")]
    pub encrypted_sha256: Vec<u8>,
    /// How many bytes there are.
    pub size: u64,
    /// When the key was made, in seconds since 1970.
    pub at: i64,
    /// What lets a player begin before the end has come.
    #[serde(with = "maybe_base64_text", default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Vec<u8>>,
    /// In pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// In pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// How long it plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// How loud a voice note is from its beginning to its end: 64 values from 0 to 100.
    #[serde(with = "maybe_base64_text", default, skip_serializing_if = "Option::is_none")]
    pub waveform: Option<Vec<u8>>,
    /// Whether a sticker moves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub animated: bool,
    /// A small JPEG picture of it.
    #[serde(with = "maybe_base64_text", default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<Vec<u8>>,
    /// Where an earlier message with the same bytes has brought them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

impl Parcel {
    /// A file of which nothing more is known than what it was encrypted with.
    fn new(file: String, kind: Kind, info: EncryptedMediaInfo) -> Self {
        Self {
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
}

/// Where bytes were uploaded to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// The whole address.
    pub url: String,
    /// What of it counts.
    pub direct_path: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_limit_of_its_own() {
        let limits = Limits { image: 1, video: 2, audio: 3, document: 4, sticker: 5 };
        for (kind, limit) in [
            (Kind::Image, 1),
            (Kind::Video, 2),
            (Kind::Audio, 3),
            (Kind::Voice, 3),
            (Kind::Document, 4),
            (Kind::Sticker, 5),
        ] {
            assert_eq!(limits.of(kind), limit, "{kind:?}");
        }
        assert_eq!(limits.highest(), 5);
    }
}
