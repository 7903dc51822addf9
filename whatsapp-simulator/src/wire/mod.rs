//! The wire: WebSocket, Noise, frames and stanzas. It translates between bytes and the world, and decides nothing.

mod connection;
mod fields;
mod frames;
mod inbound;
mod iq;
mod login;
mod noise;
mod outbound;
pub(crate) mod pairing;
mod payload;
mod registration;
pub(crate) mod retry;
#[cfg(test)]
mod test_client;
#[cfg(test)]
mod tests;
mod trust;

pub(crate) use self::connection::serve;
pub use self::trust::{ServerIdentity, TrustError};
