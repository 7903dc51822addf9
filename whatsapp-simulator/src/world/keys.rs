//! The public keys that a companion leaves with the server, and the bundles made of them.

use std::collections::VecDeque;

use sha2::Digest as _;

/// A public curve key.
pub(crate) type Key = [u8; 32];

/// A signed prekey's public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedPrekey {
    pub(crate) id: u32,
    pub(crate) key: Key,
    pub(crate) signature: Vec<u8>,
}

/// What someone needs to start a session with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) registration_id: u32,
    pub(crate) identity: Key,
    pub(crate) signed_prekey: SignedPrekey,
    pub(crate) prekey: Option<(u32, Key)>,
    /// The signed device identity of a companion; the phone has none.
    pub(crate) device_identity: Option<Vec<u8>>,
}

/// Below this many one-time keys the server asks for more.
pub(crate) const LOW_WATER: usize = 10;

/// The most one-time keys that are kept per device; clients upload 812 at most.
const MAX_PREKEYS: usize = 4096;

/// The keys of one companion.
#[derive(Clone, Debug)]
pub(crate) struct DeviceKeys {
    pub(crate) registration_id: u32,
    pub(crate) identity: Key,
    pub(crate) signed_prekey: SignedPrekey,
    one_time: VecDeque<(u32, Key)>,
    /// Whether a bundle was ever uploaded: until then there is nothing to give a digest of.
    uploaded: bool,
}

impl DeviceKeys {
    pub(crate) fn new(registration_id: u32, identity: Key, signed_prekey: SignedPrekey) -> Self {
        Self { registration_id, identity, signed_prekey, one_time: VecDeque::new(), uploaded: false }
    }

    /// Takes in an upload. Keys that are there already stay where they are.
    pub(crate) fn upload(&mut self, signed_prekey: SignedPrekey, prekeys: Vec<(u32, Key)>) {
        self.signed_prekey = signed_prekey;
        self.uploaded = true;
        let known: std::collections::HashSet<u32> = self.one_time.iter().map(|(id, _)| *id).collect();
        let room = MAX_PREKEYS.saturating_sub(self.one_time.len());
        self.one_time.extend(prekeys.into_iter().filter(|(id, _)| !known.contains(id)).take(room));
    }

    pub(crate) fn count(&self) -> usize {
        self.one_time.len()
    }

    /// A bundle, with a one-time key that no one else gets.
    pub(crate) fn take_bundle(&mut self, device_identity: Vec<u8>) -> Bundle {
        Bundle {
            registration_id: self.registration_id,
            identity: self.identity,
            signed_prekey: self.signed_prekey.clone(),
            prekey: self.one_time.pop_front(),
            device_identity: Some(device_identity),
        }
    }

    /// The ids that are left and a SHA-1 over all public keys, for a client that compares notes.
    pub(crate) fn digest(&self) -> Option<(Vec<u32>, Vec<u8>)> {
        if !self.uploaded {
            return None;
        }
        let ids = self.one_time.iter().map(|(id, _)| *id).collect();
        let keys: Vec<u8> = self.one_time.iter().flat_map(|(_, key)| key).copied().collect();
        let mut hash = wacore_libsignal::crypto::CryptographicHash::new("SHA-1").ok()?;
        hash.update(&self.identity);
        hash.update(&self.signed_prekey.key);
        hash.update(&self.signed_prekey.signature);
        hash.update(&keys);
        Some((ids, hash.finalize()))
    }
}

/// A participant-independent hash of a device list: it changes whenever the list does.
pub(crate) fn list_hash(indexes: &[u32]) -> String {
    use base64::Engine as _;
    let mut hash = sha2::Sha256::new();
    for index in indexes {
        hash.update(index.to_be_bytes());
    }
    format!("2:{}", base64::engine::general_purpose::STANDARD.encode(&hash.finalize()[..6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> DeviceKeys {
        DeviceKeys::new(7, [1; 32], SignedPrekey { id: 1, key: [2; 32], signature: vec![3; 64] })
    }

    #[test]
    fn a_one_time_key_is_handed_out_once() {
        let mut keys = keys();
        assert!(keys.digest().is_none());
        let signed = keys.signed_prekey.clone();
        keys.upload(signed.clone(), vec![(1, [4; 32]), (2, [5; 32])]);
        keys.upload(signed, vec![(2, [5; 32]), (3, [6; 32])]);
        let handed: Vec<_> = (0..4).map(|_| keys.take_bundle(Vec::new()).prekey.map(|(id, _)| id)).collect();
        assert_eq!(handed, [Some(1), Some(2), Some(3), None]);
        assert_eq!(keys.count(), 0);
    }

    #[test]
    fn the_digest_covers_what_is_left() {
        let mut keys = keys();
        let signed = keys.signed_prekey.clone();
        keys.upload(signed, vec![(1, [4; 32]), (2, [5; 32])]);
        let (before, hash_before) = keys.digest().unwrap();
        keys.take_bundle(Vec::new());
        let (after, hash_after) = keys.digest().unwrap();
        assert_eq!((before, after), (vec![1, 2], vec![2]));
        assert_ne!(hash_before, hash_after);
        assert_eq!(hash_after.len(), 20);
    }
}
