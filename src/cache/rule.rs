//! The rule of use: a cache entry is valid if nothing it shows has changed since it was read.
//!
//! Fixed tables of atomics hold, for each hash of a key, the newest version that touched it. The follower raises them
//! for every commit it sees and only then moves its position `P` on. An entry carries the newest version its read saw, or the one it was
//! carried on to, `as_of`. If no commit in `(as_of, P]` touched the key, the body is the state as of `P`; and `P` is at most
//! [`FOLLOWED_WITHIN`] behind. Two keys in one slot cost a miss, never a stale answer; a slow reader that stores an old
//! body late stores an old `as_of` with it.
//!
//! What a reservation held comes back when its time is over, though no commit says so yet. So an answer that depends on the time
//! carries the moment until which it is true, by the database's clock, and is used only before it. What time it is there is
//! known at most too late, never too early: a look brings the database's clock with it, read after the look began, so now it is
//! no later there than that clock and all that has passed here since the look began. The two clocks may run at different rates while
//! one is being set right: `DRIFT_DIVISOR` allows for that. (A clock that is set in one step is right again with the next look.)
//!
//! Order matters: use loads `P` before the tables (acquire), following raises the tables before `P` (release). A
//! restart after a restore is fenced by a generation that is odd while it is under way, as in a sequence lock.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering, fence},
    time::Duration,
};

use tokio::sync::watch;

use super::CacheKey;
use crate::{
    clock::Clock,
    domain::{CommitPoint, Tag, Timestamp, Version},
};

/// An entry is used only if the last finished look at the order of commits began within this time.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);
/// Slots of each table: 8 MiB of atomics. More slots, fewer keys that share one.
const SLOTS: usize = 1 << 20;
/// How many versions' tags are remembered (1 MiB). At 1,000 commits a second it is two minutes; what was not read from the database or
/// carried on since then is refused, as if it were of another one.
const TAGS: usize = 1 << 17;
/// A tenth more time may have passed on the database's clock than on ours: clocks that are off are slewed, by 1/12 at most as `chrony`
/// has it by default and far less otherwise. As entries live by looks, it is at most 100 ms that an answer is given up too early.
const DRIFT_DIVISOR: u64 = 10;
/// No look has finished since the start or the last restore.
const NEVER: u64 = u64::MAX;

/// Why an entry is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A commit after the entry touched its key.
    Changed,
    /// The entry knows commits that this process has not followed yet.
    Ahead,
    /// The entry is from before this process began to follow, or from so long ago that it forgot.
    Before,
    /// Its version has another tag here: it was read from another life of the database.
    OtherDatabase,
    /// What it shows has run out by itself, or may have by now.
    RanOut,
    /// The follower has not looked for too long.
    NotFollowed,
}

/// The conditions of use. A service has them all; a test switches one off to show that it is needed.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a condition of its own"
)]
pub struct Conditions {
    pub unchanged: bool,
    pub not_ahead: bool,
    pub not_before: bool,
    pub same_database: bool,
    pub in_time: bool,
    pub followed: bool,
}

impl Conditions {
    pub const ALL: Self = Self {
        unchanged: true,
        not_ahead: true,
        not_before: true,
        same_database: true,
        in_time: true,
        followed: true,
    };
}

/// What this process knew when a caller came: what the caller may expect of a read it joins.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    generation: u64,
    position: i64,
}

/// The tables, the position, and when it was last confirmed.
#[derive(Debug)]
pub struct Rule {
    stock: Box<[AtomicI64]>,
    movements: Box<[AtomicI64]>,
    /// Version modulo [`TAGS`] -> (low 32 bits of the version, tag).
    tags: Box<[AtomicU64]>,
    position: AtomicI64,
    /// The version this process began to follow at.
    began: AtomicI64,
    /// Odd while a restart is under way.
    generation: AtomicU64,
    /// When the last finished look began, in nanoseconds of the clock.
    looked: AtomicU64,
    /// The database's clock as that look saw it, less when the look began, in microseconds since 1970.
    clock_offset: AtomicI64,
    reached: watch::Sender<i64>,
    clock: Clock,
    conditions: Conditions,
}

impl Rule {
    pub fn new(clock: Clock, conditions: Conditions) -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicI64::new(0)).collect();
        Self {
            stock: slots(),
            movements: slots(),
            tags: (0..TAGS).map(|_| AtomicU64::new(0)).collect(),
            position: AtomicI64::new(0),
            began: AtomicI64::new(i64::MAX),
            generation: AtomicU64::new(0),
            looked: AtomicU64::new(NEVER),
            clock_offset: AtomicI64::new(0),
            reached: watch::Sender::new(-1),
            clock,
            conditions,
        }
    }

    /// Whether an entry for the key, read as of that commit and true until that moment, may be used; if so, the position it is true
    /// as of.
    pub fn judge(
        &self,
        key: CacheKey,
        as_of: CommitPoint,
        valid_until: Option<Timestamp>,
    ) -> Result<CommitPoint, Refusal> {
        let generation = self.generation.load(Ordering::Acquire);
        let position = self.position.load(Ordering::Acquire);
        let changed = self.slot(key).load(Ordering::Acquire);
        let version = as_of.version.number();
        let held = |holds: bool, condition: bool| holds || !condition;

        if !held(self.is_followed(), self.conditions.followed) {
            return Err(Refusal::NotFollowed);
        }
        if !held(version <= position, self.conditions.not_ahead) {
            return Err(Refusal::Ahead);
        }
        if !held(
            version >= self.began.load(Ordering::Acquire),
            self.conditions.not_before,
        ) {
            return Err(Refusal::Before);
        }
        if !held(version >= changed, self.conditions.unchanged) {
            return Err(Refusal::Changed);
        }
        if !held(self.is_in_time(valid_until), self.conditions.in_time) {
            return Err(Refusal::RanOut);
        }
        let same = version > position || self.tag(version) == Some(as_of.tag);
        if !held(same, self.conditions.same_database) {
            return Err(Refusal::OtherDatabase);
        }
        let point = self.point(position).ok_or(Refusal::OtherDatabase)?;
        fence(Ordering::Acquire);
        if !generation.is_multiple_of(2) || self.generation.load(Ordering::Relaxed) != generation {
            return Err(Refusal::OtherDatabase);
        }
        Ok(point)
    }

    /// What is known now, to be given to [`Rule::admits_joined`] when a joined read is done.
    pub fn seen(&self) -> Seen {
        let generation = self.generation.load(Ordering::Acquire);
        Seen {
            generation,
            position: self.position.load(Ordering::Acquire),
        }
    }

    /// Whether the result of a read that was under way when the caller came may answer the caller too: it holds all
    /// that this process knew by then, nothing this process knows by now has changed the key after it, it is still true, and no
    /// restore was noticed in between.
    pub fn admits_joined(
        &self,
        key: CacheKey,
        as_of: CommitPoint,
        valid_until: Option<Timestamp>,
        seen: Seen,
    ) -> bool {
        let changed = self.slot(key).load(Ordering::Acquire);
        let version = as_of.version.number();
        (version >= changed || !self.conditions.unchanged)
            && (version >= seen.position || !self.conditions.not_before)
            && (self.is_in_time(valid_until) || !self.conditions.in_time)
            && (self.is_followed() || !self.conditions.followed)
            && seen.generation.is_multiple_of(2)
            && self.generation.load(Ordering::Acquire) == seen.generation
    }

    /// Whether the last finished look began recently enough.
    pub fn is_followed(&self) -> bool {
        let looked = self.looked.load(Ordering::Acquire);
        let now = nanos(self.clock.elapsed());
        looked != NEVER && now.saturating_sub(looked) <= nanos(FOLLOWED_WITHIN)
            || !self.conditions.followed
    }

    /// Whether it is surely not that late yet in the database.
    fn is_in_time(&self, valid_until: Option<Timestamp>) -> bool {
        valid_until.is_none_or(|until| self.database_now_at_most() < until)
    }

    /// No earlier than what the database's clock says now.
    fn database_now_at_most(&self) -> Timestamp {
        // First the look, then the clock: that is then of this look or of a later one, and either will do.
        let looked = self.looked.load(Ordering::Acquire);
        let offset = self.clock_offset.load(Ordering::Acquire);
        let now = nanos(self.clock.elapsed());
        if looked == NEVER {
            return Timestamp::from_micros(i64::MAX);
        }
        let drift = now.saturating_sub(looked) / DRIFT_DIVISOR;
        Timestamp::from_micros(offset.saturating_add(micros_up(now.saturating_add(drift))))
    }

    /// The key changed in that version. A writer says so for its own keys before it answers, the follower for all.
    pub fn mark(&self, key: CacheKey, version: Version) {
        self.slot(key).fetch_max(version.number(), Ordering::AcqRel);
    }

    /// The follower has marked everything up to and including this commit.
    pub fn advance(&self, to: CommitPoint) {
        self.remember(to);
        self.position.store(to.version.number(), Ordering::Release);
        self.reached.send_replace(to.version.number());
    }

    /// A look at the order of commits that began then has reached what was the newest one, and has seen the database's clock.
    pub fn confirm(&self, began: Duration, clock: Timestamp) {
        let began = nanos(began);
        let offset = clock.micros().saturating_sub(micros_down(began));
        self.clock_offset.store(offset, Ordering::Release);
        self.looked.store(began, Ordering::Release);
    }

    /// Nothing is to be used until the next look is finished.
    pub fn distrust(&self) {
        self.looked.store(NEVER, Ordering::Release);
    }

    /// Begins anew at this commit: at the start, and when the database turns out to be another.
    pub fn restart(&self, at: CommitPoint) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::Release);
        self.distrust();
        self.began.store(i64::MAX, Ordering::Release);
        for slot in self.stock.iter().chain(&self.movements) {
            slot.store(0, Ordering::Relaxed);
        }
        for tag in &self.tags {
            tag.store(0, Ordering::Relaxed);
        }
        self.advance(at);
        self.began.store(at.version.number(), Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether this process has followed that commit, in this life of the database.
    pub fn has_followed(&self, point: CommitPoint) -> bool {
        let version = point.version.number();
        let began = self.began.load(Ordering::Acquire);
        (began..=self.position.load(Ordering::Acquire)).contains(&version)
            && self.tag(version) == Some(point.tag)
    }

    /// The newest commit this process has followed; `None` before the first.
    pub fn position(&self) -> Option<CommitPoint> {
        self.point(self.position.load(Ordering::Acquire))
    }

    /// The tag of a version that was followed, while it is remembered.
    pub fn tag_of(&self, version: Version) -> Option<Tag> {
        self.tag(version.number())
    }

    /// Waits until this process has followed the version.
    pub async fn reach(&self, version: Version) {
        let mut reached = self.reached.subscribe();
        // The sender lives as long as `self`, so waiting ends only when the version is there.
        drop(reached.wait_for(|at| *at >= version.number()).await);
    }

    fn slot(&self, key: CacheKey) -> &AtomicI64 {
        let table = match key {
            CacheKey::Stock(_) => &self.stock,
            CacheKey::Movement(_) => &self.movements,
        };
        let low = usize::try_from(key.hash() & (SLOTS as u64 - 1)).unwrap_or(0);
        &table[low]
    }

    fn remember(&self, point: CommitPoint) {
        let version = point.version.number().cast_unsigned();
        let packed = (version << 32) | u64::from(point.tag.0);
        self.tag_slot(point.version.number())
            .store(packed, Ordering::Release);
    }

    fn tag(&self, version: i64) -> Option<Tag> {
        let packed = self.tag_slot(version).load(Ordering::Acquire);
        let began = self.began.load(Ordering::Acquire);
        let same = packed >> 32 == version.cast_unsigned() & u64::from(u32::MAX);
        // An empty slot reads as version 0 with tag 0.
        let filled = packed != 0 || began == 0;
        (same && filled && version >= 0)
            .then(|| Tag(u32::try_from(packed & u64::from(u32::MAX)).unwrap_or(0)))
    }

    fn tag_slot(&self, version: i64) -> &AtomicU64 {
        let low = usize::try_from(version.cast_unsigned() & (TAGS as u64 - 1)).unwrap_or(0);
        &self.tags[low]
    }

    fn point(&self, version: i64) -> Option<CommitPoint> {
        Some(CommitPoint {
            version: Version::new(version)?,
            tag: self.tag(version)?,
        })
    }
}

/// Whole microseconds, the last one counting whole.
fn micros_up(nanos: u64) -> i64 {
    i64::try_from(nanos.div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn micros_down(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::MovementId;

    fn point(version: i64) -> CommitPoint {
        CommitPoint {
            version: Version::new(version).unwrap(),
            tag: Tag(0xabc),
        }
    }

    fn key(n: u128) -> CacheKey {
        CacheKey::Movement(MovementId::new(Uuid::from_u128(n)).unwrap())
    }

    /// What the database's clock says when a test begins.
    const AT: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn later(by: Duration) -> Timestamp {
        Timestamp::from_micros(AT.micros() + i64::try_from(by.as_micros()).unwrap())
    }

    fn following(at: i64) -> (Rule, Clock) {
        let clock = Clock::manual();
        let rule = Rule::new(clock.clone(), Conditions::ALL);
        rule.restart(point(at));
        rule.confirm(clock.elapsed(), AT);
        (rule, clock)
    }

    #[test]
    fn an_entry_is_good_until_its_key_changes() {
        let (rule, _) = following(5);
        assert_eq!(rule.judge(key(1), point(5), None), Ok(point(5)));
        rule.mark(key(2), point(6).version);
        rule.advance(point(6));
        assert_eq!(
            rule.judge(key(1), point(5), None),
            Ok(point(6)),
            "true as of the newer commit too"
        );
        assert_eq!(rule.judge(key(2), point(5), None), Err(Refusal::Changed));
    }

    #[test]
    fn an_entry_from_before_or_ahead_is_refused() {
        let (rule, _) = following(5);
        assert_eq!(rule.judge(key(1), point(4), None), Err(Refusal::Before));
        assert_eq!(rule.judge(key(1), point(6), None), Err(Refusal::Ahead));
    }

    #[test]
    fn the_same_number_with_another_tag_is_another_database() {
        let (rule, _) = following(5);
        let other = CommitPoint {
            tag: Tag(1),
            ..point(5)
        };
        assert_eq!(rule.judge(key(1), other, None), Err(Refusal::OtherDatabase));
    }

    #[test]
    fn nothing_is_used_while_nobody_looks() {
        let (rule, clock) = following(5);
        clock.advance(FOLLOWED_WITHIN);
        assert!(rule.judge(key(1), point(5), None).is_ok());
        clock.advance(Duration::from_nanos(1));
        assert_eq!(
            rule.judge(key(1), point(5), None),
            Err(Refusal::NotFollowed)
        );
        assert!(!rule.admits_joined(key(1), point(5), None, rule.seen()));
    }

    #[test]
    fn what_runs_out_is_used_while_it_surely_is_true() {
        let (rule, clock) = following(5);
        let until = Some(later(Duration::from_millis(220)));
        assert!(rule.judge(key(1), point(5), until).is_ok());
        clock.advance(Duration::from_micros(199_999));
        assert!(rule.judge(key(1), point(5), until).is_ok());
        assert!(rule.admits_joined(key(1), point(5), until, rule.seen()));
        // With the tenth that the database's clock may be ahead by.
        clock.advance(Duration::from_micros(1));
        assert_eq!(rule.judge(key(1), point(5), until), Err(Refusal::RanOut));
        assert!(!rule.admits_joined(key(1), point(5), until, rule.seen()));
        assert!(rule.judge(key(1), point(5), None).is_ok());

        // A look that began then and saw that less has passed there.
        rule.confirm(clock.elapsed(), later(Duration::from_millis(200)));
        assert!(rule.judge(key(1), point(5), until).is_ok());
    }

    #[test]
    fn how_long_a_look_took_counts() {
        let (rule, clock) = following(5);
        let began = clock.elapsed();
        clock.advance(Duration::from_millis(100));
        // Its answer may be as old as the look.
        rule.confirm(began, AT);
        let until = |ms| Some(later(Duration::from_millis(ms)));
        assert!(rule.judge(key(1), point(5), until(111)).is_ok());
        assert_eq!(
            rule.judge(key(1), point(5), until(110)),
            Err(Refusal::RanOut)
        );
    }

    #[test]
    fn nothing_that_runs_out_is_used_before_the_databases_clock_is_known() {
        let clock = Clock::manual();
        let conditions = Conditions {
            followed: false,
            ..Conditions::ALL
        };
        let rule = Rule::new(clock, conditions);
        rule.restart(point(5));
        assert!(rule.judge(key(1), point(5), None).is_ok());
        assert_eq!(
            rule.judge(key(1), point(5), Some(later(Duration::from_hours(1)))),
            Err(Refusal::RanOut)
        );
    }

    #[test]
    fn a_restart_forgets_marks_and_tags() {
        let (rule, clock) = following(5);
        for version in 6..10 {
            rule.mark(key(1), point(version).version);
            rule.advance(point(version));
        }
        let seen = rule.seen();
        rule.restart(CommitPoint {
            tag: Tag(7),
            ..point(6)
        });
        rule.confirm(clock.elapsed(), AT);
        assert_eq!(
            rule.judge(key(1), point(6), None),
            Err(Refusal::OtherDatabase)
        );
        assert_eq!(rule.judge(key(1), point(9), None), Err(Refusal::Ahead));
        assert!(
            rule.judge(
                key(1),
                CommitPoint {
                    tag: Tag(7),
                    ..point(6)
                },
                None
            )
            .is_ok()
        );
        assert!(
            !rule.admits_joined(key(1), point(9), None, seen),
            "the read began before the restore was noticed"
        );
    }

    #[test]
    fn an_empty_database_is_followed_too() {
        let (rule, _) = following(0);
        assert_eq!(rule.judge(key(1), point(0), None), Ok(point(0)));
        let untagged = Rule::new(Clock::manual(), Conditions::ALL);
        assert_eq!(untagged.position(), None);
    }
}
