//! The only place that asks what time it is. A clock is handed over, so that a test can hold it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{Interval, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

/// Where a process takes its time from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        started: Instant,
    },
    /// Nanoseconds since the start.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn system() -> Self {
        Self(Source::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Moves a manual clock; a system clock goes its own way.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(elapsed) = &self.0 {
            elapsed.fetch_add(
                u64::try_from(by.as_nanos()).unwrap_or(u64::MAX),
                Ordering::AcqRel,
            );
        }
    }

    /// Time since the clock was made. It never goes back.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual(elapsed) => Duration::from_nanos(elapsed.load(Ordering::Acquire)),
        }
    }

    /// The time of day in microseconds since 1970, as the host believes it; for showing lags, never for ordering.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn unix_micros(&self) -> i64 {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
    }
}

/// The beat of what is done every so often, until told to stop. What takes longer than the time between two is not made up for.
#[derive(Debug)]
pub struct Beat {
    interval: Interval,
    stop: CancellationToken,
}

impl Beat {
    /// The first time at once.
    pub fn at_once(every: Duration, stop: CancellationToken) -> Self {
        Self::of(interval(every), stop)
    }

    /// The first time when as long has passed.
    pub fn later(every: Duration, stop: CancellationToken) -> Self {
        Self::of(
            interval_at(tokio::time::Instant::now() + every, every),
            stop,
        )
    }

    fn of(mut interval: Interval, stop: CancellationToken) -> Self {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, stop }
    }

    /// Waits until it is time again; `false` once told to stop.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            _ = self.interval.tick() => true,
        }
    }
}
