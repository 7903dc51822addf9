//! Webhooks: every event, in order, at least once, signed; and what receivers do is nobody else's trouble.

use std::{
    net::TcpListener,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::receiver::{Secret, router, verify};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    harness::{ANA, BRUNO, Program, SECRET, Tenant, World, eventually},
    receiver::{Answer, Delivery, Receiver},
};

const HOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const OTHER_SECRET: &str = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm8=";

/// A service that may post to this machine.
async fn world_with(env: &[(&str, &str)]) -> World {
    let mut all = vec![("ALLOW_PRIVATE_TARGETS", "true")];
    all.extend(env);
    World::with(Default::default(), &all).await
}

async fn put(tenant: Tenant<'_>, webhook: Value) -> Value {
    let (status, body) = tenant.call(Method::PUT, "/webhook", Some(webhook)).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn shown(tenant: Tenant<'_>) -> Value {
    let (status, body) = tenant.call(Method::GET, "/webhook", None).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until `GET /webhook` says what is wanted.
async fn until_shown(tenant: Tenant<'_>, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let last = Mutex::new(Value::Null);
    let waited = tokio::time::timeout(
        Duration::from_secs(100),
        eventually(what, || async {
            let webhook = shown(tenant).await;
            *last.lock().unwrap() = webhook.clone();
            wanted(&webhook).then_some(webhook)
        }),
    );
    waited.await.unwrap_or_else(|_| panic!("no {what}: {}", last.lock().unwrap()))
}

/// Makes two things happen to a tenant without a phone: a session that waits for one, and its end.
async fn two_events(tenant: Tenant<'_>) {
    let before = tenant.events().await.len();
    assert_eq!(tenant.open().await["state"], "pairing_qr");
    assert_eq!(tenant.call(Method::DELETE, "/session", None).await.0, 200);
    tenant
        .until_told("session.state", |told| {
            told.len() >= before + 2 && told.last().is_some_and(|last| last["state"] == "deleted")
        })
        .await;
    assert_eq!(tenant.events().await.len(), before + 2);
}

/// What a tenant's log holds, as a receiver that has got all of it has it.
async fn assert_is_the_log(taken: &[Value], tenant: Tenant<'_>) {
    assert_eq!(taken, tenant.events().await);
}

/// The events without those that came before.
fn without_repeats(taken: &[Value]) -> Vec<Value> {
    let mut ids = std::collections::HashSet::new();
    taken.iter().filter(|event| ids.insert(event["id"].as_str().unwrap())).cloned().collect()
}

fn sequences(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["sequence"].as_i64().unwrap()).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Whether a request is signed with this secret, calculated from the words of the specification.
fn is_signed(delivery: &Delivery, secret: &str) -> bool {
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let signed = [delivery.header("webhook-id"), ".", delivery.header("webhook-timestamp"), "."].concat();
    mac.update(&[signed.as_bytes(), &delivery.body].concat());
    delivery.header("webhook-signature") == format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn a_webhook_is_set_shown_changed_and_removed() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    for (method, path) in [(Method::GET, "/webhook"), (Method::DELETE, "/webhook"), (Method::POST, "/webhook/retry")] {
        let (status, body) = acme.call(method, path, None).await;
        assert_eq!((status.as_u16(), &body["code"]), (404, &json!("webhook_not_found")), "{path}");
    }
    let mut made = put(acme, json!({"url": receiver.url()})).await;
    let secret = made["secret"].take().as_str().expect("a secret of the service's own").to_owned();
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!(key.len(), 32);
    made.as_object_mut().unwrap().remove("secret");
    let all = ["message.received", "message.placeholder", "message.status", "call.missed", "session.state"];
    let expected = json!({
        "url": receiver.url(), "events": all, "scope": "tenant", "state": "active", "pending": 0, "dead": 0,
    });
    assert_eq!(made, expected);
    assert_eq!(shown(acme).await, expected, "it never says the secret again");
    assert_eq!(put(acme, json!({"url": receiver.url()})).await, expected, "another PUT keeps the secret");
    two_events(acme).await;
    let taken = receiver.until_taken("two events", |taken| taken.len() == 2).await;
    assert_is_the_log(&taken, acme).await;
    assert!(receiver.deliveries().iter().all(|delivery| is_signed(delivery, &secret)));

    let other = world.service.tenant("other");
    assert_ne!(put(other, json!({"url": receiver.url()})).await["secret"], secret, "nobody gets another's secret");
    let changed = put(acme, json!({"url": receiver.url(), "secret": HOOK_SECRET, "events": ["session.state"]})).await;
    assert_eq!((changed.get("secret"), &changed["events"]), (None, &json!(["session.state"])));
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    assert_eq!(shown(acme).await, changed);
    two_events(acme).await;
    receiver.until_taken("two more", |taken| taken.len() == 4).await;
    assert!(receiver.deliveries()[2..].iter().all(|delivery| is_signed(delivery, HOOK_SECRET)));

    let (status, left) = acme.call(Method::DELETE, "/webhook", None).await;
    assert_eq!((status.as_u16(), left), (200, json!({"scope": "none"})));
    assert_eq!(acme.call(Method::GET, "/webhook", None).await.0, 404);
    two_events(acme).await;
    // What nobody wanted when it happened is not delivered to the next webhook either.
    put(acme, json!({"url": receiver.url()})).await;
    two_events(acme).await;
    let taken = receiver.until_taken("what came after that", |taken| taken.len() >= 6).await;
    assert_eq!(sequences(&taken), [1, 2, 3, 4, 7, 8]);
}

#[tokio::test]
async fn only_what_was_asked_for_is_delivered() {
    let world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url(), "events": ["message.received", "message.status"]})).await;
    world.pair("acme", ANA).await;
    acme.deliver(BRUNO, "there").await;
    world.write(BRUNO, ANA, "and back").await;
    let last = |taken: &[Value], text: &str| taken.last().is_some_and(|last| last["data"]["text"] == text);
    let taken = receiver.until_taken("what came back", |taken| last(taken, "and back")).await;
    let wanted: Vec<_> = acme.events().await.into_iter().filter(|event| event["type"] != "session.state").collect();
    assert_eq!(taken, wanted);
    put(acme, json!({"url": receiver.url(), "events": ["message.received"]})).await;
    acme.deliver(BRUNO, "there again").await;
    world.write(BRUNO, ANA, "and back again").await;
    let again = receiver.until_taken("what came back", |taken| last(taken, "and back again")).await;
    assert_eq!(again.len(), taken.len() + 1);
    let none = put(acme, json!({"url": receiver.url(), "events": []})).await;
    assert_eq!(none["events"], json!([]));
    acme.deliver(BRUNO, "for nobody").await;
    assert_eq!((receiver.taken().len(), &shown(acme).await["pending"]), (again.len(), &json!(0)));
}

#[tokio::test]
async fn no_webhook_leads_into_this_network() {
    let mut world = World::start().await;
    let acme = world.service.tenant("acme");
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).expect("a free port"));
    let [v4, v6] = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap().port());
    for url in [
        format!("http://127.0.0.1:{v4}/hook-path"),
        format!("https://127.0.0.1:{v4}/hook-path"),
        format!("http://127.1:{v4}/hook-path"),
        format!("http://2130706433:{v4}/hook-path"),
        format!("http://0x7f000001:{v4}/hook-path"),
        format!("http://0.0.0.0:{v4}/hook-path"),
        format!("http://[::1]:{v6}/hook-path"),
        format!("http://[::]:{v6}/hook-path"),
        format!("http://[::ffff:127.0.0.1]:{v4}/hook-path"),
        "http://169.254.169.254/latest/meta-data/hook-path".into(),
        "http://10.0.0.1/hook-path".into(),
        "http://192.168.0.1/hook-path".into(),
        "http://[fd00::1]/hook-path".into(),
        // What a name leads to counts too.
        format!("http://localhost:{v4}/hook-path"),
        "https://user:pw@example.com/hook-path".into(),
        "https://example.com/hook-path#fragment".into(),
        "file:///etc/hook-path".into(),
        "ftp://example.com/hook-path".into(),
        "/hook-path".into(),
        "http://".into(),
        String::new(),
        format!("https://example.com/{}", "x".repeat(2048)),
    ] {
        let (status, body) = acme.call(Method::PUT, "/webhook", Some(json!({"url": url}))).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_url")), "{url}: {body}");
        assert!(!body.to_string().contains("hook-path") && body.get("secret").is_none(), "{body}");
        let is_private = ["127", "::", "0.0.0.0", "2130706433", "0x7f", "169", "10.", "192", "[fd", "localhost"];
        if is_private.iter().any(|host| url.contains(&format!("//{host}")) || url.contains(&format!("[{host}"))) {
            assert!(body["message"].as_str().unwrap().contains("ALLOW_PRIVATE_TARGETS"), "{url}: {body}");
        }
    }
    assert_eq!(acme.call(Method::GET, "/webhook", None).await.0, 404, "nothing of that was kept");

    // A name that leads nowhere yet is taken. What it leads to is seen again when something is to be delivered.
    put(acme, json!({"url": "http://nowhere.invalid/hook-path"})).await;
    world.service.terminate().await;
    world.service.set_env("ALLOW_PRIVATE_TARGETS", "true");
    world.service.restart().await;
    put(world.service.tenant("acme"), json!({"url": format!("http://localhost:{v4}/hook-path")})).await;
    world.service.terminate().await;
    world.service.set_env("ALLOW_PRIVATE_TARGETS", "false");
    world.service.restart().await;
    let acme = world.service.tenant("acme");
    two_events(acme).await;
    let refused = until_shown(acme, "two refusals", |webhook| webhook["failures"].as_u64() > Some(1)).await;
    assert_eq!((&refused["state"], &refused["lastError"]), (&json!("failing"), &json!("the address is not allowed")));
    let log = world.service.log.text();
    let told: Vec<_> = log.lines().filter(|line| line.contains("a webhook does not take events")).collect();
    assert!(told.len() == 1 && told[0].contains("the address is not allowed"), "once per change: {told:?}");
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
        let connected = listener.accept().map(|(_, from)| from);
        assert_eq!(connected.expect_err("nobody").kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_said_by_name() {
    let world = world_with(&[]).await;
    let acme = world.service.tenant("acme");
    let url = "http://127.0.0.1:9/hook";
    for secret in [
        "",
        "change-me",
        "whsec_",
        "whsec_never!base64",
        "whsec_c2hvcnQ=",
        "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
        "WHSEC_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
    ] {
        let (status, body) = acme.call(Method::PUT, "/webhook", Some(json!({"url": url, "secret": secret}))).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_secret")), "{secret:?}: {body}");
        let said = body["message"].as_str().unwrap();
        assert!(said.contains("`secret`") && (secret.len() < 7 || !said.contains(secret)), "{said}");
    }
    for (body, field) in [
        (json!({"url": url, "events": ["message.status", "message.sent"]}), "events[1]"),
        (json!({"url": url, "events": "message.status"}), "events"),
        (json!({"url": url, "secret": 5}), "secret"),
        (json!({"url": 5}), "url"),
        (json!({}), "url"),
    ] {
        let (status, refused) = acme.call(Method::PUT, "/webhook", Some(body.clone())).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_body")), "{body}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains(field), "{body}: {refused}");
    }
    assert_eq!(acme.call(Method::GET, "/webhook", None).await.0, 404, "nothing of that was kept");
}

#[tokio::test]
async fn one_webhook_for_all_tenants_and_one_of_a_tenant() {
    let (all, own) = (Receiver::start().await, Receiver::start().await);
    let world = world_with(&[("WEBHOOK_URL", &all.url()), ("WEBHOOK_SECRET", HOOK_SECRET)]).await;
    let [acme, other] = ["acme", "other"].map(|id| world.service.tenant(id));
    let webhook = shown(acme).await;
    assert_eq!(
        (&webhook["scope"], &webhook["url"], &webhook["state"]),
        (&json!("all"), &json!(all.url()), &json!("active"))
    );
    assert!(!webhook.to_string().contains("whsec_"));
    two_events(acme).await;
    two_events(other).await;
    let of = |taken: &[Value], tenant: &str| {
        taken.iter().filter(|event| event["tenantId"] == tenant).cloned().collect::<Vec<_>>()
    };
    let taken = all.until_taken("everybody's events", |taken| taken.len() == 4).await;
    assert_is_the_log(&of(&taken, "acme"), acme).await;
    assert_is_the_log(&of(&taken, "other"), other).await;

    let secret = put(acme, json!({"url": own.url()})).await["secret"].as_str().expect("a secret").to_owned();
    assert_eq!((&shown(acme).await["scope"], &shown(other).await["scope"]), (&json!("tenant"), &json!("all")));
    two_events(acme).await;
    two_events(other).await;
    own.until_taken("the tenant's events", |taken| sequences(taken) == [3, 4]).await;
    let taken = all.until_taken("the others' events", |taken| taken.len() == 6).await;
    assert_eq!((of(&taken, "acme").len(), sequences(&of(&taken, "other"))), (2, vec![1, 2, 3, 4]));

    let (status, left) = acme.call(Method::DELETE, "/webhook", None).await;
    assert_eq!((status.as_u16(), left), (200, json!({"scope": "all"})));
    two_events(acme).await;
    let taken = all.until_taken("its events again", |taken| taken.len() == 8).await;
    assert_eq!(sequences(&of(&taken, "acme")), [1, 2, 5, 6]);
    assert_eq!(own.taken().len(), 2);
    assert!(all.deliveries().iter().all(|delivery| is_signed(delivery, HOOK_SECRET)));
    assert!(own.deliveries().iter().all(|delivery| is_signed(delivery, &secret)));
    assert_eq!(acme.call(Method::DELETE, "/webhook", None).await.0, 404, "the one for all is not a tenant's to remove");
}

#[tokio::test]
async fn the_operators_own_webhook_may_be_in_this_network() {
    let all = Receiver::start().await;
    for url in [all.url(), all.url().replace("127.0.0.1", "localhost")] {
        let world = World::with(Default::default(), &[("WEBHOOK_URL", &url), ("WEBHOOK_SECRET", HOOK_SECRET)]).await;
        let taken = all.taken().len();
        two_events(world.service.tenant("acme")).await;
        all.until_taken("two events", |all| all.len() == taken + 2).await;
        // The tenants' own may not.
        let body = json!({"url": all.url()});
        assert_eq!(world.service.tenant("acme").call(Method::PUT, "/webhook", Some(body)).await.0, 400);
        assert!(!world.service.log.text().contains("a webhook does not take events"));
    }
}

#[tokio::test]
async fn what_becomes_of_a_webhook_is_logged_once() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    put(world.service.tenant("acme"), json!({"url": receiver.url()})).await;
    receiver.answer(Answer::Status(500));
    two_events(world.service.tenant("acme")).await;
    until_shown(world.service.tenant("acme"), "failures", |webhook| webhook["failures"].as_u64() > Some(2)).await;
    receiver.answer(Answer::Status(204));
    receiver.until_taken("two events", |taken| taken.len() == 2).await;
    let logged = |what: &str| world.service.log.text().matches(what).count();
    eventually("its recovery in the log", || async { (logged("a webhook takes events again") == 1).then_some(()) })
        .await;
    assert_eq!(logged("a webhook does not take events"), 1);
    // One that can't be read any more is no line each second.
    receiver.answer(Answer::Status(500));
    two_events(world.service.tenant("acme")).await;
    world.service.database().execute("UPDATE webhooks SET url = CAST(x'ff' AS TEXT)", ()).unwrap();
    world.service.kill_and_restart().await;
    let unreadable = "a webhook can't be read";
    let logged = |what: &str| world.service.log.text().matches(what).count();
    eventually("it in the log", || async { (logged(unreadable) > 0).then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(logged(unreadable), 1);
    receiver.answer(Answer::Status(204));
    let (status, body) = world
        .service
        .tenant("acme")
        .call(Method::PUT, "/webhook", Some(json!({"url": receiver.url(), "secret": HOOK_SECRET})))
        .await;
    assert_eq!(status, 200, "{body}");
    receiver.until_taken("all events", |taken| taken.len() == 4).await;
    let again = "can be read and written down again";
    eventually("that it can", || async { (logged(again) == 1).then_some(()) }).await;
}

#[tokio::test]
async fn what_waits_goes_to_the_webhook_that_counts_by_then() {
    let (all, own) = (Receiver::start().await, Receiver::start().await);
    let world = world_with(&[("WEBHOOK_URL", &all.url()), ("WEBHOOK_SECRET", HOOK_SECRET)]).await;
    all.answer(Answer::Status(500));
    let acme = world.service.tenant("acme");
    two_events(acme).await;
    until_shown(acme, "a failure", |webhook| webhook["state"] == "failing" && webhook["pending"] == 2).await;
    let changed = put(acme, json!({"url": own.url(), "secret": OTHER_SECRET})).await;
    assert_eq!(changed.get("lastError"), None, "what the other one did is forgotten");
    own.until_taken("what waited", |taken| sequences(taken) == [1, 2]).await;
    assert!(own.deliveries().iter().all(|delivery| is_signed(delivery, OTHER_SECRET)));
}

#[tokio::test]
async fn it_does_not_start_with_a_webhook_that_it_can_t_use() {
    let data = TempDir::new().unwrap();
    let url = ("WEBHOOK_URL", "https://example.com/hook-path");
    for (env, mention, hidden) in [
        (vec![url], "WEBHOOK_SECRET is not", "hook-path"),
        (vec![url, ("WEBHOOK_SECRET", "")], "WEBHOOK_SECRET", "hook-path"),
        (vec![url, ("WEBHOOK_SECRET", "not-what-it-must-be")], "whsec_", "not-what-it-must-be"),
        (vec![url, ("WEBHOOK_SECRET", "whsec_dG9vIHNob3J0")], "24 to 64", "dG9vIHNob3J0"),
        (vec![("WEBHOOK_URL", "http://0.0.0.0:9/"), ("WEBHOOK_SECRET", HOOK_SECRET)], "WEBHOOK_URL", HOOK_SECRET),
        (vec![("WEBHOOK_URL", "ftp://example.com/"), ("WEBHOOK_SECRET", HOOK_SECRET)], "https://", HOOK_SECRET),
    ] {
        let output = Program::sandbox("ws://127.0.0.1:1/ws/chat", &env).command(data.path()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains(mention), "{env:?}: {complaint}");
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!complaint.contains(hidden) && !log.contains(hidden), "{env:?}: {complaint}");
    }
}

#[tokio::test]
async fn a_delivery_is_signed_and_says_which_event_it_is() {
    let world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url(), "secret": HOOK_SECRET})).await;
    receiver.answer_first([Answer::Status(500), Answer::Status(503)]);
    two_events(acme).await;
    let taken = receiver.until_taken("two events", |taken| taken.len() == 2).await;
    assert_is_the_log(&taken, acme).await;
    let deliveries = receiver.deliveries();
    let (secret, wrong): (Secret, Secret) = (HOOK_SECRET.parse().unwrap(), OTHER_SECRET.parse().unwrap());
    for delivery in &deliveries {
        let (event, at) = (delivery.event(), delivery.header("webhook-timestamp").parse::<u64>().unwrap());
        assert_eq!(delivery.header("content-type"), "application/json");
        assert_eq!(event["id"], delivery.header("webhook-id"));
        assert!(now().abs_diff(at) < 30, "{at}");
        assert!(is_signed(delivery, HOOK_SECRET) && !is_signed(delivery, OTHER_SECRET));
        let check = |secret, body: &[u8]| verify(secret, &delivery.headers, body, SystemTime::now());
        assert_eq!(check(&secret, &delivery.body), Ok(()));
        assert!(check(&wrong, &delivery.body).is_err());
        assert!(check(&secret, &[&delivery.body[..], b" "].concat()).is_err());
        let fields = ["data", "id", "sequence", "tenantId", "timestamp", "type"];
        assert!(event.as_object().unwrap().keys().eq(fields), "{event}");
    }
    // Three attempts with the first event, then the second one.
    let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.header("webhook-id")).collect();
    assert_eq!((deliveries.len(), ids[0], ids[1]), (4, ids[1], ids[2]));
    assert_eq!(deliveries[0].body, deliveries[2].body, "the same event, to the letter");
    assert_ne!(deliveries[0].header("webhook-timestamp"), deliveries[2].header("webhook-timestamp"));
    assert_ne!(ids[2], ids[3]);
}

#[tokio::test]
async fn a_receiver_that_is_down_gets_everything_when_it_is_back() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    put(world.service.tenant("acme"), json!({"url": receiver.url()})).await;
    two_events(world.service.tenant("acme")).await;
    receiver.until_taken("two events", |taken| taken.len() == 2).await;
    let address = receiver.stop().await;
    let acme = world.service.tenant("acme");
    two_events(acme).await;
    two_events(acme).await;
    let before = until_shown(acme, "three failures", |webhook| webhook["failures"] == 3).await;
    assert_eq!((&before["state"], &before["pending"], &before["dead"]), (&json!("failing"), &json!(4), &json!(0)));
    assert_eq!(before["lastError"], "could not connect");
    assert!(before["nextAttemptAt"].is_string());
    // The next process does not begin anew with a receiver that fails.
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    assert_eq!(shown(acme).await, before);
    let receiver = Receiver::start_at(address).await;
    let taken = receiver.until_taken("what waited", |taken| taken.len() == 4).await;
    assert_eq!(taken, acme.events().await[2..], "all of it, in order");
    let first = receiver.deliveries()[0].header("webhook-timestamp").parse::<i64>().unwrap();
    assert!(first >= unix_seconds(&before["nextAttemptAt"]), "not before its time");
    let after = until_shown(acme, "nothing pending", |webhook| webhook["pending"] == 0).await;
    assert_eq!((&after["state"], after.get("failures"), after.get("lastError")), (&json!("active"), None, None));
}

#[tokio::test]
async fn kill_9_repeats_deliveries_but_loses_and_reorders_none() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    put(world.service.tenant("acme"), json!({"url": receiver.url()})).await;
    // Killed while the receiver has got an event, and has not said so yet.
    receiver.answer(Answer::Nothing);
    two_events(world.service.tenant("acme")).await;
    let first = receiver.until_asked(1).await[0].header("webhook-id").to_owned();
    world.service.signal("-KILL");
    world.service.ended().await;
    receiver.answer(Answer::Status(204));
    world.service.restart().await;
    let taken = receiver.until_taken("two events", |taken| without_repeats(taken).len() == 2).await;
    assert_eq!(taken[0]["id"], first.as_str(), "the same one again");
    // And at whatever moment.
    for _ in 0..4 {
        two_events(world.service.tenant("acme")).await;
        world.service.kill_and_restart().await;
    }
    let taken = receiver.until_taken("all events", |taken| without_repeats(taken).len() == 10).await;
    assert_is_the_log(&without_repeats(&taken), world.service.tenant("acme")).await;
    // Only a new process goes back, and nobody goes ahead.
    let asked = sequences(&taken);
    let back = asked.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert!(back <= 4 && asked.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{asked:?}");
}

#[tokio::test]
async fn an_event_that_is_not_taken_holds_those_behind_it() {
    let world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url()})).await;
    receiver.answer_first([Answer::Status(500), Answer::Status(404), Answer::Status(500)]);
    two_events(acme).await;
    until_shown(acme, "a failure", |webhook| webhook["lastError"] == "the receiver answered 404").await;
    // What comes meanwhile does not hurry it.
    two_events(acme).await;
    let taken = receiver.until_taken("four events", |taken| taken.len() == 4).await;
    assert_is_the_log(&taken, acme).await;
    let deliveries = receiver.deliveries();
    let asked: Vec<_> = deliveries.iter().map(|delivery| delivery.event()["sequence"].as_i64().unwrap()).collect();
    assert_eq!(asked, [1, 1, 1, 1, 2, 3, 4]);
    let pauses: Vec<_> = deliveries.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
    for (pause, least) in pauses.iter().zip([0.7, 1.4, 2.9]) {
        assert!(*pause > least, "{pauses:?}");
    }
}

#[tokio::test]
async fn somebody_who_knows_better_ends_the_wait() {
    let world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url()})).await;
    receiver.answer(Answer::Status(500));
    two_events(acme).await;
    let failing = until_shown(acme, "three failures", |webhook| webhook["failures"] == 3).await;
    receiver.answer(Answer::Status(204));
    assert_eq!(acme.call(Method::POST, "/webhook/retry", None).await.1, json!({"restarted": 0}));
    let taken = receiver.until_taken("two events", |taken| taken.len() == 2).await;
    assert_is_the_log(&taken, acme).await;
    let at = receiver.deliveries()[3].header("webhook-timestamp").parse::<i64>().unwrap();
    assert!(at < unix_seconds(&failing["nextAttemptAt"]), "before its time");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = world_with(&[]).await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url()})).await;
    receiver.answer_first([301, 308].map(|status| Answer::Redirect(status, elsewhere.url())));
    two_events(acme).await;
    let failing = until_shown(acme, "the second failure", |webhook| webhook["failures"] == 2).await;
    assert_eq!(failing["lastError"], "the receiver answered 308");
    let taken = receiver.until_taken("two events", |taken| taken.len() == 2).await;
    assert_is_the_log(&taken, acme).await;
    assert_eq!(elsewhere.deliveries().len(), 0, "the other place hears nothing");
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_nobody_else() {
    let world = world_with(&[]).await;
    let (hanging, fine) = (Receiver::start().await, Receiver::start().await);
    let [acme, other] = ["acme", "other"].map(|id| world.service.tenant(id));
    world.pair("acme", ANA).await;
    put(other, json!({"url": fine.url()})).await;
    hanging.answer(Answer::Nothing);
    acme.until_told("session.state", |told| told.last().unwrap()["state"] == "ready").await;
    let before = acme.events().await.len();
    put(acme, json!({"url": hanging.url()})).await;
    for round in 0..3 {
        acme.deliver(BRUNO, &format!("while it hangs {round}")).await;
        two_events(other).await;
    }
    let taken = fine.until_taken("the other tenant's events", |taken| taken.len() == 6).await;
    assert_is_the_log(&taken, other).await;
    let waiting = hanging.until_asked(1).await;
    assert_eq!((waiting.len(), waiting[0].status), (1, None), "it hangs all the time, with one request");
    assert!(shown(acme).await["pending"].as_u64().unwrap() >= 3);
    hanging.answer(Answer::Status(200));
    let waited = acme.events().await[before..].to_vec();
    let taken = hanging.until_taken("what waited", |taken| taken.len() >= waited.len()).await;
    assert_eq!(taken, waited);
}

#[tokio::test]
async fn a_process_that_is_to_end_does_not_wait_for_a_receiver_that_hangs() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Nothing);
    put(world.service.tenant("acme"), json!({"url": receiver.url()})).await;
    two_events(world.service.tenant("acme")).await;
    receiver.until_asked(1).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(world.service.terminate().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    receiver.answer(Answer::Status(204));
    world.service.restart().await;
    let taken = receiver.until_taken("both events", |taken| without_repeats(taken).len() == 2).await;
    assert_is_the_log(&without_repeats(&taken), world.service.tenant("acme")).await;
}

#[tokio::test]
async fn what_an_old_receiver_says_late_is_not_held_against_the_new_one() {
    let world = world_with(&[]).await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": old.url()})).await;
    old.answer(Answer::Nothing);
    two_events(acme).await;
    old.until_asked(1).await;
    put(acme, json!({"url": new.url()})).await;
    old.answer(Answer::Status(410));
    let taken = new.until_taken("what waited", |taken| taken.len() == 2).await;
    assert_is_the_log(&taken, acme).await;
    let webhook = shown(acme).await;
    assert_eq!((&webhook["state"], &webhook["dead"]), (&json!("active"), &json!(0)), "{webhook}");
}

#[tokio::test]
async fn what_nobody_takes_for_too_long_is_given_up_and_can_be_had_again() {
    let world = world_with(&[("WEBHOOK_RETRY_FOR", "1")]).await;
    let receiver = Receiver::start().await;
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url()})).await;
    receiver.answer(Answer::Status(500));
    two_events(acme).await;
    let given_up = until_shown(acme, "dead events", |webhook| webhook["dead"] == 2).await;
    assert_eq!((&given_up["pending"], &given_up["lastError"]), (&json!(0), &json!("the receiver answered 500")));
    assert!(receiver.deliveries().len() > 1, "not at the first failure");
    receiver.answer(Answer::Status(204));
    two_events(acme).await;
    receiver.until_taken("what came later", |taken| sequences(taken) == [3, 4]).await;
    let (status, restarted) = acme.call(Method::POST, "/webhook/retry", None).await;
    assert_eq!((status.as_u16(), restarted), (200, json!({"restarted": 2})));
    let taken = receiver.until_taken("what was given up", |taken| taken.len() == 4).await;
    assert_eq!(sequences(&taken), [3, 4, 1, 2]);
    let after = until_shown(acme, "nothing dead", |webhook| webhook["dead"] == 0 && webhook["pending"] == 0).await;
    assert_eq!(after["state"], "active");
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_asked_nothing_more_until_somebody_says_so() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(410));
    let acme = world.service.tenant("acme");
    put(acme, json!({"url": receiver.url()})).await;
    two_events(acme).await;
    let stopped = until_shown(acme, "a stop", |webhook| webhook["dead"] == 2).await;
    assert_eq!((&stopped["state"], &stopped["pending"]), (&json!("stopped"), &json!(0)));
    assert_eq!(stopped["lastError"], "the receiver answered 410");
    two_events(acme).await;
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    two_events(acme).await;
    let still = shown(acme).await;
    assert_eq!((&still["state"], &still["dead"], &still["pending"]), (&json!("stopped"), &json!(6), &json!(0)));

    receiver.answer(Answer::Status(200));
    let (_, restarted) = acme.call(Method::POST, "/webhook/retry", None).await;
    assert_eq!(restarted, json!({"restarted": 6}));
    let taken = receiver.until_taken("all of it", |taken| taken.len() == 6).await;
    assert_is_the_log(&taken, acme).await;
    assert_eq!(receiver.deliveries().len(), 7, "one request was answered 410, and none followed it");
    until_shown(acme, "an active webhook", |webhook| webhook["state"] == "active").await;

    // A new address starts it again too, with what comes from then on.
    receiver.answer(Answer::Status(410));
    two_events(acme).await;
    until_shown(acme, "a stop", |webhook| webhook["state"] == "stopped" && webhook["dead"] == 2).await;
    let other = Receiver::start().await;
    let changed = put(acme, json!({"url": other.url()})).await;
    assert_eq!((&changed["state"], &changed["dead"]), (&json!("active"), &json!(2)));
    two_events(acme).await;
    other.until_taken("what comes then", |taken| sequences(taken) == [9, 10]).await;
}

#[tokio::test]
async fn neither_receivers_nor_the_log_learn_a_secret() {
    let mut world = world_with(&[]).await;
    let receiver = Receiver::start().await;
    let url = format!("http://{}/hook-path?token=hook-query", receiver.address());
    let acme = world.service.tenant("acme");
    let generated = put(acme, json!({"url": url})).await["secret"].as_str().unwrap().to_owned();
    let qr = acme.open().await["qrCode"].as_str().unwrap().to_owned();
    world.pair("acme", ANA).await;
    put(acme, json!({"url": url, "secret": HOOK_SECRET})).await;
    receiver.answer_first([Answer::Status(500)]);
    acme.deliver(BRUNO, "an outgoing text").await;
    world.write(BRUNO, ANA, "an incoming text").await;
    acme.until_told("message.received", |told| told.len() == 1).await;
    let log_length = acme.events().await.len();
    receiver.until_taken("everything", |taken| taken.len() >= log_length).await;
    // What goes wrong is logged; what was wrong with it is not repeated.
    acme.call(Method::PUT, "/webhook", Some(json!({"url": "ftp://hook-path/?hook-query"}))).await;
    acme.call(Method::PUT, "/webhook", Some(json!({"url": url, "secret": "whsec_hook-bad-secret"}))).await;
    receiver.answer(Answer::Status(410));
    acme.send_ok(BRUNO, "another outgoing text").await;
    until_shown(acme, "a stop", |webhook| webhook["state"] == "stopped").await;
    let deliveries = receiver.deliveries();
    receiver.stop().await;
    acme.call(Method::POST, "/webhook/retry", None).await;
    until_shown(acme, "a failure", |webhook| webhook["lastError"] == "could not connect").await;
    world.service.terminate().await;

    let log = world.service.log.text();
    assert!(log.contains("410"), "it says that a receiver is gone");
    let keys = [&generated, HOOK_SECRET].map(|secret| secret.strip_prefix("whsec_").unwrap());
    let parts_of_the_qr: Vec<_> = qr.split(',').filter(|part| part.len() > 10).collect();
    let others = ["hook-path", "hook-query", "hook-bad-secret", "outgoing text", "incoming text", SECRET, ANA, BRUNO];
    for private in keys.iter().chain(&parts_of_the_qr).chain(&others) {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(private)).collect();
        assert!(lines.is_empty(), "{private:?} is in the log: {lines:?}");
    }
    assert!(deliveries.len() > log_length);
    for delivery in deliveries {
        assert_eq!(delivery.target, "/hook-path?token=hook-query");
        let heard = format!("{:?} {}", delivery.headers, String::from_utf8_lossy(&delivery.body));
        for private in keys.iter().chain(&parts_of_the_qr).chain(&[SECRET]) {
            assert!(!heard.contains(private), "{private:?} was sent: {heard}");
        }
    }
}

#[tokio::test]
async fn the_example_in_rust_takes_real_deliveries_and_no_others() {
    let world = world_with(&[]).await;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let sink = taken.clone();
    let app = router(HOOK_SECRET.parse().unwrap(), move |event: ::receiver::Event| {
        sink.lock().unwrap().push(json!({"type": event.kind, "data": event.data, "sequence": event.sequence}));
        std::future::ready(Ok::<_, &str>(()))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    an_example_takes_real_deliveries(&world, &url, async || Vec::clone(&taken.lock().unwrap())).await;
}

#[tokio::test]
async fn the_example_in_typescript_takes_real_deliveries_and_no_others() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/receiver-ts");
    let node = std::process::Command::new("node").arg("--version").output().is_ok_and(|o| o.status.success());
    if !node || !directory.join("build/receiver.js").is_file() {
        let wanted = "Node 20 or newer, and `npm ci --ignore-scripts` and `npm run build` in examples/receiver-ts";
        assert!(std::env::var("CI").is_err(), "CI needs {wanted}");
        return eprintln!("skipped: needs {wanted}");
    }
    let world = world_with(&[]).await;
    let mut program = tokio::process::Command::new("node")
        .arg(directory.join("build/receiver.js"))
        .envs([("PORT", "0"), ("WEBHOOK_SECRET", HOOK_SECRET), ("PRINT_DATA", "1")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node starts");
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().expect("a line");
    let url = serde_json::from_str::<Value>(&first).unwrap()["listening"].as_str().unwrap().to_owned();
    let printed = Arc::new(Mutex::new(Vec::new()));
    let reading = printed.clone();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            reading.lock().unwrap().push(serde_json::from_str(&line).expect("JSON"));
        }
    });
    an_example_takes_real_deliveries(&world, &url, async || Vec::clone(&printed.lock().unwrap())).await;
}

/// `taken` gives the events that the example has handed on, as objects with `type`, `sequence` and `data`.
async fn an_example_takes_real_deliveries(world: &World, url: &str, taken: impl AsyncFn() -> Vec<Value>) {
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.until_told("session.state", |told| told.last().unwrap()["state"] == "ready").await;
    let before = acme.events().await.len();
    put(acme, json!({"url": url, "secret": HOOK_SECRET})).await;
    acme.deliver(BRUNO, "to an example").await;
    world.write(BRUNO, ANA, "for an example: «olá» 👋").await;
    acme.until_told("message.received", |told| told.len() == 1).await;
    let expected = acme.events().await[before..].to_vec();
    let events = eventually("all events", || async {
        let taken = taken().await;
        (taken.len() >= expected.len()).then_some(taken)
    })
    .await;
    assert_eq!(events.len(), expected.len());
    for (event, expected) in events.iter().zip(&expected) {
        for field in ["type", "sequence", "data"] {
            assert_eq!(event[field], expected[field]);
        }
    }
    assert_eq!(events[0]["type"], "message.status");
    assert_eq!(events.last().unwrap()["data"]["text"], "for an example: «olá» 👋");
    until_shown(acme, "everything taken", |webhook| webhook["pending"] == 0).await;

    put(acme, json!({"url": url, "secret": OTHER_SECRET})).await;
    acme.deliver(BRUNO, "signed with another secret").await;
    let refused = until_shown(acme, "a refusal", |webhook| webhook["failures"].is_number()).await;
    assert_eq!(refused["lastError"], "the receiver answered 401");
    assert_eq!(taken().await.len(), expected.len());
    // With the right one it takes what it has refused.
    put(acme, json!({"url": url, "secret": HOOK_SECRET})).await;
    let all = acme.events().await.len() - before;
    eventually("the rest", || async { (taken().await.len() == all).then_some(()) }).await;
}

fn unix_seconds(time: &Value) -> i64 {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.query_row("SELECT unixepoch(?)", [time.as_str().expect("a time")], |row| row.get(0)).unwrap()
}
