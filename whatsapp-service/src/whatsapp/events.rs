//! The library's events, turned into our facts. The only file that names them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use whatsapp_rust::types::events::{
    ConnectFailureReason, Event, EventHandler, EventInterest, EventKind, LoggedOut, Receipt,
};
use whatsapp_rust::types::message::MessageSource;
use whatsapp_rust::types::presence::ReceiptType;
use whatsapp_rust::wacore_binary::NodeRef;

use crate::{
    metrics,
    model::message::MessageStatus,
    whatsapp::{
        calls::Calls,
        codes::DisconnectCode,
        fact::{Fact, Said},
        inbound::Inbound,
    },
};

/// What the server said to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// When the server took it, by its own clock.
    pub timestamp: Option<DateTime<Utc>>,
    /// Why it did not take it: WhatsApp's code.
    pub error: Option<String>,
}

/// What a session needs to hear of the library's events, apart from its signals.
#[derive(Default)]
pub struct Mailbox {
    /// By message: those who wait for the server's word on it, in the order in which they sent it.
    acks: Mutex<HashMap<String, VecDeque<oneshot::Sender<Ack>>>>,
    /// Calls that ring.
    pub(in crate::whatsapp) calls: Mutex<Calls>,
    /// Messages from others that were decrypted, since this process started.
    pub received: AtomicU64,
}

impl Mailbox {
    /// Expects the server's word on message `id`. Ask before sending: the word may come at once.
    pub fn expect_ack(&self, id: &str) -> oneshot::Receiver<Ack> {
        let (sender, receiver) = oneshot::channel();
        let mut acks = self.lock();
        // Those that gave up waiting go first, so that the map can't grow with lost acknowledgements.
        acks.retain(|_, waiting| {
            waiting.retain(|one| !one.is_closed());
            !waiting.is_empty()
        });
        acks.entry(id.to_owned()).or_default().push_back(sender);
        receiver
    }

    /// Hands the word to the first one who waits for it, or back if nobody does.
    fn acknowledge(&self, id: &str, mut ack: Ack) -> Result<(), Ack> {
        let mut acks = self.lock();
        let Some(waiting) = acks.get_mut(id) else { return Err(ack) };
        let mut taken = false;
        while !taken && let Some(one) = waiting.pop_front() {
            match one.send(ack.clone()) {
                Ok(()) => taken = true,
                Err(back) => ack = back,
            }
        }
        if waiting.is_empty() {
            acks.remove(id);
        }
        if taken { Ok(()) } else { Err(ack) }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, VecDeque<oneshot::Sender<Ack>>>> {
        self.acks.lock()
    }
}

/// Hears one client's events and passes them on, in order and without loss: the library's own ordered delivery drops
/// events when its queue is full, and its concurrent one reorders them.
pub struct Listener {
    pub signals: mpsc::UnboundedSender<Heard>,
    pub mailbox: Arc<Mailbox>,
    pub inbound: Inbound,
}

/// What the session has to act on.
#[derive(Debug)]
pub enum Heard {
    /// A fact that changes the state as it is.
    Fact(Fact),
    /// The phone linked this device: true once it is on disk.
    PairSuccess { phone: String },
    /// Logged in, and messages flow: true once what led here is on disk.
    Connected,
    /// The client left before the server had proved who it is.
    Abandoned,
    /// The server's word on a message that nobody waits for any more.
    LateAck { id: String, ack: Ack },
}

impl EventHandler for Listener {
    fn handle_event(&self, event: Arc<Event>) {
        let heard = match &*event {
            Event::ServerAck(ack) => {
                if ack.class.as_deref() != Some("message") {
                    return;
                }
                let word = Ack { timestamp: ack.timestamp, error: ack.error.clone() };
                match self.mailbox.acknowledge(&ack.id, word) {
                    Ok(()) => return,
                    Err(word) => Heard::LateAck { id: ack.id.clone(), ack: word },
                }
            }
            Event::Receipt(receipt) => {
                if let Some(status) = status_of(receipt) {
                    let MessageSource { chat, sender, .. } = &receipt.source;
                    let by = if chat.server.is_pn_family() || chat.server.is_lid_family() { chat } else { sender };
                    self.inbound.receipt(by, receipt.message_ids.clone(), status);
                }
                return;
            }
            // The library acknowledges it when this returns, and asks nobody whether it was answered.
            Event::RawNode(node) if node.tag() == "receipt" => {
                if node.get_attr("type").is_some_and(|kind| kind.as_str() == "retry") {
                    self.inbound.asked_again(node);
                }
                return;
            }
            Event::Messages(batch) => {
                let from_others = batch.iter().filter(|message| !message.info.source.is_from_me).count();
                self.mailbox.received.fetch_add(from_others as u64, Ordering::Relaxed);
                metrics::received(from_others as u64);
                self.inbound.recovered(batch.iter());
                return;
            }
            Event::UndecryptableMessage(message) => return self.inbound.unreadable(message),
            Event::IncomingCall(call) => return self.inbound.call(call),
            Event::MissedCall(call) => return self.inbound.missed_call(call),
            Event::MexNotification(told) => return self.inbound.limits_changed(&told.op_name, &told.payload),
            Event::PairSuccess(success) => Heard::PairSuccess { phone: success.id.user.to_string() },
            Event::Connected(_) | Event::OfflineSyncCompleted(_) => Heard::Connected,
            event => match fact_of(event) {
                Some(signal) => Heard::Fact(signal),
                None => return,
            },
        };
        // Nobody listens only when the session is gone; then nobody needs to know.
        let _ = self.signals.send(heard);
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[
            EventKind::ServerAck,
            EventKind::Receipt,
            EventKind::Messages,
            EventKind::UndecryptableMessage,
            EventKind::IncomingCall,
            EventKind::MissedCall,
            EventKind::MexNotification,
            EventKind::PairSuccess,
            EventKind::PairError,
            EventKind::Connected,
            EventKind::OfflineSyncCompleted,
            EventKind::Disconnected,
            EventKind::PairingQrCode,
            EventKind::PairingQrCodesExhausted,
            EventKind::PairingCode,
            EventKind::PairingCodeError,
            EventKind::PairingCodeRefresh,
            EventKind::QrScannedWithoutMultidevice,
            EventKind::PairPasskeyRequest,
            EventKind::PairPasskeyConfirmation,
            EventKind::PairPasskeyError,
            EventKind::SelfPushNameUpdated,
            EventKind::LoggedOut,
            EventKind::TemporaryBan,
            EventKind::ClientOutdated,
            EventKind::ConnectFailure,
            EventKind::RawNode,
        ])
    }
}

/// What a receipt says of the messages that it names. Those of one's own other devices (`sender`, `read-self`) say
/// nothing. A device that has no name of its own yet calls its delivery receipts inactive.
fn status_of(receipt: &Receipt) -> Option<MessageStatus> {
    match receipt.r#type {
        ReceiptType::Delivered | ReceiptType::Inactive => Some(MessageStatus::Delivered),
        ReceiptType::Read => Some(MessageStatus::Read),
        ReceiptType::Played => Some(MessageStatus::Played),
        _ => None,
    }
}

fn fact_of(event: &Event) -> Option<Fact> {
    Some(match event {
        Event::Disconnected(_) => Fact::Offline,
        Event::PairError(error) => Fact::PairingFailed(error.error.clone()),
        Event::PairingQrCode(qr) => Fact::QrCode { code: qr.code.clone(), valid_for: delta(qr.timeout) },
        Event::PairingQrCodesExhausted(exhausted) => Fact::QrExhausted { disconnected: exhausted.disconnected },
        Event::PairingCode(code) => Fact::PairingCode { code: code.code.clone(), valid_for: delta(code.timeout) },
        Event::PairingCodeError(error) => {
            Fact::PairingCodeRefused { message: error.error.clone(), retry_after: error.backoff.map(delta) }
        }
        Event::PairingCodeRefresh(_) => Fact::PairingCodeExpired,
        Event::QrScannedWithoutMultidevice(_) => {
            Fact::PairingFailed("The phone that scanned the code does not support linked devices.".into())
        }
        Event::PairPasskeyRequest(request) => Fact::PasskeyRequested { options: request.request_options_json.clone() },
        Event::PairPasskeyConfirmation(confirmation) => {
            Fact::PasskeyCode { code: confirmation.code.clone(), needs_confirmation: !confirmation.skip_handoff_ux }
        }
        Event::PairPasskeyError(error) => Fact::PasskeyFailed(error.error.clone()),
        Event::SelfPushNameUpdated(update) => Fact::PushName(update.new_name.clone()),
        // What ends a connection is read from the stanza itself: the library has no event for some of it.
        Event::RawNode(node) if node.tag() == "stream:error" => Fact::Said(stream_error(node.get()).into()),
        Event::LoggedOut(logout) if !logout.on_connect => return None,
        Event::LoggedOut(logout) => {
            Fact::Said(Said { appeal_token: appeal_token(logout), ..failure(logout.reason).into() })
        }
        Event::TemporaryBan(ban) => Fact::Said(Said {
            ban: Some(ban.code.code()),
            lasts: Some(ban.expire),
            ..failure(ConnectFailureReason::TempBanned).into()
        }),
        Event::ClientOutdated(_) => Fact::Said(failure(ConnectFailureReason::ClientOutdated).into()),
        Event::ConnectFailure(refused) => Fact::Said(failure(refused.reason).into()),
        _ => return None,
    })
}

fn failure(reason: ConnectFailureReason) -> DisconnectCode {
    DisconnectCode::Failure(reason.code())
}

/// `<stream:error code=…>`, or with a child that says who has the session now. A conflict decides, whatever the code.
fn stream_error(error: &NodeRef<'_>) -> DisconnectCode {
    let attribute = |node: &NodeRef<'_>, name: &str| node.get_attr(name).map(|value| value.as_str().to_string());
    match error.get_optional_child("conflict") {
        Some(conflict) if attribute(conflict, "type").as_deref() == Some("replaced") => DisconnectCode::Replaced,
        Some(_) => DisconnectCode::Removed,
        None => {
            DisconnectCode::StreamError(attribute(error, "code").and_then(|code| code.parse().ok()).unwrap_or_default())
        }
    }
}

/// What a locked account's owner needs for an appeal: the server says it once, and in the stanza only.
fn appeal_token(logout: &LoggedOut) -> Option<String> {
    let token = logout.raw.as_ref()?.attrs.get("appeal_token")?;
    Some(token.as_str().to_string())
}

/// The library's durations are at most minutes; one that does not fit is as good as endless.
fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::session_state::State, session::state::Snapshot};
    use whatsapp_rust::types::events::{
        PairPasskeyConfirmation, PairPasskeyError, PairPasskeyRequest, PairingQrCode, ServerAck,
    };

    fn listener() -> (Listener, mpsc::UnboundedReceiver<Heard>) {
        let (signals, heard) = mpsc::unbounded_channel();
        let mailbox = Arc::<Mailbox>::default();
        let receiver = std::sync::Weak::<crate::session::inbox::Inbox>::new();
        let inbound = Inbound { receiver, mailbox: mailbox.clone(), wire: Arc::default() };
        (Listener { signals, mailbox, inbound }, heard)
    }

    fn qr(code: &str) -> Event {
        let valid_for = std::time::Duration::from_secs(20);
        Event::PairingQrCode(PairingQrCode::builder().code(code.into()).timeout(valid_for).build())
    }

    fn ack(class: &str, error: Option<&str>) -> Event {
        let ack = ServerAck::builder().id("3EB0".into()).class(class.into()).maybe_error(error.map(Into::into));
        Event::ServerAck(ack.build())
    }

    /// The state that these events lead to, taken in as a session takes them in.
    fn state_after(events: impl IntoIterator<Item = Event>) -> Snapshot {
        let (listener, mut heard) = listener();
        for event in events {
            assert!(listener.interest().wants(event.kind()), "the library would keep {:?} to itself", event.kind());
            listener.handle_event(Arc::new(event));
        }
        let mut snapshot = Snapshot::new(Utc::now());
        while let Ok(Heard::Fact(signal)) = heard.try_recv() {
            snapshot.apply(signal, Utc::now());
        }
        snapshot
    }

    #[test]
    fn a_passkey_ceremony_is_followed_from_the_librarys_events() {
        let options = r#"{"challenge":"AAAA", "rpId":"web.whatsapp.com"}"#;
        let asked = || {
            let request = PairPasskeyRequest::builder().request_options_json(options.into());
            Event::PairPasskeyRequest(request.build())
        };
        let compare = |skip| {
            let confirmation = PairPasskeyConfirmation::builder().code("ABCD-1234".into()).skip_handoff_ux(skip);
            Event::PairPasskeyConfirmation(confirmation.build())
        };
        let failed =
            || Event::PairPasskeyError(PairPasskeyError::builder().error("no".into()).continuation(true).build());

        let snapshot = state_after([qr("2@a"), asked()]);
        assert_eq!(snapshot.state, State::PasskeyRequired);
        assert_eq!(snapshot.passkey.unwrap().options, options, "verbatim");
        for (skip, needs_confirmation) in [(false, true), (true, false)] {
            let passkey = state_after([asked(), compare(skip)]).passkey.unwrap();
            assert_eq!((passkey.code.as_deref(), passkey.needs_confirmation), (Some("ABCD-1234"), needs_confirmation));
        }
        let snapshot = state_after([asked(), compare(false), failed()]);
        assert_eq!((snapshot.state, snapshot.reason.unwrap().code.as_str()), (State::Failed, "passkey_failed"));
    }

    #[test]
    fn events_keep_their_order() {
        let codes: Vec<_> = (0..500).map(|n| format!("2@{n}")).collect();
        let snapshot = state_after(codes.iter().map(|code| qr(code)));
        assert_eq!(snapshot.qr.unwrap().text, "2@499", "the last one is the valid one");
    }

    #[tokio::test]
    async fn an_acknowledgement_reaches_the_one_who_waits_for_it() {
        let (listener, _heard) = listener();
        let waiting = listener.mailbox.expect_ack("3EB0");
        listener.handle_event(Arc::new(ack("receipt", None)));
        listener.handle_event(Arc::new(ack("message", Some("463"))));
        listener.handle_event(Arc::new(ack("message", None)));
        assert_eq!(
            waiting.await.unwrap().error.as_deref(),
            Some("463"),
            "the first for the message, not for a receipt"
        );
        assert!(listener.mailbox.lock().is_empty());
        let (mut first, mut second) = (listener.mailbox.expect_ack("3EB0"), listener.mailbox.expect_ack("3EB0"));
        listener.handle_event(Arc::new(ack("message", None)));
        assert!(first.try_recv().is_ok() && second.try_recv().is_err(), "each is for the one that was sent first");
        drop((first, second));
        drop(listener.mailbox.expect_ack("lost"));
        let _next = listener.mailbox.expect_ack("next");
        assert_eq!(listener.mailbox.lock().len(), 1, "who gave up waiting is forgotten");
    }
}
