use std::sync::Arc;

use whatsapp_rust::types::message::MessageSource;

use super::*;

fn data(message: wa::Message, chat: &str, is_from_me: bool) -> Option<Value> {
    let source = MessageSource { chat: chat.parse().unwrap(), is_from_me, ..Default::default() };
    let info = Arc::new(MessageInfo { source, id: "3EB0/?#\u{e9} AA".into(), ..Default::default() });
    let message = InboundMessage::builder().message(Arc::new(message)).info(info).build();
    told(&message, None).map(|told| told.data)
}

#[test]
fn what_goes_to_everybody_and_what_own_devices_tell_each_other_is_no_message() {
    let text = || wa::Message { conversation: Some("words".into()), ..Default::default() };
    for (chat, is_told) in
        [("5511888888888@s.whatsapp.net", true), ("status@broadcast", false), ("1203630@newsletter", false)]
    {
        assert_eq!(data(text(), chat, false).is_some(), is_told, "{chat}");
    }
    // One that this version of the protocol does not know.
    for (is_from_me, is_told) in [(false, true), (true, false)] {
        let told = data(wa::Message::default(), "5511888888888@s.whatsapp.net", is_from_me);
        assert_eq!(told.is_some(), is_told, "of one's own: {is_from_me}");
    }
}

#[test]
fn the_path_of_a_file_holds_whatever_id_its_sender_has_chosen() {
    let image = wa::message::ImageMessage {
        direct_path: Some("/v/1".into()),
        media_key: Some(vec![1; 32]),
        file_sha256: Some(vec![2; 32]),
        file_enc_sha256: Some(vec![3; 32]),
        ..Default::default()
    };
    let message = wa::Message { image_message: image.into(), ..Default::default() };
    let told = data(message, "5511888888888@s.whatsapp.net", false).unwrap();
    assert_eq!(told["mediaUrl"], "/messages/3EB0%2F%3F%23%C3%A9%20AA/media");
}
