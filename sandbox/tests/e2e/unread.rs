//! The memory of a service whose callers don't read, or read slowly, what is large.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use whatsapp_rust::Jid;
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Log, Program, SECRET, Service, World, answer, eventually, simulator},
    receiver::{Answer, Receiver},
};

/// What the service may hold: the kernel refuses to give it more, the stacks of its threads included.
const MAY_HOLD: u64 = 128 * 1024 * 1024;

/// The longest text that WhatsApp's apps send.
fn long_text() -> String {
    "😀".repeat(65_536)
}

/// A service that may hold little, and the tenants of which have each so many long messages in their logs.
async fn narrow(tenants: &[&str], events: i64, due: bool, env: &[(&str, &str)]) -> World {
    let simulator = simulator(Default::default()).await;
    let mut program = Program::sandbox(&simulator.ws_url(), env);
    program.arguments = [format!("--data={MAY_HOLD}"), program.binary.to_str().unwrap().to_owned()]
        .into_iter()
        .chain(program.arguments)
        .collect();
    program.binary = "prlimit".into();
    let mut service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
    assert!(service.terminate().await.success());
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut database = service.database();
    let tx = database.transaction().unwrap();
    for (key, tenant) in (1..).zip(tenants) {
        let sql = "INSERT INTO tenants (key, name, last_sequence) VALUES (?, ?, ?)";
        tx.execute(sql, rusqlite::params![key, tenant, events]).unwrap();
        for sequence in 1..=events {
            let data = json!({"id": format!("3EB0{sequence}"), "kind": "text", "text": long_text()}).to_string();
            let sql = "INSERT INTO events (tenant, sequence, kind, at, data, delivery) VALUES (?, ?, ?, ?, ?, ?)";
            let delivery = due.then_some(0);
            tx.execute(sql, rusqlite::params![key, sequence, "message.received", at, data, delivery]).unwrap();
        }
    }
    tx.commit().unwrap();
    drop(database);
    service.restart().await;
    World { simulator, service }
}

/// Asks for something, and does not read it.
fn ask(service: &Service, tenant: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.url.trim_start_matches("http://")).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {SECRET}\r\nX-Tenant-Id: {tenant}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn pages_are_bounded_in_bytes_and_whole() {
    let world = narrow(&["acme"], 300, false, &[]).await;
    let acme = world.service.tenant("acme");
    let (mut after, mut pages, mut sequences) = (json!(0), 0, Vec::new());
    while !after.is_null() {
        let request = world.service.request(Method::GET, &format!("/events?limit=1000&after={after}"));
        let text = request.header("X-Tenant-Id", "acme").send().await.unwrap().text().await.unwrap();
        assert!(text.len() <= 1024 * 1024 + 1024, "{}", text.len());
        let mut page: Value = serde_json::from_str(&text).unwrap();
        let events = page["events"].as_array().unwrap();
        assert!(!events.is_empty() && events.iter().all(|event| event["data"]["text"] == long_text()));
        sequences.extend(events.iter().map(|event| event["sequence"].as_i64().unwrap()));
        (after, pages) = (page["nextAfter"].take(), pages + 1);
    }
    assert_eq!((sequences, pages), ((1..=300).collect::<Vec<_>>(), 100), "three of a quarter of a MiB on each");
    // One that is larger than a page is a page.
    let large = json!({"text": "x".repeat(3 * 1024 * 1024)}).to_string();
    world.service.database().execute("UPDATE events SET data = ? WHERE sequence = 2", [large]).unwrap();
    let page = acme.get("/events?after=1").await;
    assert_eq!((page["events"].as_array().unwrap().len(), &page["nextAfter"]), (1, &json!(2)));
    assert_eq!(page["events"][0]["data"]["text"].as_str().unwrap().len(), 3 * 1024 * 1024);
    assert_eq!(acme.get("/events?after=0&limit=1").await["nextAfter"], 1);
}

#[tokio::test]
async fn pages_of_messages_are_bounded_too() {
    let world = World::with(Default::default(), &[("KEEP_BODIES", "true")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let long = long_text();
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.insert(0, acme.send_ok(BRUNO, &long).await["id"].clone());
    }
    let (mut cursor, mut listed, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let request = world.service.request(Method::GET, &format!("/messages?limit=1000{cursor}"));
        let text = request.header("X-Tenant-Id", "acme").send().await.unwrap().text().await.unwrap();
        assert!(text.len() <= 1024 * 1024 + 1024, "{}", text.len());
        let page: Value = serde_json::from_str(&text).unwrap();
        for message in page["messages"].as_array().unwrap() {
            let text = message["content"]["text"].as_str().unwrap();
            assert!(text == long, "{} characters: {:?}", text.chars().count(), text.chars().find(|c| *c != '😀'));
            listed.push(message["id"].clone());
        }
        pages += 1;
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((listed, pages), (ids, 3));
}

#[tokio::test]
async fn those_who_read_nothing_cost_little_and_are_cut_off_and_the_slow_are_not() {
    let tenants = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];
    let world = narrow(&tenants, 30, false, &[]).await;
    // Half a MiB a page, 16 KiB a second: it takes longer than those who read nothing are waited for.
    let mut slow = ask(&world.service, "t0", "/events?limit=2");
    let slow = std::thread::spawn(move || {
        let (mut got, mut part) = (Vec::new(), vec![0; 16 * 1024]);
        while !got.ends_with(b"0\r\n\r\n") {
            let length = slow.read(&mut part).unwrap();
            assert!(length > 0, "it is cut off");
            got.extend_from_slice(&part[..length]);
            std::thread::sleep(Duration::from_secs(1));
        }
        got.len()
    });
    let mut unread = Vec::new();
    for n in 0..100 {
        unread.push(ask(&world.service, tenants[n % 7], "/events/stream?after=0"));
        unread.push(ask(&world.service, tenants[n % 7], "/events?limit=1000"));
    }
    eventually("two hundred that don't read", || async { (world.service.connections() > 190).then_some(()) }).await;
    // The others are served.
    assert_eq!(world.service.tenant("t3").get("/events?limit=1").await["events"].as_array().unwrap().len(), 1);
    assert!(resident(&world.service) < 120, "{} MiB", resident(&world.service));
    eventually("the end of all that don't read", || async { (world.service.connections() <= 3).then_some(()) }).await;
    assert!(slow.join().unwrap() > 512 * 1024);
    // What is left of such an answer never comes.
    let mut left = Vec::new();
    let _ = unread[1].read_to_end(&mut left);
    assert!(left.starts_with(b"HTTP/1.1 200") && !left.ends_with(b"0\r\n\r\n"));
    assert_eq!(answer(world.service.request(Method::GET, "/health")).await.0, 200);
}

#[tokio::test]
async fn a_stream_brings_what_is_large_whole() {
    let world = narrow(&["acme"], 20, false, &[]).await;
    let request = world.service.request(Method::GET, "/events/stream?after=0").header("X-Tenant-Id", "acme");
    let mut response = request.send().await.unwrap();
    let (mut unread, mut seen) = (Vec::new(), 0);
    while seen < 20 {
        unread.extend_from_slice(&response.chunk().await.unwrap().expect("more"));
        while let Some(end) = unread.windows(2).position(|two| two == b"\n\n") {
            let block = String::from_utf8(unread.drain(..end + 2).collect()).unwrap();
            let data = block.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
            let event: Value = serde_json::from_str(data).unwrap();
            seen += 1;
            assert_eq!((event["sequence"].as_i64(), &event["data"]["text"]), (Some(seen), &json!(long_text())));
        }
    }
}

#[tokio::test]
async fn webhooks_that_nobody_answers_cost_little() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Nothing);
    let names: Vec<_> = (0..30).map(|n| format!("t{n}")).collect();
    let tenants: Vec<_> = names.iter().map(String::as_str).collect();
    let env = [("WEBHOOK_URL", &*receiver.url()), ("WEBHOOK_SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")];
    let world = narrow(&tenants, 8, true, &env).await;
    receiver.until_asked(30).await;
    assert!(resident(&world.service) < 120, "{} MiB", resident(&world.service));
    receiver.answer(Answer::Status(204));
    let taken = receiver.until_taken("all of them", |taken| taken.len() >= 240).await;
    assert!(taken.iter().all(|event| event["data"]["text"] == long_text()));
}

#[tokio::test]
async fn an_incoming_text_that_no_app_would_send_is_cut() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (stranger, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let huge = "x".repeat(3 * 1024 * 1024);
    stranger.client.send_text(Jid::pn(ANA), &huge).await.expect("it is sent");
    let whole = long_text();
    stranger.client.send_text(Jid::pn(ANA), &whole).await.expect("it is sent");
    let told = world.service.tenant("acme").until_told("message.received", |told| told.len() == 2).await;
    assert!(told[0]["text"] == huge[..65_536] && told[0]["truncated"] == true);
    assert!(told[1]["text"] == whole && told[1].get("truncated").is_none());
}
