//! Where connections may go, and how they are opened.

pub mod breaker;
pub mod dial;
pub mod dial_gate;
pub mod egress;
pub mod media_host;
pub mod policy;
pub mod proxy;
pub mod trust;
