//! A way between two programs that a test can spoil: a plain relay, a SOCKS5 proxy, or an HTTP proxy.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What a relay does with what passes through it, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes it on.
    Pass,
    /// Closes each new connection at once.
    Refuse,
    /// Closes a connection after so many more bytes from the client.
    CutRequest(usize),
    /// Closes a connection after so many more bytes from the server.
    CutAnswer(usize),
    /// Passes nothing on, and says nothing of it.
    Silent,
    /// Passes on one byte a second in each direction.
    Trickle,
}

/// How a client says where it wants to go.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// It does not.
    Plain,
    /// By SOCKS5, with this user name and password if any.
    Socks5(Option<(&'static str, &'static str)>),
    /// By CONNECT, with this user name and password if any.
    Http(Option<(&'static str, &'static str)>),
}

/// A relay to one server, whatever a client asks for. It ends with the test.
pub struct Relay {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    kind: Kind,
    server: SocketAddr,
    accepted: AtomicUsize,
    open: AtomicUsize,
    asked_for: Mutex<Vec<String>>,
}

impl Relay {
    pub async fn start(kind: Kind, server: SocketAddr, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(mode);
        let counters = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Shared { kind, server, accepted: counters.0, open: counters.1, asked_for: Mutex::default() };
        let shared = Arc::new(shared);
        let accepting = tokio::spawn(accept(listener, mode.subscribe(), shared.clone()));
        Self { address, mode, shared, accepting }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections it has taken so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections pass through it now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Where clients wanted to go, as they said it.
    pub fn asked_for(&self) -> Vec<String> {
        self.shared.asked_for.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, mode: watch::Receiver<Mode>, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        let (mode, shared) = (mode.clone(), shared.clone());
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::Relaxed);
            // A connection that breaks is what this is for.
            let _ = relay(client, mode, &shared).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn relay(mut client: TcpStream, mode: watch::Receiver<Mode>, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let asked_for = match shared.kind {
        Kind::Plain => None,
        Kind::Socks5(login) => Some(socks5(&mut client, login).await?),
        Kind::Http(login) => Some(connect(&mut client, login).await?),
    };
    shared.asked_for.lock().unwrap().extend(asked_for);
    let mut server = TcpStream::connect(shared.server).await?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let requests = pass(from_client, to_server, mode.clone(), |mode| match mode {
        Mode::CutRequest(after) => Some(after),
        _ => None,
    });
    let answers = pass(from_server, to_client, mode, |mode| match mode {
        Mode::CutAnswer(after) => Some(after),
        _ => None,
    });
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}

/// Passes on in one direction, until either end closes or `cut` says so.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    cut: impl Fn(Mode) -> Option<usize>,
) -> io::Result<()> {
    let (mut buffer, mut passed) = ([0; 4096], 0);
    loop {
        if mode.has_changed().unwrap_or(false) {
            passed = 0;
        }
        let now = *mode.borrow_and_update();
        let most = match now {
            Mode::Trickle => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                1
            }
            _ => cut(now).map_or(buffer.len(), |after| after.saturating_sub(passed).min(buffer.len())),
        };
        if most == 0 {
            return Ok(());
        }
        let length = tokio::select! {
            _ = mode.changed() => {
                mode.mark_changed();
                continue;
            }
            length = from.read(&mut buffer[..most]), if now != Mode::Silent => length?,
        };
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        passed += length;
    }
}

fn refused() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

/// The server's half of RFC 1928 and RFC 1929.
async fn socks5(client: &mut TcpStream, login: Option<(&str, &str)>) -> io::Result<String> {
    let methods = some(client, 2).await?[1];
    let methods = some(client, methods).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        client.write_all(&[5, 0xFF]).await?;
        return Err(refused());
    }
    client.write_all(&[5, method]).await?;
    if let Some((name, password)) = login {
        let length = some(client, 2).await?[1];
        let given_name = some(client, length).await?;
        let length = some(client, 1).await?[0];
        let given_password = some(client, length).await?;
        let right = given_name == name.as_bytes() && given_password == password.as_bytes();
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Err(refused());
        }
    }
    let host = match some(client, 4).await?[3] {
        1 => {
            let address = some(client, 4).await?;
            std::net::Ipv4Addr::from(<[u8; 4]>::try_from(address).unwrap()).to_string()
        }
        3 => {
            let length = some(client, 1).await?[0];
            String::from_utf8(some(client, length).await?).map_err(|_| refused())?
        }
        _ => return Err(refused()),
    };
    let port = client.read_u16().await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(format!("{host}:{port}"))
}

async fn some(client: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The server's half of CONNECT.
async fn connect(client: &mut TcpStream, login: Option<(&str, &str)>) -> io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8(request).map_err(|_| refused())?;
    if let Some((name, password)) = login {
        let wanted = format!("Proxy-Authorization: Basic {}", BASE64.encode(format!("{name}:{password}")));
        if !request.lines().any(|line| line == wanted) {
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await?;
            return Err(refused());
        }
    }
    let asked_for = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).ok_or_else(refused)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    Ok(asked_for.to_owned())
}
