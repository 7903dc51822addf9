//! Whom a message reaches: the one person that its address names, and nobody else.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use whatsapp_simulator::Phone;

use crate::{
    client::TestClient,
    harness::{ANA, BRUNO, Tenant, World, eventually},
    node::{Baileys, installed, text},
};

/// Waits until an incoming text is told, and returns what is told of it.
async fn told_of(tenant: Tenant<'_>, words: &str) -> Value {
    let told = tenant.until_told("message.received", |told| told.iter().any(|one| one["text"] == words)).await;
    told.into_iter().find(|one| one["text"] == words).unwrap()
}

fn address(lid: &str) -> String {
    format!("{lid}@lid")
}

#[tokio::test]
async fn what_people_hand_in_reaches_whom_it_names() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    for (registered, written) in [
        ("393921234567", "0039 392 1234567"),
        ("4915112345678", "+49 151/1234-5678"),
        ("5511966665555", "\u{202a}+55\u{a0}(11)\u{a0}96666\u{2011}5555\u{202c}"),
        ("12015550123", "tel:+1-201-555-0123"),
        ("447911123456", "https://wa.me/447911123456?text=Hi"),
        ("4915199998000", "4915199998000:12@s.whatsapp.net"),
        ("4915199998001", "4915199998001@c.us"),
        ("5491123456789", "+54 11 15 2345-6789"),
        ("543512345678", "+54 9 351 15 234-5678"),
        ("5215512345678", "+52 044 55 1234 5678"),
        ("525587654321", "+52 045 55 8765 4321"),
    ] {
        world.account(registered, "Somebody", false).await;
        let sent = acme.send_ok(written, &format!("to {written}")).await;
        assert_eq!(
            (&sent["to"], &sent["toLid"]),
            (&json!(registered), &json!(world.lid(registered).await)),
            "{written}"
        );
        assert_eq!(world.until_shown(registered, &format!("to {written}")).await.len(), 1);
    }
    let card = json!({"to": BRUNO, "contact": {"name": "Carla", "phone": "0054 11 15 2345-6789"}});
    assert_eq!(acme.call(Method::POST, "/send", Some(card)).await.0, 200);
    let card = eventually("a card", || async { world.shown_on(BRUNO).await.pop() }).await;
    assert_eq!(card["contact"]["phone"], "5491123456789", "{card}");
}

#[tokio::test]
async fn what_is_no_address_is_refused_and_reaches_nobody() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    // Whoever has the digits of it as a number.
    let strangers = ["491519999800012", "1201555012312", "49015112345678", "551199999999912", "120363012345678"];
    for stranger in strangers {
        world.account(stranger, "A stranger", false).await;
    }
    for (wrong, mention) in [
        ("4915199998000 ext. 12", "has an extension (`ext. 12`)"),
        ("+1 201 555-0123x12", "has an extension (`x12`)"),
        ("+49 (0)151 12345678", "needs the country code, without a 0 or 00 in front of it"),
        ("08123456789", "needs the country code, without a 0 or 00 in front of it"),
        ("4915199998000 or 12", "has `o` in place 15"),
        ("491519999800012@broadcast", "ends in `@broadcast`"),
        ("status@broadcast", "ends in `@broadcast`"),
        ("120363012345678@newsletter", "ends in `@newsletter`"),
        ("120363012345678@g.us", "is a group: groups are not supported yet"),
        ("ana@lid", "is no WhatsApp address: digits stand in front of @lid"),
        ("https://wa.me/message/ABC12015550123", "is a link without a number"),
        ("", "is empty"),
    ] {
        let refused = |field: &str| format!("`{field}` {mention}");
        for (path, body, code, field) in [
            ("/send", json!({"to": wrong, "message": "to a stranger"}), "invalid_recipient", "to"),
            ("/presence", json!({"to": wrong, "state": "typing"}), "invalid_recipient", "to"),
            ("/numbers/check", json!({"numbers": [wrong]}), "invalid_numbers", "numbers[0]"),
        ] {
            let (status, answer) = acme.call(Method::POST, path, Some(body)).await;
            assert_eq!((status.as_u16(), &answer["code"]), (400, &json!(code)), "{wrong}: {answer}");
            assert!(answer["message"].as_str().unwrap().starts_with(&refused(field)), "{wrong}: {answer}");
        }
        let entry = json!({"messages": [{"to": wrong, "message": "to a stranger"}, {"to": BRUNO, "message": wrong}]});
        let (_, answer) = acme.call(Method::POST, "/send/bulk", Some(entry)).await;
        assert_eq!(answer["messages"][0]["code"], "invalid_recipient", "{wrong}: {answer}");
    }
    for wrong in ["4915199998000 ext. 12", "+49 (0)151 12345678", "713715344025739@lid", "120363012345678@g.us"] {
        let card = json!({"to": BRUNO, "contact": {"name": "Carla", "phone": wrong}});
        let (status, answer) = acme.call(Method::POST, "/send", Some(card)).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!("invalid_content")), "{wrong}: {answer}");
        assert!(answer["message"].as_str().unwrap().starts_with("`contact.phone` "), "{answer}");
    }
    for stranger in strangers {
        assert!(world.shown_on(stranger).await.is_empty(), "{stranger}");
    }
    // Nothing of what was handed in is in the log.
    let log = world.service.log.text();
    for data in ["4915199998000", "to a stranger", "120363012345678", "ext. 12"] {
        assert!(!log.contains(data), "{data} is in the log");
    }
}

#[tokio::test]
async fn the_chat_of_an_event_is_answered_and_no_stranger_with_its_digits_reads_it() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let lid = world.lid(BRUNO).await;
    world.account(&lid, "A stranger", false).await;
    world.write(BRUNO, ANA, "Are you there?").await;
    let asked = told_of(acme, "Are you there?").await;
    assert_eq!((&asked["chat"], &asked["from"]), (&json!(address(&lid)), &json!(BRUNO)));

    let chat = asked["chat"].as_str().unwrap();
    let sent = acme.send_ok(chat, "Yes").await;
    assert_eq!((&sent["to"], &sent["toLid"]), (&json!(BRUNO), &json!(lid)), "what is known is shown");
    assert_eq!(world.until_shown(BRUNO, "Yes").await[0]["id"], sent["id"]);
    let fate = acme.until_fate(&sent["id"], "delivered").await;
    assert_eq!((&fate["to"], &fate["toLid"]), (&json!(BRUNO), &json!(lid)));
    let queued = acme.queue(chat, "and more").await;
    assert_eq!((&queued["to"], &queued["toLid"]), (&json!(BRUNO), &json!(lid)), "also before it is sent");
    let told = acme.until_told("message.status", |told| told.iter().any(|one| one["id"] == queued["id"])).await;
    assert!(told.iter().all(|one| one["to"] == BRUNO && one["toLid"] == json!(lid)), "{told:?}");
    // A device's address is its person's.
    acme.send_ok(&format!("{lid}:7@lid"), "to a device").await;
    world.until_shown(BRUNO, "to a device").await;

    // Its digits alone are no number, whoever has it.
    for (path, body) in [
        ("/send", json!({"to": lid, "message": "to a stranger"})),
        ("/send", json!({"to": format!("+{lid}"), "message": "to a stranger"})),
        ("/presence", json!({"to": lid, "state": "typing"})),
    ] {
        let (status, answer) = acme.call(Method::POST, path, Some(body)).await;
        assert_eq!((status.as_u16(), &answer["code"]), (400, &json!("invalid_recipient")), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("written with `@lid` behind it"), "{answer}");
    }
    // Who does not know that LID may know the number.
    world.account("5511977777777", "Carla", false).await;
    world.pair("other", "5511977777777").await;
    world.service.tenant("other").send_ok(&lid, "to its owner").await;
    assert_eq!(world.texts_on(&lid).await, ["to its owner"]);
}

#[tokio::test]
async fn who_hides_the_number_is_written_to_by_lid_in_every_way() {
    let world = World::start().await;
    world.account(BRUNO, "Bruno", true).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let (lid, chat) = (world.lid(BRUNO).await, address(&world.lid(BRUNO).await));
    world.account(&lid, "A stranger", false).await;
    let question = world.write(BRUNO, ANA, "Who am I?").await;
    let asked = told_of(acme, "Who am I?").await;
    assert_eq!((&asked["chat"], &asked["fromLid"], asked.get("from")), (&json!(chat), &json!(lid), None), "{asked}");

    let sent = async |content: Value| {
        let mut body = content;
        body["to"] = json!(chat);
        let (status, answer) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &answer["to"], &answer["toLid"]), (200, &json!(chat), &json!(lid)), "{answer}");
        acme.until_fate(&answer["id"], "delivered").await;
        answer["id"].clone()
    };
    let shown = async |id: &Value| {
        let shown = world.shown_on(BRUNO).await.into_iter().find(|message| message["id"] == *id);
        shown.unwrap_or_else(|| panic!("{id} is not there"))
    };
    let first = sent(json!({"message": "Somebody"})).await;
    let reply = sent(json!({"message": "Bruno?", "replyTo": question})).await;
    assert_eq!(shown(&reply).await["replyTo"], question);
    let own_reply = sent(json!({"message": "I mean it", "replyTo": first})).await;
    assert_eq!(shown(&own_reply).await["replyTo"], first);
    sent(json!({"reaction": {"messageId": question, "emoji": "👍"}})).await;
    assert_eq!(shown(&question).await["reactions"], json!([{"from": ANA, "emoji": "👍"}]));
    sent(json!({"reaction": {"messageId": first, "emoji": "🎉"}})).await;
    sent(json!({"edit": {"messageId": first, "message": "Anybody"}})).await;
    assert_eq!((&shown(&first).await["text"], &shown(&first).await["edited"]), (&json!("Anybody"), &json!(true)));
    sent(json!({"revoke": {"messageId": reply}})).await;
    assert_eq!(shown(&reply).await["revoked"], true);
    let media = json!({"base64": BASE64_STANDARD.encode(b"a,b\n"), "filename": "a.csv", "mimetype": "text/csv"});
    let file = sent(json!({"media": media, "message": "the figures"})).await;
    assert_eq!(shown(&file).await["media"]["filename"], "a.csv");
    sent(json!({"location": {"latitude": 1.5, "longitude": 2.5}})).await;
    let (status, answer) = acme.call(Method::POST, "/presence", Some(json!({"to": chat, "state": "typing"}))).await;
    assert_eq!((status.as_u16(), &answer), (200, &json!({"to": chat, "toLid": lid, "state": "typing"})));
    let read = format!("/messages/{}/read", question.as_str().unwrap());
    assert_eq!(acme.call(Method::POST, &read, None).await.0, 200);
    eventually("two blue ticks", || async { (shown(&question).await["status"] == "read").then_some(()) }).await;
    world.admin(Method::POST, &format!("/admin/accounts/{BRUNO}/read"), "").await;
    acme.until_fate(&first, "read").await;

    let (_, checked) = acme.call(Method::POST, "/numbers/check", Some(json!({"numbers": [chat, "100@lid"]}))).await;
    let expected = json!([{"input": chat, "registered": true, "lid": lid}, {"input": "100@lid", "registered": false}]);
    assert_eq!(checked["numbers"], expected);
    for body in [
        json!({"to": lid, "message": "to a stranger"}),
        json!({"to": lid, "location": {"latitude": 1, "longitude": 2}}),
    ] {
        let (status, refused) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!((status.as_u16(), &refused["code"]), (400, &json!("invalid_recipient")), "{refused}");
    }
    assert!(world.shown_on(&lid).await.is_empty(), "the stranger");
    let (status, nobody) = acme.send("100@lid", "to nobody").await;
    assert_eq!((status.as_u16(), &nobody["code"]), (422, &json!("recipient_not_on_whatsapp")), "{nobody}");

    // A device that is linked later gets what comes then: its number is hidden too.
    let (device, _) = TestClient::paired(&world.simulator, &Phone::parse(BRUNO).unwrap()).await;
    sent(json!({"message": "to all devices"})).await;
    device.text("to all devices").await;
    let log = world.service.log.text();
    assert!(!log.contains(&lid) && !log.contains(BRUNO), "neither name is in the log");
}

#[tokio::test]
async fn a_message_to_ones_own_lid_is_a_note_to_oneself() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let sent = world.service.tenant("acme").send_ok(&address(&world.lid(ANA).await), "note to self").await;
    assert_eq!(sent["to"], ANA);
    world.until_shown(ANA, "note to self").await;
}

/// Who is Carla by number and LID, and what of her the account knows beforehand.
async fn carla(world: &World, hidden: bool) -> [String; 2] {
    let number = "5511966665555";
    world.account(number, "Carla", hidden).await;
    [number.to_owned(), address(&world.lid(number).await)]
}

/// Has messages accepted, by turns to one name and the other, and returns what they say.
async fn by_turns(tenant: Tenant<'_>, names: &[String; 2], count: usize) -> Vec<String> {
    let texts: Vec<_> = (0..count).map(|n| format!("number {n}")).collect();
    let messages: Vec<_> =
        texts.iter().enumerate().map(|(n, text)| json!({"to": names[n % 2], "message": text})).collect();
    let (status, answer) = tenant.call(Method::POST, "/send/bulk", Some(json!({"messages": messages}))).await;
    assert_eq!(status, 202, "{answer}");
    assert!(answer["messages"].as_array().unwrap().iter().all(|one| one["status"] == "queued"), "{answer}");
    texts
}

async fn arrive_in_order(world: &World, phone: &str, texts: &[String]) {
    let arrived = eventually("all of them", || async {
        let texts_on = world.texts_on(phone).await;
        (texts_on.len() >= texts.len()).then_some(texts_on)
    })
    .await;
    assert_eq!(arrived, texts);
}

#[tokio::test]
async fn number_and_lid_of_one_person_are_one_queue_whatever_is_known_beforehand() {
    // Whether WhatsApp tells the number to who asks for the LID, or only the LID to who asks for the number; and whether
    // there is a chat by one of them already, so that this one could leave at once.
    for hidden in [false, true] {
        for (turn, known) in [(0, None), (1, None), (0, Some(1)), (1, Some(0)), (0, Some(0))] {
            let world = World::start().await;
            let mut names = carla(&world, hidden).await;
            world.pair("acme", ANA).await;
            let acme = world.service.tenant("acme");
            if let Some(known) = known {
                acme.send_ok(&names[known], "hello").await;
            }
            let number = names[0].clone();
            names.rotate_left(turn);
            world.fault(json!({"latencyMs": 50})).await;
            let mut texts = by_turns(acme, &names, 6).await;
            if known.is_some() {
                texts.insert(0, "hello".into());
            }
            arrive_in_order(&world, &number, &texts).await;
        }
    }
}

#[tokio::test]
async fn what_waits_for_number_and_lid_keeps_its_order_over_a_connection_and_over_a_restart() {
    for (hidden, kill) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::start().await;
        let names = carla(&world, hidden).await;
        world.pair("acme", ANA).await;
        // By her LID she could be written to at once.
        world.service.tenant("acme").send_ok(&names[1], "hello").await;
        world.cut_off("acme", ANA).await;
        let mut texts = by_turns(world.service.tenant("acme"), &names, 12).await;
        texts.insert(0, "hello".into());
        if kill {
            world.service.kill_and_restart().await;
        }
        world.clear_faults().await;
        arrive_in_order(&world, &names[0], &texts).await;
        // It is one person, and told so.
        let acme = world.service.tenant("acme");
        acme.until("nothing left", |status| status["pending"] == 0).await;
        let messages = acme.get("/messages?limit=12").await;
        let all = messages["messages"].as_array().unwrap();
        let lid = names[1].trim_end_matches("@lid");
        assert!(all.iter().all(|one| one["to"] == names[0] && one["toLid"] == lid), "{messages}");
    }
}

#[tokio::test]
async fn a_message_to_the_lid_waits_for_one_to_the_number_that_was_accepted_before_they_were_known_to_be_one() {
    // Whether Carla tells both names while the first one waits, or nobody does before WhatsApp is asked.
    for tells in [true, false] {
        let mut world = World::with(Default::default(), &[("SEND_TIMEOUT", "2")]).await;
        let [number, lid] = carla(&world, true).await;
        world.pair("acme", ANA).await;
        world.service.tenant("acme").send_ok(&lid, "hello").await;
        // The first one can't leave: nothing is answered to who asks for her.
        world.fault(json!({"latencyMs": 4000, "phone": ANA})).await;
        let acme = world.service.tenant("acme");
        let (status, first) = acme.send(&number, "one").await;
        assert_eq!((status.as_u16(), &first["status"]), (202, &json!("queued")), "{first}");
        if tells {
            world.account(&number, "Carla", false).await;
            world.write(&number, ANA, "This is my number").await;
            told_of(acme, "This is my number").await;
        }
        acme.queue(&lid, "two").await;
        acme.queue(&number, "three").await;
        if tells {
            world.service.kill_and_restart().await;
        }
        world.clear_faults().await;
        let texts = ["hello", "one", "two", "three"].map(str::to_owned);
        let shown = eventually("all of them", || async {
            let shown = world.shown_on(&number).await;
            let shown: Vec<_> = shown.into_iter().filter(|one| one["from"] == ANA).collect();
            (shown.len() >= texts.len()).then_some(shown)
        })
        .await;
        let shown: Vec<_> = shown.iter().map(|one| one["text"].as_str().unwrap()).collect();
        assert_eq!(shown, texts);
    }
}

#[tokio::test]
async fn one_who_is_checked_by_one_name_is_known_by_the_other() {
    let world = World::start().await;
    let [number, lid] = carla(&world, true).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let check = async |numbers: &[String]| {
        let (status, answer) = acme.call(Method::POST, "/numbers/check", Some(json!({"numbers": numbers}))).await;
        (status.as_u16(), answer)
    };
    // Fifty are looked up, and no more for a while.
    let mut fifty: Vec<_> = (0..49).map(|n| format!("49151000000{n:02}")).collect();
    fifty.push(number.clone());
    assert_eq!(check(&fifty).await.0, 200);
    let (_, by_lid) = check(std::slice::from_ref(&lid)).await;
    let known = json!({"input": lid, "registered": true, "number": number, "lid": lid.trim_end_matches("@lid")});
    assert_eq!(by_lid["numbers"], json!([known]), "both names, though she hides the number: the caller has it");
    let others: Vec<_> = (0..40).map(|n| format!("{n}0@lid")).collect();
    let (status, refused) = check(&others).await;
    assert_eq!((status, &refused["code"]), (429, &json!("too_many_lookups")), "LIDs are counted like numbers");
}

#[tokio::test]
async fn whoever_can_write_the_file_redirects_no_message() {
    let key = BASE64_STANDARD.encode([7; 32]);
    let mut world = World::with(Default::default(), &[("ENCRYPTION_KEY", &key)]).await;
    world.account("5511977777777", "A stranger", false).await;
    world.pair("acme", ANA).await;
    world.cut_off("acme", ANA).await;
    let queued = world.service.tenant("acme").queue(BRUNO, "for Bruno").await;
    let other = world.service.tenant("acme").queue(BRUNO, "for Bruno too").await;
    world.service.signal("-KILL");
    world.service.ended().await;
    let sql = "UPDATE messages SET recipient = '5511977777777', number = '5511977777777' WHERE id = ?";
    assert_eq!(world.service.database().execute(sql, [queued["id"].as_str()]).unwrap(), 1);
    world.service.restart().await;
    world.clear_faults().await;
    let fate = world.service.tenant("acme").until_fate(&queued["id"], "failed").await;
    assert_eq!(fate["code"], "content_unreadable", "{fate}");
    world.service.tenant("acme").until_fate(&other["id"], "delivered").await;
    assert_eq!(world.texts_on(BRUNO).await, ["for Bruno too"]);
    assert!(world.shown_on("5511977777777").await.is_empty());
}

#[tokio::test]
async fn baileys_is_answered_by_lid() {
    let Some(directory) = installed() else { return };
    let world = World::start().await;
    world.account(BRUNO, "Bruno", true).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let state = tempfile::TempDir::new().unwrap();
    let mut baileys = Baileys::start(&directory, &world.simulator.ws_url(), state.path());
    crate::baileys::link(&world, &mut baileys).await;

    let question = baileys.post(ANA, json!({"text": "Who am I?"}), None).await;
    let asked = told_of(acme, "Who am I?").await;
    assert_eq!((&asked["id"], asked.get("from")), (&json!(question), None), "{asked}");
    let chat = asked["chat"].as_str().unwrap();
    assert_eq!(chat, address(&world.lid(BRUNO).await));
    let body = json!({"to": chat, "message": "Somebody", "replyTo": question});
    let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
    assert_eq!(status, 200, "{sent}");
    let event = baileys.wait(json!({"event": "content", "id": sent["id"]})).await;
    assert_eq!(event["content"]["extendedTextMessage"]["contextInfo"]["stanzaId"], json!(question), "{event}");
    acme.until_fate(&sent["id"], "delivered").await;
    for content in [
        json!({"reaction": {"messageId": question, "emoji": "👍"}}),
        json!({"edit": {"messageId": sent["id"], "message": "Anybody"}}),
        json!({"revoke": {"messageId": sent["id"]}}),
    ] {
        let mut body = content;
        body["to"] = json!(chat);
        let (status, sent) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, 200, "{sent}");
        baileys.wait(json!({"event": "content", "id": sent["id"]})).await;
        acme.until_fate(&sent["id"], "delivered").await;
    }
    let answer = baileys.post(ANA, json!({"text": "Yes"}), Some(text(&sent, "id").as_str())).await;
    assert_eq!(
        (&told_of(acme, "Yes").await["id"], &told_of(acme, "Yes").await["replyTo"]),
        (&json!(answer), &sent["id"])
    );
    baileys.tell(json!({"exit": true})).await;
}
