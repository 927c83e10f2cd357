//! Which reservations what is on hand does not cover.
//!
//! Of a key's active reservations, oldest first, those are at risk whose running sum exceeds what is on hand. Every line has
//! units, so the sum grows with each, and whoever is at risk is newer than whoever is not: lines are looked at from the newest on,
//! down from the sum of all, and the old ones need not be known. Nothing of it is stored: it follows from the lines and the level.

use super::{ReservationId, Version, change::Amounts};

/// The units that a reservation holds of one level, and when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub reservation: ReservationId,
    /// More than 0.
    pub quantity: i64,
    /// The commit that made it.
    pub made: Version,
    /// The commit since which it is not active; `None`: it is.
    pub ended: Option<Version>,
}

impl Line {
    /// Whether it was active right after that commit.
    pub fn is_active_after(&self, version: Version) -> bool {
        self.made <= version && self.ended.is_none_or(|ended| version < ended)
    }

    /// Whether it was active right before that commit.
    fn is_active_before(&self, version: Version) -> bool {
        self.made < version && self.ended.is_none_or(|ended| version <= ended)
    }
}

/// Tells of one line after the other, the newest first, whether it is at risk.
#[derive(Clone, Copy, Debug)]
pub struct Uncovered {
    /// The sum of the lines up to the next one, the oldest first.
    sum: i64,
    on_hand: i64,
}

impl Uncovered {
    /// `amounts` are the level's: what is reserved is the sum of all active lines, also of those that nobody asks for.
    pub fn of(amounts: Amounts) -> Self {
        Self {
            sum: amounts.reserved,
            on_hand: amounts.on_hand,
        }
    }

    /// Whether the next older active line, which has so many units, is at risk.
    pub fn next(&mut self, quantity: i64) -> bool {
        let is_at_risk = self.sum > self.on_hand;
        self.sum = self.sum.saturating_sub(quantity);
        is_at_risk
    }
}

/// What a commit did to the lines of a level: of those that are active after it, the ones that became at risk (`true`) and the
/// ones that are not any more (`false`). What it ended is neither. `lines` are those that were active at some time around the
/// commit, the newest first, and may leave out the oldest: they are taken not to be at risk.
pub fn changed(
    at: Version,
    before: Amounts,
    after: Amounts,
    lines: &[Line],
) -> impl Iterator<Item = (&Line, bool)> {
    let (mut before, mut after) = (Uncovered::of(before), Uncovered::of(after));
    lines.iter().filter_map(move |line| {
        let was = line.is_active_before(at) && before.next(line.quantity);
        let is = line.is_active_after(at) && after.next(line.quantity);
        (was != is && line.is_active_after(at)).then_some((line, is))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn version(number: i64) -> Version {
        Version::new(number).unwrap()
    }

    fn reservation(n: usize) -> ReservationId {
        ReservationId::new(Uuid::from_u128(1 + n as u128)).unwrap()
    }

    fn amounts(on_hand: i64, quantities: &[i64]) -> Amounts {
        Amounts {
            on_hand,
            reserved: quantities.iter().sum(),
        }
    }

    /// The definition, word for word: the places, oldest first, whose running sum exceeds what is on hand.
    fn defined(on_hand: i64, quantities: &[i64]) -> BTreeSet<usize> {
        let sums = quantities.iter().scan(0, |sum, quantity| {
            *sum += quantity;
            Some(*sum)
        });
        let exceeds = sums.enumerate().filter(|(_, sum)| *sum > on_hand);
        exceeds.map(|(place, _)| place).collect()
    }

    fn found(on_hand: i64, quantities: &[i64]) -> BTreeSet<usize> {
        let mut uncovered = Uncovered::of(amounts(on_hand, quantities));
        let newest_first = quantities.iter().enumerate().rev();
        newest_first
            .filter_map(|(place, quantity)| uncovered.next(*quantity).then_some(place))
            .collect()
    }

    /// Lines that come and go: quantity, made at, ended at so much later.
    fn any_lines() -> impl Strategy<Value = Vec<Line>> {
        let line = (1..9_i64, 1..12_i64, prop::option::of(1..12_i64));
        prop::collection::vec(line, 0..12).prop_map(|mut lines| {
            lines.sort_by_key(|(_, made, _)| *made);
            let newest_first = lines.into_iter().enumerate().rev();
            let line = |(place, (quantity, made, lasts)): (usize, (i64, i64, Option<i64>))| Line {
                reservation: reservation(place),
                quantity,
                made: version(made),
                ended: lasts.map(|lasts| version(made + lasts)),
            };
            newest_first.map(line).collect()
        })
    }

    fn at_risk(on_hand: i64, lines: &[Line], at: Version) -> BTreeSet<Uuid> {
        let active = lines.iter().rev().filter(|line| line.is_active_after(at));
        let active: Vec<&Line> = active.collect();
        let quantities: Vec<i64> = active.iter().map(|line| line.quantity).collect();
        let places = defined(on_hand, &quantities).into_iter();
        places
            .map(|place| active[place].reservation.uuid())
            .collect()
    }

    fn state(on_hand: i64, lines: &[Line], at: Version) -> Amounts {
        let active = lines.iter().filter(|line| line.is_active_after(at));
        Amounts {
            on_hand,
            reserved: active.map(|line| line.quantity).sum(),
        }
    }

    proptest! {
        #[test]
        fn from_the_newest_on_it_is_what_the_definition_says(
            on_hand in -20..60_i64, quantities in prop::collection::vec(1..9_i64, 0..12)
        ) {
            prop_assert_eq!(found(on_hand, &quantities), defined(on_hand, &quantities));
        }

        #[test]
        fn what_is_covered_stays_covered(
            on_hand in -20..60_i64, more in 0..9_i64, quantities in prop::collection::vec(1..9_i64, 0..12)
        ) {
            let at_risk = found(on_hand, &quantities);
            let covered: i64 = quantities.iter().enumerate()
                .filter(|(place, _)| !at_risk.contains(place)).map(|(_, quantity)| quantity).sum();
            prop_assert!(covered <= on_hand.max(0), "the first ones, up to what there is");
            prop_assert!(found(on_hand + more, &quantities).is_subset(&at_risk), "more stock puts nobody at risk");
            if let Some((_, older)) = quantities.split_last() {
                let of_older: BTreeSet<usize> = at_risk.into_iter().filter(|place| *place < older.len()).collect();
                prop_assert_eq!(found(on_hand, older), of_older, "nobody is at risk because of a newer one");
            }
        }

        #[test]
        fn a_deficit_covers_nobody(deficit in 0..60_i64, quantities in prop::collection::vec(1..9_i64, 0..12)) {
            prop_assert_eq!(found(-deficit, &quantities).len(), quantities.len());
        }

        #[test]
        fn a_commit_changes_what_differs_between_before_and_after_and_is_still_active(
            on_hand in prop::collection::vec(-5..40_i64, 25), lines in any_lines()
        ) {
            for (at, pair) in (1..24_i64).zip(on_hand.windows(2)) {
                let (earlier, now) = (version(at - 1), version(at));
                let (was, is) = (pair[0], pair[1]);
                let before = at_risk(was, &lines, earlier);
                let after = at_risk(is, &lines, now);
                let told: BTreeSet<(Uuid, bool)> =
                    changed(now, state(was, &lines, earlier), state(is, &lines, now), &lines)
                        .map(|(line, is_at_risk)| (line.reservation.uuid(), is_at_risk)).collect();
                let active: BTreeSet<Uuid> = lines.iter()
                    .filter(|line| line.is_active_after(now)).map(|line| line.reservation.uuid()).collect();
                let became = after.difference(&before).map(|id| (*id, true));
                let healed = before.difference(&after).filter(|id| active.contains(id)).map(|id| (*id, false));
                prop_assert_eq!(told, became.chain(healed).collect());
            }
        }
    }

    #[test]
    fn the_oldest_that_are_left_out_change_nothing_for_the_newest() {
        let quantities = [5, 4, 3, 2];
        let all = found(7, &quantities);
        let mut uncovered = Uncovered::of(amounts(7, &quantities));
        assert!(uncovered.next(2) && uncovered.next(3));
        assert_eq!(all, BTreeSet::from([1, 2, 3]));
    }
}
