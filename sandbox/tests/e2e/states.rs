//! States that are true: what the server does to a session, and what the session says then.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ANA, BRUNO, World, eventually};

#[tokio::test]
async fn a_lost_connection_is_told_and_comes_back() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let connected = acme.status().await["connectedAt"].clone();
    world.fault(json!({"refuseConnections": true})).await;
    world.fault(json!({"closeAfterMs": 1})).await;
    let lost = acme.until_state("reconnecting").await;
    assert_eq!((&lost["status"], &lost["canSend"]), (&json!("initializing"), &json!(false)));
    assert!(lost.get("connectedAt").is_none());
    let (status, body) = acme.call(Method::POST, "/send?wait=0", Some(json!({"to": BRUNO, "message": "later"}))).await;
    assert_eq!((status.as_u16(), &body["status"]), (202, &json!("queued")), "{body}");
    world.clear_faults().await;
    let back = acme.until_state("ready").await;
    assert!(back["connectedAt"].as_str() > connected.as_str());
    acme.send_ok(BRUNO, "back again").await;
    world.until_shown(BRUNO, "back again").await;
    assert_eq!(world.shown_on(BRUNO).await[0]["text"], "later", "what was accepted first arrives first");
}

#[tokio::test]
async fn a_session_that_the_server_logged_out_of_the_stream_is_recycled() {
    // Stream errors 429 and 503 leave the socket open, and the library waits for its end without saying a word.
    for code in ["503", "429"] {
        let world = World::start().await;
        world.pair("acme", ANA).await;
        world.fault(json!({"streamError": code, "times": 1})).await;
        let acme = world.service.tenant("acme");
        let lost = acme.until_state("reconnecting").await;
        assert_eq!(lost["canSend"], false);
        let later = json!({"to": BRUNO, "message": "later"});
        assert_eq!(acme.call(Method::POST, "/send?wait=0", Some(later)).await.0, 202);
        let lost = std::time::Instant::now();
        acme.until_state("ready").await;
        // By itself the library gives such a connection up too, but only after more than a minute.
        assert!(lost.elapsed() < std::time::Duration::from_secs(45), "after {:?}", lost.elapsed());
        acme.send_ok(BRUNO, &format!("after {code}")).await;
        world.until_shown(BRUNO, &format!("after {code}")).await;
    }
}

#[tokio::test]
async fn a_restart_that_the_server_asks_for_is_seen() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let before = acme.status().await["connectedAt"].clone();
    world.fault(json!({"streamError": "515", "times": 1})).await;
    acme.until("a new connection", |status| status["state"] == "ready" && status["connectedAt"] != before).await;
    assert_eq!(world.stats().await["logins"], 2);
}

#[tokio::test]
async fn a_replaced_session_stops_once_and_stays_stopped() {
    // One careful retry, one stop, no ping-pong.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let before = world.stats().await["dials"].as_u64().unwrap();
    world.fault(json!({"streamConflict": "replaced", "times": 2})).await;
    let acme = world.service.tenant("acme");
    let replaced = acme.until_state("replaced").await;
    assert_eq!(world.stats().await["dials"], before + 1, "once, and not more often");
    assert_eq!((&replaced["status"], &replaced["reason"]), (&json!("failed"), &json!("replaced")));
    eventually("no connection", || async { (world.stats().await["connections"] == 0).then_some(()) }).await;
    let dials = world.stats().await["dials"].clone();
    let (status, refused) = acme.send(BRUNO, "no").await;
    assert_eq!((status.as_u16(), &refused["state"]), (409, &json!("replaced")));
    // A client that fights back dials within a second or so; another session's pairing takes longer than that.
    world.pair("other", BRUNO).await;
    let others = 2;
    assert_eq!(world.stats().await["dials"], dials.as_u64().unwrap() + others, "only the other session dialled");
    // A person takes it back, with the same credentials.
    acme.open().await;
    acme.until_state("ready").await;
    assert_eq!(world.devices(ANA).await.len(), 1);
}

#[tokio::test]
async fn an_unlinked_device_is_logged_out_and_its_keys_are_kept_aside() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/1"), "").await;
    let acme = world.service.tenant("acme");
    let out = acme.until_state("logged_out").await;
    assert_eq!((&out["status"], &out["reason"]), (&json!("failed"), &json!("logged_out")));
    let put_aside = "SELECT count(*) FROM stores WHERE state = 'quarantined'";
    assert_eq!(world.service.count(put_aside), 0, "nothing is done by inference");
    let fresh = acme.open().await;
    assert!(fresh["qrCode"].is_string(), "{fresh}");
    assert!(fresh.get("phone").is_none());
    assert_eq!(world.service.count(put_aside), 1);
    let keys = "SELECT count(*) FROM state WHERE store = (SELECT key FROM stores WHERE state = 'quarantined')";
    assert!(world.service.count(keys) > 100, "with all that was in it");
    world.pair("acme", ANA).await;
    acme.send_ok(BRUNO, "linked anew").await;
    world.until_shown(BRUNO, "linked anew").await;
}

#[tokio::test]
async fn one_refused_login_does_not_end_a_session() {
    // A 401 once and then success keeps the credentials; only a second one is believed.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 401}, "times": 1})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until("a suspicion", |status| status["reason"] == "logged_out_unconfirmed").await;
    assert_eq!(acme.status().await["state"], "reconnecting");
    acme.until_state("ready").await;
    assert_eq!(world.service.count("SELECT count(*) FROM stores WHERE state = 'quarantined'"), 0);
    acme.send_ok(BRUNO, "still linked").await;
}

#[tokio::test]
async fn what_the_server_refuses_is_not_dialled_by_asking_again() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 428}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until_state("failed").await;
    let dials = world.stats().await["dials"].clone();
    for _ in 0..5 {
        let status = acme.open().await;
        assert_eq!((&status["reason"], status["retryAt"].is_string()), (&json!("refused_428"), true));
    }
    assert_eq!(world.stats().await["dials"], dials);
}

#[tokio::test]
async fn a_ready_session_has_no_old_excuses() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"refuseConnections": true})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    let lost = acme.until("a reason", |status| status["reason"] == "connection_failed").await;
    assert_eq!((&lost["state"], &lost["canSend"]), (&json!("reconnecting"), &json!(false)));
    assert_eq!(acme.status().await["since"], lost["since"], "it says since when, not now");
    world.clear_faults().await;
    let back = acme.until_state("ready").await;
    assert!(back.get("reason").is_none() && back.get("message").is_none(), "{back}");
    assert!(back["since"].as_str() > lost["since"].as_str());
}

#[tokio::test]
async fn a_ban_without_an_end_is_not_dialled_again_soon() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    for (failure, reason) in [
        (json!({"reason": 402, "code": 101, "expire": 9_000_000_000_000u64}), "account_banned_101"),
        (json!({"reason": 402}), "account_banned"),
    ] {
        world.fault(json!({"loginFailure": failure})).await;
        world.fault(json!({"streamError": "515", "times": 1})).await;
        let acme = world.service.tenant("acme");
        let banned = acme.until_state("banned").await;
        assert_eq!((&banned["reason"], banned["retryAt"].is_string()), (&json!(reason), true), "{banned}");
        assert_eq!(acme.status().await["state"], "banned");
        world.service.tenant("acme").call(Method::DELETE, "/session", None).await;
        world.clear_faults().await;
        world.pair("acme", ANA).await;
    }
}

#[tokio::test]
async fn what_the_server_says_at_login_decides_the_state() {
    for (failure, state, reason, retries) in [
        (json!({"reason": 401}), "logged_out", "logged_out", false),
        (json!({"reason": 402, "code": 101, "expire": 3600}), "banned", "account_banned_101", true),
        (json!({"reason": 403}), "locked", "account_locked", true),
        (json!({"reason": 405}), "outdated", "client_outdated", true),
        (json!({"reason": 406}), "banned", "account_banned", false),
        (json!({"reason": 409}), "failed", "refused_409", false),
        (json!({"reason": 428}), "failed", "refused_428", true),
    ] {
        let world = World::start().await;
        world.pair("acme", ANA).await;
        world.fault(json!({"loginFailure": failure})).await;
        world.fault(json!({"streamError": "515", "times": 1})).await;
        let acme = world.service.tenant("acme");
        let status = acme.until_state(state).await;
        assert_eq!((&status["status"], &status["reason"]), (&json!("failed"), &json!(reason)), "{failure}");
        assert_eq!(status.get("retryAt").is_some(), retries, "{failure}: {status}");
        assert_eq!(status["canSend"], false);
        let (_, refused) = acme.send(BRUNO, "no").await;
        assert_eq!((&refused["code"], &refused["state"]), (&json!("session_not_ready"), &json!(state)));
    }
}

#[tokio::test]
async fn a_banned_account_is_not_dialled_by_asking_again() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 402, "code": 101, "expire": 3600}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until_state("banned").await;
    let dials = world.stats().await["dials"].clone();
    assert_eq!(acme.open().await["state"], "banned");
    assert_eq!(world.stats().await["dials"], dials);
}

#[tokio::test]
async fn a_ban_is_respected_by_the_next_process_too() {
    for failure in [json!({"reason": 402, "code": 101, "expire": 3600}), json!({"reason": 406}), json!({"reason": 403})]
    {
        let mut world = World::start().await;
        world.pair("acme", ANA).await;
        world.fault(json!({"loginFailure": failure})).await;
        world.fault(json!({"streamError": "515", "times": 1})).await;
        let held = |status: &serde_json::Value| status["state"] == "banned" || status["state"] == "locked";
        let before = world.service.tenant("acme").until("a ban", held).await;
        let recorded = || world.service.count("SELECT count(*) FROM stores WHERE record ->> 'hold' IS NOT NULL") == 1;
        eventually("the ban on disk", || async { recorded().then_some(()) }).await;
        world.clear_faults().await;
        let dials = world.stats().await["dials"].clone();
        world.service.kill_and_restart().await;
        let after = world.service.tenant("acme").until("the same ban", held).await;
        for field in ["state", "reason", "message", "retryAt"] {
            assert_eq!(after.get(field), before.get(field), "{field} after {failure}");
        }
        assert_eq!(world.service.tenant("acme").open().await["state"], before["state"]);
        assert_eq!(world.stats().await["dials"], dials, "nobody was dialled");
        // A person's decision is a deletion and a new link.
        assert_eq!(world.service.tenant("acme").call(Method::DELETE, "/session", None).await.0, 200);
        world.pair("acme", ANA).await;
    }
}

#[tokio::test]
async fn a_short_ban_ends_by_itself_and_not_before() {
    // No ban is taken for shorter than a minute, so this test is not faster either.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 402, "code": 104, "expire": 2}, "times": 1})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    let banned = acme.until_state("banned").await;
    assert_eq!(banned["reason"], "account_banned_104");
    let dials = world.stats().await["dials"].clone();
    let back = acme
        .until("the end of the ban", |status| {
            let over = status["state"] != "banned";
            assert!(over || status["retryAt"] == banned["retryAt"]);
            over
        })
        .await;
    assert!(back["since"].as_str() >= banned["retryAt"].as_str(), "{back} after {banned}");
    acme.until_state("ready").await;
    assert_eq!(world.stats().await["dials"], dials.as_u64().unwrap() + 1);
}

#[tokio::test]
async fn one_tenants_trouble_is_not_anothers() {
    let world = World::start().await;
    world.pair("ana", ANA).await;
    world.pair("bruno", BRUNO).await;
    world.fault(json!({"streamConflict": "replaced", "phone": ANA})).await;
    world.service.tenant("ana").until_state("replaced").await;
    world.service.tenant("bruno").send_ok(ANA, "still here").await;
    world.until_shown(ANA, "still here").await;
}
