//! What is told of a message: one event for each that people see, whatever its kind.

pub mod bounded;
pub mod business;
pub mod fields;
pub mod media;
pub mod received;
pub mod vcard;
pub mod votes;

use serde_json::Value;
use whatsapp_rust::{
    Jid,
    types::{events::InboundMessage, message::MessageInfo},
    wacore::proto_helpers::MessageExt,
    wacore_binary::JidExt,
    waproto::whatsapp::{
        self as wa,
        message::{PollCreationMessage, PollUpdateMessage, protocol_message},
    },
};

use crate::{
    store::kept::{Kept, KeptFor, PollKey},
    util::{clock, encoding::percent_encoded},
    whatsapp::{
        context::context,
        decode::{
            bounded::bounded,
            media::attached,
            received::{
                DisappearingTimer, Edit, Envelope, Kind, Location, Poll, PollVote, Reaction, ReceivedMessage, Revoke,
            },
            vcard::Contact,
        },
        timers::changed,
    },
};

/// How many wrappers a message may be in: more are not looked through.
const WRAPPERS: usize = 8;
/// How many options of a poll are kept to read votes with, and how long one may be, in bytes.
const OPTIONS: usize = 100;
const OPTION: usize = 4096;
/// What is told of a message that can't be taken apart, instead of the name of its field.
const MALFORMED: &str = "malformed";
/// What is set in messages that are between devices, beside what is told.
const BESIDE: [&str; 4] = [
    "messageContextInfo",
    "protocolMessage",
    "senderKeyDistributionMessage",
    "fastRatchetKeySenderKeyDistributionMessage",
];

/// What becomes of a message.
pub struct Told {
    /// The event's data.
    pub data: Value,
    /// What is kept beside it.
    pub kept: Option<Kept>,
}

/// What is told of a message; `None` for what people don't see, for what goes to everybody (status posts, channels).
/// `chosen` is what its vote chose, if it is one and could be read.
pub fn told(InboundMessage { message, info, .. }: &InboundMessage, chosen: Option<Vec<String>>) -> Option<Told> {
    let envelope = envelope(info)?;
    let base = unwrapped(message);
    let context = context(base);
    let reply_to = context.and_then(|context| context.stanza_id.as_deref()).filter(|id| !id.is_empty());
    let (said, kept) = content(base, message, info, chosen)?;
    let referral = context.and_then(business::referral);
    let data = serde_json::to_value(ReceivedMessage { reply_to, referral, envelope, ..said });
    let kept = kept.map(|what| Kept {
        at: clock::wall().timestamp_millis(),
        chat: info.source.chat.to_string(),
        sender: info.source.sender.to_string(),
        id: info.id.clone(),
        from_me: info.source.is_from_me,
        what,
    });
    Some(Told { data: data.ok()?, kept })
}

/// What is told of a message that is told without what it says, and why: because WhatsApp keeps it from companions, or
/// because it is not its sender's to say.
pub fn withheld(info: &MessageInfo, why: &str) -> Option<Value> {
    let envelope = envelope(info)?;
    let message = ReceivedMessage { field: Some(why.into()), envelope, ..ReceivedMessage::default() };
    serde_json::to_value(message).ok().map(bounded)
}

/// What is told of a message that can't be taken apart, in the same way.
pub fn malformed(info: &MessageInfo) -> Option<Value> {
    withheld(info, MALFORMED)
}

/// From whom a message came to whom, and when; `None` for what goes to everybody.
pub fn envelope(info: &MessageInfo) -> Option<Envelope<'_>> {
    let source = &info.source;
    if source.chat.is_status_broadcast() || source.chat.is_newsletter() {
        return None;
    }
    let sender = [Some(&source.sender), source.sender_alt.as_ref()];
    let recipient = [Some(&source.chat), source.recipient_alt.as_ref(), info.peer_recipient_pn.as_ref()];
    let recipient = recipient.map(|jid| jid.filter(|_| source.is_from_me));
    Some(Envelope {
        id: &info.id,
        from_me: source.is_from_me,
        from: user(&sender, Jid::is_pn),
        from_lid: user(&sender, Jid::is_lid),
        from_name: Some(info.push_name.as_str()).filter(|name| !name.is_empty() && !source.is_from_me),
        to: user(&recipient, Jid::is_pn),
        to_lid: user(&recipient, Jid::is_lid),
        chat: source.chat.to_non_ad().to_string(),
        timestamp: info.timestamp,
        offline: info.is_offline,
        truncated: false,
    })
}

/// The vote that a message is, if it is one.
pub fn vote(message: &wa::Message) -> Option<&PollUpdateMessage> {
    unwrapped(message).poll_update_message.as_option().filter(|vote| vote.poll_creation_message_key.id.is_some())
}

pub fn user(names: &[Option<&Jid>], kind: fn(&Jid) -> bool) -> Option<String> {
    names.iter().copied().flatten().find(|jid| kind(jid)).map(|jid| jid.user.to_string())
}

/// What a message says, and what is kept for it; nothing if it is between devices only.
fn content<'a>(
    base: &'a wa::Message,
    whole: &'a wa::Message,
    info: &MessageInfo,
    chosen: Option<Vec<String>>,
) -> Option<(ReceivedMessage<'a>, Option<KeptFor>)> {
    let said = ReceivedMessage::default();
    if let Some(text) = base.text_content() {
        return Some((ReceivedMessage { kind: Kind::Text, text: Some(text), ..said }, None));
    }
    if let Some(file) = attached(base) {
        let media_url = file.source.is_some().then(|| media_url(&info.id));
        let said = ReceivedMessage { kind: file.kind, text: file.caption, media: Some(file.media), media_url, ..said };
        return Some((said, file.source.map(KeptFor::Media)));
    }
    if let Some(poll) = poll_of(base) {
        let options = poll.options.iter().filter_map(|option| option.option_name.as_deref()).collect::<Vec<_>>();
        let creators = [Some(&info.source.sender), info.source.sender_alt.as_ref()];
        let creators = creators.into_iter().flatten().map(Jid::to_non_ad_string).collect();
        let secrets = [base, whole].map(|message| message.message_context_info.message_secret.clone());
        let kept = secrets.into_iter().flatten().next().map(|secret| {
            // WhatsApp's own have 12 of 100 letters at most.
            let fits = options.iter().filter(|option| option.len() <= OPTION).take(OPTIONS);
            let options = fits.map(|&option| option.to_owned()).collect();
            KeptFor::Votes(PollKey { secret, creators, options })
        });
        let selectable = poll.selectable_options_count.filter(|count| *count > 0);
        let poll = Poll { name: poll.name.as_deref().unwrap_or_default(), options, selectable };
        return Some((ReceivedMessage { kind: Kind::Poll, poll: Some(poll), ..said }, kept));
    }
    let said = if let Some(place) = base.location_message.as_option() {
        let location = Location {
            latitude: place.degrees_latitude,
            longitude: place.degrees_longitude,
            name: place.name.as_deref().filter(|name| !name.is_empty()),
            address: place.address.as_deref().filter(|address| !address.is_empty()),
            live: place.is_live == Some(true),
        };
        ReceivedMessage { kind: Kind::Location, location: location.known(), text: place.comment.as_deref(), ..said }
    } else if let Some(place) = base.live_location_message.as_option() {
        let (latitude, longitude) = (place.degrees_latitude, place.degrees_longitude);
        let location = Location { latitude, longitude, live: true, ..Location::default() };
        ReceivedMessage { kind: Kind::Location, location: location.known(), text: place.caption.as_deref(), ..said }
    } else if let Some(card) = base.contact_message.as_option() {
        ReceivedMessage { kind: Kind::Contact, contacts: Some(vec![contact(card)]), ..said }
    } else if let Some(cards) = base.contacts_array_message.as_option() {
        let contacts = cards.contacts.iter().map(contact).collect();
        ReceivedMessage { kind: Kind::Contact, contacts: Some(contacts), ..said }
    } else if let Some(reaction) = base.reaction_message.as_option()
        && let Some(message_id) = reaction.key.id.as_deref()
    {
        let reaction = Reaction { message_id, emoji: reaction.text.as_deref().unwrap_or_default() };
        ReceivedMessage { kind: Kind::Reaction, reaction: Some(reaction), ..said }
    } else if let Some(vote) = vote(base)
        && let Some(message_id) = vote.poll_creation_message_key.id.as_deref()
    {
        ReceivedMessage { kind: Kind::PollVote, poll_vote: Some(PollVote { message_id, options: chosen }), ..said }
    } else if let Some(business::Said { kind, text, reply, order, product, image }) = business::said(base) {
        let source = image.as_ref().and_then(|image| image.source.clone());
        let media_url = source.is_some().then(|| media_url(&info.id));
        let media = image.map(|image| image.media);
        let said = ReceivedMessage { kind, text, reply, order, product, media, media_url, ..said };
        return Some((said, source.map(KeptFor::Media)));
    } else if let Some(change) = changed(base) {
        let timer = DisappearingTimer { seconds: change.ephemeral_expiration.unwrap_or_default() };
        ReceivedMessage { kind: Kind::DisappearingTimer, disappearing_timer: Some(timer), ..said }
    } else if let Some(changed) = change(base) {
        changed
    } else {
        let field = unsupported(base, info.source.is_from_me)?;
        ReceivedMessage { field: Some(field), ..said }
    };
    Some((said, None))
}

/// An edit or a revocation.
fn change(base: &wa::Message) -> Option<ReceivedMessage<'_>> {
    let change = base.protocol_message.as_option()?;
    let message_id = change.key.id.as_deref()?;
    match change.r#type? {
        protocol_message::Type::REVOKE => {
            let revoke = Some(Revoke { message_id });
            Some(ReceivedMessage { kind: Kind::Revoke, revoke, ..ReceivedMessage::default() })
        }
        protocol_message::Type::MESSAGE_EDIT => {
            let edited = change.edited_message.as_option().map(unwrapped);
            let text = edited.and_then(|edited| {
                edited.text_content().or_else(|| attached(edited).and_then(|attached| attached.caption))
            });
            let edit = Some(Edit { message_id, text });
            Some(ReceivedMessage { kind: Kind::Edit, edit, ..ReceivedMessage::default() })
        }
        _ => None,
    }
}

/// The name of what is not told in detail; nothing if it is between devices only: keys, settings, synchronisation.
fn unsupported(base: &wa::Message, from_me: bool) -> Option<String> {
    let set = fields::set_in(base);
    if let Some(name) = set.iter().find(|name| !BESIDE.contains(&name.as_str())) {
        return Some(name.clone());
    }
    // What this version of the protocol does not know leaves nothing behind. One's own devices tell each other more.
    let nothing = set.iter().all(|name| name == "messageContextInfo");
    (nothing && !from_me).then(|| "unknown".into())
}

/// Where this service has the file that came with a message. The id may be anything: the sender's device chose it.
fn media_url(id: &str) -> String {
    format!("/messages/{}/media", percent_encoded(id))
}

fn contact(card: &wa::message::ContactMessage) -> Contact {
    Contact::read(card.vcard.as_deref().unwrap_or_default(), card.display_name.as_deref())
}

fn poll_of(base: &wa::Message) -> Option<&PollCreationMessage> {
    let polls = [
        &base.poll_creation_message,
        &base.poll_creation_message_v2,
        &base.poll_creation_message_v3,
        &base.poll_creation_message_v5,
        &base.poll_creation_message_v6,
    ];
    polls.into_iter().find_map(|poll| poll.as_option())
}

/// A message without its wrappers, which say how it is to be shown and for how long.
pub fn unwrapped(message: &wa::Message) -> &wa::Message {
    let mut base = message;
    for _ in 0..WRAPPERS {
        let sent = base.device_sent_message.as_option().and_then(|wrapper| wrapper.message.as_option());
        let wrappers = [
            &base.ephemeral_message,
            &base.view_once_message,
            &base.view_once_message_v2,
            &base.view_once_message_v2_extension,
            &base.document_with_caption_message,
            &base.edited_message,
            &base.group_mentioned_message,
            &base.bot_invoke_message,
            &base.lottie_sticker_message,
            &base.event_cover_image,
            &base.poll_creation_option_image_message,
            &base.associated_child_message,
            &base.poll_creation_message_v4,
            &base.limit_sharing_message,
            &base.bot_task_message,
            &base.question_message,
            &base.question_reply_message,
            &base.bot_forwarded_message,
            &base.spoiler_message,
        ];
        let inner = wrappers.into_iter().find_map(|wrapper| wrapper.as_option()?.message.as_option());
        match sent.or(inner) {
            Some(inner) => base = inner,
            None => break,
        }
    }
    base
}

#[cfg(test)]
mod tests;
