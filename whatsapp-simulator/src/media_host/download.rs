//! `GET /v/…`: a file goes out, whole or a part of it.

use std::io::{self, SeekFrom};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{refusal, slowness};
use crate::control::App;
use crate::world::address::Address;
use crate::world::faults::FaultKind;
use crate::world::media::{FOLDER, Missing, token};

/// How much is read at once.
const CHUNK: u64 = 64 * 1024;

/// What follows the path. Clients that know a hash or a token may say it, and need not.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    auth: Option<String>,
    token: Option<String>,
    hash: Option<String>,
}

/// Which part of a file of `length` bytes is asked for: its start, and how many bytes. `None` if there is no such part.
fn range(header: &str, length: u64) -> Option<(u64, u64)> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (from, last) = match (from.trim(), to.trim()) {
        ("", last) => (length.saturating_sub(last.parse().ok()?), length.checked_sub(1)?),
        (from, "") => (from.parse().ok()?, length.checked_sub(1)?),
        (from, last) => (from.parse().ok()?, last.parse::<u64>().ok()?.min(length.checked_sub(1)?)),
    };
    (from <= last).then(|| (from, last - from + 1))
}

pub(super) async fn download(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    wish: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let (Path((folder, name)), Query(wish)) = match (path, wish) {
        (Ok(path), Ok(wish)) => (path, wish),
        (Err(error), _) => return refusal(error.status(), error),
        (_, Err(error)) => return refusal(error.status(), error),
    };
    let world = &app.world;
    if wish.auth.as_deref().is_some_and(|auth| world.media.account(auth).is_none()) {
        return refusal(StatusCode::FORBIDDEN, "auth is not ours");
    }
    let found = if FOLDER == format!("/v/{folder}/") { world.find_media(&name) } else { Err(Missing::Unknown) };
    let object = match found {
        Ok(object) => object,
        Err(Missing::Unknown) => return refusal(StatusCode::NOT_FOUND, "there is no such file"),
        Err(Missing::Expired) => return refusal(StatusCode::GONE, "the file has expired"),
    };
    if [wish.token, wish.hash].iter().flatten().any(|hash| token(hash) != Some(object.token())) {
        return refusal(StatusCode::NOT_FOUND, "the file at this path is another one");
    }
    let owner = object.owner();
    slowness(world, world.number_of(owner).as_ref()).await;
    let wanted = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let part = wanted.map(|wanted| range(wanted, object.length));
    let (start, length) = match part {
        Some(None) => {
            let size = [(header::CONTENT_RANGE, format!("bytes */{}", object.length))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, size).into_response();
        }
        Some(Some(part)) => part,
        None => (0, object.length),
    };
    let Ok(file) = world.media.open(&object) else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read");
    };
    let damage = |kind: &FaultKind| (*kind == FaultKind::MediaDamaged).then_some(());
    let damage = world.faults.take(world.number_of(owner).as_ref(), damage);
    let (world, mut file) = (Arc::clone(world), tokio::fs::File::from_std(file));
    if file.seek(SeekFrom::Start(start)).await.is_err() {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read");
    }
    let done = move || world.count(Address::phone(owner), |c: &crate::world::Counters| &c.downloads);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let body = match damage {
        Some(()) => Body::from_stream(read(file, length, done).map(|part| part.map(damaged))),
        None => Body::from_stream(read(file, length, done)),
    };
    if part.is_some() {
        let last = start + length - 1;
        let place = [(header::CONTENT_RANGE, format!("bytes {start}-{last}/{}", object.length))];
        return (StatusCode::PARTIAL_CONTENT, headers, place, body).into_response();
    }
    (headers, body).into_response()
}

/// Other bytes than these, as many.
fn damaged(part: Bytes) -> Bytes {
    let mut part = part.to_vec();
    part.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    part.into()
}

/// Reads so many bytes of a file, and says when the last ones were taken.
pub(crate) fn read(
    file: tokio::fs::File,
    length: u64,
    done: impl FnOnce() + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    unfold((file, length, Some(done)), |(mut file, left, mut done)| async move {
        if left == 0 {
            return None;
        }
        let mut chunk = vec![0; usize::try_from(left.min(CHUNK)).unwrap_or_default()];
        let count = match file.read(&mut chunk).await {
            Ok(0) => return Some((Err(io::ErrorKind::UnexpectedEof.into()), (file, 0, None))),
            Ok(count) => count,
            Err(error) => return Some((Err(error), (file, 0, None))),
        };
        chunk.truncate(count);
        let left = left - count as u64;
        if left == 0
            && let Some(done) = done.take()
        {
            done();
        }
        Some((Ok(chunk.into()), (file, left, done)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_where_they_should_be() {
        for (header, expected) in [
            ("bytes=0-", Some((0, 100))),
            ("bytes=10-19", Some((10, 10))),
            ("bytes=90-1000", Some((90, 10))),
            ("bytes=-30", Some((70, 30))),
            ("bytes=-300", Some((0, 100))),
            ("bytes=100-", None),
            ("bytes=20-10", None),
            ("bytes=0-1,5-6", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range(header, 100), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_part_is_in_the_file(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", length: u64) {
            if let Some((start, count)) = range(&header, length) {
                prop_assert!(start.checked_add(count).is_some_and(|end| end <= length));
            }
        }
    }
}
