//! Which fields of a message are set: their names, for kinds of messages that are not told in detail.

use std::io::{self, Write};

use whatsapp_rust::waproto::whatsapp as wa;

/// The names of the fields that are set, as the protocol has them. Nothing of the message is copied: it may be large.
pub fn set_in(message: &wa::Message) -> Vec<String> {
    let mut names = Names::default();
    // It writes nowhere: this can't fail.
    let _ = serde_json::to_writer(&mut names, message);
    names.found
}

/// Reads the JSON of a message as it is made, and keeps the names in its outermost object whose values are something.
#[derive(Default)]
struct Names {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// Where a name or a value of the outermost object is expected.
    expected: Expected,
    name: String,
    found: Vec<String>,
}

#[derive(Default, PartialEq, Eq)]
enum Expected {
    #[default]
    Name,
    Value,
    Nothing,
}

impl Names {
    fn take(&mut self, byte: u8) {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                byte if self.expected == Expected::Name && self.depth == 1 => self.name.push(byte.into()),
                _ => {}
            }
            return;
        }
        if self.depth == 1 && self.expected == Expected::Value {
            if byte != b'n' {
                self.found.push(camel_case(&self.name));
            }
            self.expected = Expected::Nothing;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => self.expected = Expected::Value,
            b',' if self.depth == 1 => {
                self.name.clear();
                self.expected = Expected::Name;
            }
            _ => {}
        }
    }
}

impl Write for Names {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        json.iter().for_each(|&byte| self.take(byte));
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The library writes the protocol's names in the way of its language.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut name, part| {
        let mut letters = part.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::waproto::buffa::MessageField;

    use super::*;

    #[test]
    fn the_fields_that_are_set_are_named_as_in_the_protocol() {
        assert!(set_in(&wa::Message::default()).is_empty());
        let message = wa::Message {
            conversation: Some("a \"text\" with, {marks}: \\".into()),
            album_message: MessageField::some(wa::message::AlbumMessage {
                expected_image_count: Some(2),
                ..Default::default()
            }),
            poll_result_snapshot_message_v3: MessageField::some(Default::default()),
            ..Default::default()
        };
        assert_eq!(set_in(&message), ["conversation", "albumMessage", "pollResultSnapshotMessageV3"]);
    }
}
