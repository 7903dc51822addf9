//! Base64 as people have it: a `data:` URI, with line breaks, with the letters for URLs, with or without padding. It stays
//! as it stands in the JSON until it is decoded, piece by piece.

use std::borrow::Cow;

use axum::body::Bytes;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::media::NotTaken;

/// How much is looked at in one go, in bytes of JSON.
const PIECE: usize = 64 * 1024;
/// How long what stands before the base64 in a `data:` URI may be.
const MAX_PREFIX: usize = 512;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A text of JSON that is base64, or is to be.
pub struct Base64 {
    /// As it stands in the body, with its quotes and escapes.
    raw: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        if !raw.get().starts_with('"') {
            return Err(D::Error::custom("must be a string"));
        }
        Ok(Self { raw })
    }
}

impl Base64 {
    /// How much of the body it takes.
    pub fn len(&self) -> usize {
        self.raw.get().len()
    }

    /// The SHA-256 of the text.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for piece in self.pieces() {
            digest.update(piece);
        }
        digest.finalize().into()
    }

    /// What a `data:` URI says that its bytes are.
    pub fn media_type(&self) -> Option<String> {
        let first = self.pieces().next()?;
        let prefix = prefix(first.trim_ascii_start())?;
        let kind = std::str::from_utf8(prefix).ok()?.get("data:".len()..)?.strip_suffix(',')?;
        let kind = kind.rsplit_once(';').map_or(kind, |(kind, _)| kind);
        (!kind.is_empty()).then(|| kind.to_owned())
    }

    /// The bytes that it stands for, as they are decoded.
    pub fn decoded(&self) -> impl Stream<Item = Result<Bytes, NotTaken>> + Send {
        let mut decoding = Decoding::default();
        let pieces = self.pieces().map(Some).chain([None]);
        stream::iter(pieces.map(move |piece| {
            let decoded = match piece {
                Some(piece) => decoding.more(&piece),
                None => decoding.end(),
            };
            decoded.map(Bytes::from).map_err(|why| NotTaken::Invalid(format!("`media.base64` {why}")))
        }))
    }

    /// The text, a piece at a time.
    fn pieces(&self) -> impl Iterator<Item = Cow<'_, [u8]>> + Send {
        let text = self.raw.get();
        // Its quotes are there: it is a string of JSON.
        let mut rest = text.get(1..text.len().saturating_sub(1)).unwrap_or_default().as_bytes();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (piece, after) = rest.split_at(cut(rest));
            rest = after;
            Some(if piece.contains(&b'\\') { unescaped(piece).into() } else { piece.into() })
        })
    }
}

/// Where a piece ends: not in the middle of an escape.
fn cut(text: &[u8]) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    // The longest escape is `\u0041`: one that is cut has begun just before. Of several backslashes each second is
    // escaped itself.
    for back in 1..=5 {
        if text[PIECE - back] == b'\\' {
            let before = text[..PIECE - back].iter().rev().take_while(|byte| **byte == b'\\').count();
            return if before % 2 == 0 { PIECE - back } else { PIECE };
        }
    }
    PIECE
}

/// The text of a piece with escapes. What they stand for is ASCII in base64; all else becomes what is not.
fn unescaped(piece: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(piece.len());
    let mut rest = piece;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        let (meant, used) = match after {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'b' | b'f', ..] => (b' ', 1),
            [b'u', b'0', b'0', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high @ 0..8), Some(low)) => (high * 16 + low, 5),
                _ => (0xff, 5),
            },
            [b'u', _, _, _, _, ..] => (0xff, 5),
            [other, ..] => (*other, 1),
            [] => (0xff, 0),
        };
        text.push(meant);
        rest = &after[used..];
    }
    text
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// What stands before the base64 of a `data:` URI, with the comma.
fn prefix(text: &[u8]) -> Option<&[u8]> {
    let is_uri = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:"));
    let comma = text.iter().take(MAX_PREFIX).position(|byte| *byte == b',').filter(|_| is_uri)?;
    Some(&text[..=comma])
}

#[derive(Default)]
struct Decoding {
    begun: bool,
    /// Letters that make no whole group yet.
    letters: Vec<u8>,
    /// Whether the padding has come: nothing may follow.
    padded: bool,
}

const NOT_BASE64: &str = "is not base64 (RFC 4648)";

impl Decoding {
    fn more(&mut self, piece: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut text = piece.trim_ascii_start();
        if !std::mem::replace(&mut self.begun, true)
            && let Some(prefix) = prefix(text)
        {
            if !prefix.to_ascii_lowercase().ends_with(b";base64,") {
                return Err("is a `data:` URI without `;base64`");
            }
            text = &text[prefix.len()..];
        }
        for byte in text {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'=' => self.padded = true,
                _ if self.padded => return Err(NOT_BASE64),
                b'-' => self.letters.push(b'+'),
                b'_' => self.letters.push(b'/'),
                letter => self.letters.push(*letter),
            }
        }
        let whole = self.letters.len() / 4 * 4;
        self.decode(whole)
    }

    fn end(&mut self) -> Result<Vec<u8>, &'static str> {
        self.decode(self.letters.len())
    }

    fn decode(&mut self, length: usize) -> Result<Vec<u8>, &'static str> {
        let rest = self.letters.split_off(length);
        let letters = std::mem::replace(&mut self.letters, rest);
        ENGINE.decode(letters).map_err(|_| NOT_BASE64)
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use futures_util::{FutureExt, StreamExt};
    use proptest::prelude::*;

    use super::*;

    fn given(json: &str) -> Base64 {
        serde_json::from_str(json).unwrap()
    }

    fn decoded(json: &str) -> Result<Vec<u8>, String> {
        let given = given(json);
        let parts = given.decoded().collect::<Vec<_>>().now_or_never().expect("nothing is waited for");
        let parts: Result<Vec<_>, _> = parts.into_iter().collect();
        parts.map(|parts| parts.concat()).map_err(|error| error.to_string())
    }

    fn quoted(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    #[test]
    fn base64_is_taken_as_people_have_it() {
        for text in [
            "AAH+/w==",
            "AAH+/w",
            "AAH-_w",
            "AAH-_w==",
            "AAH+/w==\n",
            "  AAH+\r\n/w==  ",
            "A A\tH+/w=\n=",
            "data:image/png;base64,AAH+/w==",
            "data:;base64,AAH+/w==",
            "DATA:text/plain;charset=utf-8;BASE64,AAH+/w\n",
            "data:image/png;base64,\nAAH+/w==",
        ] {
            assert_eq!(decoded(&quoted(text)).unwrap(), [0, 1, 254, 255], "{text:?}");
        }
        // As PHP and others write JSON.
        assert_eq!(decoded(r#""AAH+\/w==""#).unwrap(), [0, 1, 254, 255]);
        assert_eq!(decoded(r#""data:image\/png;base64,AAH\u002B\u002fw\u003d=""#).unwrap(), [0, 1, 254, 255]);
    }

    #[test]
    fn what_is_no_base64_is_said() {
        for (text, why) in [
            ("*", NOT_BASE64),
            ("AAA=A", NOT_BASE64),
            ("A", NOT_BASE64),
            ("é", NOT_BASE64),
            ("AA==AA==", NOT_BASE64),
            ("data:text/plain,hello", "is a `data:` URI without `;base64`"),
            ("http://example.com/a,b", NOT_BASE64),
        ] {
            assert_eq!(decoded(&quoted(text)).unwrap_err(), format!("`media.base64` {why}"), "{text:?}");
        }
        for text in [r#""\ud800""#, r#""\\AAA""#, r#""AA\"A""#] {
            assert!(decoded(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Base64>("5").is_err() && serde_json::from_str::<Base64>("{}").is_err());
    }

    #[test]
    fn a_data_uri_says_what_it_holds() {
        for (text, kind) in [
            ("data:image/png;base64,AAAA", Some("image/png")),
            ("data:text/plain;charset=utf-8;base64,AAAA", Some("text/plain;charset=utf-8")),
            ("data:;base64,AAAA", None),
            ("AAAA", None),
        ] {
            assert_eq!(given(&quoted(text)).media_type().as_deref(), kind, "{text}");
        }
        assert_eq!(given(r#""data:image\/png;base64,AAAA""#).media_type().as_deref(), Some("image/png"));
    }

    #[test]
    fn the_digest_is_that_of_the_text_however_it_is_written() {
        let digest = |json: &str| given(json).digest();
        assert_eq!(digest(r#""AA\/A""#), <[u8; 32]>::from(Sha256::digest("AA/A")));
        assert_eq!(digest(r#""AA/A""#), digest(r#""AA\u002fA""#));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_way_to_write_it_leads_back(length in 0..3 * PIECE, seed: u8, line in 1..100usize, escaped: bool) {
            let bytes: Vec<u8> = (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            let plain = BASE64_STANDARD.encode(&bytes);
            let lines: Vec<_> = plain.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).unwrap()).collect();
            for text in [lines.join("\r\n"), BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
                let mut json = quoted(&text);
                if escaped {
                    json = json.replace('/', "\\/").replace('A', "\\u0041");
                }
                prop_assert_eq!(decoded(&json).unwrap(), bytes.clone());
                prop_assert_eq!(given(&json).digest().to_vec(), Sha256::digest(&text).to_vec());
            }
        }
    }
}
