//! The use cases, each to be read as its list of steps: record facts, answer queries, follow the commits.
//!
//! Invariant: only this module begins a transaction, marks the cache or moves the follower. What is not here: SQL, the
//! wire formats, and who calls.

pub mod difference;
pub mod follow;
pub mod query;
pub mod record;
pub mod verify;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{cache::Cache, clock::Clock, metrics::Metrics, store::Store};
use follow::{FollowSettings, Follower, HANDED_MAX, Handed};
use query::Documents;

/// What the use cases work with. One per process.
#[derive(Debug)]
pub struct Inventory {
    store: Store,
    cache: Cache,
    documents: Documents,
    metrics: Metrics,
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
        follow: FollowSettings,
    ) -> (Arc<Self>, Follower) {
        let (handed, receiver) = mpsc::channel(HANDED_MAX);
        let inventory = Arc::new(Self {
            store,
            cache,
            documents,
            metrics,
            handed,
        });
        let follower = Follower::new(Arc::clone(&inventory), receiver, clock, follow);
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
}
