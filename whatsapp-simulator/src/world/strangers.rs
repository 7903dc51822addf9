//! Who may write to whom: what the server takes from accounts that it restricts, and for people who want no strangers.
//!
//! An established chat is one in which the other side has written: the real server knows it by the token that came with
//! that (`tctoken`).

use super::address::Address;
use super::faults::{FaultKind, NewChatQuota, ReachoutTimelock};
use super::numbers::Phone;
use super::routing::OutMessage;
use super::stanza::{Enc, Stanza};
use super::{World, lock, now};

/// WhatsApp's code for a message that its sender may not send to this person.
const RESTRICTED: u16 = 463;
/// WhatsApp's code for one message too many to somebody new.
const CAPPED: u16 = 475;

impl World {
    /// Why the server does not take this message, if it doesn't.
    pub(super) fn refusal(&self, sender: &Phone, from: Address, message: &OutMessage) -> Option<u16> {
        let recipient = {
            let state = lock(&self.state);
            let (account, _) = state.resolve(&message.to)?;
            let recipient = state.account(account)?;
            if account == from.account || recipient.written_to.contains(&from.account) {
                return None;
            }
            recipient.number.clone()
        };
        let capped = |k: &FaultKind| matches!(k, FaultKind::NewChatQuota(quota) if quota.used >= quota.total);
        let refuses = |k: &FaultKind| *k == FaultKind::RefuseStrangers;
        let locked = |k: &FaultKind| matches!(k, FaultKind::ReachoutTimelock(_));
        let applies = |phone: &Phone, of: &dyn Fn(&FaultKind) -> bool| {
            self.faults.peek(Some(phone), |kind| of(kind).then_some(())).is_some()
        };
        if applies(sender, &locked) || applies(&recipient, &refuses) {
            return Some(RESTRICTED);
        }
        applies(sender, &capped).then_some(CAPPED)
    }

    /// The limit on an account's new chats, if it has one.
    pub(crate) fn new_chat_quota(&self, at: Address) -> Option<NewChatQuota> {
        let phone = self.number_of(at.account)?;
        let quota = |k: &FaultKind| if let FaultKind::NewChatQuota(quota) = k { Some(quota.clone()) } else { None };
        self.faults.peek(Some(&phone), quota)
    }

    /// Damages what is on its way to a companion, if that is asked for.
    pub(super) fn garble(&self, to: &Phone, encs: &mut [Enc]) {
        if encs.is_empty() || self.faults.take(Some(to), |k| (*k == FaultKind::Garbled).then_some(())).is_none() {
            return;
        }
        for enc in encs {
            // A `msg` ends with its checksum. A `pkmsg` holds one, and behind it a few bytes that nobody may look at.
            let at = enc.bytes.len().saturating_sub(if enc.is_prekey() { 14 } else { 1 });
            if let Some(byte) = enc.bytes.get_mut(at) {
                *byte ^= 1;
            }
        }
    }

    /// Tells the companions of an account, or of all, what the server has just decided of what they may do.
    pub(super) fn tell_of_restriction(&self, kind: &FaultKind, phone: Option<&Phone>) {
        let (operation, data) = match kind {
            FaultKind::ReachoutTimelock(timelock) => {
                ("NotificationUserReachoutTimelockUpdate", told_timelock(timelock))
            }
            FaultKind::NewChatQuota(quota) => ("MessageCappingInfoNotification", told_quota(quota)),
            _ => return,
        };
        let mut state = lock(&self.state);
        for account in state.accounts.iter_mut().filter(|account| phone.is_none_or(|phone| account.number == *phone)) {
            for companion in account.companions.values_mut().filter(|companion| companion.line.is_connected()) {
                let stanza = Stanza::Mex { id: self.next_id(), operation, data: data.clone(), timestamp: now() };
                companion.line.deliver(stanza);
            }
        }
    }
}

/// How the server words that an account may not write to people it does not know.
pub(crate) fn timelock_json(timelock: Option<&ReachoutTimelock>) -> serde_json::Value {
    match timelock {
        Some(timelock) => serde_json::json!({
            "is_active": true,
            "time_enforcement_ends": timelock.until.to_string(),
            "enforcement_type": timelock.kind.as_deref().unwrap_or("DEFAULT"),
        }),
        None => serde_json::json!({ "is_active": false }),
    }
}

/// How the server words the limit on new chats. Clients disagree on which of these are numbers and which are texts; so
/// here are both.
pub(crate) fn quota_json(quota: Option<&NewChatQuota>) -> serde_json::Value {
    let Some(quota) = quota else { return serde_json::json!({ "capping_status": "NONE" }) };
    let is_used_up = quota.used >= quota.total;
    serde_json::json!({
        "total_quota": quota.total.to_string(),
        "used_quota": quota.used,
        "cycle_start_timestamp": quota.cycle_start.map(|at| at.to_string()),
        "cycle_end_timestamp": quota.cycle_end,
        "server_sent_timestamp": now().to_string(),
        "capping_status": quota.status.as_deref().unwrap_or(if is_used_up { "CAPPED" } else { "NONE" }),
    })
}

fn told_timelock(timelock: &ReachoutTimelock) -> String {
    serde_json::json!({ "data": { "xwa2_notify_account_reachout_timelock": timelock_json(Some(timelock)) } })
        .to_string()
}

fn told_quota(quota: &NewChatQuota) -> String {
    serde_json::json!({ "data": { "xwa2_notify_new_chat_messages_capping_info_update": quota_json(Some(quota)) } })
        .to_string()
}
