//! The phone's half of pairing by code: both sides prove with an eight-character code that they mean each other.
//!
//! The code, stretched by PBKDF2, hides the ephemeral keys that the two exchange; facts from `wacore::pair_code`.

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wacore_libsignal::crypto::aes_256_gcm_decrypt;
use wacore_libsignal::protocol::{KeyPair, PublicKey};

use super::signal::{new_key_pair, raw};
use crate::world::keys::Key;

const ROUNDS: u32 = 131_072;
const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";
const WRAPPED_LEN: usize = 80;
const BUNDLE_KEY_INFO: &[u8] = b"link_code_pairing_key_bundle_encryption_key";

/// A pairing by code cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// What was typed is no code at all.
    #[error("a pairing code is eight characters of 1-9 and A-Z without I, O, U")]
    Malformed,
    /// The companion's answer does not open: it shows another code.
    #[error("the code is wrong")]
    Wrong,
    /// The companion sent something that is not of the protocol.
    #[error("the companion's pairing data cannot be read")]
    Unreadable,
}

/// A pairing code as typed: dashes, blanks and case do not count.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PairCode(String);

impl PairCode {
    pub(crate) fn parse(text: &str) -> Result<Self, CodeError> {
        if text.len() > 32 {
            return Err(CodeError::Malformed);
        }
        let code: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
        if code.len() == 8 && code.bytes().all(|b| ALPHABET.contains(&b)) {
            Ok(Self(code))
        } else {
            Err(CodeError::Malformed)
        }
    }

    fn stretch(&self, salt: &[u8]) -> Result<[u8; 32], CodeError> {
        let keyed = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).map_err(|_| CodeError::Malformed)?;
        let mut round = keyed.clone();
        round.update(salt);
        round.update(&1_u32.to_be_bytes());
        let mut last: [u8; 32] = round.finalize().into_bytes().into();
        let mut key = last;
        for _ in 1..ROUNDS {
            let mut round = keyed.clone();
            round.update(&last);
            last = round.finalize().into_bytes().into();
            key.iter_mut().zip(last).for_each(|(k, l)| *k ^= l);
        }
        Ok(key)
    }

    /// Hides, or reveals, an ephemeral key: AES-256-CTR under the stretched code.
    fn mask(&self, salt: &[u8], iv: &[u8; 16], key: &mut Key) -> Result<(), CodeError> {
        let stretched = self.stretch(salt)?;
        ctr::Ctr128BE::<aes::Aes256>::new(&stretched.into(), iv.into()).apply_keystream(key);
        Ok(())
    }
}

/// The phone after the code was typed, waiting for the companion's key bundle.
pub(crate) struct PrimaryHello {
    ephemeral: KeyPair,
    companion_ephemeral: Key,
    /// What the companion is sent: `salt ‖ iv ‖ masked ephemeral key`.
    pub(crate) wrapped: Vec<u8>,
}

impl PrimaryHello {
    /// Reads the companion's wrapped ephemeral key and makes the phone's own. Takes about a tenth of a second.
    pub(crate) fn new(code: &PairCode, companion_wrapped: &[u8]) -> Result<Self, CodeError> {
        let (salt, iv, mut companion_ephemeral) = unwrap_parts(companion_wrapped)?;
        code.mask(&salt, &iv, &mut companion_ephemeral)?;
        let ephemeral = new_key_pair();
        let (salt, iv) = (rand::random::<[u8; 32]>(), rand::random::<[u8; 16]>());
        let mut masked = raw(&ephemeral.public_key);
        code.mask(&salt, &iv, &mut masked)?;
        Ok(Self { ephemeral, companion_ephemeral, wrapped: [&salt[..], &iv, &masked].concat() })
    }

    /// Opens the companion's key bundle and derives the secret that seals the pairing.
    pub(crate) fn finish(&self, identity: &KeyPair, bundle: &[u8], companion: Key) -> Result<[u8; 32], CodeError> {
        let agree = |ours: &KeyPair, theirs: &Key| {
            let theirs = PublicKey::from_djb_public_key_bytes(theirs).map_err(|_| CodeError::Unreadable)?;
            ours.calculate_agreement(&theirs).map_err(|_| CodeError::Unreadable)
        };
        let (salt, rest) = bundle.split_first_chunk::<32>().ok_or(CodeError::Unreadable)?;
        let (iv, sealed) = rest.split_first_chunk::<12>().ok_or(CodeError::Unreadable)?;
        let ephemeral_secret = agree(&self.ephemeral, &self.companion_ephemeral)?;
        let key = derive(&ephemeral_secret, Some(salt), BUNDLE_KEY_INFO)?;
        let mut opened = Vec::new();
        aes_256_gcm_decrypt(&key, iv, b"", sealed, &mut opened).map_err(|_| CodeError::Wrong)?;
        if opened.len() != 96 || opened[..32] != companion || opened[32..64] != raw(&identity.public_key) {
            return Err(CodeError::Unreadable);
        }
        let identity_secret = agree(identity, &companion)?;
        derive(&[&ephemeral_secret[..], &identity_secret, &opened[64..]].concat(), None, b"adv_secret")
    }
}

/// Whether a companion's wrapped key has the right shape, before anyone types a code.
pub(crate) fn is_wrapped_key(bytes: &[u8]) -> bool {
    bytes.len() == WRAPPED_LEN
}

fn unwrap_parts(wrapped: &[u8]) -> Result<([u8; 32], [u8; 16], Key), CodeError> {
    let (salt, rest) = wrapped.split_first_chunk::<32>().ok_or(CodeError::Unreadable)?;
    let (iv, rest) = rest.split_first_chunk::<16>().ok_or(CodeError::Unreadable)?;
    let key = Key::try_from(rest).map_err(|_| CodeError::Unreadable)?;
    Ok((*salt, *iv, key))
}

fn derive(secret: &[u8], salt: Option<&[u8]>, info: &[u8]) -> Result<[u8; 32], CodeError> {
    let mut key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(salt, secret).expand(info, &mut key).map_err(|_| CodeError::Unreadable)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wacore_libsignal::crypto::aes_256_gcm_encrypt;

    /// The companion's side, written from the same facts.
    fn companion(
        code: &str,
        hello: impl FnOnce(&[u8]) -> PrimaryHello,
        identity: &KeyPair,
        primary: &KeyPair,
    ) -> Result<bool, CodeError> {
        let code = PairCode::parse(code)?;
        let ephemeral = new_key_pair();
        let (salt, iv) = ([1_u8; 32], [2_u8; 16]);
        let mut masked = raw(&ephemeral.public_key);
        code.mask(&salt, &iv, &mut masked)?;
        let hello = hello(&[&salt[..], &iv, &masked].concat());
        let (salt, iv, mut theirs) = unwrap_parts(&hello.wrapped)?;
        code.mask(&salt, &iv, &mut theirs)?;
        let secret = ephemeral.calculate_agreement(&PublicKey::from_djb_public_key_bytes(&theirs).unwrap()).unwrap();
        let key = derive(&secret, Some(&[3; 32]), BUNDLE_KEY_INFO)?;
        let plain = [&raw(&identity.public_key)[..], &raw(&primary.public_key), &[5; 32]].concat();
        let mut bundle = [&[3_u8; 32][..], &[4; 12]].concat();
        aes_256_gcm_encrypt(&key, &[4; 12], b"", &plain, &mut bundle).unwrap();
        let identity_secret = identity.calculate_agreement(&primary.public_key).unwrap();
        let adv = derive(&[&secret[..], &identity_secret, &[5; 32]].concat(), None, b"adv_secret")?;
        Ok(hello.finish(primary, &bundle, raw(&identity.public_key))? == adv)
    }

    #[test]
    fn the_right_code_gives_both_the_same_secret_and_a_wrong_one_none() {
        let (identity, primary) = (new_key_pair(), new_key_pair());
        let typed = |code: &'static str| {
            move |wrapped: &[u8]| PrimaryHello::new(&PairCode::parse(code).unwrap(), wrapped).unwrap()
        };
        assert_eq!(companion("ABCD-1234", typed("abcd1234"), &identity, &primary), Ok(true));
        assert_eq!(companion("ABCD-1234", typed("ABCD-1235"), &identity, &primary), Err(CodeError::Wrong));
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        assert!(PairCode::parse("abcd 1234") == PairCode::parse("ABCD-1234"));
        for wrong in ["", "ABCD-123", "ABCD-12345", "ABCO-1234", "ABCD-123é"] {
            assert!(PairCode::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_a_code_or_not(text in ".*") {
            let _ = PairCode::parse(&text);
        }

        #[test]
        fn any_bundle_is_refused(bundle: Vec<u8>, companion: [u8; 32]) {
            let hello = PrimaryHello { ephemeral: new_key_pair(), companion_ephemeral: [7; 32], wrapped: Vec::new() };
            prop_assert!(hello.finish(&new_key_pair(), &bundle, companion).is_err());
        }

        #[test]
        fn any_wrapped_key_has_the_right_length_or_is_refused(bytes: Vec<u8>) {
            prop_assert_eq!(unwrap_parts(&bytes).is_ok(), is_wrapped_key(&bytes));
        }
    }
}
