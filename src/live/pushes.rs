//! When live connections are told of commits that are recorded: from the first to the last that was told within a moment.
//!
//! Invariants: while nothing is recorded a frame costs one look at a number; what is kept here is bounded, and for a moment only.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    clock::Clock,
    domain::{TraceParent, Version},
    traces::{Told, Traces},
};

/// For so long it is watched who is told of a commit. Whoever comes later is not counted.
const WATCHED_FOR: Duration = Duration::from_secs(1);
/// Most commits that are watched at once; a further one is not.
const WATCHED_MAX: usize = 256;

/// The commits that are on their way to clients now, of those that are recorded.
#[derive(Debug)]
pub struct Pushes {
    traces: Traces,
    clock: Clock,
    /// How many there are.
    count: AtomicUsize,
    open: Mutex<Vec<Push>>,
}

#[derive(Debug)]
struct Push {
    version: Version,
    cause: TraceParent,
    /// By the clock's time since its start.
    until: Duration,
    /// In microseconds since 1970.
    first_us: i64,
    last_us: i64,
    connections: u64,
}

impl Pushes {
    pub fn new(traces: Traces, clock: Clock) -> Self {
        Self {
            traces,
            clock,
            count: AtomicUsize::new(0),
            open: Mutex::default(),
        }
    }

    /// That commit is about to be told.
    pub(super) fn begin(&self, version: Version, cause: TraceParent) {
        let mut open = self.open();
        if open.len() < WATCHED_MAX {
            open.push(Push {
                version,
                cause,
                until: self.clock.elapsed() + WATCHED_FOR,
                first_us: 0,
                last_us: 0,
                connections: 0,
            });
            self.count.store(open.len(), Ordering::Release);
        }
    }

    /// A connection that stood at the first commit was brought to the second.
    pub(super) fn told(&self, from: Version, to: Version) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let now_us = self.clock.unix_micros();
        for push in self.open().iter_mut() {
            if from < push.version && push.version <= to {
                if push.connections == 0 {
                    push.first_us = now_us;
                }
                push.last_us = now_us;
                push.connections += 1;
            }
        }
    }

    /// Until one has been watched for long enough, if there is one.
    pub(super) async fn due(&self) {
        let until = self.open().first().map(|push| push.until);
        match until {
            Some(until) => sleep(until.saturating_sub(self.clock.elapsed())).await,
            None => std::future::pending().await,
        }
    }

    /// Records those that were watched for long enough.
    pub(super) fn end_due(&self) {
        self.end(self.clock.elapsed());
    }

    /// Records all of them.
    pub(super) fn end_all(&self) {
        self.end(Duration::MAX);
    }

    fn end(&self, now: Duration) {
        let mut open = self.open();
        // In the order in which they began.
        let still = open.partition_point(|push| push.until <= now);
        for push in open.drain(..still).filter(|push| push.connections > 0) {
            self.traces.told(Told {
                cause: push.cause,
                version: push.version,
                first_us: push.first_us,
                last_us: push.last_us,
                connections: push.connections,
            });
        }
        self.count.store(open.len(), Ordering::Release);
    }

    fn open(&self) -> MutexGuard<'_, Vec<Push>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
