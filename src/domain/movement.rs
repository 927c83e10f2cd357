//! Movements: two sides, reported apart, in any order.

use super::{MovementId, ProductId, Quantity, Timestamp, WarehouseCode, WarehouseId};

/// Which end of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Departure,
    Arrival,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Departure, Self::Arrival];

    /// The one that messages and people call so.
    pub fn named(text: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|side| side.as_str() == text)
    }

    /// As messages and people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Departure => "departure",
            Self::Arrival => "arrival",
        }
    }
}

/// A set of sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides(u8);

impl Sides {
    pub const NONE: Self = Self(0);

    /// As the database stores them: 1 the departure, 2 the arrival, 3 both. Other bits say nothing.
    pub fn from_bits(bits: i16) -> Self {
        Self(u8::try_from(bits & 3).unwrap_or(0))
    }

    pub fn has(self, side: Side) -> bool {
        self.0 & Self::bit(side) != 0
    }

    #[must_use]
    pub fn with(self, side: Side) -> Self {
        Self(self.0 | Self::bit(side))
    }

    fn bit(side: Side) -> u8 {
        match side {
            Side::Departure => 1,
            Side::Arrival => 2,
        }
    }
}

/// What is reported of one side. Two reports of a side are the same fact only if all of it is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideReport {
    pub warehouse: WarehouseId,
    pub at: Timestamp,
    pub quantity: Quantity,
}

/// One side of one line of a movement: something that has happened. Its identity is (movement, product, side).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    pub movement: MovementId,
    pub product: ProductId,
    pub side: Side,
    pub report: SideReport,
    /// The code its source gives the warehouse, if any. No part of what happened.
    pub code: Option<WarehouseCode>,
}

impl Fact {
    /// How the fact changes what is on hand, in units.
    pub fn on_hand_delta(&self) -> i64 {
        match self.side {
            Side::Departure => -self.report.quantity.units(),
            Side::Arrival => self.report.quantity.units(),
        }
    }
}

/// Where a movement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Departed, not arrived.
    InTransit,
    /// Arrived, and no departure is known.
    ArrivalOnly,
    /// Less arrived than departed.
    Short,
    /// More arrived than departed.
    Over,
    Complete,
}

impl Status {
    const ALL: [Self; 5] = [
        Self::InTransit,
        Self::ArrivalOnly,
        Self::Short,
        Self::Over,
        Self::Complete,
    ];

    /// As clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InTransit => "in_transit",
            Self::ArrivalOnly => "arrival_only",
            Self::Short => "short",
            Self::Over => "over",
            Self::Complete => "complete",
        }
    }

    /// The one that clients write so.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One product of a movement, with what is known of its two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovementLine {
    pub product: ProductId,
    pub departure: Option<SideReport>,
    pub arrival: Option<SideReport>,
}

impl MovementLine {
    pub fn side(&self, side: Side) -> Option<SideReport> {
        match side {
            Side::Departure => self.departure,
            Side::Arrival => self.arrival,
        }
    }

    pub fn set(&mut self, side: Side, report: Option<SideReport>) {
        match side {
            Side::Departure => self.departure = report,
            Side::Arrival => self.arrival = report,
        }
    }

    /// Whether nothing is known of it any more.
    pub fn is_empty(&self) -> bool {
        self.departure.is_none() && self.arrival.is_none()
    }

    /// Departed minus arrived, in units; a missing side counts 0.
    pub fn quantity_diff(&self) -> i64 {
        let units = |side: Option<SideReport>| side.map_or(0, |s| s.quantity.units());
        units(self.departure) - units(self.arrival)
    }

    /// From departure to arrival, in microseconds: negative if it arrived earlier, 0 while a side is missing.
    pub fn time_diff_us(&self) -> i64 {
        match (self.departure, self.arrival) {
            (Some(from), Some(to)) => to.at.micros() - from.at.micros(),
            _ => 0,
        }
    }

    pub fn status(&self) -> Status {
        match (self.departure, self.arrival) {
            (_, None) => Status::InTransit,
            (None, Some(_)) => Status::ArrivalOnly,
            (Some(_), Some(_)) => match self.quantity_diff() {
                0 => Status::Complete,
                missing if missing > 0 => Status::Short,
                _ => Status::Over,
            },
        }
    }
}

/// A movement as a whole, its lines ordered by product. One without a line is not shown: every side of it was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    pub id: MovementId,
    pub lines: Vec<MovementLine>,
}

impl Movement {
    /// The sum over the lines, in units.
    pub fn quantity_diff(&self) -> i64 {
        self.lines
            .iter()
            .fold(0, |sum, line| sum.saturating_add(line.quantity_diff()))
    }

    /// From the earliest departure to the latest arrival, in microseconds; 0 until every line has both.
    pub fn time_diff_us(&self) -> i64 {
        let spans: Option<Vec<(i64, i64)>> = self
            .lines
            .iter()
            .map(|line| Some((line.departure?.at.micros(), line.arrival?.at.micros())))
            .collect();
        let Some(spans) = spans else { return 0 };
        let first = spans.iter().map(|span| span.0).min().unwrap_or(0);
        let last = spans.iter().map(|span| span.1).max().unwrap_or(0);
        last - first
    }

    /// The first that applies to a line: in transit, arrival only, short, over, complete.
    pub fn status(&self) -> Status {
        Status::ALL
            .into_iter()
            .find(|&status| self.lines.iter().any(|line| line.status() == status))
            .unwrap_or(Status::Complete)
    }

    /// The warehouse on that side, if the lines that have the side agree on one.
    pub fn warehouse(&self, side: Side) -> Option<WarehouseId> {
        let mut warehouses = self
            .lines
            .iter()
            .filter_map(|line| Some(line.side(side)?.warehouse));
        let first = warehouses.next()?;
        warehouses.all(|other| other == first).then_some(first)
    }

    /// The line, if there is only one.
    pub fn only_line(&self) -> Option<&MovementLine> {
        match self.lines.as_slice() {
            [line] => Some(line),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[expect(
        clippy::unnecessary_wraps,
        reason = "it stands where a side may be missing"
    )]
    fn report(warehouse: u128, at_us: i64, units: i64) -> Option<SideReport> {
        Some(SideReport {
            warehouse: WarehouseId::new(Uuid::from_u128(warehouse)).unwrap(),
            at: Timestamp::from_micros(at_us),
            quantity: Quantity::new(units).unwrap(),
        })
    }

    fn line(
        product: u128,
        departure: Option<SideReport>,
        arrival: Option<SideReport>,
    ) -> MovementLine {
        MovementLine {
            product: ProductId::new(Uuid::from_u128(product)).unwrap(),
            departure,
            arrival,
        }
    }

    fn movement(lines: Vec<MovementLine>) -> Movement {
        Movement {
            id: MovementId::new(Uuid::from_u128(1)).unwrap(),
            lines,
        }
    }

    #[test]
    fn a_line_tells_its_differences() {
        let open = line(1, report(1, 1_000, 100), None);
        assert_eq!(
            (open.quantity_diff(), open.time_diff_us(), open.status()),
            (100, 0, Status::InTransit)
        );
        let early = line(1, report(1, 1_000, 100), report(2, 400, 100));
        assert_eq!(
            (early.quantity_diff(), early.time_diff_us(), early.status()),
            (0, -600, Status::Complete)
        );
        let orphan = line(1, None, report(2, 400, 7));
        assert_eq!(
            (orphan.quantity_diff(), orphan.status()),
            (-7, Status::ArrivalOnly)
        );
        assert_eq!(
            line(1, report(1, 0, 5), report(2, 0, 4)).status(),
            Status::Short
        );
        assert_eq!(
            line(1, report(1, 0, 5), report(2, 0, 6)).status(),
            Status::Over
        );
    }

    #[test]
    fn several_lines_are_told_as_one() {
        let both = movement(vec![
            line(1, report(1, 100, 5), report(2, 900, 5)),
            line(2, report(1, 50, 5), report(3, 500, 4)),
        ]);
        assert_eq!(
            (both.quantity_diff(), both.time_diff_us(), both.status()),
            (1, 850, Status::Short)
        );
        assert_eq!(
            both.warehouse(Side::Departure),
            Some(both.lines[0].departure.unwrap().warehouse)
        );
        assert_eq!(both.warehouse(Side::Arrival), None, "the lines differ");

        let open = movement(vec![both.lines[0], line(2, report(1, 50, 5), None)]);
        assert_eq!((open.time_diff_us(), open.status()), (0, Status::InTransit));
        assert_eq!(
            open.warehouse(Side::Arrival),
            Some(both.lines[0].arrival.unwrap().warehouse)
        );
    }
}
