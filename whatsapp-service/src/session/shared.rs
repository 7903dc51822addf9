//! What all sessions of a process share.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use chrono::TimeDelta;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    media::shelf::MediaStore,
    net::{dial::Dialler, dial_gate::Dials},
    session::{download::Downloads, outbox::queue::Pace},
    store::Store,
    whatsapp::{connector::Connector, version::VersionSource},
};

/// How many receipts may hold a thread until they are on the disk.
const BLOCKING_RECEIPTS: usize = 64;

/// What a session is made of that others have too. Each of its parts keeps what it needs.
pub struct Shared {
    /// Messages, their statuses, and the event log.
    pub store: Arc<dyn Store>,
    /// Media that is to be sent.
    pub media: Arc<MediaStore>,
    /// Starts clients.
    pub connector: Arc<Connector>,
    /// Who may connect, and when.
    pub dials: Arc<Dials>,
    /// Files that came with messages, on their way to those who ask for them.
    pub downloads: Arc<Downloads>,
    /// What goes on when its caller hangs up, and is waited for at the end.
    pub tasks: TaskTracker,
    /// Cancelled when the process is about to end: nothing new is begun.
    pub stopping: CancellationToken,
    /// How many receipts may hold a thread until they are on the disk.
    pub blocking_receipts: Arc<Semaphore>,
    /// How many messages of a tenant may wait.
    pub outbox_limit: usize,
    /// How long one attempt to send may take.
    pub attempt_limit: Duration,
    /// How fast a tenant's messages leave.
    pub pace: Pace,
    /// How long events are kept.
    pub event_retention: TimeDelta,
    /// How often a session's own task has panicked.
    pub panics: Arc<AtomicU64>,
}

impl Shared {
    /// As the settings have it.
    pub fn new(
        config: &Config,
        dialler: Dialler,
        version: VersionSource,
        store: Arc<dyn Store>,
        media: Arc<MediaStore>,
    ) -> Self {
        let dials = Dials::new(config.dial_rate, config.dial_concurrency.into());
        Self {
            store,
            media,
            connector: Connector::new(config.device_name.clone(), dialler, version, dials.clone()),
            dials,
            downloads: Downloads::new(config.data_dir.join("downloads")).into(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            blocking_receipts: Arc::new(Semaphore::new(BLOCKING_RECEIPTS)),
            outbox_limit: config.outbox_max_per_tenant,
            // A little less than a caller waits, so that its answer can say what came of the attempt.
            attempt_limit: config.send_timeout.mul_f64(0.9),
            pace: Pace { interval: config.send_min_interval, jitter: config.send_jitter },
            event_retention: TimeDelta::days(config.event_retention.into()),
            panics: Arc::default(),
        }
    }
}
