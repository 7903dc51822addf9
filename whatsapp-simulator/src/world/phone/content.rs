//! What a message says, once it is decrypted and out of its wrappers.

use std::sync::{Arc, OnceLock};

use wacore::download::MediaType;
use wacore::proto_helpers::MessageExt as _;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::protocol_message::Type;

use super::context::{Timer, context};
use super::message::{Contact, Kind, Location, More, Poll, Preview};
use super::type_names::type_name;
use crate::world::media::attachment::Attachment;

/// What a message asks a phone to do.
#[derive(Debug)]
pub(crate) enum Content {
    Show {
        kind: Kind,
        text: String,
        more: Option<Box<More>>,
    },
    React {
        id: String,
        emoji: String,
    },
    Edit {
        id: String,
        text: String,
    },
    Revoke {
        id: String,
    },
    Vote {
        id: String,
        ciphertext: Vec<u8>,
        iv: Vec<u8>,
    },
    /// The messages of this chat stay so long.
    Timer(Timer),
    /// It is for the phone, and shows nothing.
    Nothing,
}

fn show(kind: Kind, text: Option<String>, more: More) -> Content {
    Content::Show { kind, text: text.unwrap_or_default(), more: more.boxed() }
}

/// The fields that all files have, whatever their message is called.
macro_rules! attachment {
    ($what:expr, $m:expr, $($field:ident: $value:expr),*) => {
        Some(Arc::new(Attachment {
            what: $what,
            key: $m.media_key.clone().unwrap_or_default(),
            direct_path: $m.direct_path.clone().unwrap_or_default(),
            enc_sha256: $m.file_enc_sha256.clone().unwrap_or_default(),
            sha256: $m.file_sha256.clone().unwrap_or_default(),
            length: $m.file_length.unwrap_or_default(),
            mimetype: $m.mimetype.clone().unwrap_or_default(),
            looked: OnceLock::new(),
            $($field: $value,)*
        }))
    };
}

fn has_bytes(bytes: Option<&Vec<u8>>) -> bool {
    bytes.is_some_and(|bytes| !bytes.is_empty())
}

/// The id of the message that this one answers to.
fn reply_to(context: &waproto::buffa::MessageField<wa::ContextInfo>) -> Option<String> {
    context.as_option()?.stanza_id.clone().filter(|id| !id.is_empty())
}

fn image(m: &wa::message::ImageMessage) -> Content {
    let media = attachment!(MediaType::Image, m, filename: None, width: m.width, height: m.height, seconds: None,
        thumbnail: has_bytes(m.jpeg_thumbnail.as_ref()), waveform: None, gif: false, animated: false);
    show(Kind::Image, m.caption.clone(), More { reply_to: reply_to(&m.context_info), media, ..More::default() })
}

fn video(m: &wa::message::VideoMessage) -> Content {
    let media = attachment!(MediaType::Video, m, filename: None, width: m.width, height: m.height, seconds: m.seconds,
        thumbnail: has_bytes(m.jpeg_thumbnail.as_ref()), waveform: None, gif: m.gif_playback == Some(true),
        animated: false);
    show(Kind::Video, m.caption.clone(), More { reply_to: reply_to(&m.context_info), media, ..More::default() })
}

fn audio(m: &wa::message::AudioMessage) -> Content {
    let media = attachment!(MediaType::Audio, m, filename: None, width: None, height: None, seconds: m.seconds,
        thumbnail: false, waveform: m.waveform.clone().filter(|bars| !bars.is_empty()), gif: false, animated: false);
    let kind = if m.ptt == Some(true) { Kind::Voice } else { Kind::Audio };
    show(kind, None, More { reply_to: reply_to(&m.context_info), media, ..More::default() })
}

fn document(m: &wa::message::DocumentMessage) -> Content {
    let filename = m.file_name.clone().or_else(|| m.title.clone());
    let media = attachment!(MediaType::Document, m, filename: filename, width: None, height: None, seconds: None,
        thumbnail: has_bytes(m.jpeg_thumbnail.as_ref()), waveform: None, gif: false, animated: false);
    show(Kind::Document, m.caption.clone(), More { reply_to: reply_to(&m.context_info), media, ..More::default() })
}

fn sticker(m: &wa::message::StickerMessage) -> Content {
    let media = attachment!(MediaType::Sticker, m, filename: None, width: m.width, height: m.height, seconds: None,
        thumbnail: has_bytes(m.png_thumbnail.as_ref()), waveform: None, gif: false,
        animated: m.is_animated == Some(true));
    show(Kind::Sticker, None, More { reply_to: reply_to(&m.context_info), media, ..More::default() })
}

fn location(m: &wa::message::LocationMessage) -> Content {
    let location = Location {
        latitude: m.degrees_latitude.unwrap_or_default(),
        longitude: m.degrees_longitude.unwrap_or_default(),
        name: m.name.clone().filter(|name| !name.is_empty()),
        address: m.address.clone().filter(|address| !address.is_empty()),
    };
    let more = More { reply_to: reply_to(&m.context_info), location: Some(location), ..More::default() };
    show(Kind::Location, None, more)
}

/// The first number on a card: the one that WhatsApp knows, or what stands behind the colon.
fn number_on(vcard: &str) -> Option<String> {
    let line = vcard.lines().find(|line| {
        let property = line.split([':', ';']).next().unwrap_or_default();
        property.rsplit('.').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("TEL"))
    })?;
    let known = line.split([';', ':']).find_map(|part| part.trim().strip_prefix("waid="));
    let number = known.or_else(|| line.split_once(':').map(|(_, value)| value))?;
    Some(number.chars().filter(char::is_ascii_digit).collect()).filter(|digits: &String| !digits.is_empty())
}

fn contact(m: &wa::message::ContactMessage) -> Content {
    let vcard = m.vcard.clone().unwrap_or_default();
    let contact = Contact { name: m.display_name.clone().unwrap_or_default(), phone: number_on(&vcard), vcard };
    let more = More { reply_to: reply_to(&m.context_info), contact: Some(contact), ..More::default() };
    show(Kind::Contact, None, more)
}

fn poll(m: &wa::message::PollCreationMessage, secret: Option<Vec<u8>>) -> Content {
    let name = m.name.clone().unwrap_or_default();
    let poll = Poll {
        options: m.options.iter().filter_map(|option| option.option_name.clone()).collect(),
        name: name.clone(),
        votes: Vec::new(),
        secret: secret.unwrap_or_default(),
    };
    let more = More { reply_to: reply_to(&m.context_info), poll: Some(poll), ..More::default() };
    show(Kind::Poll, Some(name), more)
}

fn id_of(key: &waproto::buffa::MessageField<wa::MessageKey>) -> Option<String> {
    key.as_option()?.id.clone().filter(|id| !id.is_empty())
}

/// What a protocol message asks for, if it is one about another message.
fn about_another(m: &wa::message::ProtocolMessage) -> Option<Content> {
    let id = id_of(&m.key)?;
    match m.r#type {
        Some(Type::REVOKE) => Some(Content::Revoke { id }),
        Some(Type::MESSAGE_EDIT) => {
            let Content::Show { text, .. } = read(m.edited_message.as_option()?) else { return None };
            Some(Content::Edit { id, text })
        }
        _ => None,
    }
}

/// Adds what travels beside the message.
fn with_context(content: Content, base: &wa::Message) -> Content {
    let Some(context) = context(base) else { return content };
    let Content::Show { kind, text, more } = content else { return content };
    let mut more = more.map(|more| *more).unwrap_or_default();
    more.disappears_after = context.expiration.filter(|seconds| *seconds > 0);
    more.mentions.clone_from(&context.mentioned_jid);
    Content::Show { kind, text, more: more.boxed() }
}

fn preview(m: &wa::message::ExtendedTextMessage) -> Option<Preview> {
    Some(Preview {
        url: m.matched_text.clone().filter(|url| !url.is_empty())?,
        title: m.title.clone().unwrap_or_default(),
        description: m.description.clone().filter(|description| !description.is_empty()),
        thumbnail: has_bytes(m.jpeg_thumbnail.as_ref()),
    })
}

/// Reads a message.
pub(crate) fn read(message: &wa::Message) -> Content {
    with_context(read_alone(message), message.get_base_message())
}

fn read_alone(message: &wa::Message) -> Content {
    let secret = message.message_context_info.as_option().and_then(|context| context.message_secret.clone());
    let m = message.get_base_message();
    let secret = secret.or_else(|| m.message_context_info.as_option()?.message_secret.clone());
    if let Some(text) = &m.conversation {
        return show(Kind::Text, Some(text.clone()), More::default());
    }
    if let Some(extended) = m.extended_text_message.as_option() {
        let more = More { reply_to: reply_to(&extended.context_info), preview: preview(extended), ..More::default() };
        return show(Kind::Text, extended.text.clone(), more);
    }
    if let Some(reaction) = m.reaction_message.as_option() {
        let emoji = reaction.text.clone().unwrap_or_default();
        return id_of(&reaction.key).map_or(Content::Nothing, |id| Content::React { id, emoji });
    }
    if let Some(protocol) = m.protocol_message.as_option() {
        if protocol.r#type == Some(Type::EPHEMERAL_SETTING) {
            let set_at = protocol.ephemeral_setting_timestamp.unwrap_or_default();
            return Content::Timer(Timer { seconds: protocol.ephemeral_expiration.unwrap_or_default(), set_at });
        }
        return about_another(protocol).unwrap_or(Content::Nothing);
    }
    if let Some(update) = m.poll_update_message.as_option() {
        let vote = update.vote.as_option().cloned().unwrap_or_default();
        if let (Some(id), Some(ciphertext), Some(iv)) =
            (id_of(&update.poll_creation_message_key), vote.enc_payload, vote.enc_iv)
        {
            return Content::Vote { id, ciphertext, iv };
        }
    }
    let polls = [
        &m.poll_creation_message,
        &m.poll_creation_message_v2,
        &m.poll_creation_message_v3,
        &m.poll_creation_message_v5,
    ];
    if let Some(creation) = polls.into_iter().find_map(|poll| poll.as_option()) {
        return poll(creation, secret);
    }
    let known = [
        m.image_message.as_option().map(image),
        m.video_message.as_option().or(m.ptv_message.as_option()).map(video),
        m.audio_message.as_option().map(audio),
        m.document_message.as_option().map(document),
        m.sticker_message.as_option().map(sticker),
        m.location_message.as_option().filter(|place| place.is_live != Some(true)).map(location),
        m.contact_message.as_option().map(contact),
    ];
    if let Some(known) = known.into_iter().flatten().next() {
        return known;
    }
    match type_name(m) {
        Some(name) => show(Kind::Unsupported, None, More { type_name: Some(name), ..More::default() }),
        None => Content::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use waproto::buffa::Message as _;

    fn shown(message: &wa::Message) -> (Kind, String, More) {
        match read(message) {
            Content::Show { kind, text, more } => (kind, text, more.map(|more| *more).unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_document_is_found_in_its_wrapper() {
        let document = wa::message::DocumentMessage {
            file_name: Some("a.pdf".to_owned()),
            caption: Some("look".to_owned()),
            mimetype: Some("application/pdf".to_owned()),
            ..Default::default()
        };
        let inner = wa::Message { document_message: Some(document).into(), ..Default::default() };
        let wrapper = wa::message::FutureProofMessage { message: Some(inner).into() };
        let message = wa::Message { document_with_caption_message: Some(wrapper).into(), ..Default::default() };
        let (kind, text, more) = shown(&message);
        let media = more.media.unwrap();
        assert_eq!((kind, text.as_str(), media.filename.as_deref()), (Kind::Document, "look", Some("a.pdf")));
    }

    #[test]
    fn the_number_on_a_card_is_found_in_every_spelling() {
        for (line, number) in [
            ("TEL;type=CELL;waid=5511999999999:+55 11 99999-9999", Some("5511999999999")),
            ("item1.TEL:+49 151 1234", Some("491511234")),
            ("tel;TYPE=home:030 1", Some("0301")),
            ("TELEX:1", None),
            ("TEL:", None),
        ] {
            let vcard = format!("BEGIN:VCARD\r\nVERSION:3.0\r\nFN:X\r\n{line}\r\nEND:VCARD");
            assert_eq!(number_on(&vcard).as_deref(), number, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_shown_as_that() {
        let list = wa::Message { list_message: Some(wa::message::ListMessage::default()).into(), ..Default::default() };
        let (kind, text, more) = shown(&list);
        assert_eq!((kind, text.as_str(), more.type_name.as_deref()), (Kind::Unsupported, "", Some("listMessage")));
        assert!(matches!(read(&wa::Message::default()), Content::Nothing));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(message) = wa::Message::decode_from_slice(&bytes) {
                let _ = read(&message);
            }
        }

        #[test]
        fn any_card_has_a_number_or_not(card in "(TEL|.)*") {
            let _ = number_on(&card);
        }
    }
}
