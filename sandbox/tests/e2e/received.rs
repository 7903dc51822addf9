//! What comes in, of every kind: told as what it is, by the account itself too, and never left out.

use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_rust::prelude::{Jid, MessageField, wa};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, World},
};

/// What an event of a message says of it, apart from who wrote it when and where.
fn said(mut told: Value) -> Value {
    let about = ["id", "from", "fromLid", "fromName", "to", "toLid", "chat", "timestamp", "offline"];
    about.iter().for_each(|field| drop(told.as_object_mut().unwrap().remove(*field)));
    told
}

fn some<T: Default>(message: T) -> MessageField<T, Box<T>> {
    MessageField::some(message)
}

fn key(id: &str) -> MessageField<wa::MessageKey, Box<wa::MessageKey>> {
    some(wa::MessageKey { id: Some(id.into()), from_me: Some(false), ..Default::default() })
}

fn text(text: &str) -> wa::Message {
    wa::Message { conversation: Some(text.into()), ..Default::default() }
}

fn in_wrapper(
    message: wa::Message,
) -> MessageField<wa::message::FutureProofMessage, Box<wa::message::FutureProofMessage>> {
    some(wa::message::FutureProofMessage { message: some(message) })
}

fn change(kind: wa::message::protocol_message::Type, edited: Option<wa::Message>) -> wa::Message {
    let change = wa::message::ProtocolMessage {
        key: key("3EB0AA"),
        r#type: Some(kind),
        edited_message: edited.map(some).unwrap_or_default(),
        ..Default::default()
    };
    wa::Message { protocol_message: some(change), ..Default::default() }
}

fn card(name: &str, phone: &str) -> wa::message::ContactMessage {
    let vcard = format!("BEGIN:VCARD\nVERSION:3.0\nFN:{name}\nTEL;type=CELL;waid=1:{phone}\nEND:VCARD");
    wa::message::ContactMessage { vcard: Some(vcard), display_name: Some("shown".into()), ..Default::default() }
}

/// Messages of every kind without a file, and what is told of them.
fn messages() -> Vec<(wa::Message, Value)> {
    use wa::message::protocol_message::Type;
    let answer = wa::message::ExtendedTextMessage {
        text: Some("an answer".into()),
        context_info: some(wa::ContextInfo {
            stanza_id: Some("3EB0BB".into()),
            quoted_message: some(text("the question")),
            ..Default::default()
        }),
        ..Default::default()
    };
    let place = wa::message::LocationMessage {
        degrees_latitude: Some(-23.5505),
        degrees_longitude: Some(-46.6333),
        name: Some("Praça da Sé".into()),
        address: Some("São Paulo".into()),
        ..Default::default()
    };
    let live = wa::message::LiveLocationMessage {
        degrees_latitude: Some(1.5),
        degrees_longitude: Some(f64::NAN),
        caption: Some("on my way".into()),
        ..Default::default()
    };
    let both = wa::message::ContactsArrayMessage {
        contacts: vec![card("Carla", "+55 21 97777-7777"), card("Davi", "+55 31 96666-6666")],
        ..Default::default()
    };
    let reaction = |emoji: &str| {
        let reaction =
            wa::message::ReactionMessage { key: key("3EB0CC"), text: Some(emoji.into()), ..Default::default() };
        wa::Message { reaction_message: some(reaction), ..Default::default() }
    };
    let album = wa::message::AlbumMessage { expected_image_count: Some(2), ..Default::default() };
    let without_key = wa::message::ImageMessage {
        mimetype: Some("image/jpeg".into()),
        caption: Some("gone".into()),
        width: Some(64),
        height: Some(48),
        file_length: Some(1000),
        file_sha256: Some(vec![0xab; 32]),
        // It would lead to another host.
        direct_path: Some("@elsewhere.example/v".into()),
        media_key: Some(vec![1; 32]),
        file_enc_sha256: Some(vec![2; 32]),
        ..Default::default()
    };
    let in_a_circle = wa::message::VideoMessage { seconds: Some(9), ..Default::default() };
    // What is there and empty is as good as absent.
    let titled = wa::message::DocumentMessage {
        title: Some("a.pdf".into()),
        caption: Some(String::new()),
        context_info: some(wa::ContextInfo { stanza_id: Some(String::new()), ..Default::default() }),
        ..Default::default()
    };
    let any_number = wa::message::PollCreationMessage {
        name: Some("Which?".into()),
        options: vec![wa::message::poll_creation_message::Option {
            option_name: Some("this".into()),
            ..Default::default()
        }],
        selectable_options_count: Some(0),
        ..Default::default()
    };
    let another_caption = wa::message::ImageMessage { caption: Some("a better caption".into()), ..Default::default() };
    let another_caption = wa::Message { image_message: some(another_caption), ..Default::default() };
    let wrapped = wa::message::LocationMessage {
        degrees_latitude: Some(3.5),
        name: Some(String::new()),
        address: Some(String::new()),
        ..Default::default()
    };
    vec![
        (text("words"), json!({"kind": "text", "text": "words"})),
        (
            wa::Message { extended_text_message: some(answer), ..Default::default() },
            json!({"kind": "text", "text": "an answer", "replyTo": "3EB0BB"}),
        ),
        (
            wa::Message { ephemeral_message: in_wrapper(text("not for long")), ..Default::default() },
            json!({"kind": "text", "text": "not for long"}),
        ),
        (
            wa::Message {
                view_once_message_v2: in_wrapper(wa::Message {
                    ephemeral_message: in_wrapper(wa::Message {
                        location_message: some(wrapped),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            },
            json!({"kind": "location", "location": {"latitude": 3.5}}),
        ),
        (
            wa::Message { ptv_message: some(in_a_circle), ..Default::default() },
            json!({"kind": "video", "media": {"seconds": 9}}),
        ),
        (
            wa::Message { document_message: some(titled), ..Default::default() },
            json!({"kind": "document", "media": {"filename": "a.pdf"}}),
        ),
        (
            wa::Message { poll_creation_message_v3: some(any_number), ..Default::default() },
            json!({"kind": "poll", "poll": {"name": "Which?", "options": ["this"]}}),
        ),
        (
            change(Type::MESSAGE_EDIT, Some(another_caption)),
            json!({"kind": "edit", "edit": {"messageId": "3EB0AA", "text": "a better caption"}}),
        ),
        (
            wa::Message { location_message: some(place), ..Default::default() },
            json!({"kind": "location", "location": {"latitude": -23.5505, "longitude": -46.6333, "name": "Praça da Sé",
                   "address": "São Paulo"}}),
        ),
        (
            wa::Message { live_location_message: some(live), ..Default::default() },
            json!({"kind": "location", "location": {"latitude": 1.5, "live": true}, "text": "on my way"}),
        ),
        (
            wa::Message { contact_message: some(card("Carla", "+55 21 97777-7777")), ..Default::default() },
            json!({"kind": "contact", "contacts": [{"name": "Carla", "phones": ["+55 21 97777-7777"]}]}),
        ),
        (
            wa::Message { contacts_array_message: some(both), ..Default::default() },
            json!({"kind": "contact", "contacts": [{"name": "Carla", "phones": ["+55 21 97777-7777"]},
                   {"name": "Davi", "phones": ["+55 31 96666-6666"]}]}),
        ),
        (reaction("👍🏽"), json!({"kind": "reaction", "reaction": {"messageId": "3EB0CC", "emoji": "👍🏽"}})),
        (reaction(""), json!({"kind": "reaction", "reaction": {"messageId": "3EB0CC", "emoji": ""}})),
        (
            change(Type::MESSAGE_EDIT, Some(text("better words"))),
            json!({"kind": "edit", "edit": {"messageId": "3EB0AA", "text": "better words"}}),
        ),
        (
            wa::Message {
                edited_message: in_wrapper(change(Type::MESSAGE_EDIT, Some(text("the best words")))),
                ..Default::default()
            },
            json!({"kind": "edit", "edit": {"messageId": "3EB0AA", "text": "the best words"}}),
        ),
        (change(Type::REVOKE, None), json!({"kind": "revoke", "revoke": {"messageId": "3EB0AA"}})),
        (
            wa::Message { image_message: some(without_key), ..Default::default() },
            json!({"kind": "image", "text": "gone", "media": {"mimetype": "image/jpeg", "size": 1000, "width": 64,
                   "height": 48, "sha256": "ab".repeat(32)}}),
        ),
        (
            wa::Message { album_message: some(album), ..Default::default() },
            json!({"kind": "unsupported", "type": "albumMessage"}),
        ),
        (
            change(Type::EPHEMERAL_SETTING, None),
            json!({"kind": "disappearingTimer", "disappearingTimer": {"seconds": 0}}),
        ),
        // One that a later version of the protocol has.
        (wa::Message::default(), json!({"kind": "unsupported", "type": "unknown"})),
    ]
}

#[tokio::test]
async fn every_kind_is_told_as_what_it_is_once_each_and_in_order() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let (mut expected, mut ids) = (Vec::new(), Vec::new());
    for (message, told) in messages() {
        let sent = bruno.client.send_message(Jid::pn(ANA), message).await;
        ids.push(json!(sent.unwrap_or_else(|error| panic!("{told}: {error}")).message_id));
        expected.push(told);
    }
    // Keys and settings are nothing that people see.
    let technical = change(wa::message::protocol_message::Type::APP_STATE_SYNC_KEY_REQUEST, None);
    bruno.client.send_message(Jid::pn(ANA), technical).await.unwrap();
    bruno.send(&Phone::parse(ANA).unwrap(), "the last one").await;
    expected.push(json!({"kind": "text", "text": "the last one"}));
    let acme = world.service.tenant("acme");
    let last = |told: &[Value]| told.last().is_some_and(|one| one["text"] == "the last one");
    let told = acme.until_told("message.received", last).await;
    assert_eq!(told.iter().map(|one| one["id"].clone()).take(ids.len()).collect::<Vec<_>>(), ids);
    for one in &told {
        assert_eq!((&one["from"], one.get("fromMe"), one.get("to")), (&json!(BRUNO), None, None), "{one}");
    }
    assert_eq!(told.into_iter().map(said).collect::<Vec<_>>(), expected);
    let (status, answer) = acme.call(Method::GET, "/messages/nothing/media", None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (404, &json!("media_not_found")));
    // A session counts everything that was decrypted.
    acme.until("the count", |status| status["messagesReceived"] == ids.len() + 2).await;
    bruno.stop().await;
}

#[tokio::test]
async fn what_only_the_phone_may_show_is_told_without_what_it_says() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let media = json!({"base64": "iVBORw0KGgo=", "mimetype": "image/png", "viewOnce": true});
    let message = json!({"to": ANA, "text": "look once", "media": media}).to_string();
    let id = world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/messages"), message).await["id"].clone();
    let told = world.service.tenant("acme").until_told("message.received", |told| !told.is_empty()).await;
    assert_eq!((&told[0]["id"], &told[0]["from"]), (&id, &json!(BRUNO)), "{told:?}");
    assert_eq!(said(told[0].clone()), json!({"kind": "unsupported", "type": "view_once"}));
    let shown = world.shown_on(ANA).await;
    assert_eq!((&shown[0]["id"], &shown[0]["text"]), (&id, &json!("look once")), "the phone has it");
    // It was confirmed, and comes no more.
    world.service.kill_and_restart().await;
    world.write(BRUNO, ANA, "the next one").await;
    let told = world.service.tenant("acme").until_told("message.received", |told| told.len() > 1).await;
    assert_eq!((told.len(), &told[1]["text"]), (2, &json!("the next one")));
}

#[tokio::test]
async fn a_vote_is_told_with_what_it_chose() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    // What waits at WhatsApp comes at once: the poll with its votes.
    world.cut_off("acme", ANA).await;
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let options = ["Pizza", "Sushi 🍣", "Salada"].map(str::to_owned);
    let polls = bruno.client.polls();
    let (poll, secret) = polls.create(Jid::pn(ANA), "What for dinner?", &options, 2).await.unwrap();
    let creator = bruno.client.pn().unwrap();
    for chosen in [&options[1..], &[]] {
        polls.vote(Jid::pn(ANA), &poll.message_id, &creator, &secret, chosen).await.unwrap();
    }
    polls.vote(Jid::pn(ANA), "3EB0UNKNOWN", &creator, &secret, &options[..1]).await.unwrap();
    world.clear_faults().await;
    let told = world.service.tenant("acme").until_told("message.received", |told| told.len() == 4).await;
    let vote =
        |options: &[&str]| json!({"kind": "pollVote", "pollVote": {"messageId": poll.message_id, "options": options}});
    let expected = [
        json!({"kind": "poll", "poll": {"name": "What for dinner?", "options": options, "selectable": 2}}),
        vote(&["Sushi 🍣", "Salada"]),
        vote(&[]),
        json!({"kind": "pollVote", "pollVote": {"messageId": "3EB0UNKNOWN"}}),
    ];
    assert_eq!(told.into_iter().map(said).collect::<Vec<_>>(), expected);
    bruno.stop().await;
}

#[tokio::test]
async fn what_the_owner_writes_elsewhere_is_told_and_what_the_service_sends_is_not() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (other, _) = TestClient::paired(&world.simulator, &Phone::parse(ANA).unwrap()).await;
    let on_phone = world.write(ANA, BRUNO, "written on the phone").await;
    acme.until_told("message.received", |told| told.len() == 1).await;
    acme.send_ok(BRUNO, "sent by the service").await;
    let place = wa::message::LocationMessage {
        degrees_latitude: Some(1.0),
        degrees_longitude: Some(2.0),
        ..Default::default()
    };
    let message = wa::Message { location_message: some(place), ..Default::default() };
    let elsewhere = other.client.send_message(Jid::pn(BRUNO), message).await.unwrap().message_id;
    // Two senders have no order among each other.
    acme.until_told("message.received", |told| told.len() == 2).await;
    let answer = world.write(BRUNO, ANA, "an answer").await;
    let told = acme.until_told("message.received", |told| told.len() >= 3).await;
    let ids: Vec<_> = told.iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [on_phone, json!(elsewhere), answer]);
    for own in &told[..2] {
        assert_eq!((&own["fromMe"], &own["from"], &own["to"]), (&json!(true), &json!(ANA), &json!(BRUNO)), "{own}");
        assert!(own.get("fromName").is_none() && own["chat"].as_str().unwrap().contains('@'), "{own}");
    }
    assert_eq!((&told[0]["kind"], &told[0]["text"]), (&json!("text"), &json!("written on the phone")));
    assert_eq!((&told[1]["kind"], &told[1]["location"]["longitude"]), (&json!("location"), &json!(2.0)));
    assert_eq!((told[2].get("fromMe"), &told[2]["from"]), (None, &json!(BRUNO)));
    // It counts a moment after it tells. One's own are not received.
    acme.until("one message received", |status| status["messagesReceived"] == 1).await;
    other.stop().await;
}
