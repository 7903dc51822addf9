//! What an answer looks like when something is wrong.

use crate::session::OpenRefused;
use crate::session::pairing::PasskeyRefused;
use std::borrow::Cow;

use axum::{
    Extension, Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        openapi,
        request_log::Noted,
        unknown::{self, Unknown, Warning},
    },
    media, metrics,
    model::{message::Message, session_state::State, tenant::InvalidTenantId},
    session::{
        deletion::NotDeleted,
        outbox::{NotTaken, Refused},
        presence::PresenceRefused,
    },
    store::error::StoreError,
    webhooks::PutRefused,
    whatsapp::passkey::AssertionRefused,
};

/// How long to wait before asking again when a tenant's queue is full, in seconds.
const QUEUE_PAUSE: u64 = 10;
/// The same when bodies fill the memory for them, in seconds.
const BODIES_PAUSE: u64 = 2;

/// The same when all connections are busy.
const CONNECTION_PAUSE: u64 = 1;

/// How long to wait before asking again when too many voice notes are being made, in seconds.
const MEDIA_PAUSE: u64 = 10;

/// An error answer: a short stable label, an identifier for programs, and a sentence for a person.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(skip)]
    status: StatusCode,
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The message that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The session's state, where that is what stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// Why it is in that state.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The caller's own name for the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// WhatsApp's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    whatsapp_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// What was in the call and was not understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<Warning>,
}

impl Problem {
    fn bare(status: StatusCode, error: &'static str) -> Self {
        Self {
            status,
            error,
            code: None,
            message: None,
            id: None,
            state: None,
            reason: None,
            reference: None,
            whatsapp_code: None,
            retryable: None,
            retry_after: None,
            warnings: Vec::new(),
        }
    }

    /// A problem with an identifier and a sentence.
    pub fn new(
        status: StatusCode,
        error: &'static str,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { code: Some(code.into()), message: Some(message.into()), ..Self::bare(status, error) }
    }

    /// The secret is absent or wrong.
    pub fn unauthorized() -> Self {
        let message = "The header X-Internal-Secret is absent or wrong. This interface is described at /docs.";
        Self { message: Some(message.into()), ..Self::bare(StatusCode::UNAUTHORIZED, "Unauthorized") }
    }

    /// There is no such path.
    pub fn no_such_path() -> Self {
        Self::bare(StatusCode::NOT_FOUND, "Not found")
    }

    /// The path is there, but not with this method.
    pub fn method_not_allowed() -> Self {
        let message = "This path exists, but not with this method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "method_not_allowed", message)
    }

    /// The tenant's header is absent.
    pub fn tenant_required() -> Self {
        Self::bare(StatusCode::BAD_REQUEST, "Tenant ID required")
    }

    /// A part of the request is not what it must be.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", code, message)
    }

    /// The body is larger than allowed; `advice` says what to do instead, if there is something.
    pub fn too_large(limit: usize, advice: &str) -> Self {
        let message = format!("The body is larger than {limit} bytes. {advice}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large", "payload_too_large", message.trim_end())
    }

    /// Too many bodies, or too large ones, are in memory.
    pub fn bodies_full() -> Self {
        let message = "Other calls fill the memory for bodies just now. Large files are better sent as forms.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Body memory full", "body_memory_full", message)
            .retry_after(Some(BODIES_PAUSE))
    }

    /// The body did not arrive in time.
    pub fn too_slow() -> Self {
        let message = "The body did not arrive in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "request_timeout", message)
    }

    /// All connections are busy.
    pub fn too_many_connections() -> Self {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections");
        let message = "As many requests are under way as there may be.";
        Self::new(status, "Too many connections", code, message).retry_after(Some(CONNECTION_PAUSE))
    }

    /// Something happened that nobody foresaw.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::bare(StatusCode::INTERNAL_SERVER_ERROR, "Internal error") }
    }

    /// The disk does not take what is to be written, or does not give what is to be read.
    pub fn storage_failed() -> Self {
        let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, "The disk can't be used now; the log says why.");
        Self::new(status, "Storage failed", "storage_failed", message).retryable(true)
    }

    /// A message that was accepted, and has failed for good.
    pub fn failed(message: Message) -> Self {
        let Some(failure) = message.failure else { return Self::internal("The message failed for no known reason.") };
        let (status, error) = match failure.code.as_str() {
            "recipient_not_on_whatsapp" => (StatusCode::UNPROCESSABLE_ENTITY, "Recipient not on WhatsApp"),
            "recipient_unreachable" => (StatusCode::BAD_GATEWAY, "Recipient unreachable"),
            "message_rejected" | "recipient_restricted" | "account_restricted" => {
                (StatusCode::BAD_GATEWAY, "Message rejected")
            }
            "expired" => (StatusCode::GATEWAY_TIMEOUT, "Message expired"),
            _ => (StatusCode::CONFLICT, "Message not sent"),
        };
        Self {
            id: Some(message.id),
            reference: message.reference,
            whatsapp_code: failure.whatsapp_code,
            ..Self::new(status, error, failure.code, failure.reason)
        }
        .retryable(failure.retryable)
    }

    /// The tenant has no session.
    pub fn session_not_found(status: StatusCode) -> Self {
        let message = "This tenant has no session. POST /session creates one.";
        Self::new(status, "Session not found", "session_not_found", message)
    }

    /// Says which message it is about, in the caller's own words.
    pub fn about(self, reference: Option<String>) -> Self {
        Self { reference, ..self }
    }

    /// Says after how many seconds another attempt makes sense.
    pub fn retry_after(mut self, seconds: Option<u64>) -> Self {
        (self.retryable, self.retry_after) = (Some(true), seconds);
        self
    }

    /// Says what was in the call and was not understood: it may be what is wrong.
    pub fn warned(mut self, unknown: &Unknown) -> Self {
        if unknown.is_empty() {
            return self;
        }
        if self.status == StatusCode::BAD_REQUEST
            && let Some(message) = &mut self.message
        {
            let end = if message.ends_with(['.', '?']) { "" } else { "." };
            *message = format!("{message}{end} {}", unknown.sentence());
        }
        self.warnings.extend(unknown.warnings());
        self
    }

    /// Counts it, by its code.
    pub fn count(&self) {
        if let Some(code) = &self.code {
            let mut known = openapi::ERRORS.iter().filter_map(|openapi::Error(_, _, known, _)| *known);
            metrics::problem(known.find(|known| known == code).unwrap_or(metrics::OTHER));
        }
    }

    fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.count();
        let retry_after = self.retry_after.map(HeaderValue::from);
        let noted = Noted {
            code: self.code.clone(),
            id: self.id.clone(),
            unknown: unknown::for_log(&self.warnings),
            bulk: None,
        };
        let mut response = (self.status, Extension(noted), Json(self)).into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            // Such an answer has to name a way (RFC 9110).
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("X-Internal-Secret"));
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<InvalidTenantId> for Problem {
    fn from(error: InvalidTenantId) -> Self {
        Self::bad_request("invalid_tenant_id", format!("X-Tenant-Id: {error}"))
    }
}

impl From<OpenRefused> for Problem {
    fn from(refused: OpenRefused) -> Self {
        let message = refused.to_string();
        match refused {
            OpenRefused::Gone | OpenRefused::Deleting => {
                let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "stopping");
                Self::new(status, "Service stopping", code, message).retryable(true)
            }
            OpenRefused::CodeForAnotherPhone => {
                let (status, code) = (StatusCode::CONFLICT, "pairing_code_outstanding");
                Self::new(status, "Pairing code outstanding", code, message)
            }
            OpenRefused::Store(error) => error.into(),
        }
    }
}

impl From<NotDeleted> for Problem {
    fn from(not_deleted: NotDeleted) -> Self {
        match not_deleted {
            NotDeleted::NotBegun(error) => error.into(),
            NotDeleted::Unfinished(_) => {
                let message = "The device is unlinked. The rest is deleted by itself, as soon as the disk allows it.";
                Self { message: Some(message.into()), ..Self::storage_failed() }
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::NotReady { state, reason, retry_after } => {
                let problem = Self::new(StatusCode::CONFLICT, "Session not ready", "session_not_ready", message);
                let problem = Self { state: Some(state), reason, ..problem };
                match retry_after.map(|wait| wait.as_secs()) {
                    Some(seconds) => problem.retry_after(Some(seconds)),
                    None => problem.retryable(false),
                }
            }
            Refused::Stopping => {
                let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "stopping");
                Self::new(status, "Service stopping", code, message).retryable(true)
            }
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<NotTaken> for Problem {
    fn from(not_taken: NotTaken) -> Self {
        let message = not_taken.to_string();
        match not_taken {
            NotTaken::QueueFull => Self::new(StatusCode::TOO_MANY_REQUESTS, "Queue full", "queue_full", message)
                .retry_after(Some(QUEUE_PAUSE)),
            NotTaken::Conflict => {
                Self::new(StatusCode::CONFLICT, "Idempotency conflict", "idempotency_conflict", message)
                    .retryable(false)
            }
            NotTaken::LidAsNumber("to") => Self::bad_request("invalid_recipient", message),
            NotTaken::LidAsNumber(_) => Self::bad_request("invalid_content", message),
            NotTaken::UnknownMessage => {
                Self::new(StatusCode::NOT_FOUND, "Message not found", "message_not_found", message).retryable(false)
            }
            NotTaken::OtherRecipient => {
                Self::new(StatusCode::CONFLICT, "Other recipient", "other_recipient", message).retryable(false)
            }
            NotTaken::MessageNotSent => {
                // It may be sent before long.
                Self::new(StatusCode::CONFLICT, "Not sent", "message_not_sent", message).retryable(true)
            }
            NotTaken::WrongKind => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Wrong kind", "wrong_kind", message).retryable(false)
            }
            NotTaken::TooOld => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Too old", "message_too_old", message).retryable(false)
            }
        }
    }
}

impl From<media::NotTaken> for Problem {
    fn from(not_taken: media::NotTaken) -> Self {
        use media::NotTaken::{
            BrokenOff, Busy, Clash, Disk, Empty, Invalid, NoGif, NoVoice, NotFetched, Oversized, RoomFull, ShareFull,
            TooLarge, TooLong, TooSlow, Type, VideoForVoice,
        };
        let message = not_taken.to_string();
        match not_taken {
            Invalid(_) | Clash | Empty => Self::bad_request("invalid_content", message),
            Type(_) | NoVoice | VideoForVoice | NoGif => {
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Self::new(status, "Unsupported media type", "media_type", message).retryable(false)
            }
            TooLarge { .. } | Oversized { .. } | TooLong { .. } => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Self::new(status, "Payload too large", "media_too_large", message).retryable(false)
            }
            NotFetched(failure) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                let problem = Self::new(status, "Media not fetched", "media_not_fetched", message);
                problem.retryable(failure.is_retryable())
            }
            BrokenOff => Self::bad_request("incomplete_body", "The body broke off."),
            TooSlow => Self::too_slow(),
            ShareFull | RoomFull => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "Media room full", "media_room_full", message).retryable(true)
            }
            Busy => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "Media busy", "media_busy", message).retry_after(Some(MEDIA_PAUSE))
            }
            Disk => Self::storage_failed(),
        }
    }
}

impl From<PresenceRefused> for Problem {
    fn from(not_done: PresenceRefused) -> Self {
        let message = not_done.to_string();
        match not_done {
            PresenceRefused::Refused(refused) => refused.into(),
            PresenceRefused::TooMany { wait } => {
                // Rounded up: before it, the answer would be the same.
                let seconds = wait.as_millis().div_ceil(1000);
                let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too_many_lookups");
                Self::new(status, "Too many look-ups", code, message).retry_after(u64::try_from(seconds).ok())
            }
            PresenceRefused::NotOnWhatsApp => {
                let (status, code) = (StatusCode::UNPROCESSABLE_ENTITY, "recipient_not_on_whatsapp");
                Self::new(status, "Recipient not on WhatsApp", code, message).retryable(false)
            }
            PresenceRefused::LidAsNumber(refused) => refused.into(),
            PresenceRefused::UnknownMessage => {
                Self::new(StatusCode::NOT_FOUND, "Message not found", "message_not_found", message)
            }
            PresenceRefused::NoAnswer => {
                Self::new(StatusCode::BAD_GATEWAY, "No answer", "no_answer", message).retryable(true)
            }
        }
    }
}

impl From<PutRefused> for Problem {
    fn from(refused: PutRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PutRefused::Url(_) => Self::bad_request("invalid_url", message),
            PutRefused::Secret(_) => Self::bad_request("invalid_secret", message),
            PutRefused::Store(error) => error.into(),
        }
    }
}

impl From<PasskeyRefused> for Problem {
    fn from(refused: PasskeyRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PasskeyRefused::Assertion(AssertionRefused::NotAsked) => {
                Self::new(StatusCode::CONFLICT, "No passkey asked for", "passkey_not_asked_for", message)
            }
            PasskeyRefused::Assertion(AssertionRefused::Malformed(_)) => {
                Self::bad_request("invalid_passkey_assertion", message)
            }
            PasskeyRefused::Failed(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "Passkey refused", "passkey_refused", message)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "storage");
        Self::storage_failed()
    }
}
