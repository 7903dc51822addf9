//! What WhatsApp is asked and told without a message: who is on it, who is typing, what was read.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Tenant, World, answer, eventually},
};

async fn check(tenant: Tenant<'_>, numbers: &[&str]) -> (u16, Value) {
    let (status, answer) = tenant.call(Method::POST, "/numbers/check", Some(json!({"numbers": numbers}))).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn numbers_are_checked_in_every_form_and_remembered() {
    let world = World::start().await;
    let mut lids = vec![world.lid(BRUNO).await];
    for phone in ["5511966665555", "551177776666"] {
        world.admin(Method::POST, "/admin/accounts", json!({"phone": phone, "name": "Carla"}).to_string()).await;
        lids.push(world.lid(phone).await);
    }
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let asked = ["+55 (11) 88888-8888", "4915112345678", "551166665555", "5511977776666", BRUNO, "4915112345678"];
    let (status, answer) = check(acme, &asked).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["numbers"],
        json!([
            {"input": "+55 (11) 88888-8888", "registered": true, "number": BRUNO, "lid": lids[0]},
            {"input": "4915112345678", "registered": false},
            {"input": "551166665555", "registered": true, "number": "5511966665555", "lid": lids[1]},
            {"input": "5511977776666", "registered": true, "number": "551177776666", "lid": lids[2]},
            {"input": BRUNO, "registered": true, "number": BRUNO, "lid": lids[0]},
            {"input": "4915112345678", "registered": false},
        ])
    );
    // What was said is remembered, for sending too.
    world.admin(Method::POST, "/admin/accounts", json!({"phone": "4915112345678", "name": "Dora"}).to_string()).await;
    let (_, again) = check(acme, &["4915112345678", BRUNO]).await;
    assert_eq!((&again["numbers"][0]["registered"], &again["numbers"][1]["registered"]), (&json!(false), &json!(true)));
    assert_eq!(acme.send("4915112345678", "too soon").await.0, 422);
}

#[tokio::test]
async fn many_look_ups_wait_and_what_is_known_costs_nothing() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let numbers: Vec<String> = (0..100).map(|n| format!("4915100000{n:03}")).collect();
    let first: Vec<&str> = numbers[..50].iter().map(String::as_str).collect();
    let (status, answered) = check(acme, &first).await;
    assert_eq!((status, answered["numbers"].as_array().unwrap().len()), (200, 50), "{answered}");
    let rest: Vec<&str> = numbers[50..].iter().map(String::as_str).collect();
    let request = world.service.request(Method::POST, "/numbers/check").header("X-Tenant-Id", "acme");
    let response = request.json(&json!({"numbers": rest})).send().await.unwrap();
    let header: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(response.status(), 429);
    let refused: Value = response.json().await.unwrap();
    assert_eq!((&refused["code"], &refused["retryAfter"]), (&json!("too_many_lookups"), &json!(header)), "{refused}");
    assert!((90..=100).contains(&header), "fifty take 100 seconds: {header}");
    assert_eq!(check(acme, &first).await.0, 200, "these are known");
    // The same question by another door. One number is there again every two seconds, however slow this machine is.
    let presences = numbers[50..80].iter().map(|to| {
        let body = json!({"to": to, "state": "typing"});
        acme.call(Method::POST, "/presence", Some(body))
    });
    let answers = futures_util::future::join_all(presences).await;
    let codes: Vec<_> = answers.iter().map(|(_, answer)| answer["code"].as_str().unwrap_or_default()).collect();
    assert!(codes.iter().all(|code| ["too_many_lookups", "recipient_not_on_whatsapp"].contains(code)), "{codes:?}");
    assert!(codes.contains(&"too_many_lookups"), "{codes:?}");
    // Another tenant has its own.
    world.pair("other", BRUNO).await;
    assert_eq!(check(world.service.tenant("other"), &[ANA]).await.0, 200);
}

#[tokio::test]
async fn what_can_not_be_checked_is_said() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let of = |(status, answer): (u16, Value)| (status, answer["code"].as_str().unwrap_or_default().to_owned());
    assert_eq!(of(check(acme, &[BRUNO]).await), (409, "session_not_found".into()));
    world.pair("acme", ANA).await;
    for (numbers, mention) in [
        (json!([]), "1 to 50"),
        (json!(vec![BRUNO; 51]), "1 to 50"),
        (
            json!([BRUNO, "12", ANA, "x"]),
            "`numbers[1]` needs 8 to 15 digits, with the country code; it has 2; `numbers[3]` has `x` in",
        ),
    ] {
        let (status, answer) = acme.call(Method::POST, "/numbers/check", Some(json!({"numbers": numbers}))).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!("invalid_numbers")), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(mention), "{answer}");
    }
    for body in [json!({}), json!({"numbers": BRUNO}), json!({"numbers": [1]})] {
        let (status, answer) = acme.call(Method::POST, "/numbers/check", Some(body)).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!("invalid_body")), "{answer}");
    }
    world.cut_off("acme", ANA).await;
    let (status, answer) = check(acme, &[BRUNO]).await;
    assert_eq!((status, &answer["code"], &answer["state"]), (409, &json!("session_not_ready"), &json!("reconnecting")));
}

#[tokio::test]
async fn the_other_side_sees_who_is_typing() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    // Bruno's other device is a real client.
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let note = Arc::new(move |event: whatsapp_rust::ChatStateEvent| {
        noted.lock().unwrap().push(format!("{:?}", event.state));
    });
    bruno.client.register_chatstate_handler(note).await;
    for (n, state) in ["typing", "recording", "paused"].into_iter().enumerate() {
        let shown = json!({"to": "+55 11 88888-8888", "state": state});
        let (status, answer) = acme.call(Method::POST, "/presence", Some(shown)).await;
        let expected = json!({"to": BRUNO, "toLid": world.lid(BRUNO).await, "state": state});
        assert_eq!((status.as_u16(), &answer), (200, &expected));
        eventually("a state of the chat", || async { (seen.lock().unwrap().len() > n).then_some(()) }).await;
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, ["Typing", "RecordingAudio", "Idle"]);

    let carla = json!({"phone": "5511966665555", "name": "Carla"}).to_string();
    world.admin(Method::POST, "/admin/accounts", carla).await;
    let other_form = json!({"to": "551166665555", "state": "typing"});
    let (_, answer) = acme.call(Method::POST, "/presence", Some(other_form)).await;
    assert_eq!(answer["to"], "5511966665555", "the number that WhatsApp knows: {answer}");
    for (body, status, code) in [
        (json!({"to": "4915112345678", "state": "typing"}), 422, "recipient_not_on_whatsapp"),
        (json!({"to": "12", "state": "typing"}), 400, "invalid_recipient"),
        (json!({"to": BRUNO, "state": "composing"}), 400, "invalid_body"),
        (json!({"to": BRUNO}), 400, "invalid_body"),
    ] {
        let (answered, answer) = acme.call(Method::POST, "/presence", Some(body)).await;
        assert_eq!((answered.as_u16(), &answer["code"]), (status, &json!(code)), "{answer}");
    }
    bruno.stop().await;
}

#[tokio::test]
async fn the_sender_learns_that_a_message_was_read() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let first = world.write(BRUNO, ANA, "one").await;
    let second = world.write(BRUNO, ANA, "two").await;
    acme.until_told("message.received", |told| told.len() == 2).await;
    let path = |id: &Value| format!("/messages/{}/read", id.as_str().unwrap());
    let (status, answered) = acme.call(Method::POST, &path(&first), None).await;
    assert_eq!((status.as_u16(), &answered), (200, &json!({"id": first})));
    let status_of = |id: Value| {
        let world = &world;
        async move {
            let shown = world.shown_on(BRUNO).await.into_iter().find(|message| message["id"] == id);
            shown.map(|message| message["status"].clone()).unwrap_or_default()
        }
    };
    eventually("two blue ticks", || async { (status_of(first.clone()).await == "read").then_some(()) }).await;
    assert_eq!(status_of(second.clone()).await, "delivered", "this one was not");

    let own = acme.send_ok(BRUNO, "own").await["id"].clone();
    let on_phone = world.write(ANA, BRUNO, "written on the phone").await;
    acme.until_told("message.received", |told| told.len() == 3).await;
    for id in [&own, &on_phone, &json!("ABCDEF0123456789"), &json!("x".repeat(65)), &json!("%20")] {
        let (status, answered) = acme.call(Method::POST, &path(id), None).await;
        assert_eq!((status.as_u16(), &answered["code"]), (404, &json!("message_not_found")), "{id}: {answered}");
    }
    // Another tenant has not got it.
    world.pair("other", BRUNO).await;
    assert_eq!(world.service.tenant("other").call(Method::POST, &path(&second), None).await.0, 404);
    let bare = world.service.request(Method::POST, &path(&second)).header("X-Tenant-Id", "nobody");
    let (status, answered) = answer(bare).await;
    assert_eq!((status.as_u16(), &answered["code"]), (409, &json!("session_not_found")));
    world.cut_off("acme", ANA).await;
    let (status, answered) = acme.call(Method::POST, &path(&second), None).await;
    assert_eq!((status.as_u16(), &answered["code"]), (409, &json!("session_not_ready")), "{answered}");
}
