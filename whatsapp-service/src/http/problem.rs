//! What an answer looks like when something is wrong.

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
        request_log::Noted,
        unknown::{self, Unknown, Warning},
    },
    metrics,
    model::{
        error_code::{ErrorCode, Retry},
        message::{Failure, Message},
        session_state::State,
    },
};

/// How long to wait before asking again when bodies fill the memory for them, in seconds.
const BODIES_PAUSE: u64 = 2;
/// The same when all connections are busy.
const CONNECTION_PAUSE: u64 = 1;

const NO_SESSION: &str = "This tenant has no session. POST /session creates one.";

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
    fn bare(code: ErrorCode) -> Self {
        Self {
            // All of them are statuses: a test looks at each.
            status: StatusCode::from_u16(code.status()).unwrap_or_default(),
            error: code.title(),
            code: code.code().map(Into::into),
            message: None,
            id: None,
            state: None,
            reason: None,
            reference: None,
            whatsapp_code: None,
            retryable: match code.retry() {
                Retry::Yes => Some(true),
                Retry::No => Some(false),
                Retry::Depends | Retry::Unsaid => None,
            },
            retry_after: None,
            warnings: Vec::new(),
        }
    }

    /// A problem with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::bare(code) }
    }

    /// The secret is absent or wrong.
    pub fn unauthorized() -> Self {
        let message = "The header X-Internal-Secret is absent or wrong. This interface is described at /docs.";
        Self::new(ErrorCode::Unauthorized, message)
    }

    /// There is no such path.
    pub fn no_such_path() -> Self {
        Self::bare(ErrorCode::NoSuchPath)
    }

    /// The path is there, but not with this method.
    pub fn method_not_allowed() -> Self {
        Self::new(ErrorCode::MethodNotAllowed, "This path exists, but not with this method.")
    }

    /// The tenant's header is absent.
    pub fn tenant_required() -> Self {
        Self::bare(ErrorCode::TenantRequired)
    }

    /// The body is larger than allowed; `advice` says what to do instead, if there is something.
    pub fn too_large(limit: usize, advice: &str) -> Self {
        let message = format!("The body is larger than {limit} bytes. {advice}");
        Self::new(ErrorCode::PayloadTooLarge, message.trim_end())
    }

    /// Too many bodies, or too large ones, are in memory.
    pub fn bodies_full() -> Self {
        let message = "Other calls fill the memory for bodies just now. Large files are better sent as forms.";
        Self::new(ErrorCode::BodyMemoryFull, message).retry_after(Some(BODIES_PAUSE))
    }

    /// The body did not arrive in time.
    pub fn too_slow() -> Self {
        Self::new(ErrorCode::RequestTimeout, "The body did not arrive in time.")
    }

    /// All connections are busy.
    pub fn too_many_connections() -> Self {
        let message = "As many requests are under way as there may be.";
        Self::new(ErrorCode::TooManyConnections, message).retry_after(Some(CONNECTION_PAUSE))
    }

    /// Something happened that nobody foresaw.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// The disk does not take what is to be written, or does not give what is to be read.
    pub fn storage_failed() -> Self {
        Self::new(ErrorCode::StorageFailed, "The disk can't be used now; the log says why.")
    }

    /// A message that was accepted, and has failed for good.
    pub fn failed(message: Message) -> Self {
        let Some(failure) = message.failure else { return Self::internal("The message failed for no known reason.") };
        // A code that a later version wrote is told as it is.
        let code = Failure::CODES.into_iter().find(|code| failure.is(*code)).unwrap_or(ErrorCode::SessionDeleted);
        Self {
            code: Some(failure.code.into()),
            id: Some(message.id),
            reference: message.reference,
            whatsapp_code: failure.whatsapp_code,
            ..Self::new(code, failure.reason)
        }
        .retryable(failure.retryable)
    }

    /// The tenant has no session, and what was asked is about one.
    pub fn session_not_found() -> Self {
        Self::new(ErrorCode::SessionNotFound, NO_SESSION)
    }

    /// The tenant has no session, and what was asked needs one.
    pub fn no_session() -> Self {
        Self::new(ErrorCode::NoSession, NO_SESSION)
    }

    /// Says in which state the session is, and why, where that stands in the way.
    pub fn in_state(self, state: State, reason: Option<String>) -> Self {
        Self { state: Some(state), reason, ..self }
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
            let known = ErrorCode::ALL.iter().filter(|error| error.is_answered()).filter_map(|error| error.code());
            metrics::problem(known.into_iter().find(|known| known == code).unwrap_or(metrics::OTHER));
        }
    }

    /// Says whether the same request may be sent again, where the code alone does not.
    pub fn retryable(mut self, retryable: bool) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_of_an_error() {
        for error in ErrorCode::ALL {
            let problem = Problem::bare(*error);
            assert!(problem.status.is_client_error() || problem.status.is_server_error(), "{error:?}");
            assert_eq!(problem.status.as_u16(), error.status());
        }
    }
}
