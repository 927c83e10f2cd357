//! What all clients of a process share: the ring, the snapshots, the stretches, and who is called to look.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use moka::future::Cache;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    filter::Filter,
    pushes::Pushes,
    quiet::{Group, Onward, Quiet},
    ring::{After, Ring, Shown},
    session::{Commits, Dialect, Session},
    snapshot::Snapshot,
    stretch::Stretch,
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
/// Shortest time between two calls to look, for each client that is called: under load, frames of several commits go out together.
/// To call one and to send it something costs about 10 µs, whatever it is sent.
const GATHER_PER_CLIENT: Duration = Duration::from_micros(25);
/// And so many times as long as a call takes by itself.
const GATHER_PER_LOOK: u32 = 4;
/// The bounds of that time.
const GATHER_MIN: Duration = Duration::from_millis(2);
const GATHER_MAX: Duration = Duration::from_millis(25);
/// How long a call looks for whom it can leave alone. The others are called, and look for themselves.
const LOOK_MAX: Duration = Duration::from_millis(2);
/// Stretches that are kept between two calls.
const STRETCHES_MAX: usize = 256;
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

/// Whom a stretch is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StretchKey {
    dialect: Dialect,
    filter: Arc<Filter>,
    life: u64,
    from: CommitPoint,
}

/// Who is called together.
type GroupKey = (Dialect, Arc<Filter>);

/// The stretches that were worked out since clients were last called.
#[derive(Debug, Default)]
struct Stretches {
    /// How often they were called.
    call: usize,
    /// `None`: for these clients it cannot be.
    known: HashMap<StretchKey, Option<Arc<Stretch>>>,
}

/// What all clients share. One per process.
#[derive(Debug)]
pub struct Hub {
    ring: RwLock<Ring>,
    /// There are commits that nobody was called for yet.
    news: Notify,
    groups: Mutex<HashMap<GroupKey, Arc<Group>>>,
    stretches: Mutex<Stretches>,
    snapshots: Cache<SnapshotKey, Arc<Snapshot>>,
    reading: Semaphore,
    settings: LiveSettings,
    /// Where traces are on.
    pushes: Option<Pushes>,
}

impl Hub {
    pub fn new(settings: LiveSettings) -> Self {
        let weigh = |_: &SnapshotKey, snapshot: &Arc<Snapshot>| {
            u32::try_from(snapshot.bytes()).unwrap_or(u32::MAX)
        };
        Self {
            ring: RwLock::new(Ring::new(settings.ring_items_max)),
            news: Notify::new(),
            stretches: Mutex::default(),
            groups: Mutex::default(),
            snapshots: Cache::builder()
                .max_capacity(settings.snapshot_bytes_max)
                .weigher(weigh)
                .time_to_live(SNAPSHOT_TTL)
                .build(),
            reading: Semaphore::new(SNAPSHOTS_AT_ONCE),
            settings,
            pushes: None,
        }
    }

    /// One that records who is told of commits that are recorded.
    #[must_use]
    pub fn recording(self, pushes: Pushes) -> Self {
        Self {
            pushes: Some(pushes),
            ..self
        }
    }

    /// A connection that stood at the first commit was brought to the second.
    pub fn told(&self, from: Version, to: Version) {
        if let Some(pushes) = &self.pushes {
            pushes.told(from, to);
        }
    }

    /// A client's side, and what calls it. Whatever is committed from here on it is called for.
    pub fn listen(
        self: &Arc<Self>,
        dialect: Dialect,
        filter: Filter,
        since: Option<WantedCommit>,
    ) -> (Session, Listener) {
        // First it is somebody who looks, then what is there is linked.
        let listener = Listener::join(self, dialect, filter);
        self.ring_to_change().link();
        let filter = Arc::clone(&listener.group.filter);
        let session = Session::new(
            dialect,
            filter,
            since,
            self.settings.heartbeat_every,
            &**self,
        );
        (session, listener)
    }

    /// Calls clients to look who are told of what is new, at once where nothing happened for a while, until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.end_pushes(),
                () = self.news.notified() => {}
                () = self.pushes_are_due() => {
                    self.pushes.iter().for_each(Pushes::end_due);
                    continue;
                }
            }
            let began = Instant::now();
            let called = self.call();
            sleep(gather(called, began.elapsed())).await;
        }
    }

    /// Calls everybody who may have something to be told; how many will look.
    fn call(&self) -> usize {
        let now = self.now();
        let nth = self.forget_stretches();
        let mut groups: Vec<_> = self.groups().values().map(Arc::clone).collect();
        if !groups.is_empty() {
            // Where the time is not enough for all, it is not always for the same.
            let first = nth % groups.len();
            groups.rotate_left(first);
        }
        let until = Instant::now() + LOOK_MAX;
        let mut called = 0;
        for group in groups {
            let quiet = group.quiet();
            let stretch = (Instant::now() < until)
                .then(|| self.stretch_of(&group, quiet))
                .flatten();
            match quiet.onward(stretch.as_deref(), now) {
                Onward::Passed(on) => group.pass(on),
                Onward::Called(on) => called += group.call(on),
            }
        }
        called
    }

    async fn pushes_are_due(&self) {
        match &self.pushes {
            Some(pushes) => pushes.due().await,
            None => pending().await,
        }
    }

    fn end_pushes(&self) {
        self.pushes.iter().for_each(Pushes::end_all);
    }

    /// What a client is told next that stands at a commit: the same for all who look at the same from there. Those who were called
    /// together are told up to the same commit, so they stand together the next time as well.
    pub fn stretch(&self, session: &Session) -> Option<Arc<Stretch>> {
        let (life, from) = session.stands()?;
        let key = StretchKey {
            dialect: session.dialect(),
            filter: Arc::clone(session.filter()),
            life,
            from,
        };
        self.worked_out(key, |_| true)
    }

    /// What those are told who are looked on for.
    fn stretch_of(&self, group: &Group, quiet: Quiet) -> Option<Arc<Stretch>> {
        let key = StretchKey {
            dialect: group.dialect,
            filter: Arc::clone(&group.filter),
            life: quiet.life,
            from: quiet.next,
        };
        // Nobody asks for one without texts again, and who is alone asks once.
        self.worked_out(key, |stretch| {
            group.members() > 1 && stretch.is_some_and(|stretch| !stretch.texts.is_empty())
        })
    }

    fn worked_out(
        &self,
        key: StretchKey,
        is_to_be_kept: impl Fn(Option<&Stretch>) -> bool,
    ) -> Option<Arc<Stretch>> {
        let call = {
            let stretches = self.stretches();
            if let Some(known) = stretches.known.get(&key) {
                return known.clone();
            }
            stretches.call
        };
        let found = Stretch::from(key.from, key.life, key.dialect, &key.filter, self).map(Arc::new);
        let mut stretches = self.stretches();
        // One that was worked out before a call may lack what the call is about.
        if stretches.call == call
            && stretches.known.len() < STRETCHES_MAX
            && is_to_be_kept(found.as_deref())
        {
            stretches.known.insert(key, found.clone());
        }
        found
    }

    /// Before a call; which one it is.
    fn forget_stretches(&self) -> usize {
        let mut stretches = self.stretches();
        stretches.call += 1;
        stretches.known.clear();
        stretches.call
    }

    fn stretches(&self) -> MutexGuard<'_, Stretches> {
        self.stretches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// For who begins where the feed stands.
    fn now(&self) -> Quiet {
        self.with_ring(|ring| Quiet::at(ring.life(), ring.position()))
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<GroupKey, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
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
            // Whoever has it goes on by what the ledger says: that something ran out comes as an update, when that is recorded.
            as_in_ledger: true,
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

    /// To be asked while the ring is held: who comes to look joins first, and then links what is there.
    fn is_looked_at(&self) -> bool {
        !self.groups().is_empty()
    }
}

/// How long after a call that took so long the next one comes.
fn gather(called: usize, took: Duration) -> Duration {
    let called = u32::try_from(called).unwrap_or(u32::MAX);
    GATHER_PER_CLIENT
        .saturating_mul(called)
        .max(GATHER_PER_LOOK * took)
        .clamp(GATHER_MIN, GATHER_MAX)
}

/// What calls one client. Who has it is somebody who looks.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    group: Arc<Group>,
    called: watch::Receiver<Quiet>,
}

impl Listener {
    fn join(hub: &Arc<Hub>, dialect: Dialect, filter: Filter) -> Self {
        let now = hub.now();
        let mut groups = hub.groups();
        let key = (dialect, Arc::new(filter));
        let group = groups.entry(key).or_insert_with_key(|(_, filter)| {
            Arc::new(Group::new(dialect, Arc::clone(filter), now))
        });
        Self {
            hub: Arc::clone(hub),
            group: Arc::clone(group),
            called: group.join(),
        }
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// A way on which this client is told nothing.
    pub fn quiet(&self) -> Quiet {
        self.group.quiet()
    }

    /// Until it is called. It may be given up at any time.
    pub async fn called(&mut self) {
        self.group.wait(&mut self.called).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut groups = self.hub.groups();
        if self.group.leave() {
            groups.remove(&(self.group.dialect, Arc::clone(&self.group.filter)));
        }
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
        self.news.notify_one();
    }

    fn follow(&self, commit: Followed) {
        if let Some((pushes, cause)) = self.pushes.as_ref().zip(commit.trace) {
            pushes.begin(commit.point.version, cause);
        }
        let mut ring = self.ring_to_change();
        if self.is_looked_at() {
            ring.push(commit);
        } else {
            ring.put_aside(commit);
        }
        drop(ring);
        self.news.notify_one();
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
