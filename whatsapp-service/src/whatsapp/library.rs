//! What the library needs once in a process, before anything else is asked of it.

use whatsapp_rust::wacore::time::{TimeProvider, set_time_provider};

use crate::util::clock;

/// Lets the library ask us for the time: by itself it could not read a clock that is before 1970. Only the first call
/// does something.
pub fn start() {
    let _ = set_time_provider(Wall);
}

struct Wall;

impl TimeProvider for Wall {
    fn now_millis(&self) -> i64 {
        clock::wall().timestamp_millis()
    }
}
