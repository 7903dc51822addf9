use super::*;
use crate::http::send::bulk::entry;
use serde_json::{Value, json};

fn called(body: Value) -> Result<ValidatedSend, String> {
    let refused = |problem: Problem| {
        let said = serde_json::to_value(problem).unwrap();
        format!("{} {}", said["code"].as_str().unwrap(), said["message"].as_str().unwrap())
    };
    let body = serde_json::value::to_raw_value(&body).unwrap();
    entry(&body).and_then(validate).map_err(refused)
}

fn fingerprint_of(body: Value) -> String {
    let fingerprint = called(body).unwrap().idempotency.unwrap().fingerprint;
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_text_has_the_fingerprint_that_is_in_databases() {
    let plain = json!({"to": "+55 11 88888-8888", "message": "Hello", "idempotencyKey": "k"});
    // printf '["+55 11 88888-8888","Hello",null,null]' | sha256sum
    let known = "96440b51a3fdd7138393e9f40355bef32d5964572bc57356d7ba6640edf8ca95";
    assert_eq!(fingerprint_of(plain.clone()), known);
    let reply = json!({"to": "+55 11 88888-8888", "message": "Hello", "replyTo": "3EB0", "idempotencyKey": "k"});
    assert_ne!(fingerprint_of(reply), known);
}

#[test]
fn every_part_of_the_content_is_in_the_fingerprint() {
    let with = |content: Value| {
        let mut body = json!({"to": "5511888888888", "idempotencyKey": "k"});
        body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        fingerprint_of(body)
    };
    let calls = [
        json!({"message": "3EB0"}),
        json!({"message": "3EB0", "replyTo": "3EB0"}),
        json!({"message": "3EB0", "replyTo": "3EB1"}),
        json!({"message": "3EB0", "linkPreview": true}),
        json!({"message": "3EB0", "mentions": ["5511777777777"]}),
        json!({"message": "3EB0", "mentions": ["5511777777778"]}),
        json!({"location": {"latitude": 1, "longitude": 2}}),
        json!({"location": {"latitude": 1, "longitude": 2.5}}),
        json!({"location": {"latitude": 1, "longitude": 2, "name": "A"}}),
        json!({"location": {"latitude": 1, "longitude": 2, "address": "A"}}),
        json!({"contact": {"name": "Ana", "phone": "5511999999999"}}),
        json!({"contact": {"name": "Ana", "phone": "5511999999998"}}),
        json!({"reaction": {"messageId": "3EB0", "emoji": ""}}),
        json!({"reaction": {"messageId": "3EB0", "emoji": "👍"}}),
        json!({"edit": {"messageId": "3EB0", "message": "A"}}),
        json!({"edit": {"messageId": "3EB0", "message": "B"}}),
        json!({"revoke": {"messageId": "3EB0"}}),
        json!({"media": {"base64": "AAAA"}}),
        json!({"media": {"base64": "AAAB"}}),
        json!({"media": {"url": "https://example.com/a"}}),
        json!({"media": {"url": "https://example.com/b"}}),
        json!({"media": {"base64": "AAAA", "filename": "a"}}),
        json!({"media": {"base64": "AAAA", "mimetype": "text/csv"}}),
        json!({"media": {"base64": "AAAA"}, "message": "A"}),
        json!({"media": {"base64": "AAAA"}, "replyTo": "3EB0"}),
        json!({"media": {"base64": "AAAA"}, "message": "A", "mentions": ["5511777777777"]}),
        json!({"media": {"base64": "AAAA"}, "voice": true}),
        json!({"media": {"base64": "AAAA"}, "sticker": true}),
        json!({"media": {"base64": "AAAA"}, "document": true}),
    ];
    let all: std::collections::BTreeSet<_> = calls.iter().cloned().map(with).collect();
    assert_eq!(all.len(), calls.len());
}

#[test]
fn what_can_not_be_sent_is_refused_with_the_field_that_is_wrong() {
    let long = |length| "x".repeat(length);
    for (content, why) in [
        (json!({}), "exactly one of `message`"),
        (json!({"message": "A", "revoke": {"messageId": "3EB0"}}), "`message` and `revoke` don't"),
        (
            json!({"location": {"latitude": 1, "longitude": 2}, "contact": {"name": "A", "phone": "5511999999999"},
                   "edit": {"messageId": "3EB0", "message": "A"}}),
            "`location`, `contact` and `edit` don't",
        ),
        (json!({"reaction": {"messageId": "A", "emoji": "👍"}, "replyTo": "B"}), "`replyTo` and `reaction`"),
        (json!({"edit": {"messageId": "A", "message": "A"}, "replyTo": "B"}), "`replyTo` and `edit`"),
        (json!({"revoke": {"messageId": "A"}, "replyTo": "B"}), "`replyTo` and `revoke`"),
        (json!({"message": "A", "replyTo": ""}), "`replyTo`"),
        (json!({"message": "A", "mentions": ["5511777777777", "12"]}), "in `mentions`, `12` needs 8 to 15 digits"),
        (json!({"message": "A", "mentions": vec!["5511777777777"; 1025]}), "`mentions` names 1024"),
        (json!({"location": {"latitude": 1, "longitude": 2}, "mentions": ["5511777777777"]}), "`mentions` goes with"),
        (json!({"media": {"base64": "AAAA"}, "mentions": ["5511777777777"]}), "`mentions` goes with"),
        (json!({"edit": {"messageId": "A", "message": "A"}, "linkPreview": true}), "`linkPreview` goes with"),
        (json!({"media": {"base64": "AAAA"}, "message": "A", "linkPreview": true}), "`linkPreview` goes with"),
        (json!({"message": "A", "replyTo": "a b"}), "`replyTo`"),
        (json!({"message": "A", "replyTo": long(65)}), "`replyTo`"),
        (json!({"location": {"latitude": 90.1, "longitude": 2}}), "`location.latitude`"),
        (json!({"location": {"latitude": -91, "longitude": 2}}), "`location.latitude`"),
        (json!({"location": {"latitude": 1, "longitude": 180.5}}), "`location.longitude`"),
        (json!({"location": {"latitude": 1, "longitude": 2, "name": ""}}), "`location.name`"),
        (json!({"location": {"latitude": 1, "longitude": 2, "name": long(257)}}), "`location.name`"),
        (json!({"location": {"latitude": 1, "longitude": 2, "address": " "}}), "`location.address`"),
        (json!({"location": {"latitude": 1, "longitude": 2, "address": long(1025)}}), "`location.address`"),
        (json!({"contact": {"name": "A\r\nTEL:1", "phone": "5511999999999"}}), "`contact.name`"),
        (json!({"contact": {"name": long(257), "phone": "5511999999999"}}), "`contact.name`"),
        (json!({"contact": {"name": "A", "phone": "+55 11"}}), "`contact.phone` needs 8 to 15 digits"),
        (json!({"reaction": {"messageId": "A", "emoji": "👍👍"}}), "`reaction.emoji`"),
        (json!({"reaction": {"messageId": "A", "emoji": "ok"}}), "`reaction.emoji`"),
        (json!({"reaction": {"messageId": "", "emoji": "👍"}}), "`reaction.messageId`"),
        (json!({"edit": {"messageId": "é", "message": "A"}}), "`edit.messageId`"),
        (json!({"edit": {"messageId": "A", "message": ""}}), "`edit.message`"),
        (json!({"edit": {"messageId": "A", "message": long(65_537)}}), "`edit.message`"),
        (json!({"revoke": {"messageId": "A\n"}}), "`revoke.messageId`"),
        (json!({"media": {"base64": "AAAA"}, "caption": "A", "message": "B"}), "`message` and `caption`"),
        (json!({"message": "A", "caption": "A"}), "`caption` is the text below `media`"),
        (json!({"caption": "A"}), "`caption` is the text below `media`"),
        (json!({"media": {"base64": "AAAA"}, "replyTo": "a b"}), "`replyTo`"),
        (json!({"media": {"base64": "AAAA", "filename": ""}}), "`media.filename`"),
        (json!({"media": {"base64": "AAAA", "filename": long(256)}}), "`media.filename`"),
        (json!({"media": {"base64": "AAAA", "filename": "a\\b"}}), "`media.filename`"),
    ] {
        let mut body = json!({"to": "5511888888888"});
        body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        let refused = called(body).err().unwrap_or_else(|| panic!("{content} is taken"));
        assert!(refused.starts_with("invalid_content ") && refused.contains(why), "{content}: {refused}");
    }
    for caption in [long(0), long(65_537)] {
        for name in ["message", "caption"] {
            let refused = called(json!({"to": "5511888888888", "media": {"base64": "AAAA"}, name: caption})).err();
            assert!(refused.unwrap().starts_with("invalid_message `message`"));
        }
    }
}

#[test]
fn caption_and_message_are_one_name() {
    let with = |name: &str| {
        let media = json!({"base64": "AAAA"});
        fingerprint_of(json!({"to": "5511888888888", "idempotencyKey": "k", "media": media, name: "A"}))
    };
    assert_eq!(with("caption"), with("message"));
}

#[test]
fn many_messages_are_read_one_by_one() {
    let long = "x".repeat(5_000);
    let body = format!(
        r#"{{"messages":[
                {{"to":"5511888888888","message":"A","reference":"r-1"}},
                {{"to":"5511888888888","message":"\ud800","reference":"r-2"}},
                {{"to":"5511888888888","location":{{"latitude":1e999,"longitude":2}},"reference":"r-3"}},
                {{"to":"5511888888888","message":"A","to":"5511888888887","reference":5}},
                {{"to":"5511888888888","location":[1,2]}},
                ["5511888888888","A"],
                {{"to":"5511888888888","mesage":"A","reference":"{long}"}},
                {{"to":"5511888888888","message":"A","reference":"\ud800"}},
                {{"to":"5511888888888","message":"A"}}
            ]}}"#
    );
    let (entries, wishes) = crate::http::send::bulk::entries(body.as_bytes(), 1 << 20).unwrap();
    let told: Vec<_> = entries
        .into_iter()
        .map(|entry| match entry {
            Ok(reference) => (None, reference),
            Err((problem, reference)) => {
                (serde_json::to_value(problem).unwrap()["code"].as_str().map(str::to_owned), reference)
            }
        })
        .collect();
    let expected = [
        (None, Some(json!("r-1"))),
        (Some("invalid_json"), Some(json!("r-2"))),
        (Some("invalid_json"), Some(json!("r-3"))),
        (Some("invalid_body"), Some(json!(5))),
        (Some("invalid_body"), None),
        (Some("invalid_body"), None),
        (Some("unknown_field"), None),
        (Some("invalid_json"), None),
        (None, None),
    ];
    assert_eq!(told, expected.map(|(code, reference)| (code.map(str::to_owned), reference)));
    assert_eq!(wishes.len(), 2);
    let many = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(1000));
    for (body, code) in
        [(many.as_str(), "invalid_messages"), (r#"{"messages":[]}"#, "invalid_messages"), ("{}", "invalid_body")]
    {
        let problem = crate::http::send::bulk::entries(body.as_bytes(), 1 << 20).err().unwrap();
        assert_eq!(serde_json::to_value(problem).unwrap()["code"], code);
    }
}

#[test]
fn what_can_be_sent_is_taken() {
    for content in [
        json!({"message": "A"}),
        json!({"message": "A", "replyTo": "3EB0", "location": null, "edit": null}),
        json!({"message": "@5511777777777", "mentions": ["+55 (11) 77777-7777"], "linkPreview": true}),
        json!({"location": {"latitude": 1, "longitude": 2}, "mentions": [], "linkPreview": false}),
        json!({"media": {"base64": "AAAA"}, "message": "A", "mentions": ["5511777777777"]}),
        json!({"media": {"base64": "AAAA"}, "caption": "A", "mentions": ["5511777777777"]}),
        json!({"location": {"latitude": -90, "longitude": 180.0}, "replyTo": "3EB0"}),
        json!({"location": {"latitude": 0, "longitude": 0, "name": "x".repeat(256), "address": null}}),
        json!({"contact": {"name": "Ana; Bruno, \\ & Co", "phone": "+55 (11) 99999-9999"}}),
        json!({"reaction": {"messageId": "3EB0", "emoji": ""}}),
        json!({"edit": {"messageId": "!~", "message": "A\nB"}}),
        json!({"revoke": {"messageId": "x".repeat(64)}}),
        json!({"media": {"base64": "AAAA", "filename": "x".repeat(255)}, "message": "x".repeat(65_536)}),
        json!({"media": {"base64": "AAAA"}, "caption": "x".repeat(65_536)}),
        json!({"media": {"base64": "AAAA"}, "caption": "A", "message": "A"}),
    ] {
        let mut body = json!({"to": "5511888888888"});
        body.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        if let Err(refused) = called(body) {
            panic!("{content}: {refused}");
        }
    }
}
