//! Files that come with messages: what is told of them, and what is kept to fetch them.

use serde::Serialize;
use utoipa::ToSchema;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::{store::kept::MediaSource, whatsapp::decode::received::Kind};

/// How much of a file's name is kept, in characters.
const FILENAME: usize = 1024;

/// What the sender says of a file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedMedia)]
pub struct Media<'a> {
    /// Its MIME type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mimetype: Option<&'a str>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-256, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub sha256: Option<String>,
    /// The name of a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<&'a str>,
    /// How long a video or a sound lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// How loud a voice note is from its beginning to its end: usually 64 values from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 256)]
    pub waveform: Option<&'a [u8]>,
    /// Whether a video plays in a loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gif: Option<bool>,
    /// Whether a sticker moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub animated: Option<bool>,
}

/// The most values of a waveform that are told: the sender may write any number of them.
const MAX_WAVEFORM: usize = 256;

/// A file that came with a message.
pub struct Attachment<'a> {
    /// The message's kind.
    pub kind: Kind,
    /// What is told of it.
    pub media: Media<'a>,
    /// What is written below it.
    pub caption: Option<&'a str>,
    /// What is kept to fetch it; nothing if it can't be fetched.
    pub source: Option<MediaSource>,
}

/// What all kinds of files have in common.
struct Stored<'a> {
    kind: crate::model::media::MediaKind,
    path: &'a Option<String>,
    key: &'a Option<Vec<u8>>,
    sha256: &'a Option<Vec<u8>>,
    encrypted_sha256: &'a Option<Vec<u8>>,
}

macro_rules! stored {
    ($kind:ident, $file:ident) => {
        Stored {
            kind: crate::model::media::MediaKind::$kind,
            path: &$file.direct_path,
            key: &$file.media_key,
            sha256: &$file.file_sha256,
            encrypted_sha256: &$file.file_enc_sha256,
        }
    };
}

/// The file that came with a message, if one did.
pub fn attached(message: &wa::Message) -> Option<Attachment<'_>> {
    if let Some(picture) = message.image_message.as_option() {
        return Some(image(picture));
    }
    if let Some(video) = message.video_message.as_option().or(message.ptv_message.as_option()) {
        let media = Media {
            mimetype: video.mimetype.as_deref(),
            size: video.file_length,
            seconds: video.seconds,
            width: video.width,
            height: video.height,
            gif: video.gif_playback.filter(|gif| *gif),
            ..Media::default()
        };
        return Some(stored!(Video, video).with(Kind::Video, media, video.caption.as_deref()));
    }
    if let Some(audio) = message.audio_message.as_option() {
        let kind = if audio.ptt == Some(true) { Kind::Voice } else { Kind::Audio };
        let media = Media {
            mimetype: audio.mimetype.as_deref(),
            size: audio.file_length,
            seconds: audio.seconds,
            waveform: audio.waveform.as_deref().filter(|bars| (1..=MAX_WAVEFORM).contains(&bars.len())),
            ..Media::default()
        };
        return Some(stored!(Audio, audio).with(kind, media, None));
    }
    if let Some(document) = message.document_message.as_option() {
        let media = Media {
            mimetype: document.mimetype.as_deref(),
            size: document.file_length,
            filename: document.file_name.as_deref().or(document.title.as_deref()),
            ..Media::default()
        };
        return Some(stored!(Document, document).with(Kind::Document, media, document.caption.as_deref()));
    }
    if let Some(sticker) = message.sticker_message.as_option() {
        let media = Media {
            mimetype: sticker.mimetype.as_deref(),
            size: sticker.file_length,
            width: sticker.width,
            height: sticker.height,
            animated: sticker.is_animated.filter(|animated| *animated),
            ..Media::default()
        };
        return Some(stored!(Sticker, sticker).with(Kind::Sticker, media, None));
    }
    None
}

/// A picture.
pub fn image(image: &wa::message::ImageMessage) -> Attachment<'_> {
    let media = Media {
        mimetype: image.mimetype.as_deref(),
        size: image.file_length,
        width: image.width,
        height: image.height,
        ..Media::default()
    };
    stored!(Image, image).with(Kind::Image, media, image.caption.as_deref())
}

impl<'a> Stored<'a> {
    fn with(self, kind: Kind, media: Media<'a>, caption: Option<&'a str>) -> Attachment<'a> {
        let source = self.source(&media);
        let sha256 = self.sha256.as_deref().filter(|digest| digest.len() == 32).map(hex::encode);
        let caption = caption.filter(|caption| !caption.is_empty());
        Attachment { kind, media: Media { sha256, ..media }, caption, source }
    }

    /// All that it takes to fetch and to check it. The sender writes the path: it must not lead to another host. Neither
    /// must the addresses that some messages hold, which are not looked at.
    fn source(&self, media: &Media<'a>) -> Option<MediaSource> {
        let digest = |bytes: &Option<Vec<u8>>| bytes.clone().filter(|bytes| bytes.len() == 32);
        Some(MediaSource {
            kind: self.kind,
            path: self.path.clone().filter(|path| is_path(path))?,
            key: digest(self.key)?,
            sha256: digest(self.sha256)?,
            encrypted_sha256: digest(self.encrypted_sha256)?,
            size: media.size,
            mimetype: media.mimetype.map(str::to_owned),
            filename: media.filename.map(|name| name.chars().take(FILENAME).collect()),
        })
    }
}

/// Whether a text is a path on whatever host it is asked of: one that begins otherwise could name another host.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}
