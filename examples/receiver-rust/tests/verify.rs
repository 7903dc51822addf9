//! `verify`, against signatures that the reference implementation makes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use receiver::{Refused, Secret, verify};
use standardwebhooks::Webhook;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const NOW: u64 = 1_700_000_000;
const BODY: &str = r#"{"text":"Olá"}"#;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
    let all = [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
    all.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn signature(secret: &str, id: &str, timestamp: u64) -> String {
    Webhook::new(secret).unwrap().sign(id, timestamp as i64, BODY.as_bytes()).unwrap()
}

/// Headers that are right for `BODY`.
fn signed(timestamp: u64) -> HeaderMap {
    headers("evt_1", &timestamp.to_string(), &signature(SECRET, "evt_1", timestamp))
}

fn check(headers: &HeaderMap) -> Result<(), Refused> {
    verify(&SECRET.parse().unwrap(), headers, BODY.as_bytes(), now())
}

#[test]
fn a_good_signature() {
    assert_eq!(check(&signed(NOW)), Ok(()));
}

#[test]
fn an_altered_body_id_or_timestamp() {
    let secret: Secret = SECRET.parse().unwrap();
    assert_eq!(verify(&secret, &signed(NOW), r#"{"text":"Ola"}"#.as_bytes(), now()), Err(Refused::Signature));
    let good = signature(SECRET, "evt_1", NOW);
    assert_eq!(check(&headers("evt_2", &NOW.to_string(), &good)), Err(Refused::Signature));
    assert_eq!(check(&headers("evt_1", &(NOW + 1).to_string(), &good)), Err(Refused::Signature));
}

#[test]
fn a_timestamp_that_is_too_old_too_new_or_none() {
    for timestamp in [NOW - 300, NOW + 300] {
        assert_eq!(check(&signed(timestamp)), Ok(()));
    }
    for timestamp in [0, NOW - 301, NOW + 301, i64::MAX as u64] {
        assert_eq!(check(&signed(timestamp)), Err(Refused::Timestamp));
    }
    for timestamp in ["soon", "-1", "1e9", "99999999999999999999"] {
        assert_eq!(check(&headers("evt_1", timestamp, "v1,")), Err(Refused::Timestamp));
    }
}

#[test]
fn a_wrong_secret() {
    let wrong = signature("whsec_d3Jvbmdzd3Jvbmdzd3Jvbmdzd3Jvbmdz", "evt_1", NOW);
    assert_eq!(check(&headers("evt_1", &NOW.to_string(), &wrong)), Err(Refused::Signature));
}

#[test]
fn a_missing_header() {
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut headers = signed(NOW);
        headers.insert(name, "".parse().unwrap());
        assert_eq!(check(&headers), Err(Refused::Missing(name)));
        headers.remove(name);
        assert_eq!(check(&headers), Err(Refused::Missing(name)));
    }
}

#[test]
fn one_of_several_signatures_is_enough() {
    let (good, bad) = (signature(SECRET, "evt_1", NOW), signature(SECRET, "evt_2", NOW));
    let with = |signature: &str| check(&headers("evt_1", &NOW.to_string(), signature));
    assert_eq!(with(&format!("{bad} {good}")), Ok(()));
    assert_eq!(with(&format!("v1a,xyz {good} {bad}")), Ok(()));
    let (cut, longer, other, bare) = (&good[..12], format!("{good}="), good.replace("v1,", "v2,"), &good[3..]);
    for signature in [&format!("{bad} {bad}"), cut, &longer, &other, bare, "v1,", "v1"] {
        assert_eq!(with(signature), Err(Refused::Signature), "{signature}");
    }
}

#[test]
fn a_secret_is_whsec_and_base64() {
    for secret in ["", "whsec_", "secret", "whsec_not base64", "whsec_MDEyMzQ", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"] {
        assert!(secret.parse::<Secret>().is_err(), "{secret}");
    }
}
