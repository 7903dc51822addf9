//! Sending: what "sent" means, and what is said when it is not.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ANA, BRUNO, World, answer, eventually};

#[tokio::test]
async fn a_message_arrives_decrypted_on_the_other_phone() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let sent = acme.send_ok("+55 (11) 88888-8888", "Olá, Bruno! 👋").await;
    assert_eq!(sent["to"], BRUNO);
    let shown = world.until_shown(BRUNO, "Olá, Bruno! 👋").await;
    assert_eq!(shown.len(), 1);
    assert_eq!((&shown[0]["id"], &shown[0]["from"], &shown[0]["fromMe"]), (&sent["id"], &json!(ANA), &json!(false)));
    // The account's own phone shows it too, as its own.
    let own = world.until_shown(ANA, "Olá, Bruno! 👋").await;
    assert_eq!((&own[0]["id"], &own[0]["fromMe"]), (&sent["id"], &json!(true)));
    eventually("the second tick", || async { (world.shown_on(ANA).await[0]["status"] == "delivered").then_some(()) })
        .await;
    acme.until("the count", |status| status["messagesSent"] == 1).await;
}

#[tokio::test]
async fn a_message_to_oneself_arrives() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(ANA, "note to self").await;
    world.until_shown(ANA, "note to self").await;
}

#[tokio::test]
async fn what_the_other_phone_writes_is_received() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": ANA, "text": "Hi Ana"}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/messages"), body).await;
    world.service.tenant("acme").until("a message received", |status| status["messagesReceived"] == 1).await;
}

#[tokio::test]
async fn two_tenants_talk_to_each_other() {
    let world = World::start().await;
    world.pair("ana", ANA).await;
    world.pair("bruno", BRUNO).await;
    for round in 0..3 {
        world.service.tenant("ana").send_ok(BRUNO, &format!("ping {round}")).await;
        world.service.tenant("bruno").send_ok(ANA, &format!("pong {round}")).await;
    }
    for tenant in ["ana", "bruno"] {
        world.service.tenant(tenant).until("three messages", |status| status["messagesReceived"] == 3).await;
    }
}

#[tokio::test]
async fn many_messages_at_once_all_arrive_once() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..40 {
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        running.spawn(answer(request.json(&json!({"to": BRUNO, "message": format!("number {n}")}))));
    }
    let mut ids = std::collections::HashSet::new();
    while let Some(done) = running.join_next().await {
        let (status, body) = done.unwrap();
        assert_eq!(status, 200, "{body}");
        assert!(ids.insert(body["id"].as_str().unwrap().to_owned()), "every message has an id of its own");
    }
    let shown = eventually("forty messages", || async {
        let shown = world.shown_on(BRUNO).await;
        (shown.len() >= 40).then_some(shown)
    })
    .await;
    let shown_ids: std::collections::HashSet<_> =
        shown.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((shown.len(), shown_ids), (40, ids));
}

#[tokio::test]
async fn a_refused_message_is_not_sent() {
    // An error acknowledgement is a rejection with its code, never "sent".
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    for (code, meaning) in [(463, "recipient_restricted"), (479, "message_rejected"), (400, "message_rejected")] {
        world.fault(json!({"nack": code})).await;
        let (status, body) = acme.send(BRUNO, "refused").await;
        assert_eq!((status.as_u16(), &body["code"]), (502, &json!(meaning)), "{body}");
        assert_eq!(body["whatsappCode"], code.to_string());
        assert!(body["id"].is_string());
        world.clear_faults().await;
    }
    assert_eq!(acme.status().await["messagesSent"], 0);
    acme.send_ok(BRUNO, "accepted").await;
    let shown = world.until_shown(BRUNO, "accepted").await;
    assert_eq!(shown.len(), 1);
    assert!(world.shown_on(BRUNO).await.iter().all(|message| message["text"] != "refused"));
}

#[tokio::test]
async fn a_message_without_an_acknowledgement_is_unknown_and_sent_again_under_its_id() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "2")]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let acme = world.service.tenant("acme");
    let (status, body) = acme.send(BRUNO, "lost ack").await;
    assert_eq!((status.as_u16(), &body["status"]), (202, &json!("unknown")), "{body}");
    assert_eq!(acme.status().await["messagesSent"], 0);
    assert_eq!(acme.status().await["pending"], 1);
    let (status, refused) =
        acme.call(Method::DELETE, &format!("/messages/{}", body["id"].as_str().unwrap()), None).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("not_cancellable")), "it may have arrived");
    eventually("a repetition", || async { (world.stats().await["repeatedIds"] != 0).then_some(()) }).await;
    world.clear_faults().await;
    let fate = acme.until_fate(&body["id"], "delivered").await;
    assert!(fate["unknownAt"].as_str() < fate["sentAt"].as_str(), "{fate}");
    let shown = world.until_shown(BRUNO, "lost ack").await;
    assert_eq!((shown.len(), &shown[0]["id"]), (1, &body["id"]), "its id is the one that was told");
    assert_eq!(acme.status().await["pending"], 0);
}

#[tokio::test]
async fn a_receipt_tells_as_much_as_an_acknowledgement() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "60")]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"dropAcks": true})).await;
    let acme = world.service.tenant("acme");
    let sent = acme.send_ok(BRUNO, "no ack, but a receipt").await;
    assert_eq!(sent["status"], "sent");
    acme.until_fate(&sent["id"], "delivered").await;
    assert_eq!(world.stats().await["repeatedIds"], 0);
}

#[tokio::test]
async fn late_and_duplicate_acknowledgements_change_nothing() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    world.fault(json!({"duplicateAcks": true})).await;
    acme.send_ok(BRUNO, "acknowledged twice").await;
    acme.send_ok(BRUNO, "and the next").await;
    acme.until("the count", |status| status["messagesSent"] == 2).await;
    world.clear_faults().await;
    world.fault(json!({"ackDelayMs": 1500})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let (status, late) = acme.send(BRUNO, "acknowledged late").await;
    assert_eq!((status.as_u16(), &late["status"]), (202, &json!("unknown")), "{late}");
    let fate = acme.until_fate(&late["id"], "sent").await;
    assert!(fate["unknownAt"].is_string(), "{fate}");
    world.clear_faults().await;
    acme.send_ok(BRUNO, "after the late one").await;
    for text in ["acknowledged twice", "and the next", "acknowledged late", "after the late one"] {
        assert_eq!(world.until_shown(BRUNO, text).await.len(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_message_whose_connection_is_cut_goes_on_with_the_next() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    for fault in ["dropAcks", "stallReads"] {
        world.fault(json!({fault: true})).await;
        world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let text = format!("cut off by {fault}");
        let sending = tokio::spawn(answer(request.json(&json!({"to": BRUNO, "message": text}))));
        if fault == "dropAcks" {
            world.until_shown(BRUNO, &text).await;
        }
        world.clear_faults().await;
        world.fault(json!({"closeAfterMs": 1, "times": 1})).await;
        let (status, body) = sending.await.unwrap();
        assert_eq!(status, 200, "its caller waits for the next connection: {body}");
        let shown = world.until_shown(BRUNO, &text).await;
        assert_eq!((shown.len(), &shown[0]["id"]), (1, &body["id"]));
    }
}

#[tokio::test]
async fn numbers_are_whatsapps_word() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (status, body) = acme.send("4915112345678", "nobody there").await;
    assert_eq!((status.as_u16(), &body["code"]), (422, &json!("recipient_not_on_whatsapp")));
    for (registered, written) in [
        ("5511977776666", "551177776666"), // Brazil: registered with the ninth digit, written without it
        ("552188885555", "5521988885555"), // and the reverse
        ("5215512345678", "525512345678"), // Mexico: with and without the 1
        ("525587654321", "5215587654321"), //
        ("5491123456789", "541123456789"), // Argentina: with and without the 9
        ("541198765432", "5491198765432"),
    ] {
        let account = json!({"phone": registered, "name": "Someone"}).to_string();
        world.admin(Method::POST, "/admin/accounts", account).await;
        for to in [registered, written, registered] {
            let sent = acme.send_ok(to, &format!("to {to}")).await;
            assert_eq!(sent["to"], registered, "the answer names the number that WhatsApp knows");
        }
        let shown = world.until_shown(registered, &format!("to {written}")).await;
        assert_eq!(shown.len(), 1);
    }
}

#[tokio::test]
async fn an_account_without_devices_is_sent_nothing() {
    // The server would acknowledge a message that is encrypted for nobody.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"noDevices": true, "phone": BRUNO})).await;
    let (status, body) = world.service.tenant("acme").send(BRUNO, "to no device").await;
    assert_eq!((status.as_u16(), &body["code"]), (422, &json!("recipient_not_on_whatsapp")), "{body}");
    assert!(world.shown_on(ANA).await.is_empty(), "not even the own phone got it");
    world.clear_faults().await;
    world.service.tenant("acme").send_ok(BRUNO, "to a device").await;
}

#[tokio::test]
async fn an_answer_of_the_look_up_is_remembered_also_that_there_is_nobody() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (status, _) = acme.send("4915112345678", "nobody yet").await;
    assert_eq!(status, 422);
    let account = json!({"phone": "4915112345678", "name": "Carla"}).to_string();
    world.admin(Method::POST, "/admin/accounts", account).await;
    // Asking about the same numbers again and again can get an account banned, so the answer stays for a while.
    assert_eq!(acme.send("4915112345678", "too soon").await.0, 422);
}

#[tokio::test]
async fn a_look_up_without_an_answer_is_no_answer() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"latencyMs": 3000})).await;
    let acme = world.service.tenant("acme");
    let (status, body) = acme.send(BRUNO, "no answer about the number").await;
    assert_eq!((status.as_u16(), &body["status"]), (202, &json!("queued")), "nothing has left: {body}");
    world.clear_faults().await;
    acme.until_fate(&body["id"], "delivered").await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_its_message() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"latencyMs": 100})).await;
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let request = request.json(&json!({"to": BRUNO, "message": "hung up"}));
    let gone = tokio::time::timeout(std::time::Duration::from_millis(150), request.send()).await;
    assert!(gone.is_err(), "the call was given up before its answer");
    world.until_shown(BRUNO, "hung up").await;
}
