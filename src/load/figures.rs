//! Counts and times of a run: by operation, in all, and second by second.
//!
//! Times are HDR histograms of microseconds (three significant figures, from 1 µs to 10 minutes; what is longer counts as that):
//! Gil Tene, <http://hdrhistogram.org>. An answer that a scenario expects (a 404 for what is unknown, a 409 for what is sold
//! out) is a refusal and no failure.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

use super::operations::Operation;

/// Longest time that is told apart, in microseconds.
const TIME_US_MAX: u64 = 600_000_000;
const SIGNIFICANT_FIGURES: u8 = 3;
/// Kinds of failures that are told apart; the rest is counted together.
const FAILURES_MAX: usize = 200;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// What it asked for.
    Fine,
    /// A refusal that the scenario expects.
    Refused,
    /// Anything else, and why.
    Failed(String),
}

/// Times in microseconds.
#[derive(Clone, Debug)]
pub struct Times(
    /// Always there: the bounds are constants, and right.
    Option<Histogram<u32>>,
);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, TIME_US_MAX, SIGNIFICANT_FIGURES).ok())
    }
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(TIME_US_MAX);
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros.clamp(1, TIME_US_MAX));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The time within which so many of a hundred lie; zero if there is none.
    pub fn percentile(&self, percentile: f64) -> Duration {
        self.of(|histogram| histogram.value_at_percentile(percentile))
    }

    pub(super) fn mean(&self) -> Duration {
        let mean = self.0.as_ref().map_or(0.0, Histogram::mean);
        Duration::from_secs_f64(mean / 1e6)
    }

    pub(super) fn min(&self) -> Duration {
        self.of(Histogram::min)
    }

    pub(super) fn max(&self) -> Duration {
        self.of(Histogram::max)
    }

    fn of(&self, value: impl FnOnce(&Histogram<u32>) -> u64) -> Duration {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty());
        histogram.map_or(Duration::ZERO, |histogram| {
            Duration::from_micros(value(histogram))
        })
    }

    fn absorb(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.0, &other.0) {
            // Both have the same bounds.
            histogram.add(other).ok();
        }
    }

    fn forget(&mut self) {
        if let Some(histogram) = &mut self.0 {
            histogram.reset();
        }
    }
}

/// Counts and times of one operation, or of all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub times: Times,
    pub failures: u64,
    pub refusals: u64,
    /// Bytes of the answers' bodies.
    pub bytes: u64,
}

impl Tally {
    pub fn requests(&self) -> u64 {
        self.times.count()
    }

    fn add(&mut self, time: Duration, came: &Came, bytes: usize) {
        self.times.add(time);
        self.failures += u64::from(matches!(came, Came::Failed(_)));
        self.refusals += u64::from(*came == Came::Refused);
        self.bytes += bytes as u64;
    }

    pub fn absorb(&mut self, other: &Self) {
        self.times.absorb(&other.times);
        self.failures += other.failures;
        self.refusals += other.refusals;
        self.bytes += other.bytes;
    }

    /// The share of requests that failed, from 0 to 1.
    pub fn failed_share(&self) -> f64 {
        ratio(self.failures, self.requests())
    }
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// Seconds since the load began.
    pub at: f64,
    pub users: u64,
    pub requests: u64,
    pub failures: u64,
    pub refusals: u64,
    pub frames: u64,
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
    /// From a commit to the frame, of this second's frames.
    pub frame_p99: Duration,
    /// Of the service, where its metrics could be read.
    pub service: Option<super::service::Reading>,
}

/// What failed, and how often.
#[derive(Clone, Debug)]
pub struct Failure {
    pub operation: Operation,
    pub reason: String,
    pub times: u64,
}

/// Where everything that is timed is told. Shared by all users.
#[derive(Debug)]
pub(super) struct Figures {
    by_operation: Vec<Mutex<Tally>>,
    second: Mutex<Tally>,
    frames: Mutex<Frames>,
    failures: Mutex<BTreeMap<(Operation, String), u64>>,
    late: Mutex<Times>,
    users: AtomicU64,
}

/// Frames of live clients.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    pub count: u64,
    /// From the commit to the client, of those that tell when that was.
    pub times: Times,
    second_count: u64,
    second: Times,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            by_operation: Operation::ALL.iter().map(|_| Mutex::default()).collect(),
            second: Mutex::default(),
            frames: Mutex::default(),
            failures: Mutex::default(),
            late: Mutex::default(),
            users: AtomicU64::new(0),
        }
    }
}

impl Figures {
    /// A request was answered, or given up.
    pub(super) fn add(&self, operation: Operation, time: Duration, came: &Came, bytes: usize) {
        locked(&self.by_operation[operation.place()]).add(time, came, bytes);
        if operation.is_request() {
            locked(&self.second).add(time, came, bytes);
        }
        if let Came::Failed(reason) = came {
            self.count_failure(operation, reason);
        }
    }

    /// Something broke that was no request.
    pub(super) fn broke(&self, operation: Operation, reason: &str) {
        locked(&self.by_operation[operation.place()]).failures += 1;
        self.count_failure(operation, reason);
    }

    fn count_failure(&self, operation: Operation, reason: &str) {
        let mut failures = locked(&self.failures);
        let is_new = !failures.contains_key(&(operation, reason.to_owned()));
        let reason = if is_new && failures.len() >= FAILURES_MAX {
            "others".to_owned()
        } else {
            reason.to_owned()
        };
        *failures.entry((operation, reason)).or_default() += 1;
    }

    /// A frame came, so long after the commit it tells of.
    pub(super) fn add_frame(&self, after: Option<Duration>) {
        let mut frames = locked(&self.frames);
        frames.count += 1;
        frames.second_count += 1;
        if let Some(after) = after {
            frames.times.add(after);
            frames.second.add(after);
        }
    }

    /// A request was sent so long after it was due.
    pub(super) fn sent_late(&self, by: Duration) {
        locked(&self.late).add(by);
    }

    /// How late requests were sent: what the generator itself, or its connections' waiting, took.
    pub(super) fn late(&self) -> Times {
        locked(&self.late).clone()
    }

    pub(super) fn set_users(&self, users: usize) {
        self.users.store(users as u64, Ordering::Relaxed);
    }

    /// Ends a second, and tells it.
    pub(super) fn end_second(&self, at: f64) -> Second {
        let mut second = Second {
            at,
            users: self.users.load(Ordering::Relaxed),
            ..Second::default()
        };
        {
            let mut tally = locked(&self.second);
            second.requests = tally.requests();
            second.failures = tally.failures;
            second.refusals = tally.refusals;
            second.p50 = tally.times.percentile(50.0);
            second.p95 = tally.times.percentile(95.0);
            second.p99 = tally.times.percentile(99.0);
            tally.times.forget();
            (tally.failures, tally.refusals, tally.bytes) = (0, 0, 0);
        }
        let mut frames = locked(&self.frames);
        second.frames = std::mem::take(&mut frames.second_count);
        second.frame_p99 = frames.second.percentile(99.0);
        frames.second.forget();
        second
    }

    /// Forgets everything: what was counted was not the test yet.
    pub(super) fn begin(&self) {
        for tally in &self.by_operation {
            *locked(tally) = Tally::default();
        }
        *locked(&self.second) = Tally::default();
        *locked(&self.frames) = Frames::default();
        *locked(&self.late) = Times::default();
        locked(&self.failures).clear();
    }

    pub(super) fn tally(&self, operation: Operation) -> Tally {
        locked(&self.by_operation[operation.place()]).clone()
    }

    /// Every operation that happened, in the order of their declaration.
    pub(super) fn tallies(&self) -> Vec<(Operation, Tally)> {
        let all = Operation::ALL
            .iter()
            .map(|operation| (*operation, self.tally(*operation)));
        all.filter(|(_, tally)| tally.requests() + tally.failures > 0)
            .collect()
    }

    pub(super) fn frames(&self) -> Frames {
        locked(&self.frames).clone()
    }

    pub(super) fn failures(&self) -> Vec<Failure> {
        let failures = locked(&self.failures);
        let mut failures: Vec<Failure> = failures
            .iter()
            .map(|((operation, reason), times)| Failure {
                operation: *operation,
                reason: reason.clone(),
                times: *times,
            })
            .collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.times));
        failures
    }
}

/// All requests over HTTP of some operations.
pub(super) fn sum<'t>(tallies: impl IntoIterator<Item = &'t (Operation, Tally)>) -> Tally {
    let mut all = Tally::default();
    for (operation, tally) in tallies {
        if operation.is_request() {
            all.absorb(tally);
        }
    }
    all
}

/// 0 where there is nothing to be a part of.
#[expect(clippy::cast_precision_loss, reason = "a share is no count")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_no_failure() {
        let figures = Figures::default();
        let ms = Duration::from_millis;
        figures.add(Operation::CreateOrder, ms(1), &Came::Fine, 10);
        figures.add(Operation::CreateOrder, ms(2), &Came::Refused, 10);
        let why = Came::Failed("HTTP 500".to_owned());
        figures.add(Operation::CreateOrder, ms(900), &why, 0);
        figures.add(Operation::OpenSocket, ms(5), &why, 0);
        let second = figures.end_second(1.0);
        assert_eq!(
            (second.requests, second.refusals, second.failures),
            (3, 1, 1),
            "handshakes are no requests"
        );
        assert!(second.p99 >= ms(900));
        assert_eq!(figures.end_second(2.0).requests, 0, "each second by itself");
        let tallies = figures.tallies();
        let all = sum(&tallies);
        assert_eq!((all.requests(), all.failures, all.refusals), (3, 1, 1));
        assert_eq!(figures.failures().len(), 2);
    }
}
