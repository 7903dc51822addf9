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
mod tests {
    use super::*;

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
    }

    fn built(kind: ContentKind, reply_to: Option<&str>, referred: Option<&Referred>) -> wa::Message {
        let (chat, own) = (Jid::pn("5511888888888"), Jid::pn("5511999999999"));
        let way = Way { chat: &chat, own: &own, accepted_at: at(), referred, said_before: None, timer: None };
        message(&Content { reply_to: reply_to.map(Into::into), ..Content::alone(kind) }, &way)
    }

    fn told(logged: Logged) -> Referred {
        Referred::Logged(Box::new(Logged { chat: "5511888888888@s.whatsapp.net".into(), ..logged }))
    }

    #[test]
    fn a_plain_text_is_as_it_was() {
        assert_eq!(built(ContentKind::Text("Hello".into()), None, None), wa::Message::text("Hello"));
    }

    #[test]
    fn media_says_where_it_is_and_what_opens_it() {
        let upload = Upload { url: "https://host/v/1?x".into(), direct_path: "/v/1?x".into(), at: 5 };
        let parcel = |kind| StoredMedia {
            file: "file".into(),
            kind,
            key: vec![1; 32],
            sha256: vec![2; 32],
            encrypted_sha256: vec![3; 32],
            size: 4,
            at: 1_700_000_000,
            sidecar: Some(vec![5; 10]),
            width: Some(6),
            height: Some(7),
            seconds: Some(8),
            waveform: (kind == MediaKind::Voice).then(|| vec![10; 64]),
            animated: kind == MediaKind::Sticker,
            thumbnail: Some(vec![9]),
            upload: Some(upload.clone()),
        };
        let built = |kind| {
            let media = Media {
                kind,
                mimetype: "a/b".into(),
                filename: Some("name".into()),
                size: 4,
                sha256: String::new(),
                width: None,
                height: None,
                seconds: None,
                gif: kind == MediaKind::Video,
                caption: Some("below".into()),
                parcel: parcel(kind),
            };
            built(ContentKind::Media(media.into()), None, None)
        };
        macro_rules! check {
            ($field:ident: $type:ident, $($kind:ident $more:tt),+) => {
                $(
                    let expected = $type {
                        url: Some("https://host/v/1?x".into()),
                        direct_path: Some("/v/1?x".into()),
                        mimetype: Some("a/b".into()),
                        file_sha256: Some(vec![2; 32]),
                        file_enc_sha256: Some(vec![3; 32]),
                        file_length: Some(4),
                        media_key: Some(vec![1; 32]),
                        media_key_timestamp: Some(1_700_000_000),
                        ..check!($type $more)
                    };
                    let expected = wa::Message { $field: expected.into(), ..Default::default() };
                    assert_eq!(built(MediaKind::$kind), expected);
                )+
            };
            ($type:ident { $($own:ident: $value:expr),* }) => { $type { $($own: Some($value),)* ..Default::default() } };
        }
        check!(image_message: ImageMessage, Image { caption: "below".into(), width: 6, height: 7, jpeg_thumbnail: vec![9] });
        check!(video_message: VideoMessage, Video {
            caption: "below".into(), width: 6, height: 7, seconds: 8, jpeg_thumbnail: vec![9],
            streaming_sidecar: vec![5; 10], gif_playback: true
        });
        check!(audio_message: AudioMessage,
            Audio { seconds: 8, ptt: false, streaming_sidecar: vec![5; 10] },
            Voice { seconds: 8, ptt: true, streaming_sidecar: vec![5; 10], waveform: vec![10; 64] });
        check!(sticker_message: StickerMessage, Sticker { width: 6, height: 7, is_animated: true });
        check!(document_message: DocumentMessage, Document {
            caption: "below".into(), title: "name".into(), file_name: "name".into()
        });
    }

    #[test]
    fn what_travels_beside_a_message_goes_with_every_kind_that_can_carry_it() {
        let (chat, own) = (Jid::pn("5511888888888"), Jid::pn("5511999999999"));
        let timer = Some(Timer { seconds: 86_400, set_at: 1_700_000_000 });
        let way = Way { chat: &chat, own: &own, accepted_at: at(), referred: None, said_before: None, timer };
        let preview = LinkPreview {
            url: "https://example.com".into(),
            title: "A page".into(),
            description: Some("More".into()),
            thumbnail: Some(vec![1]),
        };
        let text = Content {
            reply_to: Some("3EB0AA".into()),
            mentions: vec!["5511777777777".into()],
            link_preview: Some(preview),
            ..Content::text("@5511777777777 see https://example.com")
        };
        let message = message(&text, &way);
        let body = message.extended_text_message.as_option().unwrap();
        let shown = (body.matched_text.as_deref(), body.title.as_deref(), body.description.as_deref());
        assert_eq!(shown, (Some("https://example.com"), Some("A page"), Some("More")));
        assert_eq!((body.jpeg_thumbnail.as_deref(), message.conversation.as_deref()), (Some(&[1_u8][..]), None));
        let context = body.context_info.as_option().unwrap();
        assert_eq!((context.stanza_id.as_deref(), context.expiration), (Some("3EB0AA"), Some(86_400)));
        assert_eq!(context.ephemeral_setting_timestamp, Some(1_700_000_000));
        assert_eq!(context.mentioned_jid, ["5511777777777@s.whatsapp.net"]);
        let place = Location { latitude: 1.5, longitude: -2.5, name: None, address: None };
        let place = super::message(&Content::alone(ContentKind::Location(place)), &way);
        assert_eq!(place.location_message.context_info.expiration, Some(86_400));
        for kind in [
            ContentKind::Reaction(Reaction { message_id: "3EB0AA".into(), emoji: "👍".into() }),
            ContentKind::Revoke(Revoke { message_id: "3EB0AA".into() }),
        ] {
            let without = Way { timer: None, said_before: None, ..way };
            assert_eq!(
                super::message(&Content::alone(kind.clone()), &way),
                super::message(&Content::alone(kind), &without)
            );
        }
    }

    #[test]
    fn a_card_can_not_be_broken_out_of() {
        let card = vcard("Ana; Bruno, \\ & Co", "+55 (11) 99999-9999");
        let name = "Ana\\; Bruno\\, \\\\ & Co";
        assert_eq!(
            card,
            format!(
                "BEGIN:VCARD\nVERSION:3.0\nN:;{name};;;\nFN:{name}\n\
                 TEL;type=CELL;type=VOICE;waid=5511999999999:+5511999999999\nEND:VCARD"
            )
        );
    }

    #[test]
    fn an_answer_quotes_what_is_known() {
        let text = || ContentKind::Text("Yes".into());
        let theirs = told(Logged { text: Some("Coming?".into()), ..Logged::default() });
        let own = told(Logged { text: Some("Well?".into()), from_me: true, ..Logged::default() });
        for (referred, author, said) in [
            (None, "5511888888888@s.whatsapp.net", ""),
            (Some(&theirs), "5511888888888@s.whatsapp.net", "Coming?"),
            (Some(&own), "5511999999999@s.whatsapp.net", "Well?"),
        ] {
            let message = built(text(), Some("3EB0AA"), referred);
            let body = message.extended_text_message.as_option().unwrap();
            assert_eq!((body.text.as_deref(), message.conversation.as_deref()), (Some("Yes"), None));
            let context = body.context_info.as_option().unwrap();
            assert_eq!((context.stanza_id.as_deref(), context.participant.as_deref()), (Some("3EB0AA"), Some(author)));
            assert_eq!(context.quoted_message.as_option().unwrap().conversation.as_deref(), Some(said));
        }
        let place = Location { latitude: 1.5, longitude: -2.5, name: None, address: None };
        let answer = built(ContentKind::Location(place), Some("3EB0AA"), Some(&theirs));
        let context = answer.location_message.as_option().unwrap().context_info.as_option().unwrap();
        assert_eq!(context.stanza_id.as_deref(), Some("3EB0AA"));
    }

    #[test]
    fn a_place_that_was_received_is_quoted_as_one() {
        let place = serde_json::json!({"latitude": 1.5, "longitude": 2, "live": true});
        let theirs = told(Logged { location: Some(place), ..Logged::default() });
        let message = built(ContentKind::Text("There?".into()), Some("3EB0AA"), Some(&theirs));
        let context = message.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
        let quoted = context.quoted_message.as_option().unwrap().location_message.as_option().unwrap();
        assert_eq!((quoted.degrees_latitude, quoted.degrees_longitude), (Some(1.5), Some(2.0)));
    }

    #[test]
    fn what_is_about_another_message_names_it_and_who_wrote_it() {
        let id = || "3EB0AA".to_owned();
        let own = told(Logged { from_me: true, ..Logged::default() });
        for (referred, from_me) in [(None, false), (Some(&own), true)] {
            let reaction = Reaction { message_id: id(), emoji: "👍".into() };
            let message = built(ContentKind::Reaction(reaction), None, referred);
            let reaction = message.reaction_message.as_option().unwrap();
            let key = reaction.key.as_option().unwrap();
            assert_eq!((key.id.as_deref(), key.from_me), (Some("3EB0AA"), Some(from_me)));
            assert_eq!(key.remote_jid.as_deref(), Some("5511888888888@s.whatsapp.net"));
            assert_eq!((reaction.text.as_deref(), reaction.sender_timestamp_ms), (Some("👍"), Some(1_700_000_000_123)));
        }
        let edit = built(ContentKind::Edit(Edit { message_id: id(), message: "New".into() }), None, None);
        let revoke = built(ContentKind::Revoke(Revoke { message_id: id() }), None, None);
        for (message, kind, text) in
            [(edit, protocol_message::Type::MessageEdit, Some("New")), (revoke, protocol_message::Type::Revoke, None)]
        {
            let protocol = message.protocol_message.as_option().unwrap();
            let key = protocol.key.as_option().unwrap();
            assert_eq!((protocol.r#type, key.id.as_deref(), key.from_me), (Some(kind), Some("3EB0AA"), Some(true)));
            let edited = protocol.edited_message.as_option().and_then(|edited| edited.conversation.as_deref());
            assert_eq!(edited, text);
            assert_eq!(protocol.timestamp_ms, text.map(|_| 1_700_000_000_123));
        }
    }
}
