//! The phone's half of the Signal protocol: its keys, its sessions, encrypting and decrypting.
//!
//! Everything is in memory, so the library's futures are ready at once and can be called from plain code.

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use wacore_libsignal::protocol::error::Result as SignalResult;
use wacore_libsignal::protocol::{
    CiphertextMessage, CiphertextMessageType, Direction, GenericSignedPreKey as _, IdentityChange, IdentityKey,
    IdentityKeyPair, IdentityKeyStore, KeyPair, PreKeyBundle, PreKeyId, PreKeyRecord, PreKeySignalMessage, PreKeyStore,
    ProtocolAddress, PublicKey, SessionRecord, SessionStore, SignalMessage, SignalProtocolError, SignedPreKeyId,
    SignedPreKeyRecord, SignedPreKeyStore, Timestamp, UsePQRatchet, message_decrypt, message_encrypt,
    process_prekey_bundle,
};

use crate::world::address::Address;
use crate::world::keys::{Bundle, Key, SignedPrekey};
use crate::world::stanza::Enc;

const SIGNED_PREKEY_ID: u32 = 1;

/// A Signal operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    #[error("signal: {0}")]
    Protocol(#[from] SignalProtocolError),
    #[error("signal: bad key: {0}")]
    Key(#[from] wacore_libsignal::protocol::CurveError),
    #[error("no such ciphertext type")]
    UnknownType,
    #[error("the plaintext's padding is wrong")]
    Padding,
    #[error("a store that is in memory made the library wait")]
    NotReady,
    #[error("a fault says that it is unreadable")]
    Pretended,
}

impl SignalError {
    /// Whether the key of this message was used for another one before.
    pub(crate) fn is_reused_counter(&self) -> bool {
        matches!(self, Self::Protocol(SignalProtocolError::DuplicatedMessage(..)))
    }
}

/// A key pair from the operating system's randomness.
pub(crate) fn new_key_pair() -> KeyPair {
    KeyPair::generate(&mut rand::make_rng::<StdRng>())
}

/// The 32 bytes of a public key.
pub(crate) fn raw(key: &PublicKey) -> Key {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(key.public_key_bytes());
    bytes
}

#[derive(Default)]
struct Sessions(HashMap<String, SessionRecord>);

struct Identities {
    own: IdentityKeyPair,
    registration_id: u32,
    peers: HashMap<String, IdentityKey>,
}

#[derive(Default)]
struct Prekeys {
    records: HashMap<u32, PreKeyRecord>,
    last: u32,
}

struct SignedPrekeys(SignedPreKeyRecord);

/// All of a phone's Signal state.
pub(crate) struct Signal {
    identity: KeyPair,
    signed_prekey: SignedPrekey,
    sessions: Sessions,
    identities: Identities,
    prekeys: Prekeys,
    signed: SignedPrekeys,
}

impl Signal {
    /// A phone fresh from the box.
    pub(crate) fn generate(identity: KeyPair, registration_id: u32) -> Result<Self, SignalError> {
        let pair = new_key_pair();
        let signature =
            identity.calculate_signature(&pair.public_key.serialize(), &mut rand::make_rng::<StdRng>())?.to_vec();
        let record = SignedPreKeyRecord::new(
            SignedPreKeyId::from(SIGNED_PREKEY_ID),
            Timestamp::from_epoch_millis(0),
            &pair,
            &signature,
        );
        Ok(Self {
            signed_prekey: SignedPrekey { id: SIGNED_PREKEY_ID, key: raw(&pair.public_key), signature },
            sessions: Sessions::default(),
            identities: Identities {
                own: IdentityKeyPair::from(identity.clone()),
                registration_id,
                peers: HashMap::new(),
            },
            prekeys: Prekeys::default(),
            signed: SignedPrekeys(record),
            identity,
        })
    }

    pub(crate) fn registration_id(&self) -> u32 {
        self.identities.registration_id
    }

    /// A bundle with a one-time key made for this asking.
    pub(crate) fn bundle(&mut self) -> Bundle {
        let pair = new_key_pair();
        self.prekeys.last = self.prekeys.last % 0x00ff_ffff + 1;
        let id = self.prekeys.last;
        self.prekeys.records.insert(id, PreKeyRecord::new(PreKeyId::from(id), &pair));
        Bundle {
            registration_id: self.identities.registration_id,
            identity: raw(&self.identity.public_key),
            signed_prekey: self.signed_prekey.clone(),
            prekey: Some((id, raw(&pair.public_key))),
            device_identity: None,
        }
    }

    pub(crate) fn has_session(&self, with: Address) -> bool {
        self.sessions.0.contains_key(address(with).as_str())
    }

    pub(crate) fn drop_session(&mut self, with: Address) {
        self.sessions.0.remove(address(with).as_str());
    }

    /// The session as it is now, to be put back later.
    #[cfg(test)]
    pub(crate) fn session(&self, with: Address) -> SessionRecord {
        self.sessions.0[address(with).as_str()].clone()
    }

    #[cfg(test)]
    pub(crate) fn put_session(&mut self, with: Address, session: SessionRecord) {
        self.sessions.0.insert(address(with).as_str().to_owned(), session);
    }

    /// Starts a session from a bundle.
    pub(crate) fn start_session(&mut self, with: Address, bundle: &Bundle) -> Result<(), SignalError> {
        let prekey = match &bundle.prekey {
            Some((id, key)) => Some((PreKeyId::from(*id), PublicKey::from_djb_public_key_bytes(key)?)),
            None => None,
        };
        let bundle = PreKeyBundle::new(
            bundle.registration_id,
            u32::from(with.device).into(),
            prekey,
            SignedPreKeyId::from(bundle.signed_prekey.id),
            PublicKey::from_djb_public_key_bytes(&bundle.signed_prekey.key)?,
            bundle.signed_prekey.signature.clone(),
            IdentityKey::new(PublicKey::from_djb_public_key_bytes(&bundle.identity)?),
        )?;
        ready(process_prekey_bundle(
            &address(with),
            &mut self.sessions,
            &mut self.identities,
            &bundle,
            &mut rand::make_rng::<StdRng>(),
            UsePQRatchet::No,
        ))?;
        Ok(())
    }

    /// Encrypts for a device with which there is a session.
    pub(crate) fn encrypt(&mut self, to: Address, plaintext: &[u8]) -> Result<Enc, SignalError> {
        let padded = pad(plaintext);
        let message = ready(message_encrypt(&padded, &address(to), &mut self.sessions, &mut self.identities))?;
        let kind = match message.message_type() {
            CiphertextMessageType::PreKey => "pkmsg",
            CiphertextMessageType::Whisper => "msg",
            _ => return Err(SignalError::UnknownType),
        };
        Ok(Enc {
            kind: kind.to_owned(),
            attrs: vec![("v".to_owned(), "2".to_owned())],
            bytes: message.serialize().to_vec(),
        })
    }

    /// Decrypts what a device sent. A failed attempt leaves the session as it was.
    pub(crate) fn decrypt(&mut self, from: Address, enc: &Enc) -> Result<Vec<u8>, SignalError> {
        let ciphertext = match enc.kind.as_str() {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(enc.bytes.as_slice())?),
            "msg" => CiphertextMessage::SignalMessage(SignalMessage::try_from(enc.bytes.as_slice())?),
            _ => return Err(SignalError::UnknownType),
        };
        let result = ready(message_decrypt(
            &ciphertext,
            &address(from),
            &mut self.sessions,
            &mut self.identities,
            &mut self.prekeys,
            &self.signed,
            &mut rand::make_rng::<StdRng>(),
            UsePQRatchet::No,
        ))?;
        if let Some(used) = result.consumed_prekey_id {
            self.prekeys.records.remove(&u32::from(used));
        }
        unpad(result.plaintext)
    }
}

fn address(of: Address) -> ProtocolAddress {
    ProtocolAddress::new(&of.account.0.to_string(), u32::from(of.device).into())
}

fn ready<T>(future: impl Future<Output = SignalResult<T>>) -> Result<T, SignalError> {
    Ok(future.now_or_never().ok_or(SignalError::NotReady)??)
}

/// WhatsApp pads every plaintext with 1 to 16 bytes that each say how many there are.
fn pad(plaintext: &[u8]) -> Vec<u8> {
    let count = rand::random::<u8>() % 16 + 1;
    let mut padded = Vec::with_capacity(plaintext.len() + usize::from(count));
    padded.extend_from_slice(plaintext);
    padded.resize(plaintext.len() + usize::from(count), count);
    padded
}

fn unpad(mut padded: Vec<u8>) -> Result<Vec<u8>, SignalError> {
    let count = usize::from(*padded.last().ok_or(SignalError::Padding)?);
    if count == 0 || count > padded.len() {
        return Err(SignalError::Padding);
    }
    padded.truncate(padded.len() - count);
    Ok(padded)
}

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> SignalResult<Option<SessionRecord>> {
        Ok(self.0.get(address.as_str()).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> SignalResult<bool> {
        Ok(self.0.contains_key(address.as_str()))
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> SignalResult<()> {
        self.0.insert(address.as_str().to_owned(), record);
        Ok(())
    }
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> SignalResult<IdentityKeyPair> {
        Ok(self.own.clone())
    }

    async fn get_local_registration_id(&self) -> SignalResult<u32> {
        Ok(self.registration_id)
    }

    async fn save_identity(&mut self, address: &ProtocolAddress, key: &IdentityKey) -> SignalResult<IdentityChange> {
        let changed = self.peers.insert(address.as_str().to_owned(), *key).is_some_and(|before| before != *key);
        Ok(if changed { IdentityChange::ReplacedExisting } else { IdentityChange::NewOrUnchanged })
    }

    /// A phone that people use accepts a contact's new identity, and so does this one.
    async fn is_trusted_identity(
        &self,
        _address: &ProtocolAddress,
        _key: &IdentityKey,
        _direction: Direction,
    ) -> SignalResult<bool> {
        Ok(true)
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> SignalResult<Option<IdentityKey>> {
        Ok(self.peers.get(address.as_str()).copied())
    }
}

#[async_trait]
impl PreKeyStore for Prekeys {
    async fn get_pre_key(&self, id: PreKeyId) -> SignalResult<PreKeyRecord> {
        self.records.get(&u32::from(id)).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> SignalResult<()> {
        self.records.insert(u32::from(id), record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> SignalResult<()> {
        self.records.remove(&u32::from(id));
        Ok(())
    }
}

#[async_trait]
impl SignedPreKeyStore for SignedPrekeys {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> SignalResult<SignedPreKeyRecord> {
        if u32::from(id) == SIGNED_PREKEY_ID {
            Ok(self.0.clone())
        } else {
            Err(SignalProtocolError::InvalidSignedPreKeyId)
        }
    }

    async fn save_signed_pre_key(&mut self, _id: SignedPreKeyId, record: &SignedPreKeyRecord) -> SignalResult<()> {
        self.0 = record.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::address::AccountId;
    use proptest::prelude::*;

    fn phone(id: u32) -> (Signal, Address) {
        (Signal::generate(new_key_pair(), id).unwrap(), Address::phone(AccountId(id)))
    }

    #[test]
    fn two_phones_talk() {
        let ((mut ana, ana_at), (mut bruno, bruno_at)) = (phone(1), phone(2));
        ana.start_session(bruno_at, &bruno.bundle()).unwrap();
        let first = ana.encrypt(bruno_at, b"hello").unwrap();
        assert!(first.is_prekey());
        assert_eq!(bruno.decrypt(ana_at, &first).unwrap(), b"hello");
        let answer = bruno.encrypt(ana_at, b"hi").unwrap();
        assert_eq!(answer.kind, "msg");
        assert_eq!(ana.decrypt(bruno_at, &answer).unwrap(), b"hi");
        assert_eq!(ana.encrypt(bruno_at, b"").unwrap().kind, "msg");
    }

    #[test]
    fn a_message_is_read_once_and_only_by_its_addressee() {
        let ((mut ana, ana_at), (mut bruno, bruno_at), (mut clara, _)) = (phone(1), phone(2), phone(3));
        ana.start_session(bruno_at, &bruno.bundle()).unwrap();
        let message = ana.encrypt(bruno_at, b"for Bruno").unwrap();
        assert!(clara.decrypt(ana_at, &message).is_err());
        assert!(bruno.decrypt(ana_at, &message).is_ok());
        assert!(bruno.decrypt(ana_at, &message).is_err());
    }

    proptest! {
        #[test]
        fn padding_comes_off_again(text: Vec<u8>) {
            prop_assert_eq!(unpad(pad(&text)).unwrap(), text);
        }

        #[test]
        fn any_ciphertext_is_refused(bytes: Vec<u8>, prekey: bool) {
            let (mut ana, _) = phone(1);
            let kind = if prekey { "pkmsg" } else { "msg" }.to_owned();
            let enc = Enc { kind, attrs: Vec::new(), bytes };
            prop_assert!(ana.decrypt(Address::phone(AccountId(2)), &enc).is_err());
        }
    }
}
