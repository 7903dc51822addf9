//! The way to WhatsApp: TLS, proxies, and what goes wrong between the two ends.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use whatsapp_simulator::Config;

use crate::{
    harness::{ANA, BRUNO, Service, Tenant, World, eventually, simulator},
    relay::{Kind, Mode, Relay},
};

/// Proxies on this machine are what is tested here.
const PRIVATE: (&str, &str) = ("ALLOW_PRIVATE_TARGETS", "true");

/// What is said of every proxy that fails.
const FAILED: &str = "The session's proxy does not lead to WhatsApp.";

/// The simulator's own name for itself, which no name server knows: only a proxy leads there.
const NOWHERE: &str = "whatsapp.invalid";

/// A world whose service reaches the simulator over a relay.
async fn over_relay() -> (World, Relay) {
    let simulator = simulator(Config::default()).await;
    let relay = Relay::start(Kind::Plain, simulator.addr(), Mode::Pass).await;
    let service = Service::start(&format!("ws://{}/ws/chat", relay.address), &[]).await;
    (World { simulator, service }, relay)
}

/// A world whose service reaches the simulator only through proxies.
async fn behind_proxies() -> World {
    let simulator = simulator(Config::default()).await;
    // How often all tenants together may dial is another matter.
    let service = Service::start(&format!("ws://{NOWHERE}/ws/chat"), &[("DIAL_RATE", "0"), PRIVATE]).await;
    World { simulator, service }
}

async fn proxy(world: &World, kind: Kind, mode: Mode) -> Relay {
    Relay::start(kind, world.simulator.addr(), mode).await
}

/// `POST /session` with this proxy, or none.
async fn open_through(tenant: Tenant<'_>, proxy: impl Into<Option<String>>) -> Value {
    let (status, body) = tenant.call(Method::POST, "/session", Some(json!({"proxy": proxy.into()}))).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Somebody who answers everyone with this, one after the other, whatever they say.
async fn answering(answers: &'static [&'static [u8]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                for answer in answers {
                    let _ = stream.read(&mut [0; 1_024]).await;
                    let _ = stream.write_all(answer).await;
                }
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// A small file, another one for each relay.
fn base64(relay: &Relay) -> String {
    BASE64_STANDARD.encode(relay.address.to_string())
}

/// How many sockets the service holds.
fn sockets(service: &Service) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[tokio::test]
async fn a_session_over_tls_is_linked_and_sends() {
    let world = World::with_tls(true).await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "by TLS").await;
    world.until_shown(BRUNO, "by TLS").await;
}

#[tokio::test]
async fn a_server_whose_root_nobody_trusts_is_not_spoken_to() {
    let world = World::with_tls(false).await;
    let acme = world.service.tenant("acme");
    acme.open().await;
    let refused = acme.until("a reason", |status| status["reason"].is_string()).await;
    assert!(refused["message"].as_str().unwrap().contains("certificate"), "{refused}");
    assert_eq!((&refused["status"], refused.get("qrCode")), (&json!("initializing"), None), "{refused}");
    assert_eq!(world.stats().await["dials"], 0, "not even the upgrade was asked for");
}

#[tokio::test]
async fn a_connection_cut_before_it_stands_is_tried_again_and_leaves_nothing_behind() {
    // Cut at once, in the request for the upgrade, in its answer, in the Noise handshake, in the login.
    let world = behind_proxies().await;
    world.service.tenant("warm").open().await;
    let before = sockets(&world.service);
    let mut tenants = Vec::new();
    let cuts = [0, 1, 40, 100, 160, 250, 400].map(Mode::CutAnswer);
    let cuts = cuts.into_iter().chain([1, 100, 300].map(Mode::CutRequest)).chain([Mode::Refuse]);
    for (number, cut) in cuts.enumerate() {
        let relay = proxy(&world, Kind::Socks5(None), cut).await;
        let name = format!("tenant-{number}");
        open_through(world.service.tenant(&name), format!("socks5://{}", relay.address)).await;
        tenants.push((name, relay, cut));
    }
    for (name, relay, cut) in &tenants {
        eventually(&format!("two dials with {cut:?}"), || async { (relay.accepted() >= 2).then_some(()) }).await;
        let status = world.service.tenant(name).status().await;
        assert_eq!((&status["status"], status.get("qrCode")), (&json!("initializing"), None), "{cut:?}: {status}");
    }
    for (_, relay, _) in &tenants {
        relay.set(Mode::Pass);
    }
    for (name, _, cut) in &tenants {
        // Somebody who asks waits out no pause.
        world.service.tenant(name).open().await;
        let status = world.service.tenant(name).until("a QR code", |status| status["qrCode"].is_string()).await;
        assert!(status.get("reason").is_none(), "{cut:?}: {status}");
    }
    // One for each session, and what the calls of this test may hold.
    eventually("no more sockets than sessions", || async {
        (sockets(&world.service) <= before + tenants.len() + 10).then_some(())
    })
    .await;
    for (name, relay, cut) in &tenants {
        eventually("one connection", || async { (relay.open() == 1).then_some(()) }).await;
        assert_eq!(world.service.tenant(name).call(Method::DELETE, "/session", None).await.0, 200, "{cut:?}");
        eventually("no connection", || async { (relay.open() == 0).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_a_connection_and_says_nothing_is_given_up_in_time() {
    // The limit for a connection attempt is 15 seconds.
    let (world, relay) = over_relay().await;
    relay.set(Mode::Silent);
    let acme = world.service.tenant("acme");
    acme.open().await;
    let opened = Instant::now();
    let given_up = acme.until("a reason", |status| status["reason"] == "connection_failed").await;
    assert!(opened.elapsed() < Duration::from_secs(20), "after {:?}: {given_up}", opened.elapsed());
    relay.set(Mode::Pass);
    acme.until("a QR code", |status| status["qrCode"].is_string()).await;
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_frame_loses_and_doubles_nothing() {
    // In both directions.
    let (world, relay) = over_relay().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    relay.set(Mode::CutAnswer(20));
    world.write(BRUNO, ANA, "cut on its way in").await;
    acme.until_state("reconnecting").await;
    relay.set(Mode::Pass);
    let came = |told: &[Value]| told.iter().any(|message| message["text"] == "cut on its way in");
    acme.until_told("message.received", came).await;
    acme.until_state("ready").await;
    relay.set(Mode::CutRequest(20));
    let sent = acme.queue(BRUNO, "cut on its way out").await;
    acme.until_state("reconnecting").await;
    relay.set(Mode::Pass);
    acme.until_fate(&sent["id"], "delivered").await;
    assert_eq!(world.until_shown(BRUNO, "cut on its way out").await.len(), 1);
    let told = acme.told("message.received").await;
    assert_eq!(told.iter().filter(|message| message["text"] == "cut on its way in").count(), 1, "{told:?}");
}

#[tokio::test]
async fn a_connection_that_is_open_on_this_side_only_is_noticed_within_a_minute() {
    // Nothing is sent meanwhile: an idle session must notice it too.
    let (world, relay) = over_relay().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    relay.set(Mode::Silent);
    let silent = Instant::now();
    let lost = acme.until("not ready", |status| status["state"] != "ready").await;
    assert!(silent.elapsed() < Duration::from_secs(60), "after {:?}", silent.elapsed());
    assert_eq!((&lost["status"], &lost["canSend"]), (&json!("initializing"), &json!(false)));
    relay.set(Mode::Pass);
    acme.until_state("ready").await;
    acme.send_ok(BRUNO, "here again").await;
}

#[tokio::test]
async fn a_server_that_no_longer_reads_holds_neither_a_message_nor_a_deletion() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("other", BRUNO).await;
    let (acme, other) = (world.service.tenant("acme"), world.service.tenant("other"));
    world.fault(json!({"stallReads": true})).await;
    let stalled = Instant::now();
    let sent = acme.queue(BRUNO, "nobody reads this").await;
    let deleting = Instant::now();
    assert_eq!(other.call(Method::DELETE, "/session", None).await.0, 200);
    assert!(deleting.elapsed() < Duration::from_secs(15), "after {:?}", deleting.elapsed());
    let lost = acme.until("not ready", |status| status["state"] != "ready").await;
    assert!(stalled.elapsed() < Duration::from_secs(30), "after {:?}: {lost}", stalled.elapsed());
    world.clear_faults().await;
    acme.until_state("ready").await;
    acme.until_fate(&sent["id"], "delivered").await;
    assert_eq!(world.until_shown(BRUNO, "nobody reads this").await.len(), 1);
}

#[tokio::test]
async fn a_tenant_with_one_byte_a_second_slows_down_nobody_else() {
    let world = behind_proxies().await;
    let (slow, fast) =
        (proxy(&world, Kind::Socks5(None), Mode::Pass).await, proxy(&world, Kind::Socks5(None), Mode::Pass).await);
    for (tenant, relay, phone) in [("slow", &slow, ANA), ("fast", &fast, BRUNO)] {
        open_through(world.service.tenant(tenant), format!("socks5://{}", relay.address)).await;
        world.pair(tenant, phone).await;
    }
    let (stuck, swift) = (world.service.tenant("slow"), world.service.tenant("fast"));
    swift.send_ok(ANA, "before").await;
    slow.set(Mode::Trickle);
    let mut waiting = Vec::new();
    for number in 0..5 {
        waiting.push(stuck.queue(BRUNO, &format!("slow {number}")).await);
    }
    let started = Instant::now();
    for number in 0..20 {
        swift.send_ok(ANA, &format!("fast {number}")).await;
    }
    assert!(started.elapsed() < Duration::from_secs(15), "20 messages took {:?}", started.elapsed());
    slow.set(Mode::Pass);
    for message in waiting {
        stuck.until_fate(&message["id"], "delivered").await;
    }
}

#[tokio::test]
async fn a_session_goes_through_its_proxy_and_its_password_is_told_to_nobody() {
    let mut world = behind_proxies().await;
    let acme = world.service.tenant("acme");
    // Without a proxy there is no way: nobody here knows the server's name.
    acme.open().await;
    acme.until("a reason", |status| status["reason"] == "connection_failed").await;
    let relay = proxy(&world, Kind::Socks5(Some(("acme-user", "pa:ss@word"))), Mode::Pass).await;
    let shown = json!(format!("socks5://{}", relay.address));
    let body = open_through(acme, format!("socks5://acme-user:pa%3Ass%40word@{}", relay.address)).await;
    assert_eq!(body["proxy"], shown, "{body}");
    world.pair("acme", ANA).await;
    assert_eq!(relay.asked_for()[0], format!("{NOWHERE}:80"), "the proxy looks up the name");
    // It survives a restart, and a call that does not speak of it.
    let before = relay.accepted();
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    assert!(relay.accepted() > before);
    assert_eq!(acme.open().await["proxy"], shown);
    acme.send_ok(BRUNO, "by proxy").await;
    world.until_shown(BRUNO, "by proxy").await;
    let (_, list) = acme.call(Method::GET, "/sessions", None).await;
    let told = [world.service.log.text(), acme.status().await.to_string(), list.to_string()].concat();
    assert!(["acme-user", "pa:ss", "pa%3Ass", "ss@word"].iter().all(|secret| !told.contains(secret)));
    // A device that was unlinked keeps its way.
    world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/1"), "").await;
    acme.until_state("logged_out").await;
    assert!(acme.open().await["qrCode"].is_string());
    assert_eq!(acme.status().await["proxy"], shown);
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 200);
    assert!(acme.open().await.get("proxy").is_none(), "a session that was deleted leaves nothing");
}

#[tokio::test]
async fn media_goes_through_the_tenants_proxy_both_ways_and_never_around_it() {
    let world = World::with_tls_and(true, &[PRIVATE]).await;
    let tls = world.tls_address();
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    for kind in [Kind::Http(Some(("user", "password"))), Kind::Socks5(None)] {
        let relay = Relay::start(kind, tls, Mode::Pass).await;
        let url = match kind {
            Kind::Http(_) => format!("http://user:password@{}", relay.address),
            _ => format!("socks5://{}", relay.address),
        };
        open_through(acme, url).await;
        acme.until_state("ready").await;
        let sent =
            acme.call(Method::POST, "/send", Some(json!({"to": BRUNO, "media": {"base64": base64(&relay)}}))).await;
        assert_eq!(sent.0, 200, "{}", sent.1);
        assert_eq!(relay.accepted(), 2, "the session's own connection, and one for the upload");

        let file = json!({"mimetype": "text/plain", "filename": "a.txt", "base64": base64(&relay)});
        let message = json!({"to": ANA, "media": file}).to_string();
        let id = world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/messages"), message).await["id"].clone();
        let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
        let told = told.iter().find(|one| one["id"] == id).unwrap();
        let path = told["mediaUrl"].as_str().unwrap();
        // The only way there is the proxy.
        relay.set(Mode::Refuse);
        let (status, refused) = acme.call(Method::GET, path, None).await;
        assert_eq!((status.as_u16(), &refused["code"]), (502, &json!("media_unavailable")), "{refused}");
        relay.set(Mode::Pass);
        acme.until_state("ready").await;
        let before = relay.accepted();
        let got = world.service.request(Method::GET, path).header("X-Tenant-Id", "acme").send().await.unwrap();
        assert_eq!((got.status().as_u16(), got.text().await.unwrap()), (200, relay.address.to_string()));
        assert_eq!(relay.accepted(), before + 1);
    }
}

#[tokio::test]
async fn a_proxy_is_changed_and_removed_while_the_session_runs() {
    let mut world = World::with_tls_and(true, &[PRIVATE]).await;
    let tls = world.tls_address();
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let first = Relay::start(Kind::Http(Some(("user", "password"))), tls, Mode::Pass).await;
    let second = Relay::start(Kind::Socks5(None), tls, Mode::Pass).await;
    open_through(acme, format!("http://user:password@{}", first.address)).await;
    acme.until_state("ready").await;
    assert_eq!((first.asked_for(), first.open()), (vec![tls.to_string()], 1));
    acme.send_ok(BRUNO, "one").await;
    // The same again changes nothing.
    open_through(acme, format!("http://user:password@{}", first.address)).await;
    acme.send_ok(BRUNO, "two").await;
    assert_eq!(first.accepted(), 1);
    open_through(acme, format!("socks5://{}", second.address)).await;
    acme.until_state("ready").await;
    eventually("the old way is left", || async { (first.open() == 0).then_some(()) }).await;
    assert_eq!((second.asked_for(), second.open()), (vec![tls.to_string()], 1));
    acme.send_ok(BRUNO, "three").await;
    let body = open_through(acme, None::<String>).await;
    assert!(body.get("proxy").is_none(), "{body}");
    acme.until_state("ready").await;
    eventually("the old way is left", || async { (second.open() == 0).then_some(()) }).await;
    acme.send_ok(BRUNO, "four").await;
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
    assert_eq!(world.devices(ANA).await.len(), 1, "it is the same device all the while");
    // One that leads nowhere is not gone around, also not by the next process.
    second.set(Mode::Refuse);
    open_through(acme, format!("socks5://{}", second.address)).await;
    acme.until("a reason", |status| status["reason"] == "proxy_failed").await;
    let logins = world.stats().await["logins"].clone();
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until("a reason", |status| status["reason"] == "proxy_failed").await;
    assert_eq!(world.stats().await["logins"], logins);
    second.set(Mode::Pass);
    acme.until_state("ready").await;
}

#[tokio::test]
async fn a_proxy_that_leads_nowhere_is_named_and_tried_again() {
    let world = behind_proxies().await;
    for (name, kind, mode, url) in [
        ("closed", Kind::Socks5(None), Mode::Refuse, "socks5://"),
        ("refused", Kind::Socks5(Some(("user", "right"))), Mode::Pass, "socks5://user:wrong@"),
        ("refused-http", Kind::Http(Some(("user", "right"))), Mode::Pass, "http://user:wrong@"),
    ] {
        let relay = proxy(&world, kind, mode).await;
        let tenant = world.service.tenant(name);
        open_through(tenant, format!("{url}{}", relay.address)).await;
        let status = tenant.until("a reason", |status| status["reason"].is_string()).await;
        assert_eq!((&status["reason"], &status["state"]), (&json!("proxy_failed"), &json!("connecting")), "{status}");
        assert_eq!(status["message"], FAILED, "{status}");
        eventually("another attempt", || async { (relay.accepted() >= 2).then_some(()) }).await;
        if mode == Mode::Refuse {
            relay.set(Mode::Pass);
        } else {
            open_through(tenant, format!("{}{}", url.replace("wrong", "right"), relay.address)).await;
        }
        let status = tenant.until("a QR code", |status| status["qrCode"].is_string()).await;
        assert!(status.get("reason").is_none(), "{status}");
    }
    assert!(!world.service.log.text().contains("user:"));
}

#[tokio::test]
async fn whoever_chooses_a_proxy_learns_nothing_of_what_is_there() {
    // A port that nobody listens on, one that says nothing, a web server, one that lets everything pass and leads to SSH
    // or to silence, a wrong password, a name that nobody has: over TLS, as WhatsApp is reached.
    let world = World::with_tls_and(true, &[PRIVATE, ("DIAL_RATE", "0")]).await;
    let closed = free_port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = answering(&[b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]).await;
    let to_ssh = answering(&[b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"]).await;
    let to_silence = answering(&[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
    let ssh = answering(&[b"SSH-2.0-OpenSSH_9.2\r\n"]).await;
    let strict = Relay::start(Kind::Socks5(Some(("user", "right"))), world.tls_address(), Mode::Pass).await;
    let proxies = [
        ("closed", format!("socks5://127.0.0.1:{closed}")),
        ("closed-http", format!("http://127.0.0.1:{closed}")),
        ("silent", format!("socks5://{}", silent.local_addr().unwrap())),
        ("silent-http", format!("http://{}", silent.local_addr().unwrap())),
        ("web", format!("http://{web}")),
        ("web-socks", format!("socks5://{web}")),
        ("to-ssh", format!("http://{to_ssh}")),
        ("to-silence", format!("http://{to_silence}")),
        ("ssh", format!("http://{ssh}")),
        ("wrong", format!("socks5://user:wrong@{}", strict.address)),
        ("nobody", "socks5://nobody.invalid:1080".into()),
    ];
    for (name, url) in &proxies {
        open_through(world.service.tenant(name), url.clone()).await;
    }
    for (name, _) in &proxies {
        let tenant = world.service.tenant(name);
        let status = tenant.until("a reason", |status| status["reason"].is_string()).await;
        assert_eq!(
            (&status["reason"], &status["message"]),
            (&json!("proxy_failed"), &json!(FAILED)),
            "{name}: {status}"
        );
        let (_, events) = tenant.call(Method::GET, "/events", None).await;
        let events = events.to_string();
        assert!(["refused", "timed", "answer", "TLS", "lookup"].iter().all(|word| !events.contains(word)), "{events}");
    }
    // Whoever runs the service sees the cause, and whose it is.
    for (name, cause) in [
        ("closed", "Connection refused"),
        ("nobody", "lookup"),
        ("silent", "no answer within 10s"),
        ("to-ssh", "InvalidContentType"),
    ] {
        let log = world.service.log.text();
        let line = log
            .lines()
            .find(|line| line.contains("does not lead to WhatsApp") && line.contains(&format!("\"{name}\"")));
        assert!(line.is_some_and(|line| line.contains(cause)), "{name}: {line:?}");
    }
}

#[tokio::test]
async fn a_proxy_at_a_private_address_needs_the_operators_word() {
    let mut world = World::start().await;
    let relay = proxy(&world, Kind::Socks5(None), Mode::Pass).await;
    let acme = world.service.tenant("acme");
    for address in [relay.address.to_string(), "10.1.2.3:1080".into(), "[::1]:1080".into(), "169.254.169.254:80".into()]
    {
        for scheme in ["socks5", "http"] {
            let body = json!({"proxy": format!("{scheme}://{address}")});
            let (status, body) = acme.call(Method::POST, "/session", Some(body)).await;
            assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_proxy")), "{address}: {body}");
            assert!(body["message"].as_str().unwrap().contains("ALLOW_PRIVATE_TARGETS"), "{body}");
        }
    }
    assert_eq!(acme.status().await, json!({"status": "not_found"}), "nothing was begun");
    // A name is looked up when it is dialled, and what it leads to is not spoken to.
    let name = format!("socks5://localhost:{}", relay.address.port());
    open_through(acme, name.clone()).await;
    let status = acme.until("a reason", |status| status["reason"].is_string()).await;
    assert_eq!((&status["reason"], &status["message"]), (&json!("proxy_failed"), &json!(FAILED)), "{status}");
    eventually("the cause in the log", || async {
        world.service.log.text().contains("which needs ALLOW_PRIVATE_TARGETS=true").then_some(())
    })
    .await;
    assert_eq!(relay.accepted(), 0);
    // One that was allowed once is no longer when the operator takes back the word.
    world.service.set_env("ALLOW_PRIVATE_TARGETS", "true");
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    open_through(acme, format!("socks5://{}", relay.address)).await;
    world.pair("acme", ANA).await;
    assert!(relay.accepted() > 0);
    world.service.set_env("ALLOW_PRIVATE_TARGETS", "false");
    world.service.kill_and_restart().await;
    let (acme, accepted) = (world.service.tenant("acme"), relay.accepted());
    acme.until("a reason", |status| status["reason"] == "proxy_failed").await;
    assert_eq!(relay.accepted(), accepted);
}

#[tokio::test]
async fn what_is_no_proxy_is_refused_with_the_fields_name() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    for wrong in ["proxy.example:1080", "https://proxy.example:443", "socks5://user@host:1", "socks5://host", ""] {
        let (status, body) = acme.call(Method::POST, "/session", Some(json!({"proxy": wrong}))).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_proxy")), "{wrong}: {body}");
        assert!(body["message"].as_str().unwrap().starts_with("`proxy`: "), "{body}");
    }
    let (status, body) = acme.call(Method::POST, "/session", Some(json!({"proxy": 1}))).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("proxy"), "{body}");
    assert_eq!(acme.status().await, json!({"status": "not_found"}), "nothing was begun");
}
