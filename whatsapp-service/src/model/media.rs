//! Media: the kinds that there are, how large they may be, and what is written down of a file.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::util::encoding::{base64_text, maybe_base64_text};

/// How WhatsApp shows media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MediaKind)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A video.
    Video,
    /// An audio file.
    Audio,
    /// A voice note.
    Voice,
    /// A file with a name.
    Document,
    /// A sticker.
    Sticker,
}

impl MediaKind {
    /// The word as it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Voice => "voice",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }

    /// Whether WhatsApp shows a text beside it.
    pub fn takes_caption(self) -> bool {
        matches!(self, Self::Image | Self::Video | Self::Document)
    }
}

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
    pub fn of(&self, kind: MediaKind) -> u64 {
        match kind {
            MediaKind::Image => self.image,
            MediaKind::Video => self.video,
            MediaKind::Audio | MediaKind::Voice => self.audio,
            MediaKind::Document => self.document,
            MediaKind::Sticker => self.sticker,
        }
    }

    /// The most bytes of any kind.
    pub fn highest(&self) -> u64 {
        [self.image, self.video, self.audio, self.document, self.sticker].into_iter().max().unwrap_or_default()
    }
}

/// Bytes that were taken in, as they are written down with the message that they belong to. Whoever has the key and the
/// file, or the upload, can read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMedia {
    /// The name of the file that holds them, encrypted.
    pub file: String,
    /// What they were encrypted for: the keys of each type are others.
    pub kind: MediaKind,
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
            (MediaKind::Image, 1),
            (MediaKind::Video, 2),
            (MediaKind::Audio, 3),
            (MediaKind::Voice, 3),
            (MediaKind::Document, 4),
            (MediaKind::Sticker, 5),
        ] {
            assert_eq!(limits.of(kind), limit, "{kind:?}");
        }
        assert_eq!(limits.highest(), 5);
    }
}
