//! Who may say what: what strangers say of messages and keys that are none of theirs counts for nothing.

use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_rust::{
    NodeBuilder,
    prelude::{Jid, MessageField, wa},
};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, World, eventually},
};

const CARLA: &str = "5511777777777";

/// Carla has no chat with anybody, and a client that does as it is told.
async fn carla(world: &World) -> TestClient {
    world.admin(Method::POST, "/admin/accounts", json!({"phone": CARLA, "name": "Carla"}).to_string()).await;
    TestClient::paired(&world.simulator, &Phone::parse(CARLA).unwrap()).await.0
}

/// Waits until the service has taken in what a client has said until now.
async fn heard(world: &World, client: &TestClient, text: &str) -> Vec<Value> {
    client.send(&Phone::parse(ANA).unwrap(), text).await;
    let last = |told: &[Value]| told.last().is_some_and(|last| last["text"] == text);
    world.service.tenant("acme").until_told("message.received", last).await
}

/// Has a client send a receipt for a message, whosever it is.
async fn claim(client: &TestClient, id: &Value, kind: Option<&str>) {
    let receipt = NodeBuilder::new("receipt").attr("to", Jid::pn(ANA)).attr("id", id.as_str().unwrap());
    let receipt = match kind {
        Some(kind) => receipt.attr("type", kind),
        None => receipt,
    };
    client.client.send_node(receipt.build()).await.unwrap();
}

fn some<T: Default>(message: T) -> MessageField<T, Box<T>> {
    MessageField::some(message)
}

/// A key for the app state, as an account's phone shares it with its companions.
fn key_share(id: &[u8]) -> wa::Message {
    let key = wa::message::AppStateSyncKey {
        key_id: some(wa::message::AppStateSyncKeyId { key_id: Some(id.into()) }),
        key_data: some(wa::message::AppStateSyncKeyData {
            key_data: Some(vec![7; 32]),
            fingerprint: some(wa::message::AppStateSyncKeyFingerprint {
                raw_id: Some(1),
                current_index: Some(0),
                device_indexes: vec![0],
            }),
            timestamp: Some(1_900_000_000_000),
        }),
    };
    let share = wa::message::ProtocolMessage {
        r#type: Some(wa::message::protocol_message::Type::APP_STATE_SYNC_KEY_SHARE),
        app_state_sync_key_share: some(wa::message::AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    };
    wa::Message { protocol_message: some(share), ..Default::default() }
}

#[tokio::test]
async fn a_stranger_can_not_plant_app_state_keys() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let keys = || world.service.count("SELECT count(*) FROM state WHERE kind = 7");
    eventually("the phone's own key", || async { (keys() == 1).then_some(()) }).await;
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    bruno.client.send_message(Jid::pn(ANA), key_share(b"planted")).await.unwrap();
    heard(&world, &bruno, "after it").await;
    assert_eq!(keys(), 1, "planted");
    // One's own devices may.
    let (own, _) = TestClient::paired(&world.simulator, &Phone::parse(ANA).unwrap()).await;
    own.client.send_message(Jid::pn(ANA), key_share(b"shared")).await.unwrap();
    eventually("one more key", || async { (keys() == 2).then_some(()) }).await;
    own.stop().await;
    bruno.stop().await;
}

#[tokio::test]
async fn a_stranger_s_receipts_count_for_nothing() {
    let world = World::with(Default::default(), &[("SEND_TIMEOUT", "2")]).await;
    world.pair("acme", ANA).await;
    let (acme, carla) = (world.service.tenant("acme"), carla(&world).await);
    acme.deliver(BRUNO, "to know the way").await;
    // One that WhatsApp refused, one that may have arrived, and one that has not left.
    world.fault(json!({"nack": 480, "phone": ANA, "times": 1})).await;
    let rejected = acme.send(BRUNO, "rejected").await.1["id"].clone();
    world.fault(json!({"dropMessages": true, "phone": ANA})).await;
    let unknown = acme.send(BRUNO, "unknown").await.1["id"].clone();
    acme.until_fate(&unknown, "unknown").await;
    let queued = acme.queue(BRUNO, "queued").await["id"].clone();
    for id in [&rejected, &unknown, &queued] {
        claim(&carla, id, None).await;
        claim(&carla, id, Some("read")).await;
        // Her phone says so too.
        let claim = json!({"to": ANA, "ids": [id], "type": "played"}).to_string();
        world.admin(Method::POST, &format!("/admin/accounts/{CARLA}/receipts"), claim).await;
    }
    heard(&world, &carla, "after the receipts").await;
    for (id, status) in [(&rejected, "failed"), (&unknown, "unknown"), (&queued, "queued")] {
        assert_eq!(acme.get(&format!("/messages/{}", id.as_str().unwrap())).await["status"], status);
    }
    world.clear_faults().await;
    for id in [&unknown, &queued] {
        acme.until_fate(id, "delivered").await;
    }
    world.until_shown(BRUNO, "queued").await;
    assert_eq!(world.texts_on(BRUNO).await, ["to know the way", "unknown", "queued"]);
    assert_eq!(acme.get(&format!("/messages/{}", rejected.as_str().unwrap())).await["status"], "failed");
    // The recipient's own receipts count.
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/read"), "").await;
    acme.until_fate(&queued, "read").await;
    carla.stop().await;
}

#[tokio::test]
async fn a_recipient_s_receipt_counts_only_for_what_has_left() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.deliver(BRUNO, "to know the way").await;
    world.cut_off("acme", ANA).await;
    let queued = acme.queue(BRUNO, "not yet").await["id"].clone();
    let claim = json!({"to": ANA, "ids": [queued], "type": "read"}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/receipts"), claim).await;
    world.clear_faults().await;
    acme.until_fate(&queued, "delivered").await;
    world.until_shown(BRUNO, "not yet").await;
}

#[tokio::test]
async fn a_stranger_who_asks_for_a_message_again_gets_nothing() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (acme, carla) = (world.service.tenant("acme"), carla(&world).await);
    let (sent, before) = (acme.deliver(BRUNO, "for Bruno").await, acme.events().await.len());
    let id = sent["id"].as_str().unwrap();
    // Hers is one that she may ask for.
    let own = acme.deliver(CARLA, "for Carla").await;
    carla.text("for Carla").await;
    let asks = |id: &str, count: u8| {
        let retry = NodeBuilder::new("retry").attr("v", "1").attr("id", id).attr("count", count).attr("t", 1).build();
        let registration = NodeBuilder::new("registration").bytes([0, 0, 0, 7]).build();
        let receipt = NodeBuilder::new("receipt").attr("id", id).attr("type", "retry");
        let receipt = receipt.attr("participant", Jid::pn(BRUNO)).attr("recipient", Jid::pn(BRUNO));
        receipt.children([retry, registration])
    };
    // The phone and the service both have it.
    for device in [0, 1] {
        for count in [1, 9] {
            let receipt = asks(id, count).attr("to", Jid::pn(ANA).with_device(device)).build();
            carla.client.send_node(receipt).await.unwrap();
        }
    }
    let messages = world.count(ANA, "messages").await;
    let receipt = asks(own["id"].as_str().unwrap(), 1).attr("to", Jid::pn(ANA).with_device(1)).build();
    carla.client.send_node(receipt).await.unwrap();
    eventually("her own, once more", || async { (world.count(ANA, "messages").await > messages).then_some(()) }).await;
    heard(&world, &carla, "after the receipts").await;
    assert_eq!(carla.count(|seen| matches!(seen, crate::client::Seen::Text { text, .. } if text == "for Bruno")), 0);
    let fate = acme.get(&format!("/messages/{id}")).await;
    assert_eq!((&fate["status"], fate.get("code")), (&json!("delivered"), None));
    let told = acme.events().await;
    assert!(told[before..].iter().all(|event| event["data"]["id"] != sent["id"]), "{told:?}");
    carla.stop().await;
}

#[tokio::test]
async fn only_its_author_changes_a_message_and_only_its_chat_reacts_to_it() {
    use wa::message::protocol_message::Type;
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (acme, carla) = (world.service.tenant("acme"), carla(&world).await);
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let sent = acme.deliver(BRUNO, "from here").await["id"].as_str().unwrap().to_owned();
    let on_phone = world.write(ANA, BRUNO, "from the phone").await.as_str().unwrap().to_owned();
    let written = bruno.send(&Phone::parse(ANA).unwrap(), "from Bruno").await;
    acme.until_told("message.received", |told| told.len() == 2).await;
    let key = |id: &str| {
        some(wa::MessageKey {
            remote_jid: Some(Jid::pn(BRUNO).to_string()),
            from_me: Some(false),
            id: Some(id.into()),
            participant: Some(Jid::pn(BRUNO).to_string()),
        })
    };
    let change = |id: &str, kind: Type| {
        let edited = wa::Message { conversation: Some("changed".into()), ..Default::default() };
        let change = wa::message::ProtocolMessage {
            key: key(id),
            r#type: Some(kind),
            edited_message: some(edited),
            ..Default::default()
        };
        wa::Message { protocol_message: some(change), ..Default::default() }
    };
    let reaction = |id: &str| {
        let reaction = wa::message::ReactionMessage { key: key(id), text: Some("👎".into()), ..Default::default() };
        wa::Message { reaction_message: some(reaction), ..Default::default() }
    };
    let vote = |id: &str| {
        let vote = wa::message::PollUpdateMessage { poll_creation_message_key: key(id), ..Default::default() };
        wa::Message { poll_update_message: some(vote), ..Default::default() }
    };
    let mut expected = Vec::new();
    for (client, id, message, kind) in [
        // Carla is in no chat with Bruno.
        (&carla, &sent, change(&sent, Type::MESSAGE_EDIT), "unsupported"),
        (&carla, &sent, change(&sent, Type::REVOKE), "unsupported"),
        (&carla, &written, change(&written, Type::MESSAGE_EDIT), "unsupported"),
        (&carla, &written, change(&written, Type::REVOKE), "unsupported"),
        (&carla, &sent, reaction(&sent), "unsupported"),
        (&carla, &written, reaction(&written), "unsupported"),
        (&carla, &written, vote(&written), "unsupported"),
        // Bruno changes his own and nobody else's, and reacts to what he got.
        (&bruno, &sent, change(&sent, Type::MESSAGE_EDIT), "unsupported"),
        (&bruno, &on_phone, change(&on_phone, Type::REVOKE), "unsupported"),
        (&bruno, &sent, reaction(&sent), "reaction"),
        (&bruno, &on_phone, reaction(&on_phone), "reaction"),
        (&bruno, &written, change(&written, Type::MESSAGE_EDIT), "edit"),
        (&bruno, &written, change(&written, Type::REVOKE), "revoke"),
        // What nobody knows here is told with its chat.
        (&carla, &"3EB0UNKNOWN".to_owned(), reaction("3EB0UNKNOWN"), "reaction"),
    ] {
        client.client.send_message(Jid::pn(ANA), message).await.unwrap();
        expected.push(json!([kind, (kind != "unsupported").then_some(id)]));
        acme.until_told("message.received", |told| told.len() == 2 + expected.len()).await;
    }
    let told = acme.told("message.received").await;
    let told: Vec<_> = told[2..]
        .iter()
        .map(|one| {
            let about = ["edit", "revoke", "reaction"].iter().find_map(|field| one[field]["messageId"].as_str());
            assert_eq!(one["kind"] == "unsupported", one["type"] == "not_allowed", "{one}");
            json!([one["kind"], about])
        })
        .collect();
    assert_eq!(told, expected);
    carla.stop().await;
    bruno.stop().await;
}

#[tokio::test]
async fn what_only_own_devices_say_is_not_taken_from_strangers() {
    use wa::message::protocol_message::Type;
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (acme, carla) = (world.service.tenant("acme"), carla(&world).await);
    let bruno = world.admin(Method::GET, &format!("/admin/accounts/{BRUNO}"), "").await;
    acme.deliver(BRUNO, "to know the way").await;
    let protocol = |kind: Type, fill: fn(&mut wa::message::ProtocolMessage)| {
        let mut message = wa::message::ProtocolMessage { r#type: Some(kind), ..Default::default() };
        fill(&mut message);
        wa::Message { protocol_message: some(message), ..Default::default() }
    };
    let technical = [
        protocol(Type::APP_STATE_SYNC_KEY_REQUEST, |message| {
            let id = wa::message::AppStateSyncKeyId { key_id: Some(vec![1]) };
            let request = wa::message::AppStateSyncKeyRequest { key_ids: vec![id] };
            message.app_state_sync_key_request = some(request);
        }),
        // Bruno's number is to lead to another name.
        protocol(Type::LID_MIGRATION_MAPPING_SYNC, |message| {
            message.lid_migration_mapping_sync_message = some(Default::default());
        }),
        protocol(Type::HISTORY_SYNC_NOTIFICATION, |message| {
            message.history_sync_notification = some(Default::default());
        }),
        protocol(Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE, |message| {
            message.peer_data_operation_request_response_message = some(Default::default());
        }),
    ];
    for message in technical {
        carla.client.send_message(Jid::pn(ANA), message).await.unwrap();
    }
    // As an own device would copy what it sent.
    let copy = wa::message::DeviceSentMessage {
        destination_jid: Some(Jid::pn(BRUNO).to_string()),
        message: some(wa::Message { conversation: Some("as if Ana wrote it".into()), ..Default::default() }),
        ..Default::default()
    };
    let copy = wa::Message { device_sent_message: some(copy), ..Default::default() };
    carla.client.send_message(Jid::pn(ANA), copy).await.unwrap();
    // The server speaks of devices, and nobody else.
    let lid = Jid::lid(bruno["lid"].as_str().unwrap());
    let device = NodeBuilder::new("device").attr("jid", Jid::pn(BRUNO).with_device(0)).build();
    let removed = NodeBuilder::new("remove").children([device]).build();
    let notice = NodeBuilder::new("notification").attr("to", Jid::pn(ANA)).attr("from", Jid::pn(BRUNO));
    let notice = notice.attr("lid", lid).attr("type", "devices").attr("id", "1").children([removed]).build();
    carla.client.send_node(notice).await.unwrap();
    let told = heard(&world, &carla, "the last one").await;
    let texts: Vec<_> = told.iter().map(|one| (one["from"].clone(), one.get("fromMe"), one["text"].clone())).collect();
    let from_carla = |text: &str| (json!(CARLA), None, json!(text));
    assert_eq!(texts, [from_carla("as if Ana wrote it"), from_carla("the last one")]);
    acme.deliver(BRUNO, "still the same way").await;
    carla.stop().await;
}
