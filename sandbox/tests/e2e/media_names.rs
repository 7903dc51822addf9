//! What files are called: as their senders write it, in forms, in answers and in URLs.

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    harness::{BRUNO, World, answer},
    media::{Form, paired, send_form},
};

/// Serves these bytes with these headers, whatever is asked for, and says where.
pub async fn serve(headers: &[(&'static str, &str)], bytes: Vec<u8>) -> String {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(async move || (headers, bytes));
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

async fn shown(world: &World, sent: (u16, Value)) -> Value {
    assert_eq!(sent.0, 200, "{}", sent.1);
    world.until_file(BRUNO, &sent.1["id"]).await.0
}

#[tokio::test]
async fn parts_of_forms_are_called_what_their_senders_mean() {
    let world = paired(&[]).await;
    for (about, name) in [
        // .NET, aiohttp, httpx, Node, Go, requests.
        ("filename=\"=?utf-8?B?w5xiZXJzaWNodC5jc3Y=?=\"; filename*=utf-8''%C3%9Cbersicht.csv", "Übersicht.csv"),
        ("filename=\"%C3%9Cbersicht%202025.csv\"", "Übersicht 2025.csv"),
        ("filename=\"Übersicht %22neu%22.csv\"", "Übersicht \"neu\".csv"),
        ("filename=\"say \\\"hi\\\".csv\"", "say \"hi\".csv"),
        ("filename*=utf-8''%E2%82%AC.csv", "€.csv"),
        ("filename=\"plain.csv\"; filename*=UTF-8'en'r%C3%A9sum%C3%A9.csv", "résumé.csv"),
        ("filename=\"C:\\notes\\one.csv\"", "one.csv"),
        ("filename=\"../../etc/two.csv\"", "two.csv"),
    ] {
        let form = Form::default().text("to", BRUNO).part(&format!("name=\"media\"; {about}"), b"a;b\n");
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let (status, body) = answer(form.send_as(request)).await;
        let shown = shown(&world, (status.as_u16(), body)).await;
        assert_eq!(
            (&shown["media"]["filename"], &shown["media"]["mimetype"]),
            (&json!(name), &json!("text/csv")),
            "{about}"
        );
    }
    let named = send_form(&world.service, &[("filename", "own.csv")], "other.csv", b"a;b\n".to_vec()).await;
    assert_eq!(shown(&world, named).await["media"]["filename"], "own.csv", "the field counts");
}

#[tokio::test]
async fn what_is_fetched_is_called_what_its_server_or_its_url_calls_it() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let acme = world.service.tenant("acme");
    let pdf = b"%PDF-1.7\n".to_vec();
    for (disposition, path, filename, name) in [
        (Some("attachment; filename=\"report.pdf\""), "/x", None, "report.pdf"),
        (Some("attachment; filename=x.pdf; filename*=UTF-8''%C3%9Cbersicht.pdf"), "/x.pdf", None, "Übersicht.pdf"),
        (Some("inline; filename=\"=?UTF-8?Q?=C3=9Cbersicht.pdf?=\""), "/", None, "Übersicht.pdf"),
        (Some("attachment; filename=\"..%2Fevil\""), "/", None, "evil.pdf"),
        (Some("inline"), "/files/a%20b.pdf?token=1/2", None, "a b.pdf"),
        (None, "/files/invoice-7", None, "invoice-7.pdf"),
        (None, "/", None, "document.pdf"),
        (Some("attachment; filename=server.pdf"), "/x", Some("own.pdf"), "own.pdf"),
        (None, "/x", Some("own"), "own.pdf"),
        (None, "/x", Some("Version 1.2"), "Version 1.2.pdf"),
    ] {
        let headers: Vec<_> = disposition.map(|value| ("content-disposition", value)).into_iter().collect();
        let url = serve(&headers, pdf.clone()).await + path;
        let body = json!({"to": BRUNO, "media": {"url": url, "filename": filename}});
        let (status, body) = acme.call(Method::POST, "/send", Some(body)).await;
        let shown = shown(&world, (status.as_u16(), body)).await;
        assert_eq!(shown["media"]["filename"], name, "{disposition:?} {path} {filename:?}");
    }
}

#[tokio::test]
async fn a_name_ends_as_its_type_does() {
    let world = paired(&[]).await;
    let acme = world.service.tenant("acme");
    for (bytes, mimetype, filename, name) in [
        (&b"%PDF-1.7\n"[..], None, None, "document.pdf"),
        (b"%PDF-1.7\n", None, Some("report"), "report.pdf"),
        (b"a;b\n", Some("text/csv"), Some("table"), "table.csv"),
        (b"a;b\n", None, Some("table"), "table"),
        (b"a;b\n", None, None, "document"),
    ] {
        let media = json!({"base64": BASE64_STANDARD.encode(bytes), "mimetype": mimetype, "filename": filename});
        let (status, body) = acme.call(Method::POST, "/send", Some(json!({"to": BRUNO, "media": media}))).await;
        let shown = shown(&world, (status.as_u16(), body)).await;
        assert_eq!(shown["media"]["filename"], name, "{mimetype:?} {filename:?}");
    }
}

#[tokio::test]
async fn the_lines_of_a_forms_text_end_as_they_were_written() {
    let world = paired(&[]).await;
    let fields = [("message", "one\r\ntwo\r\n\r\nthree\rfour\nfive")];
    let shown = shown(&world, send_form(&world.service, &fields, "a.csv", b"a;b\n".to_vec()).await).await;
    assert_eq!(shown["text"], "one\ntwo\n\nthree\rfour\nfive");
}
