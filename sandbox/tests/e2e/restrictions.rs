//! What WhatsApp does not let an account do: told apart, and shown.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ANA, BRUNO, World};

const CARLA: &str = "5511977777777";

async fn world() -> World {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.admin(Method::POST, "/admin/accounts", json!({"phone": CARLA, "name": "Carla"}).to_string()).await;
    world
}

#[tokio::test]
async fn a_recipient_who_takes_nothing_is_not_a_restricted_account() {
    let world = world().await;
    let acme = world.service.tenant("acme");
    world.fault(json!({"refuseStrangers": true, "phone": BRUNO})).await;
    let (status, refused) = acme.send(BRUNO, "to a stranger").await;
    assert_eq!((status.as_u16(), &refused["code"]), (502, &json!("recipient_restricted")), "{refused}");
    assert_eq!((&refused["whatsappCode"], &refused["retryable"]), (&json!("463"), &json!(false)), "{refused}");
    assert_eq!(acme.status().await["reachoutTimelock"]["active"], false);
    acme.send_ok(CARLA, "to somebody else").await;
    // Who has written is no stranger.
    world.write(BRUNO, ANA, "Hello").await;
    acme.send_ok(BRUNO, "an answer").await;
    let fate = acme.get(&format!("/messages/{}", refused["id"].as_str().unwrap())).await;
    assert_eq!((&fate["status"], &fate["code"]), (&json!("failed"), &json!("recipient_restricted")), "{fate}");
}

#[tokio::test]
async fn a_restricted_account_goes_on_in_chats_that_are_established() {
    let world = world().await;
    let acme = world.service.tenant("acme");
    world.write(BRUNO, ANA, "Hello").await;
    acme.until("a message", |status| status["messagesReceived"] == 1).await;
    world.fault(json!({"reachoutTimelock": {"until": 1_893_456_000, "type": "BIZ_QUALITY"}, "phone": ANA})).await;
    // WhatsApp says so by itself.
    let status = acme.until("the restriction", |status| status["reachoutTimelock"]["active"] == true).await;
    let expected = ("2030-01-01T00:00:00.000Z", "BIZ_QUALITY");
    let timelock = &status["reachoutTimelock"];
    assert_eq!((&timelock["until"], &timelock["type"]), (&json!(expected.0), &json!(expected.1)), "{timelock}");
    for _ in 0..3 {
        let (status, refused) = acme.send(CARLA, "to a stranger").await;
        assert_eq!((status.as_u16(), &refused["code"]), (502, &json!("account_restricted")), "{refused}");
        assert_eq!((&refused["whatsappCode"], &refused["retryable"]), (&json!("463"), &json!(false)), "{refused}");
        acme.send_ok(BRUNO, "an answer").await;
    }
    // It is over.
    world.clear_faults().await;
    acme.send_ok(CARLA, "no stranger any more").await;
}

#[tokio::test]
async fn the_quota_of_new_chats_is_shown_as_whatsapp_says_it() {
    let world = world().await;
    let acme = world.service.tenant("acme");
    // Asked for when the session got ready.
    let unlimited = acme.until("the quota", |status| status["newChatQuota"].is_object()).await["newChatQuota"].clone();
    assert_eq!((&unlimited["status"], unlimited.get("total")), (&json!("NONE"), None), "{unlimited}");
    assert!(unlimited["checkedAt"].is_string());
    let warned = json!({"total": 30, "used": 25, "cycleStart": 1_893_369_600, "cycleEnd": 1_893_456_000,
                        "status": "FIRST_WARNING"});
    world.fault(json!({"newChatQuota": warned, "phone": ANA})).await;
    let known = acme.until("the warning", |status| status["newChatQuota"]["used"] == 25).await["newChatQuota"].clone();
    let mut said = known.clone();
    said.as_object_mut().unwrap().remove("checkedAt");
    let expected = json!({"total": 30, "used": 25, "status": "FIRST_WARNING", "cycleStart": "2029-12-31T00:00:00.000Z",
                          "cycleEnd": "2030-01-01T00:00:00.000Z"});
    assert_eq!(said, expected);
    acme.send_ok(CARLA, "there is room").await;
    world.fault(json!({"newChatQuota": {"total": 30, "used": 30}, "phone": ANA})).await;
    let (status, refused) = acme.send(BRUNO, "one too many").await;
    assert_eq!((status.as_u16(), &refused["whatsappCode"]), (502, &json!("475")), "{refused}");
    assert_eq!(refused["code"], "message_rejected", "{refused}");
    let capped = acme.until("the cap", |status| status["newChatQuota"]["status"] == "CAPPED").await;
    assert_eq!((&capped["newChatQuota"]["total"], &capped["newChatQuota"]["used"]), (&json!(30), &json!(30)));
    world.write(BRUNO, ANA, "Hello").await;
    acme.send_ok(BRUNO, "an answer costs nothing").await;
}
