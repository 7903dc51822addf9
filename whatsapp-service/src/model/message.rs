//! A message: what it is, how far it has come, and why it failed.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    model::{
        address::{Lid, Names, Person, number::Number},
        content::{self, Content},
        error_code::ErrorCode,
        tenant::TenantId,
    },
    util::clock,
};

/// How far a message has come. It only ever moves on, in this order: a proof that it arrived counts for more than a
/// refusal, as the one may be about its first copy and the other about a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Written down here; it has not left, as far as anybody knows.
    Queued,
    /// It was handed to the wire, and the server has not said a word about it.
    Unknown,
    /// It will not be sent.
    Failed,
    /// The server has acknowledged it.
    Sent,
    /// A device of the recipient has it.
    Delivered,
    /// The recipient has seen it.
    Read,
    /// The recipient has listened to it: a voice note.
    Played,
}

impl MessageStatus {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Unknown, Self::Failed, Self::Sent, Self::Delivered, Self::Read, Self::Played];

    /// The word as it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
        }
    }

    /// The status of this name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// Why a message failed, or why nothing more is done for one whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A stable identifier.
    #[schema(required = false)]
    pub code: String,
    /// A sentence for a person; holds no one's data.
    #[serde(rename = "message")]
    #[schema(required = false)]
    pub reason: String,
    /// Whether the same message may be sent again, as a new one.
    #[schema(required = false)]
    pub retryable: bool,
    /// WhatsApp's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whatsapp_code: Option<String>,
}

impl Failure {
    /// All codes.
    pub const CODES: [ErrorCode; 11] = [
        ErrorCode::RecipientNotOnWhatsApp,
        ErrorCode::RecipientUnreachable,
        ErrorCode::RecipientCouldNotDecrypt,
        ErrorCode::RecipientRestricted,
        ErrorCode::AccountRestricted,
        ErrorCode::MessageRejected,
        ErrorCode::Expired,
        ErrorCode::Cancelled,
        ErrorCode::SessionDeleted,
        ErrorCode::AccountChanged,
        ErrorCode::ContentUnreadable,
    ];

    /// A failure that WhatsApp has no code for.
    pub fn new(code: ErrorCode, reason: &str, retryable: bool) -> Self {
        Self { code: code.code().unwrap_or_default().into(), reason: reason.into(), retryable, whatsapp_code: None }
    }

    /// Whether it is this one.
    pub fn is(&self, code: ErrorCode) -> bool {
        code.code() == Some(&self.code)
    }
}

/// What a message can be.
pub const KINDS: [&str; 12] = [
    "text", "image", "video", "audio", "voice", "document", "sticker", "location", "contact", "reaction", "edit",
    "revoke",
];

/// A message and its fate. It serialises to what `GET /messages/{id}` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Where it stands in the order of acceptance, over all tenants.
    #[serde(skip)]
    pub row: i64,
    /// WhatsApp's id of it.
    pub id: String,
    /// What it is: one of [`KINDS`], or `media` where an earlier version did not write down more.
    #[schema(
        pattern = "^(text|image|video|audio|voice|document|sticker|location|contact|reaction|edit|revoke|media)$"
    )]
    pub kind: String,
    /// Whom the caller gave, as [`Person::address`] has it. It is what the message is sealed with, and sent to.
    #[serde(skip)]
    pub recipient: String,
    /// The number that WhatsApp knows the recipient by, once that is known; before it, whom the caller gave.
    #[serde(rename = "to")]
    pub number: String,
    /// The recipient's LID, where it is known: WhatsApp's other name for them.
    #[serde(rename = "toLid", skip_serializing_if = "Option::is_none")]
    pub lid: Option<String>,
    /// The caller's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How far it has come.
    pub status: MessageStatus,
    /// Whether there is still something to do for it.
    #[serde(skip)]
    pub pending: bool,
    /// Whether it may have left already.
    #[serde(skip)]
    pub tried: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// The number that it is to be sent from, where that was known.
    #[serde(skip)]
    pub account: Option<String>,
    /// When it was written down.
    #[serde(serialize_with = "clock::serialize")]
    pub accepted_at: DateTime<Utc>,
    /// When it is given up.
    #[serde(serialize_with = "clock::serialize")]
    pub expires_at: DateTime<Utc>,
    /// When its outcome became unknown, if it did.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub unknown_at: Option<DateTime<Utc>>,
    /// When it was known that the server has it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub sent_at: Option<DateTime<Utc>>,
    /// When the server took it, by its own clock, in whole seconds.
    #[serde(skip)]
    pub server_at: Option<DateTime<Utc>>,
    /// When it was known that a device of the recipient has it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was known that the recipient has seen it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub read_at: Option<DateTime<Utc>>,
    /// When it was known that the recipient has listened to it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub played_at: Option<DateTime<Utc>>,
    /// When it failed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clock::serialize_option")]
    pub failed_at: Option<DateTime<Utc>>,
    /// Why, where there is something to say.
    #[serde(flatten)]
    #[schema(value_type = Failure)]
    pub failure: Option<Failure>,
    /// What it says, as JSON, while it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Content>)]
    pub content: Option<Box<RawValue>>,
}

impl Message {
    /// The recipient by each of the names that it is filed under.
    pub fn people(&self) -> impl Iterator<Item = Person> + use<> {
        let lid = self.lid.as_deref().and_then(Lid::new).map(Person::Lid);
        [Person::kept(&self.recipient), Person::kept(&self.number), lid].into_iter().flatten()
    }

    /// Shows these names of the recipient, as far as they are known.
    pub fn show(&mut self, names: &Names) {
        if let Some(number) = &names.number {
            self.number = number.digits().into();
        }
        if let Some(lid) = &names.lid {
            self.lid = Some(lid.digits().into());
        }
    }

    /// The recipient's number, where one is known.
    pub fn known_number(&self) -> Option<&str> {
        Some(&*self.number).filter(|number| matches!(Person::kept(number), Some(Person::Number(_))))
    }

    /// Whether it shows these names already.
    pub fn shows(&self, names: &Names) -> bool {
        names.number.as_ref().is_none_or(|number| *self.number == *number.digits())
            && names.lid.as_ref().is_none_or(|lid| self.lid.as_deref() == Some(lid.digits()))
    }

    /// Whether a caller that waits for it has waited enough: the server has it, or it was given up.
    pub fn is_settled(&self) -> bool {
        !self.pending
    }

    /// The time of what happens to it now: never before what has happened already, whatever the clock says.
    pub fn next_time(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let times = [self.unknown_at, self.sent_at, self.delivered_at, self.read_at, self.played_at, self.failed_at];
        times.into_iter().flatten().fold(now.max(self.accepted_at), DateTime::max)
    }

    /// The message with what it says, where that is kept on purpose.
    pub fn shown(self) -> Self {
        Self { content: self.content.and_then(content::shown), ..self }
    }

    /// The message as it is told: what it says is nobody's business but the recipient's, unless it is kept on purpose.
    pub fn without_content(&self) -> Self {
        Self { content: None, ..self.clone() }
    }
}

/// A message that is to be accepted.
pub struct Draft {
    /// WhatsApp's id of it, chosen now and never changed.
    pub id: String,
    /// Whom it is for.
    pub recipient: Person,
    /// Their names, as far as they are known.
    pub names: Names,
    /// The number that it is to be sent from, where that is known.
    pub account: Option<String>,
    /// What it says.
    pub content: Content,
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// When it is to be given up.
    pub expires_at: DateTime<Utc>,
    /// Whether it goes to the wire as soon as it is written down.
    pub tried: bool,
    /// What makes a repetition of the call the same call.
    pub idempotency: Option<Idempotency>,
}

/// The caller's key, and a digest of what came with it.
#[derive(Clone)]
pub struct Idempotency {
    /// The key.
    pub key: String,
    /// A digest of the rest of the call.
    pub fingerprint: [u8; 32],
}

/// What became of a draft.
pub enum Accepted {
    /// It was written down.
    New(Box<Message>),
    /// The same call was made before, and this came of it.
    Known(Box<Message>),
    /// The key was used for something else.
    Conflict,
    /// There was no room for it.
    Full,
}

/// Whether something is to be sent now.
#[derive(Debug)]
pub enum Claimed<T> {
    /// It is.
    Now(T),
    /// Its deadline seems to have passed, and the clock has jumped: nobody can say yet.
    Later,
    /// It was settled meanwhile, or its deadline has passed.
    Never,
}

/// A message that an earlier process left to be sent.
pub struct Pending {
    /// Whose it is.
    pub tenant: TenantId,
    /// Whom it is for, as [`Person::address`] has it.
    pub recipient: String,
    /// Their names, as far as they are known.
    pub names: Names,
    /// Its place in the order of acceptance.
    pub row: i64,
    /// The file of media that it needs.
    pub media: Option<String>,
}

/// The device that something comes from, under the names of its owner.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// WhatsApp's address of the device.
    pub device: String,
    /// The owner: WhatsApp's addresses by phone number and by LID, as far as they are known.
    pub names: Vec<String>,
}

impl Author {
    /// Whether the message was handed to the wire, and to this one: only then there is something to say about it.
    pub fn is_recipient_of(&self, message: &Message) -> bool {
        message.tried && self.names.iter().any(|name| is_with(message, name))
    }
}

/// Whether a message was written to the one with this address.
pub fn is_with(message: &Message, name: &str) -> bool {
    let person = match name.split_once('@') {
        Some((digits, "s.whatsapp.net")) => Number::of_whatsapp(digits).map(Person::Number),
        Some((digits, "lid")) => Lid::new(digits).map(Person::Lid),
        _ => None,
    };
    let Some(names) = person.map(|person| Names::of(person, Names::default())) else { return false };
    message.people().any(|person| names.are(&person))
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those in this status.
    pub status: Option<MessageStatus>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those to this person, whichever of these names they were written to by.
    pub recipient: Option<Names>,
    /// Only those that their caller calls so.
    pub reference: Option<String>,
    /// Only those accepted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Only those accepted before this time.
    pub until: Option<DateTime<Utc>>,
}
