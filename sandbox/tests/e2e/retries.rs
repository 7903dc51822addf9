//! Devices that can't read a message ask for it again, and get it: whenever the service is killed, and for as long as it
//! may take.

use serde_json::{Value, json};
use whatsapp_rust::{NodeBuilder, prelude::Jid};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, World, eventually},
};

/// Sends a message to Bruno, whose phone is off, and has it asked for again as soon as the phone is on. What the service
/// then answers is lost, until the faults are cleared. Returns when one answer was.
async fn unreadable(world: &World, text: &str) -> Value {
    let acme = world.service.tenant("acme");
    world.fault(json!({"offlinePhone": true, "phone": BRUNO})).await;
    let sent = acme.send_ok(BRUNO, text).await["id"].clone();
    let messages = world.count(ANA, "messages").await;
    world.fault(json!({"dropMessages": true, "phone": ANA})).await;
    world.fault(json!({"unreadable": true, "times": 1})).await;
    world.admin(reqwest::Method::DELETE, &format!("/admin/faults?phone={BRUNO}"), "").await;
    eventually("an answer", || async { (world.count(ANA, "messages").await > messages).then_some(()) }).await;
    sent
}

#[tokio::test]
async fn a_retry_receipt_is_answered_by_the_next_process() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "to know the way").await;
    let sent = unreadable(&world, "once more, please").await;
    let noted = "SELECT count(*) FROM state WHERE kind = 22";
    assert_eq!(world.service.count(noted), 1, "the receipt is on the disk");
    world.service.kill_and_restart().await;
    world.clear_faults().await;
    world.service.tenant("acme").until_state("ready").await;
    let shown = world.until_shown(BRUNO, "once more, please").await;
    assert_eq!((shown.len(), &shown[0]["id"]), (1, &sent));
    world.service.tenant("acme").until_fate(&sent, "delivered").await;
    assert_eq!(world.count(BRUNO, "retryReceipts").await, 1);
    assert_eq!(world.stats().await["reusedCounters"], 0);
    // The keys of the receipt were used once: what follows can be read.
    world.service.tenant("acme").deliver(BRUNO, "and on").await;
    assert_eq!(world.count(BRUNO, "retryReceipts").await, 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_given_again_on_the_same_connection() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "2")]).await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "to know the way").await;
    let logins = world.count(ANA, "logins").await;
    let sent = unreadable(&world, "once more, please").await;
    world.clear_faults().await;
    world.until_shown(BRUNO, "once more, please").await;
    world.service.tenant("acme").until_fate(&sent, "delivered").await;
    assert_eq!(world.count(ANA, "logins").await, logins);
}

#[tokio::test]
async fn kills_between_receipts_and_answers_lose_nothing() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "to know the way").await;
    let (rounds, each) = (6, 10);
    for round in 0..rounds {
        let acme = world.service.tenant("acme");
        acme.until_state("ready").await;
        world.fault(json!({"unreadable": true, "times": each, "phone": BRUNO})).await;
        let before = world.count(BRUNO, "retryReceipts").await;
        let messages: Vec<_> = (0..each).map(|n| json!({"to": BRUNO, "message": format!("{round}.{n}")})).collect();
        let accepted = acme.call(reqwest::Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
        assert_eq!(accepted.0.as_u16(), 202, "{}", accepted.1);
        let asked = || async { (world.count(BRUNO, "retryReceipts").await > before + round).then_some(()) };
        eventually("a retry receipt", asked).await;
        world.service.kill_and_restart().await;
    }
    world.clear_faults().await;
    for round in 0..rounds {
        for n in 0..each {
            let shown = world.until_shown(BRUNO, &format!("{round}.{n}")).await;
            assert_eq!(shown.len(), 1, "{round}.{n}");
        }
    }
    assert_eq!(world.stats().await["reusedCounters"], 0);
}

#[tokio::test]
async fn a_receipt_that_comes_again_is_not_answered_again() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "to know the way").await;
    world.fault(json!({"forgetConfirmations": true, "phone": ANA})).await;
    world.fault(json!({"unreadable": true, "times": 1, "phone": BRUNO})).await;
    let sent = world.service.tenant("acme").deliver(BRUNO, "once more, please").await;
    eventually("no open receipt", || async {
        let [open, done] = [22, 23].map(|kind| format!("SELECT count(*) FROM state WHERE kind = {kind}"));
        (world.service.count(&open) == 0 && world.service.count(&done) == 1).then_some(())
    })
    .await;
    let messages = world.count(ANA, "messages").await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    // What was said before comes again first.
    world.write(BRUNO, ANA, "after all of it").await;
    acme.until_told("message.received", |told| !told.is_empty()).await;
    acme.deliver(BRUNO, "a new one").await;
    assert_eq!(world.count(ANA, "messages").await, messages + 1);
    assert_eq!(world.count(BRUNO, "repeatedIds").await, 0);
    acme.until_fate(&sent["id"], "delivered").await;
}

#[tokio::test]
async fn what_can_not_be_sent_again_is_told() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    acme.deliver(BRUNO, "to know the way").await;
    world.fault(json!({"offlinePhone": true, "phone": BRUNO})).await;
    // Nobody hears that Bruno's client has them.
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let mut sent = Vec::new();
    for text in ["asked for too often", "no longer kept", "still kept"] {
        sent.push(acme.send_ok(BRUNO, text).await["id"].as_str().unwrap().to_owned());
        bruno.text(text).await;
    }
    world.admin(reqwest::Method::DELETE, &format!("/admin/faults?phone={ANA}"), "").await;
    let forget = format!("DELETE FROM state WHERE kind = 18 AND instr(name, '{}') > 0", sent[1]);
    assert_eq!(world.service.database().execute(&forget, ()).unwrap(), 1);
    let ask = async |id: &str, count: u8| {
        let retry = NodeBuilder::new("retry").attr("v", "1").attr("id", id).attr("count", count).attr("t", 1).build();
        let registration = NodeBuilder::new("registration").bytes([0, 0, 0, 7]).build();
        let receipt = NodeBuilder::new("receipt").attr("id", id).attr("type", "retry");
        let receipt = receipt.attr("to", Jid::pn(ANA).with_device(1)).children([retry, registration]).build();
        bruno.client.send_node(receipt).await.unwrap();
    };
    ask(&sent[0], 5).await;
    ask(&sent[1], 1).await;
    ask(&sent[2], 1).await;
    for id in &sent[..2] {
        let path = format!("/messages/{id}");
        let told = eventually("what came of it", || async {
            Some(acme.get(&path).await).filter(|fate| fate["code"] == "recipient_could_not_decrypt")
        })
        .await;
        assert_eq!((&told["status"], &told["retryable"]), (&json!("sent"), &json!(true)), "{told}");
        let event = acme.told("message.status").await.into_iter().rfind(|event| event["id"] == **id).unwrap();
        assert_eq!((&event["status"], &event["code"]), (&told["status"], &told["code"]));
    }
    assert_eq!(acme.get(&format!("/messages/{}", sent[2])).await.get("code"), None);
    // A device that has it after all.
    world.clear_faults().await;
    let fate = acme.until_fate(&json!(sent[0]), "delivered").await;
    assert_eq!(fate.get("code"), None, "{fate}");
    bruno.stop().await;
}

#[tokio::test]
async fn an_own_device_gets_its_copy_again_in_the_right_chat() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.deliver(BRUNO, "to know the way").await;
    world.fault(json!({"unreadable": true, "times": 1, "phone": ANA})).await;
    acme.deliver(BRUNO, "for Bruno").await;
    let own = world.until_shown(ANA, "for Bruno").await;
    assert_eq!((own.len(), &own[0]["to"], &own[0]["fromMe"]), (1, &json!(BRUNO), &json!(true)), "{own:?}");
    assert_eq!(world.until_shown(BRUNO, "for Bruno").await.len(), 1);
    // Bruno gets it again as it was.
    world.fault(json!({"unreadable": true, "times": 1, "phone": BRUNO})).await;
    acme.deliver(BRUNO, "and this").await;
    world.until_shown(BRUNO, "and this").await;
}
