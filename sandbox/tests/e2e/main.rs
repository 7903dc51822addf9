//! The service as its users have it, against the offline WhatsApp: the real binary over HTTP, real files, real signals.

mod abuse;
mod addresses;
mod baileys;
#[path = "../client/mod.rs"]
mod client;
mod codes;
mod command_line;
mod contract;
mod conversion;
mod crash;
mod encryption;
mod events;
mod examples;
mod ffmpeg;
mod fleet;
mod harness;
mod kinds;
mod log;
mod media;
mod media_names;
mod media_types;
mod metrics;
mod migration;
mod network;
#[path = "../node/mod.rs"]
mod node;
mod numbers;
mod outbox;
mod outbox_faults;
mod pairing;
mod received;
mod received_media;
mod receiver;
mod relay;
mod restarts;
mod sending;
mod soak;
mod states;
mod trust;
mod voice;
mod webhooks;
