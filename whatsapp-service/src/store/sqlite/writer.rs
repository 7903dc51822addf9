//! The one thread that writes. Everything that waits while a commit is on its way to the disk shares the next one, so
//! that many tenants share an fsync.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    metrics::Commits,
    store::{
        changes::ChangeNotifier,
        error::StoreError,
        rules::Rules,
        sqlite::{mark::Mark, tx::Tx},
    },
    util::{clock::Clock, seal::Seal},
};

/// How many jobs may share a commit: more would let the last of them wait longer than it saves.
const BATCH: usize = 512;

/// How many jobs in one commit tell that there is a lot to write.
const BUSY: usize = 3;

/// How long the next commit then waits for more to come, unless there are enough. Half of what a message costs is the
/// commits themselves, and an fsync may be over too soon for company.
const GATHERING: Duration = Duration::from_millis(2);
const ENOUGH: usize = 32;

/// What is to be written. It runs inside a transaction, unless none could be begun, and learns afterwards whether that
/// was committed.
type Job = Box<dyn FnOnce(Result<&mut Tx<'_>, StoreError>) -> Verdict + Send>;
type Verdict = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Queues jobs for the writing thread.
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    health: Arc<Health>,
    fold: Arc<Fold>,
}

/// Who wants the log brought into the database, if somebody does.
type Fold = Mutex<Option<oneshot::Sender<Result<(), StoreError>>>>;

/// What the thread works with.
pub struct Thread {
    connection: Connection,
    rules: Rules,
    seal: Seal,
    clock: Clock,
    changes: Arc<ChangeNotifier>,
    mark: Mark,
    health: Arc<Health>,
    fold: Arc<Fold>,
}

/// How the writing goes.
#[derive(Default)]
pub struct Health {
    /// Whether the last commit failed.
    pub failing: AtomicBool,
    /// Transactions that were committed, since the process started.
    pub commits: AtomicU64,
    /// Jobs that they held.
    pub jobs: AtomicU64,
}

impl Writer {
    /// Starts the thread. It ends when the writer is dropped and all that was queued is written; then the receiver
    /// resolves.
    pub fn start(mut thread: Thread) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, queued) = mpsc::channel::<Job>();
        let (health, fold, (ended, end)) = (thread.health.clone(), thread.fold.clone(), oneshot::channel());
        thread::Builder::new().name("store-writer".into()).spawn(move || {
            let (_alarm, counted) = (Alarm(thread.health.clone()), Commits::start());
            let mut busy = false;
            while let Ok(first) = queued.recv() {
                let mut batch: Vec<Job> = std::iter::once(first).chain(queued.try_iter().take(BATCH - 1)).collect();
                if busy && batch.len() < ENOUGH {
                    thread::sleep(GATHERING);
                    batch.extend(queued.try_iter().take(BATCH - batch.len()));
                }
                let (jobs, begun) = (batch.len(), Instant::now());
                busy = jobs >= BUSY;
                let done = thread.commit(batch);
                counted.ended(done, jobs, begun.elapsed());
                if let Some(answer) = thread.fold.lock().take() {
                    let _ = answer.send(thread.fold_log());
                }
            }
            drop(thread);
            let _ = ended.send(());
        })?;
        Ok((Self { jobs, health, fold }, end))
    }

    /// Brings all that is in the log into the database, after what was queued before.
    pub fn fold(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        *self.fold.lock() = Some(answer);
        // It has something to do, at least this.
        let woken = self.write(|_| Ok(()));
        async move {
            woken.await?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        }
    }

    /// Writes, in the order in which this was called. The future resolves when it is committed; what `work` has done
    /// is undone if it fails. It is written also if nobody waits for the future.
    pub fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tx| {
            let result = tx.and_then(|tx| tx.savepoint(work));
            Box::new(move |committed| {
                // The caller may have left; what it asked for is done all the same.
                let _ = answer.send(result.and_then(|result| committed.map(|()| result)));
            })
        });
        let queued = self.jobs.send(job);
        async move {
            queued.map_err(|_| StoreError::Closed)?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        }
    }

    /// How the writing goes.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

/// Says that nothing is written any more, should the thread end by a panic.
struct Alarm(Arc<Health>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.failing.store(true, Ordering::Relaxed);
    }
}

impl Thread {
    /// Before the thread starts.
    pub fn new(
        connection: Connection,
        rules: Rules,
        seal: Seal,
        clock: Clock,
        changes: Arc<ChangeNotifier>,
        mark: Mark,
    ) -> Self {
        Self { connection, rules, seal, clock, changes, mark, health: Arc::default(), fold: Arc::default() }
    }

    /// Says whether it reached the disk.
    fn commit(&mut self, batch: Vec<Job>) -> bool {
        let Self { connection, rules, seal, clock, changes, mark, health, .. } = self;
        let (mut verdicts, mut changed, mut epoch) = (Vec::with_capacity(batch.len()), Vec::new(), None);
        let before = connection.total_changes();
        let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute(()));
        let outcome = match begun.map_err(StoreError::from) {
            Ok(_) => {
                let mut tx = Tx::new(connection, *rules, seal, clock);
                verdicts.extend(batch.into_iter().map(|job| job(Ok(&mut tx))));
                let lost = tx.is_lost();
                changed = tx.into_changes();
                if lost {
                    Err(StoreError::TransactionLost)
                } else {
                    let counted = if connection.total_changes() > before { mark.count(connection) } else { Ok(None) };
                    let commit = |counted| {
                        epoch = counted;
                        connection.prepare_cached("COMMIT")?.execute(())
                    };
                    counted.and_then(commit).map(drop).map_err(StoreError::from)
                }
            }
            Err(error) => {
                verdicts.extend(batch.into_iter().map(|job| job(Err(error.clone()))));
                Err(error)
            }
        };
        // What changes no row is committed also on a full disk.
        if outcome.is_err() || connection.total_changes() > before {
            health.failing.store(outcome.is_err(), Ordering::Relaxed);
        }
        match &outcome {
            Ok(()) => {
                if let Some(epoch) = epoch {
                    mark.write(epoch);
                }
                health.commits.fetch_add(1, Ordering::Relaxed);
                health.jobs.fetch_add(verdicts.len() as u64, Ordering::Relaxed);
                changes.notify(changed);
            }
            Err(error) => {
                tracing::error!(%error, "the database can't be written to");
                if !connection.is_autocommit() {
                    let _ = connection.execute_batch("ROLLBACK");
                }
            }
        }
        for verdict in verdicts {
            verdict(outcome.clone());
        }
        outcome.is_ok()
    }

    /// Copies what is in the log into the database.
    fn fold_log(&self) -> Result<(), StoreError> {
        let busy: bool = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
        if busy { Err(StoreError::TransactionLost) } else { Ok(()) }
    }
}
