//! What one commit did to one level, whatever number of ledger rows it took.

use std::str::FromStr;

use super::{InventoryId, Revision, Side, StockKey};

/// Why a level changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    Departure,
    Arrival,
    Sale,
    Damage,
    Restock,
    Return,
    Adjustment,
    Count,
    Reservation,
    Release,
    Confirm,
    Expiry,
    Void,
    /// Several changes of different kinds, told as one.
    Mixed,
}

impl ChangeKind {
    const ALL: [Self; 14] = [
        Self::Departure,
        Self::Arrival,
        Self::Sale,
        Self::Damage,
        Self::Restock,
        Self::Return,
        Self::Adjustment,
        Self::Count,
        Self::Reservation,
        Self::Release,
        Self::Confirm,
        Self::Expiry,
        Self::Void,
        Self::Mixed,
    ];

    /// As clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Departure => "departure",
            Self::Arrival => "arrival",
            Self::Sale => "sale",
            Self::Damage => "damage",
            Self::Restock => "restock",
            Self::Return => "return",
            Self::Adjustment => "adjustment",
            Self::Count => "count",
            Self::Reservation => "reservation",
            Self::Release => "release",
            Self::Confirm => "confirm",
            Self::Expiry => "expiry",
            Self::Void => "void",
            Self::Mixed => "mixed",
        }
    }

    /// The kind of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Mixed }
    }
}

impl From<Side> for ChangeKind {
    fn from(side: Side) -> Self {
        match side {
            Side::Departure => Self::Departure,
            Side::Arrival => Self::Arrival,
        }
    }
}

/// A text that names no kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such kind of change")]
pub struct NotAKind;

impl FromStr for ChangeKind {
    type Err = NotAKind;

    fn from_str(text: &str) -> Result<Self, NotAKind> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.as_str() == text).ok_or(NotAKind)
    }
}

/// What stands of a key and what of it is promised, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// May be negative.
    pub on_hand: i64,
    pub reserved: i64,
}

impl Amounts {
    /// What customers are shown.
    pub fn quantity(self) -> i64 {
        self.on_hand.max(0)
    }

    /// What can still be promised.
    pub fn available(self) -> i64 {
        self.on_hand.saturating_sub(self.reserved).max(0)
    }

    /// With so much more of both.
    #[must_use]
    pub fn plus(self, delta: Self) -> Self {
        Self {
            on_hand: self.on_hand.saturating_add(delta.on_hand),
            reserved: self.reserved.saturating_add(delta.reserved),
        }
    }

    /// Whether more is promised than there is: then some of the reservations are at risk.
    pub fn is_over_committed(self) -> bool {
        self.reserved > 0 && self.reserved > self.on_hand
    }
}

/// One row of the ledger: what it added, and the level after its whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub key: StockKey,
    pub inventory_id: InventoryId,
    pub kind: ChangeKind,
    pub delta: Amounts,
    pub after: Amounts,
    pub revision: Revision,
}

/// What a commit did to a level: its state before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelChange {
    pub key: StockKey,
    pub inventory_id: InventoryId,
    pub kind: ChangeKind,
    pub before: Amounts,
    pub after: Amounts,
    pub revision: Revision,
    /// Whether something of it was promised or a promise ended, also where both come to the same sum.
    pub changes_promises: bool,
}

impl LevelChange {
    /// How many units more can be promised than before.
    pub fn available_delta(&self) -> i64 {
        self.after.available() - self.before.available()
    }

    /// Whether more was promised than there was, before it or after.
    pub fn is_over_committed(&self) -> bool {
        self.before.is_over_committed() || self.after.is_over_committed()
    }
}

/// The rows of one commit, ordered by key, as one change for each key.
pub fn fold(rows: impl IntoIterator<Item = LedgerRow>) -> Vec<LevelChange> {
    let mut changes: Vec<LevelChange> = Vec::new();
    for row in rows {
        let before = |after: Amounts| Amounts {
            on_hand: after.on_hand.saturating_sub(row.delta.on_hand),
            reserved: after.reserved.saturating_sub(row.delta.reserved),
        };
        match changes.last_mut().filter(|change| change.key == row.key) {
            Some(change) => {
                change.kind = change.kind.and(row.kind);
                change.before = before(change.before);
                change.changes_promises |= row.delta.reserved != 0;
            }
            None => changes.push(LevelChange {
                key: row.key,
                inventory_id: row.inventory_id,
                kind: row.kind,
                before: before(row.after),
                after: row.after,
                revision: row.revision,
                changes_promises: row.delta.reserved != 0,
            }),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{ProductId, WarehouseId};

    fn key(product: u128) -> StockKey {
        StockKey {
            warehouse: WarehouseId::new(Uuid::from_u128(1)).unwrap(),
            product: ProductId::new(Uuid::from_u128(product)).unwrap(),
        }
    }

    fn row(product: u128, kind: ChangeKind, delta: i64, after: i64) -> LedgerRow {
        LedgerRow {
            key: key(product),
            inventory_id: InventoryId(1),
            kind,
            delta: Amounts {
                on_hand: delta,
                reserved: 0,
            },
            after: Amounts {
                on_hand: after,
                reserved: 2,
            },
            revision: Revision(7),
        }
    }

    #[test]
    fn rows_of_a_key_are_one_change_from_its_state_before_to_its_state_after() {
        let changes = fold([
            row(1, ChangeKind::Arrival, 5, 12),
            row(1, ChangeKind::Arrival, 4, 12),
            row(2, ChangeKind::Arrival, 5, 1),
            row(2, ChangeKind::Departure, -9, 1),
        ]);
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.kind, c.before.on_hand, c.after.on_hand, c.before.reserved))
            .collect();
        assert_eq!(
            told,
            [
                (ChangeKind::Arrival, 3, 12, 2),
                (ChangeKind::Mixed, 5, 1, 2)
            ]
        );
    }

    #[test]
    fn promises_that_come_to_the_same_sum_are_changes_of_promises() {
        let promised = |reserved: i64| {
            let mut row = row(1, ChangeKind::Reservation, 0, 12);
            row.delta.reserved = reserved;
            row
        };
        let changes = fold([promised(2), promised(-2), row(2, ChangeKind::Arrival, 5, 1)]);
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.before == c.after, c.changes_promises))
            .collect();
        assert_eq!(told, [(true, true), (false, false)]);
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        for kind in ChangeKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("Sale".parse::<ChangeKind>(), Err(NotAKind));
    }
}
