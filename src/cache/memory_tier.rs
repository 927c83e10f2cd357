//! The tier in the process: what was read lately, and what became of the levels among it.
//!
//! Invariant: a level is carried on only from what it was right before a commit, in the same life of the database; so an entry is
//! what a read as of its commit gives, whether it was read or carried on. Whether it may be used is for the rule to say.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moka::{Expiry, sync::Cache as MokaCache};

use super::{CacheKey, Entry, rule::Rule};
use crate::domain::{CommitPoint, StockKey, StockLevel, Timestamp, change::LevelChange};

/// How a level is written for clients.
pub type WriteLevel = fn(StockKey, &StockLevel) -> Bytes;

/// What an entry takes beside its body, in bytes: key, entry and the map's own (measured: 580 each for 200,000 levels).
const ENTRY_OVERHEAD_BYTES: usize = 600;
/// Entries go after this share of their time at the earliest, each at a moment of its own: what was read together, as after a start, is
/// not to be read again together.
const EXPIRES_FROM: f64 = 0.5;
/// Longest an entry is kept, whatever was set: what the map can count.
const TTL_MAX: Duration = Duration::from_hours(24 * 365);

/// Each entry is changed where it is: carrying it on makes it no younger.
#[derive(Clone, Debug)]
struct Held(Arc<Mutex<Entry>>);

impl Held {
    fn entry(&self) -> MutexGuard<'_, Entry> {
        // It is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an entry is kept at most.
struct Expires(Duration);

impl Expires {
    fn after(&self) -> Duration {
        self.0.mul_f64(rand::random_range(EXPIRES_FROM..=1.0))
    }
}

impl Expiry<CacheKey, Held> for Expires {
    fn expire_after_create(&self, _: &CacheKey, _: &Held, _: Instant) -> Option<Duration> {
        Some(self.after())
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        _: &Held,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.after())
    }
}

pub(super) struct MemoryTier {
    entries: MokaCache<CacheKey, Held>,
    write: WriteLevel,
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier").finish_non_exhaustive()
    }
}

impl MemoryTier {
    pub(super) fn new(bytes_max: u64, ttl: Duration, write: WriteLevel) -> Self {
        let entries = MokaCache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, held: &Held| {
                let bytes = held.entry().body.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .expire_after(Expires(ttl.min(TTL_MAX)))
            .build();
        Self { entries, write }
    }

    pub(super) fn get(&self, key: CacheKey) -> Option<Entry> {
        let held = self.entries.get(&key)?;
        let mut entry = held.entry();
        // One that was carried on is written when it is asked for, once.
        if let (None, Some(level), CacheKey::Stock(key)) = (&entry.body, entry.level, key) {
            entry.body = Some((self.write)(key, &level));
        }
        Some(entry.clone())
    }

    pub(super) fn insert(&self, key: CacheKey, entry: Entry) {
        self.entries.insert(key, Held(Arc::new(Mutex::new(entry))));
    }

    /// Carries a level on over a change of the commit right after the rule's position (`levels_changed_at` is the commit's); whether it is
    /// kept, and known from that.
    pub(super) fn carry(
        &self,
        rule: &Rule,
        change: &LevelChange,
        to: CommitPoint,
        levels_changed_at: Timestamp,
    ) -> bool {
        let key = CacheKey::Stock(change.key);
        // Looking for what is not there counts as a wish for it, and most changes are of levels that nobody asks for.
        if !self.entries.contains_key(&key) {
            return false;
        }
        let Some(held) = self.entries.get(&key) else {
            return false;
        };
        let mut entry = held.entry();
        let level = entry.level.filter(|_| rule.has_followed(entry.as_of));
        let Some(level) = level.and_then(|level| level.followed_by(change, levels_changed_at))
        else {
            return false;
        };
        *entry = Entry {
            as_of: to,
            // What is promised holds until the same moment; where nothing is, nothing runs out.
            valid_until: entry.valid_until.filter(|_| change.after.reserved > 0),
            body: None,
            level: Some(level),
        };
        true
    }

    pub(super) fn forget(&self) {
        self.entries.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        cache::rule::Conditions,
        clock::Clock,
        domain::{
            InventoryId, ProductId, Revision, Tag, Version, WarehouseId,
            change::{Amounts, ChangeKind},
        },
    };

    fn key() -> StockKey {
        StockKey {
            warehouse: WarehouseId::new(Uuid::from_u128(1)).unwrap(),
            product: ProductId::new(Uuid::from_u128(2)).unwrap(),
        }
    }

    fn point(version: i64) -> CommitPoint {
        CommitPoint {
            version: Version::new(version).unwrap(),
            tag: Tag(0xabc),
        }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// Ten on hand, of which two are promised until then.
    fn read(as_of: CommitPoint) -> Entry {
        Entry {
            as_of,
            valid_until: Some(at(900)),
            body: Some(Bytes::from_static(b"as it was read")),
            level: Some(StockLevel {
                on_hand: 10,
                reserved: 2,
                revision: Revision(7),
                updated_at: Some(at(70)),
            }),
        }
    }

    /// Five more.
    fn change(revision: i64) -> LevelChange {
        let amounts = |on_hand| Amounts {
            on_hand,
            reserved: 2,
        };
        LevelChange {
            key: key(),
            inventory_id: InventoryId(1),
            kind: ChangeKind::Arrival,
            before: amounts(10),
            after: amounts(15),
            revision: Revision(revision),
            changes_promises: false,
        }
    }

    /// Follows up to the fifth commit.
    fn following() -> (MemoryTier, Rule) {
        let rule = Rule::new(Clock::manual(), Conditions::ALL);
        rule.restart(point(3));
        rule.advance(point(4));
        rule.advance(point(5));
        let write: WriteLevel = |_, level| Bytes::from(format!("{level:?}"));
        (
            MemoryTier::new(1 << 20, Duration::from_hours(1), write),
            rule,
        )
    }

    fn carried(entry: Entry, change: &LevelChange) -> Option<Entry> {
        let (memory, rule) = following();
        memory.insert(CacheKey::Stock(key()), entry);
        let is_carried = memory.carry(&rule, change, point(6), at(80));
        is_carried.then(|| memory.get(CacheKey::Stock(key())).unwrap())
    }

    #[test]
    fn a_level_is_carried_on_over_the_commit_that_changes_it() {
        let entry = carried(read(point(4)), &change(8)).unwrap();
        let level = StockLevel {
            on_hand: 15,
            reserved: 2,
            revision: Revision(8),
            updated_at: Some(at(80)),
        };
        let written = Some(Bytes::from(format!("{level:?}")));
        assert_eq!(
            (entry.as_of, entry.valid_until, entry.level, entry.body),
            (point(6), Some(at(900)), Some(level), written)
        );
    }

    #[test]
    fn its_time_does_not_go_back() {
        let mut before = read(point(5));
        before.level.as_mut().unwrap().updated_at = Some(at(81));
        let level = carried(before, &change(8)).unwrap().level.unwrap();
        assert_eq!(level.updated_at, Some(at(81)));
    }

    #[test]
    fn only_what_was_right_before_is_carried_on() {
        for revision in [7, 9] {
            assert_eq!(carried(read(point(5)), &change(revision)), None);
        }
        let unread = Entry {
            level: None,
            ..read(point(5))
        };
        assert_eq!(carried(unread, &change(8)), None);
    }

    #[test]
    fn nothing_is_carried_on_from_another_life_of_the_database() {
        let other = CommitPoint {
            tag: Tag(1),
            ..point(5)
        };
        for as_of in [other, point(2), point(6)] {
            assert_eq!(carried(read(as_of), &change(8)), None, "{as_of}");
        }
    }

    #[test]
    fn what_is_promised_is_known_where_all_of_it_has_ended() {
        let promised = |reserved| {
            let mut change = change(8);
            change.after.reserved = reserved;
            change.changes_promises = true;
            carried(read(point(5)), &change)
        };
        assert_eq!(promised(2), None, "promised until another moment, perhaps");
        let entry = promised(0).unwrap();
        assert_eq!(
            (entry.level.unwrap().reserved, entry.valid_until),
            (0, None)
        );
    }
}
