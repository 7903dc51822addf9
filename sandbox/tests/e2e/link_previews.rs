//! What a message shows of a link in it, and whom it mentions.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::Path, http::StatusCode, response::IntoResponse, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    harness::{ANA, BRUNO, Tenant, World, eventually},
    media::{png, send_form},
};

/// A server with pages, and who asked for what.
pub struct Pages {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// How many bytes of the page that never ends were taken.
    taken: Arc<AtomicUsize>,
}

const HEAD: &str = "<!doctype html><head><title>Plain</title><meta property='og:title' content='A &amp; B'>\
                    <meta property='og:description' content='Two letters'>";

impl Pages {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, taken) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let (noted, counted) = (asked.clone(), taken.clone());
        let page = async move |Path(name): Path<String>| {
            noted.lock().unwrap().push(name.clone());
            let html = |html: String| ([("content-type", "text/html; charset=utf-8")], html).into_response();
            let with_picture =
                |picture: &str| html(format!("{HEAD}<meta property='og:image' content='{picture}'></head>"));
            let begun = |counted: Arc<AtomicUsize>| {
                let rest = futures_util::stream::repeat_with(move || {
                    counted.fetch_add(65_536, Ordering::SeqCst);
                    Ok::<_, std::io::Error>(vec![b' '; 65_536])
                });
                let head = futures_util::stream::iter([Ok(HEAD.as_bytes().to_vec())]);
                ([("content-type", "text/html")], Body::from_stream(head.chain(rest))).into_response()
            };
            match name.as_str() {
                "page" => with_picture("../p/picture"),
                "picture" => png(300, 200).into_response(),
                "huge-picture" => (
                    [("content-length", "99999999")],
                    Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>()),
                )
                    .into_response(),
                "with-huge-picture" => with_picture("/p/huge-picture"),
                "slow-picture" => std::future::pending().await,
                "with-slow-picture" => with_picture("/p/slow-picture"),
                "no-picture" => ([("content-type", "image/png")], "GIF89a").into_response(),
                "with-no-picture" => with_picture("/p/no-picture"),
                "with-private-picture" => with_picture("http://0.0.0.0/p/picture"),
                "latin" => ([("content-type", "text/html")], &b"<meta charset=iso-8859-1><title>Caf\xe9</title>"[..])
                    .into_response(),
                "moved" => (StatusCode::FOUND, [("location", "page")]).into_response(),
                "endless" => begun(counted.clone()),
                "silent" => std::future::pending().await,
                "untitled" => html("<p>No title</p>".into()),
                "data" => ([("content-type", "application/json")], "{}").into_response(),
                _ => (StatusCode::NOT_FOUND, format!("{HEAD}</head>")).into_response(),
            }
        };
        let app = Router::new().route("/p/{name}", get(page));
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, asked, taken }
    }

    pub fn link(&self, name: &str) -> String {
        format!("{}/p/{name}", self.url)
    }

    fn count(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

async fn paired(env: &[(&str, &str)]) -> World {
    let world = World::with(Default::default(), env).await;
    world.pair("acme", ANA).await;
    world
}

/// Sends, which must succeed, and returns how the recipient's phone shows it.
async fn shown(world: &World, acme: Tenant<'_>, mut what: Value) -> Value {
    what["to"] = json!(BRUNO);
    let (status, sent) = acme.call(Method::POST, "/send", Some(what)).await;
    assert_eq!((status.as_u16(), &sent["status"]), (200, &json!("sent")), "{sent}");
    eventually("it arrives", || async { world.shown_on(BRUNO).await.into_iter().find(|one| one["id"] == sent["id"]) })
        .await
}

fn preview(url: &str, title: &str, description: Option<&str>, thumbnail: bool) -> Value {
    let mut preview = json!({"url": url, "title": title, "thumbnail": thumbnail});
    if let Some(description) = description {
        preview["description"] = json!(description);
    }
    preview
}

#[tokio::test]
async fn a_link_is_shown_with_title_description_and_picture() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true"), ("KEEP_BODIES", "true")]).await;
    let (acme, pages) = (world.service.tenant("acme"), Pages::start().await);
    for (name, expected) in [
        ("page", Some(("A & B", Some("Two letters"), true))),
        ("moved", Some(("A & B", Some("Two letters"), true))),
        ("page#below", Some(("A & B", Some("Two letters"), true))),
        ("latin", Some(("Café", None, false))),
        ("endless", Some(("A & B", Some("Two letters"), false))),
        ("with-huge-picture", Some(("A & B", Some("Two letters"), false))),
        ("with-slow-picture", Some(("A & B", Some("Two letters"), false))),
        ("with-no-picture", Some(("A & B", Some("Two letters"), false))),
        ("with-private-picture", Some(("A & B", Some("Two letters"), false))),
        ("silent", None),
        ("untitled", None),
        ("data", None),
        ("nothing", None),
    ] {
        let link = pages.link(name);
        let text = format!("First {link}, then https://example.com/");
        let arrived = shown(&world, acme, json!({"message": text, "linkPreview": true})).await;
        assert_eq!(arrived["text"], text, "the words stay as they are");
        let expected = expected.map(|(title, description, picture)| preview(&link, title, description, picture));
        assert_eq!(arrived.get("preview").cloned(), expected, "{name}: {arrived}");
    }
    // The system takes some of it for whoever reads.
    let most = 32 * 1024 * 1024;
    assert!(
        pages.taken.load(Ordering::SeqCst) < most,
        "{} bytes of a page without an end",
        pages.taken.load(Ordering::SeqCst)
    );

    // Nothing is fetched for those who don't ask.
    let before = pages.asked.lock().unwrap().len();
    for with in [json!({}), json!({"linkPreview": false}), json!({"linkPreview": null})] {
        let mut what = with;
        what["message"] = json!(pages.link("page"));
        assert!(shown(&world, acme, what).await.get("preview").is_none());
    }
    let no_link = json!({"message": "no link at all", "linkPreview": true});
    assert!(shown(&world, acme, no_link).await.get("preview").is_none());
    assert_eq!(pages.asked.lock().unwrap().len(), before);

    // An answer shows it too, and what is kept of it tells what it showed, without the picture.
    let question = world.write(BRUNO, ANA, "Where?").await;
    let what = json!({"message": pages.link("page"), "linkPreview": true, "replyTo": question});
    let arrived = shown(&world, acme, what).await;
    assert_eq!((&arrived["preview"]["title"], &arrived["replyTo"]), (&json!("A & B"), &question), "{arrived}");
    let kept = acme.get(&format!("/messages/{}", arrived["id"].as_str().unwrap())).await["content"].clone();
    let expected = json!({"url": pages.link("page"), "title": "A & B", "description": "Two letters"});
    assert_eq!(kept["linkPreview"], expected, "{kept}");
}

#[tokio::test]
async fn the_links_of_a_call_are_fetched_once_and_hold_nothing_back() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let (acme, pages) = (world.service.tenant("acme"), Pages::start().await);
    let message = |name: &str, key: Option<&str>| json!({"to": BRUNO, "message": format!("{name}: {}", pages.link(name)), "linkPreview": true, "idempotencyKey": key});
    let mut messages: Vec<_> = (0..20).map(|n| message("silent", Some(&format!("silent-{n}")))).collect();
    messages.extend((0..3).map(|_| message("page", None)));
    messages.push(json!({"to": BRUNO, "message": "plain"}));
    let (status, answer) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!(status, 202, "{answer}");
    assert!(answer["messages"].as_array().unwrap().iter().all(|entry| entry["status"] == "queued"), "{answer}");
    assert_eq!((pages.count("page"), pages.count("picture"), pages.count("silent")), (1, 1, 1));
    world.until_shown(BRUNO, "plain").await;
    let arrived = world.shown_on(BRUNO).await;
    assert_eq!(arrived.len(), 24);
    let with_preview: Vec<_> = arrived.iter().filter(|one| one.get("preview").is_some()).collect();
    assert_eq!(with_preview.len(), 3);
    assert!(with_preview.iter().all(|one| one["text"].as_str().unwrap().starts_with("page")), "{with_preview:?}");

    // The same call again is the same message, and asks nobody.
    let again = acme.call(Method::POST, "/send?wait=0", Some(message("silent", Some("silent-0")))).await.1;
    assert_eq!((&again["id"], pages.count("silent")), (&answer["messages"][0]["id"], 1));
    let mut other = message("silent", Some("silent-0"));
    other["linkPreview"] = json!(false);
    let (status, conflict) = acme.call(Method::POST, "/send?wait=0", Some(other)).await;
    assert_eq!((status.as_u16(), &conflict["code"]), (409, &json!("idempotency_conflict")), "{conflict}");
}

#[tokio::test]
async fn no_link_leads_into_the_private_network() {
    let world = paired(&[]).await;
    let (acme, pages) = (world.service.tenant("acme"), Pages::start().await);
    let port = pages.url.rsplit(':').next().unwrap();
    for link in [
        pages.link("page"),
        format!("http://localhost:{port}/p/page"),
        format!("http://[::ffff:127.0.0.1]:{port}/p/page"),
        "http://169.254.169.254/latest/meta-data".into(),
        format!("http://user:password@127.0.0.1:{port}/p/page"),
    ] {
        let arrived = shown(&world, acme, json!({"message": format!("See {link}"), "linkPreview": true})).await;
        assert!(arrived.get("preview").is_none(), "{arrived}");
    }
    assert!(pages.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn those_who_are_mentioned_are_named_in_texts_and_captions() {
    let world = paired(&[]).await;
    let acme = world.service.tenant("acme");
    let jid = |number: &str| format!("{number}@s.whatsapp.net");
    let carla = "5511977777777";
    let text = format!("@{ANA} and @{carla}, please");
    let numbers = json!(["+55 (11) 99999-9999", carla]);
    let arrived = shown(&world, acme, json!({"message": text, "mentions": numbers})).await;
    assert_eq!((&arrived["text"], &arrived["mentions"]), (&json!(text), &json!([jid(ANA), jid(carla)])), "{arrived}");
    let media = json!({"base64": BASE64_STANDARD.encode(png(4, 3))});
    let what = json!({"media": media, "message": format!("@{ANA} look"), "mentions": [ANA]});
    let arrived = shown(&world, acme, what).await;
    assert_eq!((&arrived["kind"], &arrived["mentions"]), (&json!("image"), &json!([jid(ANA)])), "{arrived}");
    let plain = shown(&world, acme, json!({"message": format!("@{ANA}"), "mentions": []})).await;
    assert!(plain.get("mentions").is_none(), "{plain}");
    // By LID, which is no number: without `@lid` behind it, it would be one.
    let lid =
        world.service.tenant("acme").call(Method::POST, "/numbers/check", Some(json!({"numbers": [BRUNO]}))).await;
    let lid = lid.1["numbers"][0]["lid"].as_str().unwrap().to_owned();
    let text = format!("@{lid} too");
    let arrived = shown(&world, acme, json!({"message": text, "mentions": [format!("{lid}@lid")]})).await;
    assert_eq!(arrived["mentions"], json!([format!("{lid}@lid")]), "{arrived}");
    for (field, body) in [
        ("mentions", json!({"to": BRUNO, "message": text, "mentions": [lid]})),
        ("contact.phone", json!({"to": BRUNO, "contact": {"name": "A", "phone": lid}})),
    ] {
        let (status, refused) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_content")), "{refused}");
        assert!(refused["message"].as_str().unwrap().starts_with(&format!("`{field}`: ")), "{refused}");
    }
    // As a form says it.
    let (caption, numbers) = (format!("@{ANA} @{carla}"), format!("{ANA}, {carla}"));
    let fields = [("message", caption.as_str()), ("mentions", &numbers)];
    let (status, sent) = send_form(&world.service, &fields, "a.png", png(4, 3)).await;
    assert_eq!(status, 200, "{sent}");
    let arrived = eventually("it arrives", || async {
        world.shown_on(BRUNO).await.into_iter().find(|one| one["id"] == sent["id"])
    })
    .await;
    assert_eq!(arrived["mentions"], json!([jid(ANA), jid(carla)]), "{arrived}");
    for what in [
        json!({"message": "a", "mentions": ["12"]}),
        json!({"contact": {"name": "A", "phone": ANA}, "mentions": [ANA]}),
    ] {
        let mut what = what;
        what["to"] = json!(BRUNO);
        let (status, refused) = acme.call(Method::POST, "/send", Some(what)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_content")), "{refused}");
    }
}
