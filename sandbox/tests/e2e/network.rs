//! The way to WhatsApp: TLS, proxies, and what goes wrong between the two ends.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use whatsapp_simulator::Config;

use crate::harness::{ANA, BRUNO, Log, Program, Service, World, simulator};

/// A world whose service reaches the simulator by TLS, and trusts its root if `trusting`.
async fn with_tls(trusting: bool) -> World {
    let tls = Some("127.0.0.1:0".parse().unwrap());
    let simulator = simulator(Config { tls, ..Config::default() }).await;
    let data = Arc::new(TempDir::new().unwrap());
    let root = data.path().join("root.pem");
    std::fs::write(&root, simulator.tls_root_pem().expect("a root")).unwrap();
    let mut program = Program::sandbox(&simulator.wss_url().expect("an address"), &[]);
    if trusting {
        program.arguments.extend(["--trust-ca".to_owned(), root.to_str().unwrap().to_owned()]);
    }
    let service = Service::run(program, data, Log::default()).await;
    World { simulator, service }
}

#[tokio::test]
async fn a_session_over_tls_is_linked_and_sends() {
    let world = with_tls(true).await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "by TLS").await;
    world.until_shown(BRUNO, "by TLS").await;
}

#[tokio::test]
async fn a_server_whose_root_nobody_trusts_is_not_spoken_to() {
    let world = with_tls(false).await;
    let acme = world.service.tenant("acme");
    acme.open().await;
    let refused = acme.until("a reason", |status| status["reason"].is_string()).await;
    assert!(refused["message"].as_str().unwrap().contains("certificate"), "{refused}");
    assert_eq!((&refused["status"], &refused.get("qrCode")), (&json!("initializing"), &None), "{refused}");
    assert_eq!(world.stats().await["dials"], 0, "not even the upgrade was asked for");
}
