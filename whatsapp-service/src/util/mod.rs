//! What knows nothing of WhatsApp: encryption, times, tasks, fair shares.

pub mod clock;
pub mod descriptors;
pub mod encoding;
pub mod fair_semaphore;
pub mod process;
pub mod seal;
pub mod shares;
pub mod supervise;
pub mod sync;
