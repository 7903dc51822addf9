//! Linking a phone: by QR code, by pairing code, and ending the link.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_simulator::Config;

use crate::harness::{ANA, BRUNO, World, answer, eventually, simulator_at};

#[tokio::test]
async fn fifty_calls_at_once_make_one_session() {
    let world = World::start().await;
    let mut codes = std::collections::HashSet::new();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let request = world.service.request(Method::POST, "/session").header("X-Tenant-Id", "acme");
        running.spawn(answer(request));
    }
    while let Some(done) = running.join_next().await {
        let (status, body) = done.unwrap();
        assert_eq!(status, 200, "{body}");
        codes.insert(body["qrCode"].as_str().expect("a QR code").to_owned());
    }
    assert_eq!(codes.len(), 1);
    let again = world.service.tenant("acme").open().await;
    assert!(codes.contains(again["qrCode"].as_str().expect("a QR code")), "asking once more changes nothing");
    assert_eq!(world.stats().await["dials"], 1, "one client, one connection");
}

#[tokio::test]
async fn the_qr_code_rotates_runs_out_and_can_be_asked_for_again() {
    // The library shows the first code for 60 seconds and each further one for 20: this test can't be faster.
    let config = Config { qr_refs: 2, qr_next: Duration::from_secs(60), ..Config::default() };
    let world = World::with(config, &[]).await;
    let acme = world.service.tenant("acme");
    let first = acme.open().await;
    assert_eq!(acme.open().await["qrCode"], first["qrCode"], "asking again changes nothing");
    let second = acme.until("the second code", |status| status["qrCode"] != first["qrCode"]).await;
    assert!(second["qrCode"].is_string(), "{second}");
    assert!(second["qrExpiresAt"].as_str() > first["qrExpiresAt"].as_str());
    let expired = acme.until_state("failed").await;
    assert_eq!((&expired["status"], &expired["reason"]), (&json!("failed"), &json!("qr_expired")));
    assert!(expired.get("qrCode").is_none());
    let fresh = acme.open().await;
    assert_eq!(fresh["state"], "pairing_qr");
    assert!(fresh["qrCode"].is_string() && fresh["qrCode"] != second["qrCode"]);
    world.pair("acme", ANA).await;
}

#[tokio::test]
async fn a_phone_links_by_code() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let (status, body) = acme.call(Method::POST, "/session", Some(json!({"phone": "+55 11 99999-9999"}))).await;
    assert_eq!((status.as_u16(), &body["state"]), (200, &json!("pairing_code")), "{body}");
    let code = body["pairingCode"].as_str().unwrap().to_owned();
    assert_eq!(code.len(), 8);
    assert!(body["pairingCodeExpiresAt"].is_string());
    let (_, again) = acme.call(Method::POST, "/session", Some(json!({"phone": ANA}))).await;
    assert_eq!(again["pairingCode"], code, "one code at a time");
    let (status, other) = acme.call(Method::POST, "/session", Some(json!({"phone": BRUNO}))).await;
    assert_eq!((status.as_u16(), &other["code"]), (409, &json!("pairing_code_outstanding")));
    let typed = json!({"phone": ANA, "code": code}).to_string();
    world.admin(Method::POST, "/admin/mock-phone/enter-code", typed).await;
    let ready = acme.until_state("ready").await;
    assert_eq!(ready["phone"], ANA);
    assert!(ready.get("pairingCode").is_none());
    world.service.tenant("acme").send_ok(BRUNO, "linked by code").await;
    world.until_shown(BRUNO, "linked by code").await;
}

#[tokio::test]
async fn a_session_that_shows_a_qr_code_can_still_be_linked_by_code() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    assert_eq!(acme.open().await["state"], "pairing_qr");
    let (_, body) = acme.call(Method::POST, "/session", Some(json!({"phone": ANA}))).await;
    assert!(body["pairingCode"].is_string(), "{body}");
    // The same phone, however it is written.
    for same in ["+55 (11) 99999-9999", "0055 11 99999-9999", "tel:+5511999999999", "5511999999999@c.us"] {
        let (_, again) = acme.call(Method::POST, "/session", Some(json!({"phone": same}))).await;
        assert_eq!(again["pairingCode"], body["pairingCode"], "{same}: {again}");
    }
    for (wrong, mention) in [
        ("123", "`phone` needs 8 to 15 digits, with the country code; it has 3"),
        ("011999999999", "`phone` needs the country code, without a 0 or 00 in front of it"),
        ("+55 (0)11 99999-9999", "`phone` needs the country code, without a 0 or 00 in front of it"),
        ("5511999999999 ext. 12", "`phone` has an extension"),
        ("713715344025739@lid", "`phone` needs a phone number"),
    ] {
        let (status, refused) = acme.call(Method::POST, "/session", Some(json!({"phone": wrong}))).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_phone")), "{wrong}");
        assert!(refused["message"].as_str().unwrap().starts_with(mention), "{refused}");
    }
}

#[tokio::test]
async fn a_pairing_code_dies_with_its_connection() {
    let World { simulator: first, service } = World::start().await;
    let by_code = |phone: &str| {
        let request = service.request(Method::POST, "/session").header("X-Tenant-Id", "acme");
        answer(request.json(&json!({"phone": phone})))
    };
    let (_, body) = by_code(ANA).await;
    let lost = body["pairingCode"].as_str().expect("a code").to_owned();
    let address = first.addr();
    first.shutdown().await;
    let acme = service.tenant("acme");
    let waiting = acme.until("the loss", |status| status["state"] == "connecting").await;
    assert!(waiting.get("pairingCode").is_none() && waiting.get("qrCode").is_none(), "{waiting}");
    let second = simulator_at(address, Config::default()).await;
    acme.until("a QR code on a new connection", |status| status["state"] == "pairing_qr").await;
    // It is not renewed by itself, and can be asked for again, for another phone too.
    let (status, body) = by_code(BRUNO).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["pairingCode"].is_string() && body["pairingCode"] != lost.as_str(), "{body}");
    second.shutdown().await;
}

#[tokio::test]
async fn the_qr_code_comes_as_a_picture_or_for_a_terminal() {
    let world = World::start().await;
    let get = async |accept: Option<&str>| {
        let mut request = world.service.request(Method::GET, "/session/qr").header("X-Tenant-Id", "acme");
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        let response = request.send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind, response.bytes().await.unwrap())
    };
    let (status, _, body) = get(None).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["code"]), (404, &json!("session_not_found")));
    world.service.tenant("acme").open().await;
    for accept in [None, Some("*/*"), Some("image/png")] {
        let (status, kind, body) = get(accept).await;
        assert_eq!((status, kind.as_str(), &body[..8]), (200, "image/png", &b"\x89PNG\r\n\x1a\n"[..]), "{accept:?}");
    }
    let (status, kind, body) = get(Some("image/svg+xml")).await;
    assert_eq!((status, kind.as_str()), (200, "image/svg+xml"));
    assert!(body.starts_with(b"<svg"));
    let (status, kind, body) = get(Some("text/plain")).await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    assert!(String::from_utf8_lossy(&body).contains('█'));
    assert_eq!(get(Some("application/json")).await.0, 406);
    world.pair("acme", ANA).await;
    let (status, _, body) = get(None).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["code"]), (404, &json!("no_qr_code")));
}

#[tokio::test]
async fn deleting_unlinks_the_device_and_leaves_nothing() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    assert_eq!(world.devices(ANA).await.len(), 1);
    let acme = world.service.tenant("acme");
    let (status, body) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), body), (200, json!({"status": "not_found", "unlinked": true})));
    assert_eq!(acme.status().await, json!({"status": "not_found"}));
    eventually("the phone lists no device", || async { world.devices(ANA).await.is_empty().then_some(()) }).await;
    let database = world.service.database();
    for table in ["stores", "state"] {
        let rows = database.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get::<_, i64>(0));
        assert_eq!(rows.unwrap(), 0, "{table}");
    }
    drop(database);
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 404);
    // The tenant can start again, with another phone too.
    world.pair("acme", BRUNO).await;
    assert_eq!(acme.status().await["phone"], BRUNO);
}

#[tokio::test]
async fn a_deletion_that_whatsapp_could_not_be_told_says_so() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"refuseConnections": true})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until_state("reconnecting").await;
    let (status, body) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &body["unlinked"]), (200, &json!(false)));
    assert!(body["message"].as_str().unwrap().contains("may still list this device"), "{body}");
    assert_eq!(acme.status().await, json!({"status": "not_found"}));
    assert_eq!(world.devices(ANA).await.len(), 1, "the phone does still list it");
}

#[tokio::test]
async fn a_deletion_without_a_client_does_not_claim_success() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 402, "expire": 3600}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until_state("banned").await;
    let (status, body) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &body["unlinked"]), (200, &json!(false)), "{body}");
    assert_eq!(world.devices(ANA).await.len(), 1);
}

#[tokio::test]
async fn deleting_twice_deletes_once() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    // The first deletion takes its time at the server; the others, and a new session between them, wait for it.
    world.fault(json!({"latencyMs": 300, "phone": ANA})).await;
    let call = |method: Method| answer(world.service.request(method, "/session").header("X-Tenant-Id", "acme"));
    let (first, second, fresh, third) =
        tokio::join!(call(Method::DELETE), call(Method::DELETE), call(Method::POST), call(Method::DELETE));
    let deleted = [&first, &second, &third].iter().filter(|(status, _)| *status == 200).count();
    assert!((1..=2).contains(&deleted), "{first:?} {second:?} {third:?}");
    assert_eq!(fresh.0, 200);
    world.clear_faults().await;
    // Whatever came last, the session works: its store is its own.
    world.pair("acme", BRUNO).await;
    assert_eq!(world.service.count("SELECT count(*) FROM stores"), 1);
    world.service.tenant("acme").send_ok(ANA, "on its own store").await;
}

#[tokio::test]
async fn a_session_can_be_deleted_while_it_waits_for_its_phone() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    acme.open().await;
    let (status, body) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &body["unlinked"]), (200, &json!(true)), "there was nothing to unlink");
    assert!(acme.open().await["qrCode"].is_string());
}

#[tokio::test]
async fn nobody_asked_for_a_passkey() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let (status, body) = acme.call(Method::POST, "/session/passkey", Some(json!({"confirm": true}))).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("session_not_found")));
    acme.open().await;
    let response = json!({"clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": "c2ln"});
    let assertion = json!({"id": "Y3JlZA", "rawId": "Y3JlZA", "type": "public-key", "response": response});
    for (body, status, code) in [
        (assertion, 409, "passkey_not_asked_for"),
        (json!({"confirm": true}), 409, "passkey_not_asked_for"),
        (json!({"confirm": "yes"}), 400, "invalid_body"),
        (json!({"type": "public-key"}), 400, "invalid_passkey_assertion"),
    ] {
        let (got, answer) = acme.call(Method::POST, "/session/passkey", Some(body)).await;
        assert_eq!((got.as_u16(), &answer["code"]), (status, &json!(code)), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_while_pairing_comes_back_with_another_code() {
    // The server closes an unpaired connection when its codes are over; here it does so at once.
    let config = Config { qr_first: Duration::from_secs(2), qr_refs: 1, ..Config::default() };
    let world = World::with(config, &[]).await;
    let first = world.service.tenant("acme").open().await;
    let next = world.service.tenant("acme");
    next.until("another code", |status| status["qrCode"].is_string() && status["qrCode"] != first["qrCode"]).await;
}
