//! Whether a webhook really comes from the service, by the rules of Standard Webhooks (www.standardwebhooks.com).

use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How many seconds `webhook-timestamp` may be from this machine's clock, so that nobody replays old requests.
const TOLERANCE: u64 = 5 * 60;

/// What the service and the receiver share. Parsed from `whsec_` and base64.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

/// A text that is no [`Secret`].
#[derive(Debug, thiserror::Error)]
#[error("the secret is not whsec_ and base64")]
pub struct BadSecret;

impl FromStr for Secret {
    type Err = BadSecret;

    fn from_str(secret: &str) -> Result<Self, BadSecret> {
        let base64 = secret.strip_prefix("whsec_").filter(|base64| !base64.is_empty()).ok_or(BadSecret)?;
        let key = BASE64_STANDARD.decode(base64).map_err(|_| BadSecret)?;
        Hmac::new_from_slice(&key).map(Self).map_err(|_| BadSecret)
    }
}

/// Why a request is not proven to come from the service. The text may be shown to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This header is not there, or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// `webhook-timestamp` is not a number of seconds, or more than 5 minutes from this machine's clock.
    #[error("webhook-timestamp is too far from this clock")]
    Timestamp,
    /// No signature is one of this secret, for this id, timestamp and body.
    #[error("no signature fits")]
    Signature,
}

/// Says whether the request is signed with the secret. `body` is what came over the wire, before any parser has touched
/// it.
pub fn verify(secret: &Secret, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<(), Refused> {
    let header = |name| {
        let value = headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty());
        value.ok_or(Refused::Missing(name))
    };
    let id = header("webhook-id")?;
    let timestamp = header("webhook-timestamp")?;
    let signatures = header("webhook-signature")?;

    let seconds = str::from_utf8(timestamp).ok().and_then(|text| text.parse::<u64>().ok()).ok_or(Refused::Timestamp)?;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    if now.abs_diff(seconds) > TOLERANCE {
        return Err(Refused::Timestamp);
    }

    let digest =
        [id, b".", timestamp, b".", body].into_iter().fold(secret.0.clone(), |mac, part| mac.chain_update(part));
    let good = format!("v1,{}", BASE64_STANDARD.encode(digest.finalize().into_bytes()));
    // There are several while the sender changes its secret. One that fits is enough.
    let fits = signatures.split(|byte| *byte == b' ').any(|signature| signature.ct_eq(good.as_bytes()).into());
    if fits { Ok(()) } else { Err(Refused::Signature) }
}
