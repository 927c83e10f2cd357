//! The follower: reads the commits after its own position and marks what they changed, so that the cache can be trusted.
//!
//! Invariants: everything a commit touched is marked before the position moves to it, and levels that the process keeps are carried on
//! over it; commits are followed in order and without gaps; a position whose tag is not there any more means another database, and
//! everything begins anew. It is woken by `LISTEN`/`NOTIFY` and by its own process, and it looks by itself as well: a lost wake-up
//! costs delay.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Inventory,
    feed::{Audience, Followed},
    record::beside_levels,
    watch::Watch,
};
use crate::{
    cache::CacheKey,
    clock::Clock,
    domain::{
        CommitPoint, InventoryId, Timestamp, Version,
        batch::Change,
        change::{self, Amounts, LedgerRow},
    },
    store::{
        StoreError,
        catalogue::CatalogueChange,
        commits::Commit,
        feed::{Did, FeedRow},
        writer::{LevelAfter, Published},
    },
    traces::{self, Span},
};

/// Most of its own commits a process holds for the follower; what does not fit is found by looking.
pub const HANDED_MAX: usize = 64;
/// Commits whose changes are read at once: a large batch is 4,000 rows.
const COMMITS_PER_READ: usize = 32;
/// Longest one look may take before it counts as failed: a frozen server answers nothing.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long after a failure the follower tries to listen again. A standby refuses for as long as it is one.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub struct FollowSettings {
    pub poll_interval: Duration,
    /// Further behind than this many commits, the follower begins anew instead.
    pub commits_max: i64,
}

/// A commit of this process, handed over in memory.
#[derive(Debug)]
pub struct Handed {
    pub published: Published,
    pub changed: Changed,
    pub catalogue: Vec<CatalogueChange>,
}

/// What a commit of this process changed, by key.
#[derive(Clone, Debug)]
pub enum Changed {
    /// Sides of movements, and the levels as the commit left them.
    Sides {
        changes: Vec<Change>,
        levels: Vec<LevelAfter>,
    },
    /// What was decided, as rows of the ledger.
    Rows(Vec<LedgerRow>),
}

impl Changed {
    pub const NOTHING: Self = Self::Rows(Vec::new());
}

/// Follows the order of commits. One per process.
#[derive(Debug)]
pub struct Follower {
    inventory: Arc<Inventory>,
    receiver: mpsc::Receiver<Handed>,
    /// Handed commits that are ahead of the position, until those before them are there.
    ahead: BTreeMap<Version, Handed>,
    /// `None` until the database was first seen.
    position: Option<CommitPoint>,
    /// As of the position.
    watch: Watch,
    audience: Arc<dyn Audience>,
    clock: Clock,
    settings: FollowSettings,
    is_failing: bool,
    /// When what is followed now began to be read, in microseconds since 1970; where traces are on.
    since_us: i64,
}

impl Follower {
    pub(super) fn new(
        inventory: Arc<Inventory>,
        receiver: mpsc::Receiver<Handed>,
        clock: Clock,
        settings: FollowSettings,
        audience: Arc<dyn Audience>,
    ) -> Self {
        Self {
            inventory,
            receiver,
            ahead: BTreeMap::new(),
            position: None,
            watch: Watch::default(),
            audience,
            clock,
            settings,
            is_failing: false,
            since_us: 0,
        }
    }

    /// Follows until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let (wake, woken) = watch::channel(());
        let inventory = Arc::clone(&self.inventory);
        // Listening goes on across looks: connecting may take longer than the time between two of them.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(woken) => {}
            () = listen(&inventory, &wake) => {}
        }
    }

    async fn follow(&mut self, mut woken: watch::Receiver<()>) {
        let mut tick = interval(self.settings.poll_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(commit) = self.receiver.recv() => {
                    if !self.take(commit) {
                        self.look_and_tell().await;
                    }
                }
                Ok(()) = woken.changed() => self.look_and_tell().await,
                _ = tick.tick() => self.look_and_tell().await,
            }
        }
    }

    /// One look at the database: follows everything that was committed when it began.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        self.begin_to_read();
        loop {
            let began = self.clock.elapsed();
            let Some(at) = self.position else {
                let clock = self.begin().await?;
                self.inventory.cache.rule().confirm(began, clock);
                return Ok(());
            };
            let limit = self.settings.commits_max + 1;
            let looked = self.inventory.store.commits_from(at.version, limit).await?;
            let commits = looked.commits;
            let begins_here = |(first, _): &(&Commit, &[Commit])| first.point == at;
            let Some(((_, newer), clock)) =
                commits.split_first().filter(begins_here).zip(looked.clock)
            else {
                self.notice_restore(at);
                continue;
            };
            if i64::try_from(commits.len()).unwrap_or(limit) >= limit {
                tracing::warn!(position = %at, "too far behind to follow commit by commit; beginning anew");
                self.position = None;
                continue;
            }
            for some in newer.chunks(COMMITS_PER_READ) {
                self.follow_commits(some).await?;
            }
            self.take_what_follows();
            self.inventory.cache.rule().confirm(began, clock);
            return Ok(());
        }
    }

    /// Follows these commits, right after the position.
    async fn follow_commits(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let Some((at, last)) = self.position.zip(commits.last()) else {
            return Ok(());
        };
        let store = &self.inventory.store;
        let did = store.did(at.version, last.point.version).await?;
        self.follow_did(commits, did);
        Ok(())
    }

    /// Marks what these commits did and moves on over them.
    fn follow_did(&mut self, commits: &[Commit], did: Did) {
        let changes = u64::try_from(did.rows.len()).unwrap_or(0);
        self.inventory.metrics.feed_changes_total.inc_by(changes);
        let rule = self.inventory.cache.rule();
        for row in &did.rows {
            rule.mark(CacheKey::Stock(row.row.key), row.version);
            if let Some(movement) = row.movement {
                rule.mark(CacheKey::Movement(movement), row.version);
            }
        }
        for followed in self.watch.tell(commits, did) {
            self.move_to(followed);
        }
    }

    async fn look_and_tell(&mut self) {
        let result = match timeout(LOOK_MAX, self.look()).await {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                if !self.is_failing {
                    tracing::warn!(%error, "the follower cannot read the commits; the cache is not used");
                }
                "error"
            }
            Err(_) => "error",
        };
        if self.is_failing && result == "ok" {
            tracing::info!("the follower reads the commits again");
        }
        self.is_failing = result == "error";
        self.inventory
            .metrics
            .feed_polls_total
            .with_label_values(&[result])
            .inc();
    }

    /// A commit of this process: followed at once if it is the one right after the position, else kept until it is. Whether
    /// it can be: what stands of a product whose entry changed, and whose reservations are at risk, only the database knows.
    fn take(&mut self, commit: Handed) -> bool {
        let mut catalogue = commit.catalogue.iter();
        if catalogue.any(|change| change.product().is_some()) || is_over_committed(&commit) {
            return false;
        }
        let version = commit.published.point.version;
        if self.position.is_none_or(|at| version <= at.version) {
            return true;
        }
        self.begin_to_read();
        self.ahead.insert(version, commit);
        self.take_what_follows();
        while self.ahead.len() > HANDED_MAX {
            self.ahead.pop_first();
        }
        true
    }

    fn take_what_follows(&mut self) {
        while let (Some(at), Some(first)) = (self.position, self.ahead.first_entry()) {
            if *first.key() <= at.version {
                first.remove();
                continue;
            }
            // The tag of the commit before it tells whether it follows on this position or on its like in a restored
            // database.
            if first.get().published.previous != at {
                return;
            }
            let handed = first.remove();
            let commit = Commit {
                point: handed.published.point,
                committed_at: handed.published.committed_at,
                levels_changed_at: handed.published.levels_changed_at,
                trace: handed.published.trace,
            };
            let Ok(did) = did(handed) else {
                // It is in the database, and will be found there.
                return;
            };
            self.follow_did(&[commit], did);
        }
    }

    fn begin_to_read(&mut self) {
        if self.inventory.traces.are_on() {
            self.since_us = self.clock.unix_micros();
        }
    }

    fn move_to(&mut self, mut followed: Followed) {
        let (to, committed_at) = (followed.point, followed.committed_at);
        if let Some(levels_changed_at) = followed.levels_changed_at {
            let levels = followed.levels.iter().filter(|level| !level.by_minimum);
            let changes = levels.map(|level| &level.change);
            self.inventory.cache.carry(changes, to, levels_changed_at);
        }
        self.inventory.cache.rule().advance(to);
        self.position = Some(to);
        let span = followed.trace.and_then(|cause| {
            self.inventory.traces.followed(traces::Followed {
                cause,
                since_us: self.since_us,
                version: to.version,
                levels: followed.levels.len(),
            })
        });
        followed.trace = span.as_ref().and_then(Span::place);
        tracing::debug!(commit = %to, levels = followed.levels.len(), "followed");
        for alert in followed.alerts() {
            let alerts = &self.inventory.metrics.stock_alerts_total;
            alerts.with_label_values(&[alert]).inc();
        }
        self.audience.follow(followed);
        let lag_us = self
            .clock
            .unix_micros()
            .saturating_sub(committed_at.micros())
            .max(0);
        let lag = Duration::from_micros(lag_us.unsigned_abs());
        self.inventory.feed.follow(committed_at, lag);
        let metrics = &self.inventory.metrics;
        metrics.feed_lag_seconds.observe(lag.as_secs_f64());
        metrics.feed_version.set(to.version.number());
    }

    fn notice_restore(&mut self, lost: CommitPoint) {
        self.inventory.cache.rule().distrust();
        tracing::warn!(position = %lost, "the database is not the one that was followed: it was restored; beginning anew");
        self.inventory.metrics.feed_resyncs_total.inc();
        self.position = None;
        self.ahead.clear();
    }

    /// Begins at the newest commit; the database's clock while it was read.
    async fn begin(&mut self) -> Result<Timestamp, StoreError> {
        let beginning = self.inventory.store.beginning().await?;
        let (newest, clock) = (beginning.newest(), beginning.clock);
        let mut watch = Watch::at_base(&beginning);
        let history = watch.tell(&beginning.history, beginning.did);
        self.watch = watch;
        self.inventory.cache.rule().restart(newest);
        self.inventory.cache.forget();
        self.position = Some(newest);
        self.audience.begin(beginning.base, history);
        self.inventory
            .metrics
            .feed_version
            .set(newest.version.number());
        Ok(clock)
    }
}

/// Whether more was promised of a level than there was, before the commit or after.
fn is_over_committed(handed: &Handed) -> bool {
    match &handed.changed {
        Changed::Sides { changes, levels } => {
            let has_reserved = |level: &&LevelAfter| level.reserved > 0;
            levels.iter().filter(has_reserved).any(|level| {
                // Facts change what is on hand and nothing that is reserved. Both lists are by key.
                let first = changes.partition_point(|change| change.key < level.key);
                let of_level = changes[first..]
                    .iter()
                    .take_while(|change| change.key == level.key);
                let delta: i64 = of_level.map(|change| change.on_hand_delta).sum();
                level.reserved > level.on_hand.min(level.on_hand.saturating_sub(delta))
            })
        }
        Changed::Rows(rows) => change::fold(rows.iter().copied())
            .iter()
            .any(|change| change.before.is_over_committed() || change.after.is_over_committed()),
    }
}

/// What the database has of a commit of this process.
fn did(handed: Handed) -> Result<Did, StoreError> {
    let version = handed.published.point.version;
    let rows = match handed.changed {
        Changed::Sides { changes, levels } => side_rows(version, &changes, &levels)?,
        Changed::Rows(rows) => {
            let row = |row| FeedRow {
                version,
                movement: None,
                row,
            };
            rows.into_iter().map(row).collect()
        }
    };
    let catalogue = handed.catalogue.into_iter();
    Ok(Did {
        rows,
        catalogue: catalogue.map(|change| (version, change)).collect(),
        levels: HashMap::new(),
        lines: HashMap::new(),
    })
}

fn side_rows(
    version: Version,
    changes: &[Change],
    levels: &[LevelAfter],
) -> Result<Vec<FeedRow>, StoreError> {
    let rows = beside_levels(changes, levels)?;
    let row = |(change, level): (&Change, LevelAfter)| FeedRow {
        version,
        movement: Some(change.movement),
        row: LedgerRow {
            key: change.key,
            inventory_id: InventoryId(level.inventory_id),
            kind: change.kind(),
            delta: Amounts {
                on_hand: change.on_hand_delta,
                reserved: 0,
            },
            after: Amounts {
                on_hand: level.on_hand,
                reserved: level.reserved,
            },
            revision: level.revision,
        },
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Wakes the follower for the commits of other processes; those of its own are handed to it. What it hears carries no
/// truth, so when it cannot listen (on a standby, nobody can) the follower looks by itself.
async fn listen(inventory: &Inventory, wake: &watch::Sender<()>) {
    loop {
        if let Err(error) = hear(inventory, wake).await {
            tracing::debug!(%error, "the follower cannot listen; it looks instead");
        }
        sleep(LISTEN_AGAIN_AFTER).await;
    }
}

async fn hear(inventory: &Inventory, wake: &watch::Sender<()>) -> Result<(), StoreError> {
    let mut listener = inventory.store.listen().await?;
    // Whatever was published before it listened.
    wake.send_replace(());
    loop {
        if !listener.heard_own().await? {
            wake.send_replace(());
        }
    }
}
