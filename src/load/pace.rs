//! When the next request is due.
//!
//! In the open model requests are due at set times, whatever became of the ones before, and each is timed from when it was due:
//! a service that stalls makes all of those wait that came due meanwhile, and all of them show it. In the closed model a
//! user thinks after an answer before asking again, so a stall costs one slow answer a user and is hidden in the percentiles
//! (coordinated omission: Gil Tene, "How NOT to Measure Latency", 2013).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::figures::ratio;

/// How soon it is looked again whether something is wanted.
const PAUSED_LOOK: Duration = Duration::from_millis(200);

/// Set times, evenly spaced. Who takes one owes a request then. All users share it.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Thousandths of requests per second; may change while the run goes.
    per_second: AtomicU64,
    next: Mutex<Next>,
}

#[derive(Debug)]
struct Next {
    due: Duration,
    taken: u64,
}

/// A time that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    At(Duration),
    /// There is nothing to do now; look again after this long.
    LookAgain(Duration),
}

impl Schedule {
    /// The first request is due at `from`.
    pub(super) fn new(per_second: f64, from: Duration) -> Self {
        let schedule = Self {
            per_second: AtomicU64::new(0),
            next: Mutex::new(Next {
                due: from,
                taken: 0,
            }),
        };
        schedule.set(per_second);
        schedule
    }

    /// The first request is due then: whoever takes it is there now.
    pub(super) fn begin(&self, at: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.due = at;
    }

    /// From the next request on.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are positive and far below 2^63"
    )]
    pub(super) fn set(&self, per_second: f64) {
        let thousandths = (per_second.max(0.0) * 1_000.0).round() as u64;
        self.per_second.store(thousandths, Ordering::Relaxed);
    }

    /// Requests per second; 0: nothing is due.
    #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
    pub(super) fn per_second(&self) -> f64 {
        self.thousandths() as f64 / 1_000.0
    }

    /// Thousandths of requests per second; 0: nothing is due.
    fn thousandths(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// The next time.
    pub(super) fn take(&self, now: Duration) -> Due {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gap) = gap(self.thousandths()) else {
            // What would have come due while nothing was wanted is not owed.
            next.due = next.due.max(now);
            return Due::LookAgain(PAUSED_LOOK);
        };
        let due = next.due;
        next.due += gap;
        next.taken += 1;
        Due::At(due)
    }

    /// Of all that came due until now, the share that nobody took; `None` if nothing came due.
    pub(super) fn untaken(&self, now: Duration) -> Option<f64> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = gap(self.thousandths())?;
        let untaken = now.saturating_sub(next.due).as_nanos() / gap.as_nanos().max(1);
        let untaken = u64::try_from(untaken).unwrap_or(u64::MAX);
        (next.taken + untaken > 0).then(|| ratio(untaken, next.taken + untaken))
    }
}

/// Between two requests.
fn gap(thousandths: u64) -> Option<Duration> {
    let nanos = 1_000_000_000_000_u64.checked_div(thousandths)?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_set_whatever_became_of_the_ones_before() {
        let from = Duration::from_secs(1);
        let schedule = Schedule::new(10.0, from);
        let late = Duration::from_secs(9);
        let gap = Duration::from_millis(100);
        assert_eq!(schedule.take(late), Due::At(from));
        assert_eq!(schedule.take(late), Due::At(from + gap));
        schedule.set(1_000.0);
        assert_eq!(schedule.take(late), Due::At(from + gap * 2));
        let next = from + gap * 2 + Duration::from_millis(1);
        assert_eq!(schedule.take(late), Due::At(next));
    }

    #[test]
    fn what_nobody_took_is_known() {
        let schedule = Schedule::new(10.0, Duration::ZERO);
        schedule.take(Duration::ZERO);
        let untaken = schedule.untaken(Duration::from_secs(1)).unwrap();
        assert!((untaken - 0.9).abs() < 0.01, "{untaken}");
    }

    #[test]
    fn a_paused_schedule_owes_nothing() {
        let schedule = Schedule::new(0.0, Duration::ZERO);
        let now = Duration::from_secs(5);
        assert!(matches!(schedule.take(now), Due::LookAgain(_)));
        schedule.set(1.0);
        assert_eq!(schedule.take(now), Due::At(now));
    }
}
