//! A bare client for tests, which says only what it is told to say: what a finished one does by itself, acknowledge, ask
//! again, come back, is what these tests are about.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::consts::WA_CONN_HEADER;
use wacore_binary::{Jid, Node};
use wacore_libsignal::protocol::KeyPair;
use wacore_noise::framing::{FrameDecoder, encode_frame};
use wacore_noise::{IkHandshakeState, IkServerHelloOutcome, NoiseCipher};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::fields::{attr, bytes};
use super::inbound::decode;
use super::retry;
use crate::world::address::{Address, Names};
use crate::world::phone::signal::{Signal, new_key_pair, raw};
use crate::world::stanza::Enc;
use crate::{Phone, Simulator};

/// How long a test waits for anything; all of it happens within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A companion's memory, which outlives its connections.
pub(crate) struct Companion {
    pub(crate) at: Address,
    names: Names,
    noise: KeyPair,
    pub(crate) signal: Signal,
}

impl Companion {
    /// A new companion of an account.
    pub(crate) fn link(simulator: &Simulator, phone: &Phone) -> Self {
        let noise = new_key_pair();
        let mut signal = Signal::generate(new_key_pair(), 7).unwrap();
        let (at, names) = simulator.world().link_for_test(phone, raw(&noise.public_key), &mut signal);
        Self { at, names, noise, signal }
    }

    /// Logs in; `None` if the connection ends before there is a word of success.
    pub(crate) async fn log_in(&self, simulator: &Simulator) -> Option<Connection> {
        let mut connection = Connection::open(simulator, self).await?;
        loop {
            match connection.next().await?.tag.as_ref() {
                "success" => return Some(connection),
                "failure" => return None,
                _ => {}
            }
        }
    }

    /// Logs in and asks for what it missed; returns that too.
    pub(crate) async fn come_back(&self, simulator: &Simulator) -> (Connection, Vec<Node>) {
        let mut connection = self.log_in(simulator).await.expect("a login");
        let missed = connection.activate().await;
        (connection, missed)
    }

    /// A text for a phone, encrypted.
    pub(crate) fn text(&mut self, simulator: &Simulator, to: &Phone, id: &str, text: &str) -> Node {
        let (to, jid) = simulator.world().phone_for_test(to);
        if !self.signal.has_session(to) {
            self.signal.start_session(to, &simulator.world().take_bundle(&jid).unwrap()).unwrap();
        }
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        let enc = self.signal.encrypt(to, &message.encode_to_vec()).unwrap();
        let enc = NodeBuilder::new("enc").attr("type", enc.kind.as_str()).attr("v", "2").bytes(enc.bytes).build();
        NodeBuilder::new("message").attr("id", id).attr("to", &jid).attr("type", "text").children([enc]).build()
    }

    /// The text of a message from a phone.
    pub(crate) fn read(&mut self, simulator: &Simulator, from: &Phone, message: &Node) -> String {
        let (from, _) = simulator.world().phone_for_test(from);
        let message = message.as_node_ref();
        let enc = message.get_optional_child("enc").unwrap();
        let enc = Enc { kind: attr(enc, "type").unwrap(), attrs: Vec::new(), bytes: bytes(enc).unwrap() };
        let plain = self.signal.decrypt(from, &enc).unwrap();
        wa::Message::decode_from_slice(&plain).unwrap().conversation.unwrap()
    }

    /// Takes the keys in a phone's retry receipt for a new session with it.
    pub(crate) fn renew_session(&mut self, simulator: &Simulator, with: &Phone, receipt: &Node) {
        let (with, _) = simulator.world().phone_for_test(with);
        let (_, bundle) = retry::parse(&receipt.as_node_ref()).unwrap();
        self.signal.drop_session(with);
        self.signal.start_session(with, &bundle.unwrap()).unwrap();
    }

    /// "Send it again", with keys.
    pub(crate) fn retry_receipt(&mut self, message: &Node) -> Node {
        let (id, bundle) = (value(message, "id"), self.signal.bundle());
        NodeBuilder::new("receipt")
            .attr("id", id.as_str())
            .attr("to", value(message, "from"))
            .attr("type", "retry")
            .children(retry::request(&id, 1, 0, self.signal.registration_id(), &bundle))
            .build()
    }
}

/// An attribute that is there.
pub(crate) fn value(node: &Node, name: &str) -> String {
    attr(&node.as_node_ref(), name).unwrap_or_else(|| panic!("no {name} in {node:?}"))
}

/// An attribute, or nothing.
pub(crate) fn optional(node: &Node, name: &str) -> Option<String> {
    attr(&node.as_node_ref(), name)
}

/// Those of some stanzas that have this tag.
pub(crate) fn tagged<'n>(nodes: &'n [Node], tag: &str) -> Vec<&'n Node> {
    nodes.iter().filter(|node| node.tag == tag).collect()
}

/// The plain receipt for a message.
pub(crate) fn delivered(message: &Node) -> Node {
    NodeBuilder::new("receipt").attr("id", value(message, "id")).attr("to", value(message, "from")).build()
}

/// The acknowledgement of a stanza.
pub(crate) fn ack(node: &Node) -> Node {
    let to: Jid = value(node, "from").parse().unwrap();
    let mut ack =
        NodeBuilder::new("ack").attr("class", node.tag.as_ref()).attr("id", value(node, "id")).attr("to", to).build();
    if let Some(kind) = optional(node, "type").filter(|_| node.tag != "message") {
        ack.attrs.insert("type", kind);
    }
    ack
}

/// A whole WebSocket message of bytes.
const BINARY: u8 = 0x82;

/// The first message of a server, if it is there to its end: its kind, and where its payload starts and ends.
fn whole_message(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (head, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= head + length).then_some((bytes[0], head, head + length))
}

/// A connection after its handshake. Dropping it is dying: nothing is said any more.
pub(crate) struct Connection {
    socket: TcpStream,
    /// Bytes of the WebSocket that are not yet a whole message.
    unread: Vec<u8>,
    frames: FrameDecoder,
    write: Option<NoiseCipher>,
    read: Option<NoiseCipher>,
    sent: u32,
    received: u32,
    asked: u32,
}

impl Connection {
    async fn open(simulator: &Simulator, companion: &Companion) -> Option<Self> {
        let mut socket = TcpStream::connect(simulator.addr()).await.ok()?;
        let request = "GET /ws/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            return None;
        }
        let mut connection = Self {
            socket,
            unread: Vec::new(),
            frames: FrameDecoder::new(),
            write: None,
            read: None,
            sent: 0,
            received: 0,
            asked: 0,
        };
        let payload = wa::ClientPayload {
            username: companion.names.phone.parse().ok(),
            device: Some(u32::from(companion.at.device)),
            ..Default::default()
        };
        let server = raw(&simulator.identity().static_key().public_key);
        let prologue = &WA_CONN_HEADER;
        let mut noise =
            IkHandshakeState::new(companion.noise.clone(), server, payload.encode_to_vec(), prologue).unwrap();
        let hello = noise.build_client_hello().unwrap();
        connection.send_frame(&hello, &WA_CONN_HEADER).await?;
        let answer = connection.frame().await?;
        let IkServerHelloOutcome::Continue(established) = noise.read_server_hello(&answer).unwrap() else {
            panic!("the server does not know its own key");
        };
        connection.write = Some(established.write_cipher);
        connection.read = Some(established.read_cipher);
        Some(connection)
    }

    /// Sends a frame in a WebSocket message whose mask is zero.
    async fn send_frame(&mut self, payload: &[u8], prologue: &[u8]) -> Option<()> {
        let frame = [prologue, &encode_frame(payload, None).unwrap()].concat();
        let mut message = vec![BINARY, 0xff];
        message.extend_from_slice(&u64::try_from(frame.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&frame);
        self.socket.write_all(&message).await.ok()
    }

    /// The next frame; `None` when the connection is over.
    async fn frame(&mut self) -> Option<BytesMut> {
        loop {
            if let Some(frame) = self.frames.decode_frame() {
                return Some(frame);
            }
            if let Some((kind, head, end)) = whole_message(&self.unread) {
                if kind != BINARY {
                    return None;
                }
                self.frames.feed(&self.unread[head..end]);
                self.unread.drain(..end);
                continue;
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Says something. Whether it gets there is another matter.
    pub(crate) async fn send(&mut self, node: &Node) {
        let plain = wacore_binary::marshal::marshal(node).unwrap();
        let sealed = self.write.as_ref().unwrap().encrypt_with_counter(self.sent, &plain).unwrap();
        self.sent += 1;
        let _ = self.send_frame(&sealed, &[]).await;
    }

    /// The next stanza; `None` when the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Node> {
        let mut frame = tokio::time::timeout(PATIENCE, self.frame()).await.expect("a stanza, or the end")?;
        self.read.as_ref().unwrap().decrypt_in_place_with_counter(self.received, &mut frame).unwrap();
        self.received += 1;
        Some(decode(frame).unwrap().get().to_owned())
    }

    /// Asks something and returns the answer, and what came before it; `None` when the connection is over.
    pub(crate) async fn try_ask(
        &mut self,
        namespace: &str,
        kind: &str,
        child: Option<Node>,
    ) -> Option<(Node, Vec<Node>)> {
        self.asked += 1;
        let id = format!("q{}", self.asked);
        let iq = NodeBuilder::new("iq").attr("id", id.as_str()).attr("xmlns", namespace).attr("type", kind);
        self.send(&iq.children(child).build()).await;
        let mut before = Vec::new();
        loop {
            let node = self.next().await?;
            if node.tag == "iq" && value(&node, "id") == id {
                return Some((node, before));
            }
            before.push(node);
        }
    }

    pub(crate) async fn ask(&mut self, namespace: &str, kind: &str, child: Option<Node>) -> (Node, Vec<Node>) {
        self.try_ask(namespace, kind, child).await.expect("an answer")
    }

    /// What came until the server had read all that was sent.
    pub(crate) async fn settled(&mut self) -> Vec<Node> {
        self.ask("w:p", "get", None).await.1
    }

    /// Wants to be active, and returns the backlog without the marks around it.
    pub(crate) async fn activate(&mut self) -> Vec<Node> {
        let (_, mut missed) = self.ask("passive", "set", Some(NodeBuilder::new("active").build())).await;
        loop {
            let node = self.next().await.expect("the backlog");
            if node.tag == "ib" && node.as_node_ref().get_optional_child("offline").is_some() {
                missed.retain(|node| node.tag != "ib");
                return missed;
            }
            missed.push(node);
        }
    }

    /// The next stanza for which this is so.
    pub(crate) async fn wait(&mut self, what: &str, is_it: impl Fn(&Node) -> bool) -> Node {
        loop {
            let node = self.next().await.unwrap_or_else(|| panic!("the connection ended before {what}"));
            if is_it(&node) {
                return node;
            }
        }
    }
}
