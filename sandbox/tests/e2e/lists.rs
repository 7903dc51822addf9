//! `GET /messages` and `GET /sessions`: what can be asked for.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{ANA, BRUNO, World, answer},
    media::{OPUS, noise, png},
};
use base64::{Engine, prelude::BASE64_STANDARD};

#[tokio::test]
async fn messages_are_found_by_kind_recipient_reference_and_time() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let carla = "5511777777777";
    let account = json!({"phone": carla, "name": "Carla"}).to_string();
    world.admin(Method::POST, "/admin/accounts", account).await;
    let mut sent = Vec::new();
    for (kind, to, content) in [
        ("text", BRUNO, json!({"message": "one", "reference": "order-1"})),
        ("image", BRUNO, json!({"media": {"base64": base64(&png(9, 9))}, "reference": "order-2"})),
        ("voice", BRUNO, json!({"media": {"base64": base64(&[OPUS, &noise(900)].concat())}, "voice": true})),
        ("document", carla, json!({"media": {"base64": base64(b"a,b\n")}, "reference": "order-1"})),
        ("location", carla, json!({"location": {"latitude": 1, "longitude": 2}})),
        ("contact", carla, json!({"contact": {"name": "Ana", "phone": ANA}})),
    ] {
        let mut body = json!({"to": to});
        body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        let (status, answer) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        sent.push((kind, acme.until_fate(&answer["id"], "delivered").await));
    }
    for (kind, fate) in &sent {
        assert_eq!(fate["kind"], *kind, "{fate}");
        let told = acme.until_told("message.status", |told| told.iter().any(|one| one["id"] == fate["id"])).await;
        assert!(told.iter().all(|told| told["kind"].is_string()), "{told:?}");
    }
    let kinds = async |query: &str| -> Vec<String> {
        let page = acme.get(&format!("/messages?{query}")).await;
        let messages = page["messages"].as_array().unwrap().iter();
        messages.rev().map(|message| message["kind"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("kind=image", &["image"][..]),
        ("kind=text", &["text"]),
        ("kind=reaction", &[]),
        ("reference=order-1", &["text", "document"]),
        ("reference=order-", &[]),
        (&format!("to={BRUNO}"), &["text", "image", "voice"]),
        ("to=%2B55+%2811%29+88888-8888", &["text", "image", "voice"]),
        (&format!("to={carla}@s.whatsapp.net"), &["document", "location", "contact"]),
        ("to=713715344025739@lid", &["text", "image", "voice"]),
        ("to=713715344025730@lid", &[]),
        (&format!("to={carla}&reference=order-1"), &["document"]),
        (&format!("to={carla}&kind=location&status=delivered"), &["location"]),
        (&format!("to={carla}&kind=location&status=failed"), &[]),
    ] {
        assert_eq!(kinds(query).await, expected, "{query}");
    }
    let third = sent[2].1["acceptedAt"].as_str().unwrap();
    assert_eq!(kinds(&format!("until={third}")).await, ["text", "image"]);
    assert_eq!(kinds(&format!("since={third}")).await, ["voice", "document", "location", "contact"]);
    assert_eq!(kinds(&format!("since={third}&until={third}")).await, [""; 0]);
    // A page at a time, with the same filter.
    let first = acme.get(&format!("/messages?to={BRUNO}&limit=2")).await;
    let second =
        acme.get(&format!("/messages?to={BRUNO}&limit=2&cursor={}", first["nextCursor"].as_str().unwrap())).await;
    assert_eq!((first["messages"].as_array().unwrap().len(), &second["messages"][0]["kind"]), (2, &json!("text")));
    for query in ["kind=picture", "to=12", "to=x@lid", "to=@lid", "until=yesterday"] {
        let (status, refused) = acme.call(Method::GET, &format!("/messages?{query}"), None).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_query")), "{query}: {refused}");
    }
}

#[tokio::test]
async fn sessions_show_their_phone_and_are_found_by_state() {
    let world = World::start().await;
    for tenant in ["a-waits", "c-waits"] {
        world.service.tenant(tenant).open().await;
    }
    world.pair("b-ready", ANA).await;
    world.pair("d-ready", BRUNO).await;
    let list = async |query: &str| answer(world.service.request(Method::GET, &format!("/sessions?{query}"))).await.1;
    let shown = |page: &Value| -> Vec<(String, Option<String>)> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let sessions = page["sessions"].as_array().unwrap().iter();
        sessions.map(|session| (text(&session["tenantId"]).unwrap(), text(&session["phone"]))).collect()
    };
    let ready = list("state=ready").await;
    assert_eq!(shown(&ready), [("b-ready".into(), Some(ANA.into())), ("d-ready".into(), Some(BRUNO.into()))]);
    assert_eq!(shown(&list("state=pairing_qr").await), [("a-waits".into(), None), ("c-waits".into(), None)]);
    assert_eq!(shown(&list("state=banned").await), []);
    let first = list("state=ready&limit=1").await;
    assert_eq!((shown(&first).len(), &first["nextCursor"]), (1, &json!("b-ready")));
    let second = list("state=ready&limit=1&cursor=b-ready").await;
    assert_eq!((shown(&second)[0].0.as_str(), &second["nextCursor"]), ("d-ready", &Value::Null));
    let refused = list("state=sleeping").await;
    assert_eq!(refused["code"], "invalid_query");
    assert!(refused["message"].as_str().unwrap().contains("pairing_qr"), "{refused}");
}
