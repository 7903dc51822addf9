//! Bodies of requests: base64 as people have it, how large one may be, and that what is too large is answered so that its
//! caller sees it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Output},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{ANA, BRUNO, SECRET, Service, World, answer, eventually},
    media::{hexadecimal, noise, png},
};

async fn paired(env: &[(&str, &str)]) -> World {
    let world = World::with(Default::default(), env).await;
    world.pair("acme", ANA).await;
    world
}

/// Sends a body as it is, and returns what is answered.
async fn post(service: &Service, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = service.request(Method::POST, path).header("X-Tenant-Id", "acme").body(body);
    let (status, answer) = answer(request).await;
    (status.as_u16(), answer)
}

/// Waits until Bruno's phone shows the message of this id.
async fn shown(world: &World, id: &Value) -> Value {
    eventually("the message", || async { world.shown_on(BRUNO).await.into_iter().find(|message| message["id"] == *id) })
        .await
}

/// Runs a program of Python's, which writes a body first and reads the answer then.
async fn python(program: String) -> String {
    let run = move || Command::new("python3").args(["-c", &program]).output().expect("python3 runs");
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What Python's own client is told of a body of so many bytes.
async fn told_to_urllib(service: &Service, secret: &str, path: &str, length: usize) -> (u16, Value) {
    let url = format!("{}{path}", service.url);
    let said = python(format!(
        "import urllib.request, urllib.error\n\
         body = b'{{\"to\":\"{BRUNO}\",\"message\":\"' + b'x' * {length} + b'\"}}'\n\
         headers = {{'X-Internal-Secret': '{secret}', 'X-Tenant-Id': 'acme', 'Content-Type': 'application/json'}}\n\
         try:\n    answer = urllib.request.urlopen(urllib.request.Request('{url}', body, headers))\n\
         except urllib.error.HTTPError as error:\n    answer = error\n\
         print(answer.status, answer.read().decode())\n"
    ))
    .await;
    let (status, body) = said.split_once(' ').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn base64_is_taken_as_people_have_it() {
    let world = paired(&[]).await;
    let picture = png(30, 20);
    let (plain, for_urls) = (BASE64_STANDARD.encode(&picture), BASE64_URL_SAFE_NO_PAD.encode(&picture));
    let lines: Vec<_> = plain.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let of_the_line = lines.join("\r\n");
    for (how, text) in [
        ("plain", plain.clone()),
        ("without padding", plain.trim_end_matches('=').to_owned()),
        ("for URLs", for_urls),
        ("in lines", of_the_line.clone()),
        ("with a final newline", format!("{plain}\n")),
        ("as a URI", format!("data:image/png;base64,{plain}")),
        ("as a URI in lines", format!("data:image/png;base64,{of_the_line}\n")),
    ] {
        let body = json!({"to": BRUNO, "media": {"base64": text}}).to_string();
        // As PHP writes it.
        for body in [body.clone(), body.replace('/', "\\/")] {
            let (status, sent) = post(&world.service, "/send", body).await;
            assert_eq!(status, 200, "{how}: {sent}");
            let shown = shown(&world, &sent["id"]).await;
            assert_eq!(
                (&shown["kind"], &shown["media"]["sha256"]),
                (&json!("image"), &json!(hexadecimal(&picture))),
                "{how}"
            );
        }
    }
    // What the bytes don't tell, the URI does.
    let csv = format!("data:text/csv;base64,{}", BASE64_STANDARD.encode("a,b\n1,2\n"));
    let (_, sent) = post(&world.service, "/send", json!({"to": BRUNO, "media": {"base64": csv}}).to_string()).await;
    assert_eq!(shown(&world, &sent["id"]).await["media"]["mimetype"], "text/csv");
    for wrong in ["*", "A", "AA=A", "data:text/plain,hello", "http://example.com/a.png"] {
        let body = json!({"to": BRUNO, "media": {"base64": wrong}}).to_string();
        let (status, refused) = post(&world.service, "/send", body).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid_content")), "{wrong}: {refused}");
        assert!(refused["message"].as_str().unwrap().starts_with("`media.base64` is "), "{refused}");
    }
}

#[tokio::test]
async fn a_body_with_media_may_be_as_large_as_its_kind_allows() {
    let world = paired(&[("MEDIA_MAX_DOCUMENT", "6000000")]).await;
    let document = |length: usize| {
        let media = json!({"base64": BASE64_STANDARD.encode(noise(length)), "filename": "plan.bin"});
        json!({"to": BRUNO, "message": "the plan", "media": media})
    };
    let (status, sent) = post(&world.service, "/send", document(5_000_000).to_string()).await;
    assert_eq!(status, 200, "{sent}");
    let shown = shown(&world, &sent["id"]).await;
    assert_eq!(shown["media"]["sha256"], hexadecimal(&noise(5_000_000)), "{shown}");
    let both = json!({"messages": [document(1_000_000), document(1_200_000)]}).to_string();
    let (status, sent) = post(&world.service, "/send/bulk", both).await;
    assert_eq!((status, &sent["messages"][1]["status"]), (202, &json!("queued")), "{sent}");
    // The kind's own limit holds, and so does the limit of what is not media.
    let (status, refused) = post(&world.service, "/send", document(6_000_001).to_string()).await;
    assert_eq!((status, &refused["code"]), (413, &json!("media_too_large")), "{refused}");
    let long = "x".repeat(1_100_000);
    let around = json!({"to": BRUNO, "media": {"base64": "AAAA", "filename": long}}).to_string();
    let late = json!({"to": BRUNO, "message": long, "media": {"base64": "AAAA"}}).to_string();
    let bulk = json!({"messages": [{"to": BRUNO, "message": long}]}).to_string();
    for (path, body) in [("/send", around), ("/send", late), ("/send/bulk", bulk)] {
        let (status, refused) = post(&world.service, path, body).await;
        assert_eq!((status, &refused["code"]), (413, &json!("payload_too_large")), "{path}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("as a form (multipart/form-data)"), "{refused}");
    }
    let (status, refused) = post(&world.service, "/presence", json!({"to": BRUNO, "base64": long}).to_string()).await;
    assert_eq!((status, &refused["code"]), (413, &json!("payload_too_large")), "others stay at BODY_LIMIT: {refused}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_so_that_its_caller_sees_it() {
    let world = paired(&[]).await;
    for path in ["/send", "/send/bulk", "/numbers/check", "/webhook/retry?x=1"] {
        let (status, refused) = told_to_urllib(&world.service, SECRET, path, 3_000_000).await;
        let expected = if path.contains('?') { (400, "unknown_field") } else { (413, "payload_too_large") };
        assert_eq!((status, refused["code"].as_str().unwrap()), expected, "{path}: {refused}");
        assert_eq!(refused["message"].as_str().unwrap().contains("as a form"), path.starts_with("/send"), "{refused}");
    }
    let (status, refused) = told_to_urllib(&world.service, "wrong", "/send", 3_000_000).await;
    assert_eq!((status, &refused["error"]), (401, &json!("Unauthorized")), "{refused}");
    // Also where the answer is there before the body is.
    for secret in [SECRET, "wrong"] {
        let expected = if secret == SECRET { "HTTP/1.1 413" } else { "HTTP/1.1 401" };
        let head = format!(
            "POST /numbers/check HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {secret}\r\nX-Tenant-Id: acme\r\n\
             Connection: close\r\nContent-Length: 3000000\r\n\r\n"
        );
        let address = world.service.url.trim_start_matches("http://").to_owned();
        let late = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            assert!(stream.peek(&mut [0]).unwrap() == 1, "the answer is there");
            for _ in 0..300 {
                stream.write_all(&[b'x'; 10_000]).expect("the body is still read");
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = late.await.unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
    // It is not read on for ever: neither for long, nor much.
    let head = format!(
        "POST /send HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: acme\r\n\
         Content-Length: 99999999999\r\n\r\n"
    );
    let url = world.service.url.clone();
    let flood = move |pause: bool| {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let (piece, mut written) = (vec![b'x'; 1024 * 1024], 0_usize);
        while written < 1024 && !pause && stream.write_all(&piece).is_ok() {
            written += 1;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        (written, String::from_utf8_lossy(&answer).into_owned())
    };
    let dawdling = flood.clone();
    let (written, _) = tokio::task::spawn_blocking(move || flood(false)).await.unwrap();
    assert!(written < 512, "{written} MiB were taken of a body that nobody wants");
    let (_, answer) = tokio::task::spawn_blocking(move || dawdling(true)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "and the connection was closed: {answer}");
}

#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_is_not_asked_for_one_that_is_too_large() {
    let world = paired(&[]).await;
    let head = format!(
        "POST /send HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: acme\r\n\
         Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
    );
    let url = world.service.url.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn all_bodies_together_stay_within_their_memory() {
    // A tenant has three quarters of it, and a body of 3 MB counts twice.
    let world = paired(&[("BODY_MEMORY", "16000000")]).await;
    world.pair("other", BRUNO).await;
    let body = json!({"to": BRUNO, "media": {"base64": BASE64_STANDARD.encode(noise(2_300_000))}}).to_string();
    let begin = |tenant: &str| {
        let mut stream = TcpStream::connect(world.service.url.trim_start_matches("http://")).unwrap();
        let head = format!(
            "POST /send HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: {tenant}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body.as_bytes()[..body.len() - 1]).unwrap();
        stream
    };
    // What was written need not have been read yet, and then it is the one for which there is no room.
    let (mut held, refused) = eventually("no room for another of this tenant", || async {
        let held = begin("acme");
        let (status, answer) = post(&world.service, "/send", body.clone()).await;
        (status == 503).then_some((held, answer))
    })
    .await;
    assert_eq!(refused["code"], "body_memory_full", "{refused}");
    assert!(refused["retryAfter"].as_u64().is_some_and(|seconds| seconds > 0), "{refused}");
    // Others have their share, and small bodies go on.
    assert_eq!(world.service.tenant("acme").send(BRUNO, "small").await.0, 200);
    let others = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "other");
    let others = others.body(json!({"to": ANA, "message": "small too"}).to_string());
    assert_eq!(answer(others).await.0, 200);
    // What was held back is taken, and makes room.
    let answer = tokio::task::spawn_blocking(move || {
        held.write_all(b"}").unwrap();
        let mut answer = String::new();
        held.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (status, sent) = post(&world.service, "/send", body.clone()).await;
    assert_eq!(status, 200, "{sent}");
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    let world = paired(&[]).await;
    let (status, sent) =
        post(&world.service, "/send", format!("\u{feff}{}", json!({"to": BRUNO, "message": "hi"}))).await;
    assert_eq!(status, 200, "{sent}");
}
