//! The control API over HTTP, every route, also when it says no.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use whatsapp_simulator::{Config, Simulator};

const ANA: &str = "5511999999999";
const BRUNO: &str = "5511988888888";

async fn simulator() -> Simulator {
    Simulator::bind("127.0.0.1:0".parse().unwrap(), Config::default()).await.unwrap()
}

/// One request; the answer's status and body.
async fn call(simulator: &Simulator, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(simulator.addr()).await.unwrap();
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn json_call(simulator: &Simulator, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, body) = call(simulator, method, path, &body).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn accounts_are_made_once_and_found_in_every_spelling() {
    let simulator = simulator().await;
    let ana = json!({ "phone": ANA, "name": "Ana" });
    let (status, made) = json_call(&simulator, "POST", "/admin/accounts", ana.clone()).await;
    assert_eq!(
        (status, &made["phone"], &made["name"], &made["devices"]),
        (201, &json!(ANA), &json!("Ana"), &json!([]))
    );
    assert_eq!(json_call(&simulator, "POST", "/admin/accounts", ana).await, (200, made.clone()));
    assert_eq!(json_call(&simulator, "GET", "/admin/accounts/551199999999", Value::Null).await, (200, made.clone()));
    assert_eq!(json_call(&simulator, "GET", "/admin/accounts", Value::Null).await, (200, json!([made])));

    // Whether others get to know the number can be said at any time.
    let mut hidden = made.clone();
    hidden["numberHidden"] = json!(true);
    for (body, expected) in [
        (json!({ "phone": ANA, "numberHidden": true }), &hidden),
        (json!({ "phone": ANA }), &hidden),
        (json!({ "phone": ANA, "numberHidden": false }), &made),
    ] {
        assert_eq!(json_call(&simulator, "POST", "/admin/accounts", body).await, (200, expected.clone()));
    }

    let alias = json!({ "phone": "4915112345678", "registeredAs": ANA });
    assert_eq!(json_call(&simulator, "POST", "/admin/accounts", alias.clone()).await, (200, made.clone()));
    assert_eq!(json_call(&simulator, "GET", "/admin/accounts/4915112345678", Value::Null).await, (200, made));
    let taken = json!({ "phone": "4915112345678", "registeredAs": BRUNO });
    assert_eq!(json_call(&simulator, "POST", "/admin/accounts", taken).await.0, 409);

    for (path, body, expected) in [
        ("/admin/accounts", json!({ "phone": "+55 11" }), 400),
        ("/admin/accounts", json!({ "phone": ANA, "age": 7 }), 422),
        ("/admin/accounts", json!({ "phone": ANA, "name": "x".repeat(101) }), 400),
    ] {
        let (status, answer) = json_call(&simulator, "POST", path, body).await;
        assert_eq!(status, expected);
        assert!(answer["error"].is_string(), "{answer}");
    }
    assert_eq!(json_call(&simulator, "GET", "/admin/accounts/5511900000000", Value::Null).await.0, 404);
    assert_eq!(json_call(&simulator, "DELETE", &format!("/admin/accounts/{ANA}/devices/1"), Value::Null).await.0, 404);
    assert_eq!(json_call(&simulator, "DELETE", &format!("/admin/accounts/{ANA}/devices/x"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn phones_write_to_each_other() {
    let simulator = simulator().await;
    for (phone, name) in [(ANA, "Ana"), (BRUNO, "Bruno")] {
        json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": phone, "name": name })).await;
    }
    let (messages_of, write_as) =
        (|p| format!("/admin/accounts/{p}/messages"), |p| format!("/admin/accounts/{p}/messages"));
    let text = json!({ "to": "551188888888", "text": "olá" });
    let (status, written) = json_call(&simulator, "POST", &write_as(ANA), text).await;
    assert_eq!(status, 201);
    let (_, seen) = json_call(&simulator, "GET", &messages_of(BRUNO), Value::Null).await;
    let message = &seen[0];
    assert_eq!(
        (&message["id"], &message["from"], &message["to"], &message["text"], &message["fromMe"]),
        (&written["id"], &json!(ANA), &json!(BRUNO), &json!("olá"), &json!(false))
    );
    assert!(message.get("status").is_none());
    let own = async || json_call(&simulator, "GET", &messages_of(ANA), Value::Null).await.1[0]["status"].clone();
    assert_eq!(own().await, "delivered");
    let (_, read) = json_call(&simulator, "POST", &format!("/admin/accounts/{BRUNO}/read"), Value::Null).await;
    assert_eq!(read, json!({ "read": 1 }));
    assert_eq!(own().await, "read");

    for (to, text, expected) in [("5511900000000", "hi", 422), (BRUNO, "", 400), ("x", "hi", 400)] {
        let body = json!({ "to": to, "text": text });
        assert_eq!(json_call(&simulator, "POST", &write_as(ANA), body).await.0, expected);
    }
    assert_eq!(json_call(&simulator, "GET", "/admin/accounts/5511900000000/messages", Value::Null).await.0, 404);
    assert_eq!(json_call(&simulator, "POST", "/admin/accounts/5511900000000/read", Value::Null).await.0, 404);

    let (_, stats) = json_call(&simulator, "GET", "/admin/stats", Value::Null).await;
    assert_eq!((&stats["messages"], &stats["receipts"]), (&json!(1), &json!(2)));
    assert_eq!(stats["phones"][ANA]["messages"], 1);
    assert_eq!(stats["phones"][BRUNO]["receipts"], 2);
    assert_eq!((&stats["shown"], &stats["phones"][BRUNO]["shown"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn a_phone_that_acts_as_if_it_could_not_read_gets_the_message_again() {
    let simulator = simulator().await;
    for phone in [ANA, BRUNO] {
        json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": phone })).await;
    }
    let fault = json!({ "unreadable": true, "phone": BRUNO, "times": 1 });
    assert_eq!(json_call(&simulator, "POST", "/admin/faults", fault).await.0, 204);
    for text in ["one", "two"] {
        let body = json!({ "to": BRUNO, "text": text });
        json_call(&simulator, "POST", &format!("/admin/accounts/{ANA}/messages"), body).await;
    }
    let (_, seen) = json_call(&simulator, "GET", &format!("/admin/accounts/{BRUNO}/messages"), Value::Null).await;
    assert_eq!((&seen[0]["text"], &seen[1]["text"], seen.as_array().unwrap().len()), (&json!("one"), &json!("two"), 2));
    let (_, stats) = json_call(&simulator, "GET", "/admin/stats", Value::Null).await;
    assert_eq!((&stats["retryReceipts"], &stats["phones"][BRUNO]["retryReceipts"]), (&json!(1), &json!(1)));
    assert_eq!(stats["repeatedIds"], 0);
    let (_, faults) = json_call(&simulator, "GET", "/admin/faults", Value::Null).await;
    assert_eq!(faults, json!([{ "unreadable": true, "phone": BRUNO, "times": 0 }]));
}

#[tokio::test]
async fn a_phone_that_is_off_waits_and_a_fault_that_is_over_is_gone() {
    let simulator = simulator().await;
    for phone in [ANA, BRUNO] {
        json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": phone })).await;
    }
    let off = json!({ "offlinePhone": true, "phone": "551188888888" });
    assert_eq!(json_call(&simulator, "POST", "/admin/faults", off).await.0, 204);
    let (_, faults) = json_call(&simulator, "GET", "/admin/faults", Value::Null).await;
    assert_eq!(faults, json!([{ "offlinePhone": true, "phone": BRUNO }]));
    let body = json!({ "to": BRUNO, "text": "hi" });
    json_call(&simulator, "POST", &format!("/admin/accounts/{ANA}/messages"), body.clone()).await;
    let messages = format!("/admin/accounts/{BRUNO}/messages");
    assert_eq!(json_call(&simulator, "GET", &messages, Value::Null).await.1, json!([]));
    assert_eq!(json_call(&simulator, "POST", &messages, body).await.0, 409);
    assert_eq!(json_call(&simulator, "DELETE", &format!("/admin/faults?phone={BRUNO}"), Value::Null).await.0, 204);
    assert_eq!(json_call(&simulator, "GET", &messages, Value::Null).await.1[0]["text"], "hi");
    assert_eq!(json_call(&simulator, "GET", "/admin/faults", Value::Null).await.1, json!([]));

    for body in [json!({}), json!({ "nack": 7 }), json!({ "dropAcks": true, "phone": "1" })] {
        assert_eq!(json_call(&simulator, "POST", "/admin/faults", body).await.0, 400);
    }
    let timelock = json!({ "until": 1_770_000_000, "type": "DEFAULT" });
    for (fault, times) in [
        (json!({ "unreadable": true }), Some(1)),
        (json!({ "dropMessages": true }), None),
        (json!({ "reachoutTimelock": timelock }), None),
        (json!({ "reachoutTimelock": { "until": 1_770_000_000 } }), Some(2)),
    ] {
        let mut fault = fault;
        fault["phone"] = json!(ANA);
        if let Some(times) = times {
            fault["times"] = json!(times);
        }
        assert_eq!(json_call(&simulator, "POST", "/admin/faults", fault.clone()).await.0, 204);
        assert_eq!(json_call(&simulator, "GET", "/admin/faults", Value::Null).await.1, json!([fault]));
        assert_eq!(json_call(&simulator, "DELETE", "/admin/faults", Value::Null).await.0, 204);
    }
    for (timelock, expected) in [(json!({ "until": 1, "type": "" }), 400), (json!({ "type": "DEFAULT" }), 422)] {
        let body = json!({ "reachoutTimelock": timelock });
        assert_eq!(json_call(&simulator, "POST", "/admin/faults", body).await.0, expected);
    }
    let unknown = json!({ "dropAcks": true, "phone": "5511900000000" });
    assert_eq!(json_call(&simulator, "POST", "/admin/faults", unknown).await.0, 404);
    assert_eq!(json_call(&simulator, "POST", "/admin/faults", json!({ "dropAck": true })).await.0, 422);
}

#[tokio::test]
async fn what_cannot_be_scanned_or_typed_is_refused() {
    let simulator = simulator().await;
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let stale = format!("2@nobody,{key},{key},{key},1");
    assert_eq!(call(&simulator, "POST", "/admin/mock-phone/scan-qr", &stale).await.0, 410);
    assert_eq!(call(&simulator, "POST", "/admin/mock-phone/scan-qr", "hello").await.0, 400);
    assert_eq!(call(&simulator, "POST", "/admin/mock-phone/scan-qr?phone=x", &stale).await.0, 400);
    assert_eq!(call(&simulator, "POST", "/admin/qr-codes", &stale).await.0, 410);
    let typed = |phone: &str, code: &str| json!({ "phone": phone, "code": code });
    let path = "/admin/mock-phone/enter-code";
    assert_eq!(json_call(&simulator, "POST", path, typed(ANA, "ABCD-1234")).await.0, 404);
    json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": ANA })).await;
    assert_eq!(json_call(&simulator, "POST", path, typed(ANA, "ABCD-1234")).await.0, 409);
    assert_eq!(json_call(&simulator, "POST", path, typed(ANA, "no code")).await.0, 400);
}

#[tokio::test]
async fn the_page_the_snapshot_and_its_stream_are_there() {
    let simulator = simulator().await;
    let (status, page) = call(&simulator, "GET", "/", "").await;
    assert_eq!(status, 200);
    assert!(page.contains("<html"), "{page}");
    assert_eq!(json_call(&simulator, "GET", "/nowhere", Value::Null).await.0, 404);
    assert_eq!(json_call(&simulator, "DELETE", "/admin/stats", Value::Null).await.0, 405);

    let mut events = BufReader::new(TcpStream::connect(simulator.addr()).await.unwrap());
    events.write_all(b"GET /admin/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut next = async || loop {
        let mut line = String::new();
        assert!(events.read_line(&mut line).await.unwrap() > 0, "the stream ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    let empty = next().await;
    assert_eq!((&empty["accounts"], &empty["qrCodes"], &empty["pairCodes"]), (&json!([]), &json!([]), &json!([])));
    json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": ANA, "name": "Ana" })).await;
    assert_eq!(next().await["accounts"][0]["name"], "Ana");
    let (_, root) = json_call(&simulator, "GET", "/admin/root-key", Value::Null).await;
    assert_eq!(root["rootKey"].as_str().map(str::len), Some(44));
    let (_, state) = json_call(&simulator, "GET", "/admin/state", Value::Null).await;
    assert_eq!(state["accounts"][0]["messages"], json!([]));
    assert!(state["stats"]["messages"].is_u64());
    simulator.shutdown().await;
}

#[tokio::test]
async fn several_simulators_live_side_by_side() {
    let (first, second) = (simulator().await, simulator().await);
    json_call(&first, "POST", "/admin/accounts", json!({ "phone": ANA })).await;
    assert_eq!(json_call(&second, "GET", "/admin/accounts", Value::Null).await.1, json!([]));
    let addr = first.addr();
    first.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_phone_sends_a_file_of_sixteen_megabytes_of_base64() {
    let simulator = simulator().await;
    for phone in [ANA, BRUNO] {
        json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": phone })).await;
    }
    // Three zeros are four As.
    let body = json!({ "to": BRUNO, "media": { "base64": "A".repeat(16 * 1024 * 1024), "mimetype": "text/plain" } });
    let (status, sent) = json_call(&simulator, "POST", &format!("/admin/accounts/{ANA}/messages"), body).await;
    assert_eq!(status, 201, "{sent}");
    let (_, seen) = json_call(&simulator, "GET", &format!("/admin/accounts/{BRUNO}/messages"), Value::Null).await;
    assert_eq!((&seen[0]["kind"], &seen[0]["media"]["size"]), (&json!("document"), &json!(12 * 1024 * 1024)));
    assert_eq!(seen[0]["media"].get("error"), None);
    let media = format!("/admin/accounts/{BRUNO}/messages/{}/media", sent["id"].as_str().unwrap());
    let (status, content) = call(&simulator, "GET", &media, "").await;
    assert_eq!((status, content.len()), (200, 12 * 1024 * 1024));
    for (path, expected) in [(media.replace("media", "text"), 404), (media.replace(BRUNO, "5511900000000"), 404)] {
        assert_eq!(call(&simulator, "GET", &path, "").await.0, expected, "{path}");
    }
    simulator.shutdown().await;
}

/// A simulator with Ana and Bruno, and what a call as one of them answers.
async fn two_phones() -> Simulator {
    let simulator = simulator().await;
    for (phone, name) in [(ANA, "Ana"), (BRUNO, "Bruno")] {
        json_call(&simulator, "POST", "/admin/accounts", json!({ "phone": phone, "name": name })).await;
    }
    simulator
}

async fn write(simulator: &Simulator, from: &str, body: Value) -> String {
    let (status, answer) = json_call(simulator, "POST", &format!("/admin/accounts/{from}/messages"), body).await;
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

async fn seen(simulator: &Simulator, phone: &str) -> Vec<Value> {
    let (_, seen) = json_call(simulator, "GET", &format!("/admin/accounts/{phone}/messages"), Value::Null).await;
    seen.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_chat_with_a_timer_is_one_on_both_phones_until_it_is_ended() {
    let simulator = two_phones().await;
    write(&simulator, ANA, json!({ "to": BRUNO, "text": "stays" })).await;
    write(&simulator, ANA, json!({ "to": BRUNO, "disappearingTimer": { "seconds": 86400 } })).await;
    write(&simulator, ANA, json!({ "to": BRUNO, "text": "for a day" })).await;
    write(&simulator, BRUNO, json!({ "to": ANA, "location": { "latitude": 1, "longitude": 2 } })).await;
    // `conversation`, without anything beside it.
    write(&simulator, BRUNO, json!({ "to": ANA, "raw": "CgRoZXJl" })).await;
    write(&simulator, BRUNO, json!({ "to": ANA, "disappearingTimer": { "seconds": 0 } })).await;
    write(&simulator, ANA, json!({ "to": BRUNO, "text": "stays too" })).await;
    for phone in [ANA, BRUNO] {
        let timers: Vec<_> =
            seen(&simulator, phone).await.into_iter().map(|mut one| one["disappearsAfter"].take()).collect();
        let carried = json!([null, 86400, 86400, 86400, null]);
        assert_eq!(json!(timers), carried, "the phone adds it to what is raw, too");
    }
}

#[tokio::test]
async fn a_voice_note_that_was_listened_to_says_so() {
    let simulator = two_phones().await;
    let voice = json!({ "to": BRUNO, "media": { "base64": "T2dnUw==" }, "voice": true });
    let (first, second) = (write(&simulator, ANA, voice.clone()).await, write(&simulator, ANA, voice).await);
    let text = write(&simulator, ANA, json!({ "to": BRUNO, "text": "no sound" })).await;
    let play = async |id: &str| {
        let path = format!("/admin/accounts/{BRUNO}/messages/{id}/play");
        json_call(&simulator, "POST", &path, Value::Null).await.0
    };
    assert_eq!((play(&first).await, play(&text).await, play("nothing").await), (204, 404, 404));
    json_call(&simulator, "POST", &format!("/admin/accounts/{BRUNO}/read"), Value::Null).await;
    let ticks =
        async || json!(seen(&simulator, ANA).await.into_iter().map(|mut one| one["status"].take()).collect::<Vec<_>>());
    assert_eq!(ticks().await, json!(["played", "read", "read"]));
    assert_eq!(play(&second).await, 204);
    assert_eq!(ticks().await, json!(["played", "played", "read"]));
}

#[tokio::test]
async fn phones_say_what_customers_say_to_businesses() {
    let simulator = two_phones().await;
    let question = write(&simulator, ANA, json!({ "to": BRUNO, "text": "Which?" })).await;
    for (body, kind) in [
        (json!({ "buttonReply": { "id": "a", "text": "This" } }), "buttonsResponseMessage"),
        (json!({ "templateReply": { "id": "a", "text": "This", "index": 1 } }), "templateButtonReplyMessage"),
        (json!({ "listReply": { "id": "a", "title": "This", "description": "one" } }), "listResponseMessage"),
        (json!({ "flowReply": { "name": "f", "text": "Sent", "params": "{}" } }), "interactiveResponseMessage"),
        (json!({ "order": { "id": "1", "itemCount": 2, "totalAmount1000": 9000, "currency": "BRL" } }), "orderMessage"),
        (json!({ "product": { "id": "1", "title": "A cup" } }), "productMessage"),
    ] {
        let mut whole = body;
        (whole["to"], whole["replyTo"]) = (json!(ANA), json!(question));
        whole["referral"] = json!({ "sourceUrl": "https://fb.me/1", "ctwaClid": "c" });
        let id = write(&simulator, BRUNO, whole).await;
        let shown = seen(&simulator, ANA).await.pop().unwrap();
        assert_eq!((&shown["id"], &shown["kind"], &shown["type"]), (&json!(id), &json!("unsupported"), &json!(kind)));
    }
    for body in [
        json!({ "buttonReply": { "id": "a" } }),
        json!({ "text": "a", "order": { "id": "1" } }),
        json!({ "text": "a", "referral": { "sourceURL": "x" } }),
        json!({ "disappearingTimer": { "seconds": -1 } }),
    ] {
        let mut whole = body;
        whole["to"] = json!(ANA);
        let (status, answer) = json_call(&simulator, "POST", &format!("/admin/accounts/{BRUNO}/messages"), whole).await;
        assert!((400..=422).contains(&status), "{answer}");
    }
}

#[tokio::test]
async fn phones_call_each_other() {
    let simulator = two_phones().await;
    let calls = format!("/admin/accounts/{ANA}/calls");
    let (status, call) = json_call(&simulator, "POST", &calls, json!({ "to": BRUNO, "video": true })).await;
    assert_eq!(status, 201);
    let end = |by: &str| format!("/admin/accounts/{by}/calls/{}/end", call["id"].as_str().unwrap());
    assert_eq!(json_call(&simulator, "POST", &end(BRUNO), json!({})).await.0, 404, "it is another's call");
    assert_eq!(json_call(&simulator, "POST", &end(ANA), json!({ "outcome": "accepted" })).await.0, 204);
    assert_eq!(json_call(&simulator, "POST", &end(ANA), json!({})).await.0, 404, "it has ended");
    for (body, expected) in [
        (json!({ "to": BRUNO, "outcome": "missed" }), 201),
        (json!({ "to": BRUNO, "outcome": "lost" }), 422),
        (json!({ "to": ANA }), 422),
        (json!({ "to": "5511900000000" }), 422),
        (json!({}), 422),
    ] {
        assert_eq!(json_call(&simulator, "POST", &calls, body).await.0, expected);
    }
    json_call(&simulator, "POST", "/admin/faults", json!({ "offlinePhone": true, "phone": ANA })).await;
    assert_eq!(json_call(&simulator, "POST", &calls, json!({ "to": BRUNO })).await.0, 409);
}
