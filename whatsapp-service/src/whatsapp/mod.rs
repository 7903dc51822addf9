//! WhatsApp, as the library speaks it: its client, its events and its messages, turned into our types and back.

pub mod account_limits;
pub mod calls;
pub mod chat;
pub mod client;
pub mod codes;
pub mod connector;
pub mod context;
pub mod decode;
pub mod encode;
pub mod events;
pub mod fact;
pub mod inbound;
pub mod library;
pub mod lookup;
pub mod media_crypto;
pub mod media_retry;
pub mod passkey;
pub mod placeholders;
pub mod resend_request;
pub mod retry;
pub mod retry_keys;
pub mod selfcheck;
pub mod send;
pub mod timers;
pub mod transport;
pub mod version;
