//! What else comes in: what customers say to businesses, where they come from, calls, and what can't be read yet. Nothing
//! of it is silent.

use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_rust::prelude::{Jid, MessageField, wa};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Tenant, World, eventually},
};

/// Has a phone send something to Ana, and returns its id.
async fn say(world: &World, from: &str, mut what: Value) -> Value {
    what["to"] = json!(ANA);
    world.admin(Method::POST, &format!("/admin/accounts/{from}/messages"), what.to_string()).await["id"].clone()
}

/// What is told of a message that came in.
async fn told(acme: Tenant<'_>, id: &Value) -> Value {
    let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == *id)).await;
    told.into_iter().find(|one| one["id"] == *id).unwrap()
}

#[tokio::test]
async fn what_customers_say_to_businesses_is_told_with_its_words_and_ids() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let question = acme.send_ok(BRUNO, "Which one?").await["id"].clone();
    world.until_shown(BRUNO, "Which one?").await;
    for (what, kind, text, field, expected) in [
        (
            json!({"buttonReply": {"id": "yes", "text": "Yes, please"}}),
            "buttonReply",
            json!("Yes, please"),
            "reply",
            json!({"id": "yes", "title": "Yes, please"}),
        ),
        (
            json!({"templateReply": {"id": "stop", "text": "Stop", "index": 1}}),
            "templateReply",
            json!("Stop"),
            "reply",
            json!({"id": "stop", "title": "Stop", "index": 1}),
        ),
        (
            json!({"listReply": {"id": "slot-2", "title": "Tomorrow", "description": "at ten"}}),
            "listReply",
            json!("Tomorrow"),
            "reply",
            json!({"id": "slot-2", "title": "Tomorrow", "description": "at ten"}),
        ),
        (
            json!({"flowReply": {"name": "quick_reply", "text": "Blue", "params": "{\"id\":\"blue\"}"}}),
            "flowReply",
            json!("Blue"),
            "reply",
            json!({"id": "blue", "title": "Blue", "name": "quick_reply", "params": "{\"id\":\"blue\"}"}),
        ),
        (
            json!({"order": {"id": "4711", "title": "Cups", "message": "Today?", "itemCount": 2, "totalAmount1000": 12_900,
                   "currency": "BRL"}}),
            "order",
            json!("Today?"),
            "order",
            json!({"id": "4711", "status": "inquiry", "title": "Cups", "itemCount": 2, "totalAmount1000": 12_900,
                   "currency": "BRL"}),
        ),
        (
            json!({"product": {"id": "8", "retailerId": "cup-8", "title": "A cup", "description": "Blue", "currency": "BRL",
                   "priceAmount1000": 6_450, "url": "https://example.com/cup", "body": "Is it there?"}}),
            "product",
            json!("Is it there?"),
            "product",
            json!({"id": "8", "retailerId": "cup-8", "title": "A cup", "description": "Blue", "currency": "BRL",
                   "priceAmount1000": 6_450, "url": "https://example.com/cup"}),
        ),
        (json!({"order": {"id": "4712"}}), "order", Value::Null, "order", json!({"id": "4712", "status": "inquiry"})),
    ] {
        let mut what = what;
        what["replyTo"] = question.clone();
        let one = told(acme, &say(&world, BRUNO, what).await).await;
        assert_eq!((&one["kind"], &one["text"], &one[field]), (&json!(kind), &text, &expected), "{one}");
        assert_eq!((&one["replyTo"], &one["from"]), (&question, &json!(BRUNO)), "{one}");
    }
}

#[tokio::test]
async fn where_a_customer_came_from_is_told_with_whatever_they_write() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let referral = json!({"sourceUrl": "https://fb.me/3cr4Wqqkv", "sourceType": "ad", "sourceId": "120226305854810726",
        "headline": "Chat with us", "body": "Our summer sale", "mediaType": "video",
        "mediaUrl": "https://example.com/sale.mp4", "thumbnailUrl": "https://example.com/sale.jpg", "ctwaClid": "ARAkLkA8"});
    for what in [
        json!({"text": "Hello! Can I get more info on this?"}),
        json!({"media": {"base64": "SGVsbG8hCg==", "mimetype": "text/plain", "filename": "a.txt"}, "text": "this"}),
        json!({"location": {"latitude": 1, "longitude": 2}}),
    ] {
        let mut what = what;
        what["referral"] = referral.clone();
        let one = told(acme, &say(&world, BRUNO, what).await).await;
        assert_eq!(one["referral"], referral, "{one}");
    }
    let post = json!({"sourceType": "post", "ctwaClid": "B"});
    let one = told(acme, &say(&world, BRUNO, json!({"text": "Hi", "referral": post})).await).await;
    assert_eq!(one["referral"], post);
    let one = told(acme, &say(&world, BRUNO, json!({"text": "Hi again"})).await).await;
    assert!(one.get("referral").is_none(), "{one}");
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_told_once_also_over_a_kill_and_without_a_connection() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let calls = format!("/admin/accounts/{BRUNO}/calls");
    let call = |video: bool, outcome: Option<&str>| {
        let mut call = json!({"to": ANA, "video": video});
        if let Some(outcome) = outcome {
            call["outcome"] = json!(outcome);
        }
        call.to_string()
    };
    for outcome in ["accepted", "rejected"] {
        world.admin(Method::POST, &calls, call(false, Some(outcome))).await;
    }
    let video = world.admin(Method::POST, &calls, call(true, Some("missed"))).await["id"].clone();
    let acme = world.service.tenant("acme");
    let missed = acme.until_told("call.missed", |told| !told.is_empty()).await;
    assert_eq!(missed.len(), 1, "{missed:?}");
    let (one, expected) = (&missed[0], json!({"video": true, "from": BRUNO, "fromName": "Bruno", "offline": false}));
    expected.as_object().unwrap().iter().for_each(|(name, value)| assert_eq!(&one[name], value, "{one}"));
    assert_eq!(one["id"], video);
    assert!(one["fromLid"].is_string() && one["chat"].as_str().unwrap().ends_with("@lid"), "{one}");
    assert!(one["timestamp"].is_string(), "{one}");

    // It rings, and the process dies before it is over.
    let rings = world.admin(Method::POST, &calls, call(false, None)).await["id"].clone();
    let path = format!("{calls}/{}/end", rings.as_str().unwrap());
    // What comes after it is there, so it was heard.
    told(acme, &world.write(BRUNO, ANA, "it rings").await).await;
    world.service.signal("-KILL");
    world.service.ended().await;
    world.admin(Method::POST, &path, json!({}).to_string()).await;
    // And another one comes while it is gone.
    let meanwhile = world.admin(Method::POST, &calls, call(true, Some("missed"))).await["id"].clone();
    world.service.restart().await;
    let acme = world.service.tenant("acme");
    let missed = acme.until_told("call.missed", |told| told.len() >= 3).await;
    // Two calls have no order.
    for id in [&rings, &meanwhile] {
        let one = missed.iter().find(|one| one["id"] == *id).expect("its event");
        assert_eq!((&one["offline"], &one["from"]), (&json!(true), &json!(BRUNO)), "{one}");
    }
    assert_eq!((missed.len(), &missed[0]["id"]), (3, &video));
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    world.write(BRUNO, ANA, "no call").await;
    acme.until_told("message.received", |told| told.iter().any(|one| one["text"] == "no call")).await;
    assert_eq!(acme.told("call.missed").await.len(), 3, "each once");
}

#[tokio::test]
async fn a_message_that_can_not_be_read_has_a_placeholder_and_then_its_event() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    told(acme, &world.write(BRUNO, ANA, "to know each other").await).await;
    world.fault(json!({"garbled": true, "phone": ANA, "times": 1})).await;
    let id = world.write(BRUNO, ANA, "hard to read").await;
    let one = told(acme, &id).await;
    assert_eq!((&one["kind"], &one["text"]), (&json!("text"), &json!("hard to read")), "{one}");
    let waiting = acme.told("message.placeholder").await;
    assert_eq!((waiting.len(), &waiting[0]["id"], &waiting[0]["from"]), (1, &id, &json!(BRUNO)), "{waiting:?}");
    assert_eq!(waiting[0]["chat"], one["chat"]);
    let says = waiting[0].as_object().unwrap();
    assert!(!says.contains_key("kind") && !says.contains_key("text"), "{waiting:?}");
    let types: Vec<_> = acme
        .events()
        .await
        .into_iter()
        .filter(|event| event["data"]["id"] == id)
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(types, ["message.placeholder", "message.received"], "in this order, and each once");
}

#[tokio::test]
async fn what_only_the_phone_was_given_is_told_when_the_phone_hands_it_over() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let id = say(&world, BRUNO, json!({"text": "for the phone", "unavailable": true})).await;
    let one = told(acme, &id).await;
    assert_eq!((&one["kind"], &one["text"], &one["from"]), (&json!("text"), &json!("for the phone"), &json!(BRUNO)));
    assert_eq!(acme.told("message.placeholder").await[0]["id"], id);
    // A phone that is off hands nothing over. That there is something is known all the same, also after a kill.
    world.fault(json!({"offlinePhone": true, "phone": ANA})).await;
    let id = say(&world, BRUNO, json!({"text": "for the phone that is off", "unavailable": true})).await;
    acme.until_told("message.placeholder", |told| told.iter().any(|one| one["id"] == id)).await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    told(acme, &world.write(BRUNO, ANA, "another one").await).await;
    let waiting = acme.told("message.placeholder").await;
    assert_eq!((waiting.len(), &waiting[1]["id"]), (2, &id), "{waiting:?}");
    assert!(acme.told("message.received").await.iter().all(|one| one["id"] != id));
}

/// A text in so many wrappers.
fn wrapped(times: usize) -> wa::Message {
    let text = wa::Message { conversation: Some("deep inside".into()), ..Default::default() };
    (0..times).fold(text, |message, _| wa::Message {
        ephemeral_message: MessageField::some(wa::message::FutureProofMessage { message: MessageField::some(message) }),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_message_in_any_number_of_wrappers_is_told() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    for (wrappers, kind, field) in [
        (1, "text", Value::Null),
        (8, "text", Value::Null),
        (12, "unsupported", json!("ephemeralMessage")),
        (45, "unsupported", json!("ephemeralMessage")),
        (60, "unsupported", json!("malformed")),
        (200, "unsupported", json!("malformed")),
    ] {
        let id = json!(bruno.client.send_message(Jid::pn(ANA), wrapped(wrappers)).await.unwrap().message_id);
        let one = told(acme, &id).await;
        assert_eq!(
            (&one["kind"], &one["type"], &one["from"]),
            (&json!(kind), &field, &json!(BRUNO)),
            "{wrappers}: {one}"
        );
    }
    bruno.send(&Phone::parse(ANA).unwrap(), "the last one").await;
    eventually("all goes on", || async {
        acme.told("message.received").await.iter().any(|one| one["text"] == "the last one").then_some(())
    })
    .await;
    bruno.stop().await;
}
