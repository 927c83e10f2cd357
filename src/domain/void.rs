//! Taking a side of a movement back: what was reported by mistake is undone by an entry of its own, never by a delete.
//!
//! Invariant: what is taken back was there, and stock is left as if it had never been reported, whatever has happened since; so
//! it may leave a level below zero, as the fact could.

use super::{
    Fact, MovementId, MovementLine, ProductId, Side, SideReport,
    batch::{Change, LineId},
};

/// Why somebody does something, in their words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

/// A text that is no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a reason has 1 to {} characters and no control characters",
    Reason::CHARS_MAX
)]
pub struct NotAReason;

impl Reason {
    pub const CHARS_MAX: usize = 500;

    pub fn new(text: &str) -> Result<Self, NotAReason> {
        let is_one = !text.trim().is_empty()
            && text.chars().count() <= Self::CHARS_MAX
            && !text.chars().any(char::is_control);
        is_one.then(|| Self(text.to_owned())).ok_or(NotAReason)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is to be taken back.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub movement: MovementId,
    pub side: Side,
    /// Of that product; `None`: of every line that has the side.
    pub product: Option<ProductId>,
}

/// Why nothing is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No side is known of the movement, or none any more.
    NoMovement,
    /// The movement has no such side.
    NoSide,
}

/// What is taken back, and what that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// Which lines lose their side, in the order of their ids.
    pub lines: Vec<LineId>,
    pub side: Side,
    /// By key.
    pub changes: Vec<Change>,
    /// The lines that still have a side, by product.
    pub left: Vec<MovementLine>,
}

/// Decides over the lines of the movement, in the order of their products.
pub fn take_back(lines: &[MovementLine], wanted: Wanted) -> Result<TakenBack, Refusal> {
    if lines.iter().all(MovementLine::is_empty) {
        return Err(Refusal::NoMovement);
    }
    let reported = |line: &MovementLine| -> Option<SideReport> {
        let is_wanted = wanted.product.is_none_or(|product| product == line.product);
        line.side(wanted.side).filter(|_| is_wanted)
    };
    let mut taken = TakenBack {
        lines: Vec::new(),
        side: wanted.side,
        changes: Vec::new(),
        left: Vec::new(),
    };
    for line in lines {
        let mut left = *line;
        if let Some(report) = reported(line) {
            left.set(wanted.side, None);
            taken.lines.push((wanted.movement, line.product));
            taken.changes.push(Change::taken_back(&Fact {
                movement: wanted.movement,
                product: line.product,
                side: wanted.side,
                report,
                code: None,
            }));
        }
        if !left.is_empty() {
            taken.left.push(left);
        }
    }
    if taken.lines.is_empty() {
        return Err(Refusal::NoSide);
    }
    taken.changes.sort_by_key(|change| change.key);
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Quantity, Timestamp, WarehouseId};

    fn line(product: u128, departed: Option<i64>, arrived: Option<i64>) -> MovementLine {
        let report = |warehouse: u128, units: i64| SideReport {
            warehouse: WarehouseId::new(Uuid::from_u128(warehouse)).unwrap(),
            at: Timestamp::from_micros(7),
            quantity: Quantity::new(units).unwrap(),
        };
        MovementLine {
            product: ProductId::new(Uuid::from_u128(product)).unwrap(),
            departure: departed.map(|units| report(2, units)),
            arrival: arrived.map(|units| report(1, units)),
        }
    }

    fn wanted(side: Side, product: Option<u128>) -> Wanted {
        Wanted {
            movement: MovementId::new(Uuid::from_u128(9)).unwrap(),
            side,
            product: product.and_then(|id| ProductId::new(Uuid::from_u128(id))),
        }
    }

    fn deltas(taken: &TakenBack) -> Vec<i64> {
        let changes = taken.changes.iter();
        changes.map(|change| change.on_hand_delta).collect()
    }

    #[test]
    fn what_departed_is_there_again_and_what_arrived_is_not() {
        let lines = [line(1, Some(5), Some(4)), line(2, Some(7), None)];
        let departures = take_back(&lines, wanted(Side::Departure, None)).unwrap();
        assert_eq!(deltas(&departures), [5, 7]);
        assert_eq!(departures.left, [line(1, None, Some(4))]);
        let arrival = take_back(&lines, wanted(Side::Arrival, None)).unwrap();
        assert_eq!(deltas(&arrival), [-4]);
        assert_eq!(arrival.left, [line(1, Some(5), None), lines[1]]);
        let of_one = take_back(&lines, wanted(Side::Departure, Some(2))).unwrap();
        assert_eq!(deltas(&of_one), [7]);
        assert_eq!(of_one.left, [lines[0]]);
    }

    #[test]
    fn what_is_not_there_cannot_be_taken_back() {
        let lines = [line(1, Some(5), None), line(2, None, None)];
        for (side, product) in [
            (Side::Arrival, None),
            (Side::Departure, Some(2)),
            (Side::Departure, Some(3)),
        ] {
            let taken = take_back(&lines, wanted(side, product));
            assert_eq!(taken, Err(Refusal::NoSide), "{side:?} {product:?}");
        }
        for lines in [&[][..], &lines[1..]] {
            let taken = take_back(lines, wanted(Side::Departure, None));
            assert_eq!(taken, Err(Refusal::NoMovement));
        }
    }

    #[test]
    fn a_reason_is_what_people_can_read() {
        assert_eq!(
            Reason::new("counted twice").unwrap().as_str(),
            "counted twice"
        );
        for text in ["", " ", "a\0b", &"x".repeat(501)] {
            assert_eq!(Reason::new(text), Err(NotAReason), "{text:?}");
        }
    }
}
