//! What WhatsApp says, and what is made of it: the codes, who dials when, and what holds dials up. The numbers of cases
//! are those of the list that the service was built against.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use whatsapp_simulator::{Config, Phone};

use crate::{
    harness::{ANA, BRUNO, World, answer, eventually, http},
    outbox_faults::{fill, world_on_a_small_disk},
};

/// Paces nobody: for tests that are about something else.
const AT_ONCE: (&str, &str) = ("DIAL_RATE", "0");

/// Links this many tenants, each to a phone of its own.
async fn fleet(world: &World, size: usize) -> Vec<(String, String)> {
    let tenants: Vec<_> = (0..size).map(|n| (format!("tenant-{n:03}"), format!("5521{n:09}"))).collect();
    for (tenant, phone) in &tenants {
        world.simulator.add_account(&Phone::parse(phone).unwrap(), tenant).unwrap();
        world.pair(tenant, phone).await;
    }
    tenants
}

/// Whether one pause between two dials has lasted for more than two seconds, for this reason.
fn waits_for_seconds(reason: &str) -> impl FnMut(&Value) -> bool {
    let mut pause = (Value::Null, Instant::now());
    move |status| {
        if status["retryAt"] != pause.0 {
            pause = (status["retryAt"].clone(), Instant::now());
        }
        status["reason"] == reason && pause.0.is_string() && pause.1.elapsed() > Duration::from_secs(2)
    }
}

async fn health(world: &World) -> Value {
    answer(world.service.request(Method::GET, "/health")).await.1
}

async fn until_ready(world: &World, count: usize) {
    eventually(&format!("{count} sessions"), || async { (health(world).await["sessions"] == count).then_some(()) })
        .await;
}

#[tokio::test]
async fn every_refusal_leads_to_a_state_that_says_how_it_goes_on() {
    // For the codes that are known and some that are not. Unit tests go through all from 400 to 599.
    let world = World::with(Config::default(), &[AT_ONCE]).await;
    // Of those that count for all only two: a third would hold up the others.
    let codes = [400, 402, 408, 411, 415, 418, 429, 440, 500, 501, 516, 599];
    let tenants = fleet(&world, codes.len()).await;
    for ((_, phone), code) in tenants.iter().zip(codes) {
        world.fault(json!({"loginFailure": {"reason": code}, "phone": phone})).await;
        world.fault(json!({"streamError": "515", "times": 1, "phone": phone})).await;
    }
    for ((tenant, _), code) in tenants.iter().zip(codes) {
        let (state, reason) = match code {
            402 => ("banned", "account_banned".to_owned()),
            500 => ("reconnecting", "server_error_500".to_owned()),
            516 => ("logged_out", "logged_out".to_owned()),
            _ => ("failed", format!("refused_{code}")),
        };
        let said = |status: &Value| status["state"] == state && status["reason"] == reason.as_str();
        let status = world.service.tenant(tenant).until(&format!("{state} because of {code}"), said).await;
        let by_itself = status["retryAt"].is_string();
        assert!(by_itself || code == 516 || state == "reconnecting", "{code}: {status}");
    }
    for (tenant, phone) in &tenants {
        assert_eq!(world.devices(phone).await.len(), 1, "{tenant}: nothing was unlinked");
    }
}

#[tokio::test]
async fn an_unlinking_that_is_not_confirmed_costs_nothing() {
    // The code comes on a connection: the login that follows succeeds.
    let world = World::start().await;
    for fault in
        [json!({"streamConflict": "device_removed"}), json!({"streamError": "401"}), json!({"streamError": "516"})]
    {
        world.pair("acme", ANA).await;
        let acme = world.service.tenant("acme");
        let mut once = fault.clone();
        once["times"] = json!(1);
        world.fault(once).await;
        acme.until("a suspicion", |status| status["reason"] == "logged_out_unconfirmed").await;
        acme.until_state("ready").await;
        acme.send_ok(BRUNO, "still linked").await;
        let (status, _) = acme.call(Method::DELETE, "/session", None).await;
        assert_eq!(status, 200);
        world.clear_faults().await;
    }
}

#[tokio::test]
async fn a_locked_account_keeps_its_credentials_and_the_token_for_an_appeal() {
    // It is stored, nothing is wiped, there is an event; also for the next process.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 403, "appealToken": "one-time-token"}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let before = world.service.tenant("acme").until_state("locked").await;
    assert_eq!(before["appealToken"], "one-time-token");
    let acme = world.service.tenant("acme");
    let told = acme.until_told("session.state", |told| told.last().is_some_and(|last| last["state"] == "locked")).await;
    assert_eq!(told.last().unwrap()["reason"], "account_locked");
    // Terminated, not killed: the state is told a moment before it is on the disk.
    world.service.terminate().await;
    let dials = world.stats().await["dials"].clone();
    world.service.restart().await;
    let after = world.service.tenant("acme").until_state("locked").await;
    assert_eq!((&after["appealToken"], &after["retryAt"]), (&before["appealToken"], &before["retryAt"]));
    assert_eq!(world.stats().await["dials"], dials, "nobody was dialled");
    assert_eq!(world.devices(ANA).await.len(), 1);
    let log = world.service.log.text();
    assert!(!log.contains("one-time-token"), "it is nobody else's");
}

#[tokio::test]
async fn a_version_that_is_refused_holds_up_all_until_one_login_succeeds() {
    let world = World::with(Config::default(), &[AT_ONCE]).await;
    let tenants = fleet(&world, 8).await;
    let (outdated, others) = tenants.split_at(3);
    for (_, phone) in outdated {
        world.fault(json!({"loginFailure": {"reason": 405}, "phone": phone})).await;
        world.fault(json!({"streamError": "515", "times": 1, "phone": phone})).await;
    }
    for (tenant, _) in outdated {
        let status = world.service.tenant(tenant).until_state("outdated").await;
        assert_eq!((&status["reason"], status["retryAt"].is_string()), (&json!("client_outdated"), true));
    }
    // From now on everybody would be refused.
    world.fault(json!({"loginFailure": {"reason": 405}})).await;
    let dials = world.stats().await["dials"].as_u64().unwrap();
    world.fault(json!({"closeAfterMs": 1})).await;
    for (tenant, _) in others {
        let held = |status: &Value| status["reason"] == "dials_held_up" || status["state"] == "outdated";
        world.service.tenant(tenant).until("a dial that is held up", held).await;
    }
    let tried = world.stats().await["dials"].as_u64().unwrap() - dials;
    assert!(tried <= 3, "{tried} of five dialled although all are refused");
    world.clear_faults().await;
    for (tenant, _) in &others[1..] {
        let settled = |status: &Value| status["state"] == "ready" || status["state"] == "outdated";
        world.service.tenant(tenant).until("an end of the trouble", settled).await;
    }
    let health = health(&world).await;
    assert!(health["sessions"].as_u64() >= Some(2), "{health}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_new_connection_again_and_again_is_not_dialled_at_once() {
    let world = World::with(Config::default(), &[AT_ONCE]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"streamError": "515", "times": 50})).await;
    let acme = world.service.tenant("acme");
    let started = Instant::now();
    acme.until("a long pause", waits_for_seconds("stream_error_515")).await;
    let dials = world.stats().await["dials"].as_u64().unwrap();
    assert!(dials <= 2 + 40, "{dials} dials in {:?}", started.elapsed());
    assert!(world.stats().await["logins"].as_u64() < Some(50), "the fault outlasts the haste");
    world.clear_faults().await;
    acme.until_state("ready").await;
}

#[tokio::test]
async fn a_connection_that_is_dead_but_open_is_replaced() {
    // Stream errors 429 and 503 are in `states`.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("calm", BRUNO).await;
    world.fault(json!({"streamError": "500", "times": 1, "phone": ANA})).await;
    let started = Instant::now();
    let acme = world.service.tenant("acme");
    acme.until("an end of the dead connection", |status| status["reason"] == "stream_error_500").await;
    acme.until_state("ready").await;
    assert!(started.elapsed() < Duration::from_secs(30), "after {:?}", started.elapsed());
    acme.send_ok(BRUNO, "alive").await;
    assert_eq!(world.count(BRUNO, "logins").await, 1, "the other one was left alone");
}

#[tokio::test]
async fn who_was_replaced_stays_so_after_a_restart_until_a_person_asks() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"streamConflict": "replaced", "times": 2})).await;
    world.service.tenant("acme").until_state("replaced").await;
    world.service.terminate().await;
    let dials = world.stats().await["dials"].clone();
    world.service.restart().await;
    let acme = world.service.tenant("acme");
    let replaced = acme.until_state("replaced").await;
    assert_eq!(replaced["reason"], "replaced");
    eventually("the end of the restoring", || async { health(&world).await.get("restoring").is_none().then_some(()) })
        .await;
    assert_eq!(world.stats().await["dials"], dials, "it did not dial");
    acme.open().await;
    acme.until_state("ready").await;
    world.service.kill_and_restart().await;
    world.service.tenant("acme").until_state("ready").await;
}

#[tokio::test]
async fn a_login_that_a_killed_process_left_behind_costs_its_successor_half_a_minute() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "to know the way").await;
    world.service.signal("-KILL");
    world.service.ended().await;
    // The next one's login is handled long after its end.
    world.fault(json!({"loginDelayMs": 20_000, "times": 1})).await;
    world.service.restart().await;
    let used_up = || async {
        let faults = world.admin(Method::GET, "/admin/faults", "").await;
        faults.as_array().unwrap().iter().all(|fault| fault["times"] == 0).then_some(())
    };
    eventually("the first login", used_up).await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    let ready = acme.until_state("ready").await["connectedAt"].clone();
    let waits = |status: &Value| status["reason"] == "replaced_unconfirmed" && status["retryAt"].is_string();
    let replaced = acme.until("a word of it", waits).await;
    assert_eq!((&replaced["state"], &replaced["status"]), (&json!("reconnecting"), &json!("initializing")));
    let (status, taken) = acme.send(BRUNO, "meanwhile").await;
    assert!([200, 202].contains(&status.as_u16()), "{taken}");
    acme.until("another connection", |status| status["state"] == "ready" && status["connectedAt"] != ready).await;
    world.until_shown(BRUNO, "meanwhile").await;
    let told = acme.told("session.state").await;
    let states: Vec<_> = told.iter().rev().take(3).rev().map(|one| (&one["state"], one.get("reason"))).collect();
    let [ready, reconnecting, reason] = ["ready", "reconnecting", "replaced_unconfirmed"].map(|word| json!(word));
    assert_eq!(states, [(&ready, None), (&reconnecting, Some(&reason)), (&ready, None)]);
    // It keeps what it has.
    world.service.kill_and_restart().await;
    world.service.tenant("acme").until_state("ready").await;
}

#[tokio::test]
async fn who_was_replaced_before_a_restart_believes_it_after_it() {
    // Two services on copies of one directory would take each other's place for ever.
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let replaced = json!({"streamConflict": "replaced", "times": 1});
    let unconfirmed = |status: &Value| status["reason"] == "replaced_unconfirmed";
    world.fault(replaced.clone()).await;
    world.service.tenant("acme").until("the first time", unconfirmed).await;
    for signal in ["-KILL", "-TERM"] {
        world.service.signal(signal);
        world.service.ended().await;
        world.service.restart().await;
        world.service.tenant("acme").until_state("ready").await;
    }
    let acme = world.service.tenant("acme");
    world.fault(replaced.clone()).await;
    let stays = acme.until_state("replaced").await;
    assert_eq!((&stays["reason"], stays.get("retryAt")), (&json!("replaced"), None));
    assert_eq!(acme.send(BRUNO, "no").await.0.as_u16(), 409);
    // A person wants it here: whoever else has it is replaced, and this one may doubt again.
    acme.open().await;
    acme.until_state("ready").await;
    world.fault(replaced).await;
    acme.until("the first time again", unconfirmed).await;
}

#[tokio::test]
async fn a_client_that_whatsapp_does_not_accept_stops() {
    // 409 as the answer to a login.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"loginFailure": {"reason": 409}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    let stopped = acme.until("a stop", |status| status["reason"] == "refused_409").await;
    assert!(stopped.get("retryAt").is_none(), "{stopped}");
    // A person may try once more.
    world.clear_faults().await;
    acme.open().await;
    acme.until_state("ready").await;
}

#[tokio::test]
async fn a_fleet_that_lost_its_network_comes_back_at_the_rate_that_is_allowed() {
    // On a small scale.
    const RATE: u64 = 10;
    let world = World::with(Config::default(), &[AT_ONCE]).await;
    let tenants = fleet(&world, 40).await;
    let World { simulator, mut service } = world;
    // The rate is lifted for the pairing only.
    service.terminate().await;
    service.set_env("DIAL_RATE", &RATE.to_string());
    let before = simulator.world().totals();
    let started = Instant::now();
    service.restart().await;
    let world = World { simulator, service };
    let progress = health(&world).await["restoring"].clone();
    assert!(progress.is_null() || progress["total"] == 40, "{progress}");
    until_ready(&world, 40).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "30 dials beyond the burst take three seconds, and took {took:?}");
    eventually("the end of the restoring", || async { health(&world).await.get("restoring").is_none().then_some(()) })
        .await;
    assert_eq!(world.stats().await["dials"].as_u64().unwrap() - before.dials, 40, "each dialled once");
    // The network drops for all at once, and dials are refused for a while.
    world.fault(json!({"refuseConnections": true})).await;
    let dials = world.stats().await["dials"].as_u64().unwrap();
    let dropped = Instant::now();
    world.fault(json!({"closeAfterMs": 1})).await;
    eventually("every session's dial", || {
        // Read first: what is counted has happened by the time that is read after it.
        let so_far = world.simulator.world().totals().dials - dials;
        let at = dropped.elapsed();
        let allowed = RATE + (at.as_secs_f64() * RATE as f64) as u64 + 2;
        assert!(so_far <= allowed, "{so_far} dials within {at:?}");
        async move { (so_far >= 60).then_some(()) }
    })
    .await;
    world.clear_faults().await;
    until_ready(&world, 40).await;
    for (tenant, phone) in &tenants[..2] {
        world.service.tenant(tenant).send_ok(BRUNO, phone).await;
    }
}

#[tokio::test]
async fn a_person_and_messages_go_before_those_that_nobody_waits_for() {
    let mut world = World::with(Config::default(), &[AT_ONCE]).await;
    let tenants = fleet(&world, 12).await;
    world.service.terminate().await;
    // One dial in five seconds: nobody but the first comes through before the rest of this test is over.
    world.service.set_env("DIAL_RATE", "0.2");
    world.service.restart().await;
    let (last, _) = tenants.last().unwrap();
    let restoring = health(&world).await["restoring"].clone();
    assert_eq!(restoring["total"], 12, "{restoring}");
    world.service.tenant(last).queue(BRUNO, "first").await;
    let newcomer = world.service.tenant("newcomer");
    newcomer.open().await;
    newcomer.until_state("pairing_qr").await;
    assert!(health(&world).await["sessions"].as_u64() <= Some(2), "those that were restored wait behind it");
    world.until_shown(BRUNO, "first").await;
    let health = health(&world).await;
    assert!(health["sessions"].as_u64() <= Some(3), "it went before others: {health}");
}

#[tokio::test]
async fn a_login_that_the_server_never_answers_is_told_and_tried_again() {
    // Cut between the handshake and the success; nothing is written to such a connection.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"refuseConnections": true, "phone": ANA})).await;
    world.fault(json!({"streamError": "515", "times": 1, "phone": ANA})).await;
    let acme = world.service.tenant("acme");
    acme.until("a lost connection", |status| status["reason"] == "connection_lost").await;
    // A device writes to its own phone too, once it is linked.
    let before = world.count(ANA, "messages").await;
    let queued = acme.queue(BRUNO, "not yet").await;
    assert_eq!(acme.get(&format!("/messages/{}", queued["id"].as_str().unwrap())).await["attempts"], 0);
    assert_eq!(world.count(ANA, "messages").await, before);
    world.clear_faults().await;
    acme.until_fate(&queued["id"], "delivered").await;
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_is_not_ready_for_long_and_not_dialled_in_haste() {
    let world = World::with(Config::default(), &[AT_ONCE]).await;
    world.pair("acme", ANA).await;
    world.fault(json!({"closeAfterMs": 100, "phone": ANA})).await;
    let acme = world.service.tenant("acme");
    acme.until("a pause of seconds", waits_for_seconds("connection_lost")).await;
    assert!(world.count(ANA, "logins").await <= 40);
    world.clear_faults().await;
    acme.until_state("ready").await;
}

/// Ana's phone scans the code of a session, and says what came of it.
fn scan(world: &World, session: &Value) -> impl Future<Output = StatusCode> + Send + use<> {
    let url = format!("{}/admin/mock-phone/scan-qr?phone={ANA}", world.simulator.http_url());
    let request = http().post(url).body(session["qrCode"].as_str().expect("a QR code").to_owned());
    async { request.send().await.expect("the simulator answers").status() }
}

#[tokio::test]
async fn a_kill_while_a_phone_links_leaves_no_device_on_it_that_nobody_has() {
    // Kill -9 around the moment at which the phone hears of the link. Either the link is on the disk, and the
    // session comes back or learns that the phone never heard of it; or it is not, and the phone has not heard of it.
    let mut world = World::start().await;
    let mut linked = 0;
    for round in 0..9u64 {
        let tenant = format!("tenant-{round}");
        let session = world.service.tenant(&tenant).open().await;
        let mut scanned = tokio::spawn(scan(&world, &session));
        match round % 3 {
            0 => {
                for _ in 0..round * 10 {
                    tokio::task::yield_now().await;
                }
            }
            1 => {
                // As early as the link is on the disk.
                let on_disk = format!(
                    "SELECT count(*) FROM stores JOIN tenants ON tenants.key = tenant \
                     WHERE name = '{tenant}' AND instr(record, '\"paired\":true') > 0"
                );
                while world.service.count(&on_disk) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            // As early as the phone has heard of it.
            _ => assert!((&mut scanned).await.unwrap().is_success()),
        }
        world.service.kill_and_restart().await;
        scanned.abort();
        let acme = world.service.tenant(&tenant);
        let known = acme.status().await["status"] != "not_found";
        let over = |status: &Value| ["ready", "logged_out"].contains(&status["state"].as_str().unwrap_or_default());
        if known && acme.until("an end of it", over).await["state"] == "ready" {
            linked += 1;
        }
        assert_eq!(world.devices(ANA).await.len(), linked, "round {round}: known to the service: {known}");
        if world.service.tenant(&tenant).status().await["state"] != "ready" {
            world.pair(&tenant, ANA).await;
            linked += 1;
        }
        world.service.tenant(&tenant).send_ok(BRUNO, &tenant).await;
    }
}

#[tokio::test]
async fn a_client_that_gave_up_writing_is_replaced_once_there_is_room() {
    // The library tries to write down what it knows of its device ten times, and then never again.
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    world.pair("calm", BRUNO).await;
    let (acme, calm) = (world.service.tenant("acme"), world.service.tenant("calm"));
    let disk = std::path::Path::new(&disk);
    fill(disk);
    eventually("a client that gave up", || async {
        world.fault(json!({"edgeRouting": true, "phone": ANA, "times": 1})).await;
        (acme.status().await["reason"] == "storage_failed").then_some(())
    })
    .await;
    assert_eq!(acme.status().await["state"], "failed");
    assert_eq!(calm.status().await["state"], "ready", "it has nothing to write");
    std::fs::remove_file(disk.join("filler")).unwrap();
    acme.until_state("ready").await;
    assert_eq!(world.devices(ANA).await.len(), 1, "it is linked as before");
    acme.send_ok(BRUNO, "room again").await;
}

#[tokio::test]
async fn a_link_that_can_not_be_written_down_is_not_called_one() {
    // The disk is full while a phone links.
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    let acme = world.service.tenant("acme");
    let scanning = scan(&world, &acme.open().await);
    let disk = std::path::Path::new(&disk);
    fill(disk);
    assert!(!scanning.await.is_success(), "the phone was told that it is linked");
    let failed = acme.until("a failure", |status| status["reason"] == "storage_failed").await;
    assert_eq!((&failed["state"], failed.get("phone")), (&json!("failed"), None), "{failed}");
    std::fs::remove_file(disk.join("filler")).unwrap();
    eventually("room", || async { (health(&world).await["status"] == "ok").then_some(()) }).await;
    assert!(world.devices(ANA).await.is_empty());
    world.pair("acme", ANA).await;
    acme.send_ok(BRUNO, "linked anew").await;
    assert_eq!(world.devices(ANA).await.len(), 1);
}
