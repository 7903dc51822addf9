//! Phone numbers: what counts as one, and which spellings of it WhatsApp treats as the same.

use std::fmt;

/// A phone number: 7 to 15 digits with the country code, no leading zero, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Phone(String);

/// The text is not a phone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a phone number is 7 to 15 digits with the country code")]
pub struct InvalidPhone;

impl Phone {
    /// Reads a number that consists of digits only.
    ///
    /// # Errors
    /// [`InvalidPhone`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidPhone> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if digits && (7..=15).contains(&text.len()) && !text.starts_with('0') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPhone)
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The other spellings under which the same subscriber is found: Brazilian mobiles with and without the ninth
    /// digit, Mexican ones as `52` and `521`, Argentine ones as `54` and `549`.
    pub(crate) fn other_forms(&self) -> Vec<Phone> {
        let n = self.0.as_str();
        let form = match (n.get(..2), n.len()) {
            // 55, two digits of area, and eight digits of which mobiles start with 6 to 9.
            (Some("55"), 12) if matches!(n.as_bytes()[4], b'6'..=b'9') => format!("{}9{}", &n[..4], &n[4..]),
            (Some("55"), 13) if n.as_bytes()[4] == b'9' => format!("{}{}", &n[..4], &n[5..]),
            (Some("52"), 12) => format!("521{}", &n[2..]),
            (Some("52"), 13) if n.as_bytes()[2] == b'1' => format!("52{}", &n[3..]),
            (Some("54"), 12) => format!("549{}", &n[2..]),
            (Some("54"), 13) if n.as_bytes()[2] == b'9' => format!("54{}", &n[3..]),
            _ => return Vec::new(),
        };
        vec![Self(form)]
    }

    /// The number with all but its last four digits hidden, for logs.
    pub(crate) fn masked(&self) -> String {
        format!("…{}", &self.0[self.0.len() - 4..])
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forms(text: &str) -> Vec<String> {
        let phone = Phone::parse(text).expect("a valid number");
        phone.other_forms().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_ninth_digit_works_in_both_directions() {
        assert_eq!(forms("5511999998888"), ["551199998888"]);
        assert_eq!(forms("551199998888"), ["5511999998888"]);
    }

    #[test]
    fn a_brazilian_land_line_has_one_form() {
        assert!(forms("551133334444").is_empty());
    }

    #[test]
    fn mexico_and_argentina_have_two_forms() {
        assert_eq!(forms("525512345678"), ["5215512345678"]);
        assert_eq!(forms("5215512345678"), ["525512345678"]);
        assert_eq!(forms("541112345678"), ["5491112345678"]);
        assert_eq!(forms("5491112345678"), ["541112345678"]);
    }

    #[test]
    fn punctuation_letters_and_wrong_lengths_are_refused() {
        for text in ["", "123456", "0123456789", "+5511999998888", "55 11", "1234567890123456", "５５１１９９９９９"]
        {
            assert_eq!(Phone::parse(text), Err(InvalidPhone), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            if let Ok(phone) = Phone::parse(&text) {
                prop_assert_eq!(phone.as_str(), text.as_str());
                phone.masked();
            }
        }

        #[test]
        fn another_form_of_another_form_is_the_number_itself(text in "[1-9][0-9]{6,14}") {
            let phone = Phone::parse(&text).unwrap();
            for other in phone.other_forms() {
                prop_assert!(other.other_forms().contains(&phone), "{} <-> {}", phone, other);
                prop_assert!(Phone::parse(other.as_str()).is_ok());
            }
        }
    }
}
