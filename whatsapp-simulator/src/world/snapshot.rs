//! The world as an onlooker sees it.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::accounts::AccountView;
use super::numbers::Phone;
use super::phone::message::ChatMessage;
use super::stats::Totals;
use super::{World, lock};

/// How many accounts, messages of each, and waiting companions a snapshot shows.
const ACCOUNTS: usize = 50;
const MESSAGES: usize = 50;
const CODES: usize = 50;

/// A companion that shows QR codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingQr {
    /// The ref that its present code carries, or its first one.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The whole text, if someone held it up.
    pub text: Option<String>,
    /// When its refs end, RFC 3339.
    pub expires_at: String,
}

/// A companion that shows a pairing code for this phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingCode {
    /// The number of the phone that the code is for.
    pub phone: Phone,
}

/// An account with its newest messages.
#[derive(Clone, Debug, Serialize)]
pub struct AccountSnapshot {
    #[serde(flatten)]
    account: AccountView,
    messages: Vec<ChatMessage>,
}

/// Everything that a page needs to draw the world.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    accounts: Vec<AccountSnapshot>,
    qr_codes: Vec<WaitingQr>,
    pair_codes: Vec<WaitingCode>,
    stats: Totals,
}

impl World {
    /// What a page needs to draw the world.
    pub fn snapshot(&self) -> Snapshot {
        let accounts = lock(&self.state)
            .accounts
            .iter()
            .take(ACCOUNTS)
            .map(|a| AccountSnapshot { account: a.view(), messages: lock(&a.handset.chat).newest(MESSAGES) })
            .collect();
        let numbers: HashMap<_, _> = {
            let waiting = lock(&self.waiting);
            let ids: Vec<_> = waiting.codes.keys().copied().collect();
            drop(waiting);
            let state = lock(&self.state);
            ids.into_iter().filter_map(|id| Some((id, state.account(id)?.number.clone()))).collect()
        };
        let waiting = lock(&self.waiting);
        let now = Instant::now();
        let mut qr_codes: Vec<WaitingQr> = waiting
            .connections
            .values()
            .filter(|u| u.code.is_none() && u.confirmation.is_none() && u.expires > now)
            .filter_map(|u| {
                let reference = u.text.as_ref().map(|(r, _)| r).or_else(|| u.refs.first())?.clone();
                let expires_at = DateTime::<Utc>::from(SystemTime::now() + u.expires.saturating_duration_since(now));
                Some(WaitingQr {
                    reference,
                    text: u.text.as_ref().map(|(_, text)| text.clone()),
                    expires_at: expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
                })
            })
            .collect();
        qr_codes.sort_by(|a, b| a.expires_at.cmp(&b.expires_at).then_with(|| a.reference.cmp(&b.reference)));
        qr_codes.truncate(CODES);
        let mut pair_codes: Vec<WaitingCode> = waiting
            .codes
            .iter()
            .filter(|(_, link)| {
                let request = waiting.connections.get(link).and_then(|u| u.code.as_ref());
                request.is_some_and(|c| c.since.elapsed() < self.config.pair_code_ttl)
            })
            .filter_map(|(id, _)| Some(WaitingCode { phone: numbers.get(id)?.clone() }))
            .collect();
        pair_codes.sort_by(|a, b| a.phone.cmp(&b.phone));
        pair_codes.truncate(CODES);
        Snapshot { accounts, qr_codes, pair_codes, stats: self.counters.read() }
    }

    /// The counters of everything.
    pub fn totals(&self) -> Totals {
        self.counters.read()
    }

    /// The counters of each account.
    pub fn totals_by_phone(&self) -> Vec<(Phone, Totals)> {
        lock(&self.state).accounts.iter().map(|a| (a.number.clone(), a.counters.read())).collect()
    }
}
