//! What may be asked of stock: adjustments and reservations, checked where they come in.

use std::sync::Arc;

use super::{
    CommandId, ProductId, Quantity, ReservationId, StockKey, WarehouseId, change::ChangeKind,
    reservation::Step,
};

/// Why somebody adjusts a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdjustmentKind {
    Sale,
    Damage,
    Restock,
    Return,
    Adjustment,
    /// Says how many there are, not how many more or less.
    Count,
}

impl AdjustmentKind {
    pub const ALL: [Self; 6] = [
        Self::Sale,
        Self::Damage,
        Self::Restock,
        Self::Return,
        Self::Adjustment,
        Self::Count,
    ];

    /// The one that clients write so.
    pub fn named(text: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| ChangeKind::from(*kind).as_str() == text)
    }

    /// What its number has to be.
    fn rule(self) -> &'static str {
        match self {
            Self::Sale | Self::Damage => "negative",
            Self::Restock | Self::Return => "positive",
            Self::Adjustment => "other than 0",
            Self::Count => "0 or more",
        }
    }

    fn takes(self, units: i64) -> bool {
        match self {
            Self::Sale | Self::Damage => units < 0,
            Self::Restock | Self::Return => units > 0,
            Self::Adjustment => units != 0,
            Self::Count => units >= 0,
        }
    }
}

impl From<AdjustmentKind> for ChangeKind {
    fn from(kind: AdjustmentKind) -> Self {
        match kind {
            AdjustmentKind::Sale => Self::Sale,
            AdjustmentKind::Damage => Self::Damage,
            AdjustmentKind::Restock => Self::Restock,
            AdjustmentKind::Return => Self::Return,
            AdjustmentKind::Adjustment => Self::Adjustment,
            AdjustmentKind::Count => Self::Count,
        }
    }
}

/// A change that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAChange {
    #[error("the change of a {} must be {}", ChangeKind::from(*.0).as_str(), .0.rule())]
    Sign(AdjustmentKind),
    #[error("a change is of {} units at most", Quantity::MAX)]
    TooLarge,
}

/// Who wants it and why, where it is said. Kept with the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    pub actor: Option<Arc<str>>,
    pub reason: Option<Arc<str>>,
    pub reference: Option<Arc<str>>,
}

impl Note {
    /// Longest reason, and longest reference, in characters.
    pub const REASON_CHARS_MAX: usize = 500;
    pub const REFERENCE_CHARS_MAX: usize = 200;

    pub fn is_empty(&self) -> bool {
        self.actor.is_none() && self.reason.is_none() && self.reference.is_none()
    }
}

/// A change of one level, with a sign that fits its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    pub id: CommandId,
    pub key: StockKey,
    kind: AdjustmentKind,
    units: i64,
    pub note: Note,
}

impl Adjustment {
    /// `units` is the change, or for a count the number there is.
    pub fn new(
        id: CommandId,
        key: StockKey,
        kind: AdjustmentKind,
        units: i64,
        note: Note,
    ) -> Result<Self, NotAChange> {
        if !kind.takes(units) {
            return Err(NotAChange::Sign(kind));
        }
        if units.unsigned_abs() > Quantity::MAX.unsigned_abs() {
            return Err(NotAChange::TooLarge);
        }
        Ok(Self {
            id,
            key,
            kind,
            units,
            note,
        })
    }

    pub fn kind(&self) -> AdjustmentKind {
        self.kind
    }

    /// How it changes a level with so much on hand, in units. Within 64 bits: both numbers are far from their ends.
    pub fn delta(&self, on_hand: i64) -> i64 {
        match self.kind {
            AdjustmentKind::Count => self.units.saturating_sub(on_hand),
            _ => self.units,
        }
    }

    /// Whether a level that is not there yet comes to be by it.
    pub fn makes_level(&self) -> bool {
        self.units > 0 || self.kind == AdjustmentKind::Count
    }
}

/// So many units of a product, from a warehouse or from wherever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub product: ProductId,
    pub warehouse: Option<WarehouseId>,
    /// At least 1.
    pub quantity: Quantity,
}

/// Units to be promised: all items or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    pub id: ReservationId,
    pub items: Vec<Item>,
    /// `None`: it does not expire.
    pub ttl_seconds: Option<i64>,
    pub note: Note,
    /// It is made for an order.
    pub is_order: bool,
}

/// What somebody wants done. Everything in it is done, or nothing, but for a list of adjustments that says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Adjust {
        adjustment: Adjustment,
        /// Only if the level, as clients read it, has one of these tags.
        expected: Option<Vec<String>>,
    },
    AdjustMany {
        adjustments: Vec<Adjustment>,
        /// All or none; else each by itself.
        is_atomic: bool,
    },
    Reserve(Reserve),
    Step {
        reservation: ReservationId,
        step: Step,
        /// What a ledger row is because of that is not the reservation's own.
        id: CommandId,
        note: Note,
    },
    /// Nothing but to expire what is due on these levels.
    Tidy(Vec<StockKey>),
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_change_has_the_sign_of_its_kind() {
        let key = StockKey {
            warehouse: WarehouseId::new(Uuid::from_u128(1)).unwrap(),
            product: ProductId::new(Uuid::from_u128(2)).unwrap(),
        };
        let id = CommandId::new(Uuid::from_u128(3)).unwrap();
        let new = |kind, units| Adjustment::new(id, key, kind, units, Note::default());
        for (kind, good, bad) in [
            (AdjustmentKind::Sale, -1, [0, 1]),
            (AdjustmentKind::Damage, -1, [0, 1]),
            (AdjustmentKind::Restock, 1, [0, -1]),
            (AdjustmentKind::Return, 1, [0, -1]),
            (AdjustmentKind::Adjustment, -1, [0, 0]),
            (AdjustmentKind::Count, 0, [-1, i64::MIN]),
        ] {
            assert!(new(kind, good).is_ok(), "{kind:?}");
            for units in bad {
                assert_eq!(new(kind, units), Err(NotAChange::Sign(kind)));
            }
        }
        let huge = new(AdjustmentKind::Adjustment, i64::MIN);
        assert_eq!(huge, Err(NotAChange::TooLarge));
        let count = new(AdjustmentKind::Count, 7).unwrap();
        assert_eq!(count.delta(-3), 10);
        assert_eq!(AdjustmentKind::named("count"), Some(AdjustmentKind::Count));
        assert_eq!(AdjustmentKind::named("void"), None);
    }
}
