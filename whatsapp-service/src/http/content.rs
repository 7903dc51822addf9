//! What a call wants said, from the fields of its body.

use super::{emoji::is_emoji, problem::Problem};
use crate::{
    sessions::Recipient,
    store::{Contact, Content, ContentKind, Edit, Location, Reaction, Revoke},
};

/// The longest text that WhatsApp takes, in characters.
const MAX_TEXT: usize = 65_536;
/// The longest name of a place or a person, in characters.
const MAX_NAME: usize = 256;
/// The longest address of a place, in characters.
const MAX_ADDRESS: usize = 1024;
/// The longest id that a message has, in characters.
const MAX_ID: usize = 64;

/// The fields that say what a message is: exactly one, and maybe what it answers.
#[derive(Default)]
pub struct Parts {
    /// A text.
    pub message: Option<String>,
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
}

impl Parts {
    /// What they say, if they say one thing, and nothing that can't be sent.
    pub fn content(self) -> Result<Content, Problem> {
        let Self { message, location, contact, reaction, edit, revoke, reply_to } = self;
        // One entry for each kind; what follows names them from here.
        let mut given: Vec<(&str, ContentKind)> = [
            message.map(|text| ("message", ContentKind::Text(text))),
            location.map(|place| ("location", ContentKind::Location(place))),
            contact.map(|person| ("contact", ContentKind::Contact(person))),
            reaction.map(|reaction| ("reaction", ContentKind::Reaction(reaction))),
            edit.map(|edit| ("edit", ContentKind::Edit(edit))),
            revoke.map(|revoke| ("revoke", ContentKind::Revoke(revoke))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (field, kind) = match (given.pop(), &given[..]) {
            (Some(only), []) => only,
            (Some((last, _)), others) => {
                let others: Vec<_> = others.iter().map(|(name, _)| format!("`{name}`")).collect();
                return Err(invalid(format!(
                    "{} and `{last}` don't go together: a message is one of them",
                    others.join(", ")
                )));
            }
            (None, _) => {
                let kinds = "`message`, `location`, `contact`, `reaction`, `edit` and `revoke`";
                return Err(invalid(format!("a message has exactly one of {kinds}; this has none")));
            }
        };
        check(&kind)?;
        if let Some(id) = &reply_to {
            if matches!(kind, ContentKind::Reaction(_) | ContentKind::Edit(_) | ContentKind::Revoke(_)) {
                return Err(invalid(format!("`replyTo` and `{field}` don't go together: `{field}` answers nothing")));
            }
            check_id("replyTo", id)?;
        }
        Ok(Content { kind, reply_to })
    }
}

fn check(kind: &ContentKind) -> Result<(), Problem> {
    match kind {
        ContentKind::Text(text) => {
            let message = "`message`";
            within(text, 1, MAX_TEXT)
                .map_err(|range| Problem::bad_request("invalid_message", format!("{message} {range}")))
        }
        ContentKind::Location(Location { latitude, longitude, name, address }) => {
            check_degrees("location.latitude", *latitude, 90.0)?;
            check_degrees("location.longitude", *longitude, 180.0)?;
            name.as_ref().map_or(Ok(()), |name| check_text("location.name", name, MAX_NAME))?;
            address.as_ref().map_or(Ok(()), |address| check_text("location.address", address, MAX_ADDRESS))
        }
        ContentKind::Contact(Contact { name, phone }) => {
            check_text("contact.name", name, MAX_NAME)?;
            match Recipient::parse(phone) {
                Ok(_) => Ok(()),
                Err(error) => {
                    let has = error.digits;
                    Err(invalid(format!("`contact.phone` needs 8 to 15 digits, with the country code; it has {has}")))
                }
            }
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

/// Whether a text is an id that a message can have.
pub fn is_message_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    if is_message_id(id) {
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
    Problem::bad_request("invalid_content", why)
}
