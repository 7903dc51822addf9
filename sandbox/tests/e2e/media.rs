//! Media: whatever a caller brings, its recipient gets the same bytes, once, and no other address is asked for them.

use std::{
    io::{Read, Write},
    net::TcpListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode as Status, response::IntoResponse, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{ANA, BRUNO, Log, Program, SECRET, Service, World, answer, eventually, simulator};

/// How long a call may take that is to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);

pub const OPUS: &[u8] =
    b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";

pub const WEBP: &[u8] = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0";

/// A picture of so many pixels, which does not get smaller by being packed.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&noise(width as usize * height as usize * 3)).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A film's head, and as much behind it as is wanted.
pub fn film(length: usize) -> Vec<u8> {
    let named = |name: &[u8], content: &[u8]| [&(content.len() as u32 + 8).to_be_bytes(), name, content].concat();
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    let mvhd = [numbers(&[0, 0, 0, 1000, 7500]), vec![0; 80]].concat();
    let tkhd = [vec![0; 76], numbers(&[320 << 16, 240 << 16])].concat();
    let moov = [named(b"mvhd", &mvhd), named(b"trak", &named(b"tkhd", &tkhd))].concat();
    [named(b"ftyp", b"isom\0\0\x02\0isomiso2"), named(b"moov", &moov), named(b"mdat", &noise(length))].concat()
}

/// So many bytes without a pattern, always the same.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A form (RFC 7578), part after part.
#[derive(Default)]
pub struct Form(Vec<u8>);

impl Form {
    const BOUNDARY: &str = "a-boundary-of-the-test";

    pub fn part(mut self, about: &str, bytes: &[u8]) -> Self {
        let head = format!("--{}\r\nContent-Disposition: form-data; {about}\r\n\r\n", Self::BOUNDARY);
        self.0.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        self
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    pub fn file(self, filename: &str, bytes: &[u8]) -> Self {
        self.part(&format!("name=\"media\"; filename=\"{filename}\""), bytes)
    }

    fn ended(mut self) -> Vec<u8> {
        self.0.extend(format!("--{}--\r\n", Self::BOUNDARY).as_bytes());
        self.0
    }

    pub fn send_as(self, request: RequestBuilder) -> RequestBuilder {
        Self::bytes(request, self.ended())
    }

    /// Anything that calls itself a form.
    fn bytes(request: RequestBuilder, body: Vec<u8>) -> RequestBuilder {
        request.header("Content-Type", format!("multipart/form-data; boundary={}", Self::BOUNDARY)).body(body)
    }
}

/// A caller of `POST /send` that writes its form as it likes.
struct Writer(TcpStream);

impl Writer {
    /// Says that so many bytes will come.
    async fn begin(service: &Service, length: usize) -> Self {
        let mut stream = TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /send HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: acme\r\n\
             Content-Type: multipart/form-data; boundary={}\r\nContent-Length: {length}\r\n\r\n",
            Form::BOUNDARY
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the service reads");
    }

    async fn answer(mut self) -> (u16, Value) {
        let mut said = Vec::new();
        loop {
            assert_ne!(self.0.read_buf(&mut said).await.unwrap(), 0, "no answer");
            let text = String::from_utf8_lossy(&said);
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), body);
            }
        }
    }
}

/// Sends a form as this tenant, with these fields before the file.
pub async fn send_form(service: &Service, fields: &[(&str, &str)], name: &str, bytes: Vec<u8>) -> (u16, Value) {
    let form = fields.iter().fold(Form::default().text("to", BRUNO), |form, (field, value)| form.text(field, value));
    let request = service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let (status, body) = answer(form.file(name, &bytes).send_as(request)).await;
    (status.as_u16(), body)
}

impl World {
    /// Waits until a phone shows the message of this id, and returns it with the bytes of its file.
    pub async fn until_file(&self, phone: &str, id: &Value) -> (Value, Vec<u8>) {
        let shown = eventually("the message with its file", || async {
            self.shown_on(phone).await.into_iter().find(|message| message["id"] == *id)
        })
        .await;
        let path = format!("/admin/accounts/{phone}/messages/{}/media", id.as_str().unwrap());
        let response = crate::harness::http().get(self.simulator.http_url() + &path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{shown}");
        (shown, response.bytes().await.unwrap().to_vec())
    }

    pub async fn uploads(&self) -> u64 {
        self.count(ANA, "uploads").await
    }
}

/// How many files stand in the service's folder for media.
pub fn files(service: &Service) -> usize {
    std::fs::read_dir(service.data.path().join("media")).unwrap().count()
}

pub async fn paired(env: &[(&str, &str)]) -> World {
    let world = World::with(Default::default(), env).await;
    world.pair("acme", ANA).await;
    world
}

#[tokio::test]
async fn every_kind_arrives_as_it_was_given() {
    let world = paired(&[("BODY_LIMIT", "4000000")]).await;
    let acme = world.service.tenant("acme");
    let (picture, film, mp3) = (png(300, 200), film(40_000), [b"ID3\x04\0\0\0\0\0\0", &noise(5_000)[..]].concat());
    for (kind, bytes, beside) in [
        ("image", picture.clone(), json!({"message": "look"})),
        ("video", film, json!({"message": "and see"})),
        ("audio", mp3, json!({})),
        ("voice", [OPUS, &noise(3_000)].concat(), json!({"voice": true})),
        ("sticker", WEBP.to_vec(), json!({"sticker": true})),
        ("document", b"a,b\n1,2\n".to_vec(), json!({"message": "the figures"})),
        ("document", picture, json!({"document": true})),
    ] {
        let mut body = json!({"to": BRUNO, "media": {"base64": BASE64_STANDARD.encode(&bytes), "filename": "a b.csv"}});
        body.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, 200, "{kind}: {sent}");
        let (shown, got) = world.until_file(BRUNO, &sent["id"]).await;
        assert!(got == bytes, "{kind}: equal bytes");
        assert_eq!((&shown["kind"], shown["text"].as_str()), (&json!(kind), beside["message"].as_str().or(Some(""))));
        let media = &shown["media"];
        assert_eq!((&media["sha256"], &media["size"]), (&json!(hexadecimal(&bytes)), &json!(bytes.len())), "{shown}");
        assert!(media["error"].is_null(), "{shown}");
        match kind {
            "image" => {
                assert_eq!(
                    (&media["width"], &media["height"], &media["thumbnail"]),
                    (&json!(300), &json!(200), &json!(true))
                );
            }
            "video" => {
                assert_eq!(
                    (&media["width"], &media["height"], &media["seconds"]),
                    (&json!(320), &json!(240), &json!(7))
                );
            }
            "document" => assert_eq!(media["filename"], "a b.csv"),
            _ => {}
        }
        acme.until_fate(&sent["id"], "delivered").await;
    }
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_form_is_the_same_call() {
    let world = paired(&[]).await;
    let picture = png(600, 500);
    assert!(picture.len() > 800_000);
    let fields = [("message", "a form"), ("reference", "r-1"), ("expiresIn", "3600"), ("idempotencyKey", "k-1")];
    let (status, sent) = send_form(&world.service, &fields, "C:\\photos\\one.png", picture.clone()).await;
    assert_eq!((status, &sent["reference"]), (200, &json!("r-1")), "{sent}");
    let (shown, got) = world.until_file(BRUNO, &sent["id"]).await;
    assert!(got == picture);
    assert_eq!((&shown["kind"], &shown["text"]), (&json!("image"), &json!("a form")));
    let (status, again) = send_form(&world.service, &fields, "C:\\photos\\one.png", picture).await;
    assert_eq!((status, &again["id"]), (200, &sent["id"]), "the same call: {again}");
    let (status, other) = send_form(&world.service, &fields, "C:\\photos\\one.png", png(10, 10)).await;
    assert_eq!((status, &other["code"]), (409, &json!("idempotency_conflict")));
    // What the part is called counts where the bytes don't tell.
    let part = "name=\"media\"; filename=\"a.csv\"\r\nContent-Type: text/csv";
    let form = Form::default().text("to", BRUNO).part(part, b"a,b\n1,2\n");
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let (status, table) = answer(form.send_as(request)).await;
    assert_eq!(status, 200, "{table}");
    let (shown, _) = world.until_file(BRUNO, &table["id"]).await;
    assert_eq!((&shown["media"]["mimetype"], &shown["media"]["filename"]), (&json!("text/csv"), &json!("a.csv")));
    let (_, named) = send_form(&world.service, &[("filename", "b.csv")], "a.csv", b"a,b\n".to_vec()).await;
    assert_eq!(world.until_file(BRUNO, &named["id"]).await.0["media"]["filename"], "b.csv");
    let (_, voice) =
        send_form(&world.service, &[("voice", "true"), ("replyTo", sent["id"].as_str().unwrap())], "v", OPUS.to_vec())
            .await;
    let (shown, _) = world.until_file(BRUNO, &voice["id"]).await;
    assert_eq!((&shown["kind"], &shown["replyTo"]), (&json!("voice"), &sent["id"]));
    assert_eq!(world.shown_on(BRUNO).await.len(), 4);
}

#[tokio::test]
async fn what_can_not_be_sent_is_said_with_the_field() {
    let world = paired(&[("MEDIA_MAX_IMAGE", "1000"), ("MEDIA_MAX_DOCUMENT", "5000")]).await;
    let acme = world.service.tenant("acme");
    let text = BASE64_STANDARD.encode(b"some text");
    let picture = BASE64_STANDARD.encode(png(40, 40));
    for (body, status, code, word) in [
        (json!({"media": {}}), 400, "invalid_content", "media.url"),
        (json!({"media": {"url": "http://example.com/", "base64": text}}), 400, "invalid_content", "don't go together"),
        (json!({"media": {"base64": "%%%%"}}), 400, "invalid_content", "media.base64"),
        (json!({"media": {"base64": ""}}), 400, "invalid_content", "empty"),
        (json!({"media": {"base64": text, "filename": "../x"}}), 400, "invalid_content", "media.filename"),
        (json!({"media": {"base64": text, "mimetype": "x"}}), 400, "invalid_content", "media.mimetype"),
        (
            json!({"media": {"base64": text}, "location": {"latitude": 1, "longitude": 1}}),
            400,
            "invalid_content",
            "`media`",
        ),
        (json!({"message": "x", "voice": true}), 400, "invalid_content", "`voice`"),
        (json!({"media": {"base64": text}, "voice": true, "sticker": true}), 400, "invalid_content", "`sticker`"),
        (json!({"media": {"base64": text, "mimetype": "image/jpeg"}}), 415, "media_type", "image/jpeg"),
        (json!({"media": {"base64": text}, "voice": true}), 415, "media_type", "`voice`"),
        (json!({"media": {"base64": picture}}), 413, "media_too_large", "1000 bytes"),
        (json!({"media": {"base64": BASE64_STANDARD.encode(noise(6_000))}}), 413, "media_too_large", "5000 bytes"),
        (
            json!({"media": {"base64": BASE64_STANDARD.encode(OPUS)}, "message": "x"}),
            400,
            "invalid_content",
            "`message`",
        ),
        (json!({"media": {"url": "file:///etc/passwd"}}), 400, "invalid_content", "media.url"),
        (json!({"media": {"url": "ftp://example.com/x"}}), 400, "invalid_content", "media.url"),
        (json!({"media": {"url": "http://user:pass@example.com/x"}}), 400, "invalid_content", "media.url"),
    ] {
        let mut body = body;
        body["to"] = json!(BRUNO);
        let (got, problem) = acme.call(Method::POST, "/send", Some(body.clone())).await;
        assert_eq!((got.as_u16(), &problem["code"]), (status, &json!(code)), "{body}: {problem}");
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    for (fields, word) in [
        (vec![("voice", "yes")], "`voice`"),
        (vec![("message", "a"), ("message", "b")], "`message`"),
        (vec![("expiresIn", "soon")], "`expiresIn`"),
        (vec![("reference", &*"x".repeat(300_000))], "`reference`"),
    ] {
        let (status, problem) = send_form(&world.service, &fields, "x.txt", b"x".to_vec()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_multipart")), "{problem}");
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    let form = || Form::default().text("to", BRUNO);
    let late = form().file("v", OPUS).text("voice", "true");
    let twice = form().file("a", b"a").file("b", b"b");
    for (form, word) in [(late, "before `media`"), (twice, "`media` is there more than once"), (form(), "no file")] {
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let (status, problem) = answer(form.send_as(request)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid_multipart")), "{problem}");
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
    assert!(world.shown_on(BRUNO).await.is_empty());
}

/// What a server for media did.
struct Host {
    url: String,
    asked: Arc<AtomicUsize>,
}

/// A body that begins, and never goes on.
fn stalling() -> axum::body::Body {
    let beginning = futures_util::stream::iter([Ok::<_, std::io::Error>("a")]);
    axum::body::Body::from_stream(beginning.chain(futures_util::stream::pending()))
}

/// A server with a picture, and with ways that lead astray.
async fn host(picture: Vec<u8>) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let to = |place: String| async move { (Status::FOUND, [("location", place)]) };
    let by = |status: Status, place: &'static str| get(async move || (status, [("location", place)]));
    let app = Router::new()
        .route(
            "/picture",
            get(async move || {
                counter.fetch_add(1, Ordering::SeqCst);
                ([("content-type", "text/plain")], picture)
            }),
        )
        .route("/table", get(async || ([("content-type", "text/csv; charset=utf-8")], "a,b\n")))
        .route("/moved", by(Status::MOVED_PERMANENTLY, "/picture"))
        .route("/r1", by(Status::SEE_OTHER, "/picture"))
        .route("/r2", by(Status::TEMPORARY_REDIRECT, "/r1"))
        .route("/r3", by(Status::PERMANENT_REDIRECT, "r2#part"))
        .route("/r4", get(move || to("/r3".into())))
        .route("/zero", get(move || to("http://0.0.0.0/".into())))
        .route("/file", get(move || to("file:///etc/passwd".into())))
        .route(
            "/endless",
            get(async || {
                axum::body::Body::from_stream(futures_util::stream::repeat_with(|| {
                    Ok::<_, std::io::Error>(vec![7_u8; 65_536])
                }))
            }),
        )
        .route("/stalling", get(async || stalling().into_response()))
        .route("/large", get(async || ([("content-length", "999999999")], stalling()).into_response()))
        .route("/packed", get(async || ([("content-encoding", "gzip")], "x").into_response()))
        .route("/silent", get(std::future::pending::<()>));
    tokio::spawn(async { axum::serve(listener, app).await });
    Host { url, asked }
}

#[tokio::test]
async fn a_url_is_fetched_within_limits_and_the_bytes_tell_what_they_are() {
    let env = [("ALLOW_PRIVATE_TARGETS", "true"), ("MEDIA_FETCH_TIMEOUT", "4"), ("MEDIA_MAX_DOCUMENT", "300000")];
    let world = paired(&env).await;
    let acme = world.service.tenant("acme");
    let picture = png(64, 64);
    let host = host(picture.clone()).await;
    let url = |path: &str| json!({"to": BRUNO, "media": {"url": format!("{}{path}", host.url)}});
    for path in ["/picture", "/moved", "/r3"] {
        let (status, sent) = acme.call(Method::POST, "/send", Some(url(path))).await;
        assert_eq!(status, 200, "{path}: {sent}");
        let (shown, got) = world.until_file(BRUNO, &sent["id"]).await;
        assert!(got == picture);
        assert_eq!(shown["kind"], "image", "whatever the server calls it");
    }
    assert_eq!(world.uploads().await, 1, "the same bytes");
    let (_, table) = acme.call(Method::POST, "/send", Some(url("/table"))).await;
    assert_eq!(world.until_file(BRUNO, &table["id"]).await.0["media"]["mimetype"], "text/csv");
    let not_fetched = [
        ("/r4", false),
        ("/zero", false),
        ("/file", false),
        ("/packed", false),
        ("/silent", true),
        ("/stalling", true),
        ("/nothing", false),
    ];
    let mut messages = std::collections::BTreeSet::new();
    for (path, retryable) in not_fetched {
        let call = acme.call(Method::POST, "/send", Some(url(path)));
        let (status, mut problem) = tokio::time::timeout(PATIENCE, call).await.expect(path);
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("media_not_fetched")), "{path}: {problem}");
        assert_eq!(problem["retryable"].take(), retryable, "{path}");
        messages.insert(problem.to_string());
    }
    assert_eq!(messages.len(), 1, "nothing is told of the network: {messages:?}");
    for path in ["/endless", "/large"] {
        let (status, problem) = acme.call(Method::POST, "/send", Some(url(path))).await;
        assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("media_too_large")), "{path}: {problem}");
        assert_eq!(problem["retryable"], false, "{path}: {problem}");
    }
    // The same call again asks nobody.
    let mut body = url("/picture");
    body["idempotencyKey"] = json!("k");
    let (_, first) = acme.call(Method::POST, "/send", Some(body.clone())).await;
    let asked = host.asked.load(Ordering::SeqCst);
    let (_, again) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!((&again["id"], host.asked.load(Ordering::SeqCst)), (&first["id"], asked));
    // Neither does one that can't be sent.
    let (status, refused) = world.service.tenant("nobody").call(Method::POST, "/send", Some(url("/picture"))).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("session_not_found")), "{refused}");
    assert_eq!(host.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn the_urls_of_a_call_are_fetched_side_by_side_and_share_its_time() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true"), ("MEDIA_FETCH_TIMEOUT", "2")]).await;
    let acme = world.service.tenant("acme");
    let host = host(png(20, 20)).await;
    // One after the other, those that never answer would take 86 s.
    let silent = |n: usize| !(3..20).contains(&n);
    let messages: Vec<_> = (0..60)
        .map(|n| {
            let path = if silent(n) { "silent" } else { "picture" };
            json!({"to": BRUNO, "reference": n.to_string(), "media": {"url": format!("{}/{path}?{n}", host.url)}})
        })
        .collect();
    let begun = std::time::Instant::now();
    let (status, body) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    let took = begun.elapsed();
    assert_eq!(status, 202, "{body}");
    assert!(took.as_secs() < 20, "{took:?}");
    let entries = body["messages"].as_array().unwrap();
    assert_eq!(entries.len(), messages.len());
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry["reference"], n.to_string(), "in order");
        match silent(n) {
            true => assert_eq!((&entry["code"], &entry["retryable"]), (&json!("media_not_fetched"), &json!(true))),
            false => assert!(entry["id"].is_string(), "{entry}"),
        }
    }
    acme.until_fate(&entries[19]["id"], "delivered").await;
}

#[tokio::test]
async fn no_url_leads_into_the_private_network() {
    let world = paired(&[]).await;
    let acme = world.service.tenant("acme");
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answers = std::collections::BTreeSet::new();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "0x7f.1",
        "127.0.0.1.",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "%31%32%37.1",
        "①②⑦.⓪.⓪.①",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let body = json!({"to": BRUNO, "media": {"url": format!("http://{host}:{port}/x")}});
        let (status, problem) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("media_not_fetched")), "{host}: {problem}");
        answers.insert(problem.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came");
}

#[tokio::test]
async fn the_same_bytes_to_many_are_stored_and_uploaded_once() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let acme = world.service.tenant("acme");
    let host = host(png(50, 50)).await;
    let recipients: Vec<String> = (0..10).map(|n| format!("49151000000{n:02}")).collect();
    for phone in &recipients {
        let account = json!({"phone": phone, "name": "Someone"}).to_string();
        world.admin(Method::POST, "/admin/accounts", account).await;
    }
    let url = format!("{}/picture", host.url);
    let messages: Vec<_> = recipients.iter().map(|to| json!({"to": to, "media": {"url": url}})).collect();
    let (status, body) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(host.asked.load(Ordering::SeqCst), 1, "it is fetched once");
    assert_eq!(files(&world.service), 1, "and stored once");
    for (to, message) in recipients.iter().zip(body["messages"].as_array().unwrap()) {
        acme.until_fate(&message["id"], "delivered").await;
        world.until_file(to, &message["id"]).await;
    }
    // And later, when the file is gone.
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
    let (status, sent) = send_form(&world.service, &[], "x.png", png(50, 50)).await;
    assert_eq!(status, 200, "{sent}");
    world.until_file(BRUNO, &sent["id"]).await;
    assert_eq!(world.uploads().await, 1);
    // The same URL as another kind is another file.
    let (picture, document) =
        (json!({"to": BRUNO, "media": {"url": url}}), json!({"to": BRUNO, "media": {"url": url}, "document": true}));
    let (_, body) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": [picture, document]}))).await;
    for (message, kind) in body["messages"].as_array().unwrap().iter().zip(["image", "document"]) {
        assert_eq!(world.until_file(BRUNO, &message["id"]).await.0["kind"], kind);
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on_and_the_message_arrives_once() {
    let world = paired(&[]).await;
    let bytes = noise(7_000_000);
    // No request brings all of it: each goes on where the one before ended.
    world.fault(json!({"cutUploadAfter": 3_000_000})).await;
    let (status, sent) = send_form(&world.service, &[], "big.bin", bytes.clone()).await;
    assert!([200, 202].contains(&status), "{sent}");
    world.service.tenant("acme").until_fate(&sent["id"], "delivered").await;
    let (_, got) = world.until_file(BRUNO, &sent["id"]).await;
    assert!(got == bytes);
    assert_eq!((world.shown_on(BRUNO).await.len(), world.uploads().await), (1, 1));
}

#[tokio::test]
async fn a_kill_in_the_middle_of_an_upload_loses_and_doubles_nothing() {
    let mut world = paired(&[]).await;
    let bytes = noise(7_000_000);
    // The host answers late, so that the kill comes before it does.
    world.fault(json!({"mediaLatencyMs": 3_000})).await;
    let form = Form::default().text("to", BRUNO).file("big.bin", &bytes);
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let (status, sent) = answer(form.send_as(request)).await;
    assert_eq!(status, 202, "{sent}");
    assert_eq!(files(&world.service), 1);
    world.service.kill_and_restart().await;
    world.clear_faults().await;
    let acme = world.service.tenant("acme");
    acme.until_fate(&sent["id"], "delivered").await;
    let (_, got) = world.until_file(BRUNO, &sent["id"]).await;
    assert!(got == bytes);
    assert_eq!(world.shown_on(BRUNO).await.len(), 1);
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
}

#[tokio::test]
async fn what_is_still_uploaded_has_not_left_and_holds_nobody_else_up() {
    let mut world = paired(&[]).await;
    // The host does not answer in the time of this test.
    world.fault(json!({"mediaLatencyMs": 600_000})).await;
    let recipients: Vec<String> = (0..20).map(|n| format!("49151000000{n:02}")).collect();
    let acme = world.service.tenant("acme");
    let mut ids = Vec::new();
    for (n, phone) in recipients.iter().enumerate() {
        let account = json!({"phone": phone, "name": "Someone"}).to_string();
        world.admin(Method::POST, "/admin/accounts", account).await;
        let body = json!({"to": phone, "media": {"base64": BASE64_STANDARD.encode(format!("file {n}"))}});
        let (status, sent) = acme.call(Method::POST, "/send?wait=0", Some(body)).await;
        assert_eq!(status, 202, "{sent}");
        ids.push(sent["id"].clone());
    }
    acme.send_ok(BRUNO, "a text goes past them all").await;
    // One that is on its way to the media host can still be called back.
    let (status, cancelled) = acme.call(Method::DELETE, &format!("/messages/{}", ids[0].as_str().unwrap()), None).await;
    assert_eq!((status.as_u16(), &cancelled["code"]), (200, &json!("cancelled")), "{cancelled}");
    world.service.kill_and_restart().await;
    world.clear_faults().await;
    let acme = world.service.tenant("acme");
    for id in &ids[1..] {
        acme.until_fate(id, "delivered").await;
    }
    let steps = acme.told("message.status").await;
    assert!(
        steps.iter().all(|step| step["status"] != "unknown"),
        "none may have left before it was uploaded: {steps:?}"
    );
    assert!(world.shown_on(&recipients[0]).await.is_empty());
    for phone in &recipients[1..] {
        assert_eq!(world.shown_on(phone).await.len(), 1);
    }
}

#[tokio::test]
async fn what_was_uploaded_before_a_kill_is_not_uploaded_again() {
    let mut world = paired(&[]).await;
    // The upload succeeds, and the message does not get through.
    world.fault(json!({"dropMessages": true})).await;
    let bytes = noise(7_000_000);
    let form = Form::default().text("to", BRUNO).file("big.bin", &bytes);
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let (status, sent) = answer(form.send_as(request)).await;
    assert_eq!(status, 202, "{sent}");
    eventually("the upload", || async { (world.uploads().await == 1).then_some(()) }).await;
    world.service.kill_and_restart().await;
    world.clear_faults().await;
    world.service.tenant("acme").until_fate(&sent["id"], "delivered").await;
    let (_, got) = world.until_file(BRUNO, &sent["id"]).await;
    assert!(got == bytes);
    assert_eq!((world.shown_on(BRUNO).await.len(), world.uploads().await), (1, 1));
}

#[tokio::test]
async fn what_the_media_host_wants_to_be_shown_is_renewed() {
    let world = paired(&[]).await;
    for n in 0..2 {
        let (status, sent) = send_form(&world.service, &[], "x.bin", noise(1_000 + n)).await;
        assert_eq!((status, &sent["status"]), (200, &json!("sent")), "{sent}");
        world.fault(json!({"mediaTokensExpired": true})).await;
    }
    assert_eq!(world.uploads().await, 2);
}

#[tokio::test]
async fn a_message_whose_file_is_gone_is_given_up() {
    let world = paired(&[]).await;
    world.cut_off("acme", ANA).await;
    let form = Form::default().text("to", BRUNO).file("x", &noise(50_000));
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let (status, sent) = answer(form.send_as(request)).await;
    assert_eq!((status.as_u16(), files(&world.service)), (202, 1), "{sent}");
    let folder = std::fs::read_dir(world.service.data.path().join("media")).unwrap();
    folder.for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    world.clear_faults().await;
    let fate = world.service.tenant("acme").until_fate(&sent["id"], "failed").await;
    assert_eq!(fate["code"], "content_unreadable", "{fate}");
    world.service.tenant("acme").send_ok(BRUNO, "what comes after it is sent").await;
}

#[tokio::test]
async fn media_that_nobody_waits_for_any_more_is_removed() {
    let mut world = paired(&[]).await;
    world.cut_off("acme", ANA).await;
    let form = Form::default().text("to", BRUNO).file("x", &noise(50_000));
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let (status, sent) = answer(form.send_as(request)).await;
    assert_eq!((status.as_u16(), files(&world.service)), (202, 1), "{sent}");
    world.service.kill_and_restart().await;
    assert_eq!(files(&world.service), 1, "it is still to be sent");
    // What was never accepted is nobody's.
    let folder = world.service.data.path().join("media");
    for name in ["00000000000000000000000000000000", "11111111111111111111111111111111.part"] {
        std::fs::File::create(folder.join(name)).unwrap().write_all(b"x").unwrap();
    }
    world.service.kill_and_restart().await;
    eventually("the orphans are gone", || async { (files(&world.service) == 1).then_some(()) }).await;
    let path = format!("/messages/{}", sent["id"].as_str().unwrap());
    let acme = world.service.tenant("acme");
    let (status, cancelled) = acme.call(Method::DELETE, &path, None).await;
    assert_eq!(status, 200, "{cancelled}");
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
    // And what goes with its session.
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let form = Form::default().text("to", BRUNO).file("x", &noise(50_001));
    assert_eq!(answer(form.send_as(request)).await.0, 202);
    assert_eq!(files(&world.service), 1);
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 200);
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_tenant_whose_media_waits_leaves_room_to_the_others() {
    // Each tenant may have a quarter: two of these files.
    const FILE: usize = 50_000;
    let kinds = ["IMAGE", "VIDEO", "AUDIO", "DOCUMENT", "STICKER"].map(|kind| format!("MEDIA_MAX_{kind}"));
    let (most, room) = (FILE.to_string(), (4 * 2 * (FILE + 100)).to_string());
    let env: Vec<_> = kinds.iter().map(|kind| (kind.as_str(), most.as_str())).chain([("MEDIA_ROOM", &*room)]).collect();
    let mut world = paired(&env).await;
    world.pair("other", BRUNO).await;
    world.cut_off("acme", ANA).await;
    let send = async |service: &Service, tenant: &str, first: u8| {
        let form = Form::default().text("to", BRUNO).file("x", &[&[first][..], &noise(FILE - 1)].concat());
        let request = service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", tenant);
        let (status, body) = answer(form.send_as(request)).await;
        (status.as_u16(), body)
    };
    let mut waiting = Vec::new();
    for n in 0..2 {
        let (status, body) = send(&world.service, "acme", n).await;
        assert_eq!(status, 202, "{body}");
        waiting.push(body["id"].as_str().unwrap().to_owned());
    }
    // Also after a restart it is known whose the files are.
    for _ in 0..2 {
        let (status, body) = send(&world.service, "acme", 2).await;
        assert_eq!(
            (status, &body["code"], &body["retryable"]),
            (503, &json!("media_room_full"), &json!(true)),
            "{body}"
        );
        assert!(body["message"].as_str().unwrap().contains("this tenant"), "{body}");
        let (status, body) = send(&world.service, "other", 2).await;
        assert_eq!(status, 202, "{body}");
        world.service.kill_and_restart().await;
        world.service.tenant("other").until_state("ready").await;
    }
    let path = format!("/messages/{}", waiting[0]);
    assert_eq!(world.service.tenant("acme").call(Method::DELETE, &path, None).await.0, 200);
    eventually("there is room again", || async { (send(&world.service, "acme", 2).await.0 == 202).then_some(()) })
        .await;
}

#[tokio::test]
async fn nothing_of_media_is_told_by_the_disk_the_log_or_the_answers() {
    let key = BASE64_STANDARD.encode([7; 32]);
    let mut world = paired(&[("ENCRYPTION_KEY", &key), ("KEEP_BODIES", "true")]).await;
    world.cut_off("acme", ANA).await;
    let secret = b"the-secret-of-the-document ".repeat(400);
    let form = Form::default().text("to", BRUNO).file("private-name.txt", &secret);
    let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
    let (status, sent) = answer(form.send_as(request)).await;
    assert_eq!(status, 202, "{sent}");
    let path = format!("/messages/{}", sent["id"].as_str().unwrap());
    let kept = world.service.tenant("acme").get(&path).await;
    let media = &kept["content"]["media"];
    assert_eq!((&media["kind"], &media["sha256"]), (&json!("document"), &json!(hexadecimal(&secret))), "{kept}");
    assert!(media.get("parcel").is_none() && !kept.to_string().contains("key"), "{kept}");
    world.service.terminate().await;
    let mut all = Vec::new();
    for folder in ["", "media"] {
        for entry in std::fs::read_dir(world.service.data.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::File::open(path).unwrap().read_to_end(&mut all).unwrap();
            }
        }
    }
    let log = world.service.log.text();
    for word in ["the-secret-of-the-document", "private-name"] {
        assert!(!all.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "{word} on the disk");
        assert!(!log.contains(word), "{word} in the log");
    }
}

/// The most memory that the service's process has held, in bytes.
pub fn peak(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A service that may hold 64 MiB.
async fn narrow() -> World {
    const MAY_HOLD: u64 = 64 * 1024 * 1024;
    let simulator = simulator(Default::default()).await;
    // The kernel refuses to give it more, the stacks of its threads included.
    let mut program = Program::sandbox(&simulator.ws_url(), &[]);
    program.arguments = [format!("--data={MAY_HOLD}"), program.binary.to_str().unwrap().to_owned()]
        .into_iter()
        .chain(program.arguments)
        .collect();
    program.binary = "prlimit".into();
    let service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
    World { simulator, service }
}

#[tokio::test]
async fn a_hundred_megabytes_pass_through_a_service_that_may_hold_sixty_four() {
    let world = narrow().await;
    world.pair("acme", ANA).await;
    let bytes = noise(1_000_000).repeat(100);
    let (status, sent) = send_form(&world.service, &[], "big.bin", bytes.clone()).await;
    assert!([200, 202].contains(&status), "{sent}");
    let acme = world.service.tenant("acme");
    acme.until_fate(&sent["id"], "delivered").await;
    let (shown, _) = world.until_file(BRUNO, &sent["id"]).await;
    assert_eq!(shown["media"]["sha256"], hexadecimal(&bytes));
}

#[tokio::test]
async fn a_form_without_a_field_is_not_gathered_in_memory() {
    let world = narrow().await;
    let send = |body| Form::bytes(world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme"), body);
    let much = vec![b'a'; 101_000_000];
    let head = format!("--{}\r\nContent-Disposition: form-data; name=\"", Form::BOUNDARY);
    for beginning in [String::new(), head] {
        let (status, problem) = answer(send([beginning.as_bytes(), &much].concat())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid_multipart")), "{beginning} {problem}");
        assert!(problem["message"].as_str().unwrap().contains("no field"), "{problem}");
    }
    // What RFC 2046 allows before the first part is passed over.
    world.pair("acme", ANA).await;
    let before = [&much[..40_000], b"\r\n"].concat();
    let form = Form(before).text("to", BRUNO).file("a.txt", b"Hello");
    let (status, sent) = answer(send(form.ended())).await;
    assert_eq!(status, 200, "{sent}");
    assert_eq!(world.until_file(BRUNO, &sent["id"]).await.1, b"Hello");
}

#[tokio::test]
async fn no_file_is_taken_for_a_session_that_does_not_send_it() {
    let world = paired(&[]).await;
    let acme = world.service.tenant("acme");
    let key = [("idempotencyKey", "k-1")];
    let (status, sent) = send_form(&world.service, &key, "a.txt", b"Hello".to_vec()).await;
    assert_eq!(status, 200, "{sent}");
    let (status, gone) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!(status, 200, "{gone}");
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;

    // It is an error of the whole call, as it is for texts.
    let messages = [json!({"to": BRUNO, "media": {"url": "http://example.com/a.png"}})];
    let (status, problem) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("session_not_found")), "{problem}");
    // The rest of the file never comes, and nobody waits for it.
    let form = Form::default().text("to", BRUNO).file("big.bin", &noise(20_000_000)).ended();
    let mut writer = Writer::begin(&world.service, form.len()).await;
    writer.write(&form[..200_000]).await;
    let (status, problem) = writer.answer().await;
    assert_eq!((status, &problem["code"]), (409, &json!("session_not_found")), "{problem}");
    assert_eq!(files(&world.service), 0);
    // Who writes all of it first can do so, and gets the same answer.
    let mut writer = Writer::begin(&world.service, form.len()).await;
    writer.write(&form).await;
    let (status, problem) = writer.answer().await;
    assert_eq!((status, &problem["code"]), (409, &json!("session_not_found")), "{problem}");

    // The same call again is answered whatever the session is, if its key is known when the file begins.
    let (status, again) = send_form(&world.service, &key, "a.txt", b"Hello".to_vec()).await;
    assert_eq!((status, &again["id"]), (200, &sent["id"]), "{again}");
    let form = || Form::default().text("to", BRUNO).file("a.txt", b"Hello");
    let request = || world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let (status, again) = answer(form().send_as(request()).header("Idempotency-Key", "k-1")).await;
    assert_eq!((status.as_u16(), &again["id"]), (200, &sent["id"]), "{again}");
    let (status, problem) = answer(form().send_as(request()).header("Idempotency-Key", "k-2")).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("session_not_found")), "{problem}");
    let (status, problem) = answer(form().text("idempotencyKey", "k-1").send_as(request())).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("session_not_found")), "{problem}");
}

#[tokio::test]
async fn a_form_that_comes_byte_by_byte_is_cut_off() {
    let world = paired(&[("READ_TIMEOUT", "1")]).await;
    let form = Form::default().text("to", BRUNO).file("big.bin", &noise(1_000_000)).ended();
    let mut writer = Writer::begin(&world.service, form.len()).await;
    let (beginning, rest) = form.split_at(10_000);
    writer.write(beginning).await;
    let mut answered = false;
    for byte in &rest[..100] {
        writer.write(&[*byte]).await;
        // No byte is late: all of them are.
        let wait = std::time::Duration::from_millis(300);
        if tokio::time::timeout(wait, writer.0.readable()).await.is_ok() {
            answered = true;
            break;
        }
    }
    assert!(answered, "it goes on for ever");
    let (status, problem) = writer.answer().await;
    assert_eq!((status, &problem["code"]), (408, &json!("request_timeout")), "{problem}");
    eventually("no file is kept", || async { (files(&world.service) == 0).then_some(()) }).await;
}

#[tokio::test]
#[ignore = "measures: 50 tenants, 800 MB"]
async fn fifty_tenants_send_sixteen_megabytes_each_at_once() {
    const TENANTS: usize = 50;
    let world = World::with(Default::default(), &[("LOG_LEVEL", "info"), ("DIAL_RATE", "0")]).await;
    for n in 0..TENANTS {
        let phone = format!("4915200000{n:03}");
        let account = json!({"phone": phone, "name": "Someone"}).to_string();
        world.admin(Method::POST, "/admin/accounts", account).await;
        world.pair(&format!("tenant-{n}"), &phone).await;
    }
    let before = peak(&world.service);
    let form = Form::default().text("to", BRUNO).text("document", "true").file("big.bin", &noise(1_000_000).repeat(16));
    let body = axum::body::Bytes::from(form.ended());
    let begun = std::time::Instant::now();
    let sending = (0..TENANTS).map(|n| {
        let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", format!("tenant-{n}"));
        let kind = format!("multipart/form-data; boundary={}", Form::BOUNDARY);
        answer(request.header("Content-Type", kind).body(body.clone()))
    });
    let sent = futures_util::future::join_all(sending).await;
    let accepted = begun.elapsed();
    let at_acceptance = peak(&world.service);
    for (n, (status, sent)) in sent.iter().enumerate() {
        assert_eq!(*status, 202, "{sent}");
        world.service.tenant(&format!("tenant-{n}")).until_fate(&sent["id"], "delivered").await;
    }
    eprintln!(
        "before: {} KiB; all accepted after {accepted:?}: {} KiB at most; all delivered after {:?}: {} KiB at most",
        before / 1024,
        at_acceptance / 1024,
        begun.elapsed(),
        peak(&world.service) / 1024
    );
}
