//! The log: one line for each request, and never anybody's data.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ANA, BRUNO, SECRET, World, answer, eventually};

#[tokio::test]
async fn a_full_run_leaves_nobodys_data_in_the_log() {
    let mut world = World::start().await;
    let acme = world.service.tenant("acme");
    let waiting = acme.open().await;
    let qr = waiting["qrCode"].as_str().unwrap().to_owned();
    world.pair("acme", ANA).await;
    let by_code = world.service.tenant("by-code");
    let (_, body) = by_code.call(Method::POST, "/session", Some(json!({"phone": BRUNO}))).await;
    let pairing_code = body["pairingCode"].as_str().unwrap().to_owned();
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "a secret message").await;
    acme.send_ok("+55 (11) 88888-8888", "another secret message").await;
    acme.send("4915112345678", "to nobody").await;
    acme.send("123", "to a wrong number").await;
    world.fault(json!({"nack": 463, "times": 1})).await;
    acme.send(BRUNO, "a refused message").await;
    world.clear_faults().await;
    let written = json!({"to": ANA, "text": "an incoming message"}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/messages"), written).await;
    acme.until("a message", |status| status["messagesReceived"] == 1).await;
    for path in [format!("/nowhere/{BRUNO}?to={BRUNO}"), format!("/sessions/{BRUNO}"), format!("/send/{BRUNO}")] {
        world.service.request(Method::GET, &path).send().await.unwrap();
        crate::harness::http().get(format!("{}{path}", world.service.url)).send().await.unwrap();
    }
    world.service.request(Method::GET, "/status").header("X-Tenant-Id", "+55 11 88888-8888").send().await.unwrap();
    world.service.kill_and_restart().await;
    world.service.tenant("acme").until_state("ready").await;
    world.fault(json!({"loginFailure": {"reason": 403}, "phone": ANA})).await;
    world.fault(json!({"streamError": "515", "times": 1, "phone": ANA})).await;
    world.service.tenant("acme").until_state("locked").await;
    let (status, _) = world.service.tenant("acme").call(Method::DELETE, "/session", None).await;
    assert_eq!(status, 200);
    world.service.terminate().await;

    let log = world.service.log.text();
    let parts_of_the_qr = qr.split(',').filter(|part| part.len() > 10);
    let private = [
        ANA,
        BRUNO,
        "4915112345678",
        "88888-8888",
        SECRET,
        &pairing_code,
        "secret message",
        "incoming",
        "Ana",
        "Bruno",
    ];
    for private in private.into_iter().chain(parts_of_the_qr) {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(private)).collect();
        assert!(lines.is_empty(), "{private:?} is in the log: {lines:?}");
    }
    let account = &ANA[4..];
    assert!(!log.contains(account) && !log.contains(&BRUNO[4..]), "not even in another form");
    // What the log is for is there.
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let request = |path: &str, status: u16| {
        lines
            .iter()
            .find(|line| line["route"] == path && line["status"] == status)
            .unwrap_or_else(|| panic!("{path} {status}: {log}"))
    };
    for field in ["tenant", "method", "ms", "timestamp", "level"] {
        assert!(!request("/send", 200)[field].is_null(), "{field}");
    }
    request("/send", 422);
    request("-", 404);
    assert!(request("/status", 400).get("tenant").is_none(), "what is no tenant id is not repeated");
    assert!(lines.iter().any(|line| line["state"] == "locked" && line["tenant"] == "acme"));
}

/// The lines of a log that say this.
fn lines(world: &World, what: &str) -> Vec<Value> {
    let lines = world.service.log.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["message"] == what).collect()
}

#[tokio::test]
async fn a_requests_line_names_the_code_and_the_message() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let sent = acme.send_ok(BRUNO, "hello").await;
    acme.send("12", "hello").await;
    let (_, failed) = acme.send("4915112345678", "to nobody").await;
    acme.get(&format!("/messages/{}", sent["id"].as_str().unwrap())).await;
    let messages = json!([{"to": BRUNO, "message": "a"}, {"to": "12", "message": "b"}, {"to": BRUNO, "message": "c"}]);
    acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    let requests = eventually("the last line", || async {
        let requests = lines(&world, "request");
        requests.iter().any(|line| line["route"] == "/send/bulk").then_some(requests)
    })
    .await;
    let has = |fields: Value| {
        let fields = fields.as_object().unwrap();
        let found = requests.iter().any(|line| fields.iter().all(|(name, value)| line[name] == *value));
        assert!(found, "{fields:?}: {requests:?}");
    };
    has(json!({"route": "/send", "status": 200, "id": sent["id"], "code": null, "tenant": "acme"}));
    has(json!({"route": "/send", "status": 400, "id": null, "code": "invalid_recipient"}));
    has(json!({"route": "/send", "status": 422, "id": failed["id"], "code": "recipient_not_on_whatsapp"}));
    has(json!({"route": "/messages/{id}", "status": 200, "id": sent["id"]}));
    has(json!({"route": "/send/bulk", "status": 202, "accepted": 2, "refused": 1}));
}

#[tokio::test]
async fn states_that_need_a_person_are_warnings() {
    let world = World::start().await;
    for (tenant, phone, fault, state) in [
        ("locked", ANA, json!({"loginFailure": {"reason": 403}, "phone": ANA}), "locked"),
        ("banned", BRUNO, json!({"loginFailure": {"reason": 406}, "phone": BRUNO}), "banned"),
    ] {
        world.pair(tenant, phone).await;
        world.fault(fault).await;
        world.fault(json!({"streamError": "515", "times": 1, "phone": phone})).await;
        world.service.tenant(tenant).until_state(state).await;
    }
    world.clear_faults().await;
    world.pair("gone", ANA).await;
    let device = world.devices(ANA).await.last().unwrap()["device"].clone();
    world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/{device}"), "").await;
    world.service.tenant("gone").until_state("logged_out").await;
    for line in lines(&world, "session") {
        let needs_one = ["locked", "banned", "logged_out"].contains(&line["state"].as_str().unwrap());
        assert_eq!(line["level"] == "WARN", needs_one, "{line}");
    }
    for state in ["locked", "banned", "logged_out"] {
        assert!(lines(&world, "session").iter().any(|line| line["state"] == state), "{state}");
    }
}

#[tokio::test]
async fn why_media_was_not_fetched_is_for_the_operator_alone() {
    let world =
        World::with(Default::default(), &[("ALLOW_PRIVATE_TARGETS", "true"), ("MEDIA_FETCH_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    let public = World::start().await;
    public.pair("acme", ANA).await;
    // One that says no, and one that says nothing.
    let serve = |says: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write_all(says.as_bytes());
                    let mut rest = Vec::new();
                    let _ = if says.is_empty() { stream.read_to_end(&mut rest) } else { Ok(0) };
                });
            }
        });
        address
    };
    let head = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").leak();
    let (missing, broken, silent) = (serve(head("404 Not Found")), serve(head("503 Unavailable")), serve(""));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (world, url, reason, retryable) in [
        (&world, format!("http://{missing}/a.png"), "not_found", false),
        (&world, format!("http://{broken}/a.png"), "server_error", true),
        (&world, format!("http://{silent}/a.png"), "too_slow", true),
        (&world, format!("https://{missing}/a.png"), "tls", false),
        (&world, format!("http://{nobody}/a.png"), "not_connected", true),
        (&public, format!("http://{missing}/a.png"), "refused_address", false),
        (&public, format!("http://localhost:{}/a.png", missing.port()), "refused_address", false),
    ] {
        let body = json!({"to": BRUNO, "media": {"url": url}});
        let (status, refused) = world.service.tenant("acme").call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (422, &json!("media_not_fetched")), "{url}: {refused}");
        assert_eq!(refused["retryable"], retryable, "{reason}: {refused}");
        assert_eq!(refused["message"], "the media could not be fetched from `media.url`", "its caller is not told why");
        let told = eventually("the reason in the log", || async {
            let told = lines(world, "media could not be fetched from its URL");
            told.into_iter().find(|line| line["reason"] == reason)
        })
        .await;
        assert_eq!(told["tenant"], "acme");
    }
    for world in [&world, &public] {
        let told = lines(world, "media could not be fetched from its URL");
        assert!(told.iter().all(|line| !line.to_string().contains("a.png")), "{told:?}");
    }
    assert_eq!(lines(&public, "media could not be fetched from its URL").len(), 2);
}

#[tokio::test]
async fn who_has_no_secret_can_not_fill_the_log() {
    let world = World::start().await;
    let address = world.service.url.trim_start_matches("http://").to_owned();
    let knock = move |request: String, times: usize| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let mut reading = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut answers = Vec::new();
            let _ = reading.read_to_end(&mut answers);
            String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count()
        });
        for _ in 0..times {
            if stream.write_all(request.as_bytes()).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        reader.join().unwrap()
    };
    let before = world.service.log.text().len();
    let (unknown, probe) = (knock.clone(), knock.clone());
    let request = format!("GET /status HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: {}\r\n\r\n", "t".repeat(128));
    // Each connection gets one answer, whatever else comes over it.
    let many = move || (0..500).map(|_| unknown(request.clone(), 10)).sum::<usize>();
    assert_eq!(tokio::task::spawn_blocking(many).await.unwrap(), 500);
    let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    assert!(tokio::task::spawn_blocking(move || probe(request, 5_000)).await.unwrap() > 4_900);
    // A method may be anything.
    for (secret, length) in [(SECRET, 20_000), ("wrong", 20_000), (SECRET, 200_000)] {
        let request =
            format!("{} /status HTTP/1.1\r\nHost: x\r\nX-Internal-Secret: {secret}\r\n\r\n", "M".repeat(length));
        let knock = knock.clone();
        tokio::task::spawn_blocking(move || knock(request, 1)).await.unwrap();
    }
    assert_eq!(answer(world.service.request(Method::GET, "/health")).await.0, 200);
    let summed_up = eventually("the sum", || async {
        let sums = lines(&world, "more requests without the secret");
        let of = |status: u16| {
            sums.iter()
                .filter(|line| line["status"] == status)
                .map(|line| line["requests"].as_u64().unwrap())
                .sum::<u64>()
        };
        (of(401) > 490 && of(200) > 4_900).then_some(sums)
    })
    .await;
    let written = world.service.log.text().len() - before;
    assert!(written < 8_000, "{written} bytes, and {summed_up:?}");
    assert!(lines(&world, "request").iter().all(|line| line.to_string().len() < 600));
}
