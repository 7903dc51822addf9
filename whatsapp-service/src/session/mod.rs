//! One session: a tenant's link to WhatsApp.

pub mod connection;
pub mod deletion;
pub mod download;
pub mod download_quota;
pub mod inbox;
pub mod limits;
pub mod media_file;
pub mod outbox;
pub mod people;
pub mod presence;
pub mod references;
pub mod restoring;
pub mod retries;
pub mod shared;
pub mod state;
pub mod state_log;
pub mod store_owner;
pub mod supervisor;
pub mod timers;
