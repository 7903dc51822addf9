//! Calls that nobody answered. The service takes none: it only hears that one rang, and how that ended.

use std::{collections::VecDeque, sync::Arc};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use whatsapp_rust::{
    Client, Jid,
    types::call::{CallAction, IncomingCall, MissedCall as CallMissed},
};

use crate::{
    model::event::EventKind,
    util::clock,
    whatsapp::{
        decode::{bounded::bounded, user},
        inbound::Inbound,
    },
};

/// How many calls are remembered that ring, and as many that have ended.
const REMEMBERED: usize = 100;
/// Why a call ended that nobody answered; no reason is one too. Other reasons (`accepted_elsewhere`,
/// `rejected_elsewhere`) say that somebody did something about it.
const UNANSWERED: [&str; 2] = ["timeout", "group_call_ended"];

/// What the event log says of a call that nobody answered.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissedCall<'a> {
    /// The call's id at WhatsApp.
    id: &'a str,
    /// Whether it was a video call, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    video: Option<bool>,
    /// The caller's phone number, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// WhatsApp's other name for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_lid: Option<String>,
    /// The name that the caller goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_name: Option<&'a str>,
    chat: String,
    /// When WhatsApp said that it was over, by its clock; of one that rang while the session had no connection, when it
    /// rang.
    #[serde(serialize_with = "clock::serialize")]
    timestamp: DateTime<Utc>,
    /// Whether it rang while the session had no connection.
    offline: bool,
    /// Whether something in it was too long and is not all here; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    truncated: bool,
}

/// A call that rings.
#[derive(Clone, Default)]
pub struct Ringing {
    id: String,
    video: Option<bool>,
    number: Option<Jid>,
    name: Option<String>,
}

/// How a call ended.
#[derive(Clone)]
struct Ended {
    id: String,
    unanswered: bool,
    from: Jid,
    timestamp: DateTime<Utc>,
    offline: bool,
}

/// The calls of late: those that ring, and those of which the end came first. The library passes the two on side by side.
#[derive(Default)]
pub struct Calls {
    ringing: VecDeque<Ringing>,
    ended: VecDeque<Ended>,
}

impl Calls {
    /// A call rings. Gives it back with its end, if that is known.
    fn rings(&mut self, call: Ringing) -> Option<(Ringing, Ended)> {
        if let Some(at) = self.ended.iter().position(|ended| ended.id == call.id) {
            return Some((call, self.ended.remove(at)?));
        }
        remember(&mut self.ringing, call);
        None
    }

    /// A call has ended. Gives that back with the call, if it rang.
    fn ends(&mut self, ended: Ended) -> Option<(Ringing, Ended)> {
        if let Some(at) = self.ringing.iter().position(|call| call.id == ended.id) {
            return Some((self.ringing.remove(at)?, ended));
        }
        if ended.offline {
            // A kill may have come between the two: then nothing is known but that it is over.
            return Some((Ringing { id: ended.id.clone(), ..Ringing::default() }, ended));
        }
        remember(&mut self.ended, ended);
        None
    }
}

fn remember<T>(calls: &mut VecDeque<T>, call: T) {
    if calls.len() >= REMEMBERED {
        calls.pop_front();
    }
    calls.push_back(call);
}

impl Inbound {
    /// Takes in that somebody calls, or does not any more. What is told is on the disk when this returns.
    pub fn call(&self, call: &IncomingCall) {
        let over = match &call.action {
            CallAction::Offer { call_id, caller_pn, is_video, .. } => {
                let (id, number, name) = (call_id.clone(), caller_pn.clone(), call.notify.clone());
                self.mailbox.calls.lock().rings(Ringing { id, video: Some(*is_video), number, name })
            }
            CallAction::Terminate { call_id, call_creator, reason, .. } => {
                let unanswered = reason.as_deref().is_none_or(|reason| UNANSWERED.contains(&reason));
                let (id, from) = (call_id.clone(), call_creator.clone());
                let ended = Ended { id, unanswered, from, timestamp: call.timestamp, offline: call.offline };
                self.mailbox.calls.lock().ends(ended)
            }
            _ => None,
        };
        if let Some((rang, Ended { unanswered: true, from, timestamp, offline, .. })) = over {
            self.missed(rang, from, timestamp, offline);
        }
    }

    /// Takes in that somebody called while there was no connection.
    pub fn missed_call(&self, call: &CallMissed) {
        let rang = Ringing { id: call.call_id.clone(), ..Ringing::default() };
        self.missed(rang, call.from.clone(), call.timestamp, true);
    }

    fn missed(&self, rang: Ringing, from: Jid, timestamp: DateTime<Utc>, offline: bool) {
        let (Some(receiver), client) = (self.receiver.upgrade(), self.wire.client()) else { return };
        self.before_it_is_confirmed(async move {
            if let Some((identity, data)) = missed(client.as_ref(), &rang, &from, timestamp, offline).await {
                receiver.once(identity, EventKind::CallMissed, data).await;
            }
        });
    }
}

/// What is told of a call that nobody answered; nothing of one of the account's own.
async fn missed(
    client: Option<&Arc<Client>>,
    rang: &Ringing,
    from: &Jid,
    timestamp: DateTime<Utc>,
    offline: bool,
) -> Option<([String; 3], Value)> {
    if client.is_some_and(|client| is_own(client, from)) {
        return None;
    }
    let other = match client {
        Some(client) => client.get_lid_pn_entry(from).await.ok().flatten(),
        None => None,
    };
    let [lid, number] = match &other {
        Some(entry) => [Some(Jid::lid(&*entry.lid)), Some(Jid::pn(&*entry.phone_number))],
        None => [None, rang.number.clone()],
    };
    let names = [Some(from), lid.as_ref(), number.as_ref()];
    let chat = from.to_non_ad().to_string();
    let data = bounded(json!(MissedCall {
        id: &rang.id,
        video: rang.video,
        from: user(&names, Jid::is_pn),
        from_lid: user(&names, Jid::is_lid),
        from_name: rang.name.as_deref().filter(|name| !name.is_empty()),
        chat: chat.clone(),
        timestamp,
        offline,
        truncated: false,
    }));
    let identity = ["call".to_owned(), chat, rang.id.clone()];
    Some((identity, data))
}

fn is_own(client: &Client, jid: &Jid) -> bool {
    [client.pn(), client.lid()].iter().flatten().any(|own| own.user == jid.user && own.server == jid.server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ringing(id: usize) -> Ringing {
        Ringing { id: id.to_string(), ..Ringing::default() }
    }

    fn ended(id: usize, offline: bool) -> Ended {
        Ended { id: id.to_string(), unanswered: true, from: Jid::pn("1"), timestamp: Utc::now(), offline }
    }

    #[test]
    fn a_call_and_its_end_find_each_other_whichever_comes_first() {
        let mut calls = Calls::default();
        assert!(calls.rings(ringing(1)).is_none() && calls.ends(ended(1, false)).is_some());
        assert!(calls.ends(ended(2, false)).is_none() && calls.rings(ringing(2)).is_some());
        assert!(calls.ends(ended(1, false)).is_none(), "it has ended before");
        assert!(calls.ends(ended(3, true)).is_some(), "it rang before a kill");
    }

    #[test]
    fn only_so_many_calls_are_remembered() {
        let mut calls = Calls::default();
        (0..=REMEMBERED).for_each(|id| drop(calls.rings(ringing(id))));
        assert!(calls.ends(ended(0, false)).is_none() && calls.ends(ended(1, false)).is_some());
        (0..=REMEMBERED).for_each(|id| drop(calls.ends(ended(1_000 + id, false))));
        assert_eq!((calls.ringing.len(), calls.ended.len()), (REMEMBERED - 1, REMEMBERED));
    }
}
