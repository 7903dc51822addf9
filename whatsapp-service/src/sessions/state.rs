//! What a session is right now, derived in this one place from what happened to it.
//!
//! [`Signal`]s are facts, in the order in which they happened; [`Snapshot::apply`] is the only code that turns them into
//! a state. `/status`, `/send` and `/health` all read the snapshot.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::Hold;

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
    /// Another process uses the same session; this one stopped and stays stopped until a person asks.
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

/// A fact about a session. The facts of the library's client come from `events`, those of the wire from `transport`.
#[derive(Clone, Debug)]
pub enum Signal {
    /// An earlier process, or an earlier client of this one, has linked it, with this phone where that is known.
    Linked { phone: Option<String> },
    /// A client starts on this store; `paired` with this phone, or not yet with any.
    Started { phone: Option<String> },
    /// An earlier process was told not to dial yet.
    Held(Hold),
    /// No connection could be opened.
    DialFailed(String),
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
    /// The server says that this device is no longer linked; `at_login` if it said so to a login.
    LoggedOut { at_login: bool },
    /// The account is locked.
    Locked,
    /// The account is banned; for this long where the server says so.
    Banned { code: Option<i32>, lasts: Option<TimeDelta> },
    /// This client's version is too old.
    Outdated,
    /// Another connection took over this session.
    Replaced,
    /// The server refused the login with this code.
    Refused { code: i32 },
    /// The store can't be opened, read or written.
    StorageFailed(String),
    /// The client has stopped for good.
    Ended,
}

/// Why a session is in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable identifier.
    pub code: String,
    /// A sentence for a person; holds no one's data.
    pub message: String,
}

/// A text that is valid for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The text.
    pub text: String,
    /// When it stops being valid.
    pub expires_at: DateTime<Utc>,
}

/// A passkey ceremony under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// The server's `PublicKeyCredentialRequestOptions`, verbatim.
    pub options: String,
    /// The code to compare with the phone's, once there is one.
    pub code: Option<String>,
    /// Whether the code waits for the person's word.
    pub needs_confirmation: bool,
}

/// All that is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: State,
    /// Since when it is in that state.
    pub since: DateTime<Utc>,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// The QR code that is valid now.
    pub qr: Option<Expiring>,
    /// The pairing code that is valid now.
    pub pairing_code: Option<Expiring>,
    /// The passkey ceremony under way.
    pub passkey: Option<Passkey>,
    /// The account's phone number, once linked.
    pub phone: Option<String>,
    /// The account's display name, once known.
    pub push_name: Option<String>,
    /// When it last became ready.
    pub connected_at: Option<DateTime<Utc>>,
    /// When it will try again by itself, if it waits for that.
    pub retry_at: Option<DateTime<Utc>>,
    /// Since when QR codes are shown, over all connections.
    pairing_since: Option<DateTime<Utc>>,
    /// Whether it was linked before, although its number is not known yet.
    linked: bool,
    /// Whether a login was refused as if the device were unlinked, and that is yet to be confirmed.
    logout_suspected: bool,
}

/// How long to leave an account alone after WhatsApp locked it, or refused this version.
const COOL_DOWN: TimeDelta = TimeDelta::hours(1);
/// How long to wait after a refusal that the library doesn't retry by itself.
const SLOW_RETRY: TimeDelta = TimeDelta::seconds(60);
/// How long a session shows QR codes: the server's usual six last 160 seconds.
const PAIRING_LIMIT: TimeDelta = TimeDelta::seconds(180);
/// No ban is waited out for less, whatever the server says.
const SHORTEST_BAN: TimeDelta = TimeDelta::seconds(60);
/// No wait is longer, whatever the server says; dates far beyond it can't be written down.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(3650);
/// How long to wait before starting a client that stopped without a reason.
const QUICK_RETRY: TimeDelta = TimeDelta::seconds(5);

impl Snapshot {
    /// A session of which nothing is known yet.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: State::Connecting,
            since: now,
            reason: None,
            qr: None,
            pairing_code: None,
            passkey: None,
            phone: None,
            push_name: None,
            connected_at: None,
            retry_at: None,
            pairing_since: None,
            linked: false,
            logout_suspected: false,
        }
    }

    /// Takes in a fact that became known at `now`.
    pub fn apply(&mut self, signal: Signal, now: DateTime<Utc>) {
        match signal {
            Signal::Linked { phone } => (self.phone, self.linked) = (phone, true),
            Signal::Started { phone } => {
                (self.phone, self.linked) = (phone, false);
                self.retry_at = None;
                let state = if self.connected_at.is_some() { State::Reconnecting } else { State::Connecting };
                self.enter(state, None, now);
            }
            Signal::Held(hold) => {
                self.enter(hold.state, reason(hold.reason, hold.message), now);
                self.retry_at = hold.until.and_then(DateTime::from_timestamp_millis);
            }
            // News of an attempt to connect that comes when a later one has succeeded is no news.
            Signal::DialFailed(_) | Signal::CertificateRefused(_)
                if !matches!(self.state, State::Connecting | State::Reconnecting) => {}
            Signal::DialFailed(message) => self.reason = reason("connection_failed", message),
            Signal::CertificateRefused(message) if self.is_paired() => {
                self.reason = reason("server_certificate_refused", message);
            }
            Signal::CertificateRefused(message) => self.fail("server_certificate_refused", message, now),
            Signal::QrCode { .. } if self.passkey.is_some() => {}
            Signal::QrCode { code, valid_for } => {
                self.pairing_since.get_or_insert(now);
                self.qr = Some(Expiring { text: code, expires_at: after(now, valid_for) });
                if self.pairing_code.is_none() {
                    self.enter(State::PairingQr, None, now);
                }
            }
            Signal::QrExhausted { disconnected: false } => self.qr = None,
            Signal::QrExhausted { disconnected: true } => {
                self.fail("qr_expired", "Nobody scanned the QR code in time.", now);
            }
            Signal::PairingCode { code, valid_for } => {
                self.pairing_code = Some(Expiring { text: code, expires_at: after(now, valid_for) });
                self.enter(State::PairingCode, None, now);
            }
            Signal::PairingCodeRefused { message, retry_after } => {
                self.fail("pairing_code_refused", message, now);
                self.retry_at = retry_after.map(|wait| after(now, wait));
            }
            Signal::PairingCodeExpired => {
                self.fail("pairing_code_expired", "Nobody typed the pairing code in time.", now);
            }
            Signal::PasskeyRequested { options } => {
                self.passkey = Some(Passkey { options, code: None, needs_confirmation: false });
                self.enter(State::PasskeyRequired, None, now);
            }
            Signal::PasskeyCode { code, needs_confirmation } => {
                if let Some(passkey) = &mut self.passkey {
                    passkey.code = Some(code);
                    passkey.needs_confirmation = needs_confirmation;
                }
            }
            Signal::PasskeyFailed(message) => self.fail("passkey_failed", message, now),
            Signal::Paired { phone } => {
                self.phone = Some(phone);
                self.enter(State::Connecting, None, now);
            }
            Signal::PairingFailed(message) => self.fail("pairing_failed", message, now),
            Signal::Online { phone, push_name } => {
                self.phone = phone.or(self.phone.take());
                (self.logout_suspected, self.pairing_since) = (false, None);
                self.set_push_name(push_name);
                // The library reports a connection twice, once when messages can flow and once when all is synced.
                if self.state != State::Ready {
                    self.connected_at = Some(now);
                    self.enter(State::Ready, None, now);
                }
            }
            Signal::PushName(name) => self.set_push_name(name),
            Signal::Offline => match self.state {
                State::Ready => self.enter(State::Reconnecting, None, now),
                // A code dies with the connection that carried it; the next connection brings a new one.
                State::PairingQr | State::PairingCode | State::PasskeyRequired => {
                    self.enter(State::Connecting, None, now);
                }
                _ => {}
            },
            // Servers have been seen to refuse a login like this by mistake: one more login has to confirm it.
            Signal::LoggedOut { at_login: true } if !self.logout_suspected => {
                self.logout_suspected = true;
                let why = "WhatsApp refused the login as if the device were unlinked. One more login will confirm it.";
                self.enter(State::Reconnecting, reason("logged_out_unconfirmed", why), now);
            }
            Signal::LoggedOut { .. } => {
                self.enter(State::LoggedOut, reason("logged_out", "The device was unlinked from the account."), now);
            }
            Signal::Locked => {
                self.enter(State::Locked, reason("account_locked", "WhatsApp locked the account."), now);
                self.retry_at = Some(after(now, COOL_DOWN));
            }
            Signal::Banned { code, lasts } => {
                let id = code.map_or("account_banned".into(), |code| format!("account_banned_{code}"));
                self.enter(State::Banned, reason(id, "WhatsApp banned the account."), now);
                self.retry_at = lasts.map(|lasts| after(now, lasts.max(SHORTEST_BAN)));
            }
            Signal::Outdated => {
                let why = "WhatsApp no longer accepts this client's version.";
                self.enter(State::Outdated, reason("client_outdated", why), now);
                self.retry_at = Some(after(now, COOL_DOWN));
            }
            Signal::Replaced => {
                let why = "Another process uses this session. POST /session takes it back.";
                self.enter(State::Replaced, reason("replaced", why), now);
            }
            Signal::Refused { code } => {
                self.fail(format!("refused_{code}"), format!("WhatsApp refused the login with code {code}."), now);
                self.retry_at = Some(now + SLOW_RETRY);
            }
            Signal::StorageFailed(message) => {
                self.fail("storage_failed", message, now);
                self.retry_at = Some(now + SLOW_RETRY);
            }
            Signal::Ended => {
                if self.state.status() != Status::Failed {
                    self.apply(Signal::Offline, now);
                    self.retry_at = Some(now + QUICK_RETRY);
                }
            }
        }
    }

    /// What a later process has to know before it dials.
    pub fn hold(&self) -> Option<Hold> {
        let reason = self.reason.clone().filter(|_| matches!(self.state, State::Banned | State::Locked))?;
        let until = self.retry_at.map(|at| at.timestamp_millis());
        Some(Hold { state: self.state, reason: reason.code, message: reason.message, until })
    }

    /// Whether it is linked to an account.
    pub fn is_paired(&self) -> bool {
        self.phone.is_some() || self.linked
    }

    /// Whether the client has nothing left to do in this state and is to be stopped.
    pub fn stops_client(&self) -> bool {
        self.state.status() == Status::Failed
    }

    /// Whether `POST /session` starts it again. What the server refused is not healed by dialling more often: it has
    /// to wait for its time, and a ban, a lock or an old version is not opened by asking at all.
    pub fn can_be_reopened(&self, now: DateTime<Utc>) -> bool {
        match self.state {
            State::LoggedOut | State::Replaced => true,
            State::Failed => {
                let local = self.reason.as_ref().is_some_and(|reason| reason.code == "storage_failed");
                local || self.retry_at.is_none_or(|at| at <= now)
            }
            _ => false,
        }
    }

    /// Whether QR codes have been shown for so long, maybe over several connections, that nobody will scan them.
    pub fn pairing_is_overdue(&self, now: DateTime<Utc>) -> bool {
        let waits = matches!(self.state, State::Connecting | State::PairingQr) && !self.is_paired();
        waits && self.pairing_since.is_some_and(|since| now - since > PAIRING_LIMIT)
    }

    fn set_push_name(&mut self, name: String) {
        if !name.is_empty() {
            self.push_name = Some(name);
        }
    }

    fn fail(&mut self, code: impl Into<String>, message: impl Into<String>, now: DateTime<Utc>) {
        self.enter(State::Failed, reason(code, message), now);
    }

    /// Enters a state. What belonged to another state goes: no code outlives the wait that it was made for.
    fn enter(&mut self, state: State, reason: Option<Reason>, now: DateTime<Utc>) {
        if state != self.state {
            self.since = now;
        }
        self.state = state;
        self.reason = reason;
        self.retry_at = None;
        match state {
            State::PairingQr => (self.pairing_code, self.passkey) = (None, None),
            State::PairingCode => self.passkey = None,
            State::PasskeyRequired => (self.qr, self.pairing_code) = (None, None),
            _ => (self.qr, self.pairing_code, self.passkey) = (None, None, None),
        }
    }
}

fn after(now: DateTime<Utc>, wait: TimeDelta) -> DateTime<Utc> {
    now + wait.min(LONGEST_WAIT)
}

fn reason(code: impl Into<String>, message: impl Into<String>) -> Option<Reason> {
    Some(Reason { code: code.into(), message: message.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn snapshot_after(signals: impl IntoIterator<Item = Signal>) -> Snapshot {
        let mut snapshot = Snapshot::new(at(0));
        for (second, signal) in (1..).zip(signals) {
            snapshot.apply(signal, at(second));
        }
        snapshot
    }

    fn qr(code: &str) -> Signal {
        Signal::QrCode { code: code.into(), valid_for: TimeDelta::seconds(20) }
    }

    fn code(code: &str) -> Signal {
        Signal::PairingCode { code: code.into(), valid_for: TimeDelta::seconds(180) }
    }

    fn online() -> Signal {
        Signal::Online { phone: Some("5511999999999".into()), push_name: "Ana".into() }
    }

    fn reason_of(snapshot: &Snapshot) -> Option<&str> {
        snapshot.reason.as_ref().map(|reason| reason.code.as_str())
    }

    #[test]
    fn a_new_qr_code_takes_the_place_of_the_old_one() {
        let snapshot = snapshot_after([qr("first"), qr("second")]);
        assert_eq!(snapshot.state, State::PairingQr);
        assert_eq!(snapshot.since, at(1), "the state did not change with the second code");
        assert_eq!(snapshot.qr, Some(Expiring { text: "second".into(), expires_at: at(22) }));
    }

    #[test]
    fn a_scanned_code_is_gone_at_once() {
        let snapshot = snapshot_after([qr("code"), Signal::Paired { phone: "5511999999999".into() }]);
        assert_eq!((snapshot.state, snapshot.qr), (State::Connecting, None));
        assert_eq!(snapshot.phone.as_deref(), Some("5511999999999"));
    }

    #[test]
    fn qr_codes_that_ran_out_say_so_and_can_be_asked_for_again() {
        let snapshot = snapshot_after([qr("code"), Signal::QrExhausted { disconnected: true }]);
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("qr_expired")));
        assert!(snapshot.qr.is_none() && snapshot.stops_client() && snapshot.can_be_reopened(at(9)));
    }

    #[test]
    fn a_pairing_code_outlives_the_qr_codes_beside_it() {
        let snapshot =
            snapshot_after([qr("a"), code("ABCD1234"), qr("b"), Signal::QrExhausted { disconnected: false }]);
        assert_eq!(snapshot.state, State::PairingCode);
        assert_eq!(snapshot.pairing_code.unwrap().text, "ABCD1234");
        assert!(snapshot.qr.is_none());
    }

    #[test]
    fn a_pairing_code_is_not_renewed_by_itself() {
        let snapshot = snapshot_after([qr("a"), code("ABCD1234"), Signal::PairingCodeExpired]);
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("pairing_code_expired")));
        assert!(snapshot.pairing_code.is_none() && snapshot.qr.is_none());
    }

    #[test]
    fn ready_is_entered_once_and_kept() {
        let mut snapshot = snapshot_after([online()]);
        assert_eq!((snapshot.state, snapshot.connected_at), (State::Ready, Some(at(1))));
        snapshot.apply(online(), at(9));
        assert_eq!(snapshot.connected_at, Some(at(1)), "the second report of one connection changes nothing");
    }

    #[test]
    fn a_lost_connection_is_not_ready_and_comes_back() {
        let mut snapshot = snapshot_after([online(), Signal::DialFailed("late news".into())]);
        assert_eq!((snapshot.state, &snapshot.reason), (State::Ready, &None));
        snapshot.apply(Signal::Offline, at(2));
        assert_eq!(snapshot.state, State::Reconnecting);
        assert_eq!(snapshot.state.status(), Status::Initializing);
        snapshot.apply(Signal::DialFailed("refused".into()), at(3));
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Reconnecting, Some("connection_failed")));
        snapshot.apply(online(), at(4));
        assert_eq!((snapshot.state, snapshot.connected_at, snapshot.reason), (State::Ready, Some(at(4)), None));
    }

    #[test]
    fn a_code_dies_with_its_connection() {
        let snapshot = snapshot_after([qr("code"), Signal::Offline]);
        assert_eq!((snapshot.state, snapshot.qr), (State::Connecting, None));
    }

    #[test]
    fn a_passkey_is_asked_for_compared_and_forgotten() {
        let mut snapshot =
            snapshot_after([qr("a"), Signal::PasskeyRequested { options: r#"{"challenge":"x"}"#.into() }]);
        assert_eq!(snapshot.state, State::PasskeyRequired);
        assert!(snapshot.qr.is_none());
        snapshot.apply(Signal::PasskeyCode { code: "ABCD-1234".into(), needs_confirmation: true }, at(3));
        let passkey = snapshot.passkey.clone().unwrap();
        assert_eq!(passkey.options, r#"{"challenge":"x"}"#);
        assert_eq!((passkey.code.as_deref(), passkey.needs_confirmation), (Some("ABCD-1234"), true));
        snapshot.apply(Signal::Paired { phone: "5511999999999".into() }, at(4));
        assert!(snapshot.passkey.is_none());
    }

    #[test]
    fn a_failed_passkey_says_why() {
        let asked = Signal::PasskeyRequested { options: "{}".into() };
        let snapshot = snapshot_after([asked, Signal::PasskeyFailed("cancelled".into())]);
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("passkey_failed")));
    }

    #[test]
    fn a_ban_waits_out_its_time() {
        let lasts = Some(TimeDelta::seconds(60));
        let snapshot = snapshot_after([online(), Signal::Banned { code: Some(101), lasts }]);
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Banned, Some("account_banned_101")));
        assert_eq!(snapshot.retry_at, Some(at(62)));
        assert!(snapshot.is_paired() && !snapshot.can_be_reopened(at(9)));
    }

    #[test]
    fn no_ban_is_waited_out_in_a_hurry_or_beyond_all_dates() {
        for (lasts, waits) in [(0, 60), (-5, 60), (61, 61), (i64::MAX / 1000, 3650 * 24 * 3600)] {
            let lasts = Some(TimeDelta::seconds(lasts));
            let snapshot = snapshot_after([online(), Signal::Banned { code: None, lasts }]);
            assert_eq!(snapshot.retry_at, Some(at(2 + waits)));
        }
    }

    #[test]
    fn a_ban_is_the_same_for_the_next_process() {
        for signal in [Signal::Banned { code: Some(101), lasts: Some(TimeDelta::hours(1)) }, Signal::Locked] {
            let before = snapshot_after([online(), signal]);
            let hold = before.hold().unwrap();
            assert!(hold.is_in_force(at(0)) && !hold.is_in_force(before.retry_at.unwrap()));
            let after = snapshot_after([Signal::Held(hold)]);
            assert_eq!((after.state, after.reason, after.retry_at), (before.state, before.reason, before.retry_at));
        }
        assert_eq!(snapshot_after([online()]).hold(), None);
    }

    #[test]
    fn one_refused_login_is_not_yet_a_logout() {
        let refused = || Signal::LoggedOut { at_login: true };
        let mut snapshot = snapshot_after([online(), Signal::Offline, refused(), Signal::Ended]);
        assert_eq!((snapshot.state, snapshot.retry_at), (State::Reconnecting, Some(at(9))));
        let mut confirmed = snapshot.clone();
        confirmed.apply(refused(), at(9));
        assert_eq!((confirmed.state, reason_of(&confirmed)), (State::LoggedOut, Some("logged_out")));
        snapshot.apply(online(), at(9));
        snapshot.apply(Signal::Offline, at(10));
        snapshot.apply(refused(), at(11));
        assert_eq!(snapshot.state, State::Reconnecting, "a login in between starts the count anew");
    }

    #[test]
    fn qr_codes_are_not_shown_for_ever() {
        let mut snapshot = snapshot_after([qr("a"), Signal::Offline, qr("b")]);
        assert!(!snapshot.pairing_is_overdue(at(181)) && snapshot.pairing_is_overdue(at(182)));
        snapshot.apply(code("ABCD1234"), at(100));
        assert!(!snapshot.pairing_is_overdue(at(182)), "a pairing code has its own time");
        snapshot.apply(online(), at(101));
        assert!(!snapshot.pairing_is_overdue(at(999)));
    }

    #[test]
    fn a_passkey_does_not_outlive_its_connection() {
        let asked = Signal::PasskeyRequested { options: "{}".into() };
        let mut snapshot = snapshot_after([qr("a"), asked, qr("b")]);
        assert_eq!((snapshot.state, &snapshot.qr), (State::PasskeyRequired, &None));
        snapshot.apply(Signal::QrExhausted { disconnected: true }, at(4));
        assert_eq!((snapshot.state, reason_of(&snapshot)), (State::Failed, Some("qr_expired")));
    }

    #[test]
    fn a_ban_for_good_waits_for_a_person() {
        let snapshot = snapshot_after([online(), Signal::Banned { code: None, lasts: None }]);
        assert_eq!((snapshot.state, snapshot.retry_at), (State::Banned, None));
    }

    #[test]
    fn the_states_that_the_server_decides() {
        for (signal, state, retries, reopens) in [
            (Signal::LoggedOut { at_login: false }, State::LoggedOut, false, true),
            (Signal::Locked, State::Locked, true, false),
            (Signal::Outdated, State::Outdated, true, false),
            (Signal::Replaced, State::Replaced, false, true),
            (Signal::Refused { code: 428 }, State::Failed, true, false),
            (Signal::StorageFailed("disk full".into()), State::Failed, true, true),
        ] {
            let mut snapshot = snapshot_after([online(), signal]);
            snapshot.apply(Signal::Ended, at(3));
            assert_eq!(snapshot.state, state, "the end that follows changes nothing");
            assert_eq!(snapshot.state.status(), Status::Failed);
            assert_eq!(snapshot.retry_at.is_some(), retries, "{state:?}");
            assert_eq!(snapshot.can_be_reopened(at(9)), reopens, "{state:?}");
            assert!(snapshot.reason.is_some() && snapshot.stops_client());
        }
    }

    #[test]
    fn an_end_without_a_reason_is_retried() {
        let snapshot = snapshot_after([online(), Signal::Ended]);
        assert_eq!((snapshot.state, snapshot.retry_at), (State::Reconnecting, Some(at(7))));
    }

    #[test]
    fn a_forged_server_stops_a_pairing_but_not_a_paired_session() {
        let refused = || Signal::CertificateRefused("not signed by WhatsApp".into());
        let fresh = snapshot_after([Signal::Started { phone: None }, refused()]);
        assert_eq!((fresh.state, reason_of(&fresh)), (State::Failed, Some("server_certificate_refused")));
        let paired = snapshot_after([Signal::Started { phone: Some("5511999999999".into()) }, refused()]);
        assert_eq!((paired.state, reason_of(&paired)), (State::Connecting, Some("server_certificate_refused")));
    }

    #[test]
    fn the_words_in_answers_are_the_names_of_the_states() {
        for state in [State::PairingQr, State::LoggedOut, State::PasskeyRequired, State::Ready] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
