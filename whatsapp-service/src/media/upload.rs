//! Bringing a file to WhatsApp's media host: the parts of it that the host has not, as it is on the disk.

use std::{io, path::Path, time::Duration};

use axum::body::Bytes;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{TryStreamExt, stream};
use http_body_util::StreamBody;
use hyper::{
    Request, StatusCode,
    body::Frame,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    http::uri::Authority,
};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

use crate::{
    model::media::{StoredMedia, Upload},
    net::{dial::Dialler, media_host, proxy::Proxy},
    util::clock,
    whatsapp::{client::Client, media_crypto::upload_path},
};

/// From how many bytes on the host is asked first what it has of a file, as WhatsApp Web does.
const RESUMABLE: u64 = 5 * 1024 * 1024;
/// How long a request may take, beside the time for its bytes. And how long nothing at all may move.
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

/// The same for one request.
struct Way<'a> {
    dialler: &'a Dialler,
    proxy: Option<&'a Proxy>,
    /// How long a host may take none of the bytes, or not answer when it has them all.
    silence: Duration,
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
        Some(Upload { url, direct_path, at: clock::wall().timestamp() })
    }
}

/// Uploads the file at `path`. Nothing of what goes wrong is told: it holds addresses and tokens.
pub async fn upload(line: &Line<'_>, parcel: &StoredMedia, path: &Path) -> Result<Upload, NotUploaded> {
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotUploaded::Lost),
        Err(_) => return Err(NotUploaded::Later),
    };
    let token = BASE64_URL_SAFE_NO_PAD.encode(&parcel.encrypted_sha256);
    let way = Way { dialler: line.dialler, proxy: line.proxy.as_ref(), silence: PATIENCE };
    // What is asked for anew is only what the hosts want to be shown.
    for fresh in [false, true] {
        let known = tokio::time::timeout(PATIENCE, line.client.media_hosts(fresh)).await;
        let known = known.map_err(|_| NotUploaded::Later)?.map_err(|_| NotUploaded::Later)?;
        let place = format!("{}/{token}?auth={}&token={token}", upload_path(parcel.kind), known.auth);
        let mut stale = false;
        for host in &known.hosts {
            let Ok(host) = host.parse::<Authority>() else { continue };
            match upload_to(&way, &host, &place, path, length).await {
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
#[derive(Debug)]
enum Refused {
    /// What it was shown is no longer good.
    Stale,
    /// Anything else.
    Otherwise,
}

async fn upload_to(way: &Way<'_>, host: &Authority, place: &str, path: &Path, length: u64) -> Result<Upload, Refused> {
    let mut offset = 0;
    if length >= RESUMABLE
        && let Ok(answer) = post(way, host, &format!("{place}&resume=1"), None).await
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
    let answer = post(way, host, &place, Some((file, length - offset))).await?;
    answer.upload().ok_or(Refused::Otherwise)
}

async fn post(way: &Way<'_>, host: &Authority, place: &str, body: Option<(File, u64)>) -> Result<Answer, Refused> {
    let length = body.as_ref().map_or(0, |(_, length)| *length);
    let exchange = async {
        let request = Request::post(place)
            .header(CONTENT_TYPE, "application/octet-stream")
            // The hosts take nothing in chunks.
            .header(CONTENT_LENGTH, length);
        let body = StreamBody::new(pieces(body).map_ok(Frame::data));
        let answer = media_host::ask(way.dialler, way.proxy, host, request, body, way.silence).await;
        let (mut answer, mut text) = (answer.ok()?, Vec::new());
        while let Some(part) = answer.next().await.ok()? {
            text.extend_from_slice(&part);
            if text.len() > ANSWER {
                return None;
            }
        }
        Some((answer.status, text))
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpSocket, TcpStream},
    };

    use super::*;
    use crate::net::{policy::Policy, trust::Trust};

    /// More than what the system keeps of a connection whose other end does not read.
    const MUCH: u64 = 32 * 1024 * 1024;
    /// What a host says at the end.
    const TAKEN: &str = r#"{"url": "https://host/v/1", "direct_path": "/v/1"}"#;

    /// Uploads so many bytes to a host that does this with the connection, and bears so much silence.
    async fn upload_of(
        length: u64,
        silence: Duration,
        host: impl AsyncFnOnce(&mut TcpStream),
    ) -> Result<Upload, Refused> {
        let socket = TcpSocket::new_v4().unwrap();
        // Otherwise the system takes more and more for the host, before it reads.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let host = async {
            let mut stream = listener.accept().await.unwrap().0;
            host(&mut stream).await;
            // It stays open.
            std::future::pending::<()>().await;
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(length).unwrap();
        let dialler = Dialler::new(Some("ws://127.0.0.1:1/"), &Trust::WhatsAppOnly, Policy::new(false)).unwrap();
        let way = Way { dialler: &dialler, proxy: None, silence };
        let body = Some((File::open(file.path()).await.unwrap(), length));
        let answer = tokio::time::timeout(PATIENCE - Duration::from_secs(5), post(&way, &address, "/", body));
        tokio::select! {
            answer = answer => answer.expect("it is given up in time").map(|answer| answer.upload().unwrap()),
            () = host => unreachable!("it stays"),
        }
    }

    /// Reads a request's head, and then so many bytes.
    async fn read(stream: &mut TcpStream, length: u64) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_that_takes_all_and_never_answers_is_given_up() {
        let upload = upload_of(100_000, Duration::from_millis(500), async |stream| read(stream, 100_000).await);
        assert!(matches!(upload.await, Err(Refused::Otherwise)));
    }

    #[tokio::test]
    async fn a_host_that_stops_reading_is_given_up() {
        let upload = upload_of(MUCH, Duration::from_millis(500), async |_| {});
        assert!(matches!(upload.await, Err(Refused::Otherwise)));
    }

    #[tokio::test]
    async fn a_host_that_is_slow_but_goes_on_has_its_time() {
        const STEPS: u64 = 16;
        let (silence, begun) = (Duration::from_secs(2), tokio::time::Instant::now());
        let upload = upload_of(MUCH, silence, async |stream| {
            read(stream, 0).await;
            // As a host behind a slow line does: no step takes as long as silence may, but all of them together do.
            for _ in 0..STEPS {
                tokio::time::sleep(silence / 8).await;
                tokio::io::copy(&mut (&mut *stream).take(MUCH / STEPS), &mut tokio::io::sink()).await.unwrap();
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TAKEN}", TAKEN.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(upload.await.unwrap().direct_path, "/v/1");
        assert!(begun.elapsed() >= silence);
    }
}
