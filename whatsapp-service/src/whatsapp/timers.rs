//! What messages say of their chat's timer.

use whatsapp_rust::{
    Jid,
    types::message::MessageInfo,
    wacore_binary::JidExt,
    waproto::whatsapp::{self as wa, message::protocol_message},
};

use crate::{
    store::timers::{ChatTimer, Timer},
    whatsapp::context::context,
};

/// What a message says of how long the messages of its chat stay. Clients other than WhatsApp's own may not say since
/// when: then it counts only where nothing better is known.
pub fn learnt(base: &wa::Message, info: &MessageInfo) -> Option<ChatTimer> {
    let source = &info.source;
    if source.chat.is_status_broadcast() || source.chat.is_newsletter() {
        return None;
    }
    let (seconds, set_at) = match (changed(base), context(base)) {
        (Some(change), _) => {
            (change.ephemeral_expiration.unwrap_or_default(), change.ephemeral_setting_timestamp.unwrap_or(i64::MAX))
        }
        (None, Some(context)) => (context.expiration?, context.ephemeral_setting_timestamp.unwrap_or_default()),
        (None, None) => return None,
    };
    // Whoever writes can't reach into the future.
    let set_at = set_at.clamp(0, info.timestamp.timestamp().max(0));
    let other = if source.is_from_me {
        [source.recipient_alt.as_ref(), info.peer_recipient_pn.as_ref()]
    } else {
        [source.sender_alt.as_ref(), None]
    };
    let other = other.into_iter().flatten().filter(|_| !source.is_group);
    let chats = std::iter::once(&source.chat).chain(other).map(Jid::to_non_ad_string).collect();
    Some(ChatTimer { chats, timer: Timer { seconds, set_at } })
}

/// The change of a chat's timer, if a message is one.
pub fn changed(base: &wa::Message) -> Option<&wa::message::ProtocolMessage> {
    let change = base.protocol_message.as_option()?;
    (change.r#type == Some(protocol_message::Type::EPHEMERAL_SETTING)).then_some(change)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use whatsapp_rust::{types::message::MessageSource, wacore::proto_helpers::MessageBuilderExt};

    use super::*;
    use crate::whatsapp::context::context_mut;

    const NOW: i64 = 1_700_000_000;

    fn info(is_from_me: bool) -> MessageInfo {
        let source = MessageSource {
            chat: "713715344025739@lid".parse().unwrap(),
            sender: "713715344025739:3@lid".parse().unwrap(),
            sender_alt: (!is_from_me).then(|| Jid::pn("5511888888888")),
            recipient_alt: is_from_me.then(|| Jid::pn("5511888888888")),
            is_from_me,
            ..Default::default()
        };
        MessageInfo { source, timestamp: DateTime::from_timestamp(NOW, 0).unwrap(), ..Default::default() }
    }

    fn text(expiration: Option<u32>, set_at: Option<i64>) -> wa::Message {
        let mut message = wa::Message::text("Hello");
        let context = context_mut(&mut message).unwrap();
        (context.expiration, context.ephemeral_setting_timestamp) = (expiration, set_at);
        message
    }

    fn change(expiration: Option<u32>, set_at: Option<i64>) -> wa::Message {
        let change = wa::message::ProtocolMessage {
            r#type: Some(protocol_message::Type::EPHEMERAL_SETTING),
            ephemeral_expiration: expiration,
            ephemeral_setting_timestamp: set_at,
            ..Default::default()
        };
        wa::Message { protocol_message: change.into(), ..Default::default() }
    }

    #[test]
    fn a_timer_is_learnt_with_its_time() {
        for (message, expected) in [
            (wa::Message::text("Hello"), None),
            (text(None, Some(NOW - 5)), None),
            (text(Some(86_400), Some(NOW - 5)), Some((86_400, NOW - 5))),
            (text(Some(86_400), None), Some((86_400, 0))),
            (text(Some(0), Some(NOW - 5)), Some((0, NOW - 5))),
            (text(Some(86_400), Some(i64::MAX)), Some((86_400, NOW))),
            (text(Some(86_400), Some(-1)), Some((86_400, 0))),
            (change(Some(604_800), Some(NOW - 5)), Some((604_800, NOW - 5))),
            (change(Some(604_800), None), Some((604_800, NOW))),
            (change(None, None), Some((0, NOW))),
        ] {
            let learnt = learnt(&message, &info(false)).map(|learnt| learnt.timer);
            assert_eq!(learnt.map(|timer| (timer.seconds, timer.set_at)), expected, "{message:?}");
        }
    }

    #[test]
    fn a_chat_is_known_by_both_of_its_names_whoever_writes() {
        for is_from_me in [false, true] {
            let learnt = learnt(&change(Some(1), None), &info(is_from_me)).unwrap();
            assert_eq!(learnt.chats, ["713715344025739@lid", "5511888888888@s.whatsapp.net"]);
        }
        let mut status = info(false);
        status.source.chat = "status@broadcast".parse().unwrap();
        assert!(learnt(&change(Some(1), None), &status).is_none());
    }
}
