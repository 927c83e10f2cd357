//! What all clients of a process share: the ring, and the snapshots.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use moka::future::Cache;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use super::{
    filter::Filter,
    ring::{After, Ring, Shown},
    session::{Commits, Dialect, Session},
    snapshot::Snapshot,
};
use crate::{
    domain::{CommitPoint, Version, commit::WantedCommit},
    inventory::{
        Inventory,
        feed::{Audience, Followed},
    },
    store::{StoreError, stock::Selection},
};

/// Snapshots that are read at once: each may be of everything.
const SNAPSHOTS_AT_ONCE: usize = 2;
/// How long a snapshot is kept for others. It is used for as long as the ring has what came after it.
const SNAPSHOT_TTL: Duration = Duration::from_secs(30);

/// What live clients need to be told of this process.
#[derive(Clone, Copy, Debug)]
pub struct LiveSettings {
    /// Items (an update, an alert) that are kept for clients that are behind or come back.
    pub ring_items_max: usize,
    /// Bound of the snapshots that are kept, in bytes.
    pub snapshot_bytes_max: u64,
    /// Largest part of a snapshot, in bytes, unless one product is larger.
    pub part_bytes_max: usize,
    /// Longest a client hears nothing.
    pub heartbeat_every: Duration,
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SnapshotKey {
    life: u64,
    words_since: Version,
    filter: Arc<Filter>,
}

/// What all clients share. One per process.
#[derive(Debug)]
pub struct Hub {
    ring: RwLock<Ring>,
    changed: watch::Sender<()>,
    snapshots: Cache<SnapshotKey, Arc<Snapshot>>,
    reading: Semaphore,
    settings: LiveSettings,
}

impl Hub {
    pub fn new(settings: LiveSettings) -> Self {
        let weigh = |_: &SnapshotKey, snapshot: &Arc<Snapshot>| {
            u32::try_from(snapshot.bytes()).unwrap_or(u32::MAX)
        };
        Self {
            ring: RwLock::new(Ring::new(settings.ring_items_max)),
            changed: watch::Sender::new(()),
            snapshots: Cache::builder()
                .max_capacity(settings.snapshot_bytes_max)
                .weigher(weigh)
                .time_to_live(SNAPSHOT_TTL)
                .build(),
            reading: Semaphore::new(SNAPSHOTS_AT_ONCE),
            settings,
        }
    }

    /// A client's side.
    pub fn session(
        &self,
        dialect: Dialect,
        filter: Arc<Filter>,
        since: Option<WantedCommit>,
    ) -> Session {
        self.ring_to_change().link();
        Session::new(dialect, filter, since, self.settings.heartbeat_every, self)
    }

    /// Told whenever there are more commits. Who has this is somebody who looks.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What stands where now, for that filter: one that was read for another client, if what came after it is at hand.
    pub async fn snapshot(
        &self,
        inventory: &Inventory,
        filter: &Arc<Filter>,
    ) -> Result<Arc<Snapshot>, Arc<StoreError>> {
        // Of another life of the feed, or in older words, it is another snapshot.
        let key = self.with_ring(|ring| SnapshotKey {
            life: ring.life(),
            words_since: ring.words_since(),
            filter: Arc::clone(filter),
        });
        if let Some(snapshot) = self.snapshots.get(&key).await {
            if self.is_recent(snapshot.as_of) {
                return Ok(snapshot);
            }
            self.snapshots.invalidate(&key).await;
        }
        let read = self.read(inventory, filter);
        self.snapshots.try_get_with(key, read).await
    }

    async fn read(
        &self,
        inventory: &Inventory,
        filter: &Arc<Filter>,
    ) -> Result<Arc<Snapshot>, StoreError> {
        // Never closed.
        let _permit = self.reading.acquire().await;
        inventory.metrics().live_snapshots_total.inc();
        let selection = Selection {
            warehouses: filter.warehouses(),
            products: filter.products(),
            ..Selection::default()
        };
        let read = inventory.product_stock(selection).await?;
        let (most, filter) = (self.settings.part_bytes_max, Arc::clone(filter));
        // One of everything takes its time.
        let written =
            spawn_blocking(move || Snapshot::write(read.as_of, &read.value, &filter, most)).await;
        let snapshot = written.map_err(|_| StoreError::Inconsistent("a snapshot"))?;
        Ok(Arc::new(snapshot))
    }

    fn is_recent(&self, at: CommitPoint) -> bool {
        match self.after(at, 0) {
            After::Ahead => true,
            After::Commits { conflate_to, .. } => conflate_to.is_none(),
            After::Unknown => false,
        }
    }

    /// Nothing that is done under the lock can leave the ring half changed for long: a panic there is another bug's.
    fn with_ring<T>(&self, look: impl FnOnce(&Ring) -> T) -> T {
        look(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring_to_change(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked while the ring is held: who comes to look subscribes first, and then links what is there.
    fn is_looked_at(&self) -> bool {
        self.changed.receiver_count() > 0
    }
}

impl Audience for Hub {
    fn begin(&self, base: CommitPoint, history: Vec<Followed>) {
        let mut ring = self.ring_to_change();
        ring.begin(base, history);
        if self.is_looked_at() {
            ring.link();
        }
        drop(ring);
        self.changed.send_replace(());
    }

    fn follow(&self, commit: Followed) {
        let mut ring = self.ring_to_change();
        if self.is_looked_at() {
            ring.push(commit);
        } else {
            ring.put_aside(commit);
        }
        drop(ring);
        self.changed.send_replace(());
    }
}

impl Commits for Hub {
    fn after(&self, at: CommitPoint, most: usize) -> After {
        self.with_ring(|ring| ring.after(at, most))
    }

    fn position(&self) -> Option<CommitPoint> {
        self.with_ring(Commits::position)
    }

    fn life(&self) -> u64 {
        self.with_ring(Ring::life)
    }

    fn get(&self, life: u64, version: Version) -> Option<Arc<Shown>> {
        self.with_ring(|ring| Commits::get(ring, life, version))
    }
}
