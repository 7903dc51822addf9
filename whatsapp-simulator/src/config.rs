//! What can be chosen about a simulator before it starts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::ServerIdentity;
use crate::world::Addressing;

/// Settings of one simulator. The defaults imitate the real service; tests shorten the times.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen with TLS too (port 0 picks a free one; default: nowhere).
    pub tls: Option<SocketAddr>,
    /// How long each server frame is on its way (default 1 ms). Never zero by default: clients have races that only
    /// an instant answer exposes.
    pub link_delay: Duration,
    /// How long a connection may take from the WebSocket upgrade to a finished Noise handshake (default 10 s).
    pub handshake_timeout: Duration,
    /// How long the first QR ref counts towards the life of an unpaired connection (default 60 s).
    pub qr_first: Duration,
    /// How long each further ref counts (default 20 s).
    pub qr_next: Duration,
    /// How many refs a companion gets (default 6). They all stay valid for `qr_first + (qr_refs - 1) * qr_next`, then
    /// the server closes the connection.
    pub qr_refs: usize,
    /// How long a pairing code can be typed in (default 180 s).
    pub pair_code_ttl: Duration,
    /// The pause between a confirmed pairing and the `515` that restarts the connection (default 150 ms). Without it
    /// clients have been seen to reconnect twice.
    pub restart_delay: Duration,
    /// How long the backlog waits for a client's `offline_batch` before it is delivered unasked (default 1 s).
    pub offline_batch_timeout: Duration,
    /// The host that clients are told to upload to and download from (default: the one under which they reached the
    /// simulator).
    pub media_host: Option<String>,
    /// Which of an account's two addresses its phone writes from (default [`Addressing::Lid`]).
    pub phone_addressing: Addressing,
    /// The keys behind the Noise certificate chain (default: fresh ones). Give the same to two simulators, one after
    /// the other, to let clients log in by IK across the restart.
    pub identity: Option<ServerIdentity>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: None,
            link_delay: Duration::from_millis(1),
            handshake_timeout: Duration::from_secs(10),
            qr_first: Duration::from_secs(60),
            qr_next: Duration::from_secs(20),
            qr_refs: 6,
            pair_code_ttl: Duration::from_secs(180),
            restart_delay: Duration::from_millis(150),
            offline_batch_timeout: Duration::from_secs(1),
            media_host: None,
            phone_addressing: Addressing::Lid,
            identity: None,
        }
    }
}

impl Config {
    /// How long an unpaired connection's refs are valid, counted from its start.
    pub fn qr_lifetime(&self) -> Duration {
        let further = u32::try_from(self.qr_refs.saturating_sub(1)).unwrap_or(u32::MAX);
        self.qr_first + self.qr_next.saturating_mul(further)
    }
}
