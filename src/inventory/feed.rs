//! What the follower tells of the commits it sees, in their order, to whoever shows them.

use std::{fmt::Debug, sync::Arc};

use crate::domain::{
    CommitPoint, Product, StockKey, Timestamp, Warehouse,
    change::{Amounts, LevelChange},
};

/// A commit with everything it did, in the words of the catalogue as this commit left it.
#[derive(Clone, Debug)]
pub struct Followed {
    pub point: CommitPoint,
    pub committed_at: Timestamp,
    /// By key, each once.
    pub levels: Vec<FollowedLevel>,
    pub crossings: Vec<Crossing>,
    /// Whether it changed the catalogue: what was said in older words may be wrong now.
    pub changed_catalogue: bool,
}

impl Followed {
    /// How many things there are to tell.
    pub fn len(&self) -> usize {
        self.levels.len() + self.crossings.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a commit did to one level.
#[derive(Clone, Debug)]
pub struct FollowedLevel {
    pub change: LevelChange,
    pub names: Names,
    /// Whether the level was low before, and after.
    pub was_low: bool,
    pub is_low: bool,
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
