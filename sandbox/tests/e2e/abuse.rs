//! Hostile callers: tenant ids, huge and slow bodies, broken text, deep JSON, forbidden addresses.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ANA, BRUNO, SECRET, World, answer, http};

#[tokio::test]
async fn hostile_tenant_ids() {
    let world = World::start().await;
    let long = "x".repeat(129);
    for id in
        ["../../etc/passwd", "a/b", "a\\b", "..%2f", "a b", "a;b", "file:a?mode=memory", "ação", "a\tb", "'", &long]
    {
        for (method, path) in [(Method::POST, "/session"), (Method::GET, "/status"), (Method::DELETE, "/session")] {
            let header = reqwest::header::HeaderValue::from_bytes(id.as_bytes()).unwrap();
            let (status, body) = answer(world.service.request(method, path).header("X-Tenant-Id", header)).await;
            assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_tenant_id")), "{id:?}: {body}");
        }
    }
    let twice = world.service.request(Method::GET, "/status").header("X-Tenant-Id", "a").header("X-Tenant-Id", "b");
    assert_eq!(answer(twice).await.1["code"], "invalid_tenant_id");
    let on_disk = || -> Vec<_> {
        let entries = std::fs::read_dir(world.service.data.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let known = [
        "downloads",
        "lock",
        "media",
        "sandbox",
        "service.db",
        "service.db-shm",
        "service.db-wal",
        "service.mark",
        "whatsapp-version",
    ];
    let left = || on_disk().into_iter().filter(|name| !known.contains(&name.as_str())).collect::<Vec<_>>();
    assert_eq!(left(), [""; 0], "none of them left a trace on disk");
    // These are allowed, and mean nothing but themselves.
    for id in [":memory:", "..", ".", "file:x", "-rf", &"x".repeat(128)] {
        assert!(world.service.tenant(id).open().await["qrCode"].is_string(), "{id}");
    }
    assert_eq!(left(), [""; 0], "no name is a path");
}

#[tokio::test]
async fn tenants_whose_names_differ_in_case_are_two() {
    let world = World::start().await;
    world.pair("Acme", ANA).await;
    assert_eq!(world.service.tenant("acme").status().await, json!({"status": "not_found"}));
    world.pair("acme", BRUNO).await;
    assert_eq!(world.service.tenant("Acme").status().await["phone"], ANA);
    assert_eq!(world.service.tenant("acme").status().await["phone"], BRUNO);
}

#[tokio::test]
async fn bodies_that_are_no_messages() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let deep = "[".repeat(200_000);
    let deep_object = r#"{"to":"#.to_owned() + &r#"{"a":"#.repeat(100_000);
    for (body, code) in [
        (&b"{"[..], "invalid_json"),
        (b"\xff\xfe{}", "invalid_json"),
        (b"{\"to\":\"5511888888888\",\"message\":\"\xc3\x28\"}", "invalid_json"),
        (b"{\"to\":\"5511888888888\",\"message\":\"x\"} trailing", "invalid_json"),
        (b"not json", "invalid_json"),
        (deep.as_bytes(), "invalid_json"),
        (deep_object.as_bytes(), "invalid_body"),
        (b"[\"5511888888888\",\"fields by order\"]", "invalid_body"),
        (b"", "invalid_body"),
        (b"\0", "invalid_json"),
    ] {
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let (status, answer) = answer(request.body(body.to_vec())).await;
        let beginning = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(code)), "{beginning}: {answer}");
    }
    world.service.tenant("acme").send_ok(BRUNO, "still alive").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let world = World::with(Default::default(), &[("BODY_LIMIT", "4096")]).await;
    let send = |body: reqwest::Body| {
        answer(world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme").body(body))
    };
    let (status, body) = send(vec![b' '; 4097].into()).await;
    assert_eq!((status.as_u16(), &body["code"]), (413, &json!("payload_too_large")));
    let (status, body) = send(vec![b' '; 4096].into()).await;
    assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_body")), "a body at the limit is read");
    // The same without a length: the limit counts what arrives.
    let head = request_head("/send", "Transfer-Encoding: chunked");
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
    let answer = raw(&world.service.url, &[head.as_bytes(), chunk.repeat(3).as_bytes()]);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_client_that_dawdles_is_dropped() {
    const MEDIA: &str = "--b\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a\"\r\n\r\nthe beginning";
    let world = World::with(Default::default(), &[("READ_TIMEOUT", "0.5")]).await;
    // Of a file nothing is taken for a session that does not send it.
    world.pair("acme", ANA).await;
    let silent = raw(&world.service.url, &[]);
    assert_eq!(silent, "", "a connection that says nothing is closed");
    let half_a_head = raw(&world.service.url, &[b"GET /health HTTP/1.1\r\nHost: x\r\n"]);
    assert!(half_a_head.is_empty() || half_a_head.starts_with("HTTP/1.1 408"), "{half_a_head}");
    let head = request_head("/send", "Content-Length: 100");
    let half_a_body = raw(&world.service.url, &[head.as_bytes(), b"{\"to\":"]);
    assert!(half_a_body.starts_with("HTTP/1.1 408"), "{half_a_body}");
    assert!(half_a_body.contains("request_timeout"));
    let head = request_head("/send", "Content-Length: 10000\r\nContent-Type: multipart/form-data; boundary=b");
    for part in ["--b\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\n55", MEDIA] {
        let half_a_form = raw(&world.service.url, &[head.as_bytes(), part.as_bytes()]);
        assert!(half_a_form.starts_with("HTTP/1.1 408") && half_a_form.contains("request_timeout"), "{half_a_form}");
    }
    // On a connection of its own: the others were closed meanwhile.
    let health = http().get(format!("{}/health", world.service.url)).header("X-Internal-Secret", SECRET);
    assert_eq!(answer(health).await.0, 200);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let world = World::start().await;
    let request = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\n\r\n");
    let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answers = raw(&world.service.url, &[request.as_bytes(), request.as_bytes(), last.as_bytes()]);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

#[tokio::test]
async fn garbage_instead_of_http() {
    let world = World::start().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\0\0\0\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n \r\n",
    ] {
        let answer = raw(&world.service.url, &[garbage, b"\r\n\r\n"]);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(answer(world.service.request(Method::GET, "/health")).await.0, 200);
}

fn request_head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: acme\r\n{more}\r\n\r\n")
}

/// Says these things over a connection of its own and returns all that comes back until it is closed.
fn raw(url: &str, says: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for said in says {
        // The service may have hung up already; its answer is what counts.
        if stream.write_all(said).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_answers_to_abuse_are_json_too() {
    let world = World::start().await;
    let head = request_head("/send", "Content-Length: 999999999");
    let answer = raw(&world.service.url, &[head.as_bytes()]);
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["code"], "payload_too_large");
    assert!(answer.contains("content-type: application/json"));
    let head = request_head("/send", "Content-Length: 999999999\r\nContent-Type: multipart/form-data; boundary=b");
    let answer = raw(&world.service.url, &[head.as_bytes()]);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
}
