//! What must hold whatever the load, and whether it did.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Examples kept of each invariant's breaches; the rest is counted.
const EXAMPLES_MAX: usize = 20;

macro_rules! invariants {
    ($($(#[$doc:meta])* $invariant:ident = $words:literal,)+) => {
        /// A promise of the service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Invariant {
            $($(#[$doc])* $invariant,)+
        }

        impl Invariant {
            pub const ALL: &[Self] = &[$(Self::$invariant),+];

            /// As the report has it.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$invariant => $words,)+
                }
            }
        }
    };
}

invariants! {
    /// Compared at the end: what stands on hand, and as many changes as there were facts.
    EventsOnce = "every unique event counts once",
    /// A message that is none, or contradicts, is in the dead letters once, with the right reason.
    DeadLettersKept = "every message that cannot count is kept with its reason",
    /// Compared at the end, and whenever a key is sent twice.
    CommandsOnce = "every command takes effect once, however often it is sent",
    /// Of own products: what was promised and taken is never more than what was put there.
    NothingOversold = "nothing is sold or promised that is not there",
    /// A request is refused only if something may have been short while it was asked.
    NothingDenied = "what is there can be had",
    /// What is reserved is what is promised and neither taken nor given back.
    NothingLeftReserved = "what is given back is available again",
    /// Levels are the sums of their ledger rows.
    LedgerIsLevels = "the ledger is what the levels say",
    /// A read is at most a second behind what anybody was told before.
    NothingStale = "no answer is staler than a second",
    /// A read that asks for the version of one's own change has it.
    OwnWritesSeen = "who changed something sees it",
    /// Products, their inventory, their stock and their levels, when everything has settled.
    ViewsAgree = "every way to ask gives the same answer",
    /// Quantities and what is available.
    NeverBelowZero = "what customers are shown is never below zero",
    /// Each frame continues from the one before, nothing comes twice, versions never go back.
    NoGap = "a socket misses nothing and hears nothing twice",
    /// What each socket was told, compared when everything has settled.
    SocketIsDatabase = "every socket's picture is what the database holds",
    /// Low stock and recovery in turn, and the last word is right.
    AlertsInTurn = "low stock and recovery are told once each",
}

/// What was found of one invariant.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// How often it was looked at.
    pub checked: u64,
    /// How often it did not hold.
    pub broken: u64,
    pub examples: Vec<String>,
}

/// What was found of all of them. Shared by everybody who looks.
#[derive(Debug)]
pub(super) struct Findings(Vec<Mutex<Finding>>);

impl Default for Findings {
    fn default() -> Self {
        Self(Invariant::ALL.iter().map(|_| Mutex::default()).collect())
    }
}

impl Findings {
    fn of(&self, invariant: Invariant) -> MutexGuard<'_, Finding> {
        let finding = self.0[invariant as usize].lock();
        finding.unwrap_or_else(PoisonError::into_inner)
    }

    /// It was looked at, and holds, or not for the reason given.
    pub(super) fn look(&self, invariant: Invariant, holds: bool, why_not: impl FnOnce() -> String) {
        self.of(invariant).checked += 1;
        if !holds {
            self.broken(invariant, why_not());
        }
    }

    /// It was looked at so many times, and held.
    pub(super) fn held(&self, invariant: Invariant, times: u64) {
        self.of(invariant).checked += times;
    }

    /// It does not hold.
    pub(super) fn broken(&self, invariant: Invariant, why: String) {
        let mut finding = self.of(invariant);
        finding.checked = finding.checked.max(1);
        finding.broken += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            tracing::warn!("broken: {}: {why}", invariant.words());
            finding.examples.push(why);
        }
    }

    pub(super) fn all(&self) -> Vec<(Invariant, Finding)> {
        let all = Invariant::ALL.iter();
        all.map(|invariant| (*invariant, self.of(*invariant).clone()))
            .collect()
    }
}
