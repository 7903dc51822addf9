//! The event log: what it tells, that it tells it once and in order, and that it can be followed.

use std::{collections::HashSet, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use whatsapp_simulator::{Addressing, Config};

use crate::harness::{ANA, BRUNO, Service, World, eventually};

/// How long a stream may be silent before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_a_phone_writes_is_told_once_with_all_that_is_known_of_it() {
    for phone_addressing in [Addressing::Lid, Addressing::Pn] {
        let mut world = World::with(Config { phone_addressing, ..Config::default() }, &[]).await;
        world.pair("acme", ANA).await;
        let bruno = world.admin(Method::GET, &format!("/admin/accounts/{BRUNO}"), "").await;
        let id = world.write(BRUNO, ANA, "Olá, Ana! 👋\n«segunda linha»").await;
        let told = world.service.tenant("acme").until_told("message.received", |told| !told.is_empty()).await;
        let chat = match phone_addressing {
            Addressing::Lid => format!("{}@lid", bruno["lid"].as_str().unwrap()),
            Addressing::Pn => format!("{BRUNO}@s.whatsapp.net"),
        };
        // Either way both of his names are known.
        let expected = json!({
            "id": id, "kind": "text", "text": "Olá, Ana! 👋\n«segunda linha»", "from": BRUNO, "fromLid": bruno["lid"],
            "fromName": "Bruno", "chat": chat, "timestamp": told[0]["timestamp"], "offline": false,
        });
        assert_eq!(told, [expected]);
        let shown = world.shown_on(BRUNO).await;
        assert_eq!(seconds(&told[0]["timestamp"]), seconds(&shown[0]["timestamp"]));

        // What the account writes itself, on its own phone, is told as its own; and what comes while nobody is here.
        let own = world.write(ANA, BRUNO, "from Ana's own phone").await;
        world.service.tenant("acme").until_told("message.received", |told| told.len() > 1).await;
        world.service.signal("-KILL");
        world.service.ended().await;
        let (later, last) =
            (world.write(BRUNO, ANA, "while you were away").await, world.write(BRUNO, ANA, "and another").await);
        world.service.restart().await;
        let told = world.service.tenant("acme").until_told("message.received", |told| told.len() > 3).await;
        let seen: Vec<_> = told.iter().map(|one| (&one["id"], &one["offline"])).collect();
        let [now, waited] = [json!(false), json!(true)];
        assert_eq!(seen, [(&id, &now), (&own, &now), (&later, &waited), (&last, &waited)]);
        assert_eq!((&told[1]["fromMe"], &told[1]["to"]), (&json!(true), &json!(BRUNO)));
        assert_eq!((&told[2]["text"], &told[2]["from"]), (&json!("while you were away"), &json!(BRUNO)));
    }
}

#[tokio::test]
async fn every_step_of_a_message_is_told_in_order() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    // Otherwise its receipt might be faster than the acknowledgement.
    world.fault(json!({"offlinePhone": true, "phone": BRUNO})).await;
    let body = json!({"to": BRUNO, "message": "step by step", "reference": "order-7"});
    let (status, queued) = acme.call(Method::POST, "/send?wait=0", Some(body)).await;
    assert_eq!((status.as_u16(), &queued["status"]), (202, &json!("queued")), "{queued}");
    acme.until_told("message.status", |told| told.len() == 1).await;
    world.clear_faults().await;
    acme.until_told("message.status", |told| told.len() == 2).await;
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/read"), "").await;
    let told = acme.until_told("message.status", |told| told.len() > 2).await;
    let steps: Vec<_> = told.iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(steps, ["sent", "delivered", "read"], "being accepted is no event");
    for one in &told {
        assert_eq!((&one["id"], &one["reference"], &one["to"]), (&queued["id"], &json!("order-7"), &json!(BRUNO)));
        assert!(!one.to_string().contains("step by step"), "{one}");
    }
    let times = ["sentAt", "deliveredAt", "readAt"];
    for (step, one) in told.iter().enumerate() {
        let known: Vec<_> = times.iter().filter(|&&time| one.get(time).is_some()).collect();
        assert_eq!(known, times[..=step].iter().collect::<Vec<_>>(), "{one}");
    }
    let (_, fate) = acme.call(Method::GET, &format!("/messages/{}", queued["id"].as_str().unwrap()), None).await;
    assert_eq!(told[2], fate, "the last one tells what the message says of itself");
}

#[tokio::test]
async fn a_refused_message_and_one_with_an_open_end_are_told() {
    let world = World::with(Config::default(), &[("SEND_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    world.fault(json!({"nack": 400})).await;
    let body = json!({"to": BRUNO, "message": "refused", "reference": "a"});
    let (status, _) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!(status, 502);
    let told = acme.told("message.status").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["status"], &told[0]["reference"]), (&json!("failed"), &json!("a")));
    assert_eq!((&told[0]["code"], &told[0]["whatsappCode"]), (&json!("message_rejected"), &json!("400")));
    assert_eq!((told[0]["failedAt"].is_string(), &told[0]["retryable"]), (true, &json!(false)));

    world.clear_faults().await;
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let (status, open) = acme.send(BRUNO, "never acknowledged").await;
    assert_eq!((status.as_u16(), &open["status"]), (202, &json!("unknown")));
    let told = acme.told("message.status").await;
    assert_eq!((told.len(), &told[1]["status"], &told[1]["id"]), (2, &json!("unknown"), &open["id"]));
    // The next attempts are no events until one of them tells something new.
    eventually("a repetition", || async { (world.stats().await["repeatedIds"] != 0).then_some(()) }).await;
    assert_eq!(acme.told("message.status").await.len(), 2);
    world.clear_faults().await;
    let told = acme.until_told("message.status", |told| told.last().unwrap()["status"] == "delivered").await;
    let steps: Vec<_> = told[1..].iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert!(steps == ["unknown", "sent", "delivered"] || steps == ["unknown", "delivered"], "{steps:?}");
    assert!(told[1..].iter().all(|one| one["id"] == open["id"]));
}

#[tokio::test]
async fn the_life_of_a_session_is_told_without_its_codes() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let qr = acme.open().await["qrCode"].as_str().unwrap().to_owned();
    world.pair("acme", ANA).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let states = |told: &[Value]| told.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    acme.until_told("session.state", |told| states(told).iter().filter(|&state| state == "ready").count() == 2).await;
    let device = world.devices(ANA).await[0]["device"].clone();
    world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/{device}"), "").await;
    acme.until_state("logged_out").await;
    let (status, _) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!(status, 200);
    let told = acme.until_told("session.state", |told| states(told).contains(&"deleted".into())).await;
    // Removed by the phone: one more login confirms it.
    let expected =
        ["pairing_qr", "connecting", "ready", "reconnecting", "ready", "reconnecting", "logged_out", "deleted"];
    assert_eq!(states(&told), expected);
    let statuses: Vec<_> = told.iter().map(|one| one["status"].as_str().unwrap()).collect();
    let contracts =
        ["initializing", "initializing", "ready", "initializing", "ready", "initializing", "failed", "not_found"];
    assert_eq!(statuses, contracts);
    assert!(told.iter().all(|one| one["since"].is_string()));
    assert_eq!((told[0].get("phone"), &told[2]["phone"]), (None, &json!(ANA)));
    assert_eq!((&told[6]["reason"], told[6]["message"].is_string()), (&json!("logged_out"), true));

    let events = json!(acme.events().await).to_string();
    for part in qr.split(',').filter(|part| part.len() > 10) {
        assert!(!events.contains(part), "a part of the QR code is in {events}");
    }
    let code = acme.call(Method::POST, "/session", Some(json!({"phone": BRUNO}))).await.1["pairingCode"].clone();
    acme.until_told("session.state", |told| told.last().unwrap()["state"] == "pairing_code").await;
    assert!(!json!(acme.events().await).to_string().contains(code.as_str().expect("a code")));
}

#[tokio::test]
async fn each_tenant_counts_its_own_events_without_a_gap() {
    let mut world = World::start().await;
    world.pair("ana", ANA).await;
    world.pair("bruno", BRUNO).await;
    for round in 0..2 {
        world.service.tenant("ana").deliver(BRUNO, &format!("ping {round}")).await;
        world.service.tenant("bruno").deliver(ANA, &format!("pong {round}")).await;
    }
    let mut all = Vec::new();
    for tenant in ["ana", "bruno"] {
        let one = world.service.tenant(tenant);
        one.until_told("message.received", |told| told.len() == 2).await;
        let events = one.events().await;
        let numbers: Vec<_> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        assert!(events.iter().all(|event| event["tenantId"] == tenant && event["timestamp"].is_string()));
        let fields = ["data", "id", "sequence", "tenantId", "timestamp", "type"];
        assert!(events.iter().all(|event| event.as_object().unwrap().keys().eq(fields)), "{}", events[0]);
        all.push(events);
    }
    let ids: HashSet<_> = all.iter().flatten().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), all[0].len() + all[1].len(), "no two events have the same id");
    assert_eq!(world.service.tenant("somebody-else").events().await, [Value::Null; 0]);

    // Neither the numbers nor the ids are other ones for the next process.
    world.service.kill_and_restart().await;
    let ana = world.service.tenant("ana");
    ana.until_told("session.state", |told| told.last().unwrap()["state"] == "ready").await;
    let after = ana.events().await;
    assert_eq!(after[..all[0].len()], all[0]);
    assert!((1..).zip(&after).all(|(number, event)| event["sequence"] == number), "{after:?}");
}

#[tokio::test]
async fn events_come_in_pages() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.deliver(BRUNO, "some more").await;
    let all = acme.events().await;
    let (mut collected, mut path) = (Vec::new(), String::from("/events?limit=2"));
    loop {
        let (status, page) = acme.call(Method::GET, &path, None).await;
        assert_eq!(status, 200);
        let events = page["events"].as_array().unwrap();
        collected.extend(events.iter().cloned());
        let Some(next) = page.get("nextAfter") else { break };
        assert_eq!((events.len(), next), (2, &events[1]["sequence"]));
        path = format!("/events?limit=2&after={next}");
    }
    assert_eq!(collected, all);
    let last = all.len();
    for (query, expected) in [
        (format!("after={}", last - 1), json!({"events": [all[last - 1]]})),
        (format!("after={last}"), json!({"events": []})),
        (format!("limit={last}"), json!({"events": all})),
        (format!("limit={}", last - 1), json!({"events": all[..last - 1], "nextAfter": last - 1})),
        ("after=999999999".into(), json!({"events": []})),
    ] {
        assert_eq!(acme.call(Method::GET, &format!("/events?{query}"), None).await.1, expected, "{query}");
    }
    for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=many", "after=first", "after=1.5", "after="] {
        for path in ["/events", "/events/stream"] {
            let (status, body) = match (path, wrong.starts_with("limit")) {
                ("/events/stream", true) => continue,
                _ => acme.call(Method::GET, &format!("{path}?{wrong}"), None).await,
            };
            assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_query")), "{path}?{wrong}: {body}");
        }
    }
}

#[tokio::test]
async fn a_message_that_was_decrypted_but_not_committed_comes_again_and_is_told_once() {
    // The library can write down what it has decrypted, and the service can't put it into its log.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    // The phone's keys come once the session is ready, and are a message too.
    let taken_in = async || (world.service.count("SELECT count(*) FROM received") > 0).then_some(());
    eventually("the phone's keys", taken_in).await;
    let held = "CREATE TRIGGER held BEFORE INSERT ON received BEGIN SELECT RAISE(FAIL, 'held'); END";
    world.service.database().execute_batch(held).unwrap();
    let id = world.write(BRUNO, ANA, "decrypted, and then killed").await;
    eventually("the message in the client's hands", || async { (decrypted(&world.service) == 1).then_some(()) }).await;
    assert!(world.service.tenant("acme").told("message.received").await.is_empty(), "nothing is committed");
    world.service.signal("-KILL");
    world.service.ended().await;
    world.service.database().execute_batch("DROP TRIGGER held").unwrap();
    // That WhatsApp hands it over again shows that it was not told that it arrived.
    world.service.restart().await;
    let told = world.service.tenant("acme").until_told("message.received", |told| !told.is_empty()).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["id"], &told[0]["text"]), (&id, &json!("decrypted, and then killed")));
    // Nothing of it is left for the process after that.
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    world.write(BRUNO, ANA, "the next one").await;
    let told = acme.until_told("message.received", |told| told.iter().any(|one| one["text"] == "the next one")).await;
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test]
async fn a_message_that_a_kill_has_lost_is_sent_again_by_its_sender() {
    // The library may write its ciphers' state before the message that they have decrypted, and a kill in between loses
    // it: WhatsApp hands it over again, and nobody can read it a second time. That is made here by hand: WhatsApp forgets
    // that it was acknowledged, and the service that it has ever seen it.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"forgetConfirmations": true, "phone": ANA})).await;
    // The account's own messages are no less worth.
    let ids = [world.write(BRUNO, ANA, "lost, and found").await, world.write(ANA, BRUNO, "one's own").await];
    world.service.tenant("acme").until_told("message.received", |told| told.len() == 2).await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    world.clear_faults().await;
    assert!(world.service.database().execute("DELETE FROM received", ()).unwrap() > 0);
    world.service.restart().await;
    let acme = world.service.tenant("acme");
    let told = acme.until_told("message.received", |told| told.len() == 4).await;
    for (id, text) in ids.iter().zip(["lost, and found", "one's own"]) {
        assert!(told[2..].iter().any(|one| one["id"] == *id && one["text"] == text), "{told:?}");
    }
    let asked = world.count(ANA, "retryReceipts").await;
    assert!(asked >= 2, "they were asked for");
    // It is not asked for any more, and one that is known is not asked for at all.
    world.fault(json!({"forgetConfirmations": true, "phone": ANA})).await;
    world.write(BRUNO, ANA, "the next one").await;
    acme.until_told("message.received", |told| told.len() == 5).await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    world.clear_faults().await;
    world.service.restart().await;
    world.service.tenant("acme").until_state("ready").await;
    world.write(BRUNO, ANA, "the last one").await;
    let told = world.service.tenant("acme").until_told("message.received", |told| told.len() == 6).await;
    assert_eq!(told[5]["text"], "the last one");
    assert_eq!(world.count(ANA, "retryReceipts").await, asked);
}

#[tokio::test]
async fn kill_9_again_and_again_neither_loses_nor_repeats_a_message() {
    // Without choosing the moment.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let mut written = Vec::new();
    for round in 0..20 {
        if round % 4 == 3 {
            world.service.tenant("acme").until_state("ready").await;
        }
        written.push(world.write(BRUNO, ANA, &format!("number {round}")).await);
        // A few round trips more or less, so that the end comes sooner or later.
        for _ in 0..round % 7 {
            world.stats().await;
        }
        world.service.kill_and_restart().await;
    }
    let acme = world.service.tenant("acme");
    acme.until_told("message.received", |told| told.len() >= written.len()).await;
    // One more goes the whole way, behind whatever might still come again.
    acme.until_state("ready").await;
    written.push(world.write(BRUNO, ANA, "the last one").await);
    let told = acme.until_told("message.received", |told| told.iter().any(|one| one["text"] == "the last one")).await;
    let ids: Vec<_> = told.iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, written, "each once, in the order in which they were written");
}

#[tokio::test]
async fn a_stream_brings_events_as_they_happen() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("other", BRUNO).await;
    let acme = world.service.tenant("acme");
    acme.until_told("session.state", |told| told.last().unwrap()["state"] == "ready").await;
    let before = acme.events().await.len();
    let mut stream = Stream::open(&world.service, "acme", "", None).await;
    for round in 0..3 {
        // Another tenant's events don't get into it.
        world.service.tenant("other").send("4915112345678", "to nobody").await;
        let sent = acme.send_ok(BRUNO, &format!("round {round}")).await;
        loop {
            let event = stream.next().await.expect("an event");
            assert_eq!(event["data"]["id"], sent["id"]);
            if event["data"]["status"] == "delivered" {
                break;
            }
        }
    }
    assert_eq!(stream.seen, acme.events().await[before..], "it is the log, from where it was opened on");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke_off() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.deliver(BRUNO, "before").await;
    let all = acme.events().await;
    let mut first = Stream::open(&world.service, "acme", "?after=0", None).await;
    for _ in 0..2 {
        first.next().await.expect("an event");
    }
    assert_eq!(first.seen, all[..2], "`after` starts in the past");
    drop(first);
    acme.deliver(BRUNO, "in between").await;
    let all = acme.events().await;
    // What the header says counts more than what stands in the address that was opened first.
    let mut second = Stream::open(&world.service, "acme", "?after=0", Some("2")).await;
    while second.seen.len() < all.len() - 2 {
        second.next().await.expect("an event");
    }
    assert_eq!(second.seen, all[2..], "nothing lost, nothing repeated");
    // The next process goes on with the same numbers.
    world.service.kill_and_restart().await;
    let last = all.len().to_string();
    let mut third = Stream::open(&world.service, "acme", "", Some(&last)).await;
    let ready = third.next().await.expect("an event");
    assert_eq!((&ready["sequence"], &ready["data"]["state"]), (&json!(all.len() + 1), &json!("ready")));

    for wrong in ["x", "1.5", "", "evt_1"] {
        let request = world.service.request(Method::GET, "/events/stream").header("X-Tenant-Id", "acme");
        let (status, body) = crate::harness::answer(request.header("Last-Event-ID", wrong)).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_last_event_id")), "{wrong:?}: {body}");
    }
}

#[tokio::test]
async fn streams_end_with_the_process_and_don_t_hold_it() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let mut streams = Vec::new();
    for tenant in ["acme", "acme", "nobody"] {
        streams.push(Stream::open(&world.service, tenant, "?after=0", None).await);
    }
    let asked = tokio::time::Instant::now();
    assert_eq!(world.service.terminate().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "well before the limit: {:?}", asked.elapsed());
    for stream in &mut streams {
        while stream.next().await.is_some() {}
    }
    assert!(world.service.log.text().lines().any(|line| line.contains("\"stopped\"")), "the end was an orderly one");
    assert!(!world.service.log.text().contains("still under way"));
}

/// How many messages the tenants' clients have decrypted and not yet handed over.
fn decrypted(service: &Service) -> i64 {
    service.count("SELECT count(*) FROM state WHERE kind = 19")
}

/// A time without its fraction.
fn seconds(timestamp: &Value) -> &str {
    &timestamp.as_str().expect("a time")[..19]
}

/// An open `GET /events/stream`.
struct Stream {
    response: reqwest::Response,
    unread: String,
    /// What came so far.
    seen: Vec<Value>,
}

impl Stream {
    async fn open(service: &Service, tenant: &str, query: &str, last: Option<&str>) -> Self {
        let mut request = service.request(Method::GET, &format!("/events/stream{query}")).header("X-Tenant-Id", tenant);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.expect("the service answers");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, unread: String::new(), seen: Vec::new() }
    }

    /// The next event; `None` at the end of the stream, which must be a clean one.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                let field = |name: &str| {
                    let mut lines = block.lines().filter_map(|line| line.split_once(": "));
                    lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
                };
                let Some(data) = field("data") else { continue };
                let data: Value = serde_json::from_str(&data).expect("an event");
                assert_eq!(field("id"), Some(data["sequence"].to_string()));
                assert_eq!(field("event").as_deref(), data["type"].as_str());
                self.seen.push(data.clone());
                return Some(data);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream says something");
            self.unread += std::str::from_utf8(&chunk.expect("a clean end")?).expect("UTF-8");
        }
    }
}
