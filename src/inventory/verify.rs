//! Compares what the tables say with each other, and with what a generator expects; repairs nothing.
//!
//! What holds: a level is the sum of its ledger rows, and each of its revisions the one before plus its changes; what it has
//! reserved is the sum of its active reservations, and each of those is what its ledger rows say; every ledger row has its cause,
//! and every side of a movement one ledger row that was not taken back; nothing belongs to what is not there; every batch in the
//! ledger was published; versions have no holes and times go forward. All of it in slices of one statement, beside a service that
//! goes on writing: where slices are put together, each is cut at the version it was read at.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::sleep;

use super::difference::Difference;
use crate::{
    clock::Clock,
    domain::{MovementLine, StockKey, Version, batch::LineId},
    store::{
        Store, StoreError,
        slices::{
            BUCKETS, Digest, LedgerSums, LevelSlice, SideId, VoidPlace, bucket_bounds, sides_of,
        },
    },
};

/// What a generator expects the tables to hold.
pub trait Expected: Sync {
    /// What stands where: every key that was touched.
    fn on_hand(&self) -> &BTreeMap<StockKey, i64>;

    /// In how many parts the lines are told.
    fn parts(&self) -> usize;

    /// The lines of one part.
    fn lines(&self, part: usize) -> HashMap<LineId, MovementLine>;

    /// The part that a line belongs to.
    fn part_of(&self, id: LineId) -> usize;
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    pub levels: u64,
    pub sides: u64,
    pub commits: u64,
    pub differences: u64,
}

/// At leisure, a slice is followed by so many times its time of rest.
const LEISURE: u32 = 9;
/// Levels in the first slice; later ones grow or shrink with the time they take.
const LEVELS_FIRST: i64 = 500;
const LEVELS_MAX: i64 = 50_000;
/// A slice that takes longer than this is followed by a smaller one: far below the 5 s a snapshot may be held.
const SLICE_TIME_MAX: Duration = Duration::from_millis(800);
const COMMITS_FIRST: i64 = 10;
const BATCHES: i64 = 500;
/// Commits are of very different sizes: the next ones may be large.
const COMMITS_MAX: i64 = 200;
const LINES: i64 = 10_000;
const VOIDS: i64 = 1_000;
/// Most stray rows named of one slice.
const STRAYS_MAX: i64 = 1_000;
/// Hashes are added modulo 2^62, as the database does.
const HASH_MODULUS: i64 = 1 << 62;

/// Compares, and tells each difference as it is found.
pub struct Verifier<'v> {
    store: &'v Store,
    clock: Clock,
    compared: Compared,
    tell: &'v mut (dyn FnMut(&Difference) + Send),
    /// How many times as long as a slice took is rested after it.
    rest: u32,
}

impl<'v> Verifier<'v> {
    pub fn new(
        store: &'v Store,
        clock: Clock,
        tell: &'v mut (dyn FnMut(&Difference) + Send),
    ) -> Self {
        Self {
            store,
            clock,
            compared: Compared::default(),
            tell,
            rest: 0,
        }
    }

    /// The same at leisure, beside a service that has better things to do.
    #[must_use]
    pub fn at_leisure(self) -> Self {
        Self {
            rest: LEISURE,
            ..self
        }
    }

    /// Rests after a slice that began then.
    async fn rest_after(&mut self, began: Duration) -> Duration {
        let took = self.clock.elapsed().saturating_sub(began);
        if self.rest > 0 {
            sleep(took * self.rest).await;
        }
        took
    }

    /// Compares everything.
    pub async fn run(mut self, expected: Option<&dyn Expected>) -> Result<Compared, StoreError> {
        let mut on_hand = expected.map(|expected| expected.on_hand().clone());
        self.levels(on_hand.as_mut()).await?;
        // What was expected and is not there at all.
        for (key, expected) in on_hand.into_iter().flatten() {
            self.differs(&Difference::LevelNotAsExpected {
                key,
                expected,
                found: 0,
            });
        }
        self.movements_and_ledger().await?;
        self.voids().await?;
        self.batches().await?;
        self.orphans().await?;
        if let Some(expected) = expected {
            self.lines(expected).await?;
        }
        Ok(self.compared)
    }

    fn differs(&mut self, difference: &Difference) {
        self.compared.differences += 1;
        (self.tell)(difference);
    }

    /// Each level with its ledger, and with what is expected of it; what is left in `expected` was not found.
    async fn levels(
        &mut self,
        mut expected: Option<&mut BTreeMap<StockKey, i64>>,
    ) -> Result<(), StoreError> {
        let mut slice = Slice::new(LEVELS_FIRST, LEVELS_MAX);
        let mut after = 0;
        loop {
            let began = self.clock.elapsed();
            let levels = self.store.level_slice(after, slice.size).await?;
            slice.adapt(self.rest_after(began).await);
            let Some(last) = levels.last() else {
                return Ok(());
            };
            after = last.inventory_id;
            for level in levels {
                self.compared.levels += 1;
                self.level(&level);
                if let Some(expected) = &mut expected {
                    let wanted = expected.remove(&level.key).unwrap_or(0);
                    if wanted != level.on_hand {
                        let (key, found) = (level.key, level.on_hand);
                        self.differs(&Difference::LevelNotAsExpected {
                            key,
                            expected: wanted,
                            found,
                        });
                    }
                }
            }
        }
    }

    fn level(&mut self, level: &LevelSlice) {
        let told = LedgerSums {
            on_hand: level.on_hand,
            reserved: level.reserved,
            revision: level.revision,
        };
        if level.ledger != Some(told) {
            self.differs(&Difference::LevelIsNotItsLedger { level: *level });
        }
        if let Some(revision) = level.broken_revision {
            self.differs(&Difference::RevisionDoesNotFollow {
                key: level.key,
                revision,
            });
        }
        if level.promised != level.reserved {
            self.differs(&Difference::ReservedIsNotPromised {
                key: level.key,
                reserved: level.reserved,
                promised: level.promised,
            });
        }
        if let Some(reservation) = level.broken_reservation {
            self.differs(&Difference::ReservationIsNotItsLedger {
                key: level.key,
                reservation,
            });
        }
        if !level.has_catalogue_rows {
            self.differs(&Difference::LevelWithoutCatalogue { key: level.key });
        }
    }

    /// Every ledger row is a side, row by row; and there are as many sides as rows, bucket by bucket.
    async fn movements_and_ledger(&mut self) -> Result<(), StoreError> {
        let (mut cuts, mut by_movements) =
            (Vec::with_capacity(BUCKETS), Vec::with_capacity(BUCKETS));
        for bucket in 0..=u8::MAX {
            let began = self.clock.elapsed();
            let slice = self.store.movement_digest(bucket).await?;
            self.rest_after(began).await;
            self.compared.sides += slice.digest.sides.unsigned_abs();
            cuts.push(slice.as_of.number());
            by_movements.push(slice.digest);
            for (movement, product) in slice.other_voids {
                self.differs(&Difference::LineTellsOtherVoids(movement, product));
            }
        }
        let newest = cuts
            .iter()
            .copied()
            .max()
            .and_then(Version::new)
            .unwrap_or(Version::ZERO);
        let mut by_ledger = vec![Digest::default(); BUCKETS];
        let mut slice = Slice::new(COMMITS_FIRST, COMMITS_MAX);
        let mut after = Version::ZERO;
        while after < newest {
            let began = self.clock.elapsed();
            let to = Version::new(after.number() + slice.size).map_or(newest, |to| to.min(newest));
            for row in self.store.stray_rows(after, to, STRAYS_MAX).await? {
                self.differs(&Difference::LedgerRowWithoutCause(row));
            }
            for (bucket, digest) in self.store.ledger_digests(after, to, &cuts).await? {
                by_ledger[bucket].sides += digest.sides;
                by_ledger[bucket].hash = (by_ledger[bucket].hash + digest.hash) % HASH_MODULUS;
            }
            let (missing, late) = self.store.order_faults(after, to).await?;
            if missing != 0 {
                self.differs(&Difference::VersionsMissing { after, to, missing });
            }
            if late != 0 {
                self.differs(&Difference::TimesGoBack { after, to, late });
            }
            self.compared.commits += (to.number() - after.number()).unsigned_abs();
            after = to;
            slice.adapt(self.rest_after(began).await);
        }
        for bucket in 0..=u8::MAX {
            let place = usize::from(bucket);
            let [movements, ledger] = [by_movements[place], by_ledger[place]];
            // Hashes are signed, and so are remainders.
            let same_hash = (movements.hash - ledger.hash).rem_euclid(HASH_MODULUS) == 0;
            if movements.sides != ledger.sides || !same_hash {
                self.name_bucket(bucket, newest).await?;
            }
        }
        Ok(())
    }

    /// Names what differs in a bucket. Read again: what a running service has added since is on both sides.
    async fn name_bucket(&mut self, bucket: u8, newest: Version) -> Result<(), StoreError> {
        let mut rows: HashMap<SideId, i64> = HashMap::new();
        let mut after = Version::ZERO;
        while after < newest {
            let to =
                Version::new(after.number() + COMMITS_FIRST).map_or(newest, |to| to.min(newest));
            for (side, times) in self.store.ledger_sides(bucket, after, to).await? {
                *rows.entry(side).or_default() += times;
            }
            after = to;
        }
        let (first, last) = bucket_bounds(bucket);
        let mut from = (first, uuid::Uuid::nil());
        while from.0 <= last {
            let lines = self.store.line_slice(from, LINES).await?;
            let Some(((movement, product), _)) = lines.last() else {
                break;
            };
            from = (movement.uuid(), product.uuid());
            let of_bucket = lines.iter().filter(|(id, _)| id.0.uuid() <= last);
            for side in of_bucket.flat_map(|(id, line)| sides_of(*id, line)) {
                let times = rows.remove(&side).unwrap_or(0);
                if times > 1 {
                    self.differs(&Difference::SideTwiceInLedger(side));
                } else if times < 1 && times + self.times_since(bucket, side, newest).await? < 1 {
                    self.differs(&Difference::SideWithoutLedgerRow(side));
                }
            }
        }
        let mut left: Vec<(SideId, i64)> = rows.into_iter().filter(|(_, n)| *n != 0).collect();
        left.sort_unstable();
        for (side, times) in left {
            if times + self.times_since(bucket, side, newest).await? != 0 {
                self.differs(&Difference::SideOnlyInLedger(side));
            }
        }
        Ok(())
    }

    /// How often a side was reported, less how often it was taken back, by the commits since an older cut.
    async fn times_since(
        &mut self,
        bucket: u8,
        side: SideId,
        cut: Version,
    ) -> Result<i64, StoreError> {
        let newest = self.store.newest_commit().await?.version;
        if cut >= newest {
            return Ok(0);
        }
        let since = self.store.ledger_sides(bucket, cut, newest).await?;
        let times = since.into_iter().filter(|(of, _)| *of == side);
        Ok(times.map(|(_, times)| times).sum())
    }

    /// Each side that was taken back with the ledger, and with its line.
    async fn voids(&mut self) -> Result<(), StoreError> {
        let mut from = VoidPlace::default();
        while let Some((strays, next)) = self.store.stray_voids(from, VOIDS).await? {
            for stray in strays {
                if !stray.has_ledger_row {
                    self.differs(&Difference::VoidWithoutLedgerRow(stray.side));
                }
                if !stray.is_told {
                    let (movement, product, _) = stray.side;
                    self.differs(&Difference::LineTellsOtherVoids(movement, product));
                }
            }
            from = next;
        }
        Ok(())
    }

    async fn batches(&mut self) -> Result<(), StoreError> {
        let mut from = i64::MIN;
        while let Some((batches, next)) = self.store.unpublished_batches(from, BATCHES).await? {
            for batch in batches {
                self.differs(&Difference::BatchNeverPublished { batch });
            }
            from = next;
        }
        Ok(())
    }

    /// What belongs to something that is not there.
    async fn orphans(&mut self) -> Result<(), StoreError> {
        let mut after = (uuid::Uuid::nil(), i64::MIN);
        while let Some((stray, last)) = self.store.stray_reservations(after, LINES).await? {
            for reservation in stray {
                self.differs(&Difference::StrayReservation(reservation));
            }
            after = last;
        }
        let mut after = i64::MIN;
        while let Some((stray, last)) = self.store.stray_orders(after, LINES).await? {
            for order in stray {
                self.differs(&Difference::OrderWithoutReservation(order));
            }
            after = last;
        }
        Ok(())
    }

    /// Each line with what is expected of it, part by part, so that neither has to be held whole.
    async fn lines(&mut self, expected: &dyn Expected) -> Result<(), StoreError> {
        for part in 0..expected.parts() {
            let mut wanted = expected.lines(part);
            let mut after = (uuid::Uuid::nil(), uuid::Uuid::nil());
            loop {
                let lines = self.store.line_slice(after, LINES).await?;
                let Some(((movement, product), _)) = lines.last() else {
                    break;
                };
                after = (movement.uuid(), product.uuid());
                for (id, found) in lines {
                    if expected.part_of(id) != part {
                        continue;
                    }
                    let wanted = wanted.remove(&id);
                    if wanted != Some(found) {
                        let found = Some(found);
                        self.differs(&Difference::LineNotAsExpected {
                            id,
                            expected: wanted,
                            found,
                        });
                    }
                }
            }
            for (id, line) in wanted {
                let expected = Some(line);
                self.differs(&Difference::LineNotAsExpected {
                    id,
                    expected,
                    found: None,
                });
            }
        }
        Ok(())
    }
}

/// How much is asked for at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) size: i64,
    most: i64,
}

impl Slice {
    pub(super) fn new(size: i64, most: i64) -> Self {
        Self { size, most }
    }

    /// The next one, after one that took so long.
    pub(super) fn adapt(&mut self, took: Duration) {
        if took > SLICE_TIME_MAX {
            self.size = (self.size / 4).max(1);
        } else if took < SLICE_TIME_MAX / 4 {
            self.size = (self.size * 2).min(self.most);
        }
    }
}
