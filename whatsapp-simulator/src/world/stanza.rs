//! What the server says to a connected device, before it is put into the wire's form.

use std::time::Duration;

use wacore_binary::{Jid, Node};

/// One piece of Signal ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enc {
    /// `msg` or `pkmsg`.
    pub(crate) kind: String,
    /// The other attributes as they came (`v`, `mediatype`, `count`, …).
    pub(crate) attrs: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

impl Enc {
    pub(crate) fn is_prekey(&self) -> bool {
        self.kind == "pkmsg"
    }
}

/// A message on its way to one device.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) from: Jid,
    /// The sender's other name: `sender_lid` beside a number, `sender_pn` beside a LID. Absent where it is hidden.
    pub(crate) from_alt: Option<Jid>,
    /// The chat, when the receiver is another device of the sender, and its other name.
    pub(crate) recipient: Option<(Jid, Option<Jid>)>,
    pub(crate) kind: String,
    pub(crate) category: Option<String>,
    pub(crate) edit: Option<String>,
    pub(crate) notify: String,
    pub(crate) timestamp: i64,
    pub(crate) encs: Vec<Enc>,
    /// The sender's signed device identity, which goes along with the first message of a session.
    pub(crate) device_identity: Option<Vec<u8>>,
    /// Children that are passed on as they came (`meta`, `reporting`, …).
    pub(crate) extras: Vec<Node>,
    /// Why there is no ciphertext in it, in WhatsApp's word for it.
    pub(crate) withheld_as: Option<&'static str>,
}

/// "I got it", "I read it", "send it again".
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) ids: Vec<String>,
    pub(crate) from: Jid,
    pub(crate) recipient: Option<Jid>,
    /// `None` is the plain delivery receipt.
    pub(crate) kind: Option<String>,
    pub(crate) timestamp: i64,
    /// `retry`, `registration` and `keys` of a retry receipt.
    pub(crate) extras: Vec<Node>,
}

/// The answer to a stanza of the client.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) class: &'static str,
    pub(crate) id: String,
    pub(crate) from: Option<Jid>,
    pub(crate) kind: Option<String>,
    pub(crate) participant: Option<Jid>,
    pub(crate) error: Option<u16>,
    pub(crate) timestamp: i64,
}

/// A device came or went.
#[derive(Clone, Debug)]
pub(crate) struct DeviceChange {
    pub(crate) id: String,
    pub(crate) added: bool,
    pub(crate) user: Jid,
    /// Beside a number.
    pub(crate) user_lid: Option<Jid>,
    pub(crate) device: Jid,
    pub(crate) device_lid: Option<Jid>,
    pub(crate) key_index: u32,
    /// The account's signed list of valid key indexes, and its time.
    pub(crate) key_index_list: Vec<u8>,
    pub(crate) timestamp: i64,
}

/// Everything that the server sends.
#[derive(Clone, Debug)]
pub(crate) enum Stanza {
    Message(Message),
    Receipt(Receipt),
    Ack(Ack),
    DeviceChange(DeviceChange),
    /// Somebody calls, or does not any more.
    Call {
        id: String,
        from: Jid,
        notify: String,
        timestamp: i64,
        action: Node,
    },
    /// A collection of app state has a new version.
    ServerSync {
        id: String,
        from: Jid,
        collection: String,
        version: u64,
        timestamp: i64,
    },
    /// The answer to a query that nobody asked: something has changed.
    Mex {
        id: String,
        operation: &'static str,
        data: String,
        timestamp: i64,
    },
    /// The server is running out of one-time keys of this device.
    PrekeysLow {
        id: String,
        count: usize,
        timestamp: i64,
    },
    Presence {
        from: Jid,
        available: bool,
        last_seen: Option<i64>,
    },
    ChatState {
        from: Jid,
        state: Node,
    },
    OfflinePreview {
        messages: usize,
        receipts: usize,
        notifications: usize,
    },
    OfflineEnd {
        count: usize,
    },
    /// The way in that the client is to name when it dials the next time.
    EdgeRouting {
        routing: Vec<u8>,
    },
    StreamError {
        code: String,
    },
    Conflict {
        kind: String,
    },
    /// A stanza that is built where its protocol is at home: answers to IQs, and pairing.
    Raw(Node),
}

/// Which acknowledgement takes a stanza out of a device's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueKey {
    pub(crate) class: &'static str,
    pub(crate) id: String,
    /// Who sent a receipt, and its type: all receipts for a message carry the message's id.
    receipt: Option<(Jid, Option<String>)>,
}

/// A client's acknowledgement of a stanza.
#[derive(Clone, Debug)]
pub(crate) struct Confirmation {
    /// The stanza's tag.
    pub(crate) class: String,
    pub(crate) id: String,
    /// Who the stanza came from.
    pub(crate) of: Option<Jid>,
    /// The stanza's type.
    pub(crate) kind: Option<String>,
}

impl QueueKey {
    /// Whether an acknowledgement is for this stanza.
    pub(crate) fn is_confirmed_by(&self, confirmation: &Confirmation) -> bool {
        let of_this = |from: &Jid| {
            let of = confirmation.of.as_ref();
            of.is_some_and(|of| (&of.user, of.server, of.device) == (&from.user, from.server, from.device))
        };
        self.class == confirmation.class
            && self.id == confirmation.id
            && self.receipt.as_ref().is_none_or(|(from, kind)| of_this(from) && *kind == confirmation.kind)
    }
}

impl Stanza {
    /// The key of a stanza that has to reach the device, now or after it reconnects; `None` for what is only of the
    /// moment.
    pub(crate) fn queue_key(&self) -> Option<QueueKey> {
        let (class, id, receipt) = match self {
            Self::Message(m) => ("message", &m.id, None),
            Self::Receipt(r) => ("receipt", r.ids.first()?, Some((r.from.clone(), r.kind.clone()))),
            Self::Call { id, .. } => ("call", id, None),
            Self::DeviceChange(d) => ("notification", &d.id, None),
            Self::ServerSync { id, .. } | Self::PrekeysLow { id, .. } | Self::Mex { id, .. } => {
                ("notification", id, None)
            }
            _ => return None,
        };
        Some(QueueKey { class, id: id.clone(), receipt })
    }
}

/// What a connection is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    /// Send this, said at `since`, `after` a pause that does not hold up what comes behind it.
    Stanza { stanza: std::sync::Arc<Stanza>, offline: bool, after: Duration, since: std::time::Instant },
    /// Send what was said before, then close.
    Close { after: Duration },
}
