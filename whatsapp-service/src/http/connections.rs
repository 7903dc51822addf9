//! The connections of callers: how many there may be, and whose end comes first.
//!
//! Each takes a descriptor, and WhatsApp and the disk need theirs. When there are as many as there may be, one makes way
//! for the next: one whose caller has not shown the secret, or else one on which nothing is under way. Whoever takes
//! nothing of an answer for a while is cut off.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::util::descriptors;

/// The share of the descriptors that callers may have, and the most and the fewest connections without a setting.
const SHARE: u64 = 4;
const MOST: usize = 4_096;
const FEWEST: usize = 8;
/// How many there may be beside these, for those who ask how the service is when all others are busy.
const SPARE: usize = 8;
/// How many descriptors are left to WhatsApp and the disk at least.
const LEFT: u64 = 64;
/// How long a caller may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of an answer waits in the system that the caller's side has no room for, in bytes.
const UNSENT: u32 = 128 * 1024;
/// How much of a request, and of an answer, is gathered for one connection, in bytes. The head of a request has to fit.
const BUFFER: usize = 32 * 1024;

/// The connections that are open.
pub struct Connections {
    limit: usize,
    open: Mutex<Open>,
    places: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
    /// Counts what happens on connections: tells which was used last.
    clock: Arc<AtomicU64>,
}

/// One connection. Each request that comes over it knows it, as an extension.
#[derive(Debug)]
pub struct Connection {
    /// Whether its caller has shown the secret.
    is_known: AtomicBool,
    /// Whether a request is under way on it.
    is_busy: AtomicBool,
    used: AtomicU64,
    clock: Arc<AtomicU64>,
    /// It is one of the few for those who ask how the service is.
    is_spare: bool,
    end: CancellationToken,
}

impl Connection {
    /// Its caller has shown the secret.
    pub fn shows_secret(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Whether it is one of the few that are left when all are busy.
    pub fn is_spare(&self) -> bool {
        self.is_spare
    }

    fn is_used(&self) {
        self.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// How long a connection is among those that are open.
struct Place {
    connections: Arc<Connections>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().all.remove(&self.number);
    }
}

impl Connections {
    /// So many at the same time; without a number, as many as there are descriptors for.
    pub fn new(limit: Option<u32>) -> Arc<Self> {
        let descriptors = descriptors::limit();
        let limit = match limit {
            Some(limit) => {
                let limit = u64::from(limit);
                let most = descriptors.map_or(u64::MAX, |all| all.saturating_sub(LEFT).max(1));
                if limit > most {
                    tracing::warn!(limit, most, "MAX_CONNECTIONS: too few files may be open at once for so many");
                }
                limit.min(most) as usize
            }
            None => descriptors.map_or(MOST, |all| ((all / SHARE) as usize).clamp(FEWEST, MOST)),
        };
        Arc::new(Self {
            limit,
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(limit)),
            spare: Arc::new(Semaphore::new(SPARE)),
        })
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Serves with `router` what comes to `listener`, until `stop`. A caller may take `read_timeout` to send the head of a
    /// request, also the first. Returns the connections that are still open.
    pub async fn serve(
        self: &Arc<Self>,
        listener: &TcpListener,
        router: Router,
        read_timeout: Duration,
        stop: impl Future<Output = ()>,
    ) -> GracefulShutdown {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(read_timeout).max_buf_size(BUFFER);
        // The library could not write the time before 1970.
        http.auto_date_header(false);
        let graceful = GracefulShutdown::new();
        let (mut stop, mut is_failing) = (pin!(stop), false);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let was_failing = std::mem::replace(&mut is_failing, accepted.is_err());
            match accepted {
                Ok((stream, _)) => {
                    if was_failing {
                        tracing::info!("connections are accepted again");
                    }
                    let admitted = tokio::select! {
                        () = &mut stop => break,
                        admitted = self.admit() => admitted,
                    };
                    // Without one, all are busy, and others ask how the service is. The connection is closed.
                    if let Some((connection, place)) = admitted {
                        prepare(&stream);
                        tokio::spawn(run(http.clone(), stream, router.clone(), connection, place, graceful.watcher()));
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would only burn the processor.
                    if !was_failing {
                        tracing::warn!(%error, "connections can't be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        graceful
    }

    /// Finds a place for one more, if need be by ending another.
    async fn admit(self: &Arc<Self>) -> Option<(Arc<Connection>, Place)> {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.end_one(false) => self.places.clone().acquire_owned().await.ok()?,
            Err(_) => {
                let permit = match self.spare.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) if self.end_one(true) => self.spare.clone().acquire_owned().await.ok()?,
                    Err(_) => return None,
                };
                return Some(self.add(permit, true));
            }
        };
        Some(self.add(permit, false))
    }

    fn add(self: &Arc<Self>, permit: OwnedSemaphorePermit, is_spare: bool) -> (Arc<Connection>, Place) {
        let mut open = self.open();
        open.next += 1;
        let (number, clock) = (open.next, open.clock.clone());
        let connection = Arc::new(Connection {
            is_known: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            used: AtomicU64::new(0),
            clock,
            is_spare,
            end: CancellationToken::new(),
        });
        connection.is_used();
        open.all.insert(number, connection.clone());
        (connection, Place { connections: self.clone(), number, _permit: permit })
    }

    /// Ends the connection that is the first to go, of the spare ones or of the others, and says whether there was one.
    fn end_one(&self, spare: bool) -> bool {
        let mut open = self.open();
        let may_go = |connection: &Connection| {
            let (is_known, is_busy) =
                (connection.is_known.load(Ordering::Relaxed), connection.is_busy.load(Ordering::Relaxed));
            connection.is_spare == spare && !(is_known && is_busy)
        };
        let rank = |connection: &Connection| {
            (connection.is_known.load(Ordering::Relaxed), connection.used.load(Ordering::Relaxed))
        };
        let first = open.all.iter().filter(|(_, one)| may_go(one)).min_by_key(|(_, one)| rank(one));
        let Some(number) = first.map(|(number, _)| *number) else { return false };
        if let Some(connection) = open.all.remove(&number) {
            connection.end.cancel();
        }
        true
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

/// To be called on each thread before it serves: the library keeps the time there, unused, and could not begin that with a
/// clock before 1970.
pub fn warm_up() {
    let nothing = service_fn(|_| async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) });
    let serve = || {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(tokio::io::empty()), nothing);
        let _ = pin!(connection).poll(&mut Context::from_waker(Waker::noop()));
    };
    // Such a thread can't serve, and a thread that can't start ends everything.
    if SystemTime::now() >= UNIX_EPOCH {
        let _ = catch_unwind(AssertUnwindSafe(serve));
    }
}

/// Sees to it that what is not taken neither stays nor gathers. What the system does not know is done without.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _: io::Result<()> = socket.set_tcp_user_timeout(Some(PATIENCE));
    let _: io::Result<()> = socket.set_tcp_notsent_lowat(UNSENT);
}

/// Serves one connection until it ends or has to go.
async fn run(
    http: http1::Builder,
    stream: TcpStream,
    router: Router,
    connection: Arc<Connection>,
    _place: Place,
    watcher: Watcher,
) {
    let requests = connection.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut router, busy) = (router.clone(), Busy::on(&requests));
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(requests.clone());
        async move {
            let answer = router.call(request).await?;
            Ok::<Response<Answer>, std::convert::Infallible>(answer.map(|body| Answer { body, _busy: busy }))
        }
    });
    let served = watcher.watch(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A connection that breaks is its caller's affair.
        _ = served => {}
        () = connection.end.cancelled() => {}
    }
}

/// A request is under way, until its answer is handed over.
struct Busy(Arc<Connection>);

impl Busy {
    fn on(connection: &Arc<Connection>) -> Self {
        connection.is_busy.store(true, Ordering::Relaxed);
        connection.is_used();
        Self(connection.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_used();
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

/// An answer's body, and with it that the request is under way.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
