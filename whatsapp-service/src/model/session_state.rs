//! The states that a session can be in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of a session, finer than the contract's four words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On the way to WhatsApp, and not ready since this client started.
    Connecting,
    /// A QR code waits to be scanned.
    PairingQr,
    /// A pairing code waits to be typed on the phone.
    PairingCode,
    /// WhatsApp asks the account for a passkey before it links.
    PasskeyRequired,
    /// Logged in; messages can be sent.
    Ready,
    /// Was ready, lost its connection, and is getting it back.
    Reconnecting,
    /// Another process uses the same session, as two of its logins within ten minutes have shown; this one stopped and
    /// stays stopped until a person asks.
    Replaced,
    /// The phone or the server unlinked this device.
    LoggedOut,
    /// WhatsApp banned the account, for a time or for good.
    Banned,
    /// WhatsApp locked the account.
    Locked,
    /// WhatsApp no longer accepts this client's version.
    Outdated,
    /// Something else stopped it; the reason says what.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connecting,
        Self::PairingQr,
        Self::PairingCode,
        Self::PasskeyRequired,
        Self::Ready,
        Self::Reconnecting,
        Self::Replaced,
        Self::LoggedOut,
        Self::Banned,
        Self::Locked,
        Self::Outdated,
        Self::Failed,
    ];

    /// The contract's word for this state.
    pub fn status(self) -> Status {
        match self {
            Self::Connecting | Self::PairingQr | Self::PairingCode | Self::PasskeyRequired | Self::Reconnecting => {
                Status::Initializing
            }
            Self::Ready => Status::Ready,
            Self::Replaced | Self::LoggedOut | Self::Banned | Self::Locked | Self::Outdated | Self::Failed => {
                Status::Failed
            }
        }
    }

    /// The word as it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::PairingQr => "pairing_qr",
            Self::PairingCode => "pairing_code",
            Self::PasskeyRequired => "passkey_required",
            Self::Ready => "ready",
            Self::Reconnecting => "reconnecting",
            Self::Replaced => "replaced",
            Self::LoggedOut => "logged_out",
            Self::Banned => "banned",
            Self::Locked => "locked",
            Self::Outdated => "outdated",
            Self::Failed => "failed",
        }
    }
}

/// The contract's word for a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no session.
    NotFound,
    /// Not ready yet, or not ready for the moment.
    Initializing,
    /// Messages can be sent.
    Ready,
    /// It will not get ready without a person, or only after a long wait.
    Failed,
}
