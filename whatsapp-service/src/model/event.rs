//! What happened to a tenant.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::util::clock;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    /// A message came in.
    #[serde(rename = "message.received")]
    MessageReceived,
    /// A message came in that can't be read yet, and may never be.
    #[serde(rename = "message.placeholder")]
    MessagePlaceholder,
    /// A message that was sent from here has come further.
    #[serde(rename = "message.status")]
    MessageStatus,
    /// Somebody called, and nobody answered.
    #[serde(rename = "call.missed")]
    CallMissed,
    /// The session is in another state.
    #[serde(rename = "session.state")]
    SessionState,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::MessageReceived, Self::MessagePlaceholder, Self::MessageStatus, Self::CallMissed, Self::SessionState];

    /// The word as it stands in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageReceived => "message.received",
            Self::MessagePlaceholder => "message.placeholder",
            Self::MessageStatus => "message.status",
            Self::CallMissed => "call.missed",
            Self::SessionState => "session.state",
        }
    }

    /// The kind of this name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Something that happened. It serialises to the envelope that webhooks and streams carry.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its id: the same at every delivery, and no other event's.
    pub id: String,
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it was written down.
    #[serde(serialize_with = "clock::serialize")]
    pub timestamp: DateTime<Utc>,
    /// To whom.
    pub tenant_id: String,
    /// Its number: 1, 2, 3, … for each tenant.
    pub sequence: i64,
    /// The rest, by kind.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}
