//! What holds up all dials when WhatsApp turns several sessions away for the same kind of reason: its servers are in
//! trouble, it has had enough of us, or it no longer takes this client. One session then tries from time to time, and
//! the others wait until a login succeeds.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::tenant::TenantId;

/// So many different tenants in trouble, without a login between them, are no coincidence. One tenant alone never holds
/// up the others.
const TENANTS: usize = 3;
/// How close together they have to be.
const WINDOW: Duration = Duration::from_secs(60);
/// The pause before the first try.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The breaker. Times and chance are given to it.
#[derive(Default)]
pub struct Breaker {
    suspects: Vec<(TenantId, Instant)>,
    open: Option<Open>,
}

struct Open {
    pause: Duration,
    probe_at: Instant,
    probing: bool,
}

impl Breaker {
    /// A tenant was turned away. Returns whether that made the others wait; `chance` is a number from 0 to 1.
    pub fn trouble(&mut self, tenant: &TenantId, now: Instant, chance: f64) -> bool {
        if let Some(open) = &mut self.open {
            // Those that were on their way already say nothing new; the one that tried does.
            if open.probing {
                open.pause = (open.pause * 2).min(LONGEST_PAUSE);
                open.probe_at = now + jittered(open.pause, chance);
            }
            return false;
        }
        self.suspects.retain(|(suspect, since)| suspect != tenant && now.duration_since(*since) < WINDOW);
        self.suspects.push((tenant.clone(), now));
        if self.suspects.len() < TENANTS {
            return false;
        }
        self.suspects.clear();
        self.open = Some(Open { pause: FIRST_PAUSE, probe_at: now + jittered(FIRST_PAUSE, chance), probing: false });
        true
    }

    /// A login succeeded. Returns whether others waited for that.
    pub fn success(&mut self) -> bool {
        self.suspects.clear();
        self.open.take().is_some()
    }

    /// Whether all wait.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When somebody may try: `None` if there is nothing to wait for, `Some(None)` while somebody tries.
    pub fn probe_at(&self) -> Option<Option<Instant>> {
        self.open.as_ref().map(|open| (!open.probing).then_some(open.probe_at))
    }

    /// Somebody tries.
    pub fn probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// That try is over; another follows after a pause unless it has succeeded.
    pub fn probed(&mut self, now: Instant, chance: f64) {
        if let Some(open) = &mut self.open {
            open.probing = false;
            open.probe_at = open.probe_at.max(now + jittered(open.pause, chance));
        }
    }
}

/// Between half of the pause and all of it.
fn jittered(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_tenants_trouble_is_not_the_others() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for n in 0..100 {
            assert!(!breaker.trouble(&tenant("unlucky"), now + seconds(n), 1.0));
        }
        assert!(!breaker.trouble(&tenant("another"), now + seconds(100), 1.0) && !breaker.is_open());
    }

    #[test]
    fn a_login_in_between_shows_that_it_is_a_coincidence() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.trouble(&tenant("a"), now, 1.0);
        breaker.trouble(&tenant("b"), now, 1.0);
        assert!(!breaker.success(), "nobody waited");
        assert!(!breaker.trouble(&tenant("c"), now, 1.0));
        let later = now + seconds(61);
        assert!(!breaker.trouble(&tenant("d"), later, 1.0) && !breaker.trouble(&tenant("e"), later, 1.0));
        assert!(breaker.trouble(&tenant("f"), later, 1.0), "three within a minute");
    }

    #[test]
    fn tries_become_rarer_while_they_fail() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for name in ["a", "b", "c"] {
            breaker.trouble(&tenant(name), now, 1.0);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let at = breaker.probe_at().unwrap().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
            breaker.probe();
            assert_eq!(breaker.probe_at(), Some(None), "one at a time");
            breaker.trouble(&tenant("d"), now, 1.0);
            breaker.probed(now, 1.0);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(breaker.success() && breaker.probe_at().is_none());
    }

    #[test]
    fn those_that_were_on_their_way_do_not_lengthen_the_pause() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for n in 0..500 {
            breaker.trouble(&tenant(&format!("tenant-{n}")), now, 1.0);
        }
        assert_eq!(breaker.probe_at(), Some(Some(now + FIRST_PAUSE)));
    }
}
