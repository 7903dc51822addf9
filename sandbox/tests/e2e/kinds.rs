//! Sending what is more than a text: places, contacts, answers, reactions, edits and revocations, on their way to a phone.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use whatsapp_rust::wacore::proto_helpers::MessageExt;
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Tenant, World, eventually},
};

/// What a call of `POST /send` says.
fn body(to: &str, content: &Value) -> Value {
    let mut body = json!({"to": to});
    body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    body
}

async fn send(tenant: Tenant<'_>, to: &str, content: Value) -> (StatusCode, Value) {
    tenant.call(Method::POST, "/send", Some(body(to, &content))).await
}

/// Sends, which must succeed, and returns the message's id.
async fn sent(tenant: Tenant<'_>, to: &str, content: Value) -> String {
    let (status, answer) = send(tenant, to, content.clone()).await;
    assert_eq!((status.as_u16(), &answer["status"]), (200, &json!("sent")), "{content}: {answer}");
    answer["id"].as_str().unwrap().to_owned()
}

/// Sends, which must be refused, and returns the status and the code.
async fn refused(tenant: Tenant<'_>, to: &str, content: Value) -> (u16, String) {
    let (status, answer) = send(tenant, to, content).await;
    assert!(answer["id"].is_null(), "{answer}");
    (status.as_u16(), answer["code"].as_str().unwrap_or_default().to_owned())
}

/// Waits until a message on a phone is as wanted, and returns it.
async fn until_seen(world: &World, phone: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{id} on {phone}"), || async {
        world.shown_on(phone).await.into_iter().find(|message| message["id"] == id && wanted(message))
    })
    .await
}

async fn paired() -> World {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    world
}

/// Waits until a message of Bruno's is in the event log.
async fn until_received(tenant: Tenant<'_>, id: &Value) {
    tenant.until_told("message.received", |told| told.iter().any(|message| message["id"] == *id)).await;
}

#[tokio::test]
async fn a_place_and_a_contact_arrive_as_they_were_sent() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let place = json!({"latitude": -23.5614, "longitude": -46.6559, "name": "MASP", "address": "Av. Paulista, 1578"});
    let id = sent(acme, BRUNO, json!({"location": place})).await;
    for phone in [BRUNO, ANA] {
        let shown = until_seen(&world, phone, &id, |message| message["kind"] == "location").await;
        assert_eq!(shown["location"], place, "{shown}");
    }
    let bare = json!({"latitude": 90, "longitude": -180});
    let id = sent(acme, BRUNO, json!({"location": bare})).await;
    let shown = until_seen(&world, BRUNO, &id, |message| message["kind"] == "location").await;
    assert_eq!((&shown["location"]["latitude"], &shown["location"]["longitude"]), (&json!(90.0), &json!(-180.0)));
    let person = json!({"name": "Ana Souza; \"Aninha\", a 1ª", "phone": "+55 (11) 99999-9999"});
    let id = sent(acme, BRUNO, json!({"contact": person})).await;
    let shown = until_seen(&world, BRUNO, &id, |message| message["kind"] == "contact").await;
    assert_eq!(shown["contact"]["name"], person["name"], "{shown}");
    assert_eq!(shown["contact"]["phone"].as_str().unwrap().trim_start_matches('+'), ANA, "{shown}");
    let card = shown["contact"]["vcard"].as_str().unwrap();
    assert!(card.contains("FN:Ana Souza\\; \"Aninha\"\\, a 1ª\n"), "{card}");
    let fate = acme.until_fate(&json!(id), "delivered").await;
    assert!(fate["content"].is_null(), "what it says is dropped like a text");
}

#[tokio::test]
async fn an_answer_names_what_it_answers() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let question = world.write(BRUNO, ANA, "Coming?").await;
    until_received(acme, &question).await;
    let id = sent(acme, BRUNO, json!({"message": "Yes", "replyTo": question})).await;
    let shown = until_seen(&world, BRUNO, &id, |message| message["text"] == "Yes").await;
    assert_eq!(shown["replyTo"], question, "{shown}");
    // One's own, and one that nobody here knows.
    for about in [id.as_str(), "ABCDEF0123456789"] {
        let place = json!({"latitude": 1.5, "longitude": 2.5});
        let id = sent(acme, BRUNO, json!({"location": place, "replyTo": about})).await;
        let shown = until_seen(&world, BRUNO, &id, |message| message["kind"] == "location").await;
        assert_eq!(shown["replyTo"], about, "{shown}");
    }
}

#[tokio::test]
async fn an_answer_quotes_what_was_said_on_either_side() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    // Bruno's other device is a real client, and sees what the quote says.
    let (bruno, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    let theirs = world.write(BRUNO, ANA, "Coming?").await;
    until_received(acme, &theirs).await;
    let theirs = theirs.as_str().unwrap();
    let own = sent(acme, BRUNO, json!({"message": "On my way"})).await;
    for (about, author, said) in
        [(theirs, BRUNO, "Coming?"), (own.as_str(), ANA, "On my way"), ("ABCDEF0123456789", BRUNO, "")]
    {
        let id = sent(acme, BRUNO, json!({"message": "Yes", "replyTo": about})).await;
        let answer = bruno.message(&id).await;
        let context = answer.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
        assert_eq!(context.stanza_id.as_deref(), Some(about));
        assert_eq!(context.participant.as_deref().unwrap().split_once('@').unwrap().0, author, "{said}");
        let quoted = context.quoted_message.as_option().unwrap();
        assert_eq!(quoted.text_content().unwrap_or_default(), said);
        assert!(!quoted.message_context_info.is_set(), "the secret of a message stays with it");
        // Whose message it is stands in a reaction too; nobody else can tell.
        let id = sent(acme, BRUNO, json!({"reaction": {"messageId": about, "emoji": "👍"}})).await;
        let reaction = bruno.message(&id).await;
        let key = reaction.reaction_message.as_option().unwrap().key.as_option().unwrap();
        assert_eq!((key.id.as_deref(), key.from_me), (Some(about), Some(author == ANA)), "{said}");
    }
    bruno.stop().await;
}

#[tokio::test]
async fn a_reaction_stands_at_its_message_whoever_wrote_it() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let own = sent(acme, BRUNO, json!({"message": "It is done"})).await;
    let theirs = world.write(BRUNO, ANA, "Well done").await;
    until_received(acme, &theirs).await;
    for about in [own.as_str(), theirs.as_str().unwrap()] {
        for emoji in ["👍", "👩🏽\u{200D}🚀"] {
            sent(acme, BRUNO, json!({"reaction": {"messageId": about, "emoji": emoji}})).await;
            for phone in [BRUNO, ANA] {
                let wanted = json!([{"from": ANA, "emoji": emoji}]);
                until_seen(&world, phone, about, |message| message["reactions"] == wanted).await;
            }
        }
        sent(acme, BRUNO, json!({"reaction": {"messageId": about, "emoji": ""}})).await;
        until_seen(&world, BRUNO, about, |message| {
            message["reactions"].as_array().is_none_or(|reactions| reactions.is_empty())
        })
        .await;
    }
}

#[tokio::test]
async fn an_edit_and_a_revocation_change_the_message_on_the_phones() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let id = sent(acme, BRUNO, json!({"message": "See you at nine"})).await;
    for text in ["See you at ten", "See you at eleven"] {
        let edit = sent(acme, BRUNO, json!({"edit": {"messageId": id, "message": text}})).await;
        assert_ne!(edit, id, "it is a message of its own");
        for phone in [BRUNO, ANA] {
            let shown = until_seen(&world, phone, &id, |message| message["text"] == text).await;
            assert_eq!(shown["edited"], true, "{shown}");
        }
        acme.until_fate(&json!(edit), "delivered").await;
    }
    let revocation = sent(acme, BRUNO, json!({"revoke": {"messageId": id}})).await;
    for phone in [BRUNO, ANA] {
        until_seen(&world, phone, &id, |message| message["revoked"] == true).await;
    }
    acme.until_fate(&json!(revocation), "delivered").await;
    // Nothing of it looks like another message.
    assert_eq!(world.shown_on(BRUNO).await.len(), 1);
    acme.until("the count", |status| status["messagesSent"] == 4).await;
}

#[tokio::test]
async fn what_a_message_is_about_has_to_be_there_and_to_be_sent() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let edit = |id: &str| json!({"edit": {"messageId": id, "message": "New"}});
    let revoke = |id: &str| json!({"revoke": {"messageId": id}});
    let reaction = |id: &str| json!({"reaction": {"messageId": id, "emoji": "👍"}});
    let answer = |id: &str| json!({"message": "Yes", "replyTo": id});
    let not_found = || (404, "message_not_found".to_owned());
    let id = sent(acme, BRUNO, json!({"message": "Old"})).await;

    for unknown in ["3EB0000000000000000000", world.write(BRUNO, ANA, "theirs").await.as_str().unwrap()] {
        assert_eq!(refused(acme, BRUNO, edit(unknown)).await, not_found());
        assert_eq!(refused(acme, BRUNO, revoke(unknown)).await, not_found());
    }
    // Another tenant's messages are nobody's business.
    world.pair("other", BRUNO).await;
    assert_eq!(refused(world.service.tenant("other"), ANA, edit(&id)).await, not_found());
    for content in [edit(&id), revoke(&id), reaction(&id), answer(&id)] {
        let other = (409, "other_recipient".to_owned());
        assert_eq!(refused(acme, "5511777777777", content).await, other);
    }
    let about = sent(acme, BRUNO, reaction(&id)).await;
    for content in [edit(&about), revoke(&about), reaction(&about), answer(&about)] {
        assert_eq!(refused(acme, BRUNO, content.clone()).await, (422, "wrong_kind".to_owned()), "{content}");
    }
    let place = sent(acme, BRUNO, json!({"location": {"latitude": 1, "longitude": 2}})).await;
    assert_eq!(refused(acme, BRUNO, edit(&place)).await, (422, "wrong_kind".to_owned()));

    world.cut_off("acme", ANA).await;
    let queued = acme.queue(BRUNO, "not sent yet").await["id"].as_str().unwrap().to_owned();
    for content in [edit(&queued), revoke(&queued)] {
        assert_eq!(refused(acme, BRUNO, content).await, (409, "message_not_sent".to_owned()));
    }
    // The order is kept: a reaction to it may wait behind it.
    let (status, waiting) = acme.call(Method::POST, "/send?wait=0", Some(body(BRUNO, &reaction(&queued)))).await;
    assert_eq!(status, 202, "{waiting}");
    world.clear_faults().await;
    until_seen(&world, BRUNO, &queued, |message| message["reactions"][0]["emoji"] == "👍").await;
    sent(acme, BRUNO, edit(&queued)).await;

    let age = |seconds: i64| {
        let sql = "UPDATE messages SET server_at = server_at - ?1, sent_at = sent_at - ?1 WHERE id = ?2";
        assert_eq!(world.service.database().execute(sql, rusqlite::params![seconds * 1000, id]).unwrap(), 1);
    };
    age(14 * 60);
    sent(acme, BRUNO, edit(&id)).await;
    age(61);
    assert_eq!(refused(acme, BRUNO, edit(&id)).await, (422, "message_too_old".to_owned()));
    age(47 * 3600);
    sent(acme, BRUNO, revoke(&id)).await;
    age(3600);
    assert_eq!(refused(acme, BRUNO, revoke(&id)).await, (422, "message_too_old".to_owned()));
    until_seen(&world, BRUNO, &id, |message| message["revoked"] == true).await;
}

#[tokio::test]
async fn many_kinds_in_one_call_are_looked_at_one_by_one() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let id = sent(acme, BRUNO, json!({"message": "first"})).await;
    let entries = [
        (json!({"message": "second", "replyTo": id}), None),
        (json!({"message": "x", "contact": {"name": "Ana", "phone": ANA}}), Some("invalid_content")),
        (json!({"reaction": {"messageId": id, "emoji": "👍"}}), None),
        (json!({"reaction": {"messageId": id, "emoji": "yes"}}), Some("invalid_content")),
        (json!({"edit": {"messageId": "nobody", "message": "x"}}), Some("message_not_found")),
        (json!({"location": {"latitude": 91, "longitude": 0}}), Some("invalid_content")),
        (json!({"edit": {"messageId": id, "message": "changed"}}), None),
        (json!({"contact": {"name": "Ana", "phone": ANA}}), None),
    ];
    let messages: Vec<_> = entries.iter().map(|(content, _)| body(BRUNO, content)).collect();
    let (status, answer) = acme.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!(status, 202, "{answer}");
    let answers = answer["messages"].as_array().unwrap();
    assert_eq!(answers.len(), entries.len());
    for ((content, code), answer) in entries.iter().zip(answers) {
        match code {
            Some(code) => assert_eq!(answer["code"], *code, "{content}: {answer}"),
            None => assert_eq!(answer["status"], "queued", "{content}: {answer}"),
        }
    }
    until_seen(&world, BRUNO, &id, |message| message["text"] == "changed").await;
    let last = answers[7]["id"].as_str().unwrap();
    until_seen(&world, BRUNO, last, |message| message["kind"] == "contact").await;
    let shown = world.shown_on(BRUNO).await;
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0]["reactions"][0]["emoji"], "👍", "one lane keeps the order of what was accepted");
}

#[tokio::test]
async fn a_key_stands_for_the_whole_content() {
    let world = paired().await;
    let acme = world.service.tenant("acme");
    let keyed = |latitude: f64| json!({"to": BRUNO, "location": {"latitude": latitude, "longitude": 2}, "idempotencyKey": "place-1"});
    let (status, first) = acme.call(Method::POST, "/send", Some(keyed(1.0))).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = acme.call(Method::POST, "/send", Some(keyed(1.0))).await;
    assert_eq!((status.as_u16(), &again["id"]), (200, &first["id"]));
    let (status, conflict) = acme.call(Method::POST, "/send", Some(keyed(1.5))).await;
    assert_eq!((status.as_u16(), &conflict["code"]), (409, &json!("idempotency_conflict")));
    // A repetition is answered from the first call, also when what it was about can no longer be changed.
    let id = sent(acme, BRUNO, json!({"message": "Old"})).await;
    let edit = json!({"to": BRUNO, "edit": {"messageId": id, "message": "New"}, "idempotencyKey": "edit-1"});
    let (status, first) = acme.call(Method::POST, "/send", Some(edit.clone())).await;
    assert_eq!(status, 200, "{first}");
    let sql = "UPDATE messages SET server_at = 0, sent_at = 0 WHERE id = ?";
    world.service.database().execute(sql, [&id]).unwrap();
    let (status, again) = acme.call(Method::POST, "/send", Some(edit)).await;
    assert_eq!((status.as_u16(), &again["id"]), (200, &first["id"]), "{again}");
}

#[tokio::test]
async fn every_kind_survives_a_kill_and_is_repeated_under_its_id() {
    let mut world = World::with(Default::default(), &[("SEND_TIMEOUT", "2"), ("KEEP_BODIES", "true")]).await;
    world.pair("acme", ANA).await;
    let id = sent(world.service.tenant("acme"), BRUNO, json!({"message": "Old"})).await;
    // What leaves now is never acknowledged, and what Bruno's phone says of it is lost too.
    world.fault(json!({"dropAcks": true})).await;
    world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
    let place = json!({"location": {"latitude": 1.5, "longitude": 2.5}, "replyTo": id});
    let edit = json!({"edit": {"messageId": id, "message": "New"}});
    let (mut ids, before) = (Vec::new(), world.stats().await["repeatedIds"].clone());
    for content in [place, edit] {
        let (status, answer) = send(world.service.tenant("acme"), BRUNO, content.clone()).await;
        assert_eq!(status, 202, "{content}: {answer}");
        ids.push(answer["id"].clone());
    }
    world.service.kill_and_restart().await;
    world.clear_faults().await;
    let acme = world.service.tenant("acme");
    for id in &ids {
        acme.until_fate(id, "delivered").await;
    }
    let kept = acme.get(&format!("/messages/{}", ids[0].as_str().unwrap())).await;
    let content = json!({"location": {"latitude": 1.5, "longitude": 2.5}, "replyTo": id});
    assert_eq!(kept["content"], content, "as it was given");
    let shown = until_seen(&world, BRUNO, &id, |message| message["text"] == "New").await;
    assert_eq!(shown["edited"], true);
    assert_eq!(world.shown_on(BRUNO).await.len(), 2, "each once");
    assert_ne!(world.stats().await["repeatedIds"], before, "something was sent twice, and known by its id");
}
