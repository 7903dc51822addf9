//! What a call to send says: the body of `POST /send`, and an entry of `POST /send/bulk`'s.

use crate::{
    http::{json, send::media::Attachment, unknown::Unknown},
    model::content::{Contact, Edit, Location, Reaction, Revoke},
};
use serde::Deserialize;
use utoipa::ToSchema;

/// `POST /send`'s body, and an entry of `POST /send/bulk`'s.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = SendRequest)]
pub struct SendRequest {
    /// The recipient: a phone number with the country code, with the punctuation that people use, or an address of
    /// WhatsApp's that ends in `@s.whatsapp.net`, `@c.us` or `@lid`.
    #[schema(example = "5511888888888")]
    pub(crate) to: String,
    /// A text, or what stands below the media.
    #[schema(min_length = 1, max_length = 65536)]
    pub(crate) message: Option<String>,
    /// Another name for `message`, with `media`.
    #[schema(min_length = 1, max_length = 65536)]
    pub(crate) caption: Option<String>,
    /// An image, a video, audio, a document or a sticker.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) media: Option<Attachment>,
    /// Whether `media` is a voice note: whatever audio it is, it is made one.
    pub(crate) voice: Option<bool>,
    /// Whether it is a sticker: WebP.
    pub(crate) sticker: Option<bool>,
    /// Whether it is a document, whatever else it could be.
    pub(crate) document: Option<bool>,
    /// Whether it is a video that plays in a loop: MP4.
    pub(crate) gif: Option<bool>,
    /// The bytes of `media`, where they came in with the call.
    #[serde(skip)]
    pub(crate) bytes: Option<crate::media::shelf::Taken>,
    /// A place.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) location: Option<Location>,
    /// Somebody's name and number.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) contact: Option<Contact>,
    /// An emoji at another message.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) reaction: Option<Reaction>,
    /// Another text for an earlier message.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) edit: Option<Edit>,
    /// An earlier message, to be taken back.
    #[serde(default, deserialize_with = "json::object")]
    pub(crate) revoke: Option<Revoke>,
    /// The id of the message that this one answers.
    #[schema(pattern = "^[!-~]{1,64}$")]
    pub(crate) reply_to: Option<String>,
    /// Those who are mentioned in `message`, by number or LID: their digits stand in it behind an `@`.
    #[schema(max_items = 1024)]
    pub(crate) mentions: Option<Vec<String>>,
    /// Whether the first link in `message` is shown with its title, description and picture.
    pub(crate) link_preview: Option<bool>,
    /// The caller's own name for the message.
    #[schema(max_length = 256)]
    pub(crate) reference: Option<String>,
    /// After how many seconds the message is given up; 86,400 without it.
    #[schema(minimum = 1, maximum = 604800)]
    pub(crate) expires_in: Option<u64>,
    /// A single message has a header for it.
    #[schema(pattern = "^[!-~]{1,255}$")]
    pub(crate) idempotency_key: Option<String>,
}

impl SendRequest {
    /// With media that came in with the call.
    pub fn with_bytes(self, bytes: crate::media::shelf::Taken) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// How much of the body is base64.
    pub fn base64_len(&self) -> usize {
        self.media.as_ref().and_then(|media| media.base64.as_ref()).map_or(0, |base64| base64.len())
    }

    /// Takes out a `caption` that has no media to stand below: the old service knew neither.
    pub fn without_stray_caption(mut self) -> (Self, Unknown) {
        if self.media.is_some() || self.caption.take().is_none() {
            return (self, Unknown::default());
        }
        let why = "`caption` is the text below `media`, and there is none: a text is `message`.";
        (self, Unknown::misplaced("caption", why))
    }
}
