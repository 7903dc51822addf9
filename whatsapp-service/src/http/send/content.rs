//! What a call wants said, from the fields of its body.

use crate::{
    http::{
        base64::Base64,
        emoji::is_emoji,
        problem::Problem,
        send::media::{Attachment, Source, Wanted},
    },
    media::{kind::Claim, shelf::Taken},
    model::{
        address::{Address, Person},
        content::{Contact, Content, ContentKind, Edit, Location, Reaction, Revoke},
        error_code::ErrorCode,
    },
};

/// The longest text that WhatsApp takes, in characters.
const MAX_TEXT: usize = 65_536;
/// The longest name of a place or a person, in characters.
const MAX_NAME: usize = 256;
/// The longest address of a place, in characters.
const MAX_ADDRESS: usize = 1024;
/// The longest name of a file, in characters.
const MAX_FILENAME: usize = 255;
/// How many people may be mentioned in a message: as many as a group has.
const MAX_MENTIONS: usize = 1024;
/// The longest id that a message has, in characters.
const MAX_ID: usize = 64;

/// The fields that say what a message is: exactly one, and maybe what it answers.
#[derive(Default)]
pub struct Parts {
    /// A text, or what stands below the media.
    pub message: Option<String>,
    /// Another name for `message` with media.
    pub caption: Option<String>,
    /// A picture, a film, a sound, a document or a sticker.
    pub media: Option<Attachment>,
    /// The bytes of the media, where they came in with the call.
    pub bytes: Option<Taken>,
    /// Whether the media is a voice note.
    pub voice: Option<bool>,
    /// Whether it is a sticker.
    pub sticker: Option<bool>,
    /// Whether it is a document, whatever else it could be.
    pub document: Option<bool>,
    /// Whether it is a video that plays in a loop.
    pub gif: Option<bool>,
    /// A place.
    pub location: Option<Location>,
    /// Somebody's name and number.
    pub contact: Option<Contact>,
    /// An emoji at another message.
    pub reaction: Option<Reaction>,
    /// Another text for an earlier message.
    pub edit: Option<Edit>,
    /// An earlier message, to be taken back.
    pub revoke: Option<Revoke>,
    /// The id of the message that it answers.
    pub reply_to: Option<String>,
    /// Those who are mentioned in the text.
    pub mentions: Option<Vec<String>>,
    /// Whether the first link in the text is shown with what is behind it.
    pub link_preview: Option<bool>,
}

/// What a call wants said.
pub enum SendContent {
    /// All of it is here.
    Content(Content),
    /// The bytes may have to be fetched.
    Media(Box<Wanted>),
}

enum Given {
    Kind(ContentKind),
    Media(Attachment),
}

impl Parts {
    /// What they say, if they say one thing, and nothing that can't be sent.
    pub fn content(self) -> Result<SendContent, Problem> {
        let Self { mut message, caption, media, bytes, location, contact, reaction, edit, revoke, reply_to, .. } = self;
        let mentions = match self.mentions {
            Some(numbers) if !numbers.is_empty() && message.is_none() && caption.is_none() => {
                return Err(invalid("`mentions` goes with a `message`, which names those who are mentioned"));
            }
            numbers => mentioned(numbers.unwrap_or_default())?,
        };
        if self.link_preview == Some(true) && (message.is_none() || media.is_some()) {
            return Err(invalid("`linkPreview` goes with a `message` that stands alone: it shows a link in it"));
        }
        let flags = [("voice", self.voice), ("sticker", self.sticker), ("document", self.document), ("gif", self.gif)];
        if media.is_none()
            && let Some((flag, _)) = flags.iter().find(|(_, set)| *set == Some(true))
        {
            return Err(invalid(format!("`{flag}` says what `media` is, and there is none")));
        }
        // With media it stands below it, and may be called so.
        let caption = match (media.is_some(), caption) {
            (true, Some(caption)) if message.as_ref().is_some_and(|message| *message != caption) => {
                return Err(invalid(
                    "`message` and `caption` are two names for the text below `media`: give one of them",
                ));
            }
            (true, caption) => message.take().or(caption),
            (false, Some(_)) => {
                return Err(invalid("`caption` is the text below `media`, and there is none; a text is `message`"));
            }
            (false, None) => None,
        };
        // One entry for each kind; what follows names them from here.
        let mut given: Vec<(&str, Given)> = [
            message.map(|text| ("message", ContentKind::Text(text))),
            location.map(|place| ("location", ContentKind::Location(place))),
            contact.map(|person| ("contact", ContentKind::Contact(person))),
            reaction.map(|reaction| ("reaction", ContentKind::Reaction(reaction))),
            edit.map(|edit| ("edit", ContentKind::Edit(edit))),
            revoke.map(|revoke| ("revoke", ContentKind::Revoke(revoke))),
        ]
        .into_iter()
        .flatten()
        .map(|(field, kind)| (field, Given::Kind(kind)))
        .chain(media.map(|media| ("media", Given::Media(media))))
        .collect();
        let (field, given) = match (given.pop(), &given[..]) {
            (Some(only), []) => only,
            (Some((last, _)), others) => {
                let others: Vec<_> = others.iter().map(|(name, _)| format!("`{name}`")).collect();
                return Err(invalid(format!(
                    "{} and `{last}` don't go together: a message is one of them",
                    others.join(", ")
                )));
            }
            (None, _) => {
                let kinds = "`message`, `media`, `location`, `contact`, `reaction`, `edit` and `revoke`";
                return Err(invalid(format!("a message has exactly one of {kinds}; this has none")));
            }
        };
        let kind = match given {
            Given::Kind(kind) => kind,
            Given::Media(media) => {
                if let Some(id) = &reply_to {
                    check_id("replyTo", id)?;
                }
                let [voice, sticker, document, gif] = flags.map(|(_, set)| set.unwrap_or_default());
                let Attachment { url, base64, mimetype, filename } = media;
                let hint = base64.as_ref().and_then(Base64::media_type);
                let claim = Claim { mimetype, hint, voice, sticker, document, gif };
                let said = Beside { filename, caption, reply_to, mentions };
                return wanted(url, base64, bytes, claim, said);
            }
        };
        check(&kind)?;
        if let Some(id) = &reply_to {
            if matches!(kind, ContentKind::Reaction(_) | ContentKind::Edit(_) | ContentKind::Revoke(_)) {
                return Err(invalid(format!("`replyTo` and `{field}` don't go together: `{field}` answers nothing")));
            }
            check_id("replyTo", id)?;
        }
        Ok(SendContent::Content(Content { reply_to, mentions, ..Content::alone(kind) }))
    }
}

/// What stands beside media.
struct Beside {
    filename: Option<String>,
    caption: Option<String>,
    reply_to: Option<String>,
    mentions: Vec<String>,
}

fn wanted(
    url: Option<String>,
    base64: Option<Base64>,
    bytes: Option<Taken>,
    claim: Claim,
    Beside { filename, caption, reply_to, mentions }: Beside,
) -> Result<SendContent, Problem> {
    let source = match (url, base64, bytes) {
        (Some(url), None, None) => Source::Url(url),
        (None, Some(text), None) => Source::Base64(text),
        (None, None, Some(taken)) => Source::Here(taken.into()),
        (None, None, None) => return Err(invalid("`media` needs `media.url` or `media.base64`")),
        _ => return Err(invalid("`media.url` and `media.base64` don't go together: the bytes are in one place")),
    };
    if [claim.voice, claim.sticker, claim.document, claim.gif].into_iter().filter(|set| *set).count() > 1 {
        return Err(crate::media::NotTaken::Clash.into());
    }
    if let Some(name) = &filename {
        check_text("media.filename", name, MAX_FILENAME)?;
        if name.contains(['/', '\\']) {
            return Err(invalid("`media.filename` is a name, not a path"));
        }
    }
    if let Some(caption) = &caption {
        within(caption, 1, MAX_TEXT)
            .map_err(|range| Problem::new(ErrorCode::InvalidMessage, format!("`message` {range}")))?;
    }
    Ok(SendContent::Media(Wanted { source, claim, filename, caption, reply_to, mentions }.into()))
}

/// Those who are mentioned: their digits stand in the text behind an `@`.
fn mentioned(numbers: Vec<String>) -> Result<Vec<String>, Problem> {
    if numbers.len() > MAX_MENTIONS {
        return Err(invalid(format!("`mentions` names {MAX_MENTIONS} people at most")));
    }
    let people = numbers.iter().map(|one| match Person::parse(one) {
        Ok(person) => Ok(person.address()),
        Err(error) => Err(invalid(format!("in `mentions`, `{one}` {error}"))),
    });
    people.collect()
}

fn check(kind: &ContentKind) -> Result<(), Problem> {
    match kind {
        ContentKind::Text(text) => {
            let message = "`message`";
            within(text, 1, MAX_TEXT)
                .map_err(|range| Problem::new(ErrorCode::InvalidMessage, format!("{message} {range}")))
        }
        // Its bytes say what it is; they are not here yet.
        ContentKind::Media(_) => Ok(()),
        ContentKind::Location(Location { latitude, longitude, name, address }) => {
            check_degrees("location.latitude", *latitude, 90.0)?;
            check_degrees("location.longitude", *longitude, 180.0)?;
            name.as_ref().map_or(Ok(()), |name| check_text("location.name", name, MAX_NAME))?;
            address.as_ref().map_or(Ok(()), |address| check_text("location.address", address, MAX_ADDRESS))
        }
        ContentKind::Contact(Contact { name, phone }) => {
            check_text("contact.name", name, MAX_NAME)?;
            let number = Address::parse(phone).and_then(Address::number);
            number.map(drop).map_err(|error| invalid(error.of("contact.phone")))
        }
        ContentKind::Reaction(Reaction { message_id, emoji }) => {
            check_id("reaction.messageId", message_id)?;
            if emoji.is_empty() || is_emoji(emoji) {
                return Ok(());
            }
            Err(invalid("`reaction.emoji` is one emoji, or empty to remove the one that is there"))
        }
        ContentKind::Edit(Edit { message_id, message }) => {
            check_id("edit.messageId", message_id)?;
            within(message, 1, MAX_TEXT).map_err(|range| invalid(format!("`edit.message` {range}")))
        }
        ContentKind::Revoke(Revoke { message_id }) => check_id("revoke.messageId", message_id),
    }
}

fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid(format!("`{field}` is the id of a message: 1 to {MAX_ID} visible ASCII characters")))
}

fn check_degrees(field: &str, degrees: f64, most: f64) -> Result<(), Problem> {
    // Also false for what is not a number.
    if (-most..=most).contains(&degrees) {
        return Ok(());
    }
    Err(invalid(format!("`{field}` is a number of degrees from -{most} to {most}")))
}

/// One line for a person to read.
fn check_text(field: &str, text: &str, most: usize) -> Result<(), Problem> {
    within(text, 1, most).map_err(|range| invalid(format!("`{field}` {range}")))?;
    if text.chars().all(char::is_whitespace) || text.contains(char::is_control) {
        return Err(invalid(format!("`{field}` is one line of text, not blank and without control characters")));
    }
    Ok(())
}

fn within(text: &str, least: usize, most: usize) -> Result<(), String> {
    match (least..=most).contains(&text.chars().count()) {
        true => Ok(()),
        false => Err(format!("needs {least} to {most} characters")),
    }
}

fn invalid(why: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidContent, why)
}
