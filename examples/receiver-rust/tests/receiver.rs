//! The router with a sink of the test's own, and the program as its README says. Signed by the reference implementation.

use std::{
    future::ready,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use receiver::{Event, router};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::Semaphore,
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

fn event(sequence: u64) -> Value {
    json!({
        "id": format!("evt_{sequence}"), "type": "message.received", "timestamp": "2026-01-31T10:30:00.000Z",
        "tenantId": "demo", "sequence": sequence, "data": {"kind": "text", "text": "Olá"},
    })
}

/// A client. Built along with the service, it wants to be told whose arithmetic to use for TLS, which nothing here needs.
fn client() -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).build().unwrap()
}

/// Posts a body, signed as of `age` seconds ago.
async fn post_aged(url: &str, body: &str, age: u64) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - age;
    let signature = Webhook::new(SECRET).unwrap().sign("evt", now as i64, body.as_bytes()).unwrap();
    let request = client().post(url).header("webhook-id", "evt").header("webhook-timestamp", now);
    request.header("webhook-signature", signature).body(body.to_owned()).send().await.unwrap()
}

async fn post(url: &str, body: &str) -> Response {
    post_aged(url, body, 0).await
}

async fn deliver(url: &str, event: Value) -> StatusCode {
    post(url, &event.to_string()).await.status()
}

async fn assert_problem(response: Response, status: u16, error: &str) {
    assert_eq!(response.status(), status);
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(body["error"].as_str().unwrap().contains(error), "{body}");
}

/// A server with this sink; its address. It ends with the test's runtime. The path does not matter.
async fn serve<F>(sink: impl Fn(Event) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = Result<(), &'static str>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(SECRET.parse().unwrap(), sink);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/hook")
}

/// A server that remembers the sequence of each event that it takes, and whether it was late.
async fn remembering() -> (String, Arc<Mutex<Vec<(u64, bool)>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let sink = taken.clone();
    let url = serve(move |event: Event| {
        sink.lock().unwrap().push((event.sequence, event.late));
        ready(Ok(()))
    });
    (url.await, taken)
}

fn program(secret: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_receiver"));
    command.env("PORT", "0").env("WEBHOOK_SECRET", secret).env_remove("PRINT_DATA").kill_on_drop(true);
    command.stdout(Stdio::piped());
    command
}

/// The program on a free port, and the lines that it prints after the first.
async fn start(mut command: Command) -> (String, Lines<BufReader<ChildStdout>>, Child) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = next(&mut lines).await;
    let first: Value = serde_json::from_str(&first).unwrap();
    (first["listening"].as_str().unwrap().to_owned(), lines, child)
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    lines.next_line().await.unwrap().unwrap()
}

#[tokio::test]
async fn the_program_prints_each_new_event_once() {
    let (url, mut lines, _child) = start(program(SECRET)).await;
    let mut other = event(1);
    other["id"] = "evt_other".into();
    other["tenantId"] = "other".into();
    for event in [event(1), event(1), event(2), event(1), other] {
        assert_eq!(deliver(&url, event).await, 204);
    }
    for expected in [
        r#"{"tenantId":"demo","sequence":1,"type":"message.received","id":"evt_1"}"#,
        r#"{"tenantId":"demo","sequence":2,"type":"message.received","id":"evt_2"}"#,
        r#"{"tenantId":"other","sequence":1,"type":"message.received","id":"evt_other"}"#,
    ] {
        assert_eq!(next(&mut lines).await, expected);
    }
}

#[tokio::test]
async fn the_program_prints_the_data_when_it_is_asked_to() {
    let mut command = program(SECRET);
    command.env("PRINT_DATA", "1");
    let (url, mut lines, _child) = start(command).await;
    assert_eq!(deliver(&url, event(1)).await, 204);
    let line: Value = serde_json::from_str(&next(&mut lines).await).unwrap();
    assert_eq!(line["data"], json!({"kind": "text", "text": "Olá"}));
}

#[tokio::test]
async fn the_program_does_not_start_without_a_secret() {
    let mut child = program("").stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn what_is_not_an_authentic_event_is_refused() {
    let (url, taken) = remembering().await;
    assert_problem(post_aged(&url, &event(1).to_string(), 1000).await, 401, "too far").await;
    assert_problem(client().post(&url).body("{}").send().await.unwrap(), 401, "webhook-id is missing").await;
    let mut broken = [event(1), event(1), event(1), event(1)];
    broken[0]["sequence"] = "1".into();
    broken[1]["sequence"] = 1.5.into();
    broken[2].as_object_mut().unwrap().remove("tenantId");
    broken[3].as_object_mut().unwrap().remove("data");
    let broken = broken.map(|event| event.to_string());
    for body in ["", "{", "null", "[]", "{}"].into_iter().chain(broken.iter().map(String::as_str)) {
        assert_problem(post(&url, body).await, 400, "not an event").await;
    }
    assert_problem(client().get(&url).send().await.unwrap(), 405, "POST").await;
    assert!(taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_of_1_mib_is_taken_and_a_larger_one_is_not() {
    let (url, taken) = remembering().await;
    let sized = |size: usize| {
        let mut event = event(1);
        event["data"] = json!({ "text": "" });
        event["data"]["text"] = "x".repeat(size - event.to_string().len()).into();
        event.to_string()
    };
    assert_problem(post(&url, &sized(1024 * 1024 + 1)).await, 413, "limit").await;
    assert_eq!(post(&url, &sized(1024 * 1024)).await.status(), 204);
    assert_eq!(*taken.lock().unwrap(), [(1, false)]);
}

#[tokio::test]
async fn an_event_that_comes_late_is_taken_and_said_to_be_late() {
    let (url, taken) = remembering().await;
    for sequence in [1, 5, 3, 5, 4, 3, 6] {
        assert_eq!(deliver(&url, event(sequence)).await, 204);
    }
    assert_eq!(*taken.lock().unwrap(), [(1, false), (5, false), (3, true), (4, true), (6, false)]);
}

#[tokio::test]
async fn an_event_that_could_not_be_stored_is_taken_when_it_comes_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let url = serve(move |_| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        ready(if first { Err("the disk is full") } else { Ok(()) })
    });
    let url = url.await;
    for status in [500, 204, 204] {
        assert_eq!(deliver(&url, event(1)).await, status);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_repeat_that_comes_while_the_first_is_being_stored_waits_for_that() {
    let (stored, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (storing, counted) = (stored.clone(), calls.clone());
    let url = serve(move |_| {
        let storing = storing.clone();
        counted.fetch_add(1, Ordering::SeqCst);
        async move { storing.acquire().await.map(drop).map_err(|_| "closed") }
    });
    let url = url.await;
    let answers = Arc::new(AtomicUsize::new(0));
    let deliveries = [(); 2].map(|()| {
        let (url, answers) = (url.clone(), answers.clone());
        tokio::spawn(async move {
            let status = deliver(&url, event(1)).await;
            answers.fetch_add(1, Ordering::SeqCst);
            status
        })
    });
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // Whole exchanges later, with both of them on their way.
    for _ in 0..20 {
        assert_problem(post(&url, "{}").await, 400, "not an event").await;
    }
    assert_eq!((calls.load(Ordering::SeqCst), answers.load(Ordering::SeqCst)), (1, 0));
    stored.add_permits(1);
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap(), 204);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_so_many_ids_are_remembered() {
    let (url, taken) = remembering().await;
    for sequence in 1..=1001 {
        assert_eq!(deliver(&url, event(sequence)).await, 204);
    }
    assert_eq!(deliver(&url, event(2)).await, 204);
    assert_eq!(taken.lock().unwrap().len(), 1001, "still known");
    assert_eq!(deliver(&url, event(1)).await, 204);
    assert_eq!(taken.lock().unwrap().len(), 1002, "forgotten");
}
