//! What knows nothing of WhatsApp: encryption, times, tasks, quotas.

pub mod clock;
pub mod descriptors;
pub mod encoding;
pub mod fair_semaphore;
pub mod process;
pub mod quota;
pub mod seal;
pub mod supervise;
