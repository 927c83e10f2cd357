//! What stands in one warehouse of one product.

use super::{
    Product, Timestamp, Warehouse,
    change::{Amounts, LevelChange},
};

/// How often a key has changed: one more for each batch that touched it, 0 where nothing ever did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub i64);

impl Revision {
    /// That of a key's first change.
    pub const FIRST: Self = Self(1);
}

/// One stock level. `on_hand` may be negative; what customers are shown never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockLevel {
    pub on_hand: i64,
    pub reserved: i64,
    pub revision: Revision,
    /// `None` where nothing ever changed.
    pub updated_at: Option<Timestamp>,
}

impl StockLevel {
    /// A key that no fact has touched.
    pub const EMPTY: Self = Self {
        on_hand: 0,
        reserved: 0,
        revision: Revision(0),
        updated_at: None,
    };

    pub fn amounts(&self) -> Amounts {
        Amounts {
            on_hand: self.on_hand,
            reserved: self.reserved,
        }
    }

    /// What customers are shown.
    pub fn quantity(&self) -> i64 {
        self.amounts().quantity()
    }

    /// What can still be promised.
    pub fn available(&self) -> i64 {
        self.amounts().available()
    }

    /// The level after the next change of it, in a commit of that `levels_changed_at`; `None` where it is not known from that: the change is
    /// not the next one, or some of it was promised, or a promise ended. Until when the others hold, only the reservations say.
    pub fn followed_by(&self, change: &LevelChange, levels_changed_at: Timestamp) -> Option<Self> {
        let is_next = change.revision.0 == self.revision.0 + 1;
        let is_known = !change.changes_promises || change.after.reserved == 0;
        (is_next && is_known).then(|| Self {
            on_hand: change.after.on_hand,
            // Without what is due, which the ledger still has.
            reserved: self.reserved.min(change.after.reserved),
            revision: change.revision,
            updated_at: self.changed_at(levels_changed_at),
        })
    }

    /// What a level says that is changed at that time: it never goes back.
    pub fn changed_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.updated_at.max(Some(now))
    }
}

/// A level and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedLevel {
    pub warehouse: Warehouse,
    pub level: StockLevel,
}

/// A product and its levels in all warehouses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductStock {
    pub product: Product,
    pub levels: Vec<PlacedLevel>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deficit_is_kept_but_never_shown() {
        let level = StockLevel {
            on_hand: -60,
            reserved: 2,
            ..StockLevel::EMPTY
        };
        assert_eq!((level.quantity(), level.available()), (0, 0));
        let level = StockLevel {
            on_hand: 40,
            reserved: 2,
            ..StockLevel::EMPTY
        };
        assert_eq!((level.quantity(), level.available()), (40, 38));
    }
}
