//! What a caller writes that is not understood, or that must not leave a trace.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{ANA, BRUNO, SECRET, Service, Tenant, World, answer, eventually},
    media::{hexadecimal, png},
};
use base64::{Engine, prelude::BASE64_STANDARD};

async fn paired() -> World {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world
}

/// Calls as a tenant with `Prefer: handling=strict`.
async fn strictly(service: &Service, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = service.request(method, path).header("X-Tenant-Id", "acme").header("Prefer", "handling=strict");
    answer(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

/// What is said of a call that is refused because something in it is not known.
async fn unknown(tenant: Tenant<'_>, method: Method, path: &str, body: Option<Value>) -> String {
    let (status, refused) = tenant.call(method.clone(), path, body).await;
    assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("unknown_field")), "{method} {path}: {refused}");
    assert_eq!(refused["error"], "Bad request");
    refused["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_caption_is_the_text_below_media() {
    let world = paired().await;
    let picture = png(20, 10);
    let media = json!({"base64": BASE64_STANDARD.encode(&picture)});
    let acme = world.service.tenant("acme");
    for text in [json!({"caption": "look"}), json!({"caption": "look", "message": "look"}), json!({"message": "look"})]
    {
        let mut body = json!({"to": BRUNO, "media": media});
        body.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, 200, "{sent}");
        let shown = eventually("the picture", || async {
            world.shown_on(BRUNO).await.into_iter().find(|message| message["id"] == sent["id"])
        })
        .await;
        assert_eq!((&shown["text"], &shown["media"]["sha256"]), (&json!("look"), &json!(hexadecimal(&picture))));
        assert!(sent["warnings"].is_null(), "{sent}");
    }
    let both = json!({"to": BRUNO, "media": media, "caption": "one", "message": "two"});
    let (status, refused) = acme.call(Method::POST, "/send", Some(both)).await;
    assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_content")), "{refused}");
    // In a form too.
    let form = |fields: &str| {
        let mut body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\n{BRUNO}\r\n{fields}\
             --b\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\r\n"
        )
        .into_bytes();
        body.extend([&picture[..], b"\r\n--b--\r\n"].concat());
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        answer(request.header("Content-Type", "multipart/form-data; boundary=b").body(body))
    };
    let field =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let (status, sent) = form(&field("caption", "from a form")).await;
    assert_eq!(status, 200, "{sent}");
    world.until_shown(BRUNO, "from a form").await;
    for (field, meant) in [(field("captoin", "x"), "caption"), (field("reply_to", "x"), "replyTo")] {
        let (status, refused) = form(&field).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("unknown_field")), "{refused}");
        assert!(refused["message"].as_str().unwrap().ends_with(&format!("did you mean `{meant}`?")), "{refused}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_an_error() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    for (method, path, body, meant) in [
        (Method::POST, "/presence", Some(json!({"to": BRUNO, "state": "typing", "stat": 1})), Some("state")),
        (Method::POST, "/numbers/check", Some(json!({"numbers": [BRUNO], "number": BRUNO})), Some("numbers")),
        (Method::PUT, "/webhook", Some(json!({"url": "https://example.com/", "event": []})), Some("events")),
        (Method::POST, "/send/bulk", Some(json!({"messages": [], "mesages": []})), Some("messages")),
        (
            Method::POST,
            "/send",
            Some(json!({"to": BRUNO, "media": {"base64": "AAAA", "fileName": "a"}})),
            Some("media.filename"),
        ),
        (
            Method::POST,
            "/send",
            Some(json!({"to": BRUNO, "contact": {"name": "A", "number": ANA, "phone": ANA}})),
            None,
        ),
        (
            Method::POST,
            "/send",
            Some(json!({"to": BRUNO, "revoke": {"message_id": "3EB0", "messageId": "3EB0"}})),
            Some("revoke.messageId"),
        ),
        (Method::GET, "/messages?refernce=order-1", None, Some("reference")),
        (Method::GET, "/sessions?lmit=1", None, Some("limit")),
        (Method::GET, "/events?afetr=1", None, Some("after")),
        (Method::GET, "/events/stream?limit=1", None, None),
        (Method::GET, "/messages/x/media?off=1", None, Some("of")),
        (Method::POST, "/presence?wait=0", Some(json!({"to": BRUNO, "state": "typing"})), None),
        (Method::DELETE, "/session?force=true", None, None),
        (Method::GET, "/webhook?x", None, None),
    ] {
        let said = unknown(acme, method, path, body).await;
        match meant {
            Some(meant) => assert!(said.ends_with(&format!("did you mean `{meant}`?")), "{path}: {said}"),
            None => assert!(!said.contains("did you mean"), "{path}: {said}"),
        }
    }
    assert_eq!(acme.status().await["state"], "ready", "the session was not deleted");
    let (_, livez) = answer_text(&world.service, "/livez?verbose").await;
    assert!(livez.contains("unknown_field"), "{livez}");
    // One entry of many refuses only itself.
    let messages = json!([{"to": BRUNO, "message": "one"}, {"to": BRUNO, "mesage": "two", "message": "two"}]);
    let (status, answers) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!((status, &answers["messages"][0]["status"]), (StatusCode::ACCEPTED, &json!("queued")), "{answers}");
    assert_eq!(answers["messages"][1]["code"], "unknown_field", "{answers}");
    assert_eq!(answers["messages"][1]["message"], "`mesage` is not a known field: did you mean `message`?");
}

async fn answer_text(service: &Service, path: &str) -> (StatusCode, String) {
    let response = service.request(Method::GET, path).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

#[tokio::test]
async fn the_old_services_endpoints_pass_over_what_it_ignored_and_say_so() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let field = |answer: &Value, n: usize| answer["warnings"][n]["field"].as_str().unwrap_or_default().to_owned();
    let (status, sent) =
        acme.call(Method::POST, "/send?prio=1", Some(json!({"to": BRUNO, "message": "hi", "sesion": "x"}))).await;
    assert_eq!((status, &sent["status"]), (StatusCode::OK, &json!("sent")), "{sent}");
    assert_eq!((field(&sent, 0), field(&sent, 1)), ("prio".into(), "sesion".into()), "{sent}");
    assert_eq!(sent["warnings"][0]["code"], "unknown_field");
    let (status, opened) = acme.call(Method::POST, "/session?x", Some(json!({"webhook": {"a": [1]}}))).await;
    assert_eq!(
        (status, field(&opened, 0), field(&opened, 1)),
        (StatusCode::OK, "x".into(), "webhook".into()),
        "{opened}"
    );
    for path in ["/status?verbose=1", "/health?verbose=1"] {
        let (status, told) = acme.call(Method::GET, path, None).await;
        assert_eq!((status, field(&told, 0)), (StatusCode::OK, "verbose".into()), "{told}");
        let (status, refused) = strictly(&world.service, Method::GET, path, None).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("unknown_field")), "{refused}");
    }
    assert!(acme.status().await["warnings"].is_null(), "nothing is said where there is nothing to say");
    // A text whose field is misspelt has no text, and that is said.
    let (status, refused) = acme.call(Method::POST, "/send", Some(json!({"to": BRUNO, "mesage": "hi"}))).await;
    assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_content")), "{refused}");
    assert!(refused["message"].as_str().unwrap().ends_with("`mesage` is not a known field: did you mean `message`?"));
    assert_eq!(field(&refused, 0), "mesage");
    let (_, refused) = acme.call(Method::POST, "/send", Some(json!({"too": BRUNO, "message": "hi"}))).await;
    assert!(refused["message"].as_str().unwrap().contains("`to` is missing. `too` is not a known field"), "{refused}");
    // The old service knew no caption: a text that has one is sent.
    let (status, sent) =
        acme.call(Method::POST, "/send", Some(json!({"to": BRUNO, "message": "with", "caption": "x"}))).await;
    assert_eq!((status, field(&sent, 0)), (StatusCode::OK, "caption".into()), "{sent}");
    // Who wants to be told rather than understood by half is told.
    for body in
        [json!({"to": BRUNO, "message": "hi", "sesion": "x"}), json!({"to": BRUNO, "message": "hi", "reply_to": "x"})]
    {
        let (status, refused) = strictly(&world.service, Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("unknown_field")), "{refused}");
    }
    let (status, refused) = strictly(&world.service, Method::POST, "/session", Some(json!({"webhook": 1}))).await;
    assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("unknown_field")), "{refused}");
    let log = world.service.log.text();
    let logged = |route: &str, unknown: &str| {
        log.lines().any(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["route"] == route && line["unknown"] == unknown
        })
    };
    assert!(logged("/send", "prio,sesion") && logged("/session", "x,webhook") && logged("/send", "mesage"), "{log}");
    assert!(logged("/status", "verbose") && logged("/health", "verbose"), "{log}");
}

#[tokio::test]
async fn many_messages_and_one_are_read_alike() {
    let world = World::with(Default::default(), &[("BODY_LIMIT", "8388608")]).await;
    world.pair("acme", ANA).await;
    let post = async |path: &str, body: String| {
        let request = world.service.request(Method::POST, path).header("X-Tenant-Id", "acme");
        answer(request.body(body)).await
    };
    for (wrong, code) in [
        (format!(r#"{{"to":"{BRUNO}","message":"a","message":"b"}}"#), "invalid_body"),
        (format!(r#"{{"to":"{BRUNO}","message":"\ud800"}}"#), "invalid_json"),
        (format!(r#"{{"to":"{BRUNO}","location":{{"latitude":1e999,"longitude":1}}}}"#), "invalid_json"),
        (format!(r#"{{"to":"{BRUNO}","location":[1,2]}}"#), "invalid_body"),
        (format!(r#"{{"to":"{BRUNO}","contact":["Ana","{ANA}"]}}"#), "invalid_body"),
        (format!(r#"{{"to":"{BRUNO}","media":["https://example.com/a.png"]}}"#), "invalid_body"),
        (format!(r#"["{BRUNO}","a"]"#), "invalid_body"),
        (format!(r#"{{"to":"{BRUNO}","message":5}}"#), "invalid_body"),
    ] {
        let (status, single) = post("/send", wrong.clone()).await;
        assert_eq!((status.as_u16(), &single["code"]), (400, &json!(code)), "{wrong}: {single}");
        let good = format!(r#"{{"to":"{BRUNO}","message":"good","reference":"r"}}"#);
        let (status, many) = post("/send/bulk", format!(r#"{{"messages":[{good},{wrong},{good}]}}"#)).await;
        assert_eq!(status, 202, "{wrong}: {many}");
        let codes: Vec<_> = many["messages"].as_array().unwrap().iter().map(|entry| &entry["code"]).collect();
        assert_eq!(codes, [&Value::Null, &json!(code), &Value::Null], "{wrong}: {many}");
        assert_eq!(many["messages"][1]["message"], single["message"], "{wrong}");
        for rust in ["struct", "map", "sequence", "u64", "f64", "at line 1"] {
            assert!(code == "invalid_json" || !single["message"].as_str().unwrap().contains(rust), "{single}");
        }
    }
    // What is read into the types it is for takes no more than what came.
    let before = peak(&world.service);
    let entries = format!("{},", r#"{"a":{},"b":{},"c":{}}"#).repeat(350_000);
    let body = format!(r#"{{"messages":[{}]}}"#, entries.trim_end_matches(','));
    assert!(body.len() > 8_000_000 && body.len() < 8_388_608, "{}", body.len());
    let (status, refused) = post("/send/bulk", body).await;
    assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_messages")), "{refused}");
    let many: String =
        (0..1000).map(|_| format!(r#"{{"to":"{BRUNO}","media":{{{}"a":1}}}},"#, r#""a":{},"#.repeat(1_000))).collect();
    let body = format!(r#"{{"messages":[{}]}}"#, many.trim_end_matches(','));
    let (status, refused) = post("/send/bulk", body).await;
    assert_eq!((status.as_u16(), &refused["messages"][999]["code"]), (202, &json!("unknown_field")));
    let grown = peak(&world.service) - before;
    assert!(grown < 24 * 1024, "{grown} KiB for bodies of 8 MiB");
}

/// The most memory that the service has had, in KiB.
fn peak(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stranger_is_told_which_header_is_missing_and_everybody_where_the_documents_are() {
    let world = World::start().await;
    let http = crate::harness::http();
    let response = http.get(format!("{}/", world.service.url)).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["www-authenticate"]),
        (401, &"X-Internal-Secret".parse().unwrap())
    );
    let refused: Value = response.json().await.unwrap();
    assert_eq!(refused["error"], "Unauthorized");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("X-Internal-Secret") && message.contains("/docs"), "{message}");
    let (status, index) = answer(http.get(format!("{}/", world.service.url)).header("X-Internal-Secret", SECRET)).await;
    assert_eq!((status, index), (StatusCode::OK, json!({"docs": "/docs", "openapi": "/openapi.json"})));
}

#[tokio::test]
async fn post_session_says_when_it_does_nothing_and_why() {
    let world = World::start().await;
    let acme = world.service.tenant("acme");
    let open = async |body: Value| {
        let (status, opened) = acme.call(Method::POST, "/session", Some(body)).await;
        assert_eq!(status, 200, "{opened}");
        (opened["action"].as_str().unwrap().to_owned(), opened["actionMessage"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(open(json!({})).await, ("started".into(), String::new()));
    let (action, why) = open(json!({})).await;
    assert_eq!(action, "none");
    assert!(why.contains("waits for its phone"), "{why}");
    assert_eq!(open(json!({"phone": ANA})).await.0, "code_requested");
    let (action, why) = open(json!({"phone": ANA})).await;
    assert!(action == "none" && why.contains("waits for its phone"), "{action}: {why}");
    acme.call(Method::DELETE, "/session", None).await;
    world.pair("acme", ANA).await;
    let (action, why) = open(json!({"phone": BRUNO})).await;
    assert!(action == "none" && why.contains("linked") && why.contains("DELETE /session"), "{action}: {why}");
    assert!(acme.status().await["action"].is_null(), "only the call that did it says so");
    world.fault(json!({"loginFailure": {"reason": 403}})).await;
    world.fault(json!({"streamError": "515", "times": 1})).await;
    let locked = acme.until_state("locked").await;
    let (action, why) = open(json!({})).await;
    assert!(
        action == "none" && why.contains("locked") && why.contains(locked["retryAt"].as_str().unwrap()),
        "{action}: {why}"
    );
    world.clear_faults().await;
}

#[tokio::test]
async fn no_refused_call_leaves_anything_on_the_disk() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let tables = ["tenants", "messages", "idempotency", "events", "received", "webhooks", "deliveries", "stores"];
    let rows = || tables.map(|table| (table, world.service.count(&format!("SELECT count(*) FROM {table}"))));
    let files = || {
        let mut names = Vec::new();
        let mut folders = vec![world.service.data.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => names.push(entry.path()),
                }
            }
        }
        names.sort();
        names
    };
    let acme = world.service.tenant("acme");
    acme.until("the name", |status| status["pushName"].is_string()).await;
    let (rows_before, files_before) = (rows(), files());
    let calls = [
        (Method::DELETE, "/webhook", None),
        (Method::POST, "/webhook/retry", None),
        (Method::PUT, "/webhook", Some(json!({"url": "ftp://example.com/"}))),
        (Method::PUT, "/webhook", Some(json!({"url": "https://example.com/", "secret": "x"}))),
        (Method::GET, "/webhook", None),
        (Method::DELETE, "/session", None),
        (Method::POST, "/session", Some(json!({"phone": "12"}))),
        (Method::POST, "/session", Some(json!({"proxy": "nonsense"}))),
        (Method::POST, "/session/passkey", Some(json!({"confirm": true}))),
        (Method::GET, "/session/qr", None),
        (Method::POST, "/send", Some(json!({"to": BRUNO, "message": "hi", "idempotencyKey": "k"}))),
        (Method::POST, "/send", Some(json!({"to": BRUNO, "media": {"base64": "AAAA"}}))),
        (Method::POST, "/send/bulk", Some(json!({"messages": [{"to": BRUNO, "message": "hi"}]}))),
        (Method::POST, "/presence", Some(json!({"to": BRUNO, "state": "typing"}))),
        (Method::POST, "/numbers/check", Some(json!({"numbers": [BRUNO]}))),
        (Method::POST, "/messages/3EB0/read", None),
        (Method::DELETE, "/messages/3EB0", None),
        (Method::GET, "/messages/3EB0/media", None),
    ];
    for n in 0..20 {
        let name = format!("nobody-{n}");
        for (method, path, body) in &calls {
            let (status, answer) = world.service.tenant(&name).call(method.clone(), path, body.clone()).await;
            assert!(status.is_client_error(), "{method} {path}: {status} {answer}");
        }
    }
    // Of a tenant that has a session, too.
    for (body, code) in [
        (json!({"to": BRUNO, "media": {"base64": BASE64_STANDARD.encode(png(9, 9))}, "voice": true}), 415),
        (json!({"to": BRUNO, "revoke": {"messageId": "3EB0"}, "idempotencyKey": "k-1"}), 404),
        (json!({"to": BRUNO, "media": {"base64": "????"}, "idempotencyKey": "k-2"}), 400),
    ] {
        let (status, answer) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, code, "{answer}");
    }
    assert_eq!(rows(), rows_before);
    eventually("the files to be those of before", || async { (files() == files_before).then_some(()) }).await;
}
