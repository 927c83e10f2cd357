//! What was done, and therefore what must stand: the generator's own account, kept beside the load.
//!
//! Every key in it is the run's own: nobody else changes it. While the load goes its level is known within bounds: a change that
//! was asked for may have happened, one that was answered has. When everything was answered and taken in, what is on hand, what
//! is reserved and how many changes the ledger has are exact. The revision is not: changes of one commit share one.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use super::invariants::{Findings, Invariant};

/// How far behind an answer may be: the promise of the cache.
pub(super) const STALE_MAX: Duration = Duration::from_secs(1);
/// How long a read may be under way, and what was seen before it is remembered.
const SEEN_FOR: Duration = Duration::from_mins(1);
/// What is seen is remembered in steps of this: in between, the check is a little more lenient than the promise.
const SEEN_STEP: Duration = Duration::from_millis(20);

/// A product in a warehouse, by the names that every answer and frame has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub warehouse: Uuid,
    /// The sku where there is one, else the id.
    pub product: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.product, self.warehouse)
    }
}

/// What one change does to a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub key: Key,
    pub on_hand: i64,
    pub reserved: i64,
}

/// A level as somebody told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub on_hand: i64,
    pub reserved: i64,
    pub revision: i64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            on_hand,
            reserved,
            revision,
        } = self;
        write!(
            f,
            "{on_hand} on hand, {reserved} reserved, revision {revision}"
        )
    }
}

/// What must stand when everything has settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub on_hand: i64,
    pub reserved: i64,
    /// Rows of the ledger.
    pub changes: i64,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            on_hand,
            reserved,
            changes,
        } = self;
        write!(
            f,
            "{on_hand} on hand, {reserved} reserved by {changes} changes"
        )
    }
}

/// What is known of a level.
#[derive(Clone, Debug, Default)]
struct Level {
    /// By what was answered, and of facts by what Kafka has.
    expected: Expected,
    /// Changes that were asked for: the highest revision there can be.
    asked: i64,
    /// The most that can be on hand, and the least that can be reserved.
    on_hand_most: i64,
    reserved_least: i64,
    /// What is surely available: the least that can be on hand, less the most that can be reserved.
    certain: i64,
    /// Until when that was last below zero.
    short_at: Option<Duration>,
    /// Facts change it as well, which may take it below zero.
    has_facts: bool,
    /// Commands of which nobody knows what became.
    unknown: u32,
    seen: Seen,
}

/// Revisions that somebody was told, and when.
#[derive(Clone, Debug, Default)]
struct Seen {
    steps: VecDeque<(Duration, i64)>,
    /// The highest since the last step, too soon after it to be one.
    next: i64,
}

impl Level {
    /// What is surely available changes.
    fn change_certain(&mut self, by: i64, at: Duration) {
        if self.certain < 0 {
            self.short_at = Some(at);
        }
        self.certain += by;
    }

    /// The promise that its changes are about.
    fn counts_once(&self) -> Invariant {
        if self.has_facts {
            Invariant::EventsOnce
        } else {
            Invariant::CommandsOnce
        }
    }

    /// Whether everything that was asked for was surely there from then on.
    fn was_enough_since(&self, asked: Duration) -> bool {
        self.certain >= 0 && self.short_at.is_none_or(|at| at < asked) && !self.has_facts
    }
}

impl Seen {
    fn add(&mut self, revision: i64, at: Duration) {
        let revision = revision.max(self.next);
        if let Some((last_at, last)) = self.steps.back() {
            if revision <= *last {
                return;
            }
            if at < *last_at + SEEN_STEP {
                self.next = revision;
                return;
            }
        }
        self.steps.push_back((at, revision));
        // The newest of what is too old to matter still holds.
        let is_old = |step: &(Duration, i64)| step.0 + SEEN_FOR < at;
        while self.steps.get(1).is_some_and(is_old) {
            self.steps.pop_front();
        }
    }

    /// The highest that was told until then.
    fn until(&self, at: Duration) -> i64 {
        let steps = &self.steps;
        let place = steps.partition_point(|(seen_at, _)| *seen_at <= at);
        place.checked_sub(1).map_or(0, |place| steps[place].1)
    }
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    levels: Mutex<HashMap<Key, Level>>,
    pub findings: Findings,
}

impl Oracle {
    fn levels(&self) -> MutexGuard<'_, HashMap<Key, Level>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command is about to be sent.
    pub(super) fn asks(&self, effects: &[Effect], at: Duration) {
        let mut levels = self.levels();
        for effect in effects {
            let level = levels.entry(effect.key.clone()).or_default();
            level.asked += 1;
            level.on_hand_most += effect.on_hand.max(0);
            level.reserved_least += effect.reserved.min(0);
            level.change_certain(effect.on_hand.min(0) - effect.reserved.max(0), at);
        }
    }

    /// It was done.
    pub(super) fn done(&self, effects: &[Effect], at: Duration) {
        for effect in effects {
            let mut levels = self.levels();
            let level = levels.entry(effect.key.clone()).or_default();
            level.expected.on_hand += effect.on_hand;
            level.expected.reserved += effect.reserved;
            level.expected.changes += 1;
            level.on_hand_most += effect.on_hand.min(0);
            level.reserved_least += effect.reserved.max(0);
            level.change_certain(effect.on_hand.max(0) - effect.reserved.min(0), at);
            let (most, least) = (level.on_hand_most, level.reserved_least);
            let has_facts = level.has_facts;
            drop(levels);
            if !has_facts && (effect.on_hand < 0 || effect.reserved > 0) {
                let invariant = Invariant::NothingOversold;
                self.findings.look(invariant, least <= most, || {
                    let key = &effect.key;
                    format!("{key}: {least} promised of {most} at most")
                });
            }
        }
    }

    /// It was refused for want of something that may have been short since it was asked; or should have been.
    pub(super) fn sold_out(&self, effects: &[Effect], asked: Duration) {
        let levels = self.levels();
        let was_enough = |effect: &Effect| {
            let level = levels.get(&effect.key);
            level.is_some_and(|level| level.was_enough_since(asked))
        };
        let was_denied = effects.iter().all(was_enough);
        drop(levels);
        self.findings
            .look(Invariant::NothingDenied, !was_denied, || {
                let keys: Vec<String> = effects.iter().map(|e| e.key.to_string()).collect();
                format!("refused although everything was there: {}", keys.join(", "))
            });
    }

    /// It was refused: nothing happened.
    pub(super) fn refused(&self, effects: &[Effect], at: Duration) {
        let mut levels = self.levels();
        for effect in effects {
            let level = levels.entry(effect.key.clone()).or_default();
            level.asked -= 1;
            level.on_hand_most -= effect.on_hand.max(0);
            level.reserved_least -= effect.reserved.min(0);
            level.change_certain(effect.reserved.max(0) - effect.on_hand.min(0), at);
        }
    }

    /// Nobody knows what became of it: its levels cannot be told exactly any more.
    pub(super) fn lost(&self, effects: &[Effect]) {
        let mut levels = self.levels();
        for effect in effects {
            levels.entry(effect.key.clone()).or_default().unknown += 1;
        }
    }

    /// A fact is about to be published.
    pub(super) fn publishes(&self, key: &Key, on_hand: i64) {
        let mut levels = self.levels();
        let level = levels.entry(key.clone()).or_default();
        level.has_facts = true;
        level.asked += 1;
        level.expected.on_hand += on_hand;
        level.expected.changes += 1;
    }

    /// Somebody was told this of a key.
    pub(super) fn saw(&self, key: &Key, revision: i64, at: Duration) {
        if let Some(level) = self.levels().get_mut(key) {
            level.seen.add(revision, at);
        }
    }

    /// Judges what a read said that was sent then, and remembers it.
    pub(super) fn judge(&self, key: &Key, told: Told, sent: Duration, at: Duration) {
        let mut levels = self.levels();
        let Some(level) = levels.get_mut(key) else {
            return;
        };
        let floor = level.seen.until(sent.saturating_sub(STALE_MAX));
        let (asked, has_facts, counts_once) = (level.asked, level.has_facts, level.counts_once());
        level.seen.add(told.revision, at);
        drop(levels);
        // Before anybody was told anything there is nothing to be behind of.
        if floor > 0 {
            self.findings
                .look(Invariant::NothingStale, told.revision >= floor, || {
                    format!("{key}: {told}, a second after revision {floor} was told")
                });
        }
        self.findings.look(counts_once, told.revision <= asked, || {
            format!("{key}: {told}, although only {asked} changes were asked for")
        });
        if !has_facts {
            let is_covered = told.reserved <= told.on_hand;
            self.findings
                .look(Invariant::NothingOversold, is_covered, || {
                    format!("{key}: {told}")
                });
        }
    }

    /// Own keys, and what must stand there; `None` of one where nobody knows what became of a command.
    pub(super) fn expected(&self) -> Vec<(Key, Option<Expected>)> {
        let levels = self.levels();
        let mut all: Vec<_> = levels
            .iter()
            .map(|(key, level)| (key.clone(), (level.unknown == 0).then_some(level.expected)))
            .collect();
        drop(levels);
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// The promise that a level of this kind of changes is about.
    pub(super) fn counts_once(&self, key: &Key) -> Invariant {
        let levels = self.levels();
        let level = levels.get(key);
        level.map_or(Invariant::CommandsOnce, Level::counts_once)
    }

    /// Compares a level with what must stand there now that everything has settled.
    pub(super) fn compare(&self, key: &Key, expected: Expected, found: Told) {
        let why = || format!("{key}: {found}, and not {expected}");
        self.findings.look(
            Invariant::NothingLeftReserved,
            found.reserved == expected.reserved,
            why,
        );
        let is_right = found.on_hand == expected.on_hand
            && found.revision <= expected.changes
            && (found.revision > 0) == (expected.changes > 0);
        self.findings.look(self.counts_once(key), is_right, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            warehouse: Uuid::from_u128(1),
            product: "P".into(),
        }
    }

    fn effect(on_hand: i64, reserved: i64) -> [Effect; 1] {
        [Effect {
            key: key(),
            on_hand,
            reserved,
        }]
    }

    fn broken(oracle: &Oracle) -> Vec<Invariant> {
        let all = oracle.findings.all().into_iter();
        all.filter(|(_, finding)| finding.broken > 0)
            .map(|(invariant, _)| invariant)
            .collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_read_may_be_a_second_behind_and_no_more() {
        let told = |revision| Told {
            on_hand: 5,
            reserved: 0,
            revision,
        };
        for (sent, is_stale) in [(2, false), (3, true)] {
            let oracle = Oracle::default();
            for at in [1, 2] {
                oracle.asks(&effect(5, 0), SECOND);
                oracle.done(&effect(5, 0), SECOND);
                oracle.saw(&key(), i64::from(at), SECOND * at);
            }
            let sent = SECOND * sent;
            oracle.judge(&key(), told(1), sent, sent + SECOND * 5);
            let expected = is_stale.then_some(Invariant::NothingStale);
            assert_eq!(broken(&oracle), Vec::from_iter(expected), "{sent:?}");
        }
    }

    #[test]
    fn more_promised_than_there_can_be_is_oversold() {
        let oracle = Oracle::default();
        oracle.asks(&effect(2, 0), SECOND);
        oracle.done(&effect(2, 0), SECOND);
        for _ in 0..2 {
            oracle.asks(&effect(0, 1), SECOND);
            oracle.done(&effect(0, 1), SECOND);
        }
        // One is given back, and sold again before the answer comes.
        oracle.asks(&effect(0, -1), SECOND);
        oracle.asks(&effect(0, 1), SECOND);
        oracle.done(&effect(0, 1), SECOND);
        assert_eq!(broken(&oracle), []);
        oracle.asks(&effect(0, 1), SECOND);
        oracle.done(&effect(0, 1), SECOND);
        assert_eq!(broken(&oracle), [Invariant::NothingOversold]);
    }

    #[test]
    fn a_refusal_is_right_only_if_something_may_have_been_short() {
        let oracle = Oracle::default();
        let refuse = |asked| {
            oracle.sold_out(&effect(0, 1), asked);
            oracle.refused(&effect(0, 1), asked);
        };
        oracle.asks(&effect(2, 0), SECOND);
        oracle.done(&effect(2, 0), SECOND);
        for _ in 0..3 {
            oracle.asks(&effect(0, 1), SECOND * 2);
        }
        // Three want two: whoever is refused may have been the third.
        refuse(SECOND * 2);
        assert_eq!(broken(&oracle), []);
        oracle.done(&effect(0, 1), SECOND * 3);
        oracle.asks(&effect(0, -1), SECOND * 3);
        oracle.done(&effect(0, -1), SECOND * 3);
        oracle.asks(&effect(0, 1), SECOND * 4);
        refuse(SECOND * 4);
        assert_eq!(broken(&oracle), [Invariant::NothingDenied]);
    }

    #[test]
    fn what_was_not_asked_for_did_not_happen() {
        let oracle = Oracle::default();
        oracle.asks(&effect(2, 0), SECOND);
        let told = Told {
            on_hand: 4,
            reserved: 0,
            revision: 2,
        };
        oracle.judge(&key(), told, SECOND, SECOND);
        assert_eq!(broken(&oracle), [Invariant::CommandsOnce]);
    }
}
