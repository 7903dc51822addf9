//! The proof by an independent client: Baileys reads what the service sends, and writes what the service reads.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ffmpeg::{self, SPEECH},
    harness::{ANA, BRUNO, ROOT, Tenant, World},
    link_previews::Pages,
    media::{OPUS, WEBP, film, hexadecimal, noise, png},
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
    link(&world, &mut baileys).await;

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
    acme.until("the count", |status| status["messagesSent"] == 4).await;
    baileys.tell(json!({"exit": true})).await;
}

/// Links Baileys to Bruno's phone.
pub async fn link(world: &World, baileys: &mut Baileys) {
    let qr = text(&baileys.wait(json!({"event": "qr"})).await, "qr");
    world.admin(Method::POST, &format!("/admin/mock-phone/scan-qr?phone={BRUNO}"), qr).await;
    baileys.wait(json!({"event": "open"})).await;
}

/// A world whose service and Baileys reach the simulator by TLS, Ana linked to the service and Bruno to Baileys.
async fn with_baileys(directory: &Path, env: &[(&str, &str)]) -> (World, Baileys, TempDir) {
    let world = World::with_tls_and(true, env).await;
    world.pair("acme", ANA).await;
    let state = TempDir::new().unwrap();
    let root = world.service.data.path().join(ROOT);
    let url = world.simulator.wss_url().unwrap();
    let mut baileys = Baileys::start_trusting(directory, &url, state.path(), Some(&root));
    link(&world, &mut baileys).await;
    (world, baileys, state)
}

/// Sends by the service, and returns the id and what Baileys made of it.
async fn to_baileys(acme: Tenant<'_>, baileys: &mut Baileys, content: Value) -> (String, Value) {
    let mut body = content;
    body["to"] = json!(BRUNO);
    let (status, sent) = acme.call(Method::POST, "/send", Some(body.clone())).await;
    assert_eq!((status.as_u16(), &sent["status"]), (200, &json!("sent")), "{sent}");
    let event = baileys.wait(json!({"event": "content", "id": sent["id"]})).await;
    acme.until_fate(&sent["id"], "delivered").await;
    (text(&sent, "id"), event)
}

#[tokio::test]
async fn baileys_gets_the_same_bytes_and_fields_of_every_kind() {
    let Some(directory) = installed() else { return };
    let (world, mut baileys, _state) = with_baileys(&directory, &[]).await;
    let acme = world.service.tenant("acme");
    let voice = [OPUS, &noise(3_000)].concat();
    let moving = [&b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\x01\0\xff\x01\0"[..]].concat();
    for (file, with, field, fields) in [
        (
            png(300, 200),
            json!({"message": "look"}),
            "imageMessage",
            json!({"mimetype": "image/png", "caption": "look", "width": 300, "height": 200}),
        ),
        (
            film(40_000),
            json!({"message": "watch"}),
            "videoMessage",
            json!({"mimetype": "video/mp4", "caption": "watch", "width": 320, "height": 240, "seconds": 7}),
        ),
        (
            film(40_000),
            json!({"gif": true}),
            "videoMessage",
            json!({"mimetype": "video/mp4", "gifPlayback": true, "seconds": 7}),
        ),
        (
            [b"ID3\x04\0\0\0\0\0\0", &noise(5_000)[..]].concat(),
            json!({}),
            "audioMessage",
            json!({"mimetype": "audio/mpeg"}),
        ),
        (voice, json!({"voice": true}), "audioMessage", json!({"mimetype": "audio/ogg; codecs=opus", "ptt": true})),
        (WEBP.to_vec(), json!({"sticker": true}), "stickerMessage", json!({"mimetype": "image/webp"})),
        (
            moving,
            json!({"sticker": true}),
            "stickerMessage",
            json!({"mimetype": "image/webp", "isAnimated": true, "width": 512}),
        ),
        (
            b"a,b\n1,2\n".to_vec(),
            json!({"message": "the figures", "filename": "a b.csv"}),
            "documentMessage",
            json!({"fileName": "a b.csv", "caption": "the figures"}),
        ),
    ] {
        let mut body = with;
        let filename = body.as_object_mut().unwrap().remove("filename");
        body["media"] = json!({"base64": BASE64_STANDARD.encode(&file), "filename": filename});
        let (_, event) = to_baileys(acme, &mut baileys, body).await;
        assert_eq!((&event["sha256"], &event["size"]), (&json!(hexadecimal(&file)), &json!(file.len())), "{event}");
        let read = &event["content"][field];
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&read[name], value, "{field}.{name}: {event}");
        }
        assert_eq!(read["jpegThumbnail"].is_string(), field == "imageMessage", "{event}");
        for name in ["ptt", "gifPlayback", "isAnimated"] {
            assert_eq!(read[name].as_bool().unwrap_or_default(), fields[name] == true, "{name}: {event}");
        }
    }
    // A recording, as a phone or a browser makes it, is a voice note that Baileys can open.
    if !ffmpeg::is_missing() {
        let recording = ffmpeg::made(&format!("{SPEECH} -c:a aac"), "a.m4a");
        let body = json!({"voice": true, "media": {"base64": BASE64_STANDARD.encode(&recording)}});
        let (id, event) = to_baileys(acme, &mut baileys, body).await;
        let read = &event["content"]["audioMessage"];
        let expected = (&json!(true), &json!(4), &json!("audio/ogg; codecs=opus"));
        assert_eq!((&read["ptt"], &read["seconds"], &read["mimetype"]), expected, "{event}");
        let bars = BASE64_STANDARD.decode(text(read, "waveform")).unwrap();
        assert_eq!((bars.len(), bars[10], bars[50] > 80), (64, 0, true), "{bars:?}");
        let (_, note) = world.until_file(BRUNO, &json!(id)).await;
        assert_eq!((&event["sha256"], note.starts_with(b"OggS")), (&json!(hexadecimal(&note)), true), "{event}");
    }

    let place = json!({"latitude": -23.5614, "longitude": -46.6559, "name": "MASP", "address": "Av. Paulista, 1578"});
    let (_, event) = to_baileys(acme, &mut baileys, json!({"location": place})).await;
    let read = &event["content"]["locationMessage"];
    for (ours, theirs) in
        [("latitude", "degreesLatitude"), ("longitude", "degreesLongitude"), ("name", "name"), ("address", "address")]
    {
        assert_eq!(read[theirs], place[ours], "{event}");
    }
    let person = json!({"name": "Carla", "phone": "+55 11 97777-7777"});
    let (_, event) = to_baileys(acme, &mut baileys, json!({"contact": person})).await;
    let read = &event["content"]["contactMessage"];
    assert_eq!(read["displayName"], "Carla");
    assert!(text(read, "vcard").contains("waid=5511977777777"), "{event}");

    let question = baileys.post(ANA, json!({"text": "Coming?"}), None).await;
    acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == *question)).await;
    let (answer, event) = to_baileys(acme, &mut baileys, json!({"message": "Yes", "replyTo": question})).await;
    let context = &event["content"]["extendedTextMessage"]["contextInfo"];
    assert_eq!(
        (&event["content"]["extendedTextMessage"]["text"], &context["stanzaId"]),
        (&json!("Yes"), &json!(question))
    );
    for emoji in ["👍", ""] {
        let reaction = json!({"reaction": {"messageId": question, "emoji": emoji}});
        let (_, event) = to_baileys(acme, &mut baileys, reaction).await;
        let read = &event["content"]["reactionMessage"];
        assert_eq!(
            (read["text"].as_str().unwrap_or_default(), &read["key"]["id"]),
            (emoji, &json!(question)),
            "{event}"
        );
    }
    let edit = json!({"edit": {"messageId": answer, "message": "No"}});
    let (_, event) = to_baileys(acme, &mut baileys, edit).await;
    let read = &event["content"]["protocolMessage"];
    assert_eq!((&read["key"]["id"], &read["type"]), (&json!(answer), &json!("MESSAGE_EDIT")), "{event}");
    let edited = &read["editedMessage"];
    assert!([&edited["conversation"], &edited["extendedTextMessage"]["text"]].contains(&&json!("No")), "{event}");
    let (_, event) = to_baileys(acme, &mut baileys, json!({"revoke": {"messageId": answer}})).await;
    let read = &event["content"]["protocolMessage"];
    assert_eq!((&read["key"]["id"], &read["type"]), (&json!(answer), &json!("REVOKE")), "{event}");
    baileys.tell(json!({"exit": true})).await;
}

#[tokio::test]
async fn every_kind_from_baileys_is_told_with_the_same_bytes_and_fields() {
    let Some(directory) = installed() else { return };
    let (world, mut baileys, _state) = with_baileys(&directory, &[]).await;
    let acme = world.service.tenant("acme");
    let told = async |id: &str| {
        let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
        let one = told.into_iter().find(|one| one["id"] == id).unwrap();
        assert_eq!((&one["from"], one.get("fromMe")), (&json!(BRUNO), None), "{one}");
        one
    };
    let file = noise(50_000);
    let base64 = BASE64_STANDARD.encode(&file);
    for (content, kind, media) in [
        (
            json!({"image": base64, "mimetype": "image/jpeg", "caption": "look", "jpegThumbnail": "AQI=", "width": 4,
                   "height": 3}),
            "image",
            json!({"mimetype": "image/jpeg", "width": 4, "height": 3}),
        ),
        (
            json!({"video": base64, "caption": "watch", "jpegThumbnail": "AQI=", "seconds": 2}),
            "video",
            json!({"mimetype": "video/mp4", "seconds": 2, "gif": null}),
        ),
        (
            json!({"video": base64, "gifPlayback": true, "jpegThumbnail": "AQI=", "seconds": 2}),
            "video",
            json!({"mimetype": "video/mp4", "seconds": 2, "gif": true}),
        ),
        (
            json!({"image": base64, "mimetype": "image/jpeg", "caption": "once", "jpegThumbnail": "AQI=", "viewOnce": true}),
            "image",
            json!({"mimetype": "image/jpeg"}),
        ),
        (
            json!({"audio": base64, "mimetype": "audio/mp4", "seconds": 3}),
            "audio",
            json!({"mimetype": "audio/mp4", "seconds": 3}),
        ),
        (
            json!({"audio": base64, "mimetype": "audio/ogg; codecs=opus", "ptt": true, "seconds": 3, "waveform": "AQI="}),
            "voice",
            json!({"mimetype": "audio/ogg; codecs=opus", "seconds": 3, "waveform": [1, 2]}),
        ),
        (
            json!({"document": base64, "mimetype": "application/pdf", "fileName": "a.pdf", "caption": "read"}),
            "document",
            json!({"mimetype": "application/pdf", "filename": "a.pdf"}),
        ),
        (json!({"sticker": base64}), "sticker", json!({"mimetype": "image/webp", "animated": null})),
        (
            json!({"sticker": base64, "isAnimated": true}),
            "sticker",
            json!({"mimetype": "image/webp", "animated": true}),
        ),
    ] {
        let caption = content.get("caption").cloned();
        let one = told(&baileys.post(ANA, content, None).await).await;
        assert_eq!((&one["kind"], one.get("text").cloned()), (&json!(kind), caption), "{one}");
        let mut expected = media;
        expected["size"] = json!(file.len());
        expected["sha256"] = json!(hexadecimal(&file));
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&one["media"][name], value, "{one}");
        }
        let request = world.service.request(Method::GET, one["mediaUrl"].as_str().unwrap());
        let response = request.header("X-Tenant-Id", "acme").send().await.unwrap();
        assert_eq!(response.status(), 200, "{one}");
        assert!(response.bytes().await.unwrap() == file, "{kind}: other bytes");
    }

    let place =
        json!({"location": {"degreesLatitude": 1.5, "degreesLongitude": -2.5, "name": "here", "address": "Street 1"}});
    let one = told(&baileys.post(ANA, place, None).await).await;
    let place = json!({"latitude": 1.5, "longitude": -2.5, "name": "here", "address": "Street 1"});
    assert_eq!((&one["kind"], &one["location"]), (&json!("location"), &place));
    let card = |name: &str, phone: &str| {
        let vcard = format!("BEGIN:VCARD\nVERSION:3.0\nFN:{name}\nTEL;type=CELL;waid=5511977777777:{phone}\nEND:VCARD");
        json!({"displayName": name, "vcard": vcard})
    };
    let cards = [card("Carla", "+55 11 97777-7777"), card("Davi", "+55 11 96666-6666")];
    let people =
        json!([{"name": "Carla", "phones": ["+55 11 97777-7777"]}, {"name": "Davi", "phones": ["+55 11 96666-6666"]}]);
    for count in [1, 2] {
        let content = json!({"contacts": {"displayName": "people", "contacts": cards[..count]}});
        let one = told(&baileys.post(ANA, content, None).await).await;
        assert_eq!(
            (&one["kind"], &one["contacts"].as_array().unwrap()[..]),
            (&json!("contact"), &people.as_array().unwrap()[..count])
        );
    }
    let poll = json!({"poll": {"name": "What?", "values": ["tea", "coffee"], "selectableCount": 1}});
    let one = told(&baileys.post(ANA, poll, None).await).await;
    assert_eq!(one["poll"], json!({"name": "What?", "options": ["tea", "coffee"], "selectable": 1}), "{one}");

    let question = acme.send_ok(BRUNO, "well?").await["id"].clone();
    let question = question.as_str().unwrap();
    baileys.wait(json!({"event": "content", "id": question})).await;
    let answer = baileys.post(ANA, json!({"text": "yes"}), Some(question)).await;
    let one = told(&answer).await;
    assert_eq!((&one["text"], &one["replyTo"]), (&json!("yes"), &json!(question)), "{one}");
    for emoji in ["👍", ""] {
        let reaction = baileys.post(ANA, json!({"react": {"text": emoji, "key": question}}), None).await;
        let expected = json!({"messageId": question, "emoji": emoji});
        assert_eq!(told(&reaction).await["reaction"], expected);
    }
    let edit = told(&baileys.post(ANA, json!({"text": "no", "edit": answer}), None).await).await;
    assert_eq!((&edit["kind"], &edit["edit"]), (&json!("edit"), &json!({"messageId": answer, "text": "no"})));
    let revocation = told(&baileys.post(ANA, json!({"delete": answer}), None).await).await;
    assert_eq!((&revocation["kind"], &revocation["revoke"]), (&json!("revoke"), &json!({"messageId": answer})));
    let strange = told(&baileys.post(ANA, json!({"requestPhoneNumber": true}), None).await).await;
    let expected = (&json!("unsupported"), &json!("requestPhoneNumberMessage"));
    assert_eq!((&strange["kind"], &strange["type"]), expected, "{strange}");
    baileys.tell(json!({"exit": true})).await;
}

#[tokio::test]
async fn baileys_gets_the_timer_the_mentions_and_the_preview_that_the_service_sends() {
    let Some(directory) = installed() else { return };
    let (world, mut baileys, _state) = with_baileys(&directory, &[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let acme = world.service.tenant("acme");
    let pages = Pages::start().await;
    let link = pages.link("page");
    let content = json!({"message": format!("@{ANA} see {link}"), "mentions": [ANA], "linkPreview": true});
    let (_, event) = to_baileys(acme, &mut baileys, content.clone()).await;
    let read = &event["content"]["extendedTextMessage"];
    for (field, value) in [("matchedText", link.as_str()), ("title", "A & B"), ("description", "Two letters")] {
        assert_eq!(read[field], value, "{event}");
    }
    let picture = BASE64_STANDARD.decode(text(read, "jpegThumbnail")).unwrap();
    assert!(picture.starts_with(b"\xff\xd8\xff"), "a JPEG");
    assert_eq!(read["contextInfo"]["mentionedJid"], json!([format!("{ANA}@s.whatsapp.net")]), "{event}");
    assert!(read["contextInfo"]["expiration"].as_u64().unwrap_or_default() == 0, "{event}");

    // It is learnt from what Baileys writes in a chat that has one.
    let id = baileys.post_with(ANA, json!({"text": "for a day"}), json!({"ephemeralExpiration": 86_400})).await;
    acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
    let (_, event) = to_baileys(acme, &mut baileys, json!({"message": "for a day, too"})).await;
    assert_eq!(event["content"]["extendedTextMessage"]["contextInfo"]["expiration"], 86_400, "{event}");
    // Baileys turns the timer on, as an app does, and off again.
    let id = baileys.post(ANA, json!({"disappearingMessagesInChat": 604_800}), None).await;
    let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
    let change = told.into_iter().find(|one| one["id"] == id).unwrap();
    assert_eq!(change["disappearingTimer"], json!({"seconds": 604_800}), "{change}");
    let (_, event) = to_baileys(acme, &mut baileys, content).await;
    let context = &event["content"]["extendedTextMessage"]["contextInfo"];
    assert_eq!(context["expiration"], 604_800, "{event}");
    let media = json!({"media": {"base64": BASE64_STANDARD.encode(png(4, 3))}, "message": "look"});
    let (_, event) = to_baileys(acme, &mut baileys, media).await;
    assert_eq!(event["content"]["imageMessage"]["contextInfo"]["expiration"], 604_800, "{event}");
    let id = baileys.post(ANA, json!({"disappearingMessagesInChat": false}), None).await;
    acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
    let (_, event) = to_baileys(acme, &mut baileys, json!({"message": "for ever"})).await;
    let read = &event["content"];
    assert!([&read["conversation"], &read["extendedTextMessage"]["text"]].contains(&&json!("for ever")), "{event}");
    assert!(read["extendedTextMessage"]["contextInfo"]["expiration"].as_u64().unwrap_or_default() == 0, "{event}");
    baileys.tell(json!({"exit": true})).await;
}

#[tokio::test]
async fn what_baileys_says_as_a_customer_is_told_with_the_same_fields() {
    let Some(directory) = installed() else { return };
    let (world, mut baileys, _state) = with_baileys(&directory, &[]).await;
    let acme = world.service.tenant("acme");
    let told = async |id: &str| {
        let told = acme.until_told("message.received", |told| told.iter().any(|one| one["id"] == id)).await;
        told.into_iter().find(|one| one["id"] == id).unwrap()
    };
    let button = json!({"buttonReply": {"id": "yes", "displayText": "Yes", "index": 1}, "type": "plain"});
    let one = told(&baileys.post(ANA, button, None).await).await;
    assert_eq!((&one["kind"], &one["text"]), (&json!("buttonReply"), &json!("Yes")), "{one}");
    assert_eq!(one["reply"], json!({"id": "yes", "title": "Yes"}), "{one}");
    let template = json!({"buttonReply": {"id": "stop", "displayText": "Stop", "index": 1}, "type": "template"});
    let one = told(&baileys.post(ANA, template, None).await).await;
    assert_eq!(
        (&one["kind"], &one["reply"]),
        (&json!("templateReply"), &json!({"id": "stop", "title": "Stop", "index": 1}))
    );
    let list = json!({"listReply": {"title": "Tomorrow", "description": "at ten", "listType": 1,
                      "singleSelectReply": {"selectedRowId": "slot-2"}}});
    let one = told(&baileys.post(ANA, list, None).await).await;
    let expected = json!({"id": "slot-2", "title": "Tomorrow", "description": "at ten"});
    assert_eq!((&one["kind"], &one["reply"]), (&json!("listReply"), &expected), "{one}");
    let flow = json!({"interactiveResponseMessage": {"body": {"text": "Blue"}, "nativeFlowResponseMessage":
                      {"name": "quick_reply", "paramsJson": "{\"id\":\"blue\"}", "version": 3}}});
    let one = told(&baileys.relay(ANA, flow).await).await;
    let expected = json!({"id": "blue", "title": "Blue", "name": "quick_reply", "params": "{\"id\":\"blue\"}"});
    assert_eq!((&one["kind"], &one["reply"]), (&json!("flowReply"), &expected), "{one}");
    let order = json!({"orderMessage": {"orderId": "4711", "itemCount": 2, "status": 1, "surface": 1, "message": "Today?",
                       "orderTitle": "Cups", "token": "AR6", "totalAmount1000": 12_900, "totalCurrencyCode": "BRL"}});
    let one = told(&baileys.relay(ANA, order).await).await;
    let expected = json!({"id": "4711", "status": "inquiry", "title": "Cups", "itemCount": 2, "totalAmount1000": 12_900,
                          "currency": "BRL"});
    assert_eq!((&one["kind"], &one["text"], &one["order"]), (&json!("order"), &json!("Today?"), &expected), "{one}");

    // A product has a picture, which can be had.
    let picture = noise(20_000);
    let product = json!({"product": {"productImage": BASE64_STANDARD.encode(&picture), "productId": "8", "title": "A cup",
        "description": "Blue", "currencyCode": "BRL", "priceAmount1000": 6_450, "retailerId": "cup-8"},
        "businessOwnerJid": format!("{ANA}@s.whatsapp.net"), "body": "Is it there?"});
    let one = told(&baileys.post(ANA, product, None).await).await;
    let expected = json!({"id": "8", "retailerId": "cup-8", "title": "A cup", "description": "Blue", "currency": "BRL",
                          "priceAmount1000": 6_450});
    assert_eq!((&one["kind"], &one["product"]), (&json!("product"), &expected), "{one}");
    assert_eq!(one["media"]["sha256"], hexadecimal(&picture), "{one}");
    let request = world.service.request(Method::GET, one["mediaUrl"].as_str().unwrap());
    let response = request.header("X-Tenant-Id", "acme").send().await.unwrap();
    assert!(response.bytes().await.unwrap() == picture);

    let ad = json!({"externalAdReply": {"title": "Chat with us", "body": "Our summer sale", "mediaType": 1,
        "sourceType": "ad", "sourceId": "120226305854810726", "sourceUrl": "https://fb.me/3cr4Wqqkv",
        "thumbnailUrl": "https://example.com/sale.jpg", "ctwaClid": "ARAkLkA8", "showAdAttribution": true}});
    let one =
        told(&baileys.relay(ANA, json!({"extendedTextMessage": {"text": "Hello!", "contextInfo": ad}})).await).await;
    let expected = json!({"sourceUrl": "https://fb.me/3cr4Wqqkv", "sourceType": "ad", "sourceId": "120226305854810726",
        "headline": "Chat with us", "body": "Our summer sale", "mediaType": "image",
        "thumbnailUrl": "https://example.com/sale.jpg", "ctwaClid": "ARAkLkA8"});
    assert_eq!((&one["text"], &one["referral"]), (&json!("Hello!"), &expected), "{one}");

    // A voice note that Baileys has listened to.
    let voice = json!({"voice": true, "media": {"base64": BASE64_STANDARD.encode([OPUS, &noise(3_000)].concat())}});
    let (id, _) = to_baileys(acme, &mut baileys, voice).await;
    baileys.tell(json!({"receipt": {"to": ANA, "id": id, "type": "played"}})).await;
    let played = acme.until_fate(&json!(id), "played").await;
    assert!(played["readAt"].is_string() && played["playedAt"].is_string(), "{played}");
    baileys.tell(json!({"exit": true})).await;
}
