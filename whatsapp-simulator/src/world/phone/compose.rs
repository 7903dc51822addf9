//! What a phone's owner wants to say, put into the form in which it travels.

use wacore::download::MediaType;
use wacore::poll::{compute_option_hash, encrypt_poll_vote_with_secret};
use wacore::upload::EncryptedMedia;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::poll_creation_message::Option as PollOption;
use waproto::whatsapp::message::protocol_message::Type;

use super::context::{Referral, Timer};
use super::message::{Kind, Location, Poll};

/// Something that a phone is to send.
#[derive(Clone, Debug)]
pub enum Draft {
    /// Words.
    Text(String),
    /// A file.
    Media(MediaDraft),
    /// A place.
    Location(Location),
    /// Someone's card, made of these two.
    Contact {
        /// The name on it.
        name: String,
        /// The number on it.
        phone: String,
    },
    /// A reaction to a message; without an emoji, its removal.
    Reaction {
        /// The message.
        message_id: String,
        /// The emoji.
        emoji: String,
    },
    /// Other words for an own message.
    Edit {
        /// The message.
        message_id: String,
        /// The words.
        text: String,
    },
    /// An own message taken back.
    Revoke {
        /// The message.
        message_id: String,
    },
    /// A question with answers to choose from.
    Poll {
        /// The question.
        name: String,
        /// The answers.
        options: Vec<String>,
    },
    /// A choice.
    Vote {
        /// The poll.
        message_id: String,
        /// What is chosen; nothing takes an earlier vote back.
        options: Vec<String>,
    },
    /// The messages of the chat stay so long from now on, in seconds; 0: for ever.
    Timer(u32),
    /// What is a message already.
    Built(Box<wa::Message>),
    /// Anything at all: an encoded message.
    Raw(Vec<u8>),
}

impl Draft {
    /// What is a message already.
    pub(crate) fn built(message: wa::Message) -> Self {
        Self::Built(Box::new(message))
    }
}

/// How a phone is to send it.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// The message that it answers.
    pub reply_to: Option<String>,
    /// The ad that its sender came from.
    pub referral: Option<Referral>,
    /// Companions are not given it: they are told that there is something.
    pub unavailable: bool,
}

/// A file that a phone is to send.
#[derive(Clone, Default)]
pub struct MediaDraft {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// As what it is sent; by its MIME type, if absent.
    pub kind: Option<Kind>,
    /// Its MIME type; by its first bytes, if absent.
    pub mimetype: Option<String>,
    /// Its name; only documents show it.
    pub filename: Option<String>,
    /// The words that go with it.
    pub caption: String,
    /// In pixels.
    pub width: Option<u32>,
    /// In pixels.
    pub height: Option<u32>,
    /// How long it plays.
    pub seconds: Option<u32>,
    /// A small JPEG of it.
    pub thumbnail: Option<Vec<u8>>,
    /// How loud a voice note is from its beginning to its end: 64 values from 0 to 100.
    pub waveform: Option<Vec<u8>>,
    /// Whether a video plays in a loop.
    pub gif: bool,
    /// Whether a sticker moves.
    pub animated: bool,
    /// Whether it is to be looked at once: then no companion gets it.
    pub view_once: bool,
}

impl std::fmt::Debug for MediaDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaDraft").field("bytes", &self.bytes.len()).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The MIME type of some bytes, by how they begin.
fn sniff(bytes: &[u8]) -> &'static str {
    let at = |offset: usize, expected: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(expected));
    match () {
        () if at(0, b"\x89PNG\r\n\x1a\n") => "image/png",
        () if at(0, b"\xff\xd8\xff") => "image/jpeg",
        () if at(0, b"GIF8") => "image/gif",
        () if at(0, b"RIFF") && at(8, b"WEBP") => "image/webp",
        () if at(0, b"RIFF") && at(8, b"WAVE") => "audio/wav",
        () if at(4, b"ftyp") => "video/mp4",
        () if at(0, b"OggS") => "audio/ogg; codecs=opus",
        () if at(0, b"ID3") || at(0, b"\xff\xfb") => "audio/mpeg",
        () if at(0, b"%PDF-") => "application/pdf",
        () => "application/octet-stream",
    }
}

impl MediaDraft {
    fn mimetype(&self) -> &str {
        self.mimetype.as_deref().unwrap_or_else(|| sniff(&self.bytes))
    }

    /// As what it is sent; `None` if its kind is not one of files.
    pub(crate) fn what(&self) -> Option<(Kind, MediaType)> {
        let kind = self.kind.unwrap_or_else(|| match self.mimetype() {
            "image/webp" => Kind::Sticker,
            image if image.starts_with("image/") => Kind::Image,
            video if video.starts_with("video/") => Kind::Video,
            audio if audio.starts_with("audio/") => Kind::Audio,
            _ => Kind::Document,
        });
        let what = match kind {
            Kind::Image => MediaType::Image,
            Kind::Video => MediaType::Video,
            Kind::Audio | Kind::Voice => MediaType::Audio,
            Kind::Document => MediaType::Document,
            Kind::Sticker => MediaType::Sticker,
            _ => return None,
        };
        Some((kind, what))
    }

    /// The message around the file, which lies at `direct_path` by now.
    pub(crate) fn message(
        self,
        kind: Kind,
        file: &EncryptedMedia,
        host: &str,
        direct_path: &str,
        now: i64,
    ) -> wa::Message {
        use wa::message::{AudioMessage, DocumentMessage, ImageMessage, StickerMessage, VideoMessage};
        let url = Some(format!("https://{host}{direct_path}"));
        let direct_path = Some(direct_path.to_owned());
        let mimetype = Some(self.mimetype().to_owned());
        let media_key = Some(file.media_key.to_vec());
        let file_sha256 = Some(file.file_sha256.to_vec());
        let file_enc_sha256 = Some(file.file_enc_sha256.to_vec());
        let file_length = Some(self.bytes.len() as u64);
        let media_key_timestamp = Some(now);
        let streaming_sidecar = file.streaming_sidecar.clone();
        let Self { filename, caption, width, height, seconds, thumbnail: jpeg_thumbnail, waveform, .. } = self;
        let (gif_playback, is_animated) = (self.gif.then_some(true), self.animated.then_some(true));
        let caption = Some(caption).filter(|caption| !caption.is_empty());
        // What all of them share; each message has its own type for it.
        macro_rules! file {
            ($message:ident { $($more:ident),* $(,)? } $($name:ident: $value:expr),*) => {
                Some($message {
                    url, direct_path, mimetype, media_key, file_sha256, file_enc_sha256, file_length,
                    media_key_timestamp, $($more,)* $($name: $value,)*
                    ..Default::default()
                }).into()
            };
        }
        let mut message = wa::Message::default();
        match kind {
            Kind::Image => message.image_message = file!(ImageMessage { caption, width, height, jpeg_thumbnail }),
            Kind::Video => {
                message.video_message = file!(VideoMessage {
                    caption,
                    width,
                    height,
                    seconds,
                    jpeg_thumbnail,
                    streaming_sidecar,
                    gif_playback
                });
            }
            Kind::Audio | Kind::Voice => {
                message.audio_message =
                    file!(AudioMessage { seconds, streaming_sidecar, waveform } ptt: Some(kind == Kind::Voice));
            }
            Kind::Sticker => {
                message.sticker_message =
                    file!(StickerMessage { width, height, is_animated } png_thumbnail: jpeg_thumbnail);
            }
            _ => {
                let captioned = caption.is_some();
                message.document_message =
                    file!(DocumentMessage { caption, jpeg_thumbnail } title: filename.clone(), file_name: filename);
                if captioned {
                    let inner = wa::message::FutureProofMessage { message: Some(message).into() };
                    message = wa::Message { document_with_caption_message: Some(inner).into(), ..Default::default() };
                }
            }
        }
        message
    }
}

/// A text message.
pub(crate) fn text(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.to_owned()), ..Default::default() }
}

/// A place.
pub(crate) fn location(location: Location) -> wa::Message {
    let message = wa::message::LocationMessage {
        degrees_latitude: Some(location.latitude),
        degrees_longitude: Some(location.longitude),
        name: location.name,
        address: location.address,
        ..Default::default()
    };
    wa::Message { location_message: Some(message).into(), ..Default::default() }
}

/// Someone's card.
pub(crate) fn contact(name: String, phone: &str) -> wa::Message {
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    // What has a meaning in a card gets a backslash in front of it.
    let escaped: String = name.chars().filter(|c| !c.is_control()).fold(String::new(), |mut text, c| {
        if matches!(c, '\\' | ',' | ';') {
            text.push('\\');
        }
        text.push(c);
        text
    });
    let vcard = format!(
        "BEGIN:VCARD\r\nVERSION:3.0\r\nN:;{escaped};;;\r\nFN:{escaped}\r\nTEL;type=CELL;waid={digits}:+{digits}\r\nEND:VCARD"
    );
    let message = wa::message::ContactMessage { display_name: Some(name), vcard: Some(vcard), ..Default::default() };
    wa::Message { contact_message: Some(message).into(), ..Default::default() }
}

/// A reaction.
pub(crate) fn reaction(key: wa::MessageKey, emoji: String, now: i64) -> wa::Message {
    let message = wa::message::ReactionMessage {
        key: Some(key).into(),
        text: Some(emoji),
        sender_timestamp_ms: Some(now * 1000),
        ..Default::default()
    };
    wa::Message { reaction_message: Some(message).into(), ..Default::default() }
}

fn protocol(message: wa::message::ProtocolMessage) -> wa::Message {
    wa::Message { protocol_message: Some(message).into(), ..Default::default() }
}

/// Other words for a message of this kind.
pub(crate) fn edit(key: wa::MessageKey, kind: Kind, words: String, now: i64) -> wa::Message {
    let mut edited = wa::Message::default();
    match kind {
        Kind::Image => edited.image_message.get_or_insert_default().caption = Some(words),
        Kind::Video => edited.video_message.get_or_insert_default().caption = Some(words),
        Kind::Document => edited.document_message.get_or_insert_default().caption = Some(words),
        _ => edited.conversation = Some(words),
    }
    protocol(wa::message::ProtocolMessage {
        key: Some(key).into(),
        r#type: Some(Type::MESSAGE_EDIT),
        edited_message: Some(edited).into(),
        timestamp_ms: Some(now * 1000),
        ..Default::default()
    })
}

/// A message taken back.
pub(crate) fn revoke(key: wa::MessageKey) -> wa::Message {
    protocol(wa::message::ProtocolMessage { key: Some(key).into(), r#type: Some(Type::REVOKE), ..Default::default() })
}

/// How long the messages of a chat stay from now on.
pub(crate) fn timer(Timer { seconds, set_at }: Timer) -> wa::Message {
    protocol(wa::message::ProtocolMessage {
        r#type: Some(Type::EPHEMERAL_SETTING),
        ephemeral_expiration: Some(seconds),
        ephemeral_setting_timestamp: Some(set_at),
        ..Default::default()
    })
}

/// A question, of whose answers one can be chosen.
pub(crate) fn poll(name: String, options: Vec<String>) -> wa::Message {
    let option = |name| PollOption { option_name: Some(name), ..Default::default() };
    let message = wa::message::PollCreationMessage {
        name: Some(name),
        options: options.into_iter().map(option).collect(),
        selectable_options_count: Some(1),
        ..Default::default()
    };
    let secret: [u8; 32] = rand::random();
    let context = wa::MessageContextInfo { message_secret: Some(secret.to_vec()), ..Default::default() };
    wa::Message {
        poll_creation_message_v3: Some(message).into(),
        message_context_info: Some(context).into(),
        ..Default::default()
    }
}

/// A choice. `None` if it cannot be encrypted.
pub(crate) fn vote(
    key: wa::MessageKey,
    poll: &Poll,
    chosen: &[String],
    creator: &str,
    voter: &str,
    now: i64,
) -> Option<wa::Message> {
    let hashes: Vec<Vec<u8>> = chosen.iter().map(|option| compute_option_hash(option).to_vec()).collect();
    let (payload, iv) =
        encrypt_poll_vote_with_secret(&hashes, &poll.secret, key.id.as_deref()?, creator, voter).ok()?;
    let update = wa::message::PollUpdateMessage {
        poll_creation_message_key: Some(key).into(),
        vote: Some(wa::message::PollEncValue { enc_payload: Some(payload), enc_iv: Some(iv.to_vec()) }).into(),
        sender_timestamp_ms: Some(now * 1000),
        ..Default::default()
    };
    Some(wa::Message { poll_update_message: Some(update).into(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_as_what_it_is() {
        let kind = |bytes: &[u8], mimetype: Option<&str>| {
            let draft =
                MediaDraft { bytes: bytes.to_vec(), mimetype: mimetype.map(str::to_owned), ..MediaDraft::default() };
            draft.what().map(|(kind, _)| kind)
        };
        for (bytes, mimetype, expected) in [
            (b"\x89PNG\r\n\x1a\n".as_slice(), None, Kind::Image),
            (b"\xff\xd8\xff\xe0", None, Kind::Image),
            (b"RIFF\0\0\0\0WEBPVP8 ", None, Kind::Sticker),
            (b"\0\0\0\x18ftypmp42", None, Kind::Video),
            (b"OggS", None, Kind::Audio),
            (b"%PDF-1.7", None, Kind::Document),
            (b"", None, Kind::Document),
            (b"%PDF-1.7", Some("image/png"), Kind::Image),
        ] {
            assert_eq!(kind(bytes, mimetype), Some(expected), "{bytes:?}");
        }
        let draft = MediaDraft { kind: Some(Kind::Poll), ..MediaDraft::default() };
        assert!(draft.what().is_none());
    }

    #[test]
    fn a_card_stays_a_card_whatever_the_name() {
        let message = contact("A;B,C\r\nTEL:1".to_owned(), "+55 11 9");
        let vcard = message.contact_message.vcard.clone().unwrap();
        assert!(vcard.contains("FN:A\\;B\\,CTEL:1\r\n") && vcard.contains("waid=55119:+55119"), "{vcard}");
    }
}
