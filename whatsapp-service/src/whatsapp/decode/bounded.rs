//! How large an event may be. WhatsApp's own clients send no text of more than 65,536 characters; whoever writes his own
//! can send one that fills a frame, of 16 MiB. What is too long is cut, and the event says so.

use serde_json::Value;

/// The longest text, in characters, and the longest list.
const TEXT: usize = 65_536;
const LIST: usize = 1_000;
/// The largest event, in bytes. Of one that is larger still, much less is kept of each text and list.
const EVENT: usize = 1024 * 1024;
const SHORT_TEXT: usize = 1_024;
const SHORT_LIST: usize = 100;

/// Cuts what is too long in an event's data, and says so in it.
pub fn bounded(mut data: Value) -> Value {
    let mut is_cut = cut(&mut data, TEXT, LIST);
    if data.to_string().len() > EVENT {
        is_cut |= cut(&mut data, SHORT_TEXT, SHORT_LIST);
    }
    if let Some(fields) = data.as_object_mut().filter(|_| is_cut) {
        fields.insert("truncated".into(), true.into());
    }
    data
}

fn cut(value: &mut Value, longest_text: usize, longest_list: usize) -> bool {
    match value {
        Value::String(text) => match text.char_indices().nth(longest_text) {
            Some((end, _)) => {
                text.truncate(end);
                text.shrink_to_fit();
                true
            }
            None => false,
        },
        Value::Array(list) => {
            let is_long = list.len() > longest_list;
            list.truncate(longest_list);
            list.iter_mut().fold(is_long, |is_cut, item| cut(item, longest_text, longest_list) | is_cut)
        }
        Value::Object(fields) => {
            fields.values_mut().fold(false, |is_cut, field| cut(field, longest_text, longest_list) | is_cut)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_whatsapps_clients_send_stays_as_it_is() {
        for text in ["", "Olá 👋", &"👋".repeat(TEXT)] {
            let before = json!({"id": "3EB0", "kind": "text", "text": text});
            assert!(bounded(before.clone()) == before);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters() {
        let event = bounded(json!({"id": "3EB0", "text": "👋".repeat(TEXT + 1), "offline": false}));
        assert_eq!(event["text"].as_str().unwrap().chars().count(), TEXT);
        assert_eq!((&event["id"], &event["truncated"]), (&json!("3EB0"), &json!(true)));

        let options = vec!["x".repeat(100_000); 3_000];
        let poll = bounded(json!({"kind": "poll", "poll": {"name": "Which?", "options": options}}));
        assert!(poll.to_string().len() <= EVENT);
        assert_eq!((poll["poll"]["options"].as_array().unwrap().len(), &poll["truncated"]), (100, &json!(true)));
    }
}
