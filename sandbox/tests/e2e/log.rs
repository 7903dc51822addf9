//! The log: one line for each request, and never anybody's data.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ANA, BRUNO, SECRET, World};

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
