//! Plain types without I/O: what everybody speaks of.

pub mod address;
pub mod content;
pub mod error_code;
pub mod event;
pub mod media;
pub mod message;
pub mod session_state;
pub mod tenant;
