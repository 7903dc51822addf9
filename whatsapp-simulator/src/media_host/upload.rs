//! `POST /mms/{kind}/{token}`: a file comes in, in one piece or in several.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use super::{refusal, slowness};
use crate::control::App;
use crate::world::address::{AccountId, Address};
use crate::world::faults::FaultKind;
use crate::world::media::upload::{Upload, UploadError};
use crate::world::media::{Object, Progress, token};
use crate::world::{Phone, World};

/// What can be uploaded; the names of the real host.
const KINDS: [&str; 9] = [
    "image",
    "video",
    "audio",
    "document",
    "md-app-state",
    "md-msg-hist",
    "sticker-pack",
    "thumbnail-sticker-pack",
    "thumbnail-link",
];

/// What follows the path.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    auth: Option<String>,
    token: Option<String>,
    /// The client only asks how far it got.
    resume: Option<String>,
    /// Where the bytes of this request belong.
    file_offset: Option<u64>,
}

/// Whoever uploads, and why not.
fn uploader(world: &World, wish: &Wish) -> Result<(AccountId, Option<Phone>), Response> {
    let auth = wish.auth.as_deref().ok_or_else(|| refusal(StatusCode::UNAUTHORIZED, "auth is missing"))?;
    let account = world.media.account(auth).ok_or_else(|| refusal(StatusCode::FORBIDDEN, "auth is not ours"))?;
    Ok((account, world.number_of(account)))
}

pub(super) async fn upload(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    wish: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (Path((kind, name)), Query(wish)) = match (path, wish) {
        (Ok(path), Ok(wish)) => (path, wish),
        (Err(error), _) => return refusal(error.status(), error),
        (_, Err(error)) => return refusal(error.status(), error),
    };
    let world = &app.world;
    let (account, phone) = match uploader(world, &wish) {
        Ok(uploader) => uploader,
        Err(refused) => return refused,
    };
    if !KINDS.contains(&kind.as_str()) {
        return refusal(StatusCode::NOT_FOUND, "there is no such kind of file");
    }
    let Some(hash) = token(&name) else {
        return refusal(StatusCode::BAD_REQUEST, "the path does not end with a hash");
    };
    if wish.token.as_deref().is_some_and(|second| token(second) != Some(hash)) {
        return refusal(StatusCode::BAD_REQUEST, "the token is not that of the path");
    }
    slowness(world, phone.as_ref()).await;
    let host = host(&headers);
    if wish.resume.is_some() {
        return match world.media_progress(&hash) {
            Progress::Whole(object) => answer(world, host, &object, Some("complete".to_owned())),
            Progress::Part(length) => Json(json!({ "resume": length.to_string() })).into_response(),
            Progress::Nothing => Json(json!({ "resume": "0" })).into_response(),
        };
    }
    let (store, offset) = (Arc::clone(&world.media), wish.file_offset.unwrap_or_default());
    // Going on with a large file means to read it first.
    let started = tokio::task::spawn_blocking(move || Upload::start(store, hash, account, offset)).await;
    let mut upload = match started {
        Ok(Ok(upload)) => upload,
        Ok(Err(error)) => return failure(&error),
        Err(_) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the upload could not be started"),
    };
    match receive(world, phone.as_ref(), &mut upload, body).await {
        Received::All => {}
        Received::Cut => {
            drop(upload);
            return cut();
        }
        Received::Failed(error) => return failure(&error),
    }
    match upload.finish() {
        Ok(object) => {
            world.count(Address::phone(account), |c| &c.uploads);
            answer(world, host, &object, None)
        }
        Err(error) => failure(&error),
    }
}

enum Received {
    All,
    Cut,
    Failed(UploadError),
}

async fn receive(world: &World, phone: Option<&Phone>, upload: &mut Upload, body: Body) -> Received {
    let mut body = body.into_data_stream();
    let mut seen = 0_u64;
    while let Some(chunk) = body.next().await {
        // A client that goes in the middle comes back for the rest.
        let Ok(chunk) = chunk else { return Received::Cut };
        let end = seen + chunk.len() as u64;
        let limit = |kind: &FaultKind| match kind {
            FaultKind::CutUploadAfter(bytes) if end > *bytes => Some(*bytes),
            _ => None,
        };
        let limit = world.faults.take(phone, limit);
        let keep = limit.map_or(chunk.len(), |limit| usize::try_from(limit.saturating_sub(seen)).unwrap_or(usize::MAX));
        if let Err(error) = upload.write(&chunk[..keep.min(chunk.len())]) {
            return Received::Failed(error);
        }
        if limit.is_some() {
            return Received::Cut;
        }
        seen = end;
    }
    Received::All
}

/// Ends the connection instead of an answer: a body that fails before its first byte takes the connection with it.
fn cut() -> Response {
    let broken =
        futures_util::stream::once(async { Err::<Vec<u8>, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
    Body::from_stream(broken).into_response()
}

fn failure(error: &UploadError) -> Response {
    let status = match error {
        UploadError::Offset(_) => StatusCode::CONFLICT,
        UploadError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        UploadError::Hash | UploadError::Empty => StatusCode::BAD_REQUEST,
        UploadError::Storage(error) => {
            tracing::warn!(%error, "a file cannot be stored");
            StatusCode::INSUFFICIENT_STORAGE
        }
    };
    refusal(status, error)
}

/// Under which name the client knows this host.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

fn answer(world: &World, host: Option<&str>, object: &Object, resume: Option<String>) -> Response {
    let path = object.direct_path();
    let url = format!("https://{}{path}", world.media_host(host));
    match resume {
        Some(resume) => Json(json!({ "url": url, "direct_path": path, "resume": resume })).into_response(),
        None => Json(json!({ "url": url, "direct_path": path })).into_response(),
    }
}
