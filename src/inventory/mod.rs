//! The use cases, each to be read as its list of steps: record facts, decide requests, answer queries, follow the commits.
//!
//! Invariant: only this module begins a transaction, marks the cache or moves the follower. What is not here: SQL, the
//! wire formats, and who calls.

pub mod catalogue;
pub mod check;
pub mod decide;
pub mod difference;
pub mod feed;
pub mod follow;
pub mod listings;
pub mod past;
pub mod query;
pub mod rebuild;
pub mod record;
pub mod summary;
pub mod sweep;
pub mod transit;
pub mod verify;
pub mod void;
pub mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc};

use crate::{
    cache::{Cache, CacheKey},
    clock::Clock,
    metrics::Metrics,
    store::{Store, listings::Counted, writer::Writer},
    traces::Traces,
};
use decide::{Decider, Desk};
use feed::Audience;
use follow::{Changed, FollowSettings, Follower, HANDED_MAX, Handed};
use query::Documents;
use summary::{FeedState, Kept};

/// What the use cases need to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub follow: FollowSettings,
    /// A movement under way for so long is overdue, where nothing was learned yet of how long it takes.
    pub late_after: Duration,
    /// Longest a request may take to be decided, while the database is away.
    pub decide_wait_max: Duration,
    pub traces: Traces,
}

/// What the use cases work with. One per process.
#[derive(Debug)]
pub struct Inventory {
    store: Store,
    cache: Cache,
    documents: Documents,
    metrics: Metrics,
    traces: Traces,
    clock: Clock,
    late_after: Duration,
    /// The last totals; who holds it sums up.
    summary: Mutex<Option<Kept>>,
    feed: FeedState,
    /// How many products were listed when somebody looked last.
    listed: std::sync::Mutex<Option<Counted>>,
    /// The catalogue changes rarely: one at a time.
    catalogue_writer: Mutex<Writer>,
    /// A mistake is taken back rarely: one at a time.
    void_writer: Mutex<Writer>,
    /// The way to the process's own follower.
    handed: mpsc::Sender<Handed>,
    /// The way to the process's own decider.
    desk: Desk,
}

impl Inventory {
    /// The inventory of this process, the follower that vouches for its cache, and who decides what is asked of it.
    pub fn new(
        store: Store,
        cache: Cache,
        documents: Documents,
        clock: Clock,
        metrics: Metrics,
        settings: Settings,
        audience: Arc<dyn Audience>,
    ) -> (Arc<Self>, Follower, Decider) {
        let (handed, receiver) = mpsc::channel(HANDED_MAX);
        let (desk, queues) = Desk::new();
        let inventory = Arc::new(Self {
            catalogue_writer: Mutex::new(store.writer()),
            void_writer: Mutex::new(store.writer()),
            store,
            cache,
            documents,
            metrics,
            traces: settings.traces,
            clock: clock.clone(),
            late_after: settings.late_after,
            summary: Mutex::default(),
            feed: FeedState::default(),
            listed: std::sync::Mutex::default(),
            handed,
            desk,
        });
        let wait_max = settings.decide_wait_max;
        let decider = Decider::new(&inventory, queues, wait_max);
        let follower = Follower::new(
            Arc::clone(&inventory),
            receiver,
            clock,
            settings.follow,
            audience,
        );
        (inventory, follower, decider)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Brings up to date what is only measured when somebody looks.
    pub fn measure(&self) {
        let metrics = &self.metrics;
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let by_state = |(all, idle): (usize, usize)| {
            let used = all.saturating_sub(idle);
            [("idle", number(idle)), ("used", number(used))]
        };
        for (state, connections) in by_state(self.store.read_connections()) {
            let shown = metrics.database_connections.with_label_values(&[state]);
            shown.set(connections);
        }
        for (pool, all, idle, most) in self.store.pools() {
            for (state, connections) in by_state((all, idle)) {
                let shown = metrics.pool_connections.with_label_values(&[pool, state]);
                shown.set(connections);
            }
            let max = metrics.pool_connections_max.with_label_values(&[pool]);
            max.set(i64::from(most));
        }
        let (waiting, most) = self.desk.waiting();
        metrics.command_queue.set(number(waiting));
        metrics.command_queue_max.set(number(most));
    }

    /// Makes a commit of this process known to it. Cannot fail: the follower finds by looking what it is not told.
    fn announce(&self, commit: Handed) {
        let version = commit.published.point.version;
        let rule = self.cache.rule();
        match &commit.changed {
            Changed::Sides { changes, .. } => {
                for change in changes {
                    rule.mark(CacheKey::Stock(change.key), version);
                    rule.mark(CacheKey::Movement(change.movement), version);
                }
            }
            Changed::Rows(rows) => {
                for row in rows {
                    rule.mark(CacheKey::Stock(row.key), version);
                }
            }
        }
        drop(self.handed.try_send(commit));
    }
}
