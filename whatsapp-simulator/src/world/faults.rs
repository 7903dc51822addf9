//! Trouble on demand: what goes wrong, for whom, and how often.
//!
//! Faults compose. Of two of the same kind, the one for a particular phone counts before the one for everyone; posting
//! the same kind for the same phone (or for everyone) again replaces it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lock;
use super::numbers::Phone;

/// How a login is turned down: `<failure reason=… code=… expire=…/>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginFailure {
    /// WhatsApp's reason: 401 logged out, 402 temporary ban, 403 locked, 405 outdated, 406 banned, 5xx trouble, …
    pub reason: u16,
    /// Seconds until a temporary ban ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<u64>,
    /// The kind of a temporary ban (101 to 106). Sent as 101 when there is an `expire` and no code, because clients
    /// only read a ban that has both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The one-time token that a locked account's owner needs for an appeal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal_token: Option<String>,
}

/// What the server says of an account that may not write to people it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReachoutTimelock {
    /// When the lock ends, in seconds since 1970.
    pub until: u64,
    /// WhatsApp's name for the reason, `enforcement_type`. Sent as `DEFAULT` if absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What the server says of how many more people an account may write to first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewChatQuota {
    /// How many in all.
    pub total: u32,
    /// How many of them it has written to.
    pub used: u32,
    /// When the count began, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_start: Option<u64>,
    /// When it begins anew, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_end: Option<u64>,
    /// WhatsApp's name for how it stands, `capping_status`. Sent as `CAPPED` if it is used up, and else as `NONE`, if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// One thing that goes wrong. The JSON names are those of the control API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Every frame of the server leaves this much later.
    Latency(Duration),
    /// Messages are delivered but not acknowledged.
    DropAcks,
    /// Messages are acknowledged this much later.
    AckDelay(Duration),
    /// Every message is acknowledged twice.
    DuplicateAcks,
    /// Messages are refused with this code, and not delivered.
    Nack(u16),
    /// The server takes messages of companions from the socket and loses them: neither delivered nor acknowledged.
    DropMessages,
    /// What a companion acknowledges stays queued for it all the same, and comes again with its next login.
    ForgetConfirmations,
    /// The phone acts as if it could not decrypt what it receives for the first time, and asks for it again.
    Unreadable,
    /// The server takes from the account no messages to people who have not written to it, and says so.
    ReachoutTimelock(ReachoutTimelock),
    /// The server counts the people whom the account writes to first, and takes no messages to more of them.
    NewChatQuota(NewChatQuota),
    /// The account takes no messages from people whom it has not written to.
    RefuseStrangers,
    /// What comes to the account's companions is damaged on the way.
    Garbled,
    /// A connection is cut this long after it logged in, or, if it is there already, from now.
    CloseAfter(Duration),
    /// The server no longer reads from the socket.
    StallReads,
    /// `<stream:error code=…/>`, at once and after every login.
    StreamError(String),
    /// `<stream:error><conflict type=…/>`, at once and after every login.
    StreamConflict(String),
    /// Logins are turned down.
    LoginFailure(LoginFailure),
    /// A login is handled this much later, also if its client has left by then.
    LoginDelay(Duration),
    /// Dials are refused: HTTP 503, or, for one phone, a cut after the handshake.
    RefuseConnections,
    /// The phone is switched off: what it would receive waits.
    OfflinePhone,
    /// The account is registered, and the list of its devices is empty.
    NoDevices,
    /// Receipts do not get through to the account.
    DropReceipts,
    /// Logins succeed, and then nothing is ever answered.
    SilentSuccess,
    /// The server names another way in (`edge_routing`), at once and after every login.
    EdgeRouting,
    /// A connection is cut when it has sent this many frames, handshake included.
    CutAfterFrames(u64),
    /// Files that are on the media host by now can no longer be downloaded; those that come later can.
    MediaExpired,
    /// What lets an account upload was good until now; those who ask again get another token.
    MediaTokensExpired,
    /// What is downloaded is not what was uploaded.
    MediaDamaged,
    /// The connection of an upload is cut when it has brought this many bytes.
    CutUploadAfter(u64),
    /// The media host answers this much later.
    MediaLatency(Duration),
}

/// A fault, its scope, and how often it still applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only for this account; for everyone if absent.
    pub phone: Option<Phone>,
    /// How many more times; without end if absent.
    pub times: Option<u64>,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Mutex<Vec<Fault>>,
    /// Lets the common case, no faults, pass without the lock.
    any: AtomicBool,
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        let mut list = lock(&self.list);
        let same = |f: &Fault| {
            f.phone == fault.phone && std::mem::discriminant(&f.kind) == std::mem::discriminant(&fault.kind)
        };
        list.retain(|f| !same(f));
        list.push(fault);
        self.any.store(true, Ordering::Release);
    }

    /// Removes all faults, or those of one phone.
    pub(crate) fn clear(&self, phone: Option<&Phone>) {
        let mut list = lock(&self.list);
        match phone {
            Some(phone) => list.retain(|f| f.phone.as_ref() != Some(phone)),
            None => list.clear(),
        }
        self.any.store(!list.is_empty(), Ordering::Release);
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        lock(&self.list).clone()
    }

    /// The fault that `pick` recognises for this phone, without using it up.
    pub(crate) fn peek<T>(&self, phone: Option<&Phone>, pick: impl Fn(&FaultKind) -> Option<T>) -> Option<T> {
        self.find(phone, pick, false)
    }

    /// The fault that `pick` recognises for this phone, which counts as one application.
    pub(crate) fn take<T>(&self, phone: Option<&Phone>, pick: impl Fn(&FaultKind) -> Option<T>) -> Option<T> {
        self.find(phone, pick, true)
    }

    fn find<T>(&self, phone: Option<&Phone>, pick: impl Fn(&FaultKind) -> Option<T>, use_up: bool) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut list = lock(&self.list);
        let applies = |f: &Fault| f.times != Some(0) && pick(&f.kind).is_some();
        let index = list
            .iter()
            .position(|f| f.phone.is_some() && f.phone.as_ref() == phone && applies(f))
            .or_else(|| list.iter().position(|f| f.phone.is_none() && applies(f)))?;
        let fault = list.get_mut(index)?;
        let found = pick(&fault.kind);
        if use_up && let Some(times) = &mut fault.times {
            *times = times.saturating_sub(1);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: &str = "5511999999999";

    fn phone(text: &str) -> Phone {
        Phone::parse(text).unwrap()
    }

    fn nack(kind: &FaultKind) -> Option<u16> {
        if let FaultKind::Nack(code) = kind { Some(*code) } else { None }
    }

    #[test]
    fn times_are_used_up_and_a_phone_goes_before_everyone() {
        let (faults, ana) = (Faults::default(), phone(ANA));
        faults.set(Fault { kind: FaultKind::Nack(463), phone: None, times: Some(2) });
        faults.set(Fault { kind: FaultKind::Nack(479), phone: Some(ana.clone()), times: None });
        assert_eq!(faults.take(Some(&ana), nack), Some(479));
        assert_eq!(faults.take(None, nack), Some(463));
        assert_eq!(faults.peek(None, nack), Some(463));
        assert_eq!(faults.take(Some(&phone("5511888888888")), nack), Some(463));
        assert_eq!(faults.take(None, nack), None);
        faults.clear(Some(&ana));
        assert_eq!(faults.take(Some(&ana), nack), None);
    }

    #[test]
    fn the_same_kind_for_the_same_phone_replaces() {
        let faults = Faults::default();
        for (ms, of) in [(5, None), (50, None), (7, Some(phone(ANA)))] {
            faults.set(Fault { kind: FaultKind::Latency(Duration::from_millis(ms)), phone: of, times: None });
        }
        let kinds: Vec<_> = faults.list().into_iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [50, 7].map(|ms| FaultKind::Latency(Duration::from_millis(ms))));
    }
}
