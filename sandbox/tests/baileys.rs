//! An independent client: Baileys pairs with the simulator and talks with a `whatsapp-rust` client.

mod client;
mod node;

use client::TestClient;
use node::{Baileys, installed, text};
use serde_json::json;
use whatsapp_simulator::{Config, Phone, Simulator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn baileys_and_whatsapp_rust_talk_through_the_simulator() {
    let Some(directory) = installed() else { return };
    let (ana, bruno) = (Phone::parse("5511999999999").unwrap(), Phone::parse("5511888888888").unwrap());
    let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), Config::default()).await.unwrap();
    simulator.add_account(&ana, "Ana").unwrap();
    simulator.add_account(&bruno, "Bruno").unwrap();
    let state = std::env::temp_dir().join(format!("baileys-{}-{}", std::process::id(), simulator.addr().port()));

    let mut baileys = Baileys::start(&directory, &simulator.ws_url(), &state);
    let qr = text(&baileys.wait(json!({ "event": "qr" })).await, "qr");
    simulator.world().scan_qr(&qr, Some(&bruno)).await.expect("the phone takes Baileys in");
    let open = baileys.wait(json!({ "event": "open" })).await;
    assert_eq!(text(&open, "me"), bruno.as_str());

    let (rust, _) = TestClient::paired(&simulator, &ana).await;
    let id = rust.send(&bruno, "from Rust to Node").await;
    let received = baileys.wait(json!({ "event": "message", "text": "from Rust to Node" })).await;
    assert_eq!((text(&received, "from"), text(&received, "id")), (ana.to_string(), id.clone()));
    rust.receipt(&id, "Delivered").await;

    baileys.tell(json!({ "send": { "to": ana.as_str(), "text": "from Node to Rust" } })).await;
    let sent = text(&baileys.wait(json!({ "event": "sent" })).await, "id");
    rust.text("from Node to Rust").await;
    baileys.wait(json!({ "event": "receipt", "id": sent, "status": "DELIVERY_ACK" })).await;
    let own = simulator.world().messages(&bruno).unwrap();
    assert!(own.iter().any(|m| m.from_me && m.text == "from Node to Rust"), "{own:#?}");

    simulator.world().write(&ana, &bruno, "from a phone to Node").unwrap();
    baileys.wait(json!({ "event": "message", "text": "from a phone to Node", "from": ana.as_str() })).await;
    simulator.world().read_chats(&ana).unwrap();
    baileys.wait(json!({ "event": "receipt", "id": sent, "status": "READ" })).await;

    baileys.tell(json!({ "exit": true })).await;
    rust.stop().await;
    simulator.shutdown().await;
    let _ = std::fs::remove_dir_all(state);
}
