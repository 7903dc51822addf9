//! WhatsApp, as the library speaks it: its client, its events and its messages, turned into our types and back.

pub mod codes;
pub mod context;
pub mod decode;
pub mod encode;
pub mod library;
pub mod lookup;
pub mod media_crypto;
pub mod passkey;
pub mod retry_keys;
pub mod timers;
pub mod transport;
pub mod version;
