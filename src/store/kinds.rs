//! The ledger's `kind`: why a row is there, as a number.

use crate::domain::{Side, batch::Change, change::ChangeKind};

/// Every kind and its number. A side that is taken back is told by which side it was.
const KINDS: [(i16, ChangeKind); 14] = [
    (1, ChangeKind::Departure),
    (2, ChangeKind::Arrival),
    (3, ChangeKind::Sale),
    (4, ChangeKind::Damage),
    (5, ChangeKind::Restock),
    (6, ChangeKind::Return),
    (7, ChangeKind::Adjustment),
    (8, ChangeKind::Count),
    (9, ChangeKind::Reservation),
    (10, ChangeKind::Release),
    (11, ChangeKind::Confirm),
    (12, ChangeKind::Expiry),
    (13, ChangeKind::Void),
    (14, ChangeKind::Void),
];

/// What lies between a side's kind and that of taking it back.
const VOIDED: i16 = 12;

/// The kind of a row that a reported side made.
pub(super) fn of_side(side: Side) -> i16 {
    match side {
        Side::Departure => 1,
        Side::Arrival => 2,
    }
}

/// The side whose reported rows have that number.
pub(super) fn side(number: i16) -> Option<Side> {
    Side::BOTH.into_iter().find(|side| of_side(*side) == number)
}

/// The kind of a row that a side made, or that takes it back.
pub(super) fn of_change(change: &Change) -> i16 {
    if change.is_taken_back {
        of_void(change.side)
    } else {
        of_side(change.side)
    }
}

/// The kind of a row that takes a side back.
pub(super) fn of_void(side: Side) -> i16 {
    of_side(side) + VOIDED
}

/// The number of a kind; `None` for what is no row of its own, or is told by its side.
pub(super) fn number(kind: ChangeKind) -> Option<i16> {
    let mut kinds = KINDS.into_iter().filter(|(_, of)| *of == kind);
    let (number, _) = kinds.next()?;
    kinds.next().is_none().then_some(number)
}

/// What a number stands for.
pub(super) fn named(number: i16) -> Option<ChangeKind> {
    let mut kinds = KINDS.into_iter();
    kinds.find(|(of, _)| *of == number).map(|(_, kind)| kind)
}

/// Whether the cause of such a row is a movement.
pub(super) fn is_of_movement(number: i16) -> bool {
    matches!(number, 1 | 2 | 13 | 14)
}

/// Whether the cause of such a row is a reservation.
pub(super) fn is_of_reservation(number: i16) -> bool {
    matches!(number, 9..=12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_those_of_sides_is_read_as_it_is_written() {
        for (written, kind) in KINDS {
            assert_eq!(named(written), Some(kind));
            if kind != ChangeKind::Void {
                assert_eq!(number(kind), Some(written));
            }
        }
        assert_eq!(number(ChangeKind::Void), None);
        assert_eq!(number(ChangeKind::Mixed), None);
        assert_eq!(of_void(Side::Arrival), 14);
    }
}
