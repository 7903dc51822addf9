//! The proof by an independent client: Baileys reads what the service sends, and writes what the service reads.

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{ANA, BRUNO, World},
    node::{Baileys, installed, text},
};

#[tokio::test]
async fn baileys_and_the_service_understand_each_other() {
    let Some(directory) = installed() else { return };
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let state = tempfile::TempDir::new().unwrap();
    let mut baileys = Baileys::start(&directory, &world.simulator.ws_url(), state.path());
    let qr = text(&baileys.wait(json!({"event": "qr"})).await, "qr");
    world.admin(Method::POST, &format!("/admin/mock-phone/scan-qr?phone={BRUNO}"), qr).await;
    baileys.wait(json!({"event": "open"})).await;

    // Baileys receives and decrypts a message that was sent through POST /send; so does the phone beside it.
    let sent = acme.send_ok(BRUNO, "from the service to Baileys").await;
    let received = baileys.wait(json!({"event": "message", "text": "from the service to Baileys"})).await;
    assert_eq!((&received["id"], &received["from"]), (&sent["id"], &json!(ANA)));
    world.until_shown(BRUNO, "from the service to Baileys").await;

    // And the other way: the number's phone shows it, the service's client decrypts it, Baileys gets the receipt.
    baileys.tell(json!({"send": {"to": ANA, "text": "from Baileys to the service"}})).await;
    let sent = text(&baileys.wait(json!({"event": "sent"})).await, "id");
    let shown = world.until_shown(ANA, "from Baileys to the service").await;
    assert_eq!((&shown[0]["id"], &shown[0]["from"]), (&json!(sent), &json!(BRUNO)));
    acme.until("a message received", |status| status["messagesReceived"] == 1).await;
    baileys.wait(json!({"event": "receipt", "id": sent, "status": "DELIVERY_ACK"})).await;

    // A conversation goes on in both directions with the keys that the first messages agreed on.
    for round in 0..3 {
        acme.send_ok(BRUNO, &format!("ping {round}")).await;
        baileys.wait(json!({"event": "message", "text": format!("ping {round}")})).await;
        baileys.tell(json!({"send": {"to": ANA, "text": format!("pong {round}")}})).await;
        world.until_shown(ANA, &format!("pong {round}")).await;
    }
    acme.until("four messages received", |status| status["messagesReceived"] == 4).await;
    assert_eq!(acme.status().await["messagesSent"], 4);
    baileys.tell(json!({"exit": true})).await;
}
