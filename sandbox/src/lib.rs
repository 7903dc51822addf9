//! What the programs that put the service to the test share: starting it, linking tenants, judging its answers.

pub mod answer;
pub mod api;
pub mod at_once;
pub mod order;
pub mod report;
pub mod service;
pub mod setup;
pub mod usage;
