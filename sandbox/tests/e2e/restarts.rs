//! Ends and starts: kill -9, SIGTERM, a second process, a damaged store.

use std::{fs, sync::Arc};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{ANA, BRUNO, Program, Service, World, answer, eventually};

#[tokio::test]
async fn kill_9_right_after_ready_loses_nothing() {
    let mut world = World::start().await;
    for round in 0..3 {
        let tenant = format!("tenant-{round}");
        world.pair(&tenant, ANA).await;
        world.service.kill_and_restart().await;
        world.service.tenant(&tenant).until_state("ready").await;
    }
    assert_eq!(world.devices(ANA).await.len(), 3, "no device was linked twice");
    for round in 0..3 {
        let tenant = format!("tenant-{round}");
        world.service.tenant(&tenant).until_state("ready").await;
        world.service.tenant(&tenant).send_ok(BRUNO, &tenant).await;
        assert_eq!(world.until_shown(BRUNO, &tenant).await.len(), 1);
    }
}

#[tokio::test]
async fn kill_9_in_the_middle_of_sending_and_receiving() {
    // Both ways at the same time and several times over. Both sides really decrypt.
    let mut world = World::start().await;
    let tenants = ["one", "two"];
    for tenant in tenants {
        world.pair(tenant, ANA).await;
    }
    let (mut sent, mut written) = (Vec::new(), Vec::new());
    for round in 0..5 {
        for n in 0..6 {
            for tenant in tenants {
                sent.push(format!("{tenant} {round} {n}"));
                world.service.tenant(tenant).queue(BRUNO, &sent[sent.len() - 1]).await;
            }
            written.push(world.write(BRUNO, ANA, &format!("to Ana {round} {n}")).await);
        }
        // Sooner in one round, later in the next.
        let this_round = |text: &&String| text.contains(&format!(" {round} ")) && !text.starts_with("to Ana");
        eventually("the middle", || async {
            (world.texts_on(BRUNO).await.iter().filter(this_round).count() >= 2 * round).then_some(())
        })
        .await;
        world.service.kill_and_restart().await;
    }
    for text in &sent {
        assert_eq!(world.until_shown(BRUNO, text).await.len(), 1, "{text:?} is shown once");
    }
    // Not all are read at once: the library may answer in a chain that it writes down some 25 ms later, and after a kill
    // in between the phone has to ask again.
    assert_eq!(world.count(BRUNO, "reusedCounters").await, 0, "no counter was used twice");
    let mut written: Vec<_> = written.iter().map(ToString::to_string).collect();
    written.sort();
    // What the other tenant writes for the same account is told too, as one's own.
    let theirs = |told: &[serde_json::Value]| -> Vec<_> {
        told.iter().filter(|one| one["fromMe"] != true).map(|one| one["id"].to_string()).collect()
    };
    for tenant in tenants {
        let all = |told: &[_]| theirs(told).len() >= written.len();
        let mut told = theirs(&world.service.tenant(tenant).until_told("message.received", all).await);
        told.sort();
        assert_eq!(told, written, "{tenant} was told of each once");
    }
}

#[tokio::test]
async fn a_message_written_while_the_service_was_down_is_received() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "before").await;
    world.until_shown(BRUNO, "before").await;
    world.service.signal("-KILL");
    world.service.ended().await;
    let body = json!({"to": ANA, "text": "while you were away"}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/messages"), body).await;
    world.service.restart().await;
    world.service.tenant("acme").until("the message", |status| status["messagesReceived"] == 1).await;
    world.service.tenant("acme").until_state("ready").await;
    world.service.tenant("acme").send_ok(BRUNO, "after").await;
    world.until_shown(BRUNO, "after").await;
}

#[tokio::test]
async fn sigterm_ends_well() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    world.service.restart().await;
    world.service.tenant("acme").until_state("ready").await;
}

#[tokio::test]
async fn sigterm_while_a_message_is_on_its_way() {
    // What is in flight is finished, and its caller gets the answer.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"ackDelayMs": 700})).await;
    // Otherwise the recipient's receipt would tell first.
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let sending = tokio::spawn(answer(request.json(&json!({"to": BRUNO, "message": "the last one"}))));
    world.until_shown(BRUNO, "the last one").await;
    assert!(!sending.is_finished(), "it still waits for its acknowledgement");
    let status = world.service.terminate().await;
    let (answered, body) = sending.await.unwrap();
    assert_eq!((answered.as_u16(), status.code()), (200, Some(0)), "{body}");
}

#[tokio::test]
async fn sigterm_does_not_wait_for_ever() {
    let mut world = World::with(Default::default(), &[("SEND_TIMEOUT", "3600")]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let sending = tokio::spawn(answer(request.json(&json!({"to": BRUNO, "message": "never acknowledged"}))));
    world.until_shown(BRUNO, "never acknowledged").await;
    assert_eq!(world.service.terminate().await.code(), Some(0));
    let (status, body) = sending.await.unwrap();
    assert_eq!(status, 202, "its caller is told that it goes on: {body}");
    // The next process goes on with it, under the same id.
    world.clear_faults().await;
    world.service.restart().await;
    let fate = world.service.tenant("acme").until_fate(&body["id"], "delivered").await;
    assert!(fate["unknownAt"].is_string(), "{fate}");
    let shown = world.until_shown(BRUNO, "never acknowledged").await;
    assert_eq!((shown.len(), &shown[0]["id"]), (1, &body["id"]));
}

#[tokio::test]
async fn a_second_process_on_the_same_data_refuses_to_start() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let program = Program::sandbox(&world.simulator.ws_url(), &[]);
    let output = program.command(world.service.data.path()).output().unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("another process uses the data directory"), "{complaint}");
    assert_eq!(world.service.tenant("acme").status().await["state"], "ready", "the first one goes on");
    assert_eq!(world.stats().await["dials"], 2, "the second one dialled nobody");
}

#[tokio::test]
async fn the_data_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let mut folders = vec![world.service.data.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_store_is_reported_and_left_alone_and_the_others_start() {
    // In all the ways in which what is one tenant's can be damaged.
    let mut world = World::start().await;
    let tenants = ["garbage", "empty", "missing", "unlinked", "record", "healthy"];
    for tenant in tenants {
        world.pair(tenant, ANA).await;
    }
    assert_eq!(world.service.terminate().await.code(), Some(0));
    let damage = |tenant: &str, sql: &str| {
        let store = "(SELECT stores.key FROM stores JOIN tenants ON tenants.key = stores.tenant WHERE name = ?)";
        let changed = world.service.database().execute(&sql.replace("(STORE)", store), [tenant]).unwrap();
        assert!(changed > 0, "{tenant}");
    };
    damage("garbage", "UPDATE state SET value = x'6e6f' WHERE kind = 1 AND store = (STORE)");
    damage("empty", "UPDATE state SET value = x'' WHERE kind = 1 AND store = (STORE)");
    damage("missing", "DELETE FROM state WHERE kind = 1 AND store = (STORE)");
    damage(
        "unlinked",
        "UPDATE state SET value = CAST(json_remove(CAST(value AS TEXT), '$.pn') AS BLOB) \
         WHERE kind = 1 AND store = (STORE)",
    );
    damage("record", "UPDATE stores SET record = x'7b' WHERE key = (STORE)");
    let everything = "SELECT group_concat(hex(record), ' ') || (SELECT group_concat(hex(value), ' ') FROM state \
                      WHERE kind = 1 AND store < 6) FROM stores WHERE key < 6";
    let kept =
        |world: &World| world.service.database().query_row(everything, (), |row| row.get::<_, String>(0)).unwrap();
    let before = kept(&world);
    world.service.restart().await;
    world.service.tenant("healthy").until_state("ready").await;
    for tenant in &tenants[..5] {
        let failed = world.service.tenant(tenant).until_state("failed").await;
        assert_eq!(failed["reason"], "storage_failed", "{tenant}: {failed}");
        assert!(failed["message"].is_string());
        // Asking again does not make it a new tenant.
        assert!(world.service.tenant(tenant).open().await["qrCode"].is_null());
        world.service.tenant(tenant).until_state("failed").await;
        let (status, body) = world.service.tenant(tenant).send(BRUNO, "no").await;
        assert_eq!((status.as_u16(), &body["state"]), (409, &json!("failed")));
    }
    assert!(kept(&world) == before, "a damaged store is left as it is, and a lost one is not silently made anew");
    world.service.tenant("healthy").send_ok(BRUNO, "unimpressed").await;
    // A person's decision is a deletion and a new link.
    assert_eq!(world.service.tenant("record").call(Method::DELETE, "/session", None).await.0, 200);
    world.pair("record", ANA).await;
}

#[tokio::test]
async fn a_pairing_that_was_not_finished_starts_anew() {
    let mut world = World::start().await;
    world.service.tenant("acme").open().await;
    world.service.kill_and_restart().await;
    assert_eq!(world.service.tenant("acme").status().await, json!({"status": "not_found"}));
    world.pair("acme", ANA).await;
}

#[tokio::test]
async fn many_sessions_come_back_by_themselves() {
    let mut world = World::with(Default::default(), &[("DIAL_CONCURRENCY", "4"), ("DIAL_RATE", "0")]).await;
    for n in 0..12 {
        world.pair(&format!("tenant-{n}"), if n % 2 == 0 { ANA } else { BRUNO }).await;
    }
    world.service.kill_and_restart().await;
    eventually("twelve sessions", || async {
        let health = answer(world.service.request(Method::GET, "/health")).await.1;
        (health["sessions"] == 12).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_refuses_to_start_without_a_secret_of_its_own() {
    let data = Arc::new(TempDir::new().unwrap());
    for (secret, mention) in
        [("", "INTERNAL_SECRET is not set"), ("change-me", "example's value"), ("a,b,c", "more than two")]
    {
        let program = Program::sandbox("ws://127.0.0.1:1/ws/chat", &[("INTERNAL_SECRET", secret)]);
        let output = program.command(data.path()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains(mention), "{secret:?}: {complaint}");
        assert!(!complaint.contains("a,b,c"), "the secret is not repeated");
    }
    let mut command = Program::sandbox("ws://127.0.0.1:1/ws/chat", &[]).command(data.path());
    let output = command.env_remove("INTERNAL_SECRET").output().unwrap();
    assert!(!output.status.success());
}

#[tokio::test]
async fn it_says_what_else_keeps_it_from_starting() {
    let data = Arc::new(TempDir::new().unwrap());
    let first = Service::start("ws://127.0.0.1:1/ws/chat", &[]).await;
    let port = first.url.rsplit(':').next().unwrap();
    for (env, mention) in [
        (("PORT", port), "can't listen on"),
        (("PORT", "70000"), "PORT"),
        (("SEND_TIMEOUT", "soon"), "SEND_TIMEOUT"),
        (("WHATSAPP_VERSION", "new"), "WHATSAPP_VERSION"),
    ] {
        let output = Program::sandbox("ws://127.0.0.1:1/ws/chat", &[env]).command(data.path()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains(mention), "{env:?}: {complaint}");
    }
}
