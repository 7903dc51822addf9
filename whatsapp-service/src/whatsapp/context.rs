//! What travels beside what a message says (`contextInfo`): what it answers, its timer, whom it mentions, the ad it came
//! from.

use whatsapp_rust::waproto::whatsapp as wa;

/// The kinds of messages that carry it.
macro_rules! carriers {
    ($callback:ident) => {
        $callback!(
            extended_text_message
            image_message
            video_message
            ptv_message
            audio_message
            document_message
            sticker_message
            location_message
            live_location_message
            contact_message
            contacts_array_message
            buttons_message
            buttons_response_message
            list_message
            list_response_message
            template_message
            template_button_reply_message
            interactive_message
            interactive_response_message
            poll_creation_message
            poll_creation_message_v2
            poll_creation_message_v3
            poll_creation_message_v5
            poll_creation_message_v6
            product_message
            order_message
            group_invite_message
            event_message
            sticker_pack_message
            newsletter_admin_invite_message
        )
    };
}

/// The context of a message out of its wrappers.
pub fn context(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! first {
        ($($field:ident)+) => { None$(.or_else(|| message.$field.as_option()?.context_info.as_option()))+ };
    }
    carriers!(first)
}

/// The same, to be written to. A bare text becomes one that can carry it; what can't, such as a reaction, has none.
pub fn context_mut(message: &mut wa::Message) -> Option<&mut wa::ContextInfo> {
    if let Some(text) = message.conversation.take() {
        let extended = wa::message::ExtendedTextMessage { text: Some(text), ..Default::default() };
        message.extended_text_message = extended.into();
    }
    macro_rules! first {
        ($($field:ident)+) => {
            $(if message.$field.is_set() {
                return Some(message.$field.as_option_mut()?.context_info.get_or_insert_default());
            })+
        };
    }
    carriers!(first);
    None
}
