//! The bodies of requests: how much of one is read and for how long, and how it becomes what a handler takes.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body as RawBody, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header::CONTENT_LENGTH},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use crate::{
    http::{
        App,
        budget::Reserved,
        caller::Tenant,
        json,
        problem::Problem,
        unknown::{Unknown, is_strict, understood},
    },
    model::{error_code::ErrorCode, tenant::TenantId},
};

/// What a line must carry at least, in bytes per second.
const SLOWEST: u64 = 64 * 1024;
/// From how many bytes on it takes so long to read JSON that others would have to wait.
const LARGE: usize = 1024 * 1024;
/// The key of what may make a body large.
const LARGE_KEY: &[u8] = b"\"base64\"";
/// The way out for what is too large.
pub const AS_FORM: &str =
    "Send the file as a form (multipart/form-data), which goes to the disk while it comes in, or by `media.url`.";

/// A JSON body, whatever its content type says: the old service took it so. No body is an empty object. A field that the
/// type does not have is an error.
pub struct Body<T>(pub T);

/// The same, but fields that the type does not have are passed over, as the old service did, unless the caller wants it
/// otherwise.
pub struct Tolerant<T> {
    /// What was read.
    pub body: T,
    /// What was passed over, in the body and in the query.
    pub unknown: Unknown,
}

impl<T: DeserializeOwned + ToSchema> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let Raw { bytes, .. } = read(request, app, app.body_limit).await?;
        Ok(Self(understood(json::parse(&bytes), &T::name(), false)?.0))
    }
}

impl<T: DeserializeOwned + ToSchema> FromRequest<Arc<App>> for Tolerant<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (in_query, tolerant) = (Unknown::in_query(request.extensions()), !is_strict(request.headers()));
        let Raw { bytes, .. } = read(request, app, app.body_limit).await?;
        let (body, unknown) =
            understood(json::parse(&bytes), &T::name(), tolerant).map_err(|problem| problem.warned(&in_query))?;
        Ok(Self { body, unknown: in_query.and(unknown) })
    }
}

/// A body as it came, with the memory that it takes. It may hold media.
pub struct Raw {
    /// The bytes.
    pub bytes: Bytes,
    /// To be held until the bytes, and what was read from them, are gone.
    pub memory: Reserved,
}

impl FromRequest<Arc<App>> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        // Base64 has a third more than the bytes, and its line breaks and escapes some more.
        let most = usize::try_from(app.manager.media().highest_limit()).unwrap_or(usize::MAX);
        let most = (most / 2).saturating_mul(3).saturating_add(app.body_limit).min(app.bodies.longest());
        read(request, app, most).await
    }
}

/// Checks that a body is not larger than others, but for so many bytes of base64 in it.
pub fn check_size(length: usize, base64: usize, limit: usize) -> Result<(), Problem> {
    match length.saturating_sub(base64) > limit {
        true => Err(Problem::too_large(limit, AS_FORM)),
        false => Ok(()),
    }
}

/// Does work on so many bytes, and not where others would have to wait for it if these are many.
pub async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    if bytes <= LARGE {
        return Ok(work());
    }
    let failed = |_| Problem::internal("Reading the body failed in an unforeseen way; the log says more.");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// Reads the whole body, but no more of it than allowed and for no longer. More than `BODY_LIMIT` is only read of one that
/// may hold media.
async fn read(request: Request, app: &Arc<App>, most: usize) -> Result<Raw, Problem> {
    let (mut parts, body) = request.into_parts();
    let Tenant(tenant) = Tenant::from_request_parts(&mut parts, app).await?;
    let usual = app.body_limit;
    let advice = if most > usual { AS_FORM } else { "" };
    let length = content_length(&parts.headers);
    if length.is_some_and(|length| length > most as u64) {
        return Err(Problem::too_large(most, advice));
    }
    let mut reading = Reading::begin(app, &tenant, body, length.unwrap_or_default())?;
    let mut may_be_large = false;
    while let Some(bytes) = reading.next().await? {
        reading.take(&bytes)?;
        if reading.bytes.len() > most {
            return Err(Problem::too_large(most, advice));
        }
        if reading.bytes.len() > usual && !may_be_large {
            may_be_large = reading.bytes.windows(LARGE_KEY.len()).any(|key| key == LARGE_KEY);
            if !may_be_large {
                return Err(Problem::too_large(usual, advice));
            }
        }
    }
    Ok(Raw { bytes: reading.bytes.into(), memory: reading.memory })
}

/// What a header says of the length of a body.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that comes in.
struct Reading {
    body: axum::body::BodyDataStream,
    bytes: Vec<u8>,
    memory: Reserved,
    begun: Instant,
    patience: Duration,
}

impl Reading {
    fn begin(app: &Arc<App>, tenant: &TenantId, body: RawBody, length: u64) -> Result<Self, Problem> {
        let memory = app.bodies.begin(tenant, length)?;
        let (body, patience) = (body.into_data_stream(), app.read_timeout);
        Ok(Self { body, bytes: Vec::new(), memory, begun: Instant::now(), patience })
    }

    /// What comes next. No line may be slower than the slowest.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let earned = self.patience + Duration::from_secs(self.bytes.len() as u64 / SLOWEST);
        let left = earned.saturating_sub(self.begun.elapsed()).min(self.patience);
        let came = timeout(left, self.body.next()).await.map_err(|_| Problem::too_slow())?;
        came.transpose().map_err(|_| Problem::new(ErrorCode::IncompleteBody, "The body broke off."))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.memory.grow(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
