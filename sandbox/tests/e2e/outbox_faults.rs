//! The outbox when things go wrong: no connection, kill -9, deadlines, refusals, a session that ends, a full disk.

use std::{fs, io::Write, path::Path, path::PathBuf, process::Command, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::{ANA, BRUNO, Log, Program, Service, World, answer, eventually, simulator};

const CARLA: &str = "5511777777777";

#[tokio::test]
async fn a_session_without_a_connection_accepts_and_sends_in_order_later() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let mut ids = Vec::new();
    for n in 0..10 {
        let accepted = acme.queue(BRUNO, &n.to_string()).await;
        assert_eq!(accepted["status"], "queued");
        ids.push(accepted["id"].clone());
    }
    let (status, waited) = acme.send(BRUNO, "10").await;
    assert_eq!((status.as_u16(), &waited["status"]), (202, &json!("queued")), "{waited}");
    ids.push(waited["id"].clone());
    assert_eq!(acme.status().await["pending"], 11);
    assert!(world.shown_on(BRUNO).await.is_empty());
    world.clear_faults().await;
    acme.until("an empty outbox", |status| status["pending"] == 0).await;
    let shown = all_shown(&world, BRUNO, 11).await;
    assert_eq!(shown.iter().map(|message| message["id"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(world.texts_on(BRUNO).await, (0..11).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_service_that_has_just_started_accepts() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    for round in 0..3 {
        world.service.kill_and_restart().await;
        let sent = world.service.tenant("acme").send_ok(BRUNO, &format!("waited {round}")).await;
        assert_eq!(world.until_shown(BRUNO, &format!("waited {round}")).await[0]["id"], sent["id"]);
    }
    // For certain before it is ready.
    world.fault(json!({"refuseConnections": true})).await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    let accepted = acme.queue(BRUNO, "did not wait").await;
    assert_ne!(acme.status().await["state"], "ready");
    world.clear_faults().await;
    acme.until_fate(&accepted["id"], "delivered").await;
}

#[tokio::test]
async fn what_a_session_can_not_send_before_long_is_refused_at_once() {
    let world = World::start().await;
    for (n, (state, fault)) in [
        ("replaced", json!({"streamConflict": "replaced"})),
        ("banned", json!({"loginFailure": {"reason": 402, "code": 101, "expire": 3600}, "streamError": "515"})),
        ("locked", json!({"loginFailure": {"reason": 403}, "streamError": "515"})),
        ("logged_out", json!({"streamConflict": "device_removed", "loginFailure": {"reason": 401}})),
        ("pairing_qr", json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        let (phone, tenant) = (format!("551196666000{n}"), world.service.tenant(state));
        world.admin(Method::POST, "/admin/accounts", json!({"phone": phone, "name": "Someone"}).to_string()).await;
        if let Value::Object(mut fault) = fault {
            world.pair(state, &phone).await;
            fault.insert("phone".into(), json!(phone));
            world.fault(fault.into()).await;
        } else {
            tenant.open().await;
        }
        tenant.until_state(state).await;
        let message = json!({"to": BRUNO, "message": "no"});
        let bulk = json!({"messages": [message]});
        for (path, body) in [("/send", &message), ("/send?wait=0", &message), ("/send/bulk", &bulk)] {
            let (status, refused) = tenant.call(Method::POST, path, Some(body.clone())).await;
            assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("session_not_ready")), "{path}: {refused}");
            assert_eq!((&refused["state"], &refused["retryable"]), (&json!(state), &json!(false)), "{path}: {refused}");
        }
        assert_eq!(tenant.get("/messages").await, json!({"messages": []}), "nothing of it was written down");
        assert_eq!(tenant.status().await["pending"], 0);
    }
    let (status, refused) = world.service.tenant("nobody").send(BRUNO, "no").await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("session_not_found")), "{refused}");
}

#[tokio::test]
async fn kill_9_before_the_wire_loses_and_repeats_nothing() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "to know the way").await;
    world.cut_off("acme", ANA).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(world.service.tenant("acme").queue(BRUNO, &n.to_string()).await["id"].clone());
    }
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    for id in &ids {
        assert_eq!(acme.get(&path(id)).await["status"], "queued", "it can't have left");
    }
    assert_eq!(acme.status().await["pending"], 3);
    world.clear_faults().await;
    for id in &ids {
        acme.until_fate(id, "delivered").await;
    }
    acme.send_ok(BRUNO, "afterwards").await;
    let shown = all_shown(&world, BRUNO, 5).await;
    assert_eq!(world.texts_on(BRUNO).await, ["to know the way", "0", "1", "2", "afterwards"]);
    assert_eq!(shown[1..4].iter().map(|message| message["id"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!((world.count(BRUNO, "repeatedIds").await, world.count(BRUNO, "retryReceipts").await), (0, 0));
}

#[tokio::test]
async fn kill_9_after_the_wire_goes_on_under_the_same_id() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "to know the way").await;
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let accepted = world.service.tenant("acme").queue(BRUNO, "on the wire").await;
    let behind = world.service.tenant("acme").queue(BRUNO, "behind it").await;
    world.until_shown(BRUNO, "on the wire").await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    let fate = acme.get(&path(&accepted["id"])).await;
    assert_eq!((&fate["status"], fate["unknownAt"].is_string()), (&json!("unknown"), true), "{fate}");
    assert_eq!(acme.get(&path(&behind["id"])).await["status"], "queued", "it waits for its turn");
    world.clear_faults().await;
    for id in [&accepted["id"], &behind["id"]] {
        acme.until_fate(id, "delivered").await;
    }
    acme.send_ok(BRUNO, "afterwards").await;
    let shown = all_shown(&world, BRUNO, 4).await;
    assert_eq!(world.texts_on(BRUNO).await, ["to know the way", "on the wire", "behind it", "afterwards"]);
    assert_eq!((&shown[1]["id"], &shown[2]["id"]), (&accepted["id"], &behind["id"]));
    assert!(world.count(BRUNO, "repeatedIds").await > 0, "it was sent again");
    assert_eq!(world.count(BRUNO, "retryReceipts").await, 0, "everything could be decrypted");
}

#[tokio::test]
async fn a_message_that_waits_too_long_expires_and_never_leaves() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let body = json!({"to": BRUNO, "message": "too late", "expiresIn": 1});
    let (_, accepted) = acme.call(Method::POST, "/send?wait=0", Some(body)).await;
    acme.queue(BRUNO, "patient").await;
    let fate = acme.until_fate(&accepted["id"], "failed").await;
    assert_eq!((&fate["code"], &fate["retryable"]), (&json!("expired"), &json!(true)), "{fate}");
    assert!(fate["failedAt"].as_str() >= fate["expiresAt"].as_str() && fate["message"].is_string(), "{fate}");
    acme.until("one that waits", |status| status["pending"] == 1).await;
    world.clear_faults().await;
    world.until_shown(BRUNO, "patient").await;
    assert_eq!(world.texts_on(BRUNO).await, ["patient"]);
    assert_eq!(acme.get(&path(&accepted["id"])).await, fate);
}

#[tokio::test]
async fn a_caller_that_still_waits_is_told_of_the_deadline() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "60")]).await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "too late", "expiresIn": 1, "reference": "r"});
    let (status, failed) = world.service.tenant("acme").call(Method::POST, "/send", Some(body)).await;
    assert_eq!((status.as_u16(), &failed["code"], &failed["retryable"]), (504, &json!("expired"), &json!(true)));
    assert!(failed["id"].is_string() && failed["reference"] == "r", "{failed}");
}

#[tokio::test]
async fn a_message_that_left_and_expires_stays_unknown() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "1")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    // Between the second attempt and the third.
    let body = json!({"to": BRUNO, "message": "perhaps", "expiresIn": 4});
    let (status, accepted) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!((status.as_u16(), &accepted["status"]), (202, &json!("unknown")), "{accepted}");
    acme.until("an empty outbox", |status| status["pending"] == 0).await;
    let fate = acme.get(&path(&accepted["id"])).await;
    assert_eq!(
        (&fate["status"], &fate["code"], &fate["retryable"]),
        (&json!("unknown"), &json!("expired"), &json!(false))
    );
    assert!(fate["message"].as_str().unwrap().contains("may have arrived"), "{fate}");
    let attempts = world.count(ANA, "messages").await;
    world.clear_faults().await;
    acme.send_ok(BRUNO, "the next").await;
    assert_eq!(world.count(ANA, "messages").await, attempts + 1, "it is tried no more");
    assert_eq!(acme.get(&path(&accepted["id"])).await, fate);
}

#[tokio::test]
async fn a_deadline_is_a_sensible_number_of_seconds() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let week = 7 * 24 * 3600;
    for bad in
        [json!(0), json!(-1), json!(1.5), json!("x"), json!("60"), json!(week + 1), json!(u64::MAX), json!(1e300)]
    {
        let body = json!({"to": BRUNO, "message": "no", "expiresIn": bad});
        let (status, refused) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, 400, "{bad}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("expiresIn"), "{bad}: {refused}");
    }
    let body = json!({"to": BRUNO, "message": "yes", "expiresIn": week});
    assert_eq!(acme.call(Method::POST, "/send", Some(body)).await.0, 200);
    assert_eq!(acme.get("/messages").await["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_receipt_that_comes_before_the_acknowledgement_hides_nothing() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (registered, written) = ("5511977776666", "551177776666");
    world.admin(Method::POST, "/admin/accounts", json!({"phone": registered, "name": "Dora"}).to_string()).await;
    world.fault(json!({"ackDelayMs": 1000})).await;
    let acme = world.service.tenant("acme");
    let sent = acme.send_ok(written, "the receipt is faster").await;
    assert_eq!(sent["to"], registered, "the answer names the number that WhatsApp knows: {sent}");
    acme.send_ok(written, "the next one").await;
    let fate = acme.get(&path(&sent["id"])).await;
    assert_eq!((&fate["to"], &fate["attempts"]), (&json!(registered), &json!(1)), "{fate}");
}

#[tokio::test]
async fn a_stale_device_list_is_refreshed_once() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    let counts = async || (world.count(ANA, "messages").await, world.count(ANA, "nacks").await);
    let before = counts().await;
    world.fault(json!({"nack": 479, "times": 1})).await;
    let sent = acme.send_ok(BRUNO, "with a fresh list").await;
    assert_eq!(counts().await, (before.0 + 2, before.1 + 1));
    let shown = world.until_shown(BRUNO, "with a fresh list").await;
    assert_eq!((shown.len(), &shown[0]["id"]), (1, &sent["id"]));
    world.fault(json!({"nack": 479})).await;
    let before = counts().await;
    let (status, rejected) = acme.send(BRUNO, "never").await;
    assert_eq!((status.as_u16(), &rejected["code"]), (502, &json!("message_rejected")), "{rejected}");
    assert_eq!((&rejected["whatsappCode"], &rejected["retryable"]), (&json!("479"), &json!(false)), "{rejected}");
    assert_eq!(acme.get(&path(&rejected["id"])).await["status"], "failed");
    assert_eq!(counts().await, (before.0 + 2, before.1 + 2), "two attempts and no more");
}

#[tokio::test]
async fn what_whatsapp_refuses_is_not_tried_again_and_a_restriction_is_looked_up() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    let until = json!({"until": 1_893_456_000, "type": "RATE_LIMIT"});
    for (code, restricted) in [(400, None), (404, None), (463, Some(true)), (475, Some(false)), (475, Some(true))] {
        let known = acme.status().await.get("reachoutTimelock").cloned();
        if restricted == Some(true) {
            world.fault(json!({"reachoutTimelock": until})).await;
        }
        world.fault(json!({"nack": code})).await;
        let before = world.count(ANA, "messages").await;
        let (status, rejected) = acme.send(BRUNO, "refused").await;
        let meaning = if code == 463 { "account_restricted" } else { "message_rejected" };
        assert_eq!((status.as_u16(), &rejected["code"]), (502, &json!(meaning)), "{rejected}");
        assert_eq!(rejected["whatsappCode"], code.to_string());
        let fate = acme.get(&path(&rejected["id"])).await;
        assert_eq!((&fate["status"], &fate["whatsappCode"]), (&json!("failed"), &json!(code.to_string())), "{fate}");
        let Some(active) = restricted else {
            assert_eq!(known, None, "nobody asked");
            world.clear_faults().await;
            continue;
        };
        let is_new = |status: &Value| status.get("reachoutTimelock") != known.as_ref();
        let timelock = acme.until("the restriction", is_new).await["reachoutTimelock"].clone();
        assert_eq!(timelock["active"], active, "{code}: {timelock}");
        assert!(timelock["checkedAt"].is_string(), "{timelock}");
        if active {
            assert_eq!(timelock["until"], "2030-01-01T00:00:00.000Z");
            assert_eq!(timelock["type"], "RATE_LIMIT");
        }
        world.clear_faults().await;
        assert_eq!(world.count(ANA, "messages").await, before + 1, "one attempt");
    }
    // Also when it was not asked for a while: it waits five seconds for more refusals, and then for the next one.
    let since = Instant::now();
    eventually("a while", || async { (since.elapsed() > Duration::from_secs(6)).then_some(()) }).await;
    let known = acme.status().await["reachoutTimelock"].clone();
    world.fault(json!({"nack": 463, "times": 1})).await;
    assert_eq!(acme.send(BRUNO, "refused").await.0.as_u16(), 502);
    acme.until("another answer", |status| status["reachoutTimelock"]["checkedAt"] != known["checkedAt"]).await;
    acme.send_ok(BRUNO, "accepted").await;
    world.until_shown(BRUNO, "accepted").await;
    assert_eq!(world.texts_on(BRUNO).await, ["to know the way", "accepted"]);
}

#[tokio::test]
async fn who_can_not_read_a_message_gets_it_again_also_after_a_restart() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"offlinePhone": true, "phone": BRUNO})).await;
    let sent = world.service.tenant("acme").send_ok(BRUNO, "once more, please").await;
    world.service.kill_and_restart().await;
    world.service.tenant("acme").until_state("ready").await;
    // For everyone, as the other fault goes with all of Bruno's.
    world.fault(json!({"unreadable": true, "times": 1})).await;
    world.admin(Method::DELETE, &format!("/admin/faults?phone={BRUNO}"), "").await;
    let shown = world.until_shown(BRUNO, "once more, please").await;
    assert_eq!((shown.len(), &shown[0]["id"]), (1, &sent["id"]));
    assert!(world.count(BRUNO, "retryReceipts").await >= 1);
    world.service.tenant("acme").until_fate(&sent["id"], "delivered").await;
}

#[tokio::test]
async fn a_deleted_session_sends_nothing_any_more() {
    let world = World::with(Default::default(), &[("SEND_MIN_INTERVAL", "3600")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let sent = acme.send_ok(BRUNO, "before").await;
    acme.until_fate(&sent["id"], "delivered").await;
    let waiting = [acme.queue(BRUNO, "too late").await, acme.queue(ANA, "too late").await];
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 200);
    for accepted in &waiting {
        let fate = acme.get(&path(&accepted["id"])).await;
        assert_eq!((&fate["status"], &fate["code"]), (&json!("failed"), &json!("session_deleted")), "{fate}");
    }
    assert_eq!(acme.get(&path(&sent["id"])).await["status"], "delivered", "what was done stays done");
    world.pair("acme", ANA).await;
    assert_eq!(acme.status().await["pending"], 0);
    acme.send_ok(BRUNO, "anew").await;
    world.until_shown(BRUNO, "anew").await;
    assert_eq!(world.texts_on(BRUNO).await, ["before", "anew"]);
}

#[tokio::test]
async fn what_was_accepted_for_one_account_does_not_leave_from_another() {
    for (linked_next, leaves) in [(ANA, true), (BRUNO, false)] {
        let world = World::start().await;
        world.admin(Method::POST, "/admin/accounts", json!({"phone": CARLA, "name": "Carla"}).to_string()).await;
        world.pair("acme", ANA).await;
        let acme = world.service.tenant("acme");
        world.cut_off("acme", ANA).await;
        let accepted = acme.queue(CARLA, "from Ana").await;
        world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/1"), "").await;
        world.clear_faults().await;
        acme.until_state("logged_out").await;
        world.pair("acme", linked_next).await;
        acme.send_ok(CARLA, "anew").await;
        world.until_shown(CARLA, "anew").await;
        let fate = acme.get(&path(&accepted["id"])).await;
        if leaves {
            assert_eq!(world.texts_on(CARLA).await, ["from Ana", "anew"]);
        } else {
            assert_eq!(world.texts_on(CARLA).await, ["anew"]);
            assert_eq!((&fate["status"], &fate["code"]), (&json!("failed"), &json!("account_changed")), "{fate}");
            assert!(fate.get("unknownAt").is_none(), "it never left: {fate}");
        }
    }
}

#[tokio::test]
async fn sigterm_with_messages_that_wait_and_they_go_afterwards() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(world.service.tenant("acme").queue(BRUNO, &n.to_string()).await["id"].clone());
    }
    assert_eq!(world.service.terminate().await.code(), Some(0));
    world.clear_faults().await;
    world.service.restart().await;
    for id in &ids {
        let fate = world.service.tenant("acme").until_fate(id, "delivered").await;
        assert!(fate.get("unknownAt").is_none(), "nobody doubted that it had not left: {fate}");
    }
    assert_eq!(world.texts_on(BRUNO).await, ["0", "1", "2"]);
    assert_eq!(world.count(BRUNO, "repeatedIds").await, 0);
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_loses_nothing() {
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    world.pair("calm", BRUNO).await;
    let (acme, calm) = (world.service.tenant("acme"), world.service.tenant("calm"));
    acme.send_ok(BRUNO, "to know the way").await;
    // One is on its way when the disk gets full, and is acknowledged while it is; others wait behind it.
    world.fault(json!({"ackDelayMs": 500, "phone": ANA})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let mut accepted = Vec::new();
    for n in 0..3 {
        accepted.push((acme.queue(BRUNO, &n.to_string()).await["id"].clone(), n.to_string()));
    }
    fill(Path::new(&disk));
    let refused = loop {
        let text = format!("while it fills {}", accepted.len());
        let body = json!({"to": BRUNO, "message": text});
        let (status, body) = acme.call(Method::POST, "/send?wait=0", Some(body)).await;
        if status != 202 {
            break (status.as_u16(), body);
        }
        accepted.push((body["id"].clone(), text));
        assert!(accepted.len() < 1000, "the disk never gets full");
    };
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("storage_failed")), "{}", refused.1);
    assert_eq!(refused.1["retryable"], true);
    let fate_lost = || world.service.log.text().contains("what happened could not be written down yet");
    eventually("an acknowledgement that can't be written down", || async { fate_lost().then_some(()) }).await;
    let health = async || answer(world.service.request(Method::GET, "/health")).await;
    assert_eq!(health().await.0, 503);
    let (status, body) =
        acme.call(Method::POST, "/send/bulk", Some(json!({"messages": [{"to": BRUNO, "message": "no"}]}))).await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("storage_failed")), "{body}");
    for tenant in [&acme, &calm] {
        assert_eq!(tenant.status().await["state"], "ready", "a connection needs no disk");
    }
    fs::remove_file(Path::new(&disk).join("filler")).unwrap();
    eventually("health", || async { (health().await.0 == 200).then_some(()) }).await;
    calm.send_ok(ANA, "room again").await;
    world.clear_faults().await;
    for (id, text) in &accepted {
        eventually(&format!("{text:?} settled"), || async {
            let fate = acme.get(&path(id)).await;
            ["sent", "delivered"].contains(&fate["status"].as_str()?).then_some(())
        })
        .await;
        assert_eq!(world.until_shown(BRUNO, text).await.len(), 1);
    }
    acme.send_ok(BRUNO, "as before").await;
    world.until_shown(BRUNO, "as before").await;
    assert!(!world.texts_on(BRUNO).await.contains(&"no".to_owned()), "what was refused is not sent");
    assert_eq!(world.count(BRUNO, "retryReceipts").await, 0);
    assert_eq!(acme.status().await["pending"], 0);
}

/// A service with a small disk of its own, in a mount namespace, and where that disk is. `None` where the machine does not
/// let a test do that.
pub async fn world_on_a_small_disk() -> Option<(World, String)> {
    let mount = r#"mount -t tmpfs -o size=24m,mode=700 none "$DATA_DIR""#;
    let namespace = ["--map-root-user", "--mount", "sh", "-c"];
    let data = Arc::new(TempDir::new().unwrap());
    let tried = Command::new("unshare").args(namespace).arg(mount).env("DATA_DIR", data.path()).output();
    let refused = match &tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        println!("not tested: this machine does not let a test mount a disk: {why}");
        return None;
    }
    let simulator = simulator(Default::default()).await;
    let script = format!(r#"{mount} && exec "$0" service"#);
    let mut program = Program::sandbox(&simulator.ws_url(), &[]);
    let binary = program.binary.to_str().unwrap().to_owned();
    program.arguments = namespace.into_iter().map(String::from).chain([script, binary]).collect();
    program.binary = PathBuf::from("unshare");
    let service = Service::run(program, data, Log::default()).await;
    let world = World { simulator, service };
    let disk = format!("/proc/{}/root{}", world.service.pid(), world.service.data.path().display());
    Some((world, disk))
}

/// Writes to a disk until it takes no more.
pub fn fill(disk: &Path) {
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

fn path(id: &Value) -> String {
    format!("/messages/{}", id.as_str().expect("an id"))
}

/// What a phone shows as soon as it shows so many.
async fn all_shown(world: &World, phone: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages"), || async {
        let shown = world.shown_on(phone).await;
        (shown.len() >= count).then_some(shown)
    })
    .await
}
