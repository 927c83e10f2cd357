//! The use cases, each to be read as its list of steps: record facts, answer queries, follow the commits.
//!
//! Invariant: only this module begins a transaction, marks the cache or moves the follower. What is not here: SQL, the
//! wire formats, and who calls.

pub mod catalogue;
pub mod difference;
pub mod feed;
pub mod follow;
pub mod query;
pub mod record;
pub mod summary;
pub mod transit;
pub mod verify;
pub mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc};

use crate::{
    cache::{Cache, CacheKey},
    clock::Clock,
    metrics::Metrics,
    store::{Store, writer::Writer},
};
use feed::Audience;
use follow::{FollowSettings, Follower, HANDED_MAX, Handed};
use query::Documents;
use summary::{FeedState, Kept};

/// What the use cases need to be told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub follow: FollowSettings,
    /// A movement under way for so long is overdue, where nothing was learned yet of how long it takes.
    pub late_after: Duration,
}

/// What the use cases work with. One per process.
#[derive(Debug)]
pub struct Inventory {
    store: Store,
    cache: Cache,
    documents: Documents,
    metrics: Metrics,
    clock: Clock,
    late_after: Duration,
    /// The last totals; who holds it sums up.
    summary: Mutex<Option<Kept>>,
    feed: FeedState,
    /// The catalogue changes rarely: one at a time.
    catalogue_writer: Mutex<Writer>,
    /// The way to the process's own follower.
    handed: mpsc::Sender<Handed>,
}

impl Inventory {
    /// The inventory of this process and the follower that vouches for its cache.
    pub fn new(
        store: Store,
        cache: Cache,
        documents: Documents,
        clock: Clock,
        metrics: Metrics,
        settings: Settings,
        audience: Arc<dyn Audience>,
    ) -> (Arc<Self>, Follower) {
        let (handed, receiver) = mpsc::channel(HANDED_MAX);
        let inventory = Arc::new(Self {
            catalogue_writer: Mutex::new(store.writer()),
            store,
            cache,
            documents,
            metrics,
            clock: clock.clone(),
            late_after: settings.late_after,
            summary: Mutex::default(),
            feed: FeedState::default(),
            handed,
        });
        let follower = Follower::new(
            Arc::clone(&inventory),
            receiver,
            clock,
            settings.follow,
            audience,
        );
        (inventory, follower)
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

    /// Makes a commit of this process known to it. Cannot fail: the follower finds by looking what it is not told.
    fn announce(&self, commit: Handed) {
        let version = commit.published.point.version;
        for change in &commit.changes {
            self.cache.rule().mark(CacheKey::Stock(change.key), version);
            self.cache
                .rule()
                .mark(CacheKey::Movement(change.movement), version);
        }
        drop(self.handed.try_send(commit));
    }
}
