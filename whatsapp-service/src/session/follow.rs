//! Following one client: what it has to say, until it ends or has no more use.

use crate::{
    model::session_state::State,
    net::dial_gate::Pass,
    session::{Session, connection::Live, state::Snapshot, store_owner::StoreOwner, supervisor::Run},
    signal,
    store::{devices::RecordChange, error::StoreError},
    whatsapp::{
        client::Client,
        codes::{self, DisconnectCode, RetryPolicy},
        connector::Link,
        events::Heard,
        fact::{Fact, Said},
        inbound::Receiver,
    },
};
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
/// How often a running client is looked at, for what it does not tell by events.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How many times in a row a connection may be seen up but not logged in before it is given up.
const UNWELL_LOOKS: u32 = 2;
/// How long a session may keep others from dialling before it has logged in.
const LOGIN_TURN: Duration = Duration::from_secs(15);
/// How long WhatsApp may take to answer a ping on a connection that it has reported an error on.
const PING_LIMIT: Duration = Duration::from_secs(10);

impl Session {
    pub(crate) async fn start_link(&self, link: &mut Option<Link>) -> Result<mpsc::UnboundedReceiver<Heard>, String> {
        let owner = Arc::new(StoreOwner(self.me.clone()));
        let backend =
            signal::open(&self.store, &self.connection.lease, owner).await.map_err(|error| error.to_string())?;
        let mailbox = self.connection.mailbox.clone();
        let inbox: Arc<dyn Receiver> = self.inbox.clone();
        let receiver = Arc::downgrade(&inbox);
        let (started, heard) = Link::start(&self.connector, backend, self.proxy(), mailbox, receiver).await?;
        let phone = started.client.phone();
        *link = Some(started);
        self.apply(Fact::Started { phone });
        Ok(heard)
    }

    /// Takes in what one client has to say, until it ends, or has no more use, or `cancel` says so.
    pub(crate) async fn follow(
        &self,
        link: &mut Link,
        mut heard: mpsc::UnboundedReceiver<Heard>,
        pass: Pass,
        run: &mut Run,
        cancel: &CancellationToken,
    ) {
        *self.connection.live.lock() =
            Some(Live { client: link.client.clone(), authenticator: link.authenticator.clone() });
        let (mut pass, turn_ends) = (Some(pass), Instant::now() + LOGIN_TURN);
        let (mut looks, mut unwell) = (tokio::time::interval(LOOK_INTERVAL), 0);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping = None;
        while !self.connection.snapshot.borrow().stops_client() {
            let flow = tokio::select! {
                biased;
                () = cancel.cancelled() => ControlFlow::Break(()),
                Some(heard) = heard.recv() => self.take_in(heard, &link.client, run, &mut ping).await,
                () = link.ended() => {
                    self.apply(Fact::Ended);
                    ControlFlow::Break(())
                }
                dead = answer(&mut ping) => match dead {
                    Some(word) => self.hear(word.into()),
                    None => ControlFlow::Continue(()),
                },
                () = sleep_until(run.code_until), if run.code_until.is_some() => {
                    run.code_until = None;
                    self.apply(Fact::PairingCodeExpired);
                    ControlFlow::Continue(())
                }
                _ = looks.tick() => self.look_at(&link.client, &mut unwell, run),
            };
            if run.ready_since.is_none() && self.connection.snapshot.borrow().state == State::Ready {
                run.ready_since = Some(Instant::now());
                (run.by_person, run.just_paired, run.pairing_since) = (false, false, None);
                self.dials.succeeded();
            }
            if !self.connection.snapshot.borrow().is_under_way() || Instant::now() >= turn_ends {
                // Others may dial.
                (pass, run.awaited) = (None, None);
            }
            if flow.is_break() {
                break;
            }
        }
        drop(pass);
        if run.code_until.take().is_some() {
            // It died with its connection.
            *self.code_for.lock() = None;
        } else if let Some((_, asked)) = &mut *self.code_for.lock() {
            // What was asked for on this connection, and did not come, is asked for on the next one.
            *asked = false;
        }
        let told = self.connection.snapshot.borrow().clone();
        if (told.hold().is_some() || told.again == RetryPolicy::OnceMore)
            && let Err(error) = self.keep(told).await
        {
            let tenant = &self.tenant;
            tracing::error!(%tenant, %error, "why it must not dial can't be written down; a restart would not know");
        }
    }

    /// Writes down what a later process must know before it dials.
    pub(crate) async fn keep(&self, told: Snapshot) -> Result<(), StoreError> {
        let (hold, phone) = (told.hold(), told.phone);
        let replaced_at = told.replaced_at.map(|at| at.timestamp_millis());
        let known = vec![RecordChange::Linked(phone), RecordChange::Hold(hold), RecordChange::ReplacedAt(replaced_at)];
        self.store.change_record(&self.connection.lease, known).await
    }

    /// Notices what the library tells nobody: that it stopped saving, and that a connection is open and not logged in,
    /// where it would stay for ever.
    pub(crate) fn look_at(&self, client: &Client, unwell: &mut u32, run: &Run) -> ControlFlow<()> {
        if client.has_stopped_saving() {
            self.apply(Fact::StorageFailed("The disk could not be written to, again and again.".into()));
            return ControlFlow::Break(());
        }
        if run.pairing_since.is_some_and(|since| self.connection.snapshot.borrow().pairing_is_overdue(since.elapsed()))
        {
            self.apply(Fact::QrExhausted { disconnected: true });
            return ControlFlow::Break(());
        }
        // A connection that came back without a word lets messages go on too.
        self.outbox.pump();
        let logs_in =
            matches!(self.connection.snapshot.borrow().state, State::Connecting | State::Reconnecting | State::Ready);
        let open = logs_in && client.is_connected() && !client.is_logged_in();
        *unwell = if open { *unwell + 1 } else { 0 };
        // The first look may come a moment after the dial.
        if *unwell > UNWELL_LOOKS {
            self.apply(Fact::Stuck);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// WhatsApp refused the login or ended the connection: this client has no more use.
    pub(crate) fn hear(&self, said: Said) -> ControlFlow<()> {
        let word = said.word;
        self.apply(Fact::Said(said));
        if codes::row(word).fleet {
            self.dials.troubled(&self.tenant);
        }
        if self.connection.snapshot.borrow().state == State::Outdated {
            self.connector.doubt_version();
        }
        ControlFlow::Break(())
    }

    pub(crate) async fn take_in(
        &self,
        heard: Heard,
        client: &Client,
        run: &mut Run,
        ping: &mut Option<Ping>,
    ) -> ControlFlow<()> {
        match heard {
            Heard::Fact(Fact::Said(said)) if codes::row(said.word).again == RetryPolicy::SoonIfDead => {
                ping.get_or_insert_with(|| Ping::send(client.clone(), said.word));
            }
            Heard::Fact(Fact::Said(said)) => return self.hear(said),
            Heard::Abandoned => run.abandoned = true,
            Heard::Fact(signal) => {
                match &signal {
                    Fact::QrCode { .. } => drop(run.pairing_since.get_or_insert_with(Instant::now)),
                    Fact::PairingCode { valid_for, .. } => {
                        run.code_until = Some(Instant::now() + valid_for.to_std().unwrap_or_default());
                    }
                    _ => {}
                }
                let qr_shown = matches!(signal, Fact::QrCode { .. });
                let code_shown = self.connection.snapshot.borrow().pairing_code.is_some();
                self.apply(signal);
                if code_shown && self.connection.snapshot.borrow().pairing_code.is_none() {
                    run.code_until = None;
                    // It died with its connection, or was used: the next one has to be asked for by a person.
                    *self.code_for.lock() = None;
                }
                // The server takes the request for a code once it has offered its QR codes.
                if qr_shown
                    && let Some((phone, asked)) = &mut *self.code_for.lock()
                    && !std::mem::replace(asked, true)
                {
                    client.request_code(phone);
                }
            }
            Heard::PairSuccess { phone } => match self.make_durable(client).await {
                Ok(()) => {
                    // What was said of another account.
                    self.inbox.limits.forget();
                    self.inbox.timers.forget();
                    run.just_paired = true;
                    self.apply(Fact::Paired { phone });
                }
                Err(why) => self.apply(Fact::StorageFailed(why)),
            },
            Heard::Connected if client.is_logged_in() => match self.make_durable(client).await {
                Ok(()) => self.apply(Fact::Online { phone: client.phone(), push_name: client.push_name() }),
                Err(why) => self.apply(Fact::StorageFailed(why)),
            },
            Heard::Connected => {}
            Heard::LateAck { id, ack } => {
                let outbox = self.outbox.clone();
                tokio::spawn(async move { outbox.late_ack(&id, ack).await });
            }
        }
        ControlFlow::Continue(())
    }
}

/// The question whether WhatsApp still answers on a connection that it has reported an error on.
pub(crate) struct Ping {
    word: DisconnectCode,
    answer: JoinHandle<bool>,
}

impl Ping {
    fn send(client: Client, word: DisconnectCode) -> Self {
        let answer = tokio::spawn(async move { client.answers_within(PING_LIMIT).await });
        Self { word, answer }
    }
}

/// Waits for the answer to a ping, for ever if there is none: the word that killed the connection, if it is dead.
async fn answer(ping: &mut Option<Ping>) -> Option<DisconnectCode> {
    let Some(waiting) = ping else { return std::future::pending().await };
    let alive = (&mut waiting.answer).await.unwrap_or(false);
    let word = waiting.word;
    *ping = None;
    (!alive).then_some(word)
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
