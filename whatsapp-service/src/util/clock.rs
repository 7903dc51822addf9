//! What time it is, and how times are written.
//!
//! The clock on the wall can be wrong, and be set right or wrong while the service runs. One that jumps by a day must not
//! end all that has a deadline, nor forget which calls were made already. So it is compared with the clock that only ever
//! goes on, and after a jump it counts again when it has been steady for a while.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use parking_lot::{Mutex, MutexGuard};
use serde::Serializer;

/// How far the two clocks may come apart between two looks at them: time servers correct less than this at a time.
const TOLERANCE: TimeDelta = TimeDelta::seconds(10);
/// From what age on the newest thing in the store is old enough that the clock may have jumped before the start.
const LONG_AGO: TimeDelta = TimeDelta::hours(1);

/// The service's clock. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    /// For how long it must not jump to count as steady.
    steady_after: Duration,
    state: Mutex<State>,
    /// What a test has added to the wall clock and to the other one.
    #[cfg(test)]
    added: Mutex<(TimeDelta, Duration)>,
}

struct State {
    /// What the wall clock said when it was right for the last time, and what the other clock said then.
    right: (DateTime<Utc>, Duration),
    /// By how much the wall clock is off since then, if it has jumped.
    off: Option<TimeDelta>,
    /// Since when it may be steady again; nothing if it is.
    unsteady_since: Option<Duration>,
}

impl Clock {
    /// The system's clock. It is steady now, and so long after a jump.
    pub fn new(steady_after: Duration) -> Self {
        let state = State { right: (wall(), elapsed()), off: None, unsteady_since: None };
        Self(Arc::new(Inner {
            steady_after,
            state: state.into(),
            #[cfg(test)]
            added: Mutex::default(),
        }))
    }

    /// The time. When the wall clock jumps, this one goes on as if it had not, until the wall clock has been steady for a
    /// while; then it is the wall clock's time again.
    pub fn now(&self) -> DateTime<Utc> {
        self.look().0
    }

    /// Whether the clock has not jumped for a while: only then something may expire, or be forgotten.
    pub fn is_steady(&self) -> bool {
        self.look().1
    }

    /// Compares the clock with the newest time that an earlier process wrote down. One that is in the future says that the
    /// clock was put back. One that is long ago says that the service was down, or that the clock was put forward.
    pub fn compare(&self, newest: DateTime<Utc>) {
        let (wall, elapsed) = self.both();
        let age = wall - newest;
        let mut state = self.state();
        if age < -TOLERANCE {
            tracing::warn!(seconds = -age.num_seconds(), "the clock is behind what was written down before the start");
            // What is written now must not look older than what was written before it.
            (state.right, state.off) = ((newest, elapsed), Some(age));
        } else if age > LONG_AGO {
            tracing::warn!(
                seconds = age.num_seconds(),
                "what was written down last is old: was the service down so long?"
            );
        } else {
            return;
        }
        state.unsteady_since = Some(elapsed);
        drop(state);
        self.announce();
    }

    /// The time, and whether the clock is steady.
    fn look(&self) -> (DateTime<Utc>, bool) {
        let (wall, elapsed) = self.both();
        let mut state = self.state();
        let expected = state.right.0 + delta(elapsed.saturating_sub(state.right.1));
        let (off, before) = (wall - expected, state.off);
        let has_jumped = (off - before.unwrap_or_default()).abs() > TOLERANCE;
        if has_jumped {
            state.unsteady_since = Some(elapsed);
        }
        let is_steady = state.unsteady_since.is_none_or(|since| elapsed.saturating_sub(since) >= self.0.steady_after);
        if is_steady {
            state.unsteady_since = None;
        }
        let counts = is_steady || off.abs() <= TOLERANCE;
        if counts {
            (state.right, state.off) = ((wall, elapsed), None);
        } else {
            state.off = Some(off);
        }
        drop(state);
        if has_jumped {
            let seconds = (off - before.unwrap_or_default()).num_seconds();
            tracing::warn!(seconds, "the clock has jumped");
            self.announce();
        } else if is_steady && before.is_some() {
            tracing::warn!(seconds = off.num_seconds(), "the clock has been steady since it jumped: it counts now");
        }
        (if counts { wall } else { expected }, is_steady)
    }

    fn announce(&self) {
        let steady_after = self.0.steady_after;
        tracing::warn!("nothing expires and nothing is forgotten until the clock has been steady for {steady_after:?}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// What both clocks say.
    fn both(&self) -> (DateTime<Utc>, Duration) {
        #[cfg(test)]
        {
            let (later, longer) = *self.0.added.lock();
            (wall() + later, elapsed() + longer)
        }
        #[cfg(not(test))]
        (wall(), elapsed())
    }
}

#[cfg(test)]
impl Clock {
    /// One that needs ten minutes.
    pub fn of_test() -> Self {
        Self::new(Duration::from_secs(600))
    }

    /// The same, on a machine whose wall clock is ahead by so much.
    pub fn of_test_ahead(by: TimeDelta) -> Self {
        let clock = Self::of_test();
        clock.jump(by);
        let both = clock.both();
        clock.state().right = both;
        clock
    }

    /// The wall clock jumps.
    pub fn jump(&self, by: TimeDelta) {
        self.0.added.lock().0 += by;
    }

    /// So much time passes.
    pub fn pass(&self, time: TimeDelta) {
        let mut added = self.0.added.lock();
        added.0 += time;
        added.1 += time.to_std().unwrap();
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// What the wall clock says, be it right or wrong, also before 1970: for what others compare with their own clocks.
pub fn wall() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// For how long the machine has run, the time in which it was suspended included.
fn elapsed() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let since = rustix::time::clock_gettime(clock);
    Duration::new(since.tv_sec.unsigned_abs(), since.tv_nsec.unsigned_abs() as u32)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// RFC 3339 with milliseconds, in UTC.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The same for serde.
pub fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*at))
}

/// The same for what may not have happened; such a field is to be skipped when it is `None`.
pub fn serialize_option<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: TimeDelta = TimeDelta::hours(25);
    const MINUTE: TimeDelta = TimeDelta::minutes(1);

    /// How far the clock is from where it started, to the minute.
    fn minutes(clock: &Clock, start: DateTime<Utc>) -> i64 {
        ((clock.now() - start).num_seconds() + 30).div_euclid(60)
    }

    #[test]
    fn a_jump_forward_and_back_leaves_the_time_as_it_would_be() {
        for by in [DAY, -DAY, TimeDelta::days(40 * 365), TimeDelta::days(-100 * 365)] {
            let (clock, start) = (Clock::of_test(), wall());
            assert!(clock.is_steady());
            clock.jump(by);
            assert_eq!((minutes(&clock, start), clock.is_steady()), (0, false));
            clock.pass(MINUTE * 9);
            assert_eq!((minutes(&clock, start), clock.is_steady()), (9, false));
            clock.jump(-by);
            assert_eq!((minutes(&clock, start), clock.is_steady()), (9, false));
            clock.pass(MINUTE * 9);
            assert!(!clock.is_steady(), "it has jumped nine minutes ago");
            clock.pass(MINUTE);
            assert_eq!((minutes(&clock, start), clock.is_steady()), (19, true));
        }
    }

    #[test]
    fn a_clock_that_stays_where_it_jumped_to_counts_after_ten_minutes() {
        let (clock, start) = (Clock::of_test(), wall());
        clock.jump(-DAY);
        assert!(!clock.is_steady());
        clock.pass(MINUTE * 9);
        // Another one begins the ten minutes anew.
        clock.jump(-MINUTE);
        assert_eq!((minutes(&clock, start), clock.is_steady()), (9, false));
        clock.pass(MINUTE * 10);
        assert!(clock.is_steady());
        assert_eq!(minutes(&clock, start), 19 - 25 * 60 - 1);
    }

    #[test]
    fn small_corrections_and_time_that_passes_are_no_jumps() {
        let (clock, start) = (Clock::of_test(), wall());
        for _ in 0..100 {
            clock.jump(TimeDelta::seconds(9));
            clock.pass(TimeDelta::days(1));
            assert!(clock.is_steady());
        }
        assert_eq!(minutes(&clock, start), 100 * 24 * 60 + 15);
    }

    #[test]
    fn what_was_written_before_the_start_is_compared() {
        let start = wall();
        let recent = Clock::of_test();
        recent.compare(start - TimeDelta::minutes(59));
        assert!(recent.is_steady());

        let down = Clock::of_test();
        down.compare(start - DAY);
        assert_eq!((minutes(&down, start), down.is_steady()), (0, false), "it may have been down");
        down.pass(MINUTE * 10);
        assert!(down.is_steady());

        let behind = Clock::of_test();
        behind.compare(start + DAY);
        assert_eq!((minutes(&behind, start), behind.is_steady()), (25 * 60, false));
        // It is set right.
        behind.jump(DAY);
        assert_eq!((minutes(&behind, start), behind.is_steady()), (25 * 60, false));
        behind.pass(MINUTE * 10);
        assert_eq!((minutes(&behind, start), behind.is_steady()), (25 * 60 + 10, true));
    }
}
