//! What a session is right now, derived in this one place from what happened to it.
//!
//! [`Fact`]s are facts, in the order in which they happened; [`Snapshot::apply`] is the only code that turns them into
//! a state. `/status`, `/send` and `/health` all read the snapshot.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    model::session_state::{State, Status},
    net::dial::PROXY_FAILED,
    store::devices::LoginHold,
    whatsapp::{
        codes::{self, DisconnectCode, RetryPolicy},
        fact::{Fact, Said},
    },
};

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
    /// What a locked account's owner needs for an appeal.
    pub appeal_token: Option<String>,
    /// Whether it dials again by itself, when its client has stopped.
    pub again: RetryPolicy,
    /// Whether the reason is an earlier client's, shown until the present one has its own.
    old_reason: bool,
    /// Whether it was linked before, although its number is not known yet.
    linked: bool,
    /// Whether a login was refused as if the device were unlinked, and that is yet to be confirmed.
    logout_suspected: bool,
    /// When another connection last took this session's place, and that was not believed.
    pub replaced_at: Option<DateTime<Utc>>,
}

/// How long a locked account is left alone.
const LOCKED: TimeDelta = TimeDelta::hours(24);
/// How long a temporary ban is taken to last when the server does not say.
const UNKNOWN_BAN: TimeDelta = TimeDelta::hours(24);
/// The least wait after a refusal that only time can heal; the exact one is known when the client has stopped.
const SLOW_RETRY: TimeDelta = TimeDelta::seconds(60);
/// How long a session shows QR codes: the server's usual six last 160 seconds.
const PAIRING_LIMIT: Duration = Duration::from_secs(180);
/// A session that is replaced twice within this time has another owner.
const REPLACED_TWICE: TimeDelta = TimeDelta::minutes(10);
/// No ban is waited out for less, whatever the server says.
const SHORTEST_BAN: TimeDelta = TimeDelta::seconds(60);
/// No wait is longer, whatever the server says; dates far beyond it can't be written down.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(3650);

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
            appeal_token: None,
            again: RetryPolicy::Soon,
            old_reason: false,
            linked: false,
            logout_suspected: false,
            replaced_at: None,
        }
    }

    /// Takes in a fact that became known at `now`.
    pub fn apply(&mut self, signal: Fact, now: DateTime<Utc>) {
        match signal {
            Fact::Linked { phone } => (self.phone, self.linked) = (phone, true),
            Fact::Started { phone } => {
                (self.phone, self.linked) = (phone, false);
                // While it goes on failing, what is wrong stays to be seen.
                let why = self.reason.take().filter(|_| self.is_under_way());
                self.enter(self.under_way(), why, now);
                self.old_reason = true;
            }
            Fact::Held(hold) => {
                self.enter(hold.state, reason(hold.reason, hold.message), now);
                self.retry_at = hold.until.and_then(DateTime::from_timestamp_millis);
                self.appeal_token = hold.appeal_token;
                self.again = if self.retry_at.is_some() { RetryPolicy::AtExpiry } else { RetryPolicy::Never };
            }
            Fact::WasReplaced(at) => self.replaced_at = Some(at),
            // News of an attempt to connect that comes when a later one has succeeded is no news.
            Fact::DialFailed(_) | Fact::ProxyFailed(_) | Fact::CertificateRefused(_) if !self.is_under_way() => {}
            Fact::DialFailed(message) => self.explain("connection_failed", message),
            Fact::ProxyFailed(_) => self.explain("proxy_failed", PROXY_FAILED),
            Fact::CertificateRefused(message) if self.is_paired() => {
                self.explain("server_certificate_refused", message);
            }
            Fact::CertificateRefused(message) => self.fail("server_certificate_refused", message, now),
            Fact::QrCode { .. } if self.passkey.is_some() => {}
            Fact::QrCode { code, valid_for } => {
                self.qr = Some(Expiring { text: code, expires_at: after(now, valid_for) });
                if self.pairing_code.is_none() {
                    self.enter(State::PairingQr, None, now);
                }
            }
            Fact::QrExhausted { disconnected: false } => self.qr = None,
            Fact::QrExhausted { disconnected: true } => {
                self.fail("qr_expired", "Nobody scanned the QR code in time.", now);
            }
            Fact::PairingCode { code, valid_for } => {
                self.pairing_code = Some(Expiring { text: code, expires_at: after(now, valid_for) });
                self.enter(State::PairingCode, None, now);
            }
            Fact::PairingCodeRefused { message, retry_after } => {
                self.fail("pairing_code_refused", message, now);
                self.retry_at = retry_after.map(|wait| after(now, wait));
            }
            Fact::PairingCodeExpired => {
                self.fail("pairing_code_expired", "Nobody typed the pairing code in time.", now);
            }
            Fact::PasskeyRequested { options } => {
                self.passkey = Some(Passkey { options, code: None, needs_confirmation: false });
                self.enter(State::PasskeyRequired, None, now);
            }
            Fact::PasskeyCode { code, needs_confirmation } => {
                if let Some(passkey) = &mut self.passkey {
                    passkey.code = Some(code);
                    passkey.needs_confirmation = needs_confirmation;
                }
            }
            Fact::PasskeyFailed(message) => self.fail("passkey_failed", message, now),
            Fact::Paired { phone } => {
                self.phone = Some(phone);
                self.enter(State::Connecting, None, now);
            }
            Fact::PairingFailed(message) => self.fail("pairing_failed", message, now),
            Fact::Online { phone, push_name } => {
                self.phone = phone.or(self.phone.take());
                self.logout_suspected = false;
                self.set_push_name(push_name);
                // The library reports a connection twice, once when messages can flow and once when all is synced.
                if self.state != State::Ready {
                    self.connected_at = Some(now);
                    self.appeal_token = None;
                    self.enter(State::Ready, None, now);
                }
            }
            Fact::PushName(name) => self.set_push_name(name),
            Fact::Offline => match self.state {
                State::Ready => self.enter(State::Reconnecting, None, now),
                // A code dies with the connection that carried it; the next connection brings a new one.
                State::PairingQr | State::PairingCode | State::PasskeyRequired => {
                    self.enter(State::Connecting, None, now);
                }
                _ => {}
            },
            Fact::Said(said) => self.take_in(said, now),
            Fact::Stuck => {
                let why = "The connection was open, but WhatsApp neither took nor refused the login.";
                self.enter(self.under_way(), reason("connection_failed", why), now);
            }
            Fact::StorageFailed(message) => {
                self.fail("storage_failed", message, now);
                self.again = RetryPolicy::Soon;
            }
            Fact::Panicked => {
                let why = "Something in the service failed that must not; the log says where.";
                self.enter(self.under_way(), reason("internal_error", why), now);
            }
            Fact::Ended if self.state.status() == Status::Failed => {}
            Fact::Ended => {
                if !self.is_under_way() {
                    self.enter(self.under_way(), None, now);
                }
                if self.reason.is_none() || self.old_reason {
                    self.explain("connection_lost", "The connection to WhatsApp ended without a word.");
                }
            }
            Fact::Waits(until) => self.retry_at = until,
        }
    }

    /// Does what the table says.
    fn take_in(&mut self, said: Said, now: DateTime<Utc>) {
        let row = codes::row(said.word);
        if let Some((code, message)) = row.unconfirmed()
            && !self.is_confirmed(row.again, now)
        {
            self.enter(self.under_way(), reason(code, message), now);
            self.again = row.again;
            return;
        }
        let state = if row.state == State::Reconnecting { self.under_way() } else { row.state };
        let detail = match said.word {
            DisconnectCode::Failure(402) => said.ban,
            word => Some(word.code()).filter(|code| *code != 0),
        };
        let (code, message) = row.reason(detail);
        self.enter(state, reason(code, message), now);
        self.again = if row.unconfirmed().is_some() { RetryPolicy::Never } else { row.again };
        self.appeal_token = said.appeal_token;
        self.retry_at = match row.again {
            RetryPolicy::AtExpiry => Some(after(now, said.lasts.unwrap_or(UNKNOWN_BAN).max(SHORTEST_BAN))),
            RetryPolicy::Tomorrow => Some(after(now, LOCKED)),
            RetryPolicy::Slowly => Some(after(now, SLOW_RETRY)),
            _ => None,
        };
    }

    /// Whether a word that is not believed at once was heard before. From now on it was.
    fn is_confirmed(&mut self, again: RetryPolicy, now: DateTime<Utc>) -> bool {
        if again == RetryPolicy::OnceMore {
            // This process alone has the data. But a login of one that was killed may be handled after its successor's.
            // The clock may have been set meanwhile, in either direction.
            let before = self.replaced_at.replace(now);
            return before.is_some_and(|before| (now - before).abs() < REPLACED_TWICE);
        }
        // Servers have been seen to say by mistake that a device is unlinked.
        std::mem::replace(&mut self.logout_suspected, true)
    }

    /// On the way to WhatsApp, for the first time or again.
    fn under_way(&self) -> State {
        if self.connected_at.is_some() { State::Reconnecting } else { State::Connecting }
    }

    /// Whether it is on the way to WhatsApp.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, State::Connecting | State::Reconnecting)
    }

    /// Whether WhatsApp said last that the device is unlinked, confirmed or not.
    pub fn seems_unlinked(&self) -> bool {
        self.state == State::LoggedOut || self.logout_suspected
    }

    /// What a later process has to know before it dials.
    pub fn hold(&self) -> Option<LoginHold> {
        let kept = matches!(self.state, State::Banned | State::Locked | State::Replaced);
        let reason = self.reason.clone().filter(|_| kept)?;
        Some(LoginHold {
            state: self.state,
            reason: reason.code,
            message: reason.message,
            since: Some(self.since.timestamp_millis()),
            until: self.retry_at.map(|at| at.timestamp_millis()),
            appeal_token: self.appeal_token.clone(),
        })
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
            State::Failed => match self.again {
                RetryPolicy::Slowly => self.retry_at.is_some_and(|at| at <= now),
                RetryPolicy::Soon => true,
                _ => self.retry_at.is_none_or(|at| at <= now),
            },
            _ => false,
        }
    }

    /// Whether QR codes have been shown for so long, maybe over several connections, that nobody will scan them.
    pub fn pairing_is_overdue(&self, shown_for: Duration) -> bool {
        let waits = matches!(self.state, State::Connecting | State::PairingQr) && !self.is_paired();
        waits && shown_for > PAIRING_LIMIT
    }

    fn set_push_name(&mut self, name: String) {
        if !name.is_empty() {
            self.push_name = Some(name);
        }
    }

    fn fail(&mut self, code: impl Into<String>, message: impl Into<String>, now: DateTime<Utc>) {
        self.enter(State::Failed, reason(code, message), now);
    }

    /// Says why it is in its state.
    fn explain(&mut self, code: &str, message: impl Into<String>) {
        (self.reason, self.old_reason) = (reason(code, message), false);
    }

    /// Enters a state. What belonged to another state goes: no code outlives the wait that it was made for.
    fn enter(&mut self, state: State, reason: Option<Reason>, now: DateTime<Utc>) {
        if state != self.state {
            self.since = now;
        }
        self.state = state;
        (self.reason, self.old_reason) = (reason, false);
        self.retry_at = None;
        self.again = if state.status() == Status::Failed { RetryPolicy::Never } else { RetryPolicy::Soon };
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
mod tests;
