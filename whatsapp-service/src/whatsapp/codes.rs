//! What WhatsApp says to a login or on a connection, and what follows from it: one table, which `docs/sessions.md` shows.

use std::time::Duration;

use crate::model::session_state::State;

/// What WhatsApp said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCode {
    /// `<failure reason=…>`, the answer to a login.
    Failure(i32),
    /// `<stream:error code=…>` on a connection; 0 where it has no code.
    StreamError(i32),
    /// `<stream:error><conflict type="replaced">`.
    Replaced,
    /// `<stream:error><conflict>` of any other type, like `device_removed`.
    Removed,
}

impl DisconnectCode {
    /// The code in it; 0 where it has none.
    pub fn code(self) -> i32 {
        match self {
            Self::Failure(code) | Self::StreamError(code) => code,
            Self::Replaced | Self::Removed => 0,
        }
    }
}

/// The words that a row is about.
#[derive(Clone, Copy, Debug)]
enum Arrives {
    Failures(&'static [i32]),
    OtherFailures,
    StreamErrors(&'static [i32]),
    OtherStreamErrors,
    Replaced,
    Removed,
}

/// Whether, and when, a session dials again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// After a pause that grows with the failures in a row: at most a second first, at most a minute in the end.
    Soon,
    /// The same, if the connection does not answer a ping within ten seconds; otherwise nothing has happened.
    SoonIfDead,
    /// After a minute or two first, an hour or two in the end.
    Slowly,
    /// Once, after five seconds. The same word again is believed.
    ToConfirm,
    /// Once, after 10 to 30 seconds. The same word again within ten minutes is believed.
    OnceMore,
    /// When the ban is over.
    AtExpiry,
    /// After a day.
    Tomorrow,
    /// Only when a person asks.
    Never,
}

impl RetryPolicy {
    /// The pause after that many failures in a row, the last one included; `fraction`, from 0 to 1, is where in its
    /// range it lies. `None` where a date decides, or nobody dials.
    ///
    /// The whole range is used (full jitter), so that sessions that failed together don't come back together.
    pub fn pause(self, failures: u32, fraction: f64) -> Option<Duration> {
        let (least, first, most) = match self {
            Self::Soon | Self::SoonIfDead => (0, 1, 60),
            Self::Slowly => (60, 60, 3600),
            Self::ToConfirm => (5, 1, 1),
            Self::OnceMore => (10, 20, 20),
            Self::AtExpiry | Self::Tomorrow | Self::Never => return None,
        };
        let doublings = failures.saturating_sub(1).min(16);
        let range = Duration::from_secs((first << doublings).min(most));
        Some(Duration::from_secs(least) + range.mul_f64(fraction.clamp(0.0, 1.0)))
    }
}

/// What follows from a word.
#[derive(Debug)]
pub struct Row {
    arrives: &'static [Arrives],
    /// The state; `Reconnecting` stands for `connecting` too, where the session was not ready before.
    pub state: State,
    /// The reason's identifier; `N` stands for the code.
    reason: &'static str,
    /// The reason for a person; `N` stands for the code.
    message: &'static str,
    /// When it dials again by itself.
    pub again: RetryPolicy,
    /// Whether it speaks of WhatsApp or of this service rather than of this session: several sessions that hear it hold
    /// up the dials of all.
    pub fleet: bool,
}

/// The table. The first row that fits counts.
const TABLE: &[Row] = &[
    Row {
        arrives: &[Arrives::Failures(&[401, 516]), Arrives::StreamErrors(&[401, 516]), Arrives::Removed],
        state: State::LoggedOut,
        reason: "logged_out",
        message: "The device was unlinked from the account.",
        again: RetryPolicy::ToConfirm,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Failures(&[402])],
        state: State::Banned,
        reason: "account_banned_N",
        message: "WhatsApp banned the account for a time.",
        again: RetryPolicy::AtExpiry,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Failures(&[403])],
        state: State::Locked,
        reason: "account_locked",
        message: "WhatsApp locked the account.",
        again: RetryPolicy::Tomorrow,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Failures(&[406])],
        state: State::Banned,
        reason: "account_banned",
        message: "WhatsApp banned the account.",
        again: RetryPolicy::Never,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Failures(&[405])],
        state: State::Outdated,
        reason: "client_outdated",
        message: "WhatsApp no longer accepts this client's version.",
        again: RetryPolicy::Slowly,
        fleet: true,
    },
    Row {
        arrives: &[Arrives::Failures(&[409])],
        state: State::Failed,
        reason: "refused_N",
        message: "WhatsApp refused the login with code N: it does not accept this client.",
        again: RetryPolicy::Never,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Failures(&[429])],
        state: State::Failed,
        reason: "refused_N",
        message: "WhatsApp refused the login with code N: too many requests.",
        again: RetryPolicy::Slowly,
        fleet: true,
    },
    Row {
        arrives: &[Arrives::Failures(&[500, 503])],
        state: State::Reconnecting,
        reason: "server_error_N",
        message: "WhatsApp answered the login with code N: its servers are in trouble.",
        again: RetryPolicy::Soon,
        fleet: true,
    },
    Row {
        arrives: &[Arrives::OtherFailures],
        state: State::Failed,
        reason: "refused_N",
        message: "WhatsApp refused the login with code N.",
        again: RetryPolicy::Slowly,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::Replaced, Arrives::StreamErrors(&[409])],
        state: State::Replaced,
        reason: "replaced",
        message: "Another process uses this session. POST /session takes it back.",
        again: RetryPolicy::OnceMore,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::StreamErrors(&[515])],
        state: State::Reconnecting,
        reason: "stream_error_N",
        message: "WhatsApp asked for a new connection (code N).",
        again: RetryPolicy::Soon,
        fleet: false,
    },
    Row {
        arrives: &[Arrives::StreamErrors(&[429, 503])],
        state: State::Reconnecting,
        reason: "stream_error_N",
        message: "WhatsApp ended the connection with code N.",
        again: RetryPolicy::Soon,
        fleet: true,
    },
    Row {
        arrives: &[Arrives::OtherStreamErrors],
        state: State::Reconnecting,
        reason: "stream_error_N",
        message: "WhatsApp reported an error on the connection (code N), and then no longer answered.",
        again: RetryPolicy::SoonIfDead,
        fleet: false,
    },
];

/// What follows from this word.
pub fn row(word: DisconnectCode) -> &'static Row {
    let fits = |row: &&Row| row.arrives.iter().any(|arrives| arrives.covers(word));
    // Every word has a row, as the last ones of their kind take all; a test goes through them.
    TABLE.iter().find(fits).unwrap_or(&TABLE[TABLE.len() - 1])
}

impl Row {
    /// The reason's identifier and its sentence as long as the word is not believed: one more login has to confirm it.
    pub fn unconfirmed(&self) -> Option<(&'static str, &'static str)> {
        match self.again {
            RetryPolicy::ToConfirm => Some((
                "logged_out_unconfirmed",
                "WhatsApp says that the device is unlinked. One more login will confirm it.",
            )),
            RetryPolicy::OnceMore => Some((
                "replaced_unconfirmed",
                "Another connection took this session's place. It may have been one that a killed process left behind: \
                 one more login will tell.",
            )),
            _ => None,
        }
    }

    /// The reason's identifier and its sentence; `detail` is the code, or the kind of a ban, where it has one.
    pub fn reason(&self, detail: Option<i32>) -> (String, String) {
        let fill = |text: &str| match detail {
            Some(detail) => text.replace('N', &detail.to_string()),
            None => text.replace("_N", "").replace(" (code N)", "").replace(" with code N", ""),
        };
        // `N` is a letter of one sentence only where it stands for the code.
        let message = if self.message.contains("code N") { fill(self.message) } else { self.message.into() };
        (fill(self.reason), message)
    }
}

impl Arrives {
    fn covers(self, word: DisconnectCode) -> bool {
        match (self, word) {
            (Self::Failures(codes), DisconnectCode::Failure(code)) => codes.contains(&code),
            (Self::StreamErrors(codes), DisconnectCode::StreamError(code)) => codes.contains(&code),
            (Self::OtherFailures, DisconnectCode::Failure(_))
            | (Self::OtherStreamErrors, DisconnectCode::StreamError(_))
            | (Self::Replaced, DisconnectCode::Replaced)
            | (Self::Removed, DisconnectCode::Removed) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
