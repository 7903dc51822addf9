//! Errors of the control API, as `{"error":"…"}`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::fault_spec::FaultSpecError;
use crate::world::{AccountError, CodeError, InvalidPhone, PairError, WriteError};

/// A request that cannot be done.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    pub(crate) fn no_account() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no account with this number")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

macro_rules! problem_from {
    ($($error:ty => $status:expr),* $(,)?) => {$(
        impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                let status: fn(&$error) -> StatusCode = $status;
                Self::new(status(&error), error.to_string())
            }
        }
    )*};
}

problem_from! {
    InvalidPhone => |_| StatusCode::BAD_REQUEST,
    FaultSpecError => |_| StatusCode::BAD_REQUEST,
    AccountError => |error| match error {
        AccountError::Taken => StatusCode::CONFLICT,
        AccountError::Keys => StatusCode::INTERNAL_SERVER_ERROR,
    },
    WriteError => |error| match error {
        WriteError::NoAccount => StatusCode::NOT_FOUND,
        WriteError::NoRecipient => StatusCode::UNPROCESSABLE_ENTITY,
        WriteError::PhoneOff => StatusCode::CONFLICT,
        WriteError::NoMessage | WriteError::NotOwn | WriteError::NoOption => StatusCode::UNPROCESSABLE_ENTITY,
        WriteError::NoFile | WriteError::NoContent => StatusCode::BAD_REQUEST,
        WriteError::Encrypting | WriteError::Storage => StatusCode::INTERNAL_SERVER_ERROR,
    },
    PairError => |error| match error {
        PairError::NotAQr | PairError::Code(CodeError::Malformed) => StatusCode::BAD_REQUEST,
        PairError::NoAccount => StatusCode::NOT_FOUND,
        PairError::Stale => StatusCode::GONE,
        PairError::PhoneOff | PairError::NoCode | PairError::NotConfirmed => StatusCode::CONFLICT,
        PairError::Foreign | PairError::Code(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PairError::Account(_) | PairError::Signing => StatusCode::INTERNAL_SERVER_ERROR,
    },
    JsonRejection => |error| error.status(),
    QueryRejection => |error| error.status(),
    PathRejection => |error| error.status(),
}

/// The answer to an unknown path.
pub(crate) async fn no_such_path() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

/// The answer to a known path with another method.
pub(crate) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}
