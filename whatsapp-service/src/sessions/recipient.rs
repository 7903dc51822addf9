//! Whom a message is for, as the caller wrote it and in the other forms that a country's numbers have.

/// A phone number in international form: 8 to 15 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient(Box<str>);

/// Says nothing: numbers don't belong into a log.
impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipient")
    }
}

/// Why a text is not a [`Recipient`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`to` needs 8 to 15 digits, with the country code; it has {digits}")]
pub struct InvalidRecipient {
    /// How many digits the text had.
    pub digits: usize,
}

impl Recipient {
    /// Takes the digits of `text`; everything else (`+`, spaces, brackets) is left out.
    pub fn parse(text: &str) -> Result<Self, InvalidRecipient> {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        match digits.len() {
            8..=15 => Ok(Self(digits.into())),
            digits => Err(InvalidRecipient { digits }),
        }
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whether `digits` are this number, in one of its forms.
    pub fn may_be(&self, digits: &str) -> bool {
        *self.0 == *digits || self.other_form().as_deref() == Some(digits)
    }

    /// The other ways to write what may be the same number. Which of them WhatsApp knows, only its server can say.
    ///
    /// Brazil put a 9 in front of mobile numbers, and accounts keep the form that they were registered with; Mexico
    /// had a 1 after its country code, Argentina has a 9.
    pub fn other_form(&self) -> Option<String> {
        let digits = &*self.0;
        let (country, rest) = digits.split_at(2);
        match (country, rest.len()) {
            ("55", 11) if rest.as_bytes()[2] == b'9' => Some(format!("55{}{}", &rest[..2], &rest[3..])),
            ("55", 10) => Some(format!("55{}9{}", &rest[..2], &rest[2..])),
            ("52", 11) if rest.starts_with('1') => Some(format!("52{}", &rest[1..])),
            ("52", 10) => Some(format!("521{rest}")),
            ("54", 11) if rest.starts_with('9') => Some(format!("54{}", &rest[1..])),
            ("54", 10) => Some(format!("549{rest}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(text: &str) -> Option<String> {
        Recipient::parse(text).unwrap().other_form()
    }

    #[test]
    fn only_digits_count() {
        assert_eq!(Recipient::parse("+55 (11) 99999-9999").unwrap().digits(), "5511999999999");
        assert_eq!(Recipient::parse("5511999999999@c.us").unwrap().digits(), "5511999999999");
    }

    #[test]
    fn eight_to_fifteen_of_them() {
        assert_eq!(Recipient::parse("1234567").err(), Some(InvalidRecipient { digits: 7 }));
        assert!(Recipient::parse("12345678").is_ok());
        assert!(Recipient::parse(&"1".repeat(15)).is_ok());
        assert_eq!(Recipient::parse(&"1".repeat(16)).err(), Some(InvalidRecipient { digits: 16 }));
        assert_eq!(Recipient::parse("").err(), Some(InvalidRecipient { digits: 0 }));
        assert_eq!(Recipient::parse("١٢٣٤٥٦٧٨").err(), Some(InvalidRecipient { digits: 0 }));
    }

    #[test]
    fn the_other_form_of_brazil_mexico_and_argentina() {
        assert_eq!(form("5511999998888").as_deref(), Some("551199998888"));
        assert_eq!(form("551199998888").as_deref(), Some("5511999998888"));
        assert_eq!(form("5215512345678").as_deref(), Some("525512345678"));
        assert_eq!(form("525512345678").as_deref(), Some("5215512345678"));
        assert_eq!(form("5491123456789").as_deref(), Some("541123456789"));
        assert_eq!(form("541123456789").as_deref(), Some("5491123456789"));
        assert_eq!(form("4915112345678"), None);
    }

    #[test]
    fn a_number_may_be_written_in_its_other_form() {
        let number = Recipient::parse("5511999998888").unwrap();
        assert!(number.may_be("5511999998888") && number.may_be("551199998888"));
        assert!(!number.may_be("5511999998889") && !number.may_be(""));
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_the_digits_in_order(text in ".{0,40}") {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            match Recipient::parse(&text) {
                Ok(recipient) => {
                    prop_assert_eq!(recipient.digits(), digits);
                    let _ = recipient.other_form();
                }
                Err(error) => prop_assert_eq!(error.digits, digits.len()),
            }
        }

        #[test]
        fn the_other_form_leads_back(digits in "5[245][1-9][0-9]{9,10}") {
            let recipient = Recipient::parse(&digits).unwrap();
            if let Some(other) = recipient.other_form() {
                prop_assert_ne!(&other, &digits);
                prop_assert_eq!(form(&other), Some(digits));
            }
        }
    }
}
