//! The outbox as its callers have it: what is accepted and what is not, and what is told of it afterwards.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, RequestBuilder, header::HeaderValue};
use serde_json::{Value, json};

use crate::harness::{ANA, BRUNO, World, answer, eventually};

#[tokio::test]
async fn the_same_call_again_is_the_same_message() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "only once", "reference": "order 1"});
    let first = answer(keyed(&world, "acme", "order-1", &body)).await;
    assert_eq!(first.0, 200, "{}", first.1);
    for _ in 0..3 {
        assert_eq!(answer(keyed(&world, "acme", "order-1", &body)).await, first);
    }
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["only once"]);
    assert_eq!(world.shown_on(BRUNO).await[0]["id"], first.1["id"]);
}

#[tokio::test]
async fn twenty_times_the_same_call_at_once_is_one_message() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "only once"});
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        running.spawn(answer(keyed(&world, "acme", "order-1", &body)));
    }
    let answers = running.join_all().await;
    assert!(answers.iter().all(|answer| answer.0 == 200 && *answer == answers[0]), "{answers:?}");
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["only once"]);
    assert_eq!(world.service.tenant("acme").get("/messages").await["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_call_while_the_first_is_on_its_way_waits_with_it() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.fault(json!({"ackDelayMs": 1000})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let body = json!({"to": BRUNO, "message": "only once"});
    let first = tokio::spawn(answer(keyed(&world, "acme", "order-1", &body)));
    world.until_shown(BRUNO, "only once").await;
    let second = answer(keyed(&world, "acme", "order-1", &body)).await;
    assert_eq!((second.0.as_u16(), &second.1["status"]), (200, &json!("sent")));
    assert_eq!(first.await.unwrap(), second);
    world.clear_faults().await;
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["only once"]);
}

#[tokio::test]
async fn the_same_call_after_kill_9_is_the_same_message() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "answered"});
    let answered = answer(keyed(&world, "acme", "order-1", &body)).await;
    assert_eq!(answered.0, 200);
    // The second one's caller never gets its answer, and doesn't know whether it was accepted.
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let unanswered_body = json!({"to": BRUNO, "message": "unanswered"});
    let unanswered = tokio::spawn(keyed(&world, "acme", "order-2", &unanswered_body).send());
    world.until_shown(BRUNO, "unanswered").await;
    world.service.kill_and_restart().await;
    assert!(unanswered.await.unwrap().is_err(), "its connection broke");
    world.clear_faults().await;
    assert_eq!(answer(keyed(&world, "acme", "order-1", &body)).await, answered);
    let (status, sent) = answer(keyed(&world, "acme", "order-2", &unanswered_body)).await;
    assert_eq!(status, 200, "{sent}");
    assert_eq!(world.until_shown(BRUNO, "unanswered").await[0]["id"], sent["id"]);
    world.service.tenant("acme").send_ok(BRUNO, "the last").await;
    world.until_shown(BRUNO, "the last").await;
    assert_eq!(world.texts_on(BRUNO).await, ["answered", "unanswered", "the last"]);
}

#[tokio::test]
async fn the_same_call_is_answered_the_same_when_the_session_has_ended_since() {
    // Its caller did not get the first answer. A refusal would tell that nothing was accepted.
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "sent before the end"});
    let first = answer(keyed(&world, "acme", "order-1", &body)).await;
    assert_eq!(first.0, 200, "{}", first.1);
    world.admin(Method::DELETE, &format!("/admin/accounts/{ANA}/devices/1"), "").await;
    world.service.tenant("acme").until_state("logged_out").await;
    assert_eq!(answer(keyed(&world, "acme", "order-1", &body)).await, first);
    assert_eq!(answer(keyed(&world, "acme", "order-2", &body)).await.0, 409, "what is new is refused");
}

#[tokio::test]
async fn a_key_with_another_body_is_a_conflict() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "the first", "reference": "r", "expiresIn": 60});
    assert_eq!(answer(keyed(&world, "acme", "order-1", &body)).await.0, 200);
    for (field, value) in
        [("to", json!(ANA)), ("message", json!("the second")), ("reference", json!("s")), ("expiresIn", json!(61))]
    {
        let mut other = body.clone();
        other[field] = value;
        let (status, refused) = answer(keyed(&world, "acme", "order-1", &other)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("idempotency_conflict")), "{field}: {refused}");
    }
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["the first"]);
    world.until_shown(ANA, "that was all").await;
    assert_eq!(world.texts_on(ANA).await, ["the first", "that was all"], "its own copies");
}

#[tokio::test]
async fn two_tenants_may_use_the_same_key() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("umbrella", ANA).await;
    let body = json!({"to": BRUNO, "message": "from each of us"});
    let (first, first_body) = answer(keyed(&world, "acme", "order-1", &body)).await;
    let (second, second_body) = answer(keyed(&world, "umbrella", "order-1", &body)).await;
    assert_eq!((first.as_u16(), second.as_u16()), (200, 200));
    assert_ne!(first_body["id"], second_body["id"]);
    eventually("both", || async { (world.shown_on(BRUNO).await.len() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_key_is_visible_ascii_and_not_too_long() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": BRUNO, "message": "with the longest key"});
    let too_long = "k".repeat(256);
    for key in ["", "two words", "café", "tab\there", &too_long] {
        let (status, refused) = answer(keyed(&world, "acme", key, &body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_idempotency_key")), "{key:?}: {refused}");
    }
    assert_eq!(answer(keyed(&world, "acme", &too_long[1..], &body)).await.0, 200);
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["with the longest key"]);
}

#[tokio::test]
async fn a_refusal_is_repeated_for_its_key() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let body = json!({"to": "4915112345678", "message": "nobody there", "reference": "r"});
    let first = answer(keyed(&world, "acme", "order-1", &body)).await;
    assert_eq!((first.0.as_u16(), &first.1["code"]), (422, &json!("recipient_not_on_whatsapp")), "{}", first.1);
    assert!(first.1["id"].is_string() && first.1["reference"] == "r", "{}", first.1);
    assert_eq!(answer(keyed(&world, "acme", "order-1", &body)).await, first);
    assert_ne!(answer(keyed(&world, "acme", "order-2", &body)).await.1["id"], first.1["id"]);
}

#[tokio::test]
async fn a_caller_that_does_not_want_to_wait_is_answered_at_once() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    // Less than SEND_TIMEOUT: who waits is told that it was sent.
    world.fault(json!({"ackDelayMs": 2000})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let body = |text: &str| json!({"to": BRUNO, "message": text, "reference": "r"});
    let post = |path: &str, text: &str| {
        let request = world.service.request(Method::POST, path).header("X-Tenant-Id", "acme");
        request.json(&body(text))
    };
    for (n, request) in [
        post("/send?wait=0", "0"),
        post("/send", "1").header("Prefer", "respond-async"),
        post("/send", "2").header("Prefer", "wait=5, Respond-Async"),
    ]
    .into_iter()
    .enumerate()
    {
        let (status, accepted) = answer(request).await;
        assert_eq!(status, 202, "{accepted}");
        let mut expected = json!({"id": accepted["id"], "status": "queued", "to": BRUNO, "reference": "r"});
        if n > 0 {
            // The first one has made it known.
            expected["toLid"] = json!(world.lid(BRUNO).await);
        }
        assert_eq!(accepted, expected);
        acme.until_fate(&accepted["id"], "sent").await;
        assert_eq!(world.until_shown(BRUNO, &n.to_string()).await[0]["id"], accepted["id"]);
    }
    for request in
        [post("/send?wait=1", "3").header("Prefer", "respond-async"), post("/send", "4").header("Prefer", "x")]
    {
        assert_eq!(answer(request).await.0, 200);
    }
    for path in ["/send?wait=2", "/send?wait=-1", "/send?wait=no"] {
        let (status, refused) = answer(post(path, "5")).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_query")), "{path}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("wait"), "{path}: {refused}");
    }
    assert_eq!(world.texts_on(BRUNO).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_message_tells_its_whole_life() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world.pair("umbrella", BRUNO).await;
    let acme = world.service.tenant("acme");
    let body = json!({"to": BRUNO, "message": "hello", "reference": "order 1", "expiresIn": 3600});
    let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!((status.as_u16(), &sent["reference"]), (200, &json!("order 1")), "{sent}");
    acme.until_fate(&sent["id"], "delivered").await;
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/read"), "").await;
    let read = acme.until_fate(&sent["id"], "read").await;
    let times = ["acceptedAt", "sentAt", "deliveredAt", "readAt", "expiresAt"];
    let times = times.map(|name| read[name].as_str().unwrap_or_else(|| panic!("no {name} in {read}")));
    assert!(times.is_sorted(), "{read}");
    let lasts = between(&read["acceptedAt"], &read["expiresAt"]);
    assert!((3_590_000..=3_600_000).contains(&lasts), "about an hour: {lasts} ms");
    assert_eq!((&read["to"], &read["reference"], &read["attempts"]), (&json!(BRUNO), &json!("order 1"), &json!(1)));
    for absent in ["content", "code", "message", "retryable", "whatsappCode", "failedAt", "unknownAt"] {
        assert!(read.get(absent).is_none(), "{absent}: {read}");
    }
    assert_eq!(acme.get("/messages").await, json!({"messages": [read]}));
    let events = acme.get("/events?after=0").await;
    let told: Vec<_> =
        events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "message.status").collect();
    let statuses: Vec<_> = told.iter().map(|event| &event["data"]["status"]).collect();
    assert_eq!(statuses, ["sent", "delivered", "read"]);
    assert!(told.iter().all(|event| event["data"]["reference"] == "order 1"), "{events}");
    assert_eq!(told[2]["data"], read, "the event tells what the message tells");
    // Nobody else's business.
    let path = format!("/messages/{}", sent["id"].as_str().unwrap());
    let nowhere = ["/messages/3EB0000000000000000000", "/messages/%00", "/messages/.."];
    for (tenant, path) in [("umbrella", path.as_str()), ("nobody", &path), ("acme", nowhere[0]), ("acme", nowhere[1])] {
        for method in [Method::GET, Method::DELETE] {
            let (status, refused) = world.service.tenant(tenant).call(method, path, None).await;
            assert_eq!((status.as_u16(), &refused["code"]), (404, &json!("message_not_found")), "{tenant} {path}");
        }
    }
    assert_eq!(world.service.tenant("umbrella").get("/messages").await, json!({"messages": []}));
}

#[tokio::test]
async fn messages_are_listed_the_newest_first_in_pages() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    assert_eq!(acme.send("4915112345678", "nobody there").await.0, 422);
    let mut ids = vec![acme.get("/messages").await["messages"][0]["id"].clone()];
    for n in 0..6 {
        ids.push(acme.send_ok(BRUNO, &format!("number {n}")).await["id"].clone());
    }
    ids.reverse();
    let listed = |page: &Value| -> Vec<Value> {
        page["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect()
    };
    let all = acme.get("/messages").await;
    assert_eq!((listed(&all), all.get("nextCursor")), (ids.clone(), None));
    for limit in [1, 2, 3, 7] {
        let (mut paged, mut path) = (Vec::new(), format!("/messages?limit={limit}"));
        loop {
            let page = acme.get(&path).await;
            paged.extend(listed(&page));
            let Some(cursor) = page.get("nextCursor") else { break };
            assert_eq!(page["messages"].as_array().unwrap().len(), limit);
            // One that comes in between changes nothing for those who turn the pages.
            path = format!("/messages?limit={limit}&cursor={}", cursor.as_str().unwrap());
        }
        assert_eq!(paged, ids, "in pages of {limit}");
    }
    assert_eq!(listed(&acme.get("/messages?status=failed").await), ids[6..]);
    assert_eq!(acme.get("/messages?status=queued").await, json!({"messages": []}));
    let since = all["messages"][2]["acceptedAt"].as_str().unwrap();
    assert_eq!(listed(&acme.get(&format!("/messages?since={since}")).await), ids[..3]);
    let first = acme.get("/messages?limit=2").await;
    let newest = acme.send_ok(BRUNO, "in between").await;
    let second = acme.get(&format!("/messages?limit=2&cursor={}", first["nextCursor"].as_str().unwrap())).await;
    assert_eq!(listed(&second), ids[2..4]);
    assert_eq!(listed(&acme.get("/messages?limit=1").await), [newest["id"].clone()]);
    for (name, bad) in [
        ("status", "lost"),
        ("status", ""),
        ("since", "yesterday"),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "x"),
        ("cursor", "x"),
    ] {
        let (status, refused) = acme.call(Method::GET, &format!("/messages?{name}={bad}"), None).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_query")), "{name}={bad}");
        assert!(refused["message"].as_str().unwrap().contains(name), "{name}={bad}: {refused}");
    }
}

#[tokio::test]
async fn a_message_that_waits_can_be_cancelled_and_no_other() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let delete = |id: &Value| format!("/messages/{}", id.as_str().unwrap());
    let sent = acme.send_ok(BRUNO, "sent").await;
    world.until_shown(BRUNO, "sent").await;
    world.cut_off("acme", ANA).await;
    acme.queue(BRUNO, "before").await;
    let cancelled = acme.queue(BRUNO, "cancelled").await;
    acme.queue(BRUNO, "after").await;
    let other = world.service.tenant("umbrella").call(Method::DELETE, &delete(&cancelled["id"]), None).await;
    assert_eq!((other.0.as_u16(), &other.1["code"]), (404, &json!("message_not_found")));
    let (status, fate) = acme.call(Method::DELETE, &delete(&cancelled["id"]), None).await;
    assert_eq!(
        (status.as_u16(), &fate["status"], &fate["code"]),
        (200, &json!("failed"), &json!("cancelled")),
        "{fate}"
    );
    assert_eq!(acme.get(&delete(&cancelled["id"])).await, fate);
    assert_eq!(acme.status().await["pending"], 2);
    for id in [&cancelled["id"], &sent["id"]] {
        let (status, refused) = acme.call(Method::DELETE, &delete(id), None).await;
        assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("not_cancellable")), "{refused}");
    }
    world.clear_faults().await;
    world.until_shown(BRUNO, "after").await;
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["sent", "before", "after"]);
    assert_eq!(acme.get(&delete(&cancelled["id"])).await, fate);
}

#[tokio::test]
async fn a_thousand_messages_in_one_call_arrive_once_each() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let phones = ten_people(&world).await;
    let messages: Vec<_> = (0..1000)
        .map(|n| json!({"to": phones[n % 10], "message": format!("number {n}"), "reference": format!("r{n}")}))
        .collect();
    let acme = world.service.tenant("acme");
    let (status, body) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!(status, 202, "{body}");
    let entries = body["messages"].as_array().unwrap();
    assert_eq!(entries.len(), 1000);
    for (n, entry) in entries.iter().enumerate() {
        let expected =
            json!({"id": entry["id"], "status": "queued", "to": phones[n % 10], "reference": format!("r{n}")});
        assert_eq!(*entry, expected);
    }
    acme.until("an empty outbox", |status| status["pending"] == 0).await;
    acme.until("the count", |status| status["messagesSent"] == 1000).await;
    for (n, phone) in phones.iter().enumerate() {
        let texts: Vec<_> = (n..1000).step_by(10).map(|n| format!("number {n}")).collect();
        eventually("a hundred", || async { (world.shown_on(phone).await.len() >= 100).then_some(()) }).await;
        assert_eq!(world.texts_on(phone).await, texts, "in the order of the call");
    }
    let stats = world.stats().await;
    assert_eq!((&stats["repeatedIds"], &stats["retryReceipts"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_bad_entry_of_many_refuses_no_other() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let good = |text: &str, key: &str| json!({"to": BRUNO, "message": text, "idempotencyKey": key});
    let entries = [
        (good("first", "a"), None),
        (json!({"to": "12", "message": "x", "reference": "bad number"}), Some("invalid_recipient")),
        (json!({"to": BRUNO, "reference": "no message"}), Some("invalid_content")),
        (json!({"to": BRUNO, "message": ""}), Some("invalid_message")),
        (json!({"to": BRUNO, "message": 7, "reference": "not a text"}), Some("invalid_body")),
        (json!({"to": BRUNO, "message": "x", "expiresIn": 0}), Some("invalid_expires_in")),
        (json!({"to": BRUNO, "message": "x", "idempotencyKey": "two words"}), Some("invalid_idempotency_key")),
        (json!({"to": BRUNO, "message": "x", "reference": "r".repeat(257)}), Some("invalid_reference")),
        (json!("not an object"), Some("invalid_body")),
        (json!(null), Some("invalid_body")),
        (json!([BRUNO, "an array", null, null, null]), Some("invalid_body")),
        (good("another body", "a"), Some("idempotency_conflict")),
        (good("last", "b"), None),
    ];
    let messages: Vec<_> = entries.iter().map(|(entry, _)| entry).collect();
    let call = || acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages})));
    let (status, body) = call().await;
    assert_eq!(status, 202, "{body}");
    let answers = body["messages"].as_array().unwrap();
    assert_eq!(answers.len(), entries.len());
    for ((entry, code), answer) in entries.iter().zip(answers) {
        assert_eq!(answer.get("code").and_then(Value::as_str), *code, "{entry}: {answer}");
        assert_eq!(answer.get("id").is_some(), code.is_none(), "{entry}: {answer}");
        assert_eq!(answer.get("reference"), entry.get("reference"), "{entry}: {answer}");
        let explained = answer["error"].is_string() && answer["message"].is_string();
        assert_eq!(explained, code.is_some(), "{entry}: {answer}");
    }
    assert!(answers[2]["message"].as_str().unwrap().contains("message"), "it names the field: {}", answers[2]);
    // The same call again is the same messages.
    let (_, again) = call().await;
    let ids = |body: &Value| [0, entries.len() - 1].map(|n| body["messages"][n]["id"].clone());
    assert_eq!(ids(&again), ids(&body));
    assert_eq!(all_on_brunos_phone(&world, "acme").await, ["first", "last"]);
}

#[tokio::test]
async fn a_bulk_has_one_to_a_thousand_messages_and_a_session() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let entry = json!({"to": BRUNO, "message": "one too many"});
    for messages in [json!([]), json!(vec![entry.clone(); 1001]), json!("x"), json!(null)] {
        let (status, refused) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
        assert_eq!(status, 400, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("messages"), "{refused}");
    }
    for entry in [entry, json!("bad")] {
        let body = json!({"messages": [entry]});
        let (status, refused) = world.service.tenant("nobody").call(Method::POST, "/send/bulk", Some(body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("session_not_found")), "{refused}");
    }
    assert_eq!(acme.get("/messages").await, json!({"messages": []}));
}

#[tokio::test]
async fn a_full_outbox_says_so_and_has_room_again() {
    let world = World::with(Default::default(), &[("OUTBOX_MAX_PER_TENANT", "5")]).await;
    world.pair("acme", ANA).await;
    world.pair("umbrella", BRUNO).await;
    let acme = world.service.tenant("acme");
    world.cut_off("acme", ANA).await;
    let body = |n: usize| json!({"to": BRUNO, "message": n.to_string()});
    let with_key = |n: usize| keyed_at(&world, "/send?wait=0", "acme", &format!("order-{n}"), &body(n));
    let mut ids = Vec::new();
    for n in 0..5 {
        let (status, accepted) = answer(with_key(n)).await;
        assert_eq!(status, 202, "{accepted}");
        ids.push(accepted["id"].clone());
    }
    let response = with_key(5).send().await.unwrap();
    let seconds = response.headers().get("retry-after").expect("Retry-After").to_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(response.status(), 429);
    let refused: Value = response.json().await.unwrap();
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("queue_full"), &json!(true)), "{refused}");
    assert_eq!(refused["retryAfter"], seconds);
    assert_eq!(acme.status().await["pending"], 5);
    let (status, repeated) = answer(with_key(0)).await;
    assert_eq!((status.as_u16(), &repeated["id"]), (202, &ids[0]), "{repeated}");
    world.service.tenant("umbrella").send_ok(BRUNO, "unaffected").await;
    world.clear_faults().await;
    acme.until("an empty outbox", |status| status["pending"] == 0).await;
    assert_eq!(answer(with_key(5)).await.0, 202);
    world.until_shown(BRUNO, "5").await;
    let mut texts = world.texts_on(BRUNO).await;
    texts.retain(|text| text != "unaffected");
    assert_eq!(texts, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_bulk_fills_the_outbox_and_no_more() {
    let world = World::with(Default::default(), &[("OUTBOX_MAX_PER_TENANT", "5")]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    world.cut_off("acme", ANA).await;
    let entry = |n: usize| json!({"to": BRUNO, "message": n.to_string(), "idempotencyKey": format!("order-{n}")});
    let bulk = |range: std::ops::Range<usize>| json!({"messages": range.map(entry).collect::<Vec<_>>()});
    let (_, first) = acme.call(Method::POST, "/send/bulk", Some(bulk(0..4))).await;
    let (status, second) = acme.call(Method::POST, "/send/bulk", Some(bulk(2..8))).await;
    assert_eq!(status, 202, "{second}");
    // Two are known, one has room, three have none.
    assert_eq!(second["messages"][0]["id"], first["messages"][2]["id"]);
    assert_eq!(second["messages"][1]["id"], first["messages"][3]["id"]);
    assert!(second["messages"][2]["id"].is_string(), "{second}");
    for n in 3..6 {
        let refused = &second["messages"][n];
        assert_eq!((&refused["code"], refused["retryAfter"].is_u64()), (&json!("queue_full"), true), "{refused}");
    }
    assert_eq!(acme.status().await["pending"], 5);
}

#[tokio::test]
async fn callers_at_the_same_time_do_not_overfill_the_outbox() {
    let world = World::with(Default::default(), &[("OUTBOX_MAX_PER_TENANT", "5")]).await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..40 {
        let request = world.service.request(Method::POST, "/send?wait=0").header("X-Tenant-Id", "acme");
        running.spawn(answer(request.json(&json!({"to": BRUNO, "message": n.to_string()}))));
    }
    let answers = running.join_all().await;
    let accepted = answers.iter().filter(|(status, _)| *status == 202).count();
    let full = answers.iter().filter(|(status, _)| *status == 429).count();
    assert_eq!((accepted, full), (5, 35));
}

#[tokio::test]
async fn messages_leave_no_faster_than_they_should() {
    for (interval, paced) in [("1", true), ("0", false)] {
        let world = World::with(Default::default(), &[("SEND_MIN_INTERVAL", interval)]).await;
        world.pair("acme", ANA).await;
        let acme = world.service.tenant("acme");
        // The first message to a number takes a look-up, which would count as a pause.
        acme.send_ok(BRUNO, "to know the way").await;
        acme.send_ok(ANA, "to know the way").await;
        let mut ids = Vec::new();
        for (n, to) in [BRUNO, ANA, BRUNO].into_iter().enumerate() {
            let accepted = acme.queue(to, &n.to_string()).await;
            assert_eq!(accepted["status"], "queued");
            ids.push(accepted["id"].clone());
        }
        if paced {
            assert_eq!(acme.get(&format!("/messages/{}", ids[2].as_str().unwrap())).await["status"], "queued");
        }
        acme.until("an empty outbox", |status| status["pending"] == 0).await;
        let mut sent = Vec::new();
        for id in &ids {
            sent.push(acme.get(&format!("/messages/{}", id.as_str().unwrap())).await["sentAt"].clone());
        }
        let gaps = [between(&sent[0], &sent[1]), between(&sent[1], &sent[2])];
        assert_eq!(gaps.iter().all(|gap| (800..60_000).contains(gap)), paced, "every {interval} s: {gaps:?}");
    }
}

#[tokio::test]
async fn a_tenant_with_much_to_send_holds_up_no_other() {
    let world = World::start().await;
    world.pair("busy", ANA).await;
    world.pair("calm", BRUNO).await;
    let busy = world.service.tenant("busy");
    let phones = ten_people(&world).await;
    let messages: Vec<_> = (0..1000).map(|n| json!({"to": phones[n % 10], "message": n.to_string()})).collect();
    for _ in 0..3 {
        let (status, body) = busy.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
        assert_eq!(status, 202, "{body}");
    }
    world.service.tenant("calm").send_ok(ANA, "in between").await;
    let pending = busy.status().await["pending"].as_u64().unwrap();
    assert!(pending > 1000, "only {pending} were left");
    world.until_shown(ANA, "in between").await;
}

#[tokio::test]
async fn a_text_is_kept_only_where_it_is_wanted() {
    for keep in [false, true] {
        let mut world = World::with(Default::default(), &[("KEEP_BODIES", if keep { "true" } else { "false" })]).await;
        world.pair("acme", ANA).await;
        let secret = "the-text-that-nobody-should-find-later";
        let acme = world.service.tenant("acme");
        let sent = acme.send_ok(BRUNO, secret).await;
        let fate = acme.until_fate(&sent["id"], "delivered").await;
        assert_eq!(fate["content"]["text"].as_str(), keep.then_some(secret), "{fate}");
        let events = acme.get("/events?after=0").await.to_string();
        assert!(!events.contains(secret), "the event log never has it");
        assert!(events.contains("delivered"));
        assert_eq!(world.service.terminate().await.code(), Some(0));
        // What is kept for a week for the recipient's devices, should they ask again, is another matter.
        let database = world.service.database();
        database.pragma_update(None, "secure_delete", "ON").unwrap();
        assert!(database.execute("DELETE FROM state WHERE kind = 18", ()).unwrap() > 0);
        drop(database);
        let mut files = 0;
        let mut found = false;
        for entry in std::fs::read_dir(world.service.data.path()).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name().to_string_lossy().starts_with("service.db") {
                let bytes = std::fs::read(entry.path()).unwrap();
                found |= bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                files += 1;
            }
        }
        assert!(files > 0, "there is a database");
        assert_eq!(found, keep);
    }
}

/// `POST /send` with an idempotency key.
fn keyed(world: &World, tenant: &str, key: &str, body: &Value) -> RequestBuilder {
    keyed_at(world, "/send", tenant, key, body)
}

fn keyed_at(world: &World, path: &str, tenant: &str, key: &str, body: &Value) -> RequestBuilder {
    let key = HeaderValue::from_bytes(key.as_bytes()).unwrap();
    let request = world.service.request(Method::POST, path).header("X-Tenant-Id", tenant);
    request.header("Idempotency-Key", key).json(body)
}

/// Gives ten people accounts, and returns their numbers.
async fn ten_people(world: &World) -> Vec<String> {
    let phones: Vec<_> = (0..10).map(|n| format!("55119000000{n:02}")).collect();
    for phone in &phones {
        world.admin(Method::POST, "/admin/accounts", json!({"phone": phone, "name": "Someone"}).to_string()).await;
    }
    phones
}

/// Everything that Bruno's phone shows, once all that was sent to it before has come; nothing came twice.
async fn all_on_brunos_phone(world: &World, tenant: &str) -> Vec<String> {
    world.service.tenant(tenant).send_ok(BRUNO, "that was all").await;
    world.until_shown(BRUNO, "that was all").await;
    assert_eq!(world.count(BRUNO, "repeatedIds").await, 0);
    let mut texts = world.texts_on(BRUNO).await;
    assert_eq!(texts.pop().as_deref(), Some("that was all"));
    texts
}

/// The milliseconds from one time to a later one, less than a day apart.
fn between(earlier: &Value, later: &Value) -> i64 {
    let of_day = |time: &Value| -> i64 {
        let digits = |range: std::ops::Range<usize>| time.as_str().unwrap()[range].parse::<i64>().unwrap();
        ((digits(11..13) * 60 + digits(14..16)) * 60 + digits(17..19)) * 1000 + digits(20..23)
    };
    (of_day(later) - of_day(earlier)).rem_euclid(24 * 3600 * 1000)
}

#[tokio::test]
async fn a_voice_note_that_was_listened_to_is_played() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let body = json!({"to": BRUNO, "voice": true, "media": {"base64": BASE64_STANDARD.encode(crate::media::OPUS)}});
    let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!(status, 200, "{sent}");
    acme.until_fate(&sent["id"], "delivered").await;
    let play = format!("/admin/accounts/{BRUNO}/messages/{}/play", sent["id"].as_str().unwrap());
    world.admin(Method::POST, &play, "").await;
    let played = acme.until_fate(&sent["id"], "played").await;
    let times = ["sentAt", "deliveredAt", "readAt", "playedAt"].map(|name| played[name].as_str().unwrap_or_default());
    assert!(times.iter().all(|time| !time.is_empty()) && times.is_sorted(), "{played}");
    let steps: Vec<_> = acme.told("message.status").await.into_iter().map(|mut told| told["status"].take()).collect();
    assert_eq!(steps, ["sent", "delivered", "read", "played"]);
    assert_eq!(acme.get("/messages?status=played").await, json!({"messages": [played]}));
    assert_eq!(acme.get("/messages?status=read").await, json!({"messages": []}));
    // What comes late changes nothing.
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/read"), "").await;
    assert_eq!(acme.deliver(BRUNO, "the next one").await["status"], "delivered");
    assert_eq!(acme.until_fate(&sent["id"], "played").await, played);
}
