//! The media host says no, breaks off, or has thrown a file away.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use whatsapp_rust::features::{MediaRetryResult, MediaReuploadRequest};
use whatsapp_rust::prelude::*;
use whatsapp_rust::wacore::download::MediaType;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_simulator::{Fault, FaultKind};

use super::{document, encrypted};
use crate::client::TestClient;
use crate::phones::{admin, bytes, file_on, http, on, phone_sends};
use crate::{ana, bruno, simulator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_cut_goes_on_where_it_was() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let content = bytes(6 * 1024 * 1024);
    let (file, info) = encrypted(&content);
    let token = BASE64.encode(info.file_enc_sha256);
    simulator.world().add_fault(Fault {
        kind: FaultKind::CutUploadAfter(4_000_000),
        phone: Some(ana()),
        times: Some(1),
    });
    let conn = client.client.refresh_media_conn(false).await.unwrap();
    let url = format!("{}/mms/document/{token}?auth={}&token={token}", simulator.http_url(), conn.auth);
    assert!(http().post(&url).body(file.clone()).send().await.is_err(), "the connection is cut");
    let progress: Value = http().post(format!("{url}&resume=1")).send().await.unwrap().json().await.unwrap();
    assert_eq!(progress, json!({ "resume": "4000000" }));

    // The library asks first, and brings only what is missing.
    let uploaded = client.client.upload_stream(Bytes(file.clone()), info, MediaType::Document).await.unwrap();
    assert_eq!(simulator.world().totals().uploads, 1);
    let there = http().get(format!("{}{}", simulator.http_url(), uploaded.direct_path)).send().await.unwrap();
    assert!(there.bytes().await.unwrap() == file, "the host has other bytes");
    let complete: Value = http().post(format!("{url}&resume=1")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&complete["resume"], &complete["direct_path"]), (&json!("complete"), &json!(uploaded.direct_path)));
    client.stop().await;
}

/// A file in memory, to be uploaded from any place on.
struct Bytes(Vec<u8>);

impl whatsapp_rust::wacore::upload::UploadSource for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn reader_from(&self, offset: u64) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        let rest = self.0[usize::try_from(offset).unwrap()..].to_vec();
        Ok(Box::new(std::io::Cursor::new(rest)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_file_is_brought_again_by_the_phone() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let content = bytes(20_000);
    let media = json!({ "base64": base64::engine::general_purpose::STANDARD.encode(&content) });
    let id = phone_sends(&simulator, &bruno(), &ana(), json!({ "media": media })).await;
    let mut file = client.message(&id).await.document_message.into_option().unwrap();
    on(&simulator, &ana(), &id).await;
    simulator.world().add_fault(Fault { kind: FaultKind::MediaExpired, phone: None, times: None });
    let url = format!("{}{}", simulator.http_url(), file.direct_path.clone().unwrap());
    assert_eq!(http().get(&url).send().await.unwrap().status(), 410);
    assert!(client.client.download(&file).await.is_err());

    let chat = Jid::pn(bruno().as_str());
    let key = file.media_key.clone().unwrap();
    let request = |msg_id, media_key| MediaReuploadRequest {
        msg_id,
        chat_jid: &chat,
        media_key,
        is_from_me: false,
        participant: None,
    };
    let again = client.client.media_reupload().request(&request(&id, &key)).await.unwrap();
    let MediaRetryResult::Success { direct_path } = again else { panic!("{again:?}") };
    assert_ne!(Some(&direct_path), file.direct_path.as_ref());
    file.direct_path = Some(direct_path);
    assert!(client.client.download(&file).await.unwrap() == content, "other bytes");
    let wrong = client.client.media_reupload().request(&request(&id, &[1; 32])).await.unwrap();
    assert!(matches!(wrong, MediaRetryResult::DecryptionError), "{wrong:?}");
    let unknown = client.client.media_reupload().request(&request("unknown", &key)).await.unwrap();
    assert!(matches!(unknown, MediaRetryResult::NotFound), "{unknown:?}");
    // The phone keeps what it has once downloaded.
    assert_eq!(file_on(&simulator, &ana(), &id).await.1, content);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_media_host_takes_only_what_it_was_promised() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let auth = client.client.refresh_media_conn(false).await.unwrap().auth;
    let file = bytes(1000);
    let token = BASE64.encode(Sha256::digest(&file));
    let post = async |path: String, body: &[u8]| {
        let url = format!("{}{path}", simulator.http_url());
        http().post(url).body(body.to_vec()).send().await.unwrap().status().as_u16()
    };
    let other = BASE64.encode([7; 32]);
    for (path, expected) in [
        (format!("/mms/image/{token}?token={token}"), 401),
        (format!("/mms/image/{token}?auth=0.x&token={token}"), 403),
        (format!("/mms/image/{token}?auth={auth}&token={other}"), 400),
        (format!("/mms/image/nothing?auth={auth}"), 400),
        (format!("/mms/poetry/{token}?auth={auth}"), 404),
        (format!("/mms/image/{other}?auth={auth}"), 400),
        (format!("/mms/image/{token}?auth={auth}&file_offset=10"), 409),
        (format!("/mms/image/{token}?auth={auth}&token={token}"), 200),
    ] {
        assert_eq!(post(path.clone(), &file).await, expected, "{path}");
    }

    let complete = format!("{}/mms/image/{token}?auth={auth}&resume=1", simulator.http_url());
    let found: Value = http().post(complete).send().await.unwrap().json().await.unwrap();
    let path = found["direct_path"].as_str().unwrap().to_owned();
    assert_eq!(found["url"], format!("https://{}{path}", simulator.addr()));
    let get = async |path: String, range: &str| {
        let request = http().get(format!("{}{path}", simulator.http_url()));
        let request = if range.is_empty() { request } else { request.header("range", range) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    };
    assert_eq!(get(path.clone(), "").await, (200, file.clone()));
    assert_eq!(get(format!("{path}?token={token}&auth={auth}"), "").await, (200, file.clone()));
    assert_eq!(get(path.clone(), "bytes=100-199").await, (206, file[100..200].to_vec()));
    assert_eq!(get(path.clone(), "bytes=-1").await, (206, file[999..].to_vec()));
    for (path, range, expected) in [
        (path.clone(), "bytes=1000-", 416),
        (format!("{path}?token={other}"), "", 404),
        (format!("{path}?auth=0.x"), "", 403),
        (path.replace("/v/", "/w/"), "", 404),
        (path.replacen("24/", "24/9", 1), "", 404),
    ] {
        assert_eq!(get(path.clone(), range).await.0, expected, "{path} {range}");
    }
    let totals = simulator.world().totals();
    assert_eq!((totals.uploads, totals.downloads), (1, 4));

    let (status, _) =
        admin(&simulator, Method::POST, "/admin/faults", Some(json!({ "mediaLatencyMs": 300, "times": 1 }))).await;
    assert_eq!(status, 204);
    let asked = Instant::now();
    assert_eq!(get(path, "").await.0, 200);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_what_the_message_says_is_not_shown() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let good = document(&client, &bytes(1000)).await;
    type Damage = fn(&mut wa::message::DocumentMessage);
    let cases: [(Damage, &str); 4] = [
        (|m| m.file_sha256 = Some(vec![0; 32]), "the decrypted bytes are not those that the message says"),
        (|m| m.file_enc_sha256 = Some(vec![0; 32]), "the media host has other bytes than the message says"),
        (|m| m.media_key = Some(vec![0; 32]), "the file can't be decrypted"),
        (|m| m.media_key = None, "the message does not say how to find or open the file"),
    ];
    for (damage, expected) in cases {
        let mut bad = good.clone();
        damage(&mut bad);
        let id =
            client.send_any(&bruno(), wa::Message { document_message: Some(bad).into(), ..Default::default() }).await;
        let shown = on(&simulator, &bruno(), &id).await;
        assert_eq!(shown["media"]["error"], expected);
        let path = format!("/admin/accounts/{}/messages/{id}/media", bruno());
        assert_eq!(admin(&simulator, Method::GET, &path, None).await.0, 502);
    }
    client.stop().await;
}
