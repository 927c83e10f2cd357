//! What the follower tells of the commits it sees, in their order, to whoever shows them.

use std::{fmt::Debug, sync::Arc};

use crate::{
    domain::{
        CommitPoint, Product, ProductId, ReservationId, StockKey, Timestamp, TraceParent,
        Warehouse,
        change::{Amounts, ChangeKind, LevelChange},
    },
    store::catalogue::CatalogueChange,
};

/// A commit with everything it did, in the words of the catalogue as this commit left it.
#[derive(Clone, Debug)]
pub struct Followed {
    pub point: CommitPoint,
    pub committed_at: Timestamp,
    /// As in [`Commit`](crate::store::commits::Commit).
    pub levels_changed_at: Option<Timestamp>,
    /// What those who are told of it go on with, if it is recorded.
    pub trace: Option<TraceParent>,
    /// By key, each once.
    pub levels: Vec<FollowedLevel>,
    pub crossings: Vec<Crossing>,
    pub reorders: Vec<Reorder>,
    /// By key, the newest reservation first.
    pub risks: Vec<Risk>,
    /// What it changed in the catalogue: what was said in older words may be wrong now.
    pub catalogue: Vec<CatalogueChange>,
}

impl Followed {
    /// How many things there are to tell.
    pub fn len(&self) -> usize {
        self.levels.len()
            + self.crossings.len()
            + self.reorders.len()
            + self.risks.len()
            + self.catalogue.len()
    }

    /// The names of the alerts and recoveries it brought about.
    pub fn alerts(&self) -> impl Iterator<Item = &'static str> {
        let low = self.crossings.iter().map(Crossing::name);
        low.chain(self.reorders.iter().map(Reorder::name))
            .chain(self.risks.iter().map(Risk::name))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a commit did to one level.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something of its own"
)]
pub struct FollowedLevel {
    pub change: LevelChange,
    pub names: Names,
    /// Whether the level was low before, and after.
    pub was_low: bool,
    pub is_low: bool,
    /// Not the level changed but its product's minimum, or whether it is in the lists.
    pub by_minimum: bool,
    /// Its product was archived by this commit.
    pub is_archived: bool,
}

impl FollowedLevel {
    /// Why the stock changed, if it did.
    pub fn kind(&self) -> Option<ChangeKind> {
        (!self.by_minimum).then_some(self.change.kind)
    }
}

/// What the catalogue says of a key; `None` where it says nothing.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub product: Option<Arc<Product>>,
    pub warehouse: Option<Arc<Warehouse>>,
}

/// A level that became low, or is not low any more.
#[derive(Clone, Debug)]
pub struct Crossing {
    pub key: StockKey,
    pub is_low: bool,
    pub amounts: Amounts,
    pub names: Names,
}

impl Crossing {
    /// As clients read it.
    pub fn name(&self) -> &'static str {
        if self.is_low {
            "low_stock_alert"
        } else {
            "stock_recovered"
        }
    }

    pub(super) fn of(level: &FollowedLevel) -> Self {
        Self {
            key: level.change.key,
            is_low: level.is_low,
            amounts: level.change.after,
            names: level.names.clone(),
        }
    }
}

/// A product that is to be reordered, or is not any more.
#[derive(Clone, Debug)]
pub struct Reorder {
    pub product: ProductId,
    pub is_needed: bool,
    /// Units, in all warehouses.
    pub available: i64,
    /// `None` where the catalogue says nothing.
    pub known: Option<Arc<Product>>,
}

impl Reorder {
    /// As clients read it.
    pub fn name(&self) -> &'static str {
        if self.is_needed {
            "reorder_needed"
        } else {
            "reorder_recovered"
        }
    }
}

/// What a reservation holds of a level, when what is on hand does not cover it any more, or does again.
#[derive(Clone, Debug)]
pub struct Risk {
    pub reservation: ReservationId,
    pub key: StockKey,
    /// Units that it holds of this level.
    pub quantity: i64,
    pub is_at_risk: bool,
    pub names: Names,
}

impl Risk {
    /// As clients read it.
    pub fn name(&self) -> &'static str {
        if self.is_at_risk {
            "reservation_at_risk"
        } else {
            "reservation_healed"
        }
    }
}

/// Who is told. Called in the order of commits, and never at the same time.
pub trait Audience: Debug + Send + Sync {
    /// Following begins, or begins anew, after this commit, with these right after it. What was told before may not have
    /// happened.
    fn begin(&self, base: CommitPoint, history: Vec<Followed>);

    /// The commit right after the last one.
    fn follow(&self, commit: Followed);
}

/// Nobody is there.
#[derive(Debug)]
pub struct Nobody;

impl Audience for Nobody {
    fn begin(&self, _: CommitPoint, _: Vec<Followed>) {}

    fn follow(&self, _: Followed) {}
}
