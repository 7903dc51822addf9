//! Chats whose messages disappear after a time: what is sent carries the timer, wherever it was learnt.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_rust::prelude::{Jid, MessageField, wa};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Tenant, World, eventually},
    media::png,
};

const CARLA: &str = "5511977777777";
const DAY: u32 = 86_400;

async fn set_timer(world: &World, by: &str, with: &str, seconds: u32) -> Value {
    let timer = json!({"to": with, "disappearingTimer": {"seconds": seconds}}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{by}/messages"), timer).await["id"].clone()
}

/// What is told of a change of the timer.
async fn change(acme: Tenant<'_>, id: &Value) -> Value {
    let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == *id)).await;
    let one = told.into_iter().find(|one| one["id"] == *id).unwrap();
    assert_eq!(one["kind"], "disappearingTimer", "{one}");
    one
}

/// Sends, and returns how a phone shows it.
async fn shown(world: &World, acme: Tenant<'_>, to: &str, mut what: Value) -> Value {
    what["to"] = json!(to);
    let (status, sent) = acme.call(Method::POST, "/send", Some(what)).await;
    assert_eq!(status, 200, "{sent}");
    eventually("it arrives", || async { world.shown_on(to).await.into_iter().find(|one| one["id"] == sent["id"]) })
        .await
}

fn timer(shown: &Value) -> (Option<u64>, bool) {
    (shown["disappearsAfter"].as_u64(), shown["withoutTimer"] == true)
}

#[tokio::test]
async fn all_that_is_sent_carries_the_timer_of_its_chat_also_after_a_kill() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.admin(Method::POST, "/admin/accounts", json!({"phone": CARLA, "name": "Carla"}).to_string()).await;
    let acme = world.service.tenant("acme");
    let before = shown(&world, acme, BRUNO, json!({"message": "stays"})).await;
    assert_eq!(timer(&before), (None, false));
    let told = change(acme, &set_timer(&world, BRUNO, ANA, DAY).await).await;
    assert_eq!((&told["disappearingTimer"], &told["from"]), (&json!({"seconds": DAY}), &json!(BRUNO)), "{told}");
    let kinds = || {
        [
            json!({"message": "for a day"}),
            json!({"message": "an answer", "replyTo": before["id"]}),
            json!({"media": {"base64": BASE64_STANDARD.encode(png(4, 3))}, "message": "look"}),
            json!({"media": {"base64": BASE64_STANDARD.encode("a,b"), "filename": "a.csv"}}),
            json!({"location": {"latitude": 1, "longitude": 2}}),
            json!({"contact": {"name": "Carla", "phone": CARLA}}),
        ]
    };
    for what in kinds() {
        let arrived = shown(&world, acme, BRUNO, what.clone()).await;
        assert_eq!(timer(&arrived), (Some(DAY.into()), false), "{what}: {arrived}");
    }
    let other = shown(&world, acme, CARLA, json!({"message": "another chat"})).await;
    assert_eq!(timer(&other), (None, false));
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    for what in kinds() {
        assert_eq!(timer(&shown(&world, acme, BRUNO, what.clone()).await), (Some(DAY.into()), false), "{what}");
    }
    // The account's owner changes it on the phone, and ends it.
    for seconds in [604_800, 0] {
        let told = change(acme, &set_timer(&world, ANA, BRUNO, seconds).await).await;
        assert_eq!((&told["disappearingTimer"]["seconds"], &told["fromMe"]), (&json!(seconds), &json!(true)), "{told}");
        let arrived = shown(&world, acme, BRUNO, json!({"message": format!("now {seconds}")})).await;
        assert_eq!(timer(&arrived), (Some(seconds.into()).filter(|seconds| *seconds != 0), false), "{arrived}");
    }
}

#[tokio::test]
async fn a_timer_is_learnt_from_what_somebody_writes_in_the_chat() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let write = async |expiration: Option<u32>, set_at: Option<i64>| {
        let message = wa::message::ExtendedTextMessage {
            text: Some("hello".into()),
            context_info: MessageField::some(wa::ContextInfo {
                expiration,
                ephemeral_setting_timestamp: set_at,
                ..Default::default()
            }),
            ..Default::default()
        };
        let message = wa::Message { extended_text_message: MessageField::some(message), ..Default::default() };
        let id = json!(bruno.client.send_message(Jid::pn(ANA), message).await.unwrap().message_id);
        acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let sends = async || shown(&world, acme, BRUNO, json!({"message": "hello"})).await["disappearsAfter"].clone();
    // By clients that say since when, and by those that don't. What is older changes nothing.
    for (expiration, set_at, expected) in [
        (Some(DAY), None, json!(DAY)),
        (None, None, json!(DAY)),
        (Some(604_800), Some(now - 100), json!(604_800)),
        (Some(DAY), Some(now - 200), json!(604_800)),
        (Some(DAY), None, json!(604_800)),
        (Some(0), Some(now - 50), Value::Null),
    ] {
        write(expiration, set_at).await;
        assert_eq!(sends().await, expected, "{expiration:?} since {set_at:?}");
    }
    bruno.stop().await;
}
