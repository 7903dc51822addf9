//! A companion's line to the server: its connection while it has one, and what it has not yet confirmed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stanza::{Confirmation, Outgoing, QueueKey, Stanza};

/// How many stanzas a connection may be behind before it is cut: a peer that does not read must not cost memory.
const LINK_CAPACITY: usize = 8192;

/// How many unconfirmed stanzas are kept for a companion; beyond that the oldest go.
const QUEUE_CAPACITY: usize = 50_000;

/// How many stanzas of the backlog are sent before the client asks for more, as the real server does.
const PRIMER: usize = 5;

/// A handle to one connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    tx: mpsc::Sender<Outgoing>,
    /// Cutting the connection is cancelling this.
    pub(crate) cut: CancellationToken,
    /// Set when the server has said its last word.
    silent: Arc<AtomicBool>,
}

impl Link {
    pub(crate) fn new(id: u64) -> (Self, mpsc::Receiver<Outgoing>) {
        let (tx, rx) = mpsc::channel(LINK_CAPACITY);
        (Self { id, tx, cut: CancellationToken::new(), silent: Arc::default() }, rx)
    }

    pub(crate) fn send(&self, stanza: Stanza) {
        self.push(Outgoing::Stanza {
            stanza: Arc::new(stanza),
            offline: false,
            after: Duration::ZERO,
            since: Instant::now(),
        });
    }

    pub(crate) fn send_after(&self, stanza: Stanza, after: Duration) {
        self.push(Outgoing::Stanza { stanza: Arc::new(stanza), offline: false, after, since: Instant::now() });
    }

    /// From here on nothing is sent and nothing is answered, though the connection may stay open.
    pub(crate) fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Sends what was said before, then closes.
    pub(crate) fn close(&self, after: Duration) {
        self.push(Outgoing::Close { after });
    }

    /// How much of a backlog may be put into the line at once. Half of it stays free for what is new.
    fn room(&self) -> usize {
        self.tx.capacity().saturating_sub(LINK_CAPACITY / 2)
    }

    /// Puts something into the line; after a last word only the end goes through.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        if self.is_silent() && matches!(outgoing, Outgoing::Stanza { .. }) {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.tx.try_send(outgoing) {
            tracing::warn!(link = self.id, "cutting a connection that is too far behind");
            self.cut.cancel();
        }
    }
}

/// The backlog that a connection still has to be given.
#[derive(Debug, Default)]
struct Drain {
    rest: VecDeque<Arc<Stanza>>,
    total: usize,
    /// Counts the client's requests, so that a timer can tell whether there was one.
    requests: u64,
}

/// One companion's connection and queue.
#[derive(Debug, Default)]
pub(crate) struct Line {
    link: Option<Link>,
    /// Nothing is delivered before the client has said that it is active.
    active: bool,
    queue: VecDeque<(QueueKey, Arc<Stanza>)>,
    drain: Option<Drain>,
}

impl Line {
    /// Takes over a new connection and returns the one it replaces.
    pub(crate) fn connect(&mut self, link: Link) -> Option<Link> {
        self.active = false;
        self.drain = None;
        self.link.replace(link)
    }

    /// Forgets the connection, if it is still this one.
    pub(crate) fn disconnect(&mut self, link: u64) -> bool {
        let mine = self.link.as_ref().is_some_and(|l| l.id == link);
        if mine {
            self.link = None;
            self.active = false;
            self.drain = None;
        }
        mine
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Delivers now if possible; what has to arrive stays in the queue until it is confirmed.
    pub(crate) fn deliver(&mut self, stanza: Stanza) {
        let stanza = Arc::new(stanza);
        let key = stanza.queue_key();
        let lasting = key.is_some();
        if let Some(key) = key {
            if self.queue.len() >= QUEUE_CAPACITY {
                self.queue.pop_front();
            }
            self.queue.push_back((key, Arc::clone(&stanza)));
        }
        if let Some(link) = &self.link
            && (self.active || !lasting)
        {
            link.push(Outgoing::Stanza { stanza, offline: false, after: Duration::ZERO, since: Instant::now() });
        }
    }

    /// The client acknowledged a stanza. Of several that it may mean, it is the oldest.
    pub(crate) fn confirm(&mut self, confirmation: &Confirmation) {
        if let Some(at) = self.queue.iter().position(|(key, _)| key.is_confirmed_by(confirmation)) {
            self.queue.remove(at);
        }
    }

    /// The client said by a receipt that it has a message.
    pub(crate) fn has_message(&mut self, id: &str) {
        if let Some(at) = self.queue.iter().position(|(key, _)| key.class == "message" && key.id == id) {
            self.queue.remove(at);
        }
    }

    /// The client is active: announces the backlog and sends the first of it. Returns whether more has to follow.
    pub(crate) fn activate(&mut self) -> bool {
        let Some(link) = &self.link else { return false };
        if self.active {
            return false;
        }
        self.active = true;
        let rest: VecDeque<_> = self.queue.iter().map(|(_, stanza)| Arc::clone(stanza)).collect();
        let total = rest.len();
        if total > 0 {
            let of = |class| self.queue.iter().filter(|(key, _)| key.class == class).count();
            link.send(Stanza::OfflinePreview {
                messages: of("message"),
                receipts: of("receipt"),
                notifications: of("notification"),
            });
        }
        self.drain = Some(Drain { rest, total, requests: 0 });
        self.drain_some(PRIMER);
        self.drain.is_some()
    }

    /// The client asked for `count` more of the backlog. It gets fewer if the connection is behind.
    pub(crate) fn request_batch(&mut self, count: usize) {
        if let Some(drain) = &mut self.drain {
            drain.requests += 1;
        }
        self.drain_some(count);
    }

    /// How often the client has asked for more, while there is more.
    pub(crate) fn drain_requests(&self) -> Option<u64> {
        self.drain.as_ref().map(|drain| drain.requests)
    }

    fn drain_some(&mut self, count: usize) {
        let (Some(link), Some(drain)) = (&self.link, &mut self.drain) else { return };
        for stanza in drain.rest.drain(..count.min(drain.rest.len()).min(link.room())) {
            link.push(Outgoing::Stanza { stanza, offline: true, after: Duration::ZERO, since: Instant::now() });
        }
        if drain.rest.is_empty() {
            link.send(Stanza::OfflineEnd { count: drain.total });
            self.drain = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::stanza::Receipt;

    fn notice(n: usize) -> Stanza {
        Stanza::PrekeysLow { id: n.to_string(), count: n, timestamp: 0 }
    }

    fn ack(class: &str, id: &str, of: Option<&str>, kind: Option<&str>) -> Confirmation {
        let of = of.map(|of| of.parse().unwrap());
        Confirmation { class: class.to_owned(), id: id.to_owned(), of, kind: kind.map(str::to_owned) }
    }

    fn receipt(id: &str, from: &str, kind: Option<&str>) -> Stanza {
        Stanza::Receipt(Receipt {
            ids: vec![id.to_owned()],
            from: from.parse().unwrap(),
            recipient: None,
            kind: kind.map(str::to_owned),
            timestamp: 0,
            extras: Vec::new(),
        })
    }

    fn received(rx: &mut mpsc::Receiver<Outgoing>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Ok(outgoing) = rx.try_recv() {
            seen.push(match outgoing {
                Outgoing::Stanza { stanza, offline, .. } => match &*stanza {
                    Stanza::PrekeysLow { id, .. } => format!("{id}{}", if offline { " offline" } else { "" }),
                    Stanza::Receipt(r) => {
                        let kind = r.kind.as_deref().unwrap_or("delivery");
                        format!("{kind} from {}{}", r.from, if offline { " offline" } else { "" })
                    }
                    Stanza::OfflinePreview { receipts, notifications, .. } => {
                        format!("preview {}", receipts + notifications)
                    }
                    Stanza::OfflineEnd { count } => format!("end {count}"),
                    other => format!("{other:?}"),
                },
                Outgoing::Close { .. } => "close".to_owned(),
            });
        }
        seen
    }

    #[test]
    fn an_active_line_delivers_at_once_and_keeps_until_confirmed() {
        let mut line = Line::default();
        let (link, mut rx) = Link::new(1);
        line.connect(link);
        line.deliver(notice(1));
        assert!(received(&mut rx).is_empty());
        assert!(!line.activate());
        assert_eq!(received(&mut rx), ["preview 1", "1 offline", "end 1"]);
        line.deliver(notice(2));
        assert_eq!(received(&mut rx), ["2"]);
        line.confirm(&ack("notification", "1", None, None));
        let (link, mut rx) = Link::new(2);
        assert!(line.connect(link).is_some());
        line.activate();
        assert_eq!(received(&mut rx), ["preview 1", "2 offline", "end 1"]);
    }

    #[test]
    fn of_receipts_with_the_same_id_the_right_one_is_confirmed() {
        let (phone, companion) = ("5511999999999@s.whatsapp.net", "5511999999999:3@s.whatsapp.net");
        let mut line = Line::default();
        for (from, kind) in [(phone, None), (companion, None), (phone, Some("read")), (phone, None)] {
            line.deliver(receipt("A", from, kind));
        }
        line.confirm(&ack("receipt", "A", Some(phone), Some("read")));
        line.confirm(&ack("receipt", "A", Some(phone), None));
        // These are for nothing that is there.
        line.confirm(&ack("receipt", "A", Some(companion), Some("read")));
        line.confirm(&ack("receipt", "A", None, None));
        line.confirm(&ack("message", "A", Some(phone), None));
        let (link, mut rx) = Link::new(1);
        line.connect(link);
        line.activate();
        let (first, second) = (format!("delivery from {companion} offline"), format!("delivery from {phone} offline"));
        assert_eq!(received(&mut rx), ["preview 2", first.as_str(), second.as_str(), "end 2"]);
    }

    #[test]
    fn a_long_backlog_comes_in_the_batches_that_the_client_asks_for() {
        let mut line = Line::default();
        (0..12).for_each(|n| line.deliver(notice(n)));
        let (link, mut rx) = Link::new(1);
        line.connect(link);
        assert!(line.activate());
        assert_eq!(received(&mut rx).len(), 1 + PRIMER);
        assert_eq!(line.drain_requests(), Some(0));
        line.request_batch(4);
        assert_eq!(received(&mut rx).len(), 4);
        line.request_batch(100);
        assert_eq!(received(&mut rx).last().map(String::as_str), Some("end 12"));
        assert_eq!(line.drain_requests(), None);
    }

    #[test]
    fn an_old_connection_does_not_take_the_new_one_down() {
        let mut line = Line::default();
        line.connect(Link::new(1).0);
        line.connect(Link::new(2).0);
        assert!(!line.disconnect(1));
        assert!(line.is_connected());
        assert!(line.disconnect(2));
        assert!(!line.is_connected());
    }

    #[test]
    fn a_peer_that_never_reads_is_cut() {
        let mut line = Line::default();
        let (link, _rx) = Link::new(1);
        let cut = link.cut.clone();
        line.connect(link);
        line.activate();
        (0..=LINK_CAPACITY).for_each(|n| line.deliver(notice(n)));
        assert!(cut.is_cancelled());
    }
}
