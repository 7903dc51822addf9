//! The text of a linking QR code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::keys::Key;
use super::pairing::PairError;

/// The parts of a QR text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QrText {
    pub(super) reference: String,
    pub(super) noise_key: Key,
    pub(super) identity: Key,
    pub(super) adv_secret: Key,
}

impl QrText {
    /// Reads `ref,noise key,identity key,secret[,client type…]`, with or without a link in front.
    pub(crate) fn parse(text: &str) -> Result<Self, PairError> {
        const MAX_LEN: usize = 2048;
        if text.len() > MAX_LEN {
            return Err(PairError::NotAQr);
        }
        let text = text.trim();
        let body = text.rsplit_once('#').map_or(text, |(_, after)| after);
        let mut fields = body.split(',');
        let reference = fields.next().filter(|r| !r.is_empty()).ok_or(PairError::NotAQr)?.to_owned();
        let mut key = || -> Result<Key, PairError> {
            let bytes = BASE64.decode(fields.next().ok_or(PairError::NotAQr)?).map_err(|_| PairError::NotAQr)?;
            Key::try_from(bytes).map_err(|_| PairError::NotAQr)
        };
        Ok(Self { reference, noise_key: key()?, identity: key()?, adv_secret: key()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qr(reference: &str) -> String {
        let key = |n: u8| BASE64.encode([n; 32]);
        format!("{reference},{},{},{},1", key(1), key(2), key(3))
    }

    #[test]
    fn a_qr_text_is_read_with_and_without_its_link() {
        let plain = QrText::parse(&qr("2@ref")).unwrap();
        let linked = QrText::parse(&format!("https://wa.me/settings/linked_devices#{}\n", qr("2@ref"))).unwrap();
        assert_eq!(plain, linked);
        assert_eq!((plain.reference.as_str(), plain.adv_secret), ("2@ref", [3; 32]));
    }

    use crate::config::Config;
    use crate::world::World;

    #[tokio::test]
    async fn a_code_that_nobody_shows_is_stale() {
        let world = World::new(Config::default());
        assert!(matches!(world.scan_qr(&qr("2@ref"), None).await, Err(PairError::Stale)));
        assert!(matches!(world.scan_qr("hello", None).await, Err(PairError::NotAQr)));
        assert!(matches!(world.hold_up_qr(&qr("2@ref")), Err(PairError::Stale)));
        assert!(world.accounts().is_empty(), "no account is made for nothing");
    }

    proptest! {
        #[test]
        fn any_text_is_a_qr_or_not(text in ".*") {
            let _ = QrText::parse(&text);
        }

        #[test]
        fn anything_with_commas_is_a_qr_or_not(fields in proptest::collection::vec("[A-Za-z0-9+/=@]{0,48}", 0..8)) {
            let _ = QrText::parse(&fields.join(","));
        }
    }
}
