//! Logged-in connections: coming, going, and what the faults do to them.

use std::collections::HashMap;
use std::time::Duration;

use super::address::{Address, Addressing};
use super::faults::{Fault, FaultKind, LoginFailure};
use super::keys::Key;
use super::numbers::Phone;
use super::queue::Link;
use super::stanza::{Confirmation, Stanza};
use super::stats::{bump, drop_one};
use super::{State, World, lock, now};

/// The pause between a last word and the end of a connection, so that the word arrives.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Stream errors after which the server itself ends the connection. After the others it stays open, and silent.
const CLOSING_ERRORS: [&str; 4] = ["401", "409", "515", "516"];

#[derive(Debug)]
struct Session {
    phone: Phone,
    link: Link,
}

/// The logged-in connections, by link.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: HashMap<u64, Session>,
}

/// What a login comes to.
#[derive(Debug)]
pub(crate) enum Login {
    Welcome {
        at: Address,
        phone: Phone,
        lid: String,
        created: i64,
    },
    Refused(LoginFailure),
    /// Cut without a word.
    Cut,
}

/// What became of a fault that was just posted or is met at login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    /// The server said its last word; whatever else comes from the client is not answered.
    LastWord,
}

impl World {
    /// Waits as long as a fault says that a login is not handled yet. Nobody notices meanwhile whether its client left.
    pub(crate) async fn delay_login(&self, username: u64) {
        let phone = Phone::parse(&username.to_string()).ok();
        let delay = |k: &FaultKind| if let FaultKind::LoginDelay(d) = k { Some(*d) } else { None };
        if let Some(delay) = self.faults.take(phone.as_ref(), delay) {
            tokio::time::sleep(delay).await;
        }
    }

    /// A device logs in.
    pub(crate) fn login(&self, username: u64, device: u16, noise_key: Key, link: &Link, ik: bool) -> Login {
        const UNKNOWN: Login =
            Login::Refused(LoginFailure { reason: 401, expire: None, code: None, appeal_token: None });
        let Ok(phone) = Phone::parse(&username.to_string()) else { return UNKNOWN };
        let welcome = {
            let mut state = lock(&self.state);
            let Some(id) = state.registered(&phone) else { return UNKNOWN };
            let at = Address::new(id, device);
            let Some(account) = state.account_mut(id) else { return UNKNOWN };
            bump(&account.counters.dials);
            if ik {
                bump(&account.counters.ik_handshakes);
            }
            let (lid, counters) = (account.names.device(Addressing::Lid, device).to_string(), account.counters.clone());
            let created = account.key_indexes.1;
            let Some(companion) = account.companions.get_mut(&device).filter(|c| c.noise_key == noise_key) else {
                return UNKNOWN;
            };
            if self.faults.take(Some(&phone), |k| matches!(k, FaultKind::RefuseConnections).then_some(())).is_some() {
                bump(&counters.refused);
                return Login::Cut;
            }
            let failure = |k: &FaultKind| if let FaultKind::LoginFailure(f) = k { Some(f.clone()) } else { None };
            if let Some(failure) = self.faults.take(Some(&phone), failure) {
                return Login::Refused(failure);
            }
            bump(&counters.logins);
            bump(&counters.connections);
            if let Some(before) = companion.line.connect(link.clone()) {
                before.send(Stanza::Conflict { kind: "replaced".to_owned() });
                before.close(LAST_WORD);
                lock(&self.sessions).live.remove(&before.id);
                drop_one(&counters.connections);
            }
            Login::Welcome { at, phone: phone.clone(), lid, created }
        };
        bump(&self.counters.logins);
        lock(&self.sessions).live.insert(link.id, Session { phone, link: link.clone() });
        self.changed();
        welcome
    }

    /// A connection is gone.
    pub(crate) fn logout(&self, at: Address, link: u64) {
        lock(&self.sessions).live.remove(&link);
        let mut state = lock(&self.state);
        let Some(account) = state.account_mut(at.account) else { return };
        let Some(companion) = account.companions.get_mut(&at.device) else { return };
        if companion.line.disconnect(link) {
            drop_one(&account.counters.connections);
            if companion.available {
                companion.available = false;
                account.last_seen = Some(now());
                self.announce_presence(&mut state, at.account);
            }
        }
        drop(state);
        self.changed();
    }

    /// The client wants to be active: the backlog begins. Returns whether some of it waits to be asked for.
    pub(crate) fn activate(&self, at: Address) -> bool {
        lock(&self.state).companion_mut(at).is_some_and(|c| c.line.activate())
    }

    /// The client asks for more of the backlog.
    pub(crate) fn request_batch(&self, at: Address, count: usize) {
        if let Some(companion) = lock(&self.state).companion_mut(at) {
            companion.line.request_batch(count);
        }
    }

    /// How often the client asked for more of a backlog that is not yet through.
    pub(crate) fn backlog_requests(&self, at: Address) -> Option<u64> {
        lock(&self.state).companion_mut(at)?.line.drain_requests()
    }

    /// The client acknowledged a stanza of the server.
    pub(crate) fn confirm(&self, at: Address, confirmation: &Confirmation) {
        let mut state = lock(&self.state);
        if !self.forgets_confirmations(&state, at)
            && let Some(companion) = state.companion_mut(at)
        {
            companion.line.confirm(confirmation);
        }
    }

    /// Whether what this client acknowledges stays queued for it.
    pub(super) fn forgets_confirmations(&self, state: &State, at: Address) -> bool {
        let phone = state.account(at.account).map(|account| &account.number);
        let forgets = |kind: &FaultKind| (*kind == FaultKind::ForgetConfirmations).then_some(());
        self.faults.peek(phone, forgets).is_some()
    }

    /// Puts a fault in force. Stream errors and closings also meet the connections that are there.
    pub fn add_fault(&self, fault: Fault) {
        let immediate = matches!(
            fault.kind,
            FaultKind::StreamError(_)
                | FaultKind::StreamConflict(_)
                | FaultKind::CloseAfter(_)
                | FaultKind::EdgeRouting
        );
        if fault.kind == FaultKind::MediaExpired {
            self.media.age();
        }
        if fault.kind == FaultKind::MediaTokensExpired {
            self.media.expire_tokens();
        }
        self.faults.set(fault.clone());
        self.tell_of_restriction(&fault.kind, fault.phone.as_ref());
        if immediate {
            let live: Vec<(Phone, Link)> = lock(&self.sessions)
                .live
                .values()
                .filter(|s| fault.phone.as_ref().is_none_or(|p| *p == s.phone))
                .map(|s| (s.phone.clone(), s.link.clone()))
                .collect();
            for (phone, link) in live {
                self.trouble(&phone, &link);
            }
        }
        self.changed();
    }

    /// The faults in force.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.list()
    }

    /// Ends all faults, or those of one phone. Phones that were off read what has come in.
    pub fn clear_faults(&self, phone: Option<&Phone>) {
        self.faults.clear(phone);
        let phones: Vec<_> = lock(&self.state).accounts.iter().map(|a| a.id).collect();
        for account in phones {
            self.work(account);
        }
        self.changed();
    }

    /// What the faults hold for a connection that has just logged in, or is logged in while one is posted.
    pub(crate) fn trouble(&self, phone: &Phone, link: &Link) -> Sent {
        let close_after = |k: &FaultKind| if let FaultKind::CloseAfter(d) = k { Some(*d) } else { None };
        if let Some(after) = self.faults.take(Some(phone), close_after) {
            link.close(after);
        }
        if self.faults.take(Some(phone), |k| (*k == FaultKind::EdgeRouting).then_some(())).is_some() {
            link.send(Stanza::EdgeRouting { routing: rand::random::<[u8; 8]>().to_vec() });
        }
        let conflict = |k: &FaultKind| if let FaultKind::StreamConflict(c) = k { Some(c.clone()) } else { None };
        if let Some(kind) = self.faults.take(Some(phone), conflict) {
            link.send(Stanza::Conflict { kind });
            link.close(LAST_WORD);
            return Sent::LastWord;
        }
        let error = |k: &FaultKind| if let FaultKind::StreamError(c) = k { Some(c.clone()) } else { None };
        if let Some(code) = self.faults.take(Some(phone), error) {
            let closing = CLOSING_ERRORS.contains(&code.as_str());
            link.send(Stanza::StreamError { code });
            link.silence();
            if closing {
                link.close(LAST_WORD);
            }
            return Sent::LastWord;
        }
        Sent::Nothing
    }
}
