//! Whom something is for: read from what people hand in, never filtered out of it.
//!
//! A person has two addresses at WhatsApp: a phone number, and a LID, which hides the number. Both are digits, so a text
//! that is neither clearly the one nor clearly the other is refused: somebody else may have a number of these digits.
use crate::model::address::number::Number;

pub mod number;

#[cfg(test)]
mod tests;

/// An address that somebody wrote down.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// A person's.
    Person(Person),
    /// A group's.
    Group(Group),
}

/// A person, by one of their two addresses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Person {
    /// By phone number.
    Number(Number),
    /// By LID.
    Lid(Lid),
}

/// WhatsApp's other name for a person, which hides the number: digits, as in `713715344025739@lid`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lid(Box<str>);

/// A group: digits, of older ones in two parts, as in `1203630@g.us`.
#[derive(Clone, PartialEq, Eq)]
pub struct Group(Box<str>);

/// What is known of a person's two addresses.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The phone number.
    pub number: Option<Number>,
    /// The LID.
    pub lid: Option<Lid>,
}

/// Says nothing: addresses don't belong into a log.
macro_rules! hidden {
    ($($name:ident)+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )+};
}
hidden!(Address Person Number Lid Group Names);

/// Why a text is not the address that is needed. It follows the name of the field: "`to` is empty".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// There is nothing in it.
    #[error("is empty: it needs 8 to 15 digits, with the country code")]
    Empty,
    /// A number is too short or too long.
    #[error("needs 8 to 15 digits, with the country code; it has {0}")]
    Digits(usize),
    /// A number begins with a zero.
    #[error("needs the country code, without a 0 or 00 in front of it")]
    LeadingZero,
    /// A number holds a zero for those who dial within the country.
    #[error(
        "needs the country code, without a 0 or 00 in front of it; it has `(0)`, which is dialled within a country only"
    )]
    BracketedZero,
    /// It goes on after the number.
    #[error(
        "has an extension (`{0}`), which WhatsApp knows nothing of: it needs 8 to 15 digits, with the country code"
    )]
    Extension(String),
    /// It holds what no number does.
    #[error(
        "has `{character}` in place {place}, and is no phone number: 8 to 15 digits, with the country code. A WhatsApp \
         address ends in @s.whatsapp.net, @c.us or @lid"
    )]
    Character {
        /// What it holds.
        character: char,
        /// Where, from 1.
        place: usize,
    },
    /// A link leads to no number.
    #[error(
        "is a link without a number: https://wa.me/ and 8 to 15 digits, with the country code, is one with a number"
    )]
    Link,
    /// There are no digits in front of the `@`.
    #[error("is no WhatsApp address: digits stand in front of @{0}")]
    User(&'static str),
    /// It is an address of something else.
    #[error("ends in `@{0}`, which is no person's address: these end in @s.whatsapp.net, @c.us or @lid")]
    Server(String),
    /// It is a group's.
    #[error("is a group: groups are not supported yet")]
    Group,
    /// It is not a number's, where only that will do.
    #[error("needs a phone number: 8 to 15 digits, with the country code")]
    NoNumber,
}

impl InvalidAddress {
    /// The sentence about the field of this name.
    pub fn of(&self, field: &str) -> String {
        format!("`{field}` {self}")
    }
}

/// How much of a text is repeated to whom it came from.
const SEEN: usize = 24;

impl Address {
    /// Reads a number with the punctuation that people use, `tel:` and `https://wa.me/` links, and WhatsApp's own
    /// addresses, of a person's device too.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let text: String = text.chars().filter(|character| !is_invisible(*character)).collect();
        let text = text.trim();
        if let Some(number) = in_link(text) {
            return number.map(Person::Number).map(Self::Person);
        }
        match text.rsplit_once('@') {
            Some((user, server)) => whatsapp(user, &server.to_ascii_lowercase()),
            None => crate::model::address::number::parse(text).map(Person::Number).map(Self::Person),
        }
    }

    /// The person, who alone can be written to so far.
    pub fn person(self) -> Result<Person, InvalidAddress> {
        match self {
            Self::Person(person) => Ok(person),
            Self::Group(_) => Err(InvalidAddress::Group),
        }
    }

    /// The number, where only a number will do.
    pub fn number(self) -> Result<Number, InvalidAddress> {
        match self {
            Self::Person(Person::Number(number)) => Ok(number),
            Self::Person(Person::Lid(_)) | Self::Group(_) => Err(InvalidAddress::NoNumber),
        }
    }
}

/// `user@server`, as WhatsApp writes its addresses. The device of a person, `user:12@server`, is left out.
fn whatsapp(user: &str, server: &str) -> Result<Address, InvalidAddress> {
    let (bare, device) = user.split_once(':').map_or((user, None), |(bare, device)| (bare, Some(device)));
    let has_device = device.is_none_or(|device| is_digits(device) && device.parse::<u16>().is_ok());
    match server {
        // A business's number may be at home with a provider.
        "s.whatsapp.net" | "c.us" | "hosted" => {
            // `user.0:12`: between them a device may have an agent.
            let bare =
                bare.split_once('.').filter(|(_, agent)| agent.parse::<u8>().is_ok()).map_or(bare, |(bare, _)| bare);
            let digits = bare.strip_prefix('+').unwrap_or(bare);
            if !is_digits(digits) || !has_device {
                return Err(InvalidAddress::User("s.whatsapp.net"));
            }
            crate::model::address::number::checked(digits).map(Person::Number).map(Address::Person)
        }
        "lid" | "hosted.lid" => match Lid::new(bare).filter(|_| has_device) {
            Some(lid) => Ok(Address::Person(Person::Lid(lid))),
            None => Err(InvalidAddress::User("lid")),
        },
        "g.us" => {
            let (first, second) = user.split_once('-').map_or((user, None), |(first, second)| (first, Some(second)));
            if is_digits(first) && second.is_none_or(is_digits) && user.len() <= 64 {
                return Ok(Address::Group(Group(user.into())));
            }
            Err(InvalidAddress::User("g.us"))
        }
        other => Err(InvalidAddress::Server(other.chars().take(SEEN).collect())),
    }
}

/// The number that a link leads to, if the text is such a link: `tel:` (RFC 3966) and WhatsApp's "click to chat".
fn in_link(text: &str) -> Option<Result<Number, InvalidAddress>> {
    if let Some(number) = without_prefix(text, "tel:") {
        return Some(crate::model::address::number::parse(unescaped(number).trim()));
    }
    let path = ["https://wa.me/", "http://wa.me/", "wa.me/"].iter().find_map(|prefix| without_prefix(text, prefix))?;
    let number = path.split(['/', '?', '#']).next().unwrap_or_default();
    // `wa.me/message/…` and `wa.me/qr/…` name somebody without a number.
    Some(crate::model::address::number::parse(unescaped(number).trim()).map_err(|error| match error {
        InvalidAddress::Character { .. } | InvalidAddress::Extension(_) | InvalidAddress::Empty => InvalidAddress::Link,
        error => error,
    }))
}

fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What links escape of a number.
fn unescaped(number: &str) -> String {
    number.replace("%2B", "+").replace("%2b", "+").replace("%20", " ")
}

/// Marks that phones and pages put around numbers when these are copied: they say in which direction to write, or where
/// a line may break.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    )
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Person {
    /// Reads a person's address: see [`Address::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        Address::parse(text)?.person()
    }

    /// The person, from [`Person::address`]. Numbers that were kept before numbers were checked are taken as they are.
    pub fn kept(text: &str) -> Option<Self> {
        match text.strip_suffix("@lid") {
            Some(lid) => Lid::new(lid).map(Self::Lid),
            None => Number::kept(text).map(Self::Number),
        }
    }

    /// Whether it is a LID.
    pub fn is_lid(&self) -> bool {
        matches!(self, Self::Lid(_))
    }

    /// The address as it stands in answers and in the database: the digits of a number, or `713715344025739@lid`. It can be
    /// given back as it is.
    pub fn address(&self) -> String {
        match self {
            Self::Number(number) => number.digits().into(),
            Self::Lid(lid) => format!("{}@lid", lid.digits()),
        }
    }
}

impl Lid {
    /// The LID of these digits.
    pub fn new(digits: &str) -> Option<Self> {
        (is_digits(digits) && digits.len() <= 20).then(|| Self(digits.into()))
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl Names {
    /// This person's, and `others` where it says more.
    pub fn of(person: Person, others: Self) -> Self {
        match person {
            Person::Number(number) => Self { number: Some(number), ..others },
            Person::Lid(lid) => Self { lid: Some(lid), ..others },
        }
    }

    /// Whether they are this person's, as far as anybody can tell.
    pub fn are(&self, person: &Person) -> bool {
        match person {
            Person::Number(number) => self.number.as_ref().is_some_and(|own| own.may_be(number)),
            Person::Lid(lid) => self.lid.as_ref() == Some(lid),
        }
    }

    /// The person, by each of the addresses.
    pub fn people(&self) -> impl Iterator<Item = Person> + use<> {
        let number = self.number.clone().map(Person::Number);
        number.into_iter().chain(self.lid.clone().map(Person::Lid))
    }
}
