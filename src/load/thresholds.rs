//! What a run must reach, and whether it did.

use std::time::Duration;

use super::{
    figures::{Tally, sum},
    operations::Operation,
    outcome::{Baseline, Measured},
};

/// Differences of so many milliseconds between two moments of an idle service mean nothing.
const LATENCY_SLACK_MS: f64 = 2.0;

/// What is measured. Times are milliseconds, over all requests unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Mean,
    MeanOfReads,
    MeanOfWrites,
    P95,
    P99,
    P999,
    /// Of requests and handshakes, from 0 to 1.
    FailedShare,
    /// Live connections that were lost, or told to begin anew.
    SocketsLost,
    /// Requests; more is better.
    PerSecond,
    /// From a commit to a live client.
    FrameP99,
    /// From when a message was due to the live client that is told of it.
    FreshnessP99,
    /// Requests that were due and never sent, of all that were due, from 0 to 1.
    Unsent,
    /// Resident memory of the service after the run, above what it had before, in MiB.
    MemoryBack,
    /// An idle service's time for a read after the run, in times of what it took before.
    LatencyBack,
}

impl Measure {
    fn words(self) -> &'static str {
        match self {
            Self::Mean => "average, ms",
            Self::MeanOfReads => "average of reads, ms",
            Self::MeanOfWrites => "average of writes, ms",
            Self::P95 => "95th percentile, ms",
            Self::P99 => "99th percentile, ms",
            Self::P999 => "99.9th percentile, ms",
            Self::FailedShare => "failed, %",
            Self::SocketsLost => "live connections lost, or told to begin anew",
            Self::PerSecond => "requests per second, at least",
            Self::FrameP99 => "commit to live client, 99th percentile, ms",
            Self::FreshnessP99 => "message due to live client told, 99th percentile, ms",
            Self::Unsent => "due and never sent, %",
            Self::MemoryBack => "memory of the service after the run above that before, MiB",
            Self::LatencyBack => "a read of the idle service after the run, in times of before",
        }
    }

    fn is_share(self) -> bool {
        matches!(self, Self::FailedShare | Self::Unsent)
    }

    fn is_met(self, measured: f64, limit: f64) -> bool {
        if self == Self::PerSecond {
            measured >= limit
        } else {
            measured <= limit
        }
    }

    /// `None` where there was nothing to measure.
    fn of(self, measured: &Measured) -> Option<f64> {
        let all = || some(sum(&measured.tallies));
        let part = |is_read: bool| {
            let tallies = measured.tallies.iter();
            some(sum(
                tallies.filter(|(operation, _)| operation.is_read() == is_read)
            ))
        };
        let at = |percentile: f64| all().map(|all| ms(all.times.percentile(percentile)));
        match self {
            Self::Mean => all().map(|all| ms(all.times.mean())),
            Self::MeanOfReads => part(true).map(|reads| ms(reads.times.mean())),
            Self::MeanOfWrites => part(false).map(|writes| ms(writes.times.mean())),
            Self::P95 => at(95.0),
            Self::P99 => at(99.0),
            Self::P999 => at(99.9),
            Self::FailedShare => {
                let mut all = sum(&measured.tallies);
                let sockets = measured.of(Operation::OpenSocket);
                sockets.inspect(|sockets| all.absorb(sockets));
                some(all).map(|all| all.failed_share())
            }
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            Self::SocketsLost => {
                let sockets = measured.of(Operation::OpenSocket);
                sockets.map(|sockets| sockets.failures as f64)
            }
            Self::PerSecond => {
                let seconds = measured.took.as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
                all().map(|all| all.requests() as f64 / seconds.max(f64::EPSILON))
            }
            Self::FrameP99 => (measured.frames.times.count() > 0)
                .then(|| ms(measured.frames.times.percentile(99.0))),
            Self::FreshnessP99 => measured
                .of(Operation::Freshness)
                .map(|tally| ms(tally.times.percentile(99.0))),
            Self::Unsent => measured.unsent,
            Self::MemoryBack => memory(measured.before, measured.after),
            Self::LatencyBack => latency(measured.before, measured.after),
        }
    }
}

fn some(tally: Tally) -> Option<Tally> {
    (tally.requests() > 0).then_some(tally)
}

fn memory(before: Option<Baseline>, after: Option<Baseline>) -> Option<f64> {
    let (before, after) = (before?.resident_bytes?, after?.resident_bytes?);
    Some((after - before) / f64::from(1 << 20))
}

fn latency(before: Option<Baseline>, after: Option<Baseline>) -> Option<f64> {
    let (before, after) = (ms(before?.p50), ms(after?.p50));
    Some((after - LATENCY_SLACK_MS).max(before) / before.max(0.001))
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// What must be reached of a measure, and what should be.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    measure: Measure,
    floor: f64,
    goal: f64,
}

impl Limit {
    pub const fn new(measure: Measure, floor: f64, goal: f64) -> Self {
        Self {
            measure,
            floor,
            goal,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// The floor is met, and the goal is not.
    GoalMissed,
    Breached,
    /// There was nothing to measure.
    NotMeasured,
}

/// A measure with its limits, as a report shows it.
#[derive(Clone, Debug)]
pub struct Threshold {
    pub words: &'static str,
    /// `None`: there was nothing to measure.
    pub measured: Option<f64>,
    pub floor: f64,
    pub goal: f64,
    pub verdict: Verdict,
}

/// Each limit with what was measured.
pub(super) fn judge(limits: &[Limit], measured: &Measured) -> Vec<Threshold> {
    let judged = limits.iter().map(|limit| {
        let Limit {
            measure,
            floor,
            goal,
        } = *limit;
        let value = measure.of(measured);
        let verdict = match value {
            None => Verdict::NotMeasured,
            Some(value) if !measure.is_met(value, floor) => Verdict::Breached,
            Some(value) if !measure.is_met(value, goal) => Verdict::GoalMissed,
            Some(_) => Verdict::Met,
        };
        let shown = |number: f64| {
            if measure.is_share() {
                number * 100.0
            } else {
                number
            }
        };
        Threshold {
            words: measure.words(),
            measured: value.map(shown),
            floor: shown(floor),
            goal: shown(goal),
            verdict,
        }
    });
    judged.collect()
}
