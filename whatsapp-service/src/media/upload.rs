//! Bringing a file to WhatsApp's media host: the parts of it that the host has not, as it is on the disk.

use std::{io, path::Path, time::Duration};

use axum::body::Bytes;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::{
    Request, StatusCode,
    body::Frame,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, ORIGIN},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::task::AbortOnDropHandle;
use whatsapp_rust::{Client, wacore::net::WHATSAPP_WEB_ORIGIN};

use super::{Parcel, Upload};
use crate::sessions::{Dialler, Proxy};

/// From how many bytes on the host is asked first what it has of a file, as WhatsApp Web does.
const RESUMABLE: u64 = 5 * 1024 * 1024;
/// How long a request may take, beside the time for its bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a line must carry at least, in bytes per second.
const SLOWEST: u64 = 64 * 1024;
/// How long a request may take at most. What the host has by then it keeps.
const LONGEST: Duration = Duration::from_secs(600);
/// How much is read from the disk at a time.
const PIECE: usize = 64 * 1024;
/// The longest answer, in bytes.
const ANSWER: usize = 64 * 1024;

/// Why a file is not on the media host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUploaded {
    /// The host did not take it, or could not be reached. Another attempt may succeed, and goes on where this one ended.
    Later,
    /// The file is gone, or is not what was written.
    Lost,
}

/// The way to the media hosts, and the account that has the right to upload.
pub struct Line<'a> {
    /// Knows the hosts and what they want to be shown.
    pub client: &'a Client,
    /// Opens the connections.
    pub dialler: &'a Dialler,
    /// The tenant's own way.
    pub proxy: Option<Proxy>,
}

/// What a host says of an upload.
#[derive(Deserialize)]
struct Answer {
    url: Option<String>,
    direct_path: Option<String>,
    /// `complete`, or how many bytes of it are there.
    resume: Option<String>,
}

impl Answer {
    fn upload(self) -> Option<Upload> {
        let (url, direct_path) = self.url.zip(self.direct_path)?;
        Some(Upload { url, direct_path, at: Utc::now().timestamp() })
    }
}

/// Uploads the file at `path`. Nothing of what goes wrong is told: it holds addresses and tokens.
pub async fn upload(line: &Line<'_>, parcel: &Parcel, path: &Path) -> Result<Upload, NotUploaded> {
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotUploaded::Lost),
        Err(_) => return Err(NotUploaded::Later),
    };
    let token = BASE64_URL_SAFE_NO_PAD.encode(&parcel.encrypted_sha256);
    // What is asked for anew is only what the hosts want to be shown.
    for fresh in [false, true] {
        let known = line.client.refresh_media_conn(fresh).await.map_err(|_| NotUploaded::Later)?;
        let place = format!("{}/{token}?auth={}&token={token}", parcel.kind.media_type().upload_path(), known.auth);
        let mut stale = false;
        for host in &known.hosts {
            let Ok(host) = host.hostname.parse::<Authority>() else { continue };
            match upload_to(line, &host, &place, path, length).await {
                Ok(upload) => return Ok(upload),
                Err(Refused::Stale) => {
                    stale = true;
                    break;
                }
                Err(Refused::Otherwise) => {}
            }
        }
        if !stale {
            break;
        }
    }
    Err(NotUploaded::Later)
}

/// Why a host did not take a file.
enum Refused {
    /// What it was shown is no longer good.
    Stale,
    /// Anything else.
    Otherwise,
}

async fn upload_to(
    line: &Line<'_>,
    host: &Authority,
    place: &str,
    path: &Path,
    length: u64,
) -> Result<Upload, Refused> {
    let mut offset = 0;
    if length >= RESUMABLE
        && let Ok(answer) = post(line, host, &format!("{place}&resume=1"), None).await
    {
        match answer.resume.as_deref() {
            Some("complete") => {
                if let Some(upload) = answer.upload() {
                    return Ok(upload);
                }
            }
            Some(there) => offset = there.parse().ok().filter(|there| *there < length).unwrap_or(0),
            None => {}
        }
    }
    let mut file = File::open(path).await.map_err(|_| Refused::Otherwise)?;
    file.seek(io::SeekFrom::Start(offset)).await.map_err(|_| Refused::Otherwise)?;
    let place = if offset > 0 { format!("{place}&file_offset={offset}") } else { place.to_owned() };
    let answer = post(line, host, &place, Some((file, length - offset))).await?;
    answer.upload().ok_or(Refused::Otherwise)
}

async fn post(line: &Line<'_>, host: &Authority, place: &str, body: Option<(File, u64)>) -> Result<Answer, Refused> {
    let length = body.as_ref().map_or(0, |(_, length)| *length);
    let exchange = async {
        let stream = line.dialler.reach(host, line.proxy.as_ref()).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        let request = Request::post(place)
            .header(HOST, host.as_str())
            .header(ORIGIN, HeaderValue::from_static(WHATSAPP_WEB_ORIGIN))
            .header(CONTENT_TYPE, "application/octet-stream")
            // The hosts take nothing in chunks.
            .header(CONTENT_LENGTH, length)
            .body(StreamBody::new(pieces(body).map(|piece| piece.map(Frame::data))))
            .ok()?;
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status();
        let text = Limited::new(answer.into_body(), ANSWER).collect().await.ok()?.to_bytes();
        Some((status, text))
    };
    let limit = (PATIENCE + Duration::from_secs(length / SLOWEST)).min(LONGEST);
    match tokio::time::timeout(limit, exchange).await {
        Ok(Some((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _))) => Err(Refused::Stale),
        Ok(Some((status, text))) if status.is_success() => {
            serde_json::from_slice(&text).map_err(|_| Refused::Otherwise)
        }
        _ => Err(Refused::Otherwise),
    }
}

/// What is left of a file, up to so many bytes.
fn pieces(body: Option<(File, u64)>) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(body, |body| async {
        let (mut file, left) = body.filter(|(_, left)| *left > 0)?;
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        match file.read(&mut piece).await {
            Ok(0) => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), Some((file, left - read as u64))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}
