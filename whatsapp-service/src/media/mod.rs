//! Media that is to be sent: taken in as a stream, encrypted while it comes as WhatsApp wants it, kept in a file until it
//! was sent, and uploaded once for all messages that hold the same bytes.

mod fetch;
mod kind;
mod movie;
mod preview;
mod sealed;
mod shelf;
mod turns;
mod upload;

pub use self::{
    fetch::Fetched,
    kind::{Claim, Kind},
    shelf::{Idle, Shelf, Taken},
    upload::{Line, NotUploaded},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    #[error("`voice`, `sticker` and `document`: only one of them can be true")]
    Clash,
    /// There are no bytes.
    #[error("`media` is empty")]
    Empty,
    /// The bytes are not what they are said to be, or not what the kind needs.
    #[error("{0}")]
    Type(String),
    /// More bytes than allowed.
    #[error("`media` is larger than {limit} bytes, which is the most for this kind ({})", .kind.as_str())]
    TooLarge {
        /// What it would be sent as.
        kind: Kind,
        /// How many bytes are allowed.
        limit: u64,
    },
    /// More bytes than any kind is allowed to have.
    #[error("`media` is larger than {limit} bytes, which is the most for any kind")]
    TooLargeForAll {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The URL led to nothing that can be sent. It is not said why: that would tell about the network of the service.
    #[error("the media could not be fetched from `media.url`")]
    NotFetched,
    /// The stream broke off.
    #[error("the media broke off before its end")]
    BrokenOff,
    /// The bytes did not come in time.
    #[error("the media did not arrive in time")]
    TooSlow,
    /// There is no room for more media, or the disk does not take it.
    #[error("the media can't be stored now")]
    NoRoom,
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
    #[serde(with = "bytes")]
    pub key: Vec<u8>,
    /// SHA-256 of the bytes.
    #[serde(with = "bytes")]
    pub sha256: Vec<u8>,
    /// SHA-256 of the file.
    #[serde(with = "bytes")]
    pub encrypted_sha256: Vec<u8>,
    /// How many bytes there are.
    pub size: u64,
    /// When the key was made, in seconds since 1970.
    pub at: i64,
    /// What lets a player begin before the end has come.
    #[serde(with = "maybe_bytes", default, skip_serializing_if = "Option::is_none")]
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
    /// A small JPEG picture of it.
    #[serde(with = "maybe_bytes", default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<Vec<u8>>,
    /// Where an earlier message with the same bytes has brought them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
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

mod bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

mod maybe_bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
    }
}
