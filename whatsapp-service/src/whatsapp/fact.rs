//! What a session is told of its link to WhatsApp.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{store::devices::LoginHold, whatsapp::codes::DisconnectCode};

/// A fact about a session. The facts of the library's client come from `events`, those of the wire from `transport`,
/// and what an earlier process knew from the session itself.
#[derive(Clone, Debug)]
pub enum Fact {
    /// An earlier process, or an earlier client of this one, has linked it, with this phone where that is known.
    Linked { phone: Option<String> },
    /// A client starts on this store; `paired` with this phone, or not yet with any.
    Started { phone: Option<String> },
    /// An earlier process was told not to dial yet.
    Held(LoginHold),
    /// An earlier process was replaced then, and did not believe it.
    WasReplaced(DateTime<Utc>),
    /// No connection could be opened.
    DialFailed(String),
    /// The tenant's proxy led nowhere: why, for the operator.
    ProxyFailed(String),
    /// The server could not prove that it is WhatsApp.
    CertificateRefused(String),
    /// This QR code is valid from now on, and no other.
    QrCode { code: String, valid_for: TimeDelta },
    /// The server's QR codes are used up; `disconnected` unless a pairing code keeps the connection.
    QrExhausted { disconnected: bool },
    /// This pairing code can be typed on the phone.
    PairingCode { code: String, valid_for: TimeDelta },
    /// No pairing code is coming.
    PairingCodeRefused { message: String, retry_after: Option<TimeDelta> },
    /// The pairing code is no longer valid.
    PairingCodeExpired,
    /// The server's WebAuthn request options, verbatim.
    PasskeyRequested { options: String },
    /// The code that the phone shows too, to be compared.
    PasskeyCode { code: String, needs_confirmation: bool },
    /// The passkey step failed.
    PasskeyFailed(String),
    /// Linked, and the credentials are on disk.
    Paired { phone: String },
    /// The linking failed.
    PairingFailed(String),
    /// Logged in, the backlog received, everything so far on disk.
    Online { phone: Option<String>, push_name: String },
    /// The account's display name.
    PushName(String),
    /// The connection ended.
    Offline,
    /// WhatsApp refused a login or ended a connection.
    Said(Said),
    /// A connection on which WhatsApp neither takes nor refuses the login, or no longer knows of it.
    Stuck,
    /// The store can't be opened, read or written.
    StorageFailed(String),
    /// Something in this program failed that must not.
    Panicked,
    /// The client has stopped for good.
    Ended,
    /// The next dial waits for this moment; with `None`, only for its turn.
    Waits(Option<DateTime<Utc>>),
}

/// What WhatsApp said when it refused a login or ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The word that decides what follows.
    pub word: DisconnectCode,
    /// A temporary ban's kind.
    pub ban: Option<i32>,
    /// How long a temporary ban lasts.
    pub lasts: Option<TimeDelta>,
    /// What a locked account's owner needs for an appeal. It is said once.
    pub appeal_token: Option<String>,
}

impl From<DisconnectCode> for Said {
    fn from(word: DisconnectCode) -> Self {
        Self { word, ban: None, lasts: None, appeal_token: None }
    }
}
