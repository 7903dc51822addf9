//! Connections: of those who don't know the secret, of those who are idle, and of more than there may be.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{ANA, BRUNO, Log, Program, SECRET, Service, World, answer, eventually, http, simulator};

/// A connection by hand.
fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: acme\r\n{more}\r\n")
}

/// Asks over a connection that stays, and returns the answer's beginning.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Whether the other side has closed a connection.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0; 1];
    let closed = match stream.peek(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

async fn health(service: &Service) -> (u16, Value) {
    // Not over a connection that is there already.
    let request = http().get(format!("{}/health", service.url)).header("X-Internal-Secret", SECRET);
    let (status, body) = answer(request).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn those_who_say_nothing_leave_room_for_those_who_know_the_secret() {
    let simulator = simulator(Default::default()).await;
    let mut program = Program::sandbox(&simulator.ws_url(), &[]);
    program.arguments = ["--nofile=300".to_owned(), program.binary.to_str().unwrap().to_owned()]
        .into_iter()
        .chain(program.arguments)
        .collect();
    program.binary = "prlimit".into();
    let service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
    let world = World { simulator, service };
    let silent: Vec<_> = (0..320).map(|_| connect(&world.service)).collect();
    assert_eq!(health(&world.service).await.0, 200);
    // WhatsApp and the disk have theirs.
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "all the same").await;
    let open = || std::fs::read_dir(format!("/proc/{}/fd", world.service.pid())).unwrap().count();
    assert!(open() < 150, "a quarter of 300 are for callers: {}", open());
    assert!(silent.iter().filter(|stream| is_closed(stream)).count() >= 320 - 75);
    assert!(!world.service.log.text().contains("connections can't be accepted"));
}

#[tokio::test]
async fn a_connection_without_the_secret_gets_one_answer() {
    let world = World::start().await;
    let wrong = "GET /status HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: wrong\r\n\r\n";
    let mut stream = connect(&world.service);
    stream.write_all(wrong.repeat(1_000).as_bytes()).unwrap();
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 401").count(), 1, "{answers}");
    assert!(answers.contains("connection: close") && answers.contains("\"Unauthorized\""), "{answers}");
}

#[tokio::test]
async fn strangers_go_first_then_the_idle_and_the_busy_stay() {
    let world = World::with(Default::default(), &[("MAX_CONNECTIONS", "4")]).await;
    let health_request = head("GET", "/health", "");
    let mut idle = [connect(&world.service), connect(&world.service)];
    for stream in &mut idle {
        assert!(ask(stream, &health_request).starts_with("HTTP/1.1 200"));
    }
    let mut stranger = connect(&world.service);
    assert!(ask(&mut stranger, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    // Its body is on its way, and never comes.
    let busy = || {
        let mut stream = connect(&world.service);
        stream.write_all(head("POST", "/send", "Content-Length: 100\r\n").as_bytes()).unwrap();
        stream
    };
    let first = busy();
    eventually("four connections", || async { (world.service.connections() == 4).then_some(()) }).await;
    let mut all = vec![first];
    for gone in [&stranger, &idle[0], &idle[1]] {
        assert!(!is_closed(gone));
        all.push(busy());
        eventually("the one that has to go", || async { is_closed(gone).then_some(()) }).await;
    }
    assert!(all.iter().all(|stream| !is_closed(stream)), "they are busy");
    // All are: only how the service is can be asked for.
    let mut next = connect(&world.service);
    let refused = ask(&mut next, &head("GET", "/status", ""));
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too_many_connections"), "{refused}");
    assert!(refused.contains("retry-after: 1") && refused.contains("connection: close"), "{refused}");
    assert_eq!(health(&world.service).await.0, 200);
    drop(all);
    eventually("a place", || async {
        let request = http().get(format!("{}/status", world.service.url)).header("X-Internal-Secret", SECRET);
        (answer(request.header("X-Tenant-Id", "acme")).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_are_counted() {
    let world = World::with(Default::default(), &[("MAX_CONNECTIONS", "36")]).await;
    let open = async |tenant: &str| {
        let request = world.service.request(Method::GET, "/events/stream").header("X-Tenant-Id", tenant);
        let response = request.send().await.unwrap();
        match response.status().as_u16() {
            200 => Ok(response),
            status => Err((status, response.json::<Value>().await.unwrap())),
        }
    };
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(open("acme").await.expect("a stream"));
    }
    let (status, body) = open("acme").await.expect_err("its seventeenth");
    assert_eq!((status, &body["code"], &body["retryAfter"]), (429, &json!("too_many_streams"), &json!(10)));
    let mut others = vec![open("other").await.expect("another's"), open("other").await.expect("another's")];
    let (status, body) = open("third").await.expect_err("half of the connections");
    assert_eq!((status, &body["code"]), (503, &json!("too_many_streams")));
    others.pop();
    eventually("a free place", || async { open("third").await.ok() }).await;
    drop(streams);
    eventually("a free place", || async { open("acme").await.ok() }).await;
}
