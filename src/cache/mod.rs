//! The cache: two tiers (this process, Redis) under one rule of use, and one read at a time for one thing.
//!
//! Invariant: no entry is used unless [`rule::Rule`] vouches for it. Nothing here deletes to be right: expiry, bounds and
//! a lost Redis change how fast an answer comes, never what it says. What is not here: reading the database, and what
//! the bodies mean.

mod flights;
mod memory_tier;
mod redis_tier;
pub mod rule;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    domain::{CommitPoint, MovementId, StockKey, StockLevel, Timestamp, change::LevelChange},
    metrics::Metrics,
};
pub use flights::{Flights, Seat};
use memory_tier::MemoryTier;
pub use memory_tier::WriteLevel;
use redis_tier::RedisTier;
pub use redis_tier::{CacheError, RedisSettings};
use rule::{Refusal, Rule};

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKey {
    Stock(StockKey),
    Movement(MovementId),
}

impl CacheKey {
    /// One hash for the slot of the rule, the same in every process and run.
    fn hash(&self) -> u64 {
        match self {
            Self::Stock(key) => {
                let mut bytes = [0; 32];
                bytes[..16].copy_from_slice(key.warehouse.uuid().as_bytes());
                bytes[16..].copy_from_slice(key.product.uuid().as_bytes());
                xxh3_64(&bytes)
            }
            Self::Movement(id) => xxh3_64(id.uuid().as_bytes()),
        }
    }
}

/// An answer as of a commit, read or carried on to it. No body: the thing was not there, or it is a level that nobody has asked for since
/// it was carried on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub as_of: CommitPoint,
    /// By the database's clock, where the answer is another from some moment on without a commit.
    pub valid_until: Option<Timestamp>,
    pub body: Option<Bytes>,
    /// What it shows, where that is a level that this process has read.
    pub level: Option<StockLevel>,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    Redis,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

/// What a look into the cache found.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// True as of the point, which is at least as new as the entry.
    Hit {
        entry: Entry,
        tier: Tier,
        position: CommitPoint,
    },
    Miss,
    /// The follower is too far behind to vouch for anything.
    Bypass,
}

/// Bounds and expiry of the tiers. None of it carries correctness.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    pub memory_bytes_max: u64,
    pub memory_ttl: Duration,
    pub entry_bytes_max: usize,
    /// `None`: no Redis.
    pub redis: Option<RedisSettings>,
}

/// Both tiers and the rule.
#[derive(Debug)]
pub struct Cache {
    rule: Arc<Rule>,
    memory: MemoryTier,
    redis: Option<RedisTier>,
    flights: Arc<Flights>,
    entry_bytes_max: usize,
    metrics: Metrics,
}

impl Cache {
    pub fn new(
        settings: CacheSettings,
        rule: Arc<Rule>,
        metrics: Metrics,
        write_level: WriteLevel,
    ) -> Result<Self, CacheError> {
        let memory = MemoryTier::new(settings.memory_bytes_max, settings.memory_ttl, write_level);
        let redis = settings
            .redis
            .map(|redis| RedisTier::new(&redis, metrics.clone()))
            .transpose()?;
        Ok(Self {
            rule,
            memory,
            redis,
            flights: Arc::default(),
            entry_bytes_max: settings.entry_bytes_max,
            metrics,
        })
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// One read at a time for one thing.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// Looks in the process, then in Redis.
    pub async fn look_up(&self, key: CacheKey) -> Lookup {
        if !self.rule.is_followed() {
            self.metrics.cache_bypasses_total.inc();
            return Lookup::Bypass;
        }
        let found = self.memory.get(key);
        if let Some(hit) = self.judge(key, found, Tier::Memory) {
            return hit;
        }
        let Some(redis) = &self.redis else {
            return Lookup::Miss;
        };
        let Ok(found) = redis.get(key).await else {
            self.count(Tier::Redis, "error");
            return Lookup::Miss;
        };
        match self.judge(key, found, Tier::Redis) {
            Some(hit) => {
                if let Lookup::Hit { entry, .. } = &hit {
                    self.memory.insert(key, entry.clone());
                }
                hit
            }
            None => Lookup::Miss,
        }
    }

    /// Keeps what was read, in both tiers. Storing late or out of turn does no harm: the rule judges on use.
    pub fn fill(&self, key: CacheKey, entry: &Entry) {
        if entry
            .body
            .as_ref()
            .is_some_and(|body| body.len() > self.entry_bytes_max)
        {
            return;
        }
        if let Some(redis) = &self.redis {
            redis.set_later(key, entry);
        }
        self.memory.insert(key, entry.clone());
    }

    /// Drops what has just changed from Redis, if that can be done at once: what it holds would be refused by the rule anyway.
    pub fn unlink(&self, keys: &[CacheKey]) {
        if let Some(redis) = &self.redis {
            redis.unlink_later(keys);
        }
    }

    /// Carries the levels that this process keeps on over the changes of a commit, the next to be followed (`levels_changed_at` is the
    /// commit's): what was read once need not be read again because it changed.
    pub fn carry<'c>(
        &self,
        changes: impl Iterator<Item = &'c LevelChange>,
        to: CommitPoint,
        levels_changed_at: Timestamp,
    ) {
        let carried =
            changes.filter(|change| self.memory.carry(&self.rule, change, to, levels_changed_at));
        let carried = u64::try_from(carried.count()).unwrap_or(u64::MAX);
        self.metrics.cache_carried_total.inc_by(carried);
    }

    /// Forgets what this process holds: the database is not the one it was read from.
    pub fn forget(&self) {
        self.memory.forget();
    }

    /// Whether Redis answers; `None` if there is none by configuration.
    pub async fn redis_answers(&self) -> Option<bool> {
        Some(self.redis.as_ref()?.answers().await)
    }

    fn judge(&self, key: CacheKey, found: Option<Entry>, tier: Tier) -> Option<Lookup> {
        let Some(entry) = found else {
            self.count(tier, "miss");
            return None;
        };
        match self.rule.judge(key, entry.as_of, entry.valid_until) {
            Ok(position) => {
                self.count(tier, "hit");
                Some(Lookup::Hit {
                    entry,
                    tier,
                    position,
                })
            }
            Err(Refusal::NotFollowed) => {
                self.metrics.cache_bypasses_total.inc();
                Some(Lookup::Bypass)
            }
            Err(
                Refusal::Changed
                | Refusal::Ahead
                | Refusal::Before
                | Refusal::OtherDatabase
                | Refusal::RanOut,
            ) => {
                self.count(tier, "refused");
                None
            }
        }
    }

    fn count(&self, tier: Tier, result: &str) {
        self.metrics
            .cache_lookups_total
            .with_label_values(&[tier.as_str(), result])
            .inc();
    }
}
