//! A message as it stands on a phone's screen.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::world::media::attachment::{Attachment, view};

/// How far an own message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The server has it.
    Sent,
    /// One of the recipient's devices has it.
    Delivered,
    /// The recipient has read it.
    Read,
    /// The recipient has listened to it.
    Played,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Words.
    Text,
    /// A picture.
    Image,
    /// A film.
    Video,
    /// Sound, as a file.
    Audio,
    /// Sound that was spoken into the phone.
    Voice,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
    /// A place.
    Location,
    /// Someone's card.
    Contact,
    /// A reaction to a message that this phone does not have; of others, the reaction stands at the message.
    Reaction,
    /// A question with answers to choose from.
    Poll,
    /// Something that this phone does not know.
    Unsupported,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Degrees, north is positive.
    pub latitude: f64,
    /// Degrees, east is positive.
    pub longitude: f64,
    /// What the place is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Someone's card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contact {
    /// The name on it.
    pub name: String,
    /// The first number on it, its digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The card itself.
    pub vcard: String,
}

/// What someone thinks of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reaction {
    /// Whose it is, by phone number.
    pub from: String,
    /// The emoji.
    pub emoji: String,
}

/// What someone chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// Whose it is, by phone number.
    pub from: String,
    /// The options that were chosen.
    pub options: Vec<String>,
}

/// A question with answers to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Poll {
    /// The question.
    pub name: String,
    /// The answers.
    pub options: Vec<String>,
    /// Who chose what, as far as this phone knows.
    pub votes: Vec<Vote>,
    /// With which the votes are encrypted.
    #[serde(skip)]
    pub(crate) secret: Vec<u8>,
}

/// What a message shows of the first link in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The link, as it stands in the text.
    pub url: String,
    /// What is behind it.
    pub title: String,
    /// And in more words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether there is a small picture of it.
    pub thumbnail: bool,
}

/// What only some messages have. Apart, so that a plain text costs no more than it must.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct More {
    /// The message that this one answers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The file that goes with it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "view")]
    pub media: Option<Arc<Attachment>>,
    /// The place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    /// How long it stays, in seconds, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disappears_after: Option<u32>,
    /// The chat has a timer that it does not carry: the phone warns that it will not disappear.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_timer: bool,
    /// Who is mentioned in it, by JID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// What it shows of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// WhatsApp's name for what this phone does not know.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
}

impl More {
    /// Nothing, if there is nothing in it.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let Self { reply_to, media, location, contact, poll, type_name, disappears_after, .. } = &self;
        let Self { without_timer, mentions, preview, .. } = &self;
        let nothing = reply_to.is_none()
            && media.is_none()
            && location.is_none()
            && contact.is_none()
            && poll.is_none()
            && type_name.is_none()
            && disappears_after.is_none()
            && !without_timer
            && mentions.is_empty()
            && preview.is_none();
        (!nothing).then(|| Box::new(self))
    }
}

/// A message on a phone's screen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// The id that its sender gave it.
    pub id: String,
    /// The sender's phone number.
    pub from: String,
    /// The recipient's phone number.
    pub to: String,
    /// What it is.
    pub kind: Kind,
    /// The text, or the caption; of a poll, the question. Empty where there are no words.
    pub text: String,
    /// RFC 3339, UTC.
    pub timestamp: String,
    /// Whether this account wrote it, on whatever device.
    pub from_me: bool,
    /// How far it got; only of own messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Whether the text is another one than at first.
    pub edited: bool,
    /// Whether its sender took it back. What was in it is gone.
    pub revoked: bool,
    /// What people think of it, oldest first.
    pub reactions: Vec<Reaction>,
    /// What only some messages have.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub more: Option<Box<More>>,
}

impl ChatMessage {
    /// The file that goes with it.
    pub(crate) fn media(&self) -> Option<&Arc<Attachment>> {
        self.more.as_ref()?.media.as_ref()
    }

    /// Whether it belongs to the chat of these two.
    pub(crate) fn is_between(&self, one: &str, other: &str) -> bool {
        (self.from == one && self.to == other) || (self.from == other && self.to == one)
    }
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn rfc3339(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}
