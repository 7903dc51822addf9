//! Encryption at rest: values that nobody can read, alter or put elsewhere without the key.
//!
//! A sealed value is a random nonce of 12 bytes, and then the value under AES-256-GCM-SIV (RFC 8452) with its tag of 16
//! bytes. Should two nonces ever be the same, as after the copy of a running machine, that only shows whether two values
//! of one place are the same. What is sealed is bound to its column and row: moved to another, it does not open. Without
//! a key a value is kept as it is.
//!
//! [`COLUMNS`] says what is sealed. What is looked up can't be, nor what sorts and counts: see
//! `docs/operations.md`.

use std::{borrow::Cow, sync::Arc};

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce};
use base64::{Engine, prelude::BASE64_STANDARD};
use rusqlite::types::Type;
use zeroize::Zeroizing;

const KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// A column whose values are sealed.
#[derive(Debug)]
pub struct Column {
    /// Its table.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The columns that say which row it is, in the order in which their values are handed to [`Seal`]. For `tenant` that
    /// is the tenant's name, not its number.
    pub row: &'static [&'static str],
}

/// What messages say.
pub const CONTENT: Column = Column { table: "messages", name: "content", row: &["tenant", "id", "recipient"] };
/// The same as it was sealed up to schema 5.
pub const CONTENT_WITHOUT_RECIPIENT: Column = Column { table: "messages", name: "content", row: &["tenant", "id"] };
/// What events tell; incoming texts are in it.
pub const DATA: Column = Column { table: "events", name: "data", row: &["tenant", "sequence"] };
/// Digests of calls: the text of a short message could be found by trying.
pub const FINGERPRINT: Column = Column { table: "idempotency", name: "fingerprint", row: &["tenant", "key"] };
/// Where webhooks lead; some hold a token.
pub const WEBHOOK_URL: Column = Column { table: "webhooks", name: "url", row: &["tenant"] };
/// What webhooks are signed with.
pub const WEBHOOK_SECRET: Column = Column { table: "webhooks", name: "secret", row: &["tenant"] };

/// What is known of sessions: the account's number, a ban, the proxy with its password.
pub const RECORD: Column = Column { table: "stores", name: "record", row: &["tenant", "key"] };
/// What devices need: credentials, keys, ratchets, and texts that may be asked for again.
pub const VALUE: Column = Column { table: "state", name: "value", row: &["store", "kind", "name"] };

/// All columns whose values are sealed.
pub const COLUMNS: [&Column; 7] = [&CONTENT, &DATA, &FINGERPRINT, &WEBHOOK_URL, &WEBHOOK_SECRET, &RECORD, &VALUE];

/// What shows that a key is the one that a database was sealed with.
const PROOF: Column = Column { table: "sealing", name: "proof", row: &[] };

/// Seals and opens values, with a key or without. The key is never printed, and wiped when the last clone goes.
#[derive(Clone)]
pub struct Seal(Option<Arc<Zeroizing<[u8; KEY]>>>);

/// Why a text is not a key. It doesn't repeat it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is not 32 bytes in base64: make one with `openssl rand -base64 32`")]
pub struct InvalidKey;

/// Why a database and a key don't go together.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WrongKey {
    /// There is none.
    #[error(
        "the database is encrypted, and no key is set: set ENCRYPTION_KEY or ENCRYPTION_KEY_FILE. Nothing was changed"
    )]
    Missing,
    /// It is another one.
    #[error("the database is encrypted with another key than ENCRYPTION_KEY. Nothing was changed")]
    Other,
    /// There is one, but the values are not sealed.
    #[error(
        "ENCRYPTION_KEY is set, and the database is not encrypted. To encrypt it, run `whatsapp-service rekey` with the \
         key as NEW_ENCRYPTION_KEY and without ENCRYPTION_KEY. Nothing was changed"
    )]
    NotNeeded,
}

/// A value that can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("a value of {}.{} is damaged, or was not sealed here", .0.table, .0.name)]
pub struct Unreadable(&'static Column);

impl From<Unreadable> for rusqlite::Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::FromSqlConversionFailure(0, Type::Blob, unreadable.into())
    }
}

impl Seal {
    /// Leaves everything as it is.
    pub const NONE: Self = Self(None);

    /// Seals with this key: 32 bytes in base64.
    pub fn with_key(text: &str) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).map_err(|_| InvalidKey)?);
        let mut key = Zeroizing::new([0; KEY]);
        if bytes.len() != KEY {
            return Err(InvalidKey);
        }
        key.copy_from_slice(&bytes);
        Ok(Self(Some(Arc::new(key))))
    }

    /// Whether there is a key.
    pub fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// The value as it is kept in this column of this row.
    pub fn seal<'v>(&self, column: &'static Column, row: &[&[u8]], plain: &'v [u8]) -> Cow<'v, [u8]> {
        let Some(cipher) = self.cipher() else { return plain.into() };
        let nonce: [u8; NONCE] = rand::random();
        let mut sealed = Vec::with_capacity(NONCE + plain.len() + TAG);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &place(column, row), (&mut sealed[NONCE..]).into());
        sealed.extend_from_slice(&tag.expect("a value is shorter than 64 GiB"));
        sealed.into()
    }

    /// The value that was put into this column of this row.
    pub fn open<'v>(
        &self,
        column: &'static Column,
        row: &[&[u8]],
        kept: impl Into<Cow<'v, [u8]>>,
    ) -> Result<Cow<'v, [u8]>, Unreadable> {
        let kept = kept.into();
        let Some(cipher) = self.cipher() else { return Ok(kept) };
        let (nonce, sealed) = kept.split_first_chunk::<NONCE>().ok_or(Unreadable(column))?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG>().ok_or(Unreadable(column))?;
        let mut plain = sealed.to_vec();
        let (nonce, place) = (Nonce::from(*nonce), place(column, row));
        cipher
            .decrypt_inout_detached(&nonce, &place, plain.as_mut_slice().into(), &(*tag).into())
            .map_err(|_| Unreadable(column))?;
        Ok(plain.into())
    }

    /// The same for a text.
    pub fn open_text(&self, column: &'static Column, row: &[&[u8]], kept: &[u8]) -> Result<String, Unreadable> {
        let plain = self.open(column, row, kept)?.into_owned();
        String::from_utf8(plain).map_err(|_| Unreadable(column))
    }

    /// Made anew each time, so that only the key itself is kept; that costs little beside the use of it.
    fn cipher(&self) -> Option<Aes256GcmSiv> {
        self.0.as_deref().map(|key| Aes256GcmSiv::new((&**key).into()))
    }

    /// What a database is to hold so that this key is known again; nothing without a key.
    pub fn proof(&self) -> Option<Vec<u8>> {
        self.has_key().then(|| self.seal(&PROOF, &[], &[]).into_owned())
    }

    /// Whether this is what a database was sealed with that holds this proof.
    pub fn check(&self, proof: Option<&[u8]>) -> Result<(), WrongKey> {
        match (self.has_key(), proof) {
            (false, None) => Ok(()),
            (false, Some(_)) => Err(WrongKey::Missing),
            (true, None) => Err(WrongKey::NotNeeded),
            (true, Some(proof)) => self.open(&PROOF, &[], proof).map(drop).map_err(|_| WrongKey::Other),
        }
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.has_key() { "Seal(key)" } else { "Seal(none)" })
    }
}

/// Where a value belongs, in a form that no other place has: every part comes with its length.
fn place(column: &Column, row: &[&[u8]]) -> Vec<u8> {
    debug_assert_eq!(row.len(), column.row.len(), "{column:?}");
    let parts = [column.table.as_bytes(), column.name.as_bytes()];
    let mut place = Vec::with_capacity(96);
    for part in parts.iter().chain(row) {
        place.extend_from_slice(&(part.len() as u64).to_be_bytes());
        place.extend_from_slice(part);
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Seal {
        Seal::with_key(&BASE64_STANDARD.encode([byte; 32])).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_with_its_key_and_nowhere_else() {
        let (seal, row) = (key(1), [&b"acme"[..], b"A", b"5511888888888"]);
        for plain in [&b""[..], b"x", &[7; 70_000]] {
            let sealed = seal.seal(&CONTENT, &row, plain);
            assert_eq!(seal.open(&CONTENT, &row, &*sealed).unwrap(), plain);
            assert_eq!(key(1).open(&CONTENT, &row, &*sealed).unwrap(), plain, "with the same key, later");
            assert!(plain.len() < 8 || !sealed.windows(8).any(|bytes| bytes == &plain[..8]));
            assert_ne!(sealed, seal.seal(&CONTENT, &row, plain), "equal values don't look equal");
            assert!(key(2).open(&CONTENT, &row, &*sealed).is_err(), "another key");
            assert!(seal.open(&CONTENT, &[b"acme", b"B", row[2]], &*sealed).is_err(), "another row");
            assert!(
                seal.open(&CONTENT, &[b"acm", b"eA", row[2]], &*sealed).is_err(),
                "another row of the same letters"
            );
            assert!(seal.open(&CONTENT, &[row[0], row[1], b"5511777777777"], &*sealed).is_err(), "another recipient");
            assert!(seal.open(&FINGERPRINT, &row[..2], &*sealed).is_err(), "another column");
            for length in [0, 1, NONCE, NONCE + TAG - 1, sealed.len() - 1] {
                assert!(seal.open(&CONTENT, &row, &sealed[..length]).is_err(), "{length} bytes of it");
            }
            for at in [0, NONCE, sealed.len() - 1] {
                let mut altered = sealed.to_vec();
                altered[at] ^= 1;
                assert!(seal.open(&CONTENT, &row, altered).is_err(), "with byte {at} altered");
            }
        }
        assert!(seal.open(&CONTENT, &row, &b"plain as it was before there was a key, and long enough"[..]).is_err());
    }

    #[test]
    fn without_a_key_everything_stays_as_it_is() {
        let sealed = Seal::NONE.seal(&DATA, &[b"acme", b"1"], b"plain");
        assert_eq!(&*sealed, b"plain");
        assert_eq!(&*Seal::NONE.open(&DATA, &[b"acme", b"1"], sealed).unwrap(), b"plain");
    }

    #[test]
    fn a_key_is_known_again_and_another_is_not_taken_for_it() {
        let proof = key(1).proof();
        assert_eq!(key(1).check(proof.as_deref()), Ok(()));
        assert_eq!(key(2).check(proof.as_deref()), Err(WrongKey::Other));
        assert_eq!(key(1).check(Some(b"damaged")), Err(WrongKey::Other));
        assert_eq!(Seal::NONE.check(proof.as_deref()), Err(WrongKey::Missing));
        assert_eq!(key(1).check(None), Err(WrongKey::NotNeeded));
        assert_eq!((Seal::NONE.check(None), Seal::NONE.proof()), (Ok(()), None));
    }

    #[test]
    fn a_key_is_32_bytes_and_is_not_printed() {
        for text in ["", "short", "not base64!", &BASE64_STANDARD.encode([1; 31]), &BASE64_STANDARD.encode([1; 33])] {
            assert_eq!(Seal::with_key(text).err(), Some(InvalidKey), "{text}");
        }
        assert_eq!(format!("{:?}", key(1)), "Seal(key)");
    }
}
