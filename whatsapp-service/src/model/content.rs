//! What a message says: the kinds that there are, and how they are kept.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use crate::{
    model::media::{MediaKind, StoredMedia},
    util::encoding::maybe_base64_text,
};

/// What a message says. It is kept as JSON: the kind's name with what it holds, `{"text":"…"}` for example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// What it is.
    #[serde(flatten)]
    pub kind: ContentKind,
    /// The id of the message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Those who are mentioned in it, as `Person::address` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub mentions: Vec<String>,
    /// What it shows of the first link in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_preview: Option<LinkPreview>,
}

/// What a message is, and what it holds. The names are in the database: they never change their meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ContentKind {
    /// A text.
    Text(String),
    /// A picture, a film, a sound, a document or a sticker.
    Media(Box<Media>),
    /// A place.
    Location(Location),
    /// Somebody's name and number.
    Contact(Contact),
    /// An emoji at another message.
    Reaction(Reaction),
    /// Another text for an earlier message.
    Edit(Edit),
    /// An earlier message, taken back.
    Revoke(Revoke),
}

/// A picture, a film, a sound, a document or a sticker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaContent)]
pub struct Media {
    /// How WhatsApp shows it.
    pub kind: MediaKind,
    /// Its MIME type.
    pub mimetype: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// In pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// In pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// How long it plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Whether it is a video that plays in a loop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gif: bool,
    /// The text below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Where the bytes are, and how to read them: for nobody but this service.
    #[schema(ignore)]
    pub parcel: StoredMedia,
}

/// What a message shows of a link in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkPreview {
    /// The link, as it stands in the text.
    pub url: String,
    /// What the page is called.
    pub title: String,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A small JPEG picture: for nobody but the recipient.
    #[serde(with = "maybe_base64_text", default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub thumbnail: Option<Vec<u8>>,
}

/// A place on the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Location {
    /// In degrees; north of the equator is positive.
    #[schema(minimum = -90, maximum = 90)]
    pub latitude: f64,
    /// In degrees; east of Greenwich is positive.
    #[schema(minimum = -180, maximum = 180)]
    pub longitude: f64,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub name: Option<String>,
    /// Its address, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1024)]
    pub address: Option<String>,
}

/// Somebody to get to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// What they are called.
    #[schema(min_length = 1, max_length = 256)]
    pub name: String,
    /// Their number with the country code, as in a message's `to`.
    pub phone: String,
}

/// An emoji at another message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaction {
    /// The other message's id, whoever wrote it.
    #[schema(pattern = "^[!-~]{1,64}$")]
    pub message_id: String,
    /// One emoji; an empty text removes the one that is there.
    #[schema(max_length = 16)]
    pub emoji: String,
}

/// Another text for an earlier message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// The earlier message's id.
    #[schema(pattern = "^[!-~]{1,64}$")]
    pub message_id: String,
    /// What it says from now on.
    #[schema(min_length = 1, max_length = 65536)]
    pub message: String,
}

/// An earlier message, taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revoke {
    /// The earlier message's id.
    #[schema(pattern = "^[!-~]{1,64}$")]
    pub message_id: String,
}

impl Content {
    /// A text and nothing else.
    pub fn text(text: impl Into<String>) -> Self {
        Self::alone(ContentKind::Text(text.into()))
    }

    /// This, with nothing beside it.
    pub fn alone(kind: ContentKind) -> Self {
        Self { kind, reply_to: None, mentions: Vec::new(), link_preview: None }
    }

    /// The other message that it is about, if there is one.
    pub fn refers_to(&self) -> Option<&str> {
        match &self.kind {
            ContentKind::Reaction(Reaction { message_id, .. })
            | ContentKind::Edit(Edit { message_id, .. })
            | ContentKind::Revoke(Revoke { message_id }) => Some(message_id),
            ContentKind::Text(_) | ContentKind::Media(_) | ContentKind::Location(_) | ContentKind::Contact(_) => {
                self.reply_to.as_deref()
            }
        }
    }

    /// The file that the message needs until it was sent.
    pub fn file(&self) -> Option<&str> {
        match &self.kind {
            ContentKind::Media(media) if media.parcel.upload.is_none() => Some(&media.parcel.file),
            _ => None,
        }
    }
}

impl ContentKind {
    /// What it is, as people call it: of media, which kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Media(media) => media.kind.as_str(),
            other => other.as_str(),
        }
    }

    /// Its name, as it stands in the JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Media(_) => "media",
            Self::Location(_) => "location",
            Self::Contact(_) => "contact",
            Self::Reaction(_) => "reaction",
            Self::Edit(_) => "edit",
            Self::Revoke(_) => "revoke",
        }
    }
}

/// What is kept, as it is shown: without what lets its reader fetch and decrypt media, and without pictures.
pub fn shown(kept: Box<RawValue>) -> Option<Box<RawValue>> {
    if !["\"parcel\"", "\"thumbnail\""].iter().any(|hidden| kept.get().contains(hidden)) {
        return Some(kept);
    }
    let mut value = serde_json::from_str::<serde_json::Value>(kept.get()).ok()?;
    if let Some(media) = value.get_mut("media").and_then(serde_json::Value::as_object_mut) {
        media.remove("parcel");
    }
    if let Some(preview) = value.get_mut("linkPreview").and_then(serde_json::Value::as_object_mut) {
        preview.remove("thumbnail");
    }
    to_raw_value(&value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let (id, text) = ("3EB0AA".to_owned(), "Hello".to_owned());
        let preview = LinkPreview {
            url: "https://example.com".into(),
            title: "A page".into(),
            description: None,
            thumbnail: Some(vec![1, 2]),
        };
        let place = Location { latitude: -23.5, longitude: 180.0, name: None, address: Some("Here".into()) };
        let reply = Content { reply_to: Some(id.clone()), ..Content::text("Yes") };
        let alone = Content::alone;
        for (content, kept) in [
            // As the first version wrote it.
            (Content::text("Hello"), json!({"text": "Hello"})),
            (reply, json!({"text": "Yes", "replyTo": "3EB0AA"})),
            (
                Content { mentions: vec!["5511999999999".into()], link_preview: Some(preview), ..Content::text("See") },
                json!({"text": "See", "mentions": ["5511999999999"],
                       "linkPreview": {"url": "https://example.com", "title": "A page", "thumbnail": "AQI="}}),
            ),
            (
                alone(ContentKind::Location(place)),
                json!({"location": {"latitude": -23.5, "longitude": 180.0, "address": "Here"}}),
            ),
            (
                alone(ContentKind::Contact(Contact { name: "Ana".into(), phone: "5511999999999".into() })),
                json!({"contact": {"name": "Ana", "phone": "5511999999999"}}),
            ),
            (
                alone(ContentKind::Reaction(Reaction { message_id: id.clone(), emoji: String::new() })),
                json!({"reaction": {"messageId": "3EB0AA", "emoji": ""}}),
            ),
            (
                alone(ContentKind::Edit(Edit { message_id: id.clone(), message: text })),
                json!({"edit": {"messageId": "3EB0AA", "message": "Hello"}}),
            ),
            (alone(ContentKind::Revoke(Revoke { message_id: id })), json!({"revoke": {"messageId": "3EB0AA"}})),
        ] {
            assert_eq!(serde_json::to_value(&content).unwrap(), kept);
            assert_eq!(serde_json::from_value::<Content>(kept.clone()).unwrap(), content);
            assert!(kept.get(content.kind.as_str()).is_some(), "{kept}");
        }
    }

    #[test]
    fn what_is_shown_of_media_opens_nothing() {
        let kept = json!({"media": {"kind": "image", "parcel": {"key": "secret"}}, "replyTo": "3EB0AA"});
        let shown = shown(to_raw_value(&kept).unwrap()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(shown.get()).unwrap();
        assert_eq!(shown, json!({"media": {"kind": "image"}, "replyTo": "3EB0AA"}));
        let kept = json!({"text": "See", "linkPreview": {"url": "u", "title": "t", "thumbnail": "AQI="}});
        let shown = super::shown(to_raw_value(&kept).unwrap()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(shown.get()).unwrap();
        assert_eq!(shown, json!({"text": "See", "linkPreview": {"url": "u", "title": "t"}}));
    }

    #[test]
    fn what_a_newer_version_wrote_is_no_empty_message() {
        for kept in [json!({}), json!({"replyTo": "3EB0AA"}), json!({"hologram": {}})] {
            assert!(serde_json::from_value::<Content>(kept.clone()).is_err(), "{kept}");
        }
    }
}
