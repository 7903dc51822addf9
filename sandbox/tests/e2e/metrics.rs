//! What an operator sees: metrics that move as things happen, liveness and readiness, and the document of the interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{ANA, BRUNO, Service, World, answer, eventually, http, simulator},
    outbox_faults::{fill, world_on_a_small_disk},
};

/// What `/metrics` says, by name and labels.
struct Metrics {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// A metric, as `name` or `name{label="word"}`.
    fn get(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }
}

async fn metrics(service: &Service) -> Metrics {
    let response = service.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    Metrics { samples: samples.collect(), text }
}

/// Waits until a metric has this value.
async fn until(service: &Service, name: &str, value: f64) -> Metrics {
    eventually(&format!("{name} {value}"), || async {
        let metrics = metrics(service).await;
        (metrics.get(name) == value).then_some(metrics)
    })
    .await
}

async fn word(service: &Service, path: &str) -> (u16, String) {
    let response = http().get(format!("{}{path}", service.url)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn metrics_move_as_things_happen_and_name_nobody() {
    let world = World::with(Default::default(), &[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let service = &world.service;
    let before = metrics(service).await;
    for name in ["whatsapp_dials_total{outcome=\"opened\"}", "whatsapp_sessions{state=\"ready\"}"] {
        assert_eq!(before.get(name), 0.0, "{name}");
    }
    let acme = service.tenant("acme-tenant");
    world.pair("acme-tenant", ANA).await;
    service.tenant("waiting-tenant").open().await;
    service.tenant("waiting-tenant").until_state("pairing_qr").await;
    let paired = metrics(service).await;
    assert_eq!(paired.get("whatsapp_sessions{state=\"ready\"}"), 1.0);
    assert_eq!(paired.get("whatsapp_sessions{state=\"pairing_qr\"}"), 1.0);
    assert_eq!(paired.get("whatsapp_session_state_changes_total{state=\"ready\"}"), 1.0);
    assert!(paired.get("whatsapp_dials_total{outcome=\"opened\"}") >= 2.0);

    acme.deliver(BRUNO, "a text that nobody may see").await;
    let sent = metrics(service).await;
    assert_eq!(sent.get("whatsapp_messages_accepted_total"), 1.0);
    assert_eq!(sent.get("whatsapp_messages_total{status=\"sent\",code=\"\"}"), 1.0);
    assert_eq!(sent.get("whatsapp_messages_total{status=\"delivered\",code=\"\"}"), 1.0);
    until(service, "whatsapp_send_attempts_total{outcome=\"acknowledged\"}", 1.0).await;
    assert_eq!(sent.get("whatsapp_http_requests_total{method=\"POST\",route=\"/send\",status=\"200\"}"), 1.0);

    // Refused by WhatsApp, refused by the service, and not on WhatsApp.
    world.fault(json!({"nack": 463, "phone": ANA})).await;
    assert_eq!(acme.send(BRUNO, "no").await.0, 502);
    world.clear_faults().await;
    assert_eq!(acme.send("5511000000000", "no").await.0, 422);
    assert_eq!(service.tenant("waiting-tenant").send(BRUNO, "no").await.0, 409);
    let refused = metrics(service).await;
    assert_eq!(refused.get("whatsapp_messages_total{status=\"failed\",code=\"recipient_restricted\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_messages_total{status=\"failed\",code=\"recipient_not_on_whatsapp\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_message_refusals_total{code=\"463\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_send_attempts_total{outcome=\"refused\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_send_attempts_total{outcome=\"impossible\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_http_problems_total{code=\"session_not_ready\"}"), 1.0);
    assert_eq!(refused.get("whatsapp_http_problems_total{code=\"recipient_restricted\"}"), 1.0);

    // What comes in, and a webhook behind which nobody is.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhook = json!({"url": format!("http://{nobody}/")});
    assert_eq!(acme.call(Method::PUT, "/webhook", Some(webhook)).await.0, 200);
    world.write(BRUNO, ANA, "a secret answer").await;
    until(service, "whatsapp_messages_received_total", 1.0).await;
    let failing = eventually("a webhook that fails", || async {
        let metrics = metrics(service).await;
        (metrics.get("whatsapp_webhook_deliveries_total{outcome=\"unreachable\"}") >= 1.0).then_some(metrics)
    })
    .await;
    assert!(failing.get("whatsapp_webhook_events_pending") >= 1.0);

    // What waits.
    world.cut_off("acme-tenant", ANA).await;
    acme.queue(BRUNO, "later").await;
    let waiting = until(service, "whatsapp_outbox_messages", 1.0).await;
    assert_eq!(waiting.get("whatsapp_sessions{state=\"ready\"}"), 0.0);
    eventually("a message that gets older", || async {
        (metrics(service).await.get("whatsapp_outbox_oldest_age_seconds") > 0.05).then_some(())
    })
    .await;
    world.clear_faults().await;
    let done = until(service, "whatsapp_outbox_messages", 0.0).await;
    assert_eq!(done.get("whatsapp_outbox_oldest_age_seconds"), 0.0);

    assert_eq!(done.get("whatsapp_store_healthy"), 1.0);
    let (commits, jobs) = (done.get("whatsapp_store_commit_seconds_count"), done.get("whatsapp_store_commit_jobs_sum"));
    assert!(commits >= 5.0 && jobs >= commits, "{commits} {jobs}");
    assert!(done.get("whatsapp_store_commits_total{outcome=\"ok\"}") >= commits);
    assert_eq!(done.get("whatsapp_library_clients"), 0.0, "as it was a minute ago");
    assert!(done.get("process_resident_memory_bytes") > 1e6 && done.get("process_open_fds") > 3.0);
    assert!(done.get("process_cpu_seconds_total") > 0.0 && done.get("process_start_time_seconds") > 1.7e9);

    for secret in ["acme-tenant", "waiting-tenant", ANA, BRUNO, "5511000000000", "nobody may see", "a secret answer"] {
        assert!(!done.text.contains(secret), "{secret} in\n{}", done.text);
    }
    for line in done.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(done.text.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
}

#[tokio::test]
async fn what_the_clients_hold_is_in_the_metrics() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "so that there is a session of the ratchet").await;
    let metrics = metrics(&world.service).await;
    assert_eq!(metrics.get("whatsapp_library_clients"), 1.0);
    assert!(metrics.get("whatsapp_library_entries{collection=\"signal_sessions\"}") >= 1.0, "{}", metrics.text);
    assert!(metrics.get("whatsapp_library_bytes{collection=\"signal_sessions\"}") >= 100.0, "{}", metrics.text);
}

#[tokio::test]
async fn callers_can_not_make_the_metrics_grow() {
    let service = Service::start(&simulator(Default::default()).await.ws_url(), &[]).await;
    for n in 0..20 {
        for (method, path) in [(format!("METHOD{n}"), "/status".to_owned()), ("GET".into(), format!("/path-{n}"))] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            service.request(method, &path).send().await.unwrap();
        }
    }
    let metrics = metrics(&service).await;
    assert!(!metrics.text.contains("METHOD1") && !metrics.text.contains("path-1"));
    assert_eq!(metrics.get("whatsapp_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"}"), 20.0);
    assert_eq!(metrics.get("whatsapp_http_requests_total{method=\"other\",route=\"/status\",status=\"405\"}"), 20.0);
}

#[tokio::test]
async fn a_dashboard_asks_only_for_what_there_is() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "hello").await;
    assert_eq!(world.service.tenant("nobody").send(BRUNO, "refused").await.0, 409);
    let metrics = metrics(&world.service).await;
    let known: BTreeSet<_> =
        metrics.samples.keys().map(|sample| sample.split('{').next().unwrap().to_owned()).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/monitoring");
    for file in ["alerts.yml", "dashboard.json"] {
        let text = fs::read_to_string(format!("{folder}/{file}")).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: BTreeSet<_> =
            words.filter(|word| word.starts_with("whatsapp_") || word.starts_with("process_")).collect();
        assert!(asked.len() > 5, "{file} asks for {asked:?}");
        for name in asked {
            assert!(known.contains(name), "{file} asks for {name}, which is not there");
        }
    }
}

#[tokio::test]
async fn only_four_paths_ask_for_no_secret() {
    let service = Service::start(&simulator(Default::default()).await.ws_url(), &[]).await;
    assert_eq!(word(&service, "/livez").await, (200, "ok".into()));
    assert_eq!(word(&service, "/readyz").await, (200, "ok".into()));
    let bare = |method: Method, path: &str| http().request(method, format!("{}{path}", service.url));
    let (status, document) = answer(bare(Method::GET, "/openapi.json")).await;
    assert_eq!(status, 200);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let open = operation["security"] == json!([]);
            let status = bare(method, &path.replace("{id}", "3EB0")).send().await.unwrap().status();
            assert_eq!(status != 401, open, "{path}: {status}");
        }
    }
    for path in ["/livez", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(bare(Method::POST, path).send().await.unwrap().status(), 401, "POST {path}");
        assert_eq!(bare(Method::GET, &format!("{path}/")).send().await.unwrap().status(), 401, "{path}/");
        assert_eq!(bare(Method::HEAD, path).send().await.unwrap().status(), 200, "HEAD {path}");
        assert_eq!(answer(service.request(Method::POST, path)).await.0, 405, "POST {path}");
    }
    let page = bare(Method::GET, "/docs").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(page.contains("/openapi.json") && !page.contains("http://") && !page.contains("https://"), "{page}");
}

#[tokio::test]
async fn a_service_that_stops_is_not_ready() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"dropAcks": true, "phone": ANA})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let body = json!({"to": BRUNO, "message": "not acknowledged"});
    let waiting = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme").json(&body).send();
    let waiting = tokio::spawn(waiting);
    until(&world.service, "whatsapp_outbox_messages", 1.0).await;
    world.service.signal("-TERM");
    let ready = || http().get(format!("{}/readyz", world.service.url)).send();
    eventually("no new connections", || async { ready().await.is_err().then_some(()) }).await;
    assert!(!waiting.is_finished(), "what is under way goes on");
    assert_eq!(waiting.await.unwrap().unwrap().status(), 202);
    assert!(world.service.ended().await.success());
}

#[tokio::test]
async fn a_service_whose_disk_is_full_is_alive_and_not_ready() {
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    assert_eq!(word(&world.service, "/readyz").await.0, 200);
    let disk = Path::new(&disk);
    fill(disk);
    let acme = world.service.tenant("acme");
    eventually("a write that fails", || async {
        let body = json!({"to": BRUNO, "message": "x".repeat(5000)});
        (acme.call(Method::POST, "/send?wait=0", Some(body)).await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(word(&world.service, "/readyz").await, (503, "unavailable".into()));
    assert_eq!(word(&world.service, "/livez").await, (200, "ok".into()));
    let failing = metrics(&world.service).await;
    assert_eq!(failing.get("whatsapp_store_healthy"), 0.0);
    assert!(failing.get("whatsapp_store_commits_total{outcome=\"failed\"}") >= 1.0);
    assert!(failing.get("whatsapp_http_problems_total{code=\"storage_failed\"}") >= 1.0);
    fs::remove_file(disk.join("filler")).unwrap();
    eventually("readiness", || async { (word(&world.service, "/readyz").await.0 == 200).then_some(()) }).await;
}
