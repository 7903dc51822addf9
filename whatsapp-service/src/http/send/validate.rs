//! Checking what a call wants sent, once: of a request comes what can be sent, or an answer that says what is wrong.

use crate::{
    http::{
        App,
        problem::Problem,
        send::{
            body::SendRequest,
            content::{Parts, SendContent},
            link_previews::LinkPreviews,
            media::{Fetched, Wanted},
        },
    },
    media::link_preview::first_link,
    model::{
        address::Person,
        content::{Content, ContentKind},
        error_code::ErrorCode,
        message::Idempotency,
        tenant::TenantId,
    },
    session::outbox::OutgoingMessage,
};
use axum::http::HeaderMap;
use chrono::TimeDelta;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The longest reference, in characters.
const MAX_REFERENCE: usize = 256;
/// The longest idempotency key, in characters.
const MAX_KEY: usize = 255;
/// How long a message may take by default, in seconds.
const DEFAULT_EXPIRY: u64 = 24 * 3600;
/// How long a message may take at most, in seconds.
const MAX_EXPIRY: u64 = 7 * 24 * 3600;

/// What a caller wants sent, checked as far as it is known.
pub(crate) struct ValidatedSend {
    pub(crate) to: Person,
    pub(crate) said: SendContent,
    /// The link that is to be shown with what is behind it.
    pub(crate) link: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) expires_in: TimeDelta,
    pub(crate) idempotency: Option<Idempotency>,
}

impl ValidatedSend {
    pub(crate) fn media(&self) -> Option<&Wanted> {
        match &self.said {
            SendContent::Media(wanted) => Some(wanted),
            SendContent::Content(_) => None,
        }
    }

    /// Has the bytes of its media on the disk, if it has media.
    pub(crate) async fn fulfil(
        self,
        app: &App,
        tenant: &TenantId,
        fetched: &Fetched,
        previews: &LinkPreviews,
    ) -> Result<(OutgoingMessage, Option<crate::media::shelf::Taken>), Problem> {
        let Self { to, said, link, reference, expires_in, idempotency } = self;
        let (content, media) = match said {
            SendContent::Content(content) => {
                let link_preview = link.and_then(|link| previews.get(&link));
                (Content { link_preview, ..content }, None)
            }
            SendContent::Media(wanted) => {
                let (content, media) = wanted.content(app, tenant, fetched).await?;
                (content, Some(media))
            }
        };
        Ok((OutgoingMessage { to, content, reference, expires_in, idempotency }, media))
    }
}

/// Checks what a caller wants sent.
pub(crate) fn validate(body: SendRequest) -> Result<ValidatedSend, Problem> {
    let SendRequest { to, reference, expires_in, idempotency_key, .. } = body;
    let recipient = recipient(&to)?;
    let SendRequest { message, caption, media, voice, sticker, document, gif, bytes, .. } = body;
    let SendRequest { location, contact, reaction, edit, revoke, reply_to, mentions, link_preview, .. } = body;
    let shows_link = link_preview == Some(true);
    let link = message.as_deref().filter(|_| shows_link).and_then(first_link).map(str::to_owned);
    let said = Parts {
        message,
        caption,
        media,
        bytes,
        voice,
        sticker,
        document,
        gif,
        location,
        contact,
        reaction,
        edit,
        revoke,
        reply_to,
        mentions,
        link_preview,
    };
    let said = said.content()?;
    if reference.as_ref().is_some_and(|reference| reference.chars().count() > MAX_REFERENCE) {
        let why = format!("`reference` has at most {MAX_REFERENCE} characters");
        return Err(Problem::new(ErrorCode::InvalidReference, why));
    }
    let seconds = expires_in.unwrap_or(DEFAULT_EXPIRY);
    if !(1..=MAX_EXPIRY).contains(&seconds) {
        let why = format!("`expiresIn` is a number of seconds from 1 to {MAX_EXPIRY}");
        return Err(Problem::new(ErrorCode::InvalidExpiresIn, why));
    }
    let idempotency = match idempotency_key {
        Some(key) if !is_key(&key) => return Err(invalid_key()),
        Some(key) => {
            let fingerprint = fingerprint(&to, &said, shows_link, &reference, expires_in);
            Some(Idempotency { key, fingerprint })
        }
        None => None,
    };
    let expires_in = TimeDelta::seconds(seconds.cast_signed());
    Ok(ValidatedSend { to: recipient, said, link, reference, expires_in, idempotency })
}

/// The person whom a call's `to` names.
pub(crate) fn recipient(to: &str) -> Result<Person, Problem> {
    Person::parse(to).map_err(|error| Problem::new(ErrorCode::InvalidRecipient, error.of("to")))
}

/// A digest of all that a call says, and not of what is found behind its links.
pub(crate) fn fingerprint(
    to: &str,
    said: &SendContent,
    shows_link: bool,
    reference: &Option<String>,
    expires_in: Option<u64>,
) -> [u8; 32] {
    let mut call = match said {
        // The fingerprints of the time when there were only texts are in databases. No other content is a plain text here.
        SendContent::Content(Content { kind: ContentKind::Text(text), reply_to: None, mentions, .. })
            if mentions.is_empty() =>
        {
            json!([to, text, reference, expires_in])
        }
        SendContent::Content(content) => json!([to, content, reference, expires_in]),
        SendContent::Media(wanted) => json!([to, Wanted::identity(wanted), reference, expires_in]),
    };
    if let Some(call) = call.as_array_mut().filter(|_| shows_link) {
        call.push(json!({"linkPreview": true}));
    }
    Sha256::digest(call.to_string()).into()
}

/// The key of a single call: in the header, or, as in bulk, in the body.
pub(crate) fn key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next(), in_body) {
        (None, _, in_body) => Ok(in_body),
        (Some(key), None, None) => Ok(Some(key.to_str().map_err(|_| invalid_key())?.to_owned())),
        _ => Err(Problem::new(ErrorCode::InvalidIdempotencyKey, "the idempotency key is given more than once")),
    }
}

pub(crate) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) fn invalid_key() -> Problem {
    let why = format!("the idempotency key has 1 to {MAX_KEY} visible ASCII characters");
    Problem::new(ErrorCode::InvalidIdempotencyKey, why)
}
