//! What came of a run: all that reports show, and whether it is red.

use std::time::Duration;

use super::{
    figures::{Failure, Frames, Second, Tally, Times, sum},
    invariants::{Finding, Invariant},
    operations::Operation,
    thresholds::{Threshold, Verdict},
};
use crate::domain::Timestamp;

/// How the service is while nothing is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Of a read of one level, one after the other.
    pub p50: Duration,
    pub p99: Duration,
    /// `None` where its metrics cannot be read.
    pub resident_bytes: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub tallies: Vec<(Operation, Tally)>,
    pub frames: Frames,
    /// How long the load lasted.
    pub took: Duration,
    pub before: Option<Baseline>,
    pub after: Option<Baseline>,
    /// Of the requests and messages that were due at set times, those that were not sent before the end.
    pub unsent: Option<f64>,
    /// From when a request was due to when it was sent.
    pub late: Times,
}

impl Measured {
    /// What was counted of an operation after the others.
    pub(super) fn take(&mut self, operation: Operation, tally: Tally) {
        self.tallies.retain(|(of, _)| *of != operation);
        if tally.requests() > 0 {
            self.tallies.push((operation, tally));
        }
    }

    pub fn of(&self, operation: Operation) -> Option<&Tally> {
        let mut tallies = self.tallies.iter();
        tallies
            .find(|(of, _)| *of == operation)
            .map(|(_, tally)| tally)
    }
}

/// What the generator reaches by itself: against a handler that does nothing, on the same machine.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    pub connections: usize,
    pub per_second: f64,
    pub p99: Duration,
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: &'static str,
    pub began_at: Timestamp,
    pub seed: u64,
    /// What was asked for, in words.
    pub settings: Vec<(&'static str, String)>,
    pub measured: Measured,
    pub seconds: Vec<Second>,
    pub failures: Vec<Failure>,
    pub findings: Vec<(Invariant, Finding)>,
    pub thresholds: Vec<Threshold>,
    pub alone: Option<Alone>,
    /// What else was measured, and what the machine and the servers are.
    pub figures: Vec<(String, String)>,
    pub machine: Vec<(&'static str, String)>,
    /// What happened when, in seconds of the run.
    pub events: Vec<(f64, String)>,
}

impl Outcome {
    /// All requests over HTTP.
    pub fn all(&self) -> Tally {
        sum(&self.measured.tallies)
    }

    /// A promise was broken or a floor breached.
    pub fn is_red(&self) -> bool {
        // What was to be measured and could not be is shown, and no breach: the requests that failed then are.
        self.broken().next().is_some()
            || self
                .thresholds
                .iter()
                .any(|threshold| threshold.verdict == Verdict::Breached)
    }

    /// Promises that were broken.
    pub fn broken(&self) -> impl Iterator<Item = Invariant> {
        let findings = self.findings.iter();
        findings
            .filter(|(_, finding)| finding.broken > 0)
            .map(|(invariant, _)| *invariant)
    }

    /// Goals beyond the floors that were not reached.
    pub fn missed_goals(&self) -> usize {
        let thresholds = self.thresholds.iter();
        thresholds
            .filter(|threshold| threshold.verdict == Verdict::GoalMissed)
            .count()
    }
}
