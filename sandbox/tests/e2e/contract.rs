//! The wire contract: who may call, what is there, and what every wrong request is told.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{ANA, BRUNO, SECRET, Service, World, answer};

#[tokio::test]
async fn nobody_learns_anything_without_the_secret() {
    let world = World::start().await;
    let http = crate::harness::http();
    for path in ["/health", "/status", "/session", "/send", "/sessions", "/nothing/here", "/"] {
        for secret in [None, Some(""), Some("wrong"), Some(&SECRET[1..]), Some("e2e-internal-secret ,")] {
            for method in [Method::GET, Method::POST, Method::PUT] {
                let mut request = http.request(method, format!("{}{path}", world.service.url));
                if let Some(secret) = secret {
                    request = request.header("X-Internal-Secret", secret);
                }
                let (status, refused) = answer(request).await;
                assert_eq!((status, &refused["error"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn two_secrets_are_valid_while_one_takes_the_others_place() {
    let simulator = crate::harness::simulator(Default::default()).await;
    let service = Service::start(&simulator.ws_url(), &[("INTERNAL_SECRET", "old-one, new-one")]).await;
    for (secret, status) in [("old-one", 200), ("new-one", 200), ("old-one, new-one", 401), ("other", 401)] {
        let request = crate::harness::http().get(format!("{}/health", service.url));
        assert_eq!(answer(request.header("X-Internal-Secret", secret)).await.0, status, "{secret}");
    }
}

#[tokio::test]
async fn paths_and_methods() {
    let world = World::start().await;
    let call = async |method: Method, path: &str| {
        answer(world.service.request(method, path).header("X-Tenant-Id", "acme")).await
    };
    assert_eq!(call(Method::GET, "/nope").await, (StatusCode::NOT_FOUND, json!({"error": "Not found"})));
    assert_eq!(call(Method::GET, "/session/").await.0, 404);
    for (method, path, allowed) in [
        (Method::GET, "/send", "POST"),
        (Method::PUT, "/session", "POST,DELETE"),
        (Method::POST, "/status", "GET,HEAD"),
        (Method::DELETE, "/health", "GET,HEAD"),
    ] {
        let response = world.service.request(method, path).header("X-Tenant-Id", "acme").send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        assert_eq!(response.headers()["allow"], allowed, "{path}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn health_needs_no_tenant_and_counts_what_is_ready() {
    let world = World::start().await;
    let health = async || answer(world.service.request(Method::GET, "/health")).await;
    assert_eq!(health().await, (StatusCode::OK, json!({"status": "ok", "sessions": 0})));
    world.service.tenant("waiting").open().await;
    assert_eq!(health().await.1["sessions"], 0, "a session that waits for its phone is not ready");
    world.pair("acme", ANA).await;
    assert_eq!(health().await, (StatusCode::OK, json!({"status": "ok", "sessions": 1})));
}

#[tokio::test]
async fn every_other_path_needs_a_tenant() {
    let world = World::start().await;
    for (method, path) in [
        (Method::GET, "/status"),
        (Method::POST, "/session"),
        (Method::DELETE, "/session"),
        (Method::GET, "/session/qr"),
        (Method::POST, "/session/passkey"),
        (Method::POST, "/send"),
    ] {
        let expected = (StatusCode::BAD_REQUEST, json!({"error": "Tenant ID required"}));
        assert_eq!(answer(world.service.request(method.clone(), path)).await, expected, "{path}");
        let empty = world.service.request(method, path).header("X-Tenant-Id", "");
        assert_eq!(answer(empty).await, expected, "{path}");
    }
}

#[tokio::test]
async fn the_four_bodies_of_status() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    assert_eq!(acme.status().await, json!({"status": "not_found"}));

    let waiting = acme.open().await;
    assert_eq!((&waiting["status"], &waiting["state"]), (&json!("initializing"), &json!("pairing_qr")));
    assert!(waiting["qrCode"].as_str().unwrap().split(',').count() >= 4, "{waiting}");
    assert!(waiting.get("connectedAt").is_none() && waiting["canSend"] == false);
    assert_eq!(acme.status().await["qrCode"], waiting["qrCode"]);

    world.pair("acme", ANA).await;
    // The name comes with the account's settings, which a session need not wait for.
    let ready = acme.until("the name", |status| status["pushName"].is_string()).await;
    assert_eq!((&ready["status"], &ready["canSend"]), (&json!("ready"), &json!(true)));
    assert_eq!((&ready["phone"], &ready["pushName"]), (&json!(ANA), &json!("Ana")));
    assert!(ready.get("qrCode").is_none(), "no QR code once linked");
    for field in ["connectedAt", "since"] {
        assert!(is_rfc3339_with_milliseconds(ready[field].as_str().unwrap()), "{field}: {ready}");
    }

    world.fault(json!({"loginFailure": {"reason": 403}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let failed = acme.until_state("locked").await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("account_locked")));
    assert!(failed.get("connectedAt").is_none() && failed["canSend"] == false);
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let long = "x".repeat(65_537);
    for (body, code, mention) in [
        (json!({"message": "hi"}), "invalid_body", "`to`"),
        (json!({"to": ANA}), "invalid_content", "`message`"),
        (json!({"to": 5511999999999u64, "message": "hi"}), "invalid_body", "to: "),
        (json!({"to": ANA, "message": null}), "invalid_content", "`message`"),
        (json!({"to": ANA, "message": 1}), "invalid_body", "message: "),
        (json!({"to": "1234567", "message": "hi"}), "invalid_recipient", "8 to 15 digits"),
        (json!({"to": "1234567890123456", "message": "hi"}), "invalid_recipient", "8 to 15 digits"),
        (json!({"to": "nobody", "message": "hi"}), "invalid_recipient", "8 to 15 digits"),
        (json!({"to": ANA, "message": ""}), "invalid_message", "1 to 65536"),
        (json!({"to": ANA, "message": long}), "invalid_message", "1 to 65536"),
        (json!([ANA, "hi", 1]), "invalid_body", ""),
        (json!("text"), "invalid_body", ""),
    ] {
        let (status, answer) = world.service.tenant("acme").call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(code)), "{answer}");
        assert_eq!(answer["error"], "Bad request");
        assert!(answer["message"].as_str().unwrap().contains(mention), "{answer} should mention {mention}");
    }
    world.service.tenant("acme").send_ok(BRUNO, "a good one").await;
    assert_eq!(world.until_shown(ANA, "a good one").await.len(), 1);
    assert_eq!(world.shown_on(ANA).await.len(), 1, "none of the others went anywhere");
}

#[tokio::test]
async fn a_message_may_be_as_long_as_whatsapp_takes_it() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    // Characters, not bytes: each of these has four.
    let longest = "\u{1f600}".repeat(65_536);
    world.service.tenant("acme").send_ok(BRUNO, &longest).await;
    world.until_shown(BRUNO, &longest).await;
}

#[tokio::test]
async fn a_body_needs_no_content_type() {
    let world = World::start().await;
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let (status, body) = answer(request.body(r#"{"to":"5511888888888","message":"hi"}"#)).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("session_not_found")), "the body was understood");
}

#[tokio::test]
async fn no_session_and_not_ready_are_told_apart() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let (status, absent) = acme.send(ANA, "hi").await;
    assert_eq!((status.as_u16(), &absent["code"]), (409, &json!("session_not_found")));
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 404);
    acme.open().await;
    let (status, waiting) = acme.send(ANA, "hi").await;
    assert_eq!((status.as_u16(), &waiting["code"]), (409, &json!("session_not_ready")));
    assert_eq!((&waiting["error"], &waiting["state"]), (&json!("Session not ready"), &json!("pairing_qr")));
}

#[tokio::test]
async fn sessions_are_listed_a_page_at_a_time() {
    let world = World::start().await;
    for tenant in ["delta", "alpha", "Charlie", "bravo"] {
        world.service.tenant(tenant).open().await;
    }
    let list = async |query: &str| answer(world.service.request(Method::GET, &format!("/sessions{query}"))).await.1;
    let ids = |page: &Value| -> Vec<String> {
        let sessions = page["sessions"].as_array().unwrap().iter();
        sessions.map(|session| session["tenantId"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("").await;
    assert_eq!(ids(&all), ["Charlie", "alpha", "bravo", "delta"]);
    assert!(all.get("nextCursor").is_none());
    assert_eq!(all["sessions"][0]["state"], "pairing_qr");
    let first = list("?limit=3").await;
    assert_eq!((ids(&first).len(), &first["nextCursor"]), (3, &json!("bravo")));
    let second = list("?limit=3&cursor=bravo").await;
    assert_eq!(ids(&second), ["delta"]);
    assert!(second.get("nextCursor").is_none());
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=a/b"] {
        assert_eq!(list(query).await["code"], "invalid_query", "{query}");
    }
}

fn is_rfc3339_with_milliseconds(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}
