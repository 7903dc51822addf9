//! One tenant's session: it starts clients, follows what happens to them, and knows its state.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use whatsapp_rust::{Client, pair_code::PairCodeOptions, wacore::iq::devices::RemoveCompanionDeviceSpec};

use super::{
    events::{Heard, Mailbox},
    inbound::Inbound,
    lane::Lane,
    link::{Link, Surroundings},
    numbers::Numbers,
    outbox::{ReachoutTimelock, deleted},
    passkey::{AssertionRefused, RemoteAuthenticator},
    recall::Recalling,
    recipient::Recipient,
    state::{Signal, Snapshot, State, Status},
};
use crate::{
    clock::timestamp,
    metrics,
    store::{Hold, Record, StoreError, TenantDir},
    tenant::TenantId,
};

/// How often a running client is looked at, for what it does not tell by events.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How many times in a row a connection may be seen up but not logged in before it is given up.
const UNWELL_LOOKS: u32 = 3;
/// How long the server may take to confirm that a device is unlinked.
const UNLINK_LIMIT: Duration = Duration::from_secs(5);

/// One tenant's session.
pub struct Session {
    /// Whose it is.
    pub tenant: TenantId,
    me: Weak<Self>,
    dir: TenantDir,
    pub(super) around: Arc<Surroundings>,
    snapshot: watch::Sender<Snapshot>,
    /// The client that runs now, if one does.
    pub(super) live: Mutex<Option<Live>>,
    /// Held while the session is opened, deleted or shut down, so that these don't cross.
    lifecycle: tokio::sync::Mutex<Lifecycle>,
    /// The phone that is to be linked by a code, and whether the code has been asked for.
    code_for: Mutex<Option<(Recipient, bool)>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) numbers: Numbers,
    pub(super) sent: AtomicU64,
    pub(super) lane: Mutex<Lane>,
    pub(super) timelock: Mutex<Option<ReachoutTimelock>>,
    /// While WhatsApp is being asked for it: whether to ask once more.
    pub(super) asking: Mutex<Option<bool>>,
    /// Whether it is being deleted: nothing more is taken.
    pub(super) gone: AtomicBool,
}

#[derive(Default)]
struct Lifecycle {
    task: Option<(CancellationToken, JoinHandle<()>)>,
    ended: bool,
}

/// What came of starting a client.
enum Start {
    Linked(Box<Link>, mpsc::UnboundedReceiver<Heard>),
    /// It must not dial yet.
    Held(Hold),
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) client: Arc<Client>,
    authenticator: Arc<RemoteAuthenticator>,
}

/// Why a session can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// It was deleted, or the process is stopping.
    #[error("the service is stopping")]
    Gone,
    /// The library, and the phone too, allow one pairing code at a time.
    #[error("a pairing code for another phone is waiting; DELETE /session ends that")]
    CodeForAnotherPhone,
}

/// What a deletion achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// The server confirmed that the device is no longer linked.
    Confirmed,
    /// There was no link to end.
    NotLinked,
    /// The server could not be told: the phone may still list this device.
    NotTold,
}

/// Why a passkey step can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyRefused {
    /// What came is not usable.
    #[error(transparent)]
    Assertion(#[from] AssertionRefused),
    /// The library refused it.
    #[error("{0}")]
    Failed(String),
}

impl Session {
    /// A session that has not been opened yet.
    pub fn new(tenant: TenantId, dir: TenantDir, around: Arc<Surroundings>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            tenant,
            me: me.clone(),
            lane: Mutex::new(Lane::new(around.pace)),
            timelock: Mutex::default(),
            asking: Mutex::default(),
            gone: AtomicBool::new(false),
            dir,
            around,
            snapshot: watch::Sender::new(Snapshot::new(Utc::now())),
            live: Mutex::default(),
            lifecycle: tokio::sync::Mutex::default(),
            code_for: Mutex::default(),
            mailbox: Arc::default(),
            numbers: Numbers::default(),
            sent: AtomicU64::new(0),
        })
    }

    /// Takes for granted what an earlier process wrote down: that it is linked, and with whom.
    pub(super) fn know_linked(&self) {
        self.apply(Signal::Linked { phone: self.dir.recorded().ok().and_then(|record| record.phone) });
    }

    /// Resolves when the connection that is there now is lost.
    pub(super) fn connection_lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.snapshot.subscribe();
        let connected_at = changes.borrow_and_update().connected_at;
        async move {
            let lost = |snapshot: &Snapshot| snapshot.state != State::Ready || snapshot.connected_at != connected_at;
            // A session that is gone has lost its connection too.
            let _ = changes.wait_for(lost).await;
        }
    }

    /// What the session is right now: what happened to it, and what its client says of itself this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot.borrow().clone();
        if snapshot.state == State::Ready && self.ready_client().is_none() {
            snapshot.apply(Signal::Offline, Utc::now());
        }
        snapshot
    }

    /// Messages that the server acknowledged and messages that were received, since this process started.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.mailbox.received.load(Ordering::Relaxed))
    }

    /// The client, if messages can be sent with it now.
    pub(super) fn ready_client(&self) -> Option<Arc<Client>> {
        let client = lock(&self.live).as_ref()?.client.clone();
        let ready = self.snapshot.borrow().state == State::Ready && client.is_connected() && client.is_logged_in();
        ready.then_some(client)
    }

    /// Waits until `enough` holds of the snapshot, at most for `limit`.
    pub async fn wait_until(&self, limit: Duration, enough: impl FnMut(&Snapshot) -> bool) {
        let mut changes = self.snapshot.subscribe();
        // Running out of time is an answer too: the caller looks at the snapshot anyway.
        let _ = tokio::time::timeout(limit, changes.wait_for(enough)).await;
    }

    /// Sees to it that the session runs: starts it if it does not, and asks for a pairing code if `phone` wants one.
    pub async fn open(self: &Arc<Self>, phone: Option<Recipient>) -> Result<(), OpenRefused> {
        let mut lifecycle = self.lifecycle.lock().await;
        if lifecycle.ended {
            return Err(OpenRefused::Gone);
        }
        let snapshot = self.snapshot.borrow().clone();
        let runs = lifecycle.task.as_ref().is_some_and(|(_, task)| !task.is_finished());
        let reopens = snapshot.can_be_reopened(Utc::now());
        if !runs || reopens {
            if snapshot.stops_client() && !reopens {
                return Ok(());
            }
            stop(&mut lifecycle).await;
            *lock(&self.code_for) = phone.map(|phone| (phone, false));
            let known = snapshot.is_paired() && snapshot.state != State::LoggedOut;
            self.snapshot.send_replace(Snapshot::new(Utc::now()));
            if known {
                self.apply(Signal::Linked { phone: snapshot.phone });
            }
            let cancel = CancellationToken::new();
            let forget_old_link = snapshot.state == State::LoggedOut;
            let task = tokio::spawn(self.clone().run(cancel.clone(), forget_old_link));
            lifecycle.task = Some((cancel, task));
        } else if let Some(phone) = phone
            && !snapshot.is_paired()
        {
            self.want_code(phone, snapshot.state)?;
        }
        Ok(())
    }

    /// Unlinks the device at the server, stops, and deletes what is on disk; `None` if that was done before.
    pub async fn delete(&self) -> Result<Option<Unlinked>, StoreError> {
        let mut lifecycle = self.lifecycle.lock().await;
        if lifecycle.ended {
            return Ok(None);
        }
        let live = lock(&self.live).clone();
        let on_disk = self.dir.is_paired().unwrap_or(true);
        let in_client = live.as_ref().is_some_and(|live| live.client.pn().is_some());
        let linked = on_disk || in_client || self.snapshot.borrow().is_paired();
        let unlinked = match live {
            _ if !linked || self.snapshot.borrow().state == State::LoggedOut => Unlinked::NotLinked,
            Some(live) => self.unlink(&live.client).await,
            None => Unlinked::NotTold,
        };
        stop(&mut lifecycle).await;
        // What is accepted from now on is given up by the one who accepted it.
        self.gone.store(true, Ordering::Release);
        let given_up = self.around.store.give_up_all(&self.tenant, deleted()).await;
        if let Err(error) = given_up.and_then(|()| self.dir.delete()) {
            self.gone.store(false, Ordering::Release);
            return Err(error);
        }
        lifecycle.ended = true;
        lock(&self.lane).clear();
        self.tell(json!({"state": "deleted", "status": Status::NotFound, "since": timestamp(Utc::now())}));
        Ok(Some(unlinked))
    }

    /// Stops, keeping everything on disk.
    pub async fn shut_down(&self) {
        let mut lifecycle = self.lifecycle.lock().await;
        lifecycle.ended = true;
        stop(&mut lifecycle).await;
    }

    /// Says that this tenant's files can't be read, without touching them.
    pub(super) fn report_damage(&self, why: &str) {
        self.apply(Signal::StorageFailed(why.into()));
    }

    /// Hands the client the passkey assertion that it waits for.
    pub fn submit_passkey(&self, credential: &serde_json::Value) -> Result<(), PasskeyRefused> {
        let live = lock(&self.live).clone().ok_or(AssertionRefused::NotAsked)?;
        Ok(live.authenticator.submit(credential)?)
    }

    /// Tells the client that the person saw the same code on the phone.
    pub async fn confirm_passkey(&self) -> Result<(), PasskeyRefused> {
        let live = lock(&self.live).clone().ok_or(AssertionRefused::NotAsked)?;
        if !self.snapshot.borrow().passkey.as_ref().is_some_and(|passkey| passkey.needs_confirmation) {
            return Err(AssertionRefused::NotAsked.into());
        }
        live.client.send_passkey_confirmation().await.map_err(|error| PasskeyRefused::Failed(error.to_string()))
    }

    /// Runs clients, one after the other, until there is nothing more to do without a person.
    async fn run(self: Arc<Self>, cancel: CancellationToken, forget_old_link: bool) {
        if forget_old_link && let Err(error) = self.dir.quarantine() {
            return self.apply(Signal::StorageFailed(error.to_string()));
        }
        while !cancel.is_cancelled() {
            // Opening a damaged database can take the library half a minute.
            let started = tokio::select! {
                () = cancel.cancelled() => return,
                started = self.start_link() => started,
            };
            match started {
                Ok(Start::Linked(link, heard)) => self.follow(*link, heard, &cancel).await,
                Ok(Start::Held(hold)) => self.apply(Signal::Held(hold)),
                Err(why) => self.apply(Signal::StorageFailed(why)),
            }
            let snapshot = self.snapshot.borrow().clone();
            // A pairing that failed is not taken up again without a person.
            let goes_on = !snapshot.stops_client() || self.dir.is_paired().unwrap_or(true);
            let Some(at) = snapshot.retry_at.filter(|_| goes_on) else { return };
            if snapshot.state == State::Outdated {
                self.around.version.doubt().await;
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(jittered(at)) => {}
            }
        }
    }

    async fn start_link(&self) -> Result<Start, String> {
        let Record { paired: was_paired, hold, .. } = self.dir.recorded().map_err(|error| error.to_string())?;
        if let Some(hold) = hold.filter(|hold| hold.is_in_force(Utc::now())) {
            return Ok(Start::Held(hold));
        }
        let backend = self.dir.open().await.map_err(|error| error.to_string())?;
        let backend = Arc::new(Recalling { inner: backend, session: self.me.clone() });
        if !was_paired {
            self.record(Record::default()).await.map_err(|error| error.to_string())?;
        }
        let (link, heard) = Link::start(&self.around, backend, self.mailbox.clone(), Inbound(self.me.clone())).await?;
        let phone = link.client.pn().map(|jid| jid.user.to_string());
        if was_paired && phone.is_none() {
            link.stop().await;
            return Err("the store of a linked device no longer holds its link".into());
        }
        self.apply(Signal::Started { phone });
        Ok(Start::Linked(Box::new(link), heard))
    }

    /// Takes in what one client has to say, until it ends, or has no more use, or `cancel` says so.
    async fn follow(&self, mut link: Link, mut heard: mpsc::UnboundedReceiver<Heard>, cancel: &CancellationToken) {
        *lock(&self.live) = Some(Live { client: link.client.clone(), authenticator: link.authenticator.clone() });
        let (mut looks, mut unwell) = (tokio::time::interval(LOOK_INTERVAL), 0);
        while !self.snapshot.borrow().stops_client() {
            let code_expires = self.snapshot.borrow().pairing_code.as_ref().map(|code| code.expires_at);
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(heard) = heard.recv() => self.take_in(heard, &link.client).await,
                () = &mut link.handle => {
                    self.apply(Signal::Ended);
                    break;
                }
                () = sleep_until(code_expires), if code_expires.is_some() => self.apply(Signal::PairingCodeExpired),
                _ = looks.tick() => self.look_at(&link.client, &mut unwell),
            }
        }
        *lock(&self.live) = None;
        let snapshot = self.snapshot.borrow().clone();
        let ban = Record { paired: true, hold: snapshot.hold(), phone: snapshot.phone };
        if ban.hold.is_some()
            && let Err(error) = self.record(ban).await
        {
            tracing::error!(tenant = %self.tenant, %error, "a ban can't be written down; a restart would not know of it");
        }
        link.stop().await;
    }

    /// Notices what the library tells nobody: that it stopped saving, and that the server logged a connection out but
    /// left it open (stream errors 429 and 503), where it would stay for ever.
    fn look_at(&self, client: &Arc<Client>, unwell: &mut u32) {
        if client.persistence_manager().is_saver_halted() {
            return self.apply(Signal::StorageFailed("The disk could not be written to, again and again.".into()));
        }
        if self.snapshot.borrow().pairing_is_overdue(Utc::now()) {
            return self.apply(Signal::QrExhausted { disconnected: true });
        }
        // A connection that came back without a word lets messages go on too.
        if let Some(session) = self.me.upgrade() {
            session.pump();
        }
        let half_open = client.is_connected() && !client.is_logged_in() && self.snapshot.borrow().is_paired();
        *unwell = if half_open { *unwell + 1 } else { 0 };
        if *unwell == UNWELL_LOOKS {
            *unwell = 0;
            self.apply(Signal::Offline);
            let client = client.clone();
            tokio::spawn(async move { client.reconnect_immediately().await });
        }
    }

    async fn take_in(&self, heard: Heard, client: &Arc<Client>) {
        match heard {
            Heard::Fact(signal) => {
                let qr_shown = matches!(signal, Signal::QrCode { .. });
                let code_shown = self.snapshot.borrow().pairing_code.is_some();
                self.apply(signal);
                if code_shown && self.snapshot.borrow().pairing_code.is_none() {
                    // It died with its connection, or was used: the next one has to be asked for by a person.
                    *lock(&self.code_for) = None;
                }
                // The server takes the request for a code once it has offered its QR codes.
                if qr_shown
                    && let Some((phone, asked)) = &mut *lock(&self.code_for)
                    && !std::mem::replace(asked, true)
                {
                    request_code(client.clone(), phone.clone());
                }
            }
            Heard::PairSuccess { phone } => match self.make_durable(client).await {
                Ok(()) => {
                    // What was said of another account.
                    *lock(&self.timelock) = None;
                    self.apply(Signal::Paired { phone });
                }
                Err(why) => self.apply(Signal::StorageFailed(why)),
            },
            Heard::Connected if client.is_logged_in() => match self.make_durable(client).await {
                Ok(()) => self.apply(Signal::Online {
                    phone: client.pn().map(|jid| jid.user.to_string()),
                    push_name: client.push_name(),
                }),
                Err(why) => self.apply(Signal::StorageFailed(why)),
            },
            Heard::Connected => {}
            Heard::LateAck { id, ack } => {
                if let Some(session) = self.me.upgrade() {
                    tokio::spawn(async move { session.late_ack(&id, ack).await });
                }
            }
        }
    }

    /// Writes the credentials and ratchets to disk, and that this tenant is linked. The library confirms a pairing to
    /// the phone before it has saved it.
    async fn make_durable(&self, client: &Client) -> Result<(), String> {
        client.persistence_manager().flush().await.map_err(|error| error.to_string())?;
        client.flush_pending_signal_state().await.map_err(|error| error.to_string())?;
        let phone = client.pn().map(|jid| jid.user.to_string());
        let linked = Record { paired: true, phone, hold: None };
        if self.dir.recorded().map_err(|error| error.to_string())? != linked {
            self.record(linked).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Ends the link at the server. The library's own `logout` keeps to itself whether the server heard it.
    async fn unlink(&self, client: &Arc<Client>) -> Unlinked {
        let Some(jid) = client.pn() else { return Unlinked::NotLinked };
        let told = tokio::time::timeout(UNLINK_LIMIT, client.execute(RemoveCompanionDeviceSpec::new(&jid))).await;
        // The server ends the connection of a device that it has just removed, maybe before its answer is read.
        if !matches!(told, Ok(Ok(()))) {
            self.wait_until(Duration::from_secs(1), |snapshot| snapshot.state == State::LoggedOut).await;
        }
        let removed = self.snapshot.borrow().state == State::LoggedOut;
        if matches!(told, Ok(Ok(()))) || removed { Unlinked::Confirmed } else { Unlinked::NotTold }
    }

    async fn record(&self, record: Record) -> Result<(), StoreError> {
        let (dir, tenant) = (self.dir.clone(), self.tenant.clone());
        let recorded = tokio::task::spawn_blocking(move || dir.record(&tenant, record)).await;
        recorded.unwrap_or_else(|error| Err(StoreError::Damaged(error.to_string())))
    }

    /// Sees to it that a code for this phone is shown, or will be.
    fn want_code(&self, phone: Recipient, state: State) -> Result<(), OpenRefused> {
        let mut code_for = lock(&self.code_for);
        match &*code_for {
            Some((other, _)) if *other != phone => return Err(OpenRefused::CodeForAnotherPhone),
            Some(_) => return Ok(()),
            None => {}
        }
        // Without a QR code on the screen the server is not ready to be asked; the next one will be the sign.
        let client = lock(&self.live).as_ref().map(|live| live.client.clone());
        let ready = client.filter(|_| state == State::PairingQr);
        *code_for = Some((phone.clone(), ready.is_some()));
        if let Some(client) = ready {
            request_code(client, phone);
        }
        Ok(())
    }

    fn apply(&self, signal: Signal) {
        let mut entered = None;
        self.snapshot.send_modify(|snapshot| {
            let before = snapshot.state;
            snapshot.apply(signal, Utc::now());
            if snapshot.state != before {
                let reason = snapshot.reason.as_ref().map(|reason| reason.code.as_str());
                tracing::info!(tenant = %self.tenant, state = snapshot.state.as_str(), reason, "session");
                self.tell(json!(SessionStateChange::of(snapshot)));
                metrics::entered(snapshot.state);
                entered = Some(snapshot.state);
            }
        });
        if entered == Some(State::Ready)
            && let Some(session) = self.me.upgrade()
        {
            // What waited for a connection waits no longer.
            lock(&self.lane).hurry_all();
            session.pump();
        }
    }

    /// Puts the session's state into the event log.
    fn tell(&self, state: serde_json::Value) {
        let written = self.around.store.session_state(&self.tenant, state);
        let tenant = self.tenant.clone();
        tokio::spawn(async move {
            if let Err(error) = written.await {
                tracing::warn!(%tenant, %error, "a session's state could not be put into the event log");
            }
        });
    }
}

/// What the event log says of a session's state.
#[derive(Serialize, ToSchema)]
pub struct SessionStateChange<'a> {
    state: State,
    status: Status,
    #[schema(format = DateTime)]
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
}

impl<'a> SessionStateChange<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            state: snapshot.state,
            status: snapshot.state.status(),
            since: timestamp(snapshot.since),
            reason: snapshot.reason.as_ref().map(|reason| reason.code.as_str()),
            message: snapshot.reason.as_ref().map(|reason| reason.message.as_str()),
            phone: snapshot.phone.as_deref(),
        }
    }
}

async fn stop(lifecycle: &mut Lifecycle) {
    if let Some((cancel, task)) = lifecycle.task.take() {
        cancel.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, "a session's task ended badly");
        }
    }
}

/// The outcome arrives as an event, also the failure.
fn request_code(client: Arc<Client>, phone: Recipient) {
    tokio::spawn(async move {
        let options = PairCodeOptions { phone_number: phone.digits().into(), ..PairCodeOptions::default() };
        let _ = client.pair_with_code(options).await;
    });
}

async fn sleep_until(at: Option<DateTime<Utc>>) {
    if let Some(at) = at {
        tokio::time::sleep((at - Utc::now()).to_std().unwrap_or_default()).await;
    }
}

/// The time until `at`, and up to a tenth of it more, so that sessions that wait for the same hour don't dial together.
fn jittered(at: DateTime<Utc>) -> Duration {
    let wait = (at - Utc::now()).to_std().unwrap_or_default();
    wait + wait.mul_f64(rand::random_range(0.0..0.1))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
