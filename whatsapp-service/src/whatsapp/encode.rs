//! What a message says, as WhatsApp writes it. The only file that builds WhatsApp's messages.

use chrono::{DateTime, Utc};
use whatsapp_rust::{
    Jid,
    wacore::messages::unwrap_device_sent,
    wacore::proto_helpers::{MessageBuilderExt, MessageExt, build_quote_context, build_reaction_message},
    waproto::codec,
    waproto::whatsapp::{
        self as wa,
        message::{
            AudioMessage, ContactMessage, DocumentMessage, ExtendedTextMessage, ImageMessage, LocationMessage,
            ProtocolMessage, StickerMessage, VideoMessage, extended_text_message::PreviewType, protocol_message,
        },
    },
};

use crate::{
    model::{
        address::{Address, Names, Person},
        content::{Contact, Content, ContentKind, Edit, LinkPreview, Location, Media, Reaction, Revoke},
        media::{MediaKind, StoredMedia, Upload},
    },
    store::{
        referred::{Logged, Referred},
        timers::Timer,
    },
    whatsapp::{context::context_mut, lookup::jid},
};

/// Where a message goes, and from whom.
pub struct Way<'a> {
    /// The recipient's address: their chat.
    pub chat: &'a Jid,
    /// One's own address, of the same sort.
    pub own: &'a Jid,
    /// When the message was accepted. It stands in some kinds, and a repetition says the same.
    pub accepted_at: DateTime<Utc>,
    /// The message that it refers to, as far as it is known.
    pub referred: Option<&'a Referred>,
    /// The same as it was sent, if it is one's own and that is kept.
    pub said_before: Option<SentBefore>,
    /// How long the messages of the chat stay, where that is not for ever.
    pub timer: Option<Timer>,
}

/// A message as it was sent, word for word.
#[derive(Clone, Debug)]
pub struct SentBefore(pub(in crate::whatsapp) wa::Message);

impl SentBefore {
    /// From what the library keeps for devices that ask again; nothing if it can't be read.
    pub fn read(kept: &[u8]) -> Option<Self> {
        codec::message_decode(kept).ok().map(unwrap_device_sent).map(Self)
    }
}

/// The message that says `content`.
pub fn message(content: &Content, way: &Way<'_>) -> wa::Message {
    let mut message = match (&content.kind, &content.link_preview) {
        (ContentKind::Text(text), Some(preview)) => with_preview(text, preview),
        (kind, _) => alone(kind, way),
    };
    if let Some(id) = &content.reply_to {
        let author = if is_own(way.referred) { way.own } else { way.chat };
        let said = way.referred.map_or_else(|| wa::Message::text(""), |referred| said(referred, way));
        message.set_context_info(build_quote_context(id, author.to_non_ad_string(), &said));
    }
    if (way.timer.is_some() || !content.mentions.is_empty())
        && let Some(context) = context_mut(&mut message)
    {
        context.mentioned_jid = content
            .mentions
            .iter()
            .filter_map(|one| Person::kept(one))
            .map(|one| jid(&one, &Names::default()).to_string())
            .collect();
        context.expiration = way.timer.map(|timer| timer.seconds);
        context.ephemeral_setting_timestamp = way.timer.map(|timer| timer.set_at).filter(|at| *at != 0);
    }
    message
}

fn with_preview(text: &str, LinkPreview { url, title, description, thumbnail }: &LinkPreview) -> wa::Message {
    wa::Message {
        extended_text_message: ExtendedTextMessage {
            text: Some(text.to_owned()),
            matched_text: Some(url.clone()),
            title: Some(title.clone()),
            description: description.clone(),
            jpeg_thumbnail: thumbnail.clone(),
            preview_type: Some(PreviewType::None),
            ..Default::default()
        }
        .into(),
        ..Default::default()
    }
}

fn alone(kind: &ContentKind, way: &Way<'_>) -> wa::Message {
    let at = way.accepted_at.timestamp_millis();
    match kind {
        ContentKind::Text(text) => wa::Message::text(text),
        ContentKind::Media(file) => media(file),
        ContentKind::Location(place) => location(place),
        ContentKind::Contact(person) => contact(person),
        ContentKind::Reaction(Reaction { message_id, emoji }) => {
            build_reaction_message(key(message_id, is_own(way.referred), way), emoji, at)
        }
        ContentKind::Edit(Edit { message_id, message }) => wa::Message {
            protocol_message: ProtocolMessage {
                key: key(message_id, true, way).into(),
                r#type: Some(protocol_message::Type::MessageEdit),
                edited_message: wa::Message::text(message).into(),
                timestamp_ms: Some(at),
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
        ContentKind::Revoke(Revoke { message_id }) => wa::Message {
            protocol_message: ProtocolMessage {
                key: key(message_id, true, way).into(),
                r#type: Some(protocol_message::Type::Revoke),
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
    }
}

/// Media that was uploaded, or, where it is only quoted, what is known of it.
fn media(media: &Media) -> wa::Message {
    let StoredMedia { key, sha256, encrypted_sha256, size, at, sidecar, .. } = media.parcel.clone();
    let StoredMedia { width, height, seconds, waveform, animated, thumbnail, upload, .. } = media.parcel.clone();
    let (url, direct_path) = upload.map(|Upload { url, direct_path, .. }| (url, direct_path)).unzip();
    let (mimetype, caption) = (Some(media.mimetype.clone()), media.caption.clone());
    let (file_sha256, file_enc_sha256) = (Some(sha256), Some(encrypted_sha256));
    let (media_key, media_key_timestamp, file_length) = (Some(key), Some(at), Some(size));
    match media.kind {
        MediaKind::Image => wa::Message {
            image_message: ImageMessage {
                url,
                direct_path,
                mimetype,
                caption,
                file_sha256,
                file_enc_sha256,
                file_length,
                media_key,
                media_key_timestamp,
                width,
                height,
                jpeg_thumbnail: thumbnail,
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
        MediaKind::Video => wa::Message {
            video_message: VideoMessage {
                url,
                direct_path,
                mimetype,
                caption,
                file_sha256,
                file_enc_sha256,
                file_length,
                media_key,
                media_key_timestamp,
                width,
                height,
                seconds,
                jpeg_thumbnail: thumbnail,
                streaming_sidecar: sidecar,
                gif_playback: media.gif.then_some(true),
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
        MediaKind::Audio | MediaKind::Voice => wa::Message {
            audio_message: AudioMessage {
                url,
                direct_path,
                mimetype,
                file_sha256,
                file_enc_sha256,
                file_length,
                media_key,
                media_key_timestamp,
                seconds,
                ptt: Some(media.kind == MediaKind::Voice),
                streaming_sidecar: sidecar,
                waveform,
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
        MediaKind::Sticker => wa::Message {
            sticker_message: StickerMessage {
                url,
                direct_path,
                mimetype,
                file_sha256,
                file_enc_sha256,
                file_length,
                media_key,
                media_key_timestamp,
                width,
                height,
                is_animated: animated.then_some(true),
                ..Default::default()
            }
            .into(),
            ..Default::default()
        },
        MediaKind::Document => {
            let name = media.filename.clone().unwrap_or_else(|| "document".into());
            wa::Message {
                document_message: DocumentMessage {
                    url,
                    direct_path,
                    mimetype,
                    caption,
                    file_sha256,
                    file_enc_sha256,
                    file_length,
                    media_key,
                    media_key_timestamp,
                    title: Some(name.clone()),
                    file_name: Some(name),
                    ..Default::default()
                }
                .into(),
                ..Default::default()
            }
        }
    }
}

fn location(Location { latitude, longitude, name, address }: &Location) -> wa::Message {
    wa::Message {
        location_message: LocationMessage {
            degrees_latitude: Some(*latitude),
            degrees_longitude: Some(*longitude),
            name: name.clone(),
            address: address.clone(),
            ..Default::default()
        }
        .into(),
        ..Default::default()
    }
}

fn contact(Contact { name, phone }: &Contact) -> wa::Message {
    wa::Message {
        contact_message: ContactMessage {
            display_name: Some(name.clone()),
            vcard: Some(vcard(name, phone)),
            ..Default::default()
        }
        .into(),
        ..Default::default()
    }
}

/// A business card with one number (RFC 2426). The parameter `waid` is WhatsApp's: the number that a tap opens a chat with.
fn vcard(name: &str, phone: &str) -> String {
    let name: String = name.chars().fold(String::new(), |mut escaped, character| {
        if matches!(character, '\\' | ',' | ';') {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    });
    let digits = match Address::parse(phone).and_then(Address::number) {
        Ok(number) => number.usual().digits().to_owned(),
        // It was accepted before numbers were checked.
        Err(_) => phone.chars().filter(char::is_ascii_digit).collect(),
    };
    format!(
        "BEGIN:VCARD\nVERSION:3.0\nN:;{name};;;\nFN:{name}\nTEL;type=CELL;type=VOICE;waid={digits}:+{digits}\nEND:VCARD"
    )
}

/// Which message of this chat.
fn key(id: &str, from_me: bool, way: &Way<'_>) -> wa::MessageKey {
    wa::MessageKey {
        remote_jid: Some(way.chat.to_non_ad_string()),
        from_me: Some(from_me),
        id: Some(id.to_owned()),
        participant: None,
    }
}

/// Whether the account wrote it. What nobody knows of is the other side's: all that was sent from here is known.
fn is_own(referred: Option<&Referred>) -> bool {
    match referred {
        Some(Referred::Own(_)) => true,
        Some(Referred::Logged(logged)) => logged.from_me,
        None => false,
    }
}

/// What the message that is answered says, as far as that is known: phones that have it show their own copy.
fn said(referred: &Referred, way: &Way<'_>) -> wa::Message {
    match referred {
        Referred::Own(message) => {
            if let Some(SentBefore(said)) = &way.said_before {
                return said.clone();
            }
            let content = message.content.as_ref().and_then(|kept| serde_json::from_str::<Content>(kept.get()).ok());
            content.map_or_else(|| wa::Message::text(""), |content| alone(&content.kind, way))
        }
        Referred::Logged(logged) => logged_said(logged),
    }
}

fn logged_said(Logged { text, location: place, .. }: &Logged) -> wa::Message {
    let place = place.as_ref().and_then(|place| serde_json::from_value::<Location>(place.clone()).ok());
    match (text, place) {
        (None, Some(place)) => location(&place),
        (text, _) => wa::Message::text(text.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
