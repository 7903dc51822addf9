//! One WebSocket from its upgrade to its end: handshake, then a reader and a writer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wacore_binary::marshal::marshal_exact;
use wacore_noise::NoiseCipher;
use wacore_noise::framing::encode_frame;

use super::frames::{FrameError, Frames};
use super::inbound::decode;
use super::login::{LoggedIn, log_in};
use super::noise::{Answer, Established, NoiseError, answer};
use super::outbound;
use super::payload::{Payload, PayloadError, parse};
use super::registration::{Unpaired, register};
use super::trust::ServerIdentity;
use crate::world::faults::FaultKind;
use crate::world::queue::Link;
use crate::world::stanza::{Outgoing, Stanza};
use crate::world::stats::{bump, drop_one};
use crate::world::{Phone, World};

/// A client that does not take a frame for this long is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client closed it")]
    Closed,
    #[error("the server closed it")]
    Cut,
    #[error("the handshake took too long")]
    Slow,
    #[error("the client does not take what it is sent")]
    Stuck,
    #[error("websocket: {0}")]
    WebSocket(#[from] axum::Error),
    #[error("a text message on the WebSocket")]
    Text,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("a frame that cannot be decrypted")]
    Decrypt,
    #[error("a frame that is no stanza: {0}")]
    Stanza(wacore_binary::BinaryError),
    #[error("a fault cut it")]
    Fault,
}

/// Serves a connection until it ends; the client dialled `host`. `shutdown` ends it too.
pub(crate) async fn serve(
    socket: WebSocket,
    world: Arc<World>,
    server: Arc<ServerIdentity>,
    host: Option<Arc<str>>,
    shutdown: CancellationToken,
) {
    bump(&world.counters.connections);
    let (link, rx) = Link::new(world.next_number());
    let guard = shutdown.child_token();
    let ended = tokio::select! {
        () = guard.cancelled() => Ended::Cut,
        ended = run(socket, &world, &server, host, &link, rx) => ended,
    };
    link.cut.cancel();
    drop_one(&world.counters.connections);
    match ended {
        Ended::Closed | Ended::Cut => tracing::debug!(link = link.id, reason = %ended, "connection over"),
        // Most often a client that went without a word.
        Ended::WebSocket(_) => tracing::info!(link = link.id, reason = %ended, "connection lost"),
        _ => tracing::warn!(link = link.id, reason = %ended, "connection dropped"),
    }
}

async fn run(
    socket: WebSocket,
    world: &Arc<World>,
    server: &ServerIdentity,
    host: Option<Arc<str>>,
    link: &Link,
    rx: mpsc::Receiver<Outgoing>,
) -> Ended {
    let (mut sink, stream) = socket.split();
    let mut reader =
        Reader { stream, frames: Frames::new(), world: Arc::clone(world), phone: None, link: link.clone(), seen: 0 };
    let handshake = tokio::time::timeout(world.config.handshake_timeout, reader.handshake(&mut sink, server));
    let established = match handshake.await {
        Ok(Ok(established)) => established,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Slow,
    };
    reader.frames.trust();
    let payload = match parse(&established.payload, established.client) {
        Ok(payload) => payload,
        Err(error) => return error.into(),
    };
    if established.ik {
        bump(&world.counters.ik_handshakes);
    }
    let client = match payload {
        Payload::Login { username, device } => {
            world.delay_login(username).await;
            match log_in(world, link, host, username, device, established.client, established.ik) {
                Some(logged_in) => Client::LoggedIn(logged_in),
                None => Client::TurnedDown,
            }
        }
        Payload::Register(registration) => Client::Unpaired(register(world, link, *registration)),
    };
    let phone = if let Client::LoggedIn(c) = &client { Some(c.phone.clone()) } else { None };
    reader.phone.clone_from(&phone);
    let writer =
        Writer { sink, cipher: established.outgoing, counter: 0, world: Arc::clone(world), phone, link: link.clone() };
    // Two futures of one task: when either ends, so does the connection.
    tokio::select! {
        ended = reader.stanzas(established.incoming, &client) => ended,
        ended = writer.run(rx) => ended,
    }
}

enum Client {
    LoggedIn(LoggedIn),
    Unpaired(Unpaired),
    TurnedDown,
}

struct Reader {
    stream: SplitStream<WebSocket>,
    frames: Frames,
    world: Arc<World>,
    phone: Option<Phone>,
    link: Link,
    /// Frames so far, handshake included.
    seen: u64,
}

impl Reader {
    /// The next whole frame.
    async fn frame(&mut self) -> Result<BytesMut, Ended> {
        loop {
            if let Some(frame) = self.frames.next() {
                self.seen += 1;
                let seen = self.seen;
                let cut = |k: &FaultKind| matches!(k, FaultKind::CutAfterFrames(n) if seen >= *n).then_some(());
                if self.world.faults.take(self.phone.as_ref(), cut).is_some() {
                    return Err(Ended::Fault);
                }
                return Ok(frame);
            }
            self.stall().await;
            match self.stream.next().await.ok_or(Ended::Closed)?? {
                Message::Binary(data) => self.frames.feed(&data)?,
                Message::Close(_) => return Err(Ended::Closed),
                Message::Text(_) => return Err(Ended::Text),
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }

    /// Waits as long as a fault says that the server does not read.
    async fn stall(&self) {
        let stalled = |k: &FaultKind| (*k == FaultKind::StallReads).then_some(());
        if self.world.faults.peek(self.phone.as_ref(), stalled).is_none() {
            return;
        }
        let mut changes = self.world.changes();
        while self.world.faults.peek(self.phone.as_ref(), stalled).is_some() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn handshake(
        &mut self,
        sink: &mut SplitSink<WebSocket, Message>,
        server: &ServerIdentity,
    ) -> Result<Established, Ended> {
        let hello = self.frame().await?;
        match answer(server, &hello)? {
            Answer::Done(reply, established) => {
                sink.send(frame_message(&reply)).await?;
                Ok(*established)
            }
            Answer::Continue(reply, pending) => {
                sink.send(frame_message(&reply)).await?;
                let finish = self.frame().await?;
                Ok(pending.finish(&finish)?)
            }
        }
    }

    /// Decrypts and handles stanzas until the end.
    async fn stanzas(mut self, cipher: NoiseCipher, client: &Client) -> Ended {
        let mut counter = 0_u32;
        loop {
            let mut frame = match self.frame().await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            // A frame that came in before the stall is held back as well.
            self.stall().await;
            if cipher.decrypt_in_place_with_counter(counter, &mut frame).is_err() {
                return Ended::Decrypt;
            }
            counter = counter.wrapping_add(1);
            let node = match decode(frame) {
                Ok(node) => node,
                Err(error) => return Ended::Stanza(error),
            };
            tracing::trace!(link = self.link.id, tag = node.tag(), "<-");
            match client {
                Client::LoggedIn(client) => client.handle(node.get()),
                Client::Unpaired(client) => client.handle(node.get()),
                Client::TurnedDown => {}
            }
        }
    }
}

struct Writer {
    sink: SplitSink<WebSocket, Message>,
    cipher: NoiseCipher,
    counter: u32,
    world: Arc<World>,
    phone: Option<Phone>,
    link: Link,
}

impl Writer {
    /// Sends what the world says, each frame after the link's delay, until it says that this is the end.
    async fn run(mut self, mut rx: mpsc::Receiver<Outgoing>) -> Ended {
        loop {
            let outgoing = tokio::select! {
                () = self.link.cut.cancelled() => return Ended::Cut,
                outgoing = rx.recv() => match outgoing {
                    Some(outgoing) => outgoing,
                    None => return Ended::Cut,
                },
            };
            match outgoing {
                Outgoing::Stanza { stanza, offline, after, since } if after.is_zero() => {
                    let latency = |k: &FaultKind| if let FaultKind::Latency(d) = k { Some(*d) } else { None };
                    let extra = self.world.faults.take(self.phone.as_ref(), latency).unwrap_or_default();
                    let due = Instant::from_std(since) + self.world.config.link_delay + extra;
                    tokio::select! {
                        () = self.link.cut.cancelled() => return Ended::Cut,
                        () = tokio::time::sleep_until(due) => {}
                    }
                    match tokio::time::timeout(WRITE_TIMEOUT, self.send(&stanza, offline)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(ended)) => return ended,
                        Err(_) => return Ended::Stuck,
                    }
                }
                Outgoing::Close { after } if after.is_zero() => return Ended::Cut,
                later => self.postpone(later),
            }
        }
    }

    /// What has to wait waits beside the others.
    fn postpone(&self, outgoing: Outgoing) {
        let link = self.link.clone();
        tokio::spawn(async move {
            let (after, outgoing) = match outgoing {
                Outgoing::Stanza { stanza, offline, after, .. } => {
                    let since = std::time::Instant::now() + after;
                    (after, Outgoing::Stanza { stanza, offline, after: Duration::ZERO, since })
                }
                Outgoing::Close { after } => (after, Outgoing::Close { after: Duration::ZERO }),
            };
            tokio::select! {
                () = link.cut.cancelled() => {}
                () = tokio::time::sleep(after) => link.push(outgoing),
            }
        });
    }

    async fn send(&mut self, stanza: &Stanza, offline: bool) -> Result<(), Ended> {
        let node = outbound::node(stanza, offline);
        tracing::trace!(link = self.link.id, tag = %node.tag, "->");
        let mut bytes = marshal_exact(&node).map_err(Ended::Stanza)?;
        self.cipher.encrypt_in_place_with_counter(self.counter, &mut bytes).map_err(|_| Ended::Decrypt)?;
        self.counter = self.counter.wrapping_add(1);
        Ok(self.sink.send(frame_message(&bytes)).await?)
    }
}

/// Puts a frame into a WebSocket message. What is too long for a frame becomes an empty one; nothing here is.
fn frame_message(payload: &[u8]) -> Message {
    Message::Binary(encode_frame(payload, None).unwrap_or_default().into())
}
