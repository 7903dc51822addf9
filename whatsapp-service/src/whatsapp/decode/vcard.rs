//! What a vCard says of a person: the name and the numbers.

use serde::Serialize;
use utoipa::ToSchema;

/// Somebody whose card was sent.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ReceivedContact)]
pub struct Contact {
    /// The name, as it is to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The numbers, as they are written there.
    pub phones: Vec<String>,
}

impl Contact {
    /// What a card says; `name` where it has none itself.
    pub fn read(card: &str, name: Option<&str>) -> Self {
        let mut contact = Self::default();
        for line in unfolded(card) {
            let Some((property, value)) = split(&line) else { continue };
            match property.as_str() {
                "FN" if contact.name.is_none() => contact.name = Some(unescaped(value)),
                "TEL" => contact.phones.push(unescaped(value.strip_prefix("tel:").unwrap_or(value))),
                _ => {}
            }
        }
        contact.phones.retain(|phone| !phone.is_empty());
        contact.name = contact.name.filter(|name| !name.is_empty());
        contact.name = contact.name.or_else(|| name.filter(|name| !name.is_empty()).map(str::to_owned));
        contact
    }
}

/// The lines, those that were folded into several in one piece again.
fn unfolded(card: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in card.lines() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(rest), Some(line)) => line.push_str(rest),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// A line's property, without its group and its parameters, and its value. A parameter between quotes may hold a colon.
fn split(line: &str) -> Option<(String, &str)> {
    let mut quoted = false;
    let at = line.find(|c| {
        quoted ^= c == '"';
        c == ':' && !quoted
    })?;
    let name = line[..at].split(';').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    Some((name.trim().to_ascii_uppercase(), line[at + 1..].trim()))
}

fn unescaped(value: &str) -> String {
    let (mut text, mut escaped) = (String::with_capacity(value.len()), false);
    for c in value.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            'n' | 'N' if escaped => text.push('\n'),
            c => text.push(c),
        }
        escaped = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(name: &str, phones: &[&str]) -> Contact {
        Contact { name: Some(name.into()), phones: phones.iter().map(|&phone| phone.into()).collect() }
    }

    #[test]
    fn the_name_and_the_numbers_are_found() {
        let card = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:;Bruno\\, o Grande;;;\r\nFN:Bruno\\, o \r\n Grande\\nde Souza\r\n\
                    item1.TEL;type=CELL;waid=5511888888888:+55 11 88888-8888\r\nitem1.X-ABLabel:Celular\r\n\
                    TEL;TYPE=\"work:voice\":tel:+551133334444\r\nPHOTO;BASE64:AAAA\r\nEND:VCARD";
        let expected = contact("Bruno, o Grande\nde Souza", &["+55 11 88888-8888", "+551133334444"]);
        assert_eq!(Contact::read(card, Some("another")), expected);
    }

    #[test]
    fn what_a_card_does_not_say_is_not_made_up() {
        assert_eq!(Contact::read("", None), Contact::default());
        assert_eq!(Contact::read("BEGIN:VCARD\nTEL:\nnonsense\n:\nFN:\n", Some("Ana")), contact("Ana", &[]));
    }
}
