//! Who wants to know what was committed: callers that wait for a message, streams of events, and the webhooks.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    metrics,
    model::{message::Message, tenant::TenantId},
};

/// Something that was committed.
pub enum Change {
    /// A message changed.
    Message(TenantId, Box<Message>),
    /// An event was added; `due` if a webhook is to get it.
    Event {
        /// Whose it is.
        tenant: TenantId,
        /// Its number.
        sequence: i64,
        /// Whether a webhook is to get it.
        due: bool,
    },
}

/// Resolves when a message is settled for its caller: acknowledged, or beyond it, or given up.
pub type Waiting = oneshot::Receiver<Message>;

/// The number of a tenant's newest event, as it grows.
pub type Watch = watch::Receiver<i64>;

/// Who waits for which message of whom.
type Waiters = HashMap<(TenantId, String), Vec<oneshot::Sender<Message>>>;

/// Those who want to know.
#[derive(Default)]
pub struct ChangeNotifier {
    waiting: Mutex<Waiters>,
    watches: Mutex<HashMap<TenantId, watch::Sender<i64>>>,
    due: Mutex<Option<mpsc::UnboundedSender<TenantId>>>,
}

impl ChangeNotifier {
    /// Notifies those who want to know. On the writer's thread: nothing here waits.
    pub fn notify(&self, changes: Vec<Change>) {
        for change in changes {
            if let Change::Message(_, message) = &change {
                metrics::message(message);
            }
            match change {
                Change::Message(tenant, message) if message.is_settled() => {
                    let waiting = self.waiting.lock().remove(&(tenant, message.id.clone()));
                    for one in waiting.into_iter().flatten() {
                        let _ = one.send(Message::clone(&message));
                    }
                }
                Change::Message(..) => {}
                Change::Event { tenant, sequence, due } => {
                    let mut watches = self.watches.lock();
                    if let Some(watch) = watches.get(&tenant)
                        && watch.send(sequence).is_err()
                    {
                        watches.remove(&tenant);
                    }
                    drop(watches);
                    if due && let Some(listener) = &*self.due.lock() {
                        let _ = listener.send(tenant);
                    }
                }
            }
        }
    }
}

impl ChangeNotifier {
    /// Waits for a message to be settled. Ask before it can be.
    pub fn wait_for(&self, tenant: &TenantId, id: &str) -> Waiting {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let all = waiting.entry((tenant.clone(), id.into())).or_default();
        all.retain(|one| !one.is_closed());
        all.push(sender);
        receiver
    }

    /// Follows a tenant's events. The number at the start means nothing: read the log after asking for this.
    pub fn watch(&self, tenant: &TenantId) -> Watch {
        self.watches.lock().entry(tenant.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Names each tenant that has got something for its webhook. One listener; a second replaces it.
    pub fn due_deliveries(&self) -> mpsc::UnboundedReceiver<TenantId> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.due.lock() = Some(sender);
        receiver
    }
}

/// Change notifications. Whatever they say is also found by looking: one may be lost with the process that made it.
pub trait Changes: Send + Sync {
    /// Who is notified.
    fn changes(&self) -> &ChangeNotifier;

    /// Waits for a message to be settled. Ask before it can be.
    fn wait_for(&self, tenant: &TenantId, id: &str) -> Waiting {
        self.changes().wait_for(tenant, id)
    }

    /// Follows a tenant's events. The number at the start means nothing: read the log after asking for this.
    fn watch(&self, tenant: &TenantId) -> Watch {
        self.changes().watch(tenant)
    }

    /// Names each tenant that has got something for its webhook. One listener; a second replaces it.
    fn due_deliveries(&self) -> mpsc::UnboundedReceiver<TenantId> {
        self.changes().due_deliveries()
    }
}
