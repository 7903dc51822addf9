//! An independent client: Baileys pairs with the simulator and talks with a `whatsapp-rust` client.

mod client;
mod node;
mod phones;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::TestClient;
use node::{Baileys, installed, text};
use phones::{bytes, file_on, hex, on, phone_sends, shown};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn baileys_and_a_phone_understand_every_kind_of_each_other() {
    let Some(directory) = installed() else { return };
    let (ana, bruno) = (Phone::parse("5511999999999").unwrap(), Phone::parse("5511888888888").unwrap());
    let config = Config { tls: Some("127.0.0.1:0".parse().unwrap()), ..Config::default() };
    let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    simulator.add_account(&ana, "Ana").unwrap();
    simulator.add_account(&bruno, "Bruno").unwrap();
    let state = std::env::temp_dir().join(format!("baileys-kinds-{}-{}", std::process::id(), simulator.addr().port()));
    std::fs::create_dir_all(&state).unwrap();
    let root = state.join("root.pem");
    std::fs::write(&root, simulator.tls_root_pem().unwrap()).unwrap();

    let mut baileys = Baileys::start_trusting(&directory, &simulator.wss_url().unwrap(), &state, Some(&root));
    let qr = text(&baileys.wait(json!({ "event": "qr" })).await, "qr");
    simulator.world().scan_qr(&qr, Some(&bruno)).await.expect("the phone takes Baileys in");
    baileys.wait(json!({ "event": "open" })).await;

    // From Baileys to Ana's phone; Bruno's own phone sees it too.
    let content = bytes(50_000);
    let file = BASE64.encode(&content);
    for (message, kind, mimetype) in [
        (
            json!({ "image": file, "mimetype": "image/jpeg", "caption": "look", "jpegThumbnail": "AQI=", "width": 4 }),
            "image",
            "image/jpeg",
        ),
        (json!({ "video": file, "caption": "watch", "jpegThumbnail": "AQI=", "seconds": 2 }), "video", "video/mp4"),
        (json!({ "audio": file, "mimetype": "audio/mp4", "seconds": 3 }), "audio", "audio/mp4"),
        (
            json!({ "audio": file, "mimetype": "audio/ogg; codecs=opus", "ptt": true, "seconds": 3, "waveform": "AQI=" }),
            "voice",
            "audio/ogg; codecs=opus",
        ),
        (
            json!({ "document": file, "mimetype": "application/pdf", "fileName": "a.pdf", "caption": "read" }),
            "document",
            "application/pdf",
        ),
        (json!({ "sticker": file }), "sticker", "image/webp"),
    ] {
        let id = baileys.post(ana.as_str(), message.clone(), None).await;
        for phone in [&ana, &bruno] {
            let shown = on(&simulator, phone, &id).await;
            assert_eq!((&shown["kind"], &shown["media"]["mimetype"]), (&json!(kind), &json!(mimetype)), "{shown}");
            assert_eq!(shown["media"]["sha256"], hex(&content), "{shown}");
            assert_eq!(shown["text"], message.get("caption").cloned().unwrap_or(json!("")), "{shown}");
            assert_eq!(shown["media"].get("filename"), message.get("fileName"), "{shown}");
            assert_eq!(shown["media"].get("seconds"), message.get("seconds"), "{shown}");
            assert!(file_on(&simulator, phone, &id).await.1 == content);
        }
    }
    let place = json!({ "location": { "degreesLatitude": 1.5, "degreesLongitude": -2.5, "name": "here" } });
    let id = baileys.post(ana.as_str(), place, None).await;
    let expected = json!({ "latitude": 1.5, "longitude": -2.5, "name": "here" });
    assert_eq!(on(&simulator, &ana, &id).await["location"], expected);
    let vcard = "BEGIN:VCARD\nVERSION:3.0\nFN:Carla\nTEL;waid=5511977777777:+55 11 97777-7777\nEND:VCARD";
    let card =
        json!({ "contacts": { "displayName": "Carla", "contacts": [{ "displayName": "Carla", "vcard": vcard }] } });
    let id = baileys.post(ana.as_str(), card, None).await;
    let expected = json!({ "name": "Carla", "phone": "5511977777777", "vcard": vcard });
    assert_eq!(on(&simulator, &ana, &id).await["contact"], expected);
    let poll = json!({ "poll": { "name": "What?", "values": ["tea", "coffee"], "selectableCount": 1 } });
    let poll = baileys.post(ana.as_str(), poll, None).await;
    assert_eq!(on(&simulator, &ana, &poll).await["poll"]["options"], json!(["tea", "coffee"]));
    let question = phone_sends(&simulator, &ana, &bruno, json!({ "text": "well?" })).await;
    baileys.wait(json!({ "event": "content", "id": question })).await;
    let answer = baileys.post(ana.as_str(), json!({ "text": "yes" }), Some(&question)).await;
    assert_eq!(on(&simulator, &ana, &answer).await["replyTo"], question);
    let changed = async |id: &str, what: &str, so: &dyn Fn(&whatsapp_simulator::ChatMessage) -> bool| {
        client::until(what, || {
            let messages = simulator.world().messages(&ana).unwrap();
            messages.iter().any(|m| m.id == id && so(m)).then_some(()).ok_or_else(|| format!("{messages:#?}"))
        })
        .await;
    };
    baileys.post(ana.as_str(), json!({ "react": { "text": "👍", "key": question } }), None).await;
    changed(&question, "a reaction", &|m| m.reactions.len() == 1).await;
    assert_eq!(
        shown(&simulator, &ana, &question).await["reactions"],
        json!([{ "from": bruno.as_str(), "emoji": "👍" }])
    );
    baileys.post(ana.as_str(), json!({ "react": { "text": "", "key": question } }), None).await;
    changed(&question, "no reaction", &|m| m.reactions.is_empty()).await;
    baileys.post(ana.as_str(), json!({ "text": "no", "edit": answer }), None).await;
    changed(&answer, "an edit", &|m| m.edited && m.text == "no").await;
    baileys.post(ana.as_str(), json!({ "delete": answer }), None).await;
    changed(&answer, "a revocation", &|m| m.revoked).await;

    // From Ana's phone to Baileys.
    for (media, field) in [
        (json!({ "mimetype": "image/png", "width": 3, "height": 4 }), "imageMessage"),
        (json!({ "mimetype": "video/mp4", "seconds": 5 }), "videoMessage"),
        (json!({ "mimetype": "audio/mpeg" }), "audioMessage"),
        (json!({ "mimetype": "audio/ogg; codecs=opus", "voice": true }), "audioMessage"),
        (json!({ "mimetype": "text/plain", "filename": "a.txt" }), "documentMessage"),
        (json!({ "mimetype": "image/webp" }), "stickerMessage"),
    ] {
        let mut body = json!({ "media": media });
        body["media"]["base64"] = file.clone().into();
        let id = phone_sends(&simulator, &ana, &bruno, body).await;
        let event = baileys.wait(json!({ "event": "content", "id": id })).await;
        assert_eq!((&event["sha256"], &event["size"]), (&json!(hex(&content)), &json!(content.len())), "{event}");
        assert_eq!(event["content"][field]["mimetype"], media["mimetype"], "{event}");
        if field == "audioMessage" {
            assert_eq!(event["content"][field]["ptt"], json!(media["voice"] == true));
        }
        for (ours, theirs) in [("width", "width"), ("seconds", "seconds"), ("filename", "fileName")] {
            assert_eq!(event["content"][field].get(theirs), media.get(ours), "{event}");
        }
    }
    let place = json!({ "location": { "latitude": 1.5, "longitude": -2.5, "name": "here", "address": "Street 1" } });
    let id = phone_sends(&simulator, &ana, &bruno, place).await;
    let event = baileys.wait(json!({ "event": "content", "id": id })).await;
    let place = &event["content"]["locationMessage"];
    assert_eq!((&place["degreesLatitude"], &place["address"]), (&json!(1.5), &json!("Street 1")));
    let id = phone_sends(&simulator, &ana, &bruno, json!({ "contact": { "name": "Carla", "phone": "5511977777777" } }))
        .await;
    let event = baileys.wait(json!({ "event": "content", "id": id })).await;
    assert_eq!(event["content"]["contactMessage"]["displayName"], "Carla");
    let id = phone_sends(&simulator, &ana, &bruno, json!({ "text": "so?", "replyTo": question })).await;
    let event = baileys.wait(json!({ "event": "content", "id": id })).await;
    assert_eq!(event["content"]["extendedTextMessage"]["contextInfo"]["stanzaId"], question);
    for (body, field) in [
        (json!({ "reaction": { "messageId": poll, "emoji": "👍" } }), "reactionMessage"),
        (json!({ "vote": { "messageId": poll, "options": ["tea"] } }), "pollUpdateMessage"),
        (json!({ "edit": { "messageId": question, "message": "well then?" } }), "protocolMessage"),
        (json!({ "revoke": { "messageId": question } }), "protocolMessage"),
        (json!({ "poll": { "name": "And?", "options": ["a", "b"] } }), "pollCreationMessageV3"),
    ] {
        let id = phone_sends(&simulator, &ana, &bruno, body.clone()).await;
        let event = baileys.wait(json!({ "event": "content", "id": id })).await;
        assert!(event["content"][field].is_object(), "{body}: {event}");
    }
    // Both phones count the vote, each with its own way to the poll.
    for phone in [&ana, &bruno] {
        let votes = shown(&simulator, phone, &poll).await["poll"]["votes"].clone();
        assert_eq!(votes, json!([{ "from": ana.as_str(), "options": ["tea"] }]));
    }

    baileys.tell(json!({ "exit": true })).await;
    simulator.shutdown().await;
    let _ = std::fs::remove_dir_all(state);
}
