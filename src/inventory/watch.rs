//! What the follower knows as of its position besides the position itself: the catalogue, and what is available of the products
//! that somebody wants to reorder. So each commit is told in its own words, with the thresholds it crossed.
//!
//! Invariant: a crossing is a change of "is at or below" between two successive states, whether the stock moved or the threshold.
//! Likewise a reservation becomes at risk, or heals, by what is so of it right before a commit and right after. Nothing else is
//! remembered of alerts, so every process tells the same ones, and tells them again after a restart.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    iter,
    sync::Arc,
};

use super::feed::{Crossing, Followed, FollowedLevel, Names, Reorder, Risk};
use crate::{
    domain::{
        InventoryId, Product, ProductId, Revision, StockKey, Version, Warehouse, WarehouseId,
        change::{self, ChangeKind, LevelChange},
        risk::{self, Line},
    },
    store::{
        catalogue::CatalogueChange,
        commits::Commit,
        feed::{Beginning, Did, LevelAt},
    },
};

/// The catalogue and the totals as of the last commit that was told.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    products: HashMap<ProductId, Arc<Product>>,
    warehouses: HashMap<WarehouseId, Arc<Warehouse>>,
    /// Units available in all warehouses, of products with a reorder point.
    available: HashMap<ProductId, i64>,
}

/// What one commit did.
struct InCommit<'d> {
    /// By key.
    changes: Vec<LevelChange>,
    catalogue: Vec<CatalogueChange>,
    /// Levels, as the commit left them, of the products it changed in the catalogue.
    levels: &'d [LevelAt],
    /// The reservations of levels of which more is promised than there is.
    lines: &'d HashMap<InventoryId, Vec<Line>>,
}

impl Watch {
    /// What was known at the base of that beginning: before the history that is told with it.
    pub(super) fn at_base(beginning: &Beginning) -> Self {
        let products = beginning.products.iter().cloned();
        let warehouses = beginning.warehouses.iter().cloned();
        let mut watch = Self {
            products: products.map(|p| (p.id, Arc::new(p))).collect(),
            warehouses: warehouses.map(|w| (w.id, Arc::new(w))).collect(),
            available: beginning.available.iter().copied().collect(),
        };
        for (_, change) in &beginning.did.catalogue {
            watch.forget(change);
        }
        for change in &beginning.words {
            watch.learn(change);
        }
        for of_commit in beginning.did.rows.chunk_by(|a, b| a.version == b.version) {
            for change in change::fold(of_commit.iter().map(|row| row.row)) {
                if let Some(total) = watch.available.get_mut(&change.key.product) {
                    *total -= change.available_delta();
                }
            }
        }
        watch
    }

    /// Tells these commits, which come right after the last one.
    pub fn tell(&mut self, commits: &[Commit], did: Did) -> Vec<Followed> {
        let mut rows = did.rows.into_iter().peekable();
        let mut changes = did.catalogue.into_iter().peekable();
        let tell = |commit: &Commit| {
            let version = commit.point.version;
            let rows = iter::from_fn(|| rows.next_if(|row| row.version <= version));
            let in_commit = InCommit {
                changes: change::fold(rows.map(|row| row.row)),
                catalogue: iter::from_fn(|| changes.next_if(|(at, _)| *at <= version))
                    .map(|(_, change)| change)
                    .collect(),
                levels: did.levels.get(&version).map_or(&[], Vec::as_slice),
                lines: &did.lines,
            };
            self.tell_one(commit, in_commit)
        };
        commits.iter().map(tell).collect()
    }

    fn tell_one(&mut self, commit: &Commit, did: InCommit<'_>) -> Followed {
        // As it was before: what is crossed is seen by comparing with it.
        let before: HashMap<ProductId, Option<Arc<Product>>> = did
            .catalogue
            .iter()
            .filter_map(CatalogueChange::product)
            .map(|product| (product.id, self.products.get(&product.id).cloned()))
            .collect();
        let mut needed: BTreeMap<ProductId, bool> = before
            .keys()
            .map(|&product| (product, self.is_to_be_reordered(product)))
            .collect();
        for change in &did.changes {
            let product = change.key.product;
            if self.available.contains_key(&product) {
                let is_needed = self.is_to_be_reordered(product);
                needed.entry(product).or_insert(is_needed);
            }
            if let Some(total) = self.available.get_mut(&product) {
                *total += change.available_delta();
            }
        }
        for change in &did.catalogue {
            self.learn(change);
        }
        for &product in before.keys() {
            self.count(product, did.levels);
        }
        let risks = self.risks(commit.point.version, &did);
        let archived = did.catalogue.iter().filter_map(|change| match change {
            CatalogueChange::Archived(product) => Some(product.id),
            CatalogueChange::Product(_) | CatalogueChange::Warehouse(_) => None,
        });
        let archived = archived.collect();
        let levels = self.levels(&before, &archived, did.changes, did.levels);
        let crossed = levels.iter().filter(|level| level.was_low != level.is_low);
        let crossings = crossed.map(Crossing::of).collect();
        let reorders = needed
            .into_iter()
            .filter_map(|(product, was_needed)| self.crossed(product, was_needed, did.levels));
        Followed {
            point: commit.point,
            committed_at: commit.committed_at,
            levels_changed_at: commit.levels_changed_at,
            trace: commit.trace,
            crossings,
            reorders: reorders.collect(),
            risks,
            catalogue: did.catalogue,
            levels,
        }
    }

    /// The levels that changed, and those that only became low or not low because the minimum changed, or whose product was
    /// archived; by key.
    fn levels(
        &self,
        before: &HashMap<ProductId, Option<Arc<Product>>>,
        archived: &HashSet<ProductId>,
        changes: Vec<LevelChange>,
        standing: &[LevelAt],
    ) -> Vec<FollowedLevel> {
        let tell = |change: LevelChange, by_minimum: bool| {
            let names = self.names(change.key);
            let is_low = |product: Option<&Arc<Product>>, units| {
                product.is_some_and(|product| product.is_low(units))
            };
            let known = names.product.as_ref();
            let old = match before.get(&change.key.product) {
                Some(old) => old.as_ref(),
                None => known,
            };
            // What was not there before was not low.
            let was_there = by_minimum || change.revision > Revision::FIRST;
            FollowedLevel {
                was_low: was_there && is_low(old, change.before.quantity()),
                is_low: is_low(known, change.after.quantity()),
                by_minimum,
                is_archived: archived.contains(&change.key.product),
                change,
                names,
            }
        };
        let is_there = |level: &&LevelAt| {
            let found = changes.binary_search_by_key(&level.key, |change| change.key);
            found.is_err()
        };
        let by_minimum = standing.iter().filter(is_there).map(|level| {
            let change = LevelChange {
                key: level.key,
                inventory_id: level.inventory_id,
                kind: ChangeKind::Mixed,
                before: level.amounts,
                after: level.amounts,
                revision: level.revision,
                changes_promises: false,
            };
            tell(change, true)
        });
        let mut levels: Vec<FollowedLevel> = by_minimum
            .filter(|level| level.was_low != level.is_low || level.is_archived)
            .collect();
        let has_more = !levels.is_empty();
        levels.extend(changes.into_iter().map(|change| tell(change, false)));
        if has_more {
            levels.sort_unstable_by_key(|level| level.change.key);
        }
        levels
    }

    /// The reservations that became at risk, and those that healed.
    fn risks(&self, at: Version, did: &InCommit<'_>) -> Vec<Risk> {
        let over_committed = did
            .changes
            .iter()
            .filter(|change| change.is_over_committed());
        let of_level = |change: &LevelChange| {
            let lines = did.lines.get(&change.inventory_id);
            let changed = risk::changed(
                at,
                change.before,
                change.after,
                lines.map_or(&[], Vec::as_slice),
            );
            let told = changed.map(|(line, is_at_risk)| Risk {
                reservation: line.reservation,
                key: change.key,
                quantity: line.quantity,
                is_at_risk,
                names: self.names(change.key),
            });
            told.collect::<Vec<_>>()
        };
        over_committed.flat_map(of_level).collect()
    }

    fn learn(&mut self, change: &CatalogueChange) {
        match change {
            CatalogueChange::Product(product) | CatalogueChange::Archived(product) => {
                self.products.insert(product.id, Arc::new(product.clone()));
            }
            CatalogueChange::Warehouse(warehouse) => {
                let known = Arc::new(warehouse.clone());
                self.warehouses.insert(warehouse.id, known);
            }
        }
    }

    fn forget(&mut self, change: &CatalogueChange) {
        match change {
            CatalogueChange::Product(product) | CatalogueChange::Archived(product) => {
                drop(self.products.remove(&product.id));
            }
            CatalogueChange::Warehouse(warehouse) => drop(self.warehouses.remove(&warehouse.id)),
        }
    }

    /// Begins or ends to keep the total of a product whose entry changed.
    fn count(&mut self, product: ProductId, levels: &[LevelAt]) {
        let known = self.products.get(&product);
        if known.is_some_and(|known| known.reorder_point.is_some()) {
            self.available.insert(product, available(product, levels));
        } else {
            self.available.remove(&product);
        }
    }

    fn is_to_be_reordered(&self, product: ProductId) -> bool {
        let known = self
            .products
            .get(&product)
            .zip(self.available.get(&product));
        known.is_some_and(|(product, available)| product.is_to_be_reordered(*available))
    }

    fn crossed(&self, product: ProductId, was_needed: bool, levels: &[LevelAt]) -> Option<Reorder> {
        let is_needed = self.is_to_be_reordered(product);
        (is_needed != was_needed).then(|| Reorder {
            product,
            is_needed,
            // One that has no reorder point any more is not counted any more.
            available: match self.available.get(&product) {
                Some(total) => *total,
                None => available(product, levels),
            },
            known: self.products.get(&product).cloned(),
        })
    }

    fn names(&self, key: StockKey) -> Names {
        Names {
            product: self.products.get(&key.product).cloned(),
            warehouse: self.warehouses.get(&key.warehouse).cloned(),
        }
    }
}

/// Units available in all warehouses.
fn available(product: ProductId, levels: &[LevelAt]) -> i64 {
    let of_product = levels.iter().filter(|level| level.key.product == product);
    of_product.map(|level| level.amounts.available()).sum()
}
