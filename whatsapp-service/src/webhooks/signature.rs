//! Signing webhooks the way <https://www.standardwebhooks.com> describes, so that receivers can check them with a
//! ready-made library.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What every secret begins with.
const PREFIX: &str = "whsec_";
/// The lengths a key may have, in bytes.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// The key that a receiver and the service share.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

/// Why a text is not a signing key. The message never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// The prefix is missing.
    #[error("the secret must begin with `whsec_`, followed by base64")]
    Prefix,
    /// What follows the prefix is not base64.
    #[error("what follows `whsec_` in the secret must be base64 (standard alphabet, with padding)")]
    Base64,
    /// The key has this many bytes, which is too few or too many.
    #[error("the secret holds {0} bytes; it must hold 24 to 64 (`openssl rand -base64 32` makes 32)")]
    Length(usize),
}

impl SigningKey {
    /// A new key of 32 random bytes.
    pub fn generate() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// The key as the text it is stored and shown as: `whsec_` and base64. It is a secret.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The value of `webhook-signature` for a message with this id and body, sent at this time (seconds since 1970).
    pub fn sign(&self, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(format!("{id}.{timestamp_secs}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl FromStr for SigningKey {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?;
        if !KEY_LENGTHS.contains(&key.len()) {
            return Err(InvalidSecret::Length(key.len()));
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use axum::http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SigningKey, InvalidSecret> {
        text.parse()
    }

    fn secret(bytes: usize) -> String {
        format!("{PREFIX}{}", STANDARD.encode(vec![7; bytes]))
    }

    #[test]
    fn signs_the_example_of_the_specification() {
        let key = parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_receiver_with_the_reference_library_accepts_what_is_signed() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let body = r#"{"id":"evt_1","text":"olá"}"#.as_bytes();
        for key in [SigningKey::generate(), parse(&secret(24)).unwrap(), parse(&secret(64)).unwrap()] {
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", "evt_1".parse().unwrap());
            headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
            headers.insert("webhook-signature", key.sign("evt_1", now, body).parse().unwrap());
            let receiver = standardwebhooks::Webhook::new(&key.reveal()).unwrap();
            receiver.verify(body, &headers).unwrap();
            receiver.verify(b"{}", &headers).unwrap_err();
            headers.insert("webhook-id", "evt_2".parse().unwrap());
            receiver.verify(body, &headers).unwrap_err();
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_reason() {
        let ok = secret(32);
        for (text, reason) in [
            ("", InvalidSecret::Prefix),
            (&ok[PREFIX.len()..], InvalidSecret::Prefix),
            (&format!(" {ok}"), InvalidSecret::Prefix),
            (&ok.to_uppercase(), InvalidSecret::Prefix),
            (&format!("{ok}\n"), InvalidSecret::Base64),
            (ok.trim_end_matches('='), InvalidSecret::Base64),
            ("whsec_correct horse battery staple", InvalidSecret::Base64),
            ("whsec_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_", InvalidSecret::Base64),
            ("whsec_", InvalidSecret::Length(0)),
            (&secret(23), InvalidSecret::Length(23)),
            (&secret(65), InvalidSecret::Length(65)),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
        parse(&secret(24)).unwrap();
        parse(&secret(64)).unwrap();
    }

    #[test]
    fn every_generated_key_is_another_and_valid() {
        let (one, other) = (SigningKey::generate(), SigningKey::generate());
        assert_ne!(one, other);
        assert_eq!(parse(&one.reveal()), Ok(one));
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", SigningKey::generate()), "SigningKey(…)");
    }

    proptest! {
        #[test]
        fn text_and_key_are_one_to_one(text in "whsec_[A-Za-z0-9+/]{30,90}={0,2}") {
            if let Ok(key) = parse(&text) {
                prop_assert_eq!(key.reveal(), text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&[PREFIX, &text].concat());
        }
    }
}
