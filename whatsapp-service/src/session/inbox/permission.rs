//! Who may say what of another message: an edit or a deletion comes from the one who wrote it, a reaction or a vote from
//! its chat. WhatsApp's apps look at this themselves, as its server can't.

use serde_json::Value;

use crate::{
    model::message::{Message, is_with},
    session::inbox::Inbox,
    store::{
        error::StoreError,
        events::Received,
        referred::{Logged, Referred},
    },
    whatsapp::{
        client::Client,
        inbound::{Incoming, Speaker},
        lookup::{lid_address, names_in, number_address},
    },
};

impl Inbox {
    /// Whether what is to be `told` of a message may be told, if it is about another message. `before` came just before,
    /// in the same batch. Of what is about a message that is not known nobody can say: it is told, with the chat that it
    /// was said in. `None` when the process is about to end.
    pub(crate) async fn permits(
        &self,
        client: Option<&Client>,
        message: &Incoming,
        told: &Value,
        before: &[Received],
    ) -> Option<bool> {
        let Some((id, changes)) = about(told) else { return Some(true) };
        let read = async || match self.store.referred(&self.connection.tenant, id).await {
            // This will not be better later, and nothing else that comes in is to wait for it.
            Err(StoreError::Damaged(_)) => Ok(Vec::new()),
            read => read,
        };
        let mut known = self.connection.persist(read).await?;
        known.extend(before.iter().filter(|one| one.identity[2] == id).map(|one| Referred::Logged(logged(one).into())));
        if known.is_empty() {
            return Some(true);
        }
        let speaker = message.speaker(client).await;
        Some(known.iter().any(|known| match known {
            Referred::Own(sent) => speaker.may_speak_of_sent(sent, changes),
            Referred::Logged(logged) => speaker.may_speak_of(logged, changes),
        }))
    }
}

trait MaySpeak {
    fn may_speak_of_sent(&self, sent: &Message, changes: bool) -> bool;
    fn may_speak_of(&self, logged: &Logged, changes: bool) -> bool;
}

impl MaySpeak for Speaker {
    fn may_speak_of_sent(&self, sent: &Message, changes: bool) -> bool {
        self.chat.iter().any(|name| is_with(sent, name)) && (self.is_own || !changes)
    }

    fn may_speak_of(&self, logged: &Logged, changes: bool) -> bool {
        let number = logged.from.as_ref().map(|number| number_address(number));
        let lid = logged.from_lid.as_ref().map(|lid| lid_address(lid));
        let authors: Vec<_> = number.into_iter().chain(lid).collect();
        let is_among = |names: &[String], name: &String| names.contains(name);
        let same_chat = is_among(&self.chat, &logged.chat)
            || (!self.is_group && !logged.from_me && authors.iter().any(|author| is_among(&self.chat, author)));
        let same_author =
            if logged.from_me { self.is_own } else { authors.iter().any(|one| is_among(&self.names, one)) };
        // In a group its administrators delete too; who they are is not known here.
        same_chat && (!changes || same_author || self.is_group)
    }
}

/// Which other message is spoken of, and whether it is changed or taken back.
fn about(told: &Value) -> Option<(&str, bool)> {
    let id = |field: &str| told[field]["messageId"].as_str();
    let changed = id("edit").or_else(|| id("revoke"));
    changed.map(|id| (id, true)).or_else(|| Some((id("reaction").or_else(|| id("pollVote"))?, false)))
}

/// A message that came just before, as the log will tell it.
fn logged(received: &Received) -> Logged {
    let [chat, sender, _] = &received.identity;
    let (from, from_lid) = names_in(sender);
    Logged { chat: chat.clone(), from, from_lid, from_me: received.own, ..Logged::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRUNO: &str = "5511888888888@s.whatsapp.net";

    fn speaker(names: &[&str], chat: &[&str], is_own: bool) -> Speaker {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Speaker { names: all(names), is_own, chat: all(chat), is_group: chat[0].ends_with("@g.us") }
    }

    fn written(chat: &str, from: Option<&str>, lid: Option<&str>, from_me: bool) -> Logged {
        let (from, from_lid) = (from.map(Into::into), lid.map(Into::into));
        Logged { chat: chat.into(), from, from_lid, from_me, ..Logged::default() }
    }

    #[test]
    fn a_change_comes_from_the_author_and_anything_else_from_the_chat() {
        let bruno = || speaker(&["7@lid", BRUNO], &["7@lid", BRUNO], false);
        let carla = || speaker(&["8@lid", "5511777777777@s.whatsapp.net"], &["8@lid"], false);
        let own = || speaker(&["1@lid"], &["7@lid", BRUNO], true);
        for logged in [
            written("7@lid", Some("5511888888888"), Some("7"), false),
            written(BRUNO, Some("5511888888888"), None, false),
            written("7@lid", None, Some("7"), false),
        ] {
            assert!(bruno().may_speak_of(&logged, true) && bruno().may_speak_of(&logged, false));
            assert!(!carla().may_speak_of(&logged, true) && !carla().may_speak_of(&logged, false));
            assert!(own().may_speak_of(&logged, false), "one's own reaction to it");
            assert!(!own().may_speak_of(&logged, true));
        }
        let from_me = written("7@lid", Some("5511999999999"), Some("1"), true);
        assert!(bruno().may_speak_of(&from_me, false) && !bruno().may_speak_of(&from_me, true));
        assert!(own().may_speak_of(&from_me, true));
        assert!(!carla().may_speak_of(&from_me, false));
    }

    #[test]
    fn equal_digits_are_not_the_same_name() {
        let twin = speaker(&["7@s.whatsapp.net"], &["7@s.whatsapp.net"], false);
        assert!(!twin.may_speak_of(&written("7@lid", None, Some("7"), false), false));
    }

    #[test]
    fn in_a_group_all_are_in_the_chat() {
        let member = speaker(&["8@lid"], &["1203630@g.us"], false);
        assert!(member.may_speak_of(&written("1203630@g.us", None, Some("7"), false), true));
        assert!(!member.may_speak_of(&written("1203631@g.us", None, Some("7"), false), false));
        assert!(
            !member.may_speak_of(&written("8@lid", None, Some("8"), false), false),
            "another chat of the same author"
        );
    }
}
