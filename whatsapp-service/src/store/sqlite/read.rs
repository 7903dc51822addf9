//! Reading: beside the writer, and beside each other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::store::{
    error::StoreError,
    sqlite::{SqliteStore, schema},
};

/// How many may read at the same time. Each has a thread and a connection, however many sessions there are.
const READERS: usize = 4;

/// What is to be read.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

/// Threads that only read.
pub struct Readers {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    /// Starts them. Each opens its connection when it is first needed.
    pub fn start(path: &Path) -> std::io::Result<Self> {
        let (jobs, queued) = mpsc::channel::<Job>();
        let queued = Arc::new(Mutex::new(queued));
        let threads = (0..READERS).map(|_| {
            let (queued, path) = (queued.clone(), path.to_path_buf());
            thread::Builder::new().name("store-reader".into()).spawn(move || work_off(&queued, &path))
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(threads) })
    }

    /// Finishes what was queued and closes the connections.
    pub async fn close(&self) {
        drop(self.jobs.lock().take());
        let threads = std::mem::take(&mut *self.threads.lock());
        // A thread that panicked is gone too.
        let _ = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

impl SqliteStore {
    /// Reads what was committed.
    pub(crate) fn read<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have left.
            let _ = answer.send(connection.and_then(|connection| Ok(work(connection)?)));
        });
        let queued = self.readers.jobs.lock().as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        async move {
            match queued {
                true => answered.await.unwrap_or(Err(StoreError::Closed)),
                false => Err(StoreError::Closed),
            }
        }
    }
}

fn work_off(queued: &Mutex<mpsc::Receiver<Job>>, path: &Path) {
    let mut idle = None;
    loop {
        let Ok(job) = queued.lock().recv() else { return };
        let opened = idle.take().map_or_else(|| schema::open_reader(path), Ok);
        // A job that panics takes its connection with it, and not the thread.
        idle = catch_unwind(AssertUnwindSafe(|| match opened {
            Ok(connection) => {
                job(Ok(&connection));
                Some(connection)
            }
            Err(error) => {
                job(Err(error.into()));
                None
            }
        }))
        .unwrap_or_default();
    }
}
