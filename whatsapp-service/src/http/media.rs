//! `GET /messages/{id}/media`: the file that came with a message, decrypted as it is read.

use std::{io, ops::Range, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
            CONTENT_TYPE, ETAG, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use utoipa::IntoParams;

use crate::{
    http::{App, caller::Tenant, problem::Problem, query::Query},
    model::error_code::ErrorCode,
    session::{download::NotFetched, media_file::MediaFile},
    store::kept::{Kept, KeptFor, MediaSource},
    util::encoding::percent_encoded,
};

/// How much is read at a time.
const CHUNK: u64 = 64 * 1024;
/// How long a caller may take nothing of an answer: the file takes room on the disk until then.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how many seconds it makes sense to ask again when too many files are being fetched.
const BUSY_PAUSE: u64 = 10;
/// The type of a file whose sender names none.
const UNKNOWN: &str = "application/octet-stream";
/// The longest name that is passed on, in characters.
const LONGEST_NAME: usize = 200;

/// Which file.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Tells messages apart that have the same id: as it stands in `mediaUrl`.
    #[param(pattern = "^[0-9a-f]{16}$")]
    of: Option<String>,
}

/// `GET /messages/{id}/media`: the file that came with a message.
#[utoipa::path(
    get, path = "/messages/{id}/media", tag = "Messages",
    params(
        ("id" = String, Path, description = "The id of a message that came in, percent-encoded."),
        Which,
        ("Range" = Option<String>, Header, description = "A part of the file, as `bytes=0-1023`."),
    ),
    responses(
        (status = 200, description = "The file.", body = Vec<u8>, content_type = "*/*"),
        (status = 206, description = "The part that was asked for.", body = Vec<u8>, content_type = "*/*"),
    )
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    id: Result<Path<String>, PathRejection>,
    Query(Which { of }): Query<Which>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    let kept = app.manager.store().kept(&tenant, &id).await?;
    let is_it = |kept: &Kept| of.as_ref().is_none_or(|of| kept.digest() == *of);
    let (kept, source) =
        kept.into_iter().filter(is_it).find_map(|kept| Some((kept.clone(), file_of(kept)?))).ok_or_else(not_found)?;
    let tag = format!("\"{}\"", hex::encode(&source.sha256));
    let mut answer = about(&source, &tag);
    if method == Method::HEAD {
        // What its sender says of it: it is not fetched for this.
        if let Some(size) = source.size {
            answer.insert(CONTENT_LENGTH, size.into());
        }
        return Ok((answer, Body::empty()).into_response());
    }
    let session = app.manager.get(&tenant).ok_or_else(Problem::no_session)?;
    let file = session.file(&kept, &source).await?;
    let size = file.size();
    // A part of another file than the caller has begun with is of no use.
    let same = headers.get(IF_RANGE).is_none_or(|begun| begun.as_bytes() == tag.as_bytes());
    let asked = headers.get(RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.map_or(Asked::Everything, |range| asked_for(range, size)) {
        Asked::Everything => (StatusCode::OK, 0..size),
        Asked::Part(range) => {
            answer.insert(CONTENT_RANGE, text(format!("bytes {}-{}/{size}", range.start, range.end - 1)));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Asked::Nothing => {
            let message = format!("The file has {size} bytes, and none of them is in that range.");
            let problem = Problem::new(ErrorCode::RangeNotSatisfiable, message);
            return Ok(([(CONTENT_RANGE, text(format!("bytes */{size}")))], problem).into_response());
        }
    };
    answer.insert(CONTENT_LENGTH, (range.end - range.start).into());
    Ok((status, answer, body(file, range)).into_response())
}

fn file_of(kept: Kept) -> Option<MediaSource> {
    match kept.what {
        KeptFor::Media(source) => Some(source),
        KeptFor::Votes(_) => None,
    }
}

fn not_found() -> Problem {
    let message = "No file came with a message of this id, or what opens it was forgotten since.";
    Problem::new(ErrorCode::MediaNotFound, message)
}

/// What is said of the file. Whatever its sender calls it, a browser is not to show it as a page of this host.
fn about(source: &MediaSource, tag: &str) -> HeaderMap {
    let mimetype = source.mimetype.as_deref().filter(|mimetype| is_mimetype(mimetype));
    let mimetype = mimetype.unwrap_or(UNKNOWN);
    let fields: [(HeaderName, HeaderValue); 7] = [
        (CONTENT_TYPE, text(mimetype.into())),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        (CONTENT_DISPOSITION, text(disposition(source.filename.as_deref()))),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (ETAG, text(tag.into())),
    ];
    fields.into_iter().collect()
}

/// A header's value that is ASCII already.
fn text(value: String) -> HeaderValue {
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""))
}

/// Whether a text is a MIME type, maybe with parameters.
fn is_mimetype(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_plain = parameters.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    text.len() <= 255 && is_plain && name.trim().split_once('/').is_some_and(|(kind, of)| token(kind) && token(of))
}

/// To be saved and not shown, under the name that its sender gave it (RFC 6266): in ASCII for old clients, and in full.
fn disposition(name: Option<&str>) -> String {
    let name: String = name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    // A name is no way to another folder.
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    if name.is_empty() || name.chars().all(|c| c == '.') {
        return "attachment".into();
    }
    let ascii = |c: char| if c == ' ' || (c.is_ascii_graphic() && !"\"%".contains(c)) { c } else { '_' };
    let simple: String = name.chars().map(ascii).collect();
    format!("attachment; filename=\"{simple}\"; filename*=UTF-8''{}", percent_encoded(name))
}

/// How much of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Part(Range<u64>),
    Nothing,
}

/// What a `Range` means (RFC 9110). One that is not understood, and one of several parts, counts as none.
fn asked_for(range: &str, size: u64) -> Asked {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Asked::Everything;
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // One that does not fit is beyond every file.
        true if !text.is_empty() => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        _ => None,
    };
    let (start, end) = match (number(first), number(last)) {
        (None, Some(length)) if first.is_empty() => (size.saturating_sub(length), size),
        (Some(start), None) if last.is_empty() => (start, size),
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        _ => return Asked::Everything,
    };
    if start < end { Asked::Part(start..end) } else { Asked::Nothing }
}

/// The part of a file, read as fast as it is taken. One that ends before its end breaks the answer off: its length was
/// said.
fn body(file: Arc<MediaFile>, range: Range<u64>) -> Body {
    let (parts, mut taken) = mpsc::channel(1);
    // Nobody asks the answer for more while its caller takes nothing: only a task of its own notices that.
    tokio::spawn(give(file, range, parts));
    Body::from_stream(stream::poll_fn(move |context| taken.poll_recv(context)))
}

/// Hands over the part of a file until nobody takes it any more.
async fn give(file: Arc<MediaFile>, range: Range<u64>, parts: mpsc::Sender<io::Result<Bytes>>) {
    let mut at = range.start;
    while at < range.end {
        let Ok(Ok(place)) = timeout(PATIENCE, parts.reserve()).await else { return };
        let (reader, now) = (file.clone(), at..range.end.min(at + CHUNK));
        at = now.end;
        let part = spawn_blocking(move || reader.read(now)).await.map_err(io::Error::other).flatten();
        let is_broken = part.is_err();
        place.send(part.map(Bytes::from));
        if is_broken {
            return;
        }
    }
}

impl From<NotFetched> for Problem {
    fn from(why: NotFetched) -> Self {
        let message = why.to_string();
        match why {
            NotFetched::Refused(refused) => refused.into(),
            NotFetched::Busy => Self::new(ErrorCode::MediaBusy, message).retry_after(Some(BUSY_PAUSE)),
            NotFetched::Expired => Self::new(ErrorCode::MediaExpired, message),
            NotFetched::Unavailable(_) => Self::new(ErrorCode::MediaUnavailable, message),
            NotFetched::Damaged(_) => Self::new(ErrorCode::MediaDamaged, message),
            NotFetched::Disk(error) => {
                tracing::error!(%error, "storage");
                Self::storage_failed()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_long_is_let_go_and_who_is_slow_is_not() {
        let plain: Vec<u8> = (0..3 * CHUNK + 100).map(|n| (n % 251) as u8).collect();
        let file = Arc::new(MediaFile::holding(&plain));
        let mut slow = body(file.clone(), 10..file.size()).into_data_stream();
        let mut got = Vec::new();
        while let Some(part) = slow.next().await {
            got.extend(part.unwrap());
            sleep(PATIENCE * 9 / 10).await;
        }
        assert!(got == plain[10..], "other bytes");

        let (size, held) = (file.size(), Arc::downgrade(&file));
        let mut stalled = body(file, 0..size).into_data_stream();
        let mut got = stalled.next().await.expect("a part").unwrap().len();
        assert!(held.upgrade().is_some());
        sleep(PATIENCE * 2).await;
        assert!(held.upgrade().is_none(), "the file is still there");
        while let Some(Ok(part)) = stalled.next().await {
            got += part.len();
        }
        assert!((got as u64) < size, "the answer is known to be broken off");

        let gone = Arc::new(MediaFile::holding(&plain));
        let held = Arc::downgrade(&gone);
        drop(body(gone, 0..size));
        while held.upgrade().is_some() {
            sleep(PATIENCE / 100).await;
        }
    }

    #[test]
    fn a_range_is_read_as_it_is_meant() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-9", Asked::Part(0..10)),
            ("bytes=3-100", Asked::Part(3..10)),
            ("bytes=9-", Asked::Part(9..10)),
            ("bytes=-4", Asked::Part(6..10)),
            ("bytes=-400", Asked::Part(0..10)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-20", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::Everything),
            ("bytes=0-1,3-4", Asked::Everything),
            ("bytes=", Asked::Everything),
            ("bytes=-", Asked::Everything),
            ("bytes=a-b", Asked::Everything),
            ("items=0-1", Asked::Everything),
        ] {
            assert_eq!(asked_for(range, 10), expected, "{range}");
        }
        assert_eq!(asked_for("bytes=0-", 0), Asked::Nothing);
    }

    #[test]
    fn a_name_is_only_a_name() {
        assert_eq!(disposition(None), "attachment");
        assert_eq!(disposition(Some("..")), "attachment");
        assert!(disposition(Some(&"é".repeat(10_000))).len() < 2_000);
        let named = |simple: &str, full: &str| format!("attachment; filename=\"{simple}\"; filename*=UTF-8''{full}");
        assert_eq!(disposition(Some("Angebot 7.pdf")), named("Angebot 7.pdf", "Angebot%207.pdf"));
        assert_eq!(disposition(Some("../../etc/passwd")), named("passwd", "passwd"));
        assert_eq!(disposition(Some("C:\\Windows\\a.exe")), named("a.exe", "a.exe"));
        assert_eq!(disposition(Some("a\"b\r\nX: y.txt")), named("a_bX: y.txt", "a%22bX%3A%20y.txt"));
        assert_eq!(disposition(Some("relatório.pdf")), named("relat_rio.pdf", "relat%C3%B3rio.pdf"));
    }

    #[test]
    fn what_is_no_mime_type_is_not_passed_on() {
        let source = |mimetype: &str| MediaSource {
            kind: crate::model::media::MediaKind::Document,
            path: String::new(),
            key: Vec::new(),
            sha256: Vec::new(),
            encrypted_sha256: Vec::new(),
            size: None,
            mimetype: Some(mimetype.into()),
            filename: None,
        };
        for (said, passed_on) in [("text/csv", "text/csv"), ("text", UNKNOWN), ("text/csv\r\nX: y", UNKNOWN)] {
            assert_eq!(about(&source(said), "")[CONTENT_TYPE], passed_on, "{said:?}");
        }
        for good in ["image/jpeg", "audio/ogg; codecs=opus", "application/vnd.ms-excel", "image/svg+xml"] {
            assert!(is_mimetype(good), "{good}");
        }
        for bad in ["", "image", "image/", "/jpeg", "image/jp eg", "image/jpeg; x=\n", "imäge/jpeg", "a/b/c"] {
            assert!(!is_mimetype(bad), "{bad}");
        }
    }
}
