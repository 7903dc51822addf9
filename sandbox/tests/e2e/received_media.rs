//! Files that come in: fetched when they are asked for, equal to the byte, and asked for again when they have expired.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use whatsapp_rust::{Jid, SendOptions, UploadOptions, prelude::wa, wacore::download::MediaType};
use whatsapp_simulator::{Config, Phone};

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Service, World, eventually},
    media::hexadecimal,
};

/// Bytes that look like nothing, the same ones each time.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let blocks = (0_u32..).flat_map(|n| Sha256::digest([&n.to_be_bytes()[..], &[seed]].concat()).to_vec());
    blocks.take(length).collect()
}

/// Has a phone send a file, and returns what is told of it.
async fn sent(world: &World, from: &str, to: &str, file: &[u8], with: Value) -> Value {
    let id = sent_only(world, from, to, file, with).await;
    told_to(world, "acme", &id).await
}

/// Has a phone send a file, and returns the message's id.
async fn sent_only(world: &World, from: &str, to: &str, file: &[u8], mut with: Value) -> Value {
    with["base64"] = BASE64_STANDARD.encode(file).into();
    let message = json!({"to": to, "text": "look at this", "media": with}).to_string();
    world.admin(Method::POST, &format!("/admin/accounts/{from}/messages"), message).await["id"].clone()
}

/// What a tenant is told of a message.
async fn told_to(world: &World, tenant: &str, id: &Value) -> Value {
    let told = world.service.tenant(tenant);
    let told = told.until_told("message.received", |told| told.iter().any(|one| one["id"] == *id)).await;
    told.into_iter().find(|one| one["id"] == *id).unwrap()
}

/// A document that a client has uploaded.
async fn document(client: &TestClient, bytes: &[u8]) -> wa::message::DocumentMessage {
    let file = client.client.upload(bytes.to_vec(), MediaType::Document, UploadOptions::new()).await.unwrap();
    wa::message::DocumentMessage {
        direct_path: Some(file.direct_path),
        media_key: Some(file.media_key.to_vec()),
        file_sha256: Some(file.file_sha256.to_vec()),
        file_enc_sha256: Some(file.file_enc_sha256.to_vec()),
        file_length: Some(file.file_length),
        mimetype: Some("application/pdf".into()),
        file_name: Some("plan.pdf".into()),
        ..Default::default()
    }
}

/// Has a client send a document to Ana, and returns where her tenant has it.
async fn received(world: &World, client: &TestClient, document: wa::message::DocumentMessage) -> String {
    let message = wa::Message { document_message: Some(document).into(), ..Default::default() };
    let id = json!(client.send_any(&Phone::parse(ANA).unwrap(), message).await);
    told_to(world, "acme", &id).await["mediaUrl"].as_str().expect("an address").into()
}

/// Waits until a fault has applied so often that this is left of it.
async fn until_left(world: &World, times: u64) {
    eventually("the media host is asked", || async {
        let faults = world.admin(Method::GET, "/admin/faults", "").await;
        (faults[0]["times"] == times).then_some(())
    })
    .await;
}

/// Asks for a file.
async fn get(service: &Service, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = service.request(method, path).header("X-Tenant-Id", "acme");
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    request.send().await.expect("the service answers")
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_of_every_kind_is_the_one_that_was_sent() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    for (n, (with, kind, expected)) in [
        (
            json!({"kind": "image", "mimetype": "image/png", "width": 64, "height": 48}),
            "image",
            json!({"width": 64, "height": 48}),
        ),
        (
            json!({"kind": "video", "mimetype": "video/mp4", "seconds": 7, "width": 640, "height": 480, "gif": true}),
            "video",
            json!({"seconds": 7, "width": 640, "height": 480, "gif": true}),
        ),
        (json!({"kind": "audio", "mimetype": "audio/mpeg", "seconds": 3}), "audio", json!({"seconds": 3})),
        (
            json!({"kind": "voice", "mimetype": "audio/ogg; codecs=opus", "seconds": 2, "waveform": [0, 50, 100]}),
            "voice",
            json!({"seconds": 2, "waveform": [0, 50, 100]}),
        ),
        (
            json!({"kind": "document", "mimetype": "application/pdf", "filename": "relatório \"7\".pdf"}),
            "document",
            json!({"filename": "relatório \"7\".pdf"}),
        ),
        (
            json!({"kind": "sticker", "mimetype": "image/webp", "width": 512, "height": 512, "animated": true}),
            "sticker",
            json!({"width": 512, "height": 512, "animated": true}),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // Lengths around the blocks of the encryption, and around what is read at a time.
        let file = bytes([1, 15, 16, 65_536, 65_537, 300_001][n], n as u8);
        let told = sent(&world, BRUNO, ANA, &file, with.clone()).await;
        assert_eq!((&told["kind"], &told["from"]), (&json!(kind), &json!(BRUNO)), "{told}");
        let mut media = expected;
        media["mimetype"] = with["mimetype"].clone();
        media["size"] = file.len().into();
        media["sha256"] = hexadecimal(&file).into();
        assert_eq!(told["media"], media);
        let captioned = ["image", "video", "document"].contains(&kind);
        assert_eq!(told.get("text"), captioned.then_some(&json!("look at this")), "{told}");
        let url = told["mediaUrl"].as_str().unwrap();
        assert_eq!(url, format!("/messages/{}/media", told["id"].as_str().unwrap()));

        let head = get(&world.service, Method::HEAD, url, &[]).await;
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, &*file.len().to_string()));
        let response = get(&world.service, Method::GET, url, &[]).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), with["mimetype"].as_str().unwrap());
        assert_eq!(header(&response, "content-length"), file.len().to_string());
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "content-security-policy"), "default-src 'none'; sandbox");
        assert_eq!(header(&response, "cache-control"), "private, no-store");
        assert_eq!(header(&response, "accept-ranges"), "bytes");
        assert!(header(&response, "content-disposition").starts_with("attachment"));
        assert!(response.bytes().await.unwrap() == file, "{kind}: other bytes");
    }
    // A name that would end the header's text, or begin another one, does neither.
    let told = world.service.tenant("acme").told("message.received").await;
    let document = told.iter().find(|one| one["kind"] == "document").unwrap();
    let head = get(&world.service, Method::HEAD, document["mediaUrl"].as_str().unwrap(), &[]).await;
    let expected = "attachment; filename=\"relat_rio _7_.pdf\"; filename*=UTF-8''relat%C3%B3rio%20%227%22.pdf";
    assert_eq!(header(&head, "content-disposition"), expected);
    assert_eq!(
        std::fs::read_dir(world.service.data.path().join("downloads")).unwrap().count(),
        0,
        "no file has a name"
    );
    let nobody = world.service.request(Method::GET, document["mediaUrl"].as_str().unwrap());
    assert_eq!(nobody.header("X-Tenant-Id", "another").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn parts_of_a_file_are_had_and_it_is_fetched_once_for_them() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let file = bytes(200_000, 9);
    let told = sent(&world, BRUNO, ANA, &file, json!({"mimetype": "application/zip", "filename": "a.zip"})).await;
    let url = told["mediaUrl"].as_str().unwrap().to_owned();
    let before = world.count(BRUNO, "downloads").await;
    assert_eq!(get(&world.service, Method::HEAD, &url, &[]).await.status(), 200);
    assert_eq!(world.count(BRUNO, "downloads").await, before, "nothing is fetched to say how long it is");
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=17-70000", 17..70_001),
        ("bytes=199990-", 199_990..200_000),
        ("bytes=-5", 199_995..200_000),
        ("bytes=100-999999", 100..200_000),
    ] {
        let response = get(&world.service, Method::GET, &url, &[("Range", range)]).await;
        assert_eq!(response.status(), 206, "{range}");
        let named = format!("bytes {}-{}/200000", expected.start, expected.end - 1);
        assert_eq!(header(&response, "content-range"), named);
        assert_eq!(header(&response, "content-length"), expected.len().to_string());
        assert!(response.bytes().await.unwrap() == file[expected], "{range}: other bytes");
    }
    let response = get(&world.service, Method::GET, &url, &[("Range", "bytes=200000-")]).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-range")), (416, "bytes */200000"));
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "range_not_satisfiable");
    // What the caller has begun with is another file: all of this one.
    let headers = [("Range", "bytes=0-9"), ("If-Range", "\"another\"")];
    let response = get(&world.service, Method::GET, &url, &headers).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-length")), (200, "200000"));
    let tag = header(&response, "etag").to_owned();
    let headers = [("Range", "bytes=0-9"), ("If-Range", &*tag)];
    let response = get(&world.service, Method::GET, &url, &headers).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-length")), (206, "10"));
    assert_eq!(world.count(BRUNO, "downloads").await - before, 1);

    // A kill takes what was fetched, and not what opens it. A session that is connecting is waited for.
    world.service.kill_and_restart().await;
    let response = get(&world.service, Method::GET, &url, &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    assert_eq!(world.count(BRUNO, "downloads").await - before, 2);
}

#[tokio::test]
async fn a_file_that_has_expired_is_uploaded_again_or_gone() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let (file, other) = (bytes(50_000, 1), bytes(40_000, 2));
    let told = sent(&world, BRUNO, ANA, &file, json!({"mimetype": "image/jpeg"})).await;
    let lost = sent(&world, BRUNO, ANA, &other, json!({"mimetype": "image/jpeg"})).await;
    // The account's phone has seen them both.
    world.shown_on(ANA).await;
    world.fault(json!({"mediaExpired": true})).await;
    let url = told["mediaUrl"].as_str().unwrap();
    let uploads = world.count(ANA, "uploads").await;
    let response = get(&world.service, Method::GET, url, &[]).await;
    assert_eq!(response.status(), 200, "{}", world.service.log.text());
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    assert_eq!(world.count(ANA, "uploads").await - uploads, 1, "the phone has brought it again");
    // Where it is now is known from then on.
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    let response = get(&world.service, Method::GET, url, &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    assert_eq!(world.count(ANA, "uploads").await - uploads, 1, "the phone was not asked again");

    // Without the phone, there is nobody left to ask.
    world.fault(json!({"offlinePhone": true, "phone": ANA})).await;
    let url = lost["mediaUrl"].as_str().unwrap();
    let response = get(&world.service, Method::GET, url, &[]).await;
    assert_eq!(
        (response.status().as_u16(), &response.json::<Value>().await.unwrap()["code"]),
        (410, &json!("media_expired"))
    );
    let asked = Instant::now();
    let (status, answer) = acme.call(Method::GET, url, None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (410, &json!("media_expired")));
    assert!(asked.elapsed() < Duration::from_secs(20), "the phone, which has half a minute, was asked again at once");
}

#[tokio::test]
async fn what_opens_a_file_is_sealed_and_goes_with_the_device() {
    let key = BASE64_STANDARD.encode([5; 32]);
    let world = World::with(Config::default(), &[("ENCRYPTION_KEY", key.as_str())]).await;
    world.pair("acme", ANA).await;
    let file = bytes(1000, 3);
    let told = sent(&world, BRUNO, ANA, &file, json!({"mimetype": "text/html", "filename": "page.html"})).await;
    let url = told["mediaUrl"].as_str().unwrap();
    assert!(get(&world.service, Method::GET, url, &[]).await.bytes().await.unwrap() == file, "other bytes");
    let kept: Vec<u8> =
        world.service.database().query_row("SELECT value FROM state WHERE kind = 21", (), |row| row.get(0)).unwrap();
    assert!(!String::from_utf8_lossy(&kept).contains("page.html"), "it is not sealed");

    // A session that can't be used now can't fetch anything.
    world.fault(json!({"loginFailure": {"reason": 403}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let acme = world.service.tenant("acme");
    acme.until_state("locked").await;
    let another = format!("{url}?of=0000000000000000");
    assert_eq!(acme.call(Method::GET, &another, None).await.1["code"], "media_not_found");
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 200);
    let (status, answer) = acme.call(Method::GET, url, None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (404, &json!("media_not_found")));
}

#[tokio::test]
async fn a_picture_that_the_owner_sends_from_the_phone_can_be_fetched_too() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let file = bytes(5000, 4);
    let told = sent(&world, ANA, BRUNO, &file, json!({"mimetype": "image/png"})).await;
    assert_eq!((&told["fromMe"], &told["to"], &told["kind"]), (&json!(true), &json!(BRUNO), &json!("image")));
    let response = get(&world.service, Method::GET, told["mediaUrl"].as_str().unwrap(), &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    // Also when it has expired: the phone is told that it is its own.
    let file = bytes(5000, 5);
    let told = sent(&world, ANA, BRUNO, &file, json!({"mimetype": "image/png"})).await;
    world.fault(json!({"mediaExpired": true})).await;
    let response = get(&world.service, Method::GET, told["mediaUrl"].as_str().unwrap(), &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");
}

#[tokio::test]
async fn what_is_not_the_file_that_was_sent_is_not_passed_on() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let refused = async |url: &str| {
        let (status, answer) = acme.call(Method::GET, url, None).await;
        assert_eq!((status.as_u16(), &answer["code"]), (502, &json!("media_damaged")), "{answer}");
    };
    let file = bytes(100_000, 5);
    let told = sent(&world, BRUNO, ANA, &file, json!({"mimetype": "application/zip", "filename": "a.zip"})).await;
    let url = told["mediaUrl"].as_str().unwrap();
    world.fault(json!({"mediaDamaged": true, "phone": BRUNO})).await;
    refused(url).await;
    // It may have been the way, and not the file.
    world.clear_faults().await;
    let response = get(&world.service, Method::GET, url, &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");

    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let plan = document(&bruno, &file).await;
    let other_key = wa::message::DocumentMessage { media_key: Some(vec![7; 32]), ..plan.clone() };
    let other_content = wa::message::DocumentMessage { file_sha256: Some(vec![7; 32]), ..plan.clone() };
    for wrong in [other_key, other_content] {
        refused(&received(&world, &bruno, wrong).await).await;
    }
    let url = received(&world, &bruno, plan).await;
    let response = get(&world.service, Method::GET, &url, &[]).await;
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    bruno.stop().await;
}

#[tokio::test]
async fn slow_files_of_one_tenant_hold_up_nobody_else() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("other", BRUNO).await;
    let file = bytes(1000, 6);
    let id = sent_only(&world, ANA, BRUNO, &file, json!({"mimetype": "image/png"})).await;
    let others = told_to(&world, "other", &id).await;
    let mut slow = Vec::new();
    for n in 0..4 {
        let told = sent(&world, BRUNO, ANA, &bytes(1000, n), json!({"mimetype": "image/png"})).await;
        slow.push(told["mediaUrl"].as_str().unwrap().to_owned());
    }
    world.fault(json!({"mediaLatencyMs": 60_000, "phone": BRUNO, "times": 4})).await;
    let mut waiting = JoinSet::new();
    for url in &slow {
        waiting.spawn(world.service.request(Method::GET, url).header("X-Tenant-Id", "acme").send());
    }
    until_left(&world, 2).await;
    let url = others["mediaUrl"].as_str().unwrap();
    let response = world.service.request(Method::GET, url).header("X-Tenant-Id", "other").send().await.unwrap();
    assert!(response.bytes().await.unwrap() == file, "other bytes");
    until_left(&world, 2).await;
    assert!(waiting.try_join_next().is_none(), "the slow ones are still waited for");
}

#[tokio::test]
async fn a_file_for_which_there_is_no_room_has_to_wait() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("other", BRUNO).await;
    let acme = world.service.tenant("acme");
    let file = bytes(1000, 7);
    let id = sent_only(&world, ANA, BRUNO, &file, json!({"mimetype": "image/png"})).await;
    let others = told_to(&world, "other", &id).await["mediaUrl"].as_str().unwrap().to_owned();
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let large = |document| wa::message::DocumentMessage { file_length: Some(2 << 30), ..document };
    let first = received(&world, &bruno, large(document(&bruno, &bytes(2000, 8)).await)).await;
    let second = received(&world, &bruno, large(document(&bruno, &file).await)).await;

    // It is counted as long as its sender says, from before its first byte on.
    world.fault(json!({"mediaLatencyMs": 60_000, "phone": BRUNO, "times": 1})).await;
    let waiting = tokio::spawn(world.service.request(Method::GET, &first).header("X-Tenant-Id", "acme").send());
    until_left(&world, 0).await;
    let (status, answer) = acme.call(Method::GET, &second, None).await;
    assert_eq!((status.as_u16(), &answer["code"]), (503, &json!("media_busy")), "{answer}");
    assert_eq!((&answer["retryable"], &answer["retryAfter"]), (&json!(true), &json!(10)), "{answer}");
    let response = world.service.request(Method::GET, &others).header("X-Tenant-Id", "other").send().await.unwrap();
    assert!(response.bytes().await.unwrap() == file, "others have room");
    assert!(!waiting.is_finished(), "the first one is still waited for");
    // Whoever no longer waits takes no room.
    waiting.abort();
    eventually("there is room", || async {
        let response = get(&world.service, Method::GET, &second, &[]).await;
        (response.status() == 200).then_some(())
    })
    .await;
    // What was fetched takes no more room than it needs.
    eventually("there is room for the first one too", || async {
        let response = get(&world.service, Method::GET, &first, &[]).await;
        (response.status() == 200).then_some(())
    })
    .await;
    bruno.stop().await;
}

#[tokio::test]
async fn whatever_the_id_of_a_message_holds_it_can_be_named_in_a_path() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (client, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let file = bytes(500, 3);
    for id in ["with a space", " ", "line\nend\r\n", "a/b?c=d#e", "100%", "%20", "+", "ação 😀", "\"'`\\"] {
        let message =
            wa::Message { document_message: Some(document(&client, &file).await).into(), ..Default::default() };
        let options = SendOptions::default().with_message_id(id);
        client.client.send_message_with_options(Jid::pn(ANA), message, options).await.expect("it is sent");
        let told = told_to(&world, "acme", &json!(id)).await;
        let url = told["mediaUrl"].as_str().unwrap();
        let response = get(&world.service, Method::GET, url, &[]).await;
        assert_eq!(response.status(), 200, "{id:?}: {url}");
        assert!(response.bytes().await.unwrap() == file, "{id:?}");
        let (status, read) = acme.call(Method::POST, &url.replace("/media", "/read"), None).await;
        assert_eq!((status.as_u16(), &read["id"]), (200, &json!(id)), "{id:?}: {read}");
    }
    client.stop().await;
}
