//! Phone numbers, and the other forms that a country's numbers have.

use crate::model::address::{InvalidAddress, SEEN, is_digits};

/// A phone number in international form: 8 to 15 digits, with the country code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(Box<str>);

/// Reads digits with what people put between them. A leading `00` stands for `+`.
pub(crate) fn parse(text: &str) -> Result<Number, InvalidAddress> {
    if text.is_empty() {
        return Err(InvalidAddress::Empty);
    }
    let (mut digits, mut plus) = (String::new(), false);
    for (at, character) in text.chars().enumerate() {
        match character {
            '0'..='9' => digits.push(character),
            '+' if digits.is_empty() && !plus => plus = true,
            '-' | '.' | '(' | ')' | '/' => {}
            // What word processors make of a hyphen.
            '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
            _ if character.is_whitespace() => {}
            _ => return Err(unexpected(text, at, character, !digits.is_empty())),
        }
    }
    let packed: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    if packed.contains("(0)") {
        return Err(InvalidAddress::BracketedZero);
    }
    checked(if plus { &digits } else { digits.strip_prefix("00").unwrap_or(&digits) })
}

/// The number of these digits.
pub(crate) fn checked(digits: &str) -> Result<Number, InvalidAddress> {
    match digits.len() {
        _ if digits.starts_with('0') => Err(InvalidAddress::LeadingZero),
        8..=15 => Ok(Number(digits.into())),
        others => Err(InvalidAddress::Digits(others)),
    }
}

fn unexpected(text: &str, at: usize, character: char, after_digits: bool) -> InvalidAddress {
    let rest: String = text.chars().skip(at).collect();
    let extension = rest.trim_start_matches(';').to_ascii_lowercase();
    if after_digits && (extension.starts_with("ext") || extension.starts_with(['x', '#'])) {
        return InvalidAddress::Extension(rest.chars().take(SEEN).collect());
    }
    InvalidAddress::Character { character, place: at + 1 }
}

impl Number {
    /// A number that was kept, from the time before numbers were checked too.
    pub(crate) fn kept(digits: &str) -> Option<Self> {
        is_digits(digits).then(|| Self(digits.into()))
    }

    /// The number that WhatsApp names in an address of its own.
    pub fn of_whatsapp(user: &str) -> Option<Self> {
        Self::kept(user)
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// The number in its usual form, where nobody is asked: without what is dialled within a country only.
    pub fn usual(&self) -> Self {
        self.forms().swap_remove(0)
    }

    /// Whether the other one may be the same number, in another form.
    pub fn may_be(&self, other: &Self) -> bool {
        self == other || self.forms().contains(other) || other.forms().contains(self)
    }

    /// The ways to write what may be this number, in the order in which WhatsApp is asked for them: which of them it knows,
    /// only its server can say.
    ///
    /// Brazil put a 9 in front of mobile numbers, and accounts keep the form that they were registered with; Mexico had a 1
    /// after its country code, Argentina has a 9. Within these two countries other digits were dialled to reach mobiles, and
    /// people keep them when they write the country code: Argentina's 15 behind the area code, Mexico's 044 and 045. They
    /// are left out, as WhatsApp says ("About international phone number format", faq.whatsapp.com/1294841057948784) and as
    /// libphonenumber does (its `PhoneNumberMetadata.xml`, `nationalPrefixForParsing` of AR and MX).
    pub fn forms(&self) -> Vec<Self> {
        let (country, rest) = self.0.split_at_checked(2).unwrap_or((&self.0, ""));
        let with = |country: &str, rest: &str| Self(format!("{country}{rest}").into());
        let (first, second) = match (country, rest.len()) {
            ("55", 11) if rest.as_bytes()[2] == b'9' => (self.clone(), with("55", &[&rest[..2], &rest[3..]].concat())),
            ("55", 10) => (self.clone(), with("55", &[&rest[..2], "9", &rest[2..]].concat())),
            ("52", 11) if rest.starts_with('1') => (self.clone(), with("52", &rest[1..])),
            ("52", 10) => (self.clone(), with("521", rest)),
            ("52", 13) if rest.starts_with("044") || rest.starts_with("045") => {
                (with("52", &rest[3..]), with("521", &rest[3..]))
            }
            ("54", 11) if rest.starts_with('9') => (self.clone(), with("54", &rest[1..])),
            ("54", 10) => (self.clone(), with("549", rest)),
            ("54", 12 | 13) => match without_15(rest.strip_prefix(['9', '0']).unwrap_or(rest)) {
                Some(rest) => (with("549", &rest), with("54", &rest)),
                None => return vec![self.clone()],
            },
            _ => return vec![self.clone()],
        };
        vec![first, second]
    }
}

/// An Argentine number with the area code, without the 15 behind that: 11 for Buenos Aires, three or four digits that begin
/// with 2 or 3 for the rest of the country, ten digits in all.
fn without_15(rest: &str) -> Option<String> {
    let areas = match rest.as_bytes() {
        [b'1', b'1', ..] => 2..=2,
        [b'2' | b'3', ..] => 3..=4,
        _ => return None,
    };
    let area = areas.filter(|_| rest.len() == 12).find(|area| rest[*area..].starts_with("15"))?;
    Some([&rest[..area], &rest[area + 2..]].concat())
}
