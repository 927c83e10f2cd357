//! What there is in all. Summed up once for everybody who asks, once a second at most, and for a tenth of the time at most: on a
//! large database the totals are older, never dearer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Inventory;
use crate::{
    clock::Beat,
    domain::{CommitPoint, Timestamp},
    metrics::Metrics,
    store::{StoreError, totals::Totals},
};

/// Youngest totals that are summed up anew,
const AGE_MIN: Duration = Duration::from_secs(1);
/// and how many times as long as it took they are kept.
const AGE_BY_COST: u32 = 50;
/// Oldest totals, unless they take so long that they would be a tenth of the time,
const AGE_MAX: Duration = Duration::from_secs(10);
const AGE_BY_COST_MIN: u32 = 10;
/// and longest until another try after one that failed.
const AGE_FAILED_MAX: Duration = Duration::from_secs(5);
/// Longest the totals may take, as long as anybody may hold a snapshot of the database.
const TOTALS_MAX: Duration = Duration::from_secs(5);
/// The share of the newest commit in the mean lag, as a divisor.
const LAG_SHARE: i64 = 8;

/// What there is in all, as of a commit.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub totals: Totals,
    pub as_of: CommitPoint,
    /// By the clock of this host.
    pub computed_at: Timestamp,
}

/// The last try to sum up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// `None`: it failed, and is not tried again at once either.
    summary: Option<Summary>,
    /// When they were asked for, and how long they took.
    began: Duration,
    took: Duration,
}

impl Kept {
    /// How long after it began it is not tried anew.
    fn lasts(&self) -> Duration {
        let age = if self.summary.is_some() {
            let often = AGE_MAX.min(self.took * AGE_BY_COST);
            often.max(self.took * AGE_BY_COST_MIN)
        } else {
            AGE_FAILED_MAX.min(self.took * AGE_BY_COST_MIN)
        };
        AGE_MIN.max(age)
    }
}

/// Where the follower is, beside what the metrics tell of it.
#[derive(Debug, Default)]
pub struct FeedState {
    committed_at_us: AtomicI64,
    lag_us: AtomicI64,
}

/// Where the follower was at one moment.
#[derive(Clone, Copy, Debug)]
pub struct FeedNow {
    pub version: i64,
    /// When that version was committed; `None` before the first that was followed.
    pub committed_at: Option<Timestamp>,
    /// Mean time from a commit until it was followed; newer commits count more.
    pub lag: Duration,
    /// Changes of stock that were followed since this process began.
    pub changes_total: u64,
}

impl FeedState {
    pub(super) fn follow(&self, committed_at: Timestamp, lag: Duration) {
        self.committed_at_us
            .store(committed_at.micros(), Ordering::Relaxed);
        let lag = i64::try_from(lag.as_micros()).unwrap_or(i64::MAX);
        // Only the follower writes.
        let mean = self.lag_us.load(Ordering::Relaxed);
        self.lag_us
            .store(mean + (lag - mean) / LAG_SHARE, Ordering::Relaxed);
    }
}

impl Inventory {
    /// What there is in all, no older than it has to be.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        let mut kept = self.summary.lock().await;
        let began = self.clock.elapsed();
        if let Some(kept) = kept.as_ref()
            && began.saturating_sub(kept.began) < kept.lasts()
        {
            return kept.summary.ok_or(StoreError::NoAnswer(TOTALS_MAX));
        }
        let late_after = self.late_after.as_secs_f64();
        let tries = self.tried_again(|| self.store.totals(late_after));
        let read = timeout(TOTALS_MAX, tries)
            .await
            .unwrap_or(Err(StoreError::NoAnswer(TOTALS_MAX)));
        let summary = read.map(|read| Summary {
            totals: read.value,
            as_of: read.as_of,
            computed_at: Timestamp::from_micros(self.clock.unix_micros()),
        });
        *kept = Some(Kept {
            summary: summary.as_ref().ok().copied(),
            began,
            took: self.clock.elapsed().saturating_sub(began),
        });
        if let Ok(summary) = &summary {
            show(&summary.totals, &self.metrics);
        }
        summary
    }

    /// Sums up every so often, for the metrics, until told to stop.
    pub async fn keep_summary(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut beat = Beat::at_once(every, stop);
        while beat.next().await {
            if let Err(error) = self.summary().await {
                tracing::debug!(%error, "the totals could not be summed up");
            }
        }
    }

    /// Where the follower is now.
    pub fn feed(&self) -> FeedNow {
        let feed = &self.feed;
        let committed_at_us = feed.committed_at_us.load(Ordering::Relaxed);
        let lag_us = feed.lag_us.load(Ordering::Relaxed);
        FeedNow {
            version: self.metrics.feed_version.get(),
            committed_at: (committed_at_us > 0).then_some(Timestamp::from_micros(committed_at_us)),
            lag: Duration::from_micros(u64::try_from(lag_us).unwrap_or(0)),
            changes_total: self.metrics.feed_changes_total.get(),
        }
    }
}

fn show(totals: &Totals, metrics: &Metrics) {
    for (state, keys) in [
        ("all", totals.keys),
        ("negative", totals.negative),
        ("low", totals.low),
    ] {
        metrics.stock_keys.with_label_values(&[state]).set(keys);
    }
    metrics.stock_units.set(totals.units);
    metrics.reorder_products.set(totals.reorder);
    for (state, lines) in [
        ("active", totals.reservations),
        ("at_risk", totals.reservations_at_risk),
    ] {
        metrics.reservations.with_label_values(&[state]).set(lines);
    }
    for (status, lines) in [
        ("in_transit", totals.in_transit),
        ("overdue", totals.overdue),
        ("short", totals.short),
        ("over", totals.over),
        ("arrival_only", totals.arrival_only),
    ] {
        metrics
            .movement_lines
            .with_label_values(&[status])
            .set(lines);
    }
    metrics.units_in_transit.set(totals.units_in_transit);
}
