//! What the event log says of a message that came in.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    util::clock,
    whatsapp::decode::{
        business::{Order, Product, Referral, Reply},
        media::Media,
        vcard::Contact,
    },
};

/// What kind of message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedKind)]
pub enum Kind {
    /// Words.
    Text,
    /// A picture.
    Image,
    /// A video, also one without sound that repeats, or one in a circle.
    Video,
    /// A sound.
    Audio,
    /// A sound that was spoken into the phone.
    Voice,
    /// Any other file.
    Document,
    /// A sticker.
    Sticker,
    /// A place, or where somebody is.
    Location,
    /// Somebody's card, or several.
    Contact,
    /// An emoji below a message.
    Reaction,
    /// Another text for an earlier message.
    Edit,
    /// An earlier message is taken back.
    Revoke,
    /// A question, and what can be answered.
    Poll,
    /// Somebody's answer.
    PollVote,
    /// A button that was pressed.
    ButtonReply,
    /// A row of a list that was chosen.
    ListReply,
    /// A quick reply of a template that was pressed.
    TemplateReply,
    /// A native flow that was gone through.
    FlowReply,
    /// A cart that was sent.
    Order,
    /// A product of a catalogue.
    Product,
    /// How long the messages of the chat stay from now on.
    DisappearingTimer,
    /// Something else: see `type`.
    #[default]
    Unsupported,
}

/// What the event log says of a message that came in.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedMessage<'a> {
    pub(crate) kind: Kind,
    /// What it says, or what is written below a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    /// The id of the message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<&'a str>,
    /// The file that came with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media: Option<Media<'a>>,
    /// Where this service has the file: a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<Location<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contacts: Option<Vec<Contact>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reaction: Option<Reaction<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edit: Option<Edit<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoke: Option<Revoke<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) poll: Option<Poll<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) poll_vote: Option<PollVote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<Reply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Order<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) product: Option<Product<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disappearing_timer: Option<DisappearingTimer>,
    /// The ad or post that the sender came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) referral: Option<Referral<'a>>,
    /// Of what is unsupported: the name of its field in WhatsApp's protocol, or `unknown`; `view_once`, `hosted` or `bot`
    /// if WhatsApp shows it only on the phone; `malformed` if it can't be taken apart; `not_allowed` if it is about a
    /// message that is not its sender's to change, or of another chat.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    #[serde(flatten)]
    #[schema(inline)]
    pub(crate) envelope: Envelope<'a>,
}

/// From whom a message came to whom, and when.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedEnvelope)]
pub struct Envelope<'a> {
    /// Its id at WhatsApp, chosen by the sender's device.
    pub(crate) id: &'a str,
    /// Whether the account wrote it itself, on its phone or another of its devices; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(crate) from_me: bool,
    /// The sender's phone number, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// WhatsApp's other name for the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_lid: Option<String>,
    /// The name that the sender goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_name: Option<&'a str>,
    /// Of one's own: the recipient's phone number, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Of one's own: WhatsApp's other name for the recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_lid: Option<String>,
    pub(crate) chat: String,
    /// When it was sent, by WhatsApp's clock.
    #[serde(serialize_with = "clock::serialize")]
    pub(crate) timestamp: DateTime<Utc>,
    /// Whether it waited at WhatsApp while the session had no connection.
    pub(crate) offline: bool,
    /// Whether something in it was too long and is not all here; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(crate) truncated: bool,
}

/// A place.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ReceivedLocation)]
pub struct Location<'a> {
    /// In degrees, the south is negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latitude: Option<f64>,
    /// In degrees, the west is negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) longitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<&'a str>,
    /// Whether it is where somebody is just now; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(crate) live: bool,
}

/// An emoji for a message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedReaction)]
pub struct Reaction<'a> {
    /// Which message.
    pub(crate) message_id: &'a str,
    /// Empty: the earlier one is taken back.
    pub(crate) emoji: &'a str,
}

/// Another text for a message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedEdit)]
pub struct Edit<'a> {
    /// Which message.
    pub(crate) message_id: &'a str,
    /// What it says now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
}

/// A message that is taken back.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedRevoke)]
pub struct Revoke<'a> {
    /// Which message.
    pub(crate) message_id: &'a str,
}

/// A question.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedPoll)]
pub struct Poll<'a> {
    pub(crate) name: &'a str,
    pub(crate) options: Vec<&'a str>,
    /// How many may be chosen; absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) selectable: Option<u32>,
}

/// How long the messages of a chat stay.
#[derive(Serialize, ToSchema)]
#[schema(as = ReceivedDisappearingTimer)]
pub struct DisappearingTimer {
    /// 0: for ever.
    pub(crate) seconds: u32,
}

/// An answer to one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedPollVote)]
pub struct PollVote<'a> {
    /// Which poll.
    pub(crate) message_id: &'a str,
    /// All that is chosen now; absent where the vote can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) options: Option<Vec<String>>,
}

impl Location<'_> {
    /// What JSON can't say is left out.
    pub(crate) fn known(mut self) -> Option<Self> {
        self.latitude = self.latitude.filter(|degrees| degrees.is_finite());
        self.longitude = self.longitude.filter(|degrees| degrees.is_finite());
        Some(self)
    }
}
