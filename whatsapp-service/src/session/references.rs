//! What a message refers to: the one that it answers, reacts to, changes or takes back.

use crate::{
    model::{
        address::{Address, Lid, Names, Person, number::Number},
        content::{Content, ContentKind},
        message::{Message, MessageStatus},
    },
    session::outbox::{NotTaken, Outbox, OutgoingMessage},
    store::{
        error::StoreError,
        referred::{Logged, Referred},
    },
    whatsapp::{encode::SentBefore, lookup},
};
use chrono::{DateTime, TimeDelta, Utc};

/// How long after a message was sent WhatsApp lets people change it.
const EDIT_WINDOW: TimeDelta = TimeDelta::minutes(15);
/// For how long the other side still takes a change: one that waits here longer would be seen by nobody.
const EDIT_LIMIT: TimeDelta = TimeDelta::minutes(20);
/// How long after a message was sent it can be taken back: "about two days", says WhatsApp.
const REVOKE_WINDOW: TimeDelta = TimeDelta::hours(48);
/// For how long the other side still takes that.
const REVOKE_LIMIT: TimeDelta = TimeDelta::hours(60);

impl Outbox {
    /// Whether a message may be sent, as to the one that it refers to. One about an own message takes that one's lane,
    /// and is given up when nobody would see it any more.
    pub(crate) async fn check_reference(
        &self,
        submission: &mut OutgoingMessage,
        names: &Names,
    ) -> Result<Result<(), NotTaken>, StoreError> {
        let Some(id) = submission.content.refers_to() else { return Ok(Ok(())) };
        let found = self.store.referred(&self.tenant, id).await?;
        let account = self.connection.snapshot().phone;
        Ok(check(submission, names, &found, account.as_deref(), self.connection.now()))
    }

    /// The message that this one refers to, as far as it is known.
    pub(crate) async fn referred(&self, content: &Content, to: &Names) -> Result<Option<Referred>, StoreError> {
        let Some(id) = content.refers_to() else { return Ok(None) };
        let found = self.store.referred(&self.tenant, id).await?;
        Ok(found.into_iter().find(|referred| match referred {
            Referred::Own(message) => is_to(message, to),
            Referred::Logged(logged) => may_be_in_chat_with(logged, to),
        }))
    }

    /// What an own message said, word for word, while the library keeps it for devices that ask again.
    pub(crate) async fn said_before(&self, chat: &Names, id: &str) -> Option<SentBefore> {
        // The library files it under one of the chat's two names.
        let chats = chat.people().map(|person| lookup::address(&person)).collect();
        let kept = self.store.as_sent(&self.tenant, chats, id).await.ok()??;
        SentBefore::read(&kept)
    }
}

fn check(
    submission: &mut OutgoingMessage,
    to: &Names,
    found: &[Referred],
    account: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), NotTaken> {
    let own = found.iter().find_map(|referred| match referred {
        Referred::Own(message) => Some(message),
        Referred::Logged(_) => None,
    });
    let Some(message) = own else {
        let logged = || {
            found.iter().filter_map(|referred| match referred {
                Referred::Logged(logged) => Some(logged),
                Referred::Own(_) => None,
            })
        };
        return match submission.content.kind {
            // What was written on the phone has no fate here: whether and when it was sent is not known.
            ContentKind::Edit(_) | ContentKind::Revoke(_) => Err(NotTaken::UnknownMessage),
            _ if logged().next().is_some() && !logged().any(|logged| may_be_in_chat_with(logged, to)) => {
                Err(NotTaken::OtherRecipient)
            }
            _ => Ok(()),
        };
    };
    if message.account.as_deref().is_some_and(|sender| account.is_some_and(|account| account != sender)) {
        // The chats of the account that is linked now don't have it.
        return Err(NotTaken::UnknownMessage);
    }
    if !is_to(message, to) {
        return Err(NotTaken::OtherRecipient);
    }
    // These change another message, and nothing can be done about them; what they changed is what the caller means.
    if ["reaction", "edit", "revoke"].contains(&message.kind.as_str()) {
        return Err(NotTaken::WrongKind);
    }
    if message.status == MessageStatus::Failed {
        return Err(NotTaken::MessageNotSent);
    }
    let (window, limit) = match submission.content.kind {
        ContentKind::Edit(_) if message.kind != "text" => return Err(NotTaken::WrongKind),
        ContentKind::Edit(_) => (EDIT_WINDOW, EDIT_LIMIT),
        ContentKind::Revoke(_) => (REVOKE_WINDOW, REVOKE_LIMIT),
        _ => {
            submission.to = lane_of(message, &submission.to);
            return Ok(());
        }
    };
    let sent_at = message.server_at.or(message.sent_at).filter(|_| message.status >= MessageStatus::Sent);
    let sent_at = sent_at.ok_or(NotTaken::MessageNotSent)?;
    if now > sent_at + window {
        return Err(NotTaken::TooOld);
    }
    submission.expires_in = submission.expires_in.min(sent_at + limit - now);
    submission.to = lane_of(message, &submission.to);
    Ok(())
}

/// The recipient as it was written then: what is about a message goes after it, whoever knows by now that two addresses are
/// one person's.
fn lane_of(message: &Message, to: &Person) -> Person {
    Person::kept(&message.recipient).unwrap_or_else(|| to.clone())
}

fn is_to(message: &Message, to: &Names) -> bool {
    message.people().any(|person| to.are(&person))
}

/// Where only one of a person's two names is known, and that is the other one, nobody here can tell.
fn may_be_in_chat_with(logged: &Logged, to: &Names) -> bool {
    let Ok(Address::Person(chat)) = Address::parse(&logged.chat) else { return false };
    let others = |logged: &Logged| Names {
        number: logged.from.as_deref().and_then(Number::of_whatsapp),
        lid: logged.from_lid.as_deref().and_then(Lid::new),
    };
    let chat = Names::of(chat, if logged.from_me { Names::default() } else { others(logged) });
    let shared = chat.people().any(|name| to.are(&name));
    let comparable = chat.number.is_some() && to.number.is_some() || chat.lid.is_some() && to.lid.is_some();
    shared || !comparable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::content::{Edit, Reaction, Revoke};

    const BRUNO: &str = "5511888888888";

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn submission(kind: ContentKind, to: &str) -> OutgoingMessage {
        let content = Content::alone(kind);
        let to = Person::parse(to).unwrap();
        OutgoingMessage { to, content, reference: None, expires_in: TimeDelta::days(1), idempotency: None }
    }

    fn edit() -> ContentKind {
        ContentKind::Edit(Edit { message_id: "A".into(), message: "New".into() })
    }

    fn revoke() -> ContentKind {
        ContentKind::Revoke(Revoke { message_id: "A".into() })
    }

    fn reaction() -> ContentKind {
        ContentKind::Reaction(Reaction { message_id: "A".into(), emoji: "👍".into() })
    }

    /// A message to Bruno that was sent so long ago.
    fn own(status: MessageStatus, ago: TimeDelta, kind: &str) -> Message {
        let sent_at = (status >= MessageStatus::Sent).then(|| now() - ago);
        Message {
            row: 1,
            id: "A".into(),
            kind: kind.into(),
            recipient: BRUNO.into(),
            number: "551188888888".into(),
            lid: Some("713715344025739".into()),
            reference: None,
            status,
            pending: false,
            tried: true,
            attempts: 1,
            account: Some("5511999999999".into()),
            accepted_at: now() - ago,
            expires_at: now(),
            unknown_at: None,
            sent_at,
            server_at: None,
            delivered_at: None,
            read_at: None,
            played_at: None,
            failed_at: None,
            failure: None,
            content: None,
        }
    }

    fn names(to: &Person) -> Names {
        Names::of(to.clone(), Names::default())
    }

    fn checked(kind: ContentKind, to: &str, message: Message) -> Result<OutgoingMessage, NotTaken> {
        let mut submission = submission(kind, to);
        let names = names(&submission.to);
        let found = [Referred::Own(message.into())];
        check(&mut submission, &names, &found, Some("5511999999999"), now())?;
        Ok(submission)
    }

    #[test]
    fn only_a_text_that_was_sent_lately_is_changed() {
        use MessageStatus::{Delivered, Failed, Queued, Read, Sent, Unknown};
        let lately = TimeDelta::minutes(14);
        for status in [Sent, Delivered, Read] {
            let taken = checked(edit(), BRUNO, own(status, lately, "text")).unwrap();
            assert_eq!(taken.expires_in, TimeDelta::minutes(6), "nobody would see it later");
        }
        for status in [Queued, Unknown, Failed] {
            let refused = checked(edit(), BRUNO, own(status, lately, "text"));
            assert_eq!(refused.err(), Some(NotTaken::MessageNotSent), "{status:?}");
        }
        let old = own(Read, TimeDelta::seconds(15 * 60 + 1), "text");
        assert_eq!(checked(edit(), BRUNO, old).err(), Some(NotTaken::TooOld));
        for kind in ["location", "contact", "reaction", "edit", "revoke"] {
            let refused = checked(edit(), BRUNO, own(Read, lately, kind));
            assert_eq!(refused.err(), Some(NotTaken::WrongKind), "{kind}");
        }
    }

    #[test]
    fn what_was_sent_can_be_taken_back_for_two_days() {
        for kind in ["text", "location", "contact"] {
            let taken = checked(revoke(), BRUNO, own(MessageStatus::Sent, TimeDelta::hours(47), kind)).unwrap();
            assert_eq!(taken.expires_in, TimeDelta::hours(13));
        }
        let old = own(MessageStatus::Sent, TimeDelta::hours(49), "text");
        assert_eq!(checked(revoke(), BRUNO, old).err(), Some(NotTaken::TooOld));
        for kind in ["reaction", "edit", "revoke"] {
            let refused = checked(revoke(), BRUNO, own(MessageStatus::Sent, TimeDelta::hours(1), kind));
            assert_eq!(refused.err(), Some(NotTaken::WrongKind), "{kind}");
        }
    }

    #[test]
    fn what_is_about_a_message_follows_it_in_the_same_lane() {
        // The number as WhatsApp knows it, and as the caller wrote it then.
        for to in ["551188888888", "713715344025739@lid"] {
            let taken = checked(reaction(), to, own(MessageStatus::Queued, TimeDelta::zero(), "text")).unwrap();
            assert_eq!((taken.to.address().as_str(), taken.expires_in), (BRUNO, TimeDelta::days(1)));
            for kind in [edit(), revoke()] {
                let taken = checked(kind, to, own(MessageStatus::Sent, TimeDelta::zero(), "text")).unwrap();
                assert_eq!(taken.to.address(), BRUNO);
            }
        }
        let failed = own(MessageStatus::Failed, TimeDelta::zero(), "text");
        assert_eq!(checked(reaction(), BRUNO, failed).err(), Some(NotTaken::MessageNotSent));
    }

    #[test]
    fn nothing_refers_to_a_message_of_another_chat_or_another_account() {
        let sent = || own(MessageStatus::Sent, TimeDelta::zero(), "text");
        for kind in [edit(), revoke(), reaction()] {
            for other in ["5511777777777", "100@lid"] {
                assert_eq!(checked(kind.clone(), other, sent()).err(), Some(NotTaken::OtherRecipient));
            }
            let before = Message { account: Some("5511666666666".into()), ..sent() };
            assert_eq!(checked(kind, BRUNO, before).err(), Some(NotTaken::UnknownMessage));
        }
        let logged = |chat: &str, from: Option<&str>| {
            Referred::Logged(Box::new(Logged { chat: chat.into(), from: from.map(Into::into), ..Logged::default() }))
        };
        let number = names(&Person::parse(BRUNO).unwrap());
        let lid = names(&Person::parse("100@lid").unwrap());
        let both = Names { lid: lid.lid.clone(), ..number.clone() };
        let refused = Err(NotTaken::OtherRecipient);
        for (found, to_number, to_lid, to_both) in [
            (vec![], Ok(()), Ok(()), Ok(())),
            (vec![logged("5511888888888@s.whatsapp.net", None)], Ok(()), Ok(()), Ok(())),
            (vec![logged("5511777777777@s.whatsapp.net", None)], refused, Ok(()), refused),
            (vec![logged("100@lid", Some(BRUNO))], Ok(()), Ok(()), Ok(())),
            (vec![logged("100@lid", Some("5511777777777"))], refused, Ok(()), Ok(())),
            (vec![logged("200@lid", Some("5511777777777"))], refused, refused, refused),
            (vec![logged("100@lid", None)], Ok(()), Ok(()), Ok(())),
            (vec![logged("200@lid", None)], Ok(()), refused, refused),
            (vec![logged("1203630@g.us", Some(BRUNO))], refused, refused, refused),
        ] {
            for (names, taken) in [(&number, to_number), (&lid, to_lid), (&both, to_both)] {
                assert_eq!(check(&mut submission(reaction(), BRUNO), names, &found, None, now()), taken);
            }
            for kind in [edit(), revoke()] {
                let refused = check(&mut submission(kind, BRUNO), &number, &found, None, now());
                assert_eq!(refused, Err(NotTaken::UnknownMessage), "it is in no outbox");
            }
        }
    }
}
