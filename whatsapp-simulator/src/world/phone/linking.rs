//! How a phone vouches for its companions ("ADV"): the signatures that tie a device to an account.
//!
//! All signatures are XEdDSA with the account's identity key, over a two-byte prefix and what is signed; facts from
//! whatsmeow's `pair.go` and from `wacore::adv`.

use rand::rngs::StdRng;
use wacore_libsignal::crypto::hmac_sha256;
use wacore_libsignal::protocol::{CurveError, KeyPair, PublicKey};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::signal::raw;
use crate::world::keys::Key;

const ACCOUNT_SIGNATURE: &[u8] = &[6, 0];
const DEVICE_SIGNATURE: &[u8] = &[6, 1];
const KEY_INDEX_LIST_SIGNATURE: &[u8] = &[6, 2];

/// A companion's answer to the pairing is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkingError {
    #[error("the signed device identity cannot be read")]
    Unreadable,
    #[error("it is about other details than those that were sent")]
    OtherDetails,
    #[error("the device signature is wrong")]
    Signature,
}

/// What the phone signs for a new companion.
#[derive(Clone, Debug)]
pub(crate) struct Endorsement {
    details: Vec<u8>,
    account_key: Key,
    account_signature: Vec<u8>,
    companion: Key,
}

fn sign(with: &KeyPair, parts: &[&[u8]]) -> Result<Vec<u8>, CurveError> {
    Ok(with.calculate_signature(&parts.concat(), &mut rand::make_rng::<StdRng>())?.to_vec())
}

impl Endorsement {
    pub(crate) fn new(
        account: &KeyPair,
        companion: Key,
        raw_id: u32,
        key_index: u32,
        timestamp: u64,
    ) -> Result<Self, CurveError> {
        let details = wa::ADVDeviceIdentity {
            raw_id: Some(raw_id),
            timestamp: Some(timestamp),
            key_index: Some(key_index),
            account_type: Some(wa::ADVEncryptionType::E2EE),
            device_type: Some(wa::ADVEncryptionType::E2EE),
        }
        .encode_to_vec();
        let account_signature = sign(account, &[ACCOUNT_SIGNATURE, &details, &companion])?;
        Ok(Self { details, account_key: raw(&account.public_key), account_signature, companion })
    }

    /// The content of `<device-identity>` in `pair-success`, sealed with the secret from the QR code.
    pub(crate) fn seal(&self, adv_secret: &[u8]) -> Vec<u8> {
        let details = self.signed(None).encode_to_vec();
        wa::ADVSignedDeviceIdentityHMAC {
            hmac: Some(hmac_sha256(adv_secret, &details).to_vec()),
            details: Some(details),
            account_type: Some(wa::ADVEncryptionType::E2EE),
        }
        .encode_to_vec()
    }

    /// Checks what the companion signed and returns the identity that others get to see. Clients may leave the account
    /// key out of their answer; it is put back.
    pub(crate) fn accept(&self, answer: &[u8]) -> Result<Vec<u8>, LinkingError> {
        let signed = wa::ADVSignedDeviceIdentity::decode_from_slice(answer).map_err(|_| LinkingError::Unreadable)?;
        if signed.details.as_deref() != Some(&self.details) {
            return Err(LinkingError::OtherDetails);
        }
        let signature = signed.device_signature.ok_or(LinkingError::Signature)?;
        let companion = PublicKey::from_djb_public_key_bytes(&self.companion).map_err(|_| LinkingError::Signature)?;
        let message = [DEVICE_SIGNATURE, &self.details, &self.companion, &self.account_key].concat();
        if !companion.verify_signature(&message, &signature) {
            return Err(LinkingError::Signature);
        }
        Ok(self.signed(Some(signature)).encode_to_vec())
    }

    fn signed(&self, device_signature: Option<Vec<u8>>) -> wa::ADVSignedDeviceIdentity {
        wa::ADVSignedDeviceIdentity {
            details: Some(self.details.clone()),
            account_signature_key: Some(self.account_key.to_vec()),
            account_signature: Some(self.account_signature.clone()),
            device_signature,
        }
    }
}

/// The signed list of the key indexes that are in use. A user with companions and without it is silently skipped by
/// clients.
pub(crate) fn key_index_list(
    account: &KeyPair,
    raw_id: u32,
    current: u32,
    valid: &[u32],
    timestamp: u64,
) -> Result<Vec<u8>, CurveError> {
    let details = wa::ADVKeyIndexList {
        raw_id: Some(raw_id),
        timestamp: Some(timestamp),
        current_index: Some(current),
        valid_indexes: valid.to_vec(),
        account_type: Some(wa::ADVEncryptionType::E2EE),
    }
    .encode_to_vec();
    Ok(wa::ADVSignedKeyIndexList {
        account_signature: Some(sign(account, &[KEY_INDEX_LIST_SIGNATURE, &details])?),
        account_signature_key: Some(raw(&account.public_key).to_vec()),
        details: Some(details),
    }
    .encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::phone::signal::new_key_pair;
    use proptest::prelude::*;

    fn companion_answer(endorsement: &Endorsement, companion: &KeyPair) -> Vec<u8> {
        let message =
            [DEVICE_SIGNATURE, &endorsement.details, &endorsement.companion, &endorsement.account_key].concat();
        let signature = companion.calculate_signature(&message, &mut rand::make_rng::<StdRng>()).unwrap();
        let mut signed = endorsement.signed(Some(signature.to_vec()));
        signed.account_signature_key = None;
        signed.encode_to_vec()
    }

    #[test]
    fn a_companion_that_signs_is_accepted_and_the_account_key_put_back() {
        let (account, companion) = (new_key_pair(), new_key_pair());
        let endorsement = Endorsement::new(&account, raw(&companion.public_key), 1, 1, 0).unwrap();
        let accepted = endorsement.accept(&companion_answer(&endorsement, &companion)).unwrap();
        let identity = wa::ADVSignedDeviceIdentity::decode_from_slice(&accepted).unwrap();
        assert_eq!(identity.account_signature_key, Some(raw(&account.public_key).to_vec()));
    }

    #[test]
    fn another_companions_signature_is_refused() {
        let (account, companion) = (new_key_pair(), new_key_pair());
        let endorsement = Endorsement::new(&account, raw(&companion.public_key), 1, 1, 0).unwrap();
        let forged = companion_answer(&endorsement, &new_key_pair());
        assert_eq!(endorsement.accept(&forged), Err(LinkingError::Signature));
        let other = Endorsement::new(&account, raw(&companion.public_key), 1, 2, 0).unwrap();
        assert_eq!(other.accept(&companion_answer(&endorsement, &companion)), Err(LinkingError::OtherDetails));
    }

    proptest! {
        #[test]
        fn any_answer_is_refused(answer: Vec<u8>) {
            let account = new_key_pair();
            let endorsement = Endorsement::new(&account, [9; 32], 1, 1, 0).unwrap();
            prop_assert!(endorsement.accept(&answer).is_err());
        }
    }
}
