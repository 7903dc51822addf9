//! Every kind, both ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::json;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::prelude::*;
use whatsapp_rust::wacore::download::MediaType;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{RevokeType, UploadOptions};
use whatsapp_simulator::Simulator;

use super::document;
use crate::client::{Seen, TestClient, until};
use crate::phones::{admin, bytes, file_on, hex, on, phone_sends, shown};
use crate::{ana, bruno, simulator};

/// The key of a message in the chat with Bruno.
fn key(id: &str, from_me: bool) -> wa::MessageKey {
    wa::MessageKey {
        remote_jid: Some(Jid::pn(bruno().as_str()).to_string()),
        from_me: Some(from_me),
        id: Some(id.to_owned()),
        ..Default::default()
    }
}

/// Waits until a phone's message is so.
async fn becomes(simulator: &Simulator, id: &str, what: &str, so: impl Fn(&whatsapp_simulator::ChatMessage) -> bool) {
    for phone in [ana(), bruno()] {
        until(what, || {
            let messages = simulator.world().messages(&phone).unwrap();
            messages.iter().any(|m| m.id == id && so(m)).then_some(()).ok_or_else(|| format!("{messages:#?}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_from_a_client_to_a_phone() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;

    let picture = bytes(40_000);
    let file = client.client.upload(picture.clone(), MediaType::Image, UploadOptions::new()).await.unwrap();
    let message = wa::message::ImageMessage {
        url: Some(file.url),
        direct_path: Some(file.direct_path),
        media_key: Some(file.media_key.to_vec()),
        file_sha256: Some(file.file_sha256.to_vec()),
        file_enc_sha256: Some(file.file_enc_sha256.to_vec()),
        file_length: Some(file.file_length),
        mimetype: Some("image/png".to_owned()),
        caption: Some("look".to_owned()),
        width: Some(64),
        height: Some(48),
        jpeg_thumbnail: Some(vec![1, 2, 3]),
        ..Default::default()
    };
    let id = client.send_any(&bruno(), wa::Message { image_message: Some(message).into(), ..Default::default() }).await;
    for phone in [bruno(), ana()] {
        let shown = on(&simulator, &phone, &id).await;
        assert_eq!((&shown["kind"], &shown["text"]), (&json!("image"), &json!("look")));
        let expected = json!({
            "mimetype": "image/png", "size": 40_000, "sha256": hex(&picture),
            "width": 64, "height": 48, "thumbnail": true,
        });
        assert_eq!(shown["media"], expected);
        assert_eq!(file_on(&simulator, &phone, &id).await, ("image/png".to_owned(), picture.clone()));
    }

    let plan = bytes(6_000_000);
    let message = document(&client, &plan).await;
    let id =
        client.send_any(&bruno(), wa::Message { document_message: Some(message).into(), ..Default::default() }).await;
    let shown = on(&simulator, &bruno(), &id).await;
    assert_eq!((&shown["kind"], &shown["media"]["filename"]), (&json!("document"), &json!("plan.pdf")));
    assert_eq!(shown["media"]["sha256"], hex(&plan));
    let (mimetype, there) = file_on(&simulator, &bruno(), &id).await;
    assert_eq!(mimetype, "application/pdf");
    assert!(there == plan, "the phone has other bytes");

    // A voice note is a file too; it has only another name.
    let voice = wa::message::AudioMessage { ptt: Some(true), seconds: Some(3), ..Default::default() };
    let id = client.send_any(&bruno(), wa::Message { audio_message: Some(voice).into(), ..Default::default() }).await;
    let shown = on(&simulator, &bruno(), &id).await;
    assert_eq!((&shown["kind"], &shown["media"]["seconds"]), (&json!("voice"), &json!(3)));
    assert_eq!(shown["media"]["error"], "there is no such file on the media host");
    assert_eq!(simulator.world().totals().uploads, 2);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_from_a_phone_to_a_client_and_its_own_companions() {
    let simulator = simulator().await;
    let (ana, bruno) = (ana(), bruno());
    let ((client, _), (own, _)) =
        tokio::join!(TestClient::paired(&simulator, &ana), TestClient::paired(&simulator, &bruno));
    let content = bytes(30_000);
    for (extra, kind) in [
        (json!({ "mimetype": "image/jpeg", "width": 4, "height": 3, "thumbnail": BASE64.encode([9, 9]) }), "image"),
        (json!({ "mimetype": "video/mp4", "seconds": 2 }), "video"),
        (json!({ "mimetype": "audio/mpeg" }), "audio"),
        (json!({ "mimetype": "audio/ogg; codecs=opus", "voice": true }), "voice"),
        (json!({ "mimetype": "application/zip", "filename": "all.zip" }), "document"),
        (json!({ "mimetype": "image/webp" }), "sticker"),
    ] {
        let mut media = extra.clone();
        media["base64"] = BASE64.encode(&content).into();
        let id = phone_sends(&simulator, &bruno, &ana, json!({ "media": media, "text": "a caption" })).await;
        for (client, phone) in [(&client, &ana), (&own, &bruno)] {
            let received = client.message(&id).await;
            let message = received.get_base_message();
            macro_rules! check {
                ($field:ident) => {{
                    let file = message.$field.as_option().unwrap_or_else(|| panic!("no {kind} in {received:?}"));
                    assert_eq!(file.mimetype.as_deref(), extra["mimetype"].as_str());
                    let there = client.client.download(file).await.unwrap();
                    assert!(there == content, "other bytes in the {kind}");
                }};
            }
            match kind {
                "image" => check!(image_message),
                "video" => check!(video_message),
                "document" => check!(document_message),
                "sticker" => check!(sticker_message),
                _ => check!(audio_message),
            }
            let shown = shown(&simulator, phone, &id).await;
            assert_eq!((&shown["kind"], &shown["media"]["sha256"]), (&json!(kind), &json!(hex(&content))), "{shown}");
            if matches!(kind, "image" | "video" | "document") {
                assert_eq!(message.get_caption(), Some("a caption"), "{kind}");
                assert_eq!(shown["text"], "a caption");
            }
        }
    }
    assert_eq!(simulator.world().totals().downloads, 12);
    client.stop().await;
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_goes_from_a_client_to_a_phone() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;

    let place = wa::message::LocationMessage {
        degrees_latitude: Some(-23.55),
        degrees_longitude: Some(-46.63),
        name: Some("Sé".to_owned()),
        ..Default::default()
    };
    let id =
        client.send_any(&bruno(), wa::Message { location_message: Some(place).into(), ..Default::default() }).await;
    let shown_place = on(&simulator, &bruno(), &id).await;
    assert_eq!(shown_place["kind"], "location");
    assert_eq!(shown_place["location"], json!({ "latitude": -23.55, "longitude": -46.63, "name": "Sé" }));

    let vcard = "BEGIN:VCARD\nVERSION:3.0\nFN:Carla\nTEL;waid=5511977777777:+55 11 97777-7777\nEND:VCARD".to_owned();
    let card = wa::message::ContactMessage {
        display_name: Some("Carla".to_owned()),
        vcard: Some(vcard.clone()),
        ..Default::default()
    };
    let id = client.send_any(&bruno(), wa::Message { contact_message: Some(card).into(), ..Default::default() }).await;
    let card = on(&simulator, &bruno(), &id).await;
    assert_eq!(card["contact"], json!({ "name": "Carla", "phone": "5511977777777", "vcard": vcard }));

    let first = client.send(&bruno(), "one").await;
    let context = wa::ContextInfo { stanza_id: Some(first.clone()), ..Default::default() };
    let reply = wa::message::ExtendedTextMessage {
        text: Some("two".to_owned()),
        context_info: Some(context).into(),
        ..Default::default()
    };
    let reply = wa::Message { extended_text_message: Some(reply).into(), ..Default::default() };
    let reply = client.send_any(&bruno(), reply).await;
    let reply = on(&simulator, &bruno(), &reply).await;
    assert_eq!((&reply["kind"], &reply["text"], &reply["replyTo"]), (&json!("text"), &json!("two"), &json!(first)));

    let chat = || Jid::pn(bruno().as_str());
    client.client.send_reaction(chat(), key(&first, true), "👍").await.unwrap();
    becomes(&simulator, &first, "a reaction", |m| m.reactions.len() == 1).await;
    assert_eq!(
        shown(&simulator, &bruno(), &first).await["reactions"],
        json!([{ "from": ana().as_str(), "emoji": "👍" }])
    );
    client.client.send_reaction(chat(), key(&first, true), "").await.unwrap();
    becomes(&simulator, &first, "no reaction", |m| m.reactions.is_empty()).await;

    let edited = wa::Message { conversation: Some("uno".to_owned()), ..Default::default() };
    client.client.edit_message(chat(), first.as_str(), edited).await.unwrap();
    becomes(&simulator, &first, "edited", |m| m.edited && m.text == "uno").await;
    client.client.revoke_message(chat(), first.as_str(), RevokeType::Sender).await.unwrap();
    becomes(&simulator, &first, "revoked", |m| m.revoked && m.text.is_empty()).await;

    let options = ["tea".to_owned(), "coffee".to_owned()];
    let (poll, secret) = client.client.polls().create(chat(), "What?", &options, 1).await.unwrap();
    let shown_poll = on(&simulator, &bruno(), &poll.message_id).await;
    let expected = json!({ "name": "What?", "options": options, "votes": [] });
    assert_eq!((&shown_poll["kind"], &shown_poll["poll"]), (&json!("poll"), &expected));
    let me = client.client.pn().unwrap();
    client.client.polls().vote(chat(), &poll.message_id, &me, &secret, &options[1..]).await.unwrap();
    let voted = |m: &whatsapp_simulator::ChatMessage| {
        let votes = m.more.as_ref().and_then(|more| more.poll.as_ref()).map(|poll| poll.votes.clone());
        votes.is_some_and(|votes| votes.len() == 1 && votes[0].options == ["coffee"])
    };
    becomes(&simulator, &poll.message_id, "a vote", voted).await;

    let list = wa::message::GroupInviteMessage { group_name: Some("x".to_owned()), ..Default::default() };
    let id =
        client.send_any(&bruno(), wa::Message { group_invite_message: Some(list).into(), ..Default::default() }).await;
    let unknown = on(&simulator, &bruno(), &id).await;
    assert_eq!((&unknown["kind"], &unknown["type"]), (&json!("unsupported"), &json!("groupInviteMessage")));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_goes_from_a_phone_to_a_client() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let sends = async |body| phone_sends(&simulator, &bruno(), &ana(), body).await;
    let from_client = client.send(&bruno(), "to be answered").await;
    on(&simulator, &bruno(), &from_client).await;

    let place = json!({ "latitude": 52.5, "longitude": 13.4, "name": "here", "address": "Street 1" });
    let id = sends(json!({ "location": place })).await;
    let received = client.message(&id).await.location_message.into_option().unwrap();
    assert_eq!((received.degrees_latitude, received.address.as_deref()), (Some(52.5), Some("Street 1")));
    assert_eq!(shown(&simulator, &bruno(), &id).await["location"], place);

    let id = sends(json!({ "contact": { "name": "Carla", "phone": "5511977777777" } })).await;
    let received = client.message(&id).await.contact_message.into_option().unwrap();
    assert_eq!(received.display_name.as_deref(), Some("Carla"));
    assert!(received.vcard.unwrap().contains("waid=5511977777777"));
    assert_eq!(shown(&simulator, &ana(), &id).await["contact"]["phone"], "5511977777777");

    let reply = sends(json!({ "text": "the answer", "replyTo": from_client })).await;
    let received = client.message(&reply).await.extended_text_message.into_option().unwrap();
    assert_eq!(received.context_info.stanza_id.as_deref(), Some(from_client.as_str()));
    assert_eq!(received.context_info.quoted_message.conversation.as_deref(), Some("to be answered"));

    for emoji in ["❤️", ""] {
        let id = sends(json!({ "reaction": { "messageId": from_client, "emoji": emoji } })).await;
        let received = client.message(&id).await.reaction_message.into_option().unwrap();
        assert_eq!((received.text.as_deref(), received.key.id.as_deref()), (Some(emoji), Some(from_client.as_str())));
        becomes(&simulator, &from_client, "the reaction", |m| m.reactions.len() == usize::from(!emoji.is_empty()))
            .await;
    }

    let id = sends(json!({ "edit": { "messageId": reply, "message": "another answer" } })).await;
    let received = client.message(&id).await;
    let protocol = received.get_base_message().protocol_message.as_option().unwrap();
    assert_eq!(protocol.edited_message.conversation.as_deref(), Some("another answer"));
    becomes(&simulator, &reply, "edited", |m| m.edited && m.text == "another answer").await;
    let id = sends(json!({ "revoke": { "messageId": reply } })).await;
    assert_eq!(client.message(&id).await.protocol_message.key.id.as_deref(), Some(reply.as_str()));
    becomes(&simulator, &reply, "revoked", |m| m.revoked).await;

    let poll = sends(json!({ "poll": { "name": "What?", "options": ["tea", "coffee"] } })).await;
    let received = client.message(&poll).await;
    assert_eq!(received.poll_creation_message_v3.options.len(), 2);
    let vote = sends(json!({ "vote": { "messageId": poll, "options": ["tea"] } })).await;
    assert!(client.message(&vote).await.poll_update_message.vote.is_set());
    let votes = shown(&simulator, &ana(), &poll).await["poll"]["votes"].clone();
    assert_eq!(votes, json!([{ "from": bruno().as_str(), "options": ["tea"] }]));

    let raw = wa::message::GroupInviteMessage { group_name: Some("x".to_owned()), ..Default::default() };
    let raw = wa::Message { group_invite_message: Some(raw).into(), ..Default::default() };
    let id = sends(json!({ "raw": BASE64.encode(raw.encode_to_vec()) })).await;
    assert!(client.message(&id).await.group_invite_message.is_set());
    assert_eq!(client.count(|seen| matches!(seen, Seen::Unreadable(_))), 0);

    let path = format!("/admin/accounts/{}/messages", bruno());
    for (body, expected) in [
        (json!({ "text": "a", "location": place }), 400),
        (json!({}), 400),
        (json!({ "media": { "base64": "?" } }), 400),
        (json!({ "media": { "base64": "", "kind": "poll" } }), 400),
        (json!({ "raw": "//8=" }), 400),
        (json!({ "poll": { "name": "What?", "options": ["tea", "tea"] } }), 400),
        (json!({ "reaction": { "messageId": "nobody's", "emoji": "x" } }), 422),
        (json!({ "edit": { "messageId": from_client, "message": "not mine" } }), 422),
        (json!({ "revoke": { "messageId": from_client } }), 422),
        (json!({ "vote": { "messageId": poll, "options": ["beer"] } }), 422),
        (json!({ "vote": { "messageId": from_client, "options": [] } }), 422),
        (json!({ "text": "a", "unknown": 1 }), 422),
    ] {
        let mut body = body;
        body["to"] = ana().as_str().into();
        let (status, answer) = admin(&simulator, Method::POST, &path, Some(body.clone())).await;
        assert_eq!(status, expected, "{body}: {answer}");
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_could_not_read_comes_again_whatever_it_is() {
    let simulator = simulator().await;
    let world = simulator.world();
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    world.write(&bruno(), &ana(), "so that there is a session").unwrap();
    client.text("so that there is a session").await;
    // Ana's phone says that it could not read a file: it gets the same one again, from Bruno's.
    world.add_fault(whatsapp_simulator::Fault {
        kind: whatsapp_simulator::FaultKind::Unreadable,
        phone: Some(ana()),
        times: Some(1),
    });
    let content = bytes(1000);
    let media = json!({ "base64": BASE64.encode(&content), "mimetype": "text/plain", "filename": "a.txt" });
    let id = phone_sends(&simulator, &bruno(), &ana(), json!({ "media": media, "text": "read this" })).await;
    let shown = on(&simulator, &ana(), &id).await;
    assert_eq!((&shown["text"], &shown["media"]["sha256"]), (&json!("read this"), &json!(hex(&content))));
    assert_eq!(world.totals().retry_receipts, 1);
    client.stop().await;
}
