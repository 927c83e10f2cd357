//! What a level is made of: its changes by kind and, below zero, the departures that no arrival covers.

use super::{
    MovementId, StockLevel, Timestamp,
    change::{Amounts, ChangeKind},
};

/// What the changes of one kind add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSum {
    pub kind: ChangeKind,
    pub changes: i64,
    pub delta: Amounts,
}

/// Units that left, as the movement reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    pub movement: MovementId,
    pub at: Timestamp,
    /// In units, more than none.
    pub quantity: i64,
}

/// A departure of which so many units, at least one, were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncovered {
    pub departure: Departure,
    pub units: i64,
}

/// Reservations that are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveReservations {
    pub count: i64,
    pub units: i64,
    /// Of the units, those whose time has run out: they are not reserved any more, and the ledger does not say so yet.
    pub due_units: i64,
}

/// A level and what it is made of, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub level: StockLevel,
    /// By kind, each once.
    pub kinds: Vec<KindSum>,
    pub reservations: ActiveReservations,
    /// The newest departures first.
    pub uncovered: Vec<Uncovered>,
    /// There are more uncovered departures than were looked for.
    pub is_cut: bool,
}

impl Explanation {
    /// `departures` are the newest ones that stand, `departed` the units of all that stand.
    pub fn new(
        level: StockLevel,
        sums: impl IntoIterator<Item = KindSum>,
        reservations: ActiveReservations,
        departures: impl IntoIterator<Item = Departure>,
        departed: i64,
    ) -> Self {
        let deficit = deficit(&level);
        let uncovered = uncovered(deficit, departures);
        let told: i64 = uncovered.iter().map(|one| one.units).sum();
        Self {
            level,
            kinds: by_kind(sums),
            reservations,
            uncovered,
            is_cut: told < deficit.min(departed),
        }
    }

    /// How many units left that were not there.
    pub fn deficit(&self) -> i64 {
        deficit(&self.level)
    }
}

fn deficit(level: &StockLevel) -> i64 {
    level.on_hand.saturating_neg().max(0)
}

/// The sums with one for each kind, in the order of the kinds.
fn by_kind(sums: impl IntoIterator<Item = KindSum>) -> Vec<KindSum> {
    let mut sums: Vec<KindSum> = sums.into_iter().collect();
    sums.sort_by_key(|sum| sum.kind);
    sums.dedup_by(|next, sum| {
        let is_same = next.kind == sum.kind;
        if is_same {
            sum.changes += next.changes;
            sum.delta.on_hand += next.delta.on_hand;
            sum.delta.reserved += next.delta.reserved;
        }
        is_same
    });
    sums
}

/// Who came first was served: what was not there is missing from the newest departures.
fn uncovered(deficit: i64, newest_first: impl IntoIterator<Item = Departure>) -> Vec<Uncovered> {
    let mut missing = deficit;
    let mut uncovered = Vec::new();
    for departure in newest_first {
        if missing <= 0 {
            break;
        }
        let units = departure.quantity.min(missing);
        missing -= units;
        uncovered.push(Uncovered { departure, units });
    }
    uncovered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn departures(quantities: &[i64]) -> Vec<Departure> {
        let numbered = (1..).zip(quantities);
        numbered
            .map(|(number, quantity)| Departure {
                movement: MovementId::new(Uuid::from_u128(number)).unwrap(),
                at: Timestamp::from_micros(0),
                quantity: *quantity,
            })
            .collect()
    }

    fn explained(on_hand: i64, quantities: &[i64], departed: i64) -> Explanation {
        let level = StockLevel {
            on_hand,
            ..StockLevel::EMPTY
        };
        let departures = departures(quantities);
        Explanation::new(
            level,
            [],
            ActiveReservations::default(),
            departures,
            departed,
        )
    }

    fn units(explanation: &Explanation) -> Vec<i64> {
        let uncovered = explanation.uncovered.iter();
        uncovered.map(|one| one.units).collect()
    }

    #[test]
    fn what_is_missing_is_missing_from_the_newest_departures() {
        let short = explained(-7, &[5, 4, 3], 12);
        assert_eq!((units(&short), short.is_cut), (vec![5, 2], false));
        assert_eq!(units(&explained(0, &[5], 5)), [0; 0]);
        assert_eq!(units(&explained(3, &[5], 5)), [0; 0]);
    }

    #[test]
    fn what_was_not_looked_at_is_said_to_be_missing() {
        let cut = explained(-7, &[4], 9);
        assert_eq!((units(&cut), cut.is_cut), (vec![4], true));
        // An arrival that was sold and then taken back: no departure is to blame.
        let other = explained(-7, &[4], 4);
        assert_eq!((units(&other), other.is_cut), (vec![4], false));
    }

    #[test]
    fn each_kind_comes_once() {
        let sum = |kind, changes, on_hand| KindSum {
            kind,
            changes,
            delta: Amounts {
                on_hand,
                reserved: 1,
            },
        };
        let sums = [
            sum(ChangeKind::Void, 1, 5),
            sum(ChangeKind::Arrival, 2, 7),
            sum(ChangeKind::Void, 2, -3),
        ];
        let kinds = by_kind(sums);
        assert_eq!(kinds.len(), 2);
        assert_eq!(kinds[0], sum(ChangeKind::Arrival, 2, 7));
        let void = kinds[1];
        assert_eq!(
            (void.changes, void.delta.on_hand, void.delta.reserved),
            (3, 2, 2)
        );
    }

    proptest! {
        #[test]
        fn the_uncovered_units_are_the_deficit_or_all_that_departed(
            on_hand in -50_i64..10, quantities in prop::collection::vec(1_i64..20, 0..10),
        ) {
            let departed = quantities.iter().sum();
            let explanation = explained(on_hand, &quantities, departed);
            let told: i64 = units(&explanation).iter().sum();
            prop_assert_eq!(told, explanation.deficit().min(departed));
            prop_assert!(!explanation.is_cut);
            for (one, quantity) in explanation.uncovered.iter().zip(&quantities) {
                prop_assert!((1..=*quantity).contains(&one.units));
            }
        }
    }
}
