//! The catalogue as of the follower's position: what is said of a commit is said in the words of that commit.

use std::{collections::HashMap, sync::Arc};

use super::feed::{Crossing, Followed, FollowedLevel, Names};
use crate::{
    domain::{
        Product, ProductId, Revision, StockKey, Warehouse, WarehouseId,
        change::{self, LedgerRow},
    },
    store::{catalogue::CatalogueChange, commits::Commit},
};

/// Everything of which more is known than its id.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    products: HashMap<ProductId, Arc<Product>>,
    warehouses: HashMap<WarehouseId, Arc<Warehouse>>,
}

impl Catalogue {
    pub(super) fn new(products: Vec<Product>, warehouses: Vec<Warehouse>) -> Self {
        let products = products
            .into_iter()
            .map(|product| (product.id, Arc::new(product)));
        let warehouses = warehouses
            .into_iter()
            .map(|warehouse| (warehouse.id, Arc::new(warehouse)));
        Self {
            products: products.collect(),
            warehouses: warehouses.collect(),
        }
    }

    pub(super) fn apply(&mut self, change: CatalogueChange) {
        match change {
            CatalogueChange::Product(product) => {
                self.products.insert(product.id, Arc::new(product));
            }
            CatalogueChange::Warehouse(warehouse) => {
                self.warehouses.insert(warehouse.id, Arc::new(warehouse));
            }
        }
    }

    /// What a commit did, told in these words. `rows` is ordered by key.
    pub(super) fn told(
        &self,
        commit: &Commit,
        changed_catalogue: bool,
        rows: impl IntoIterator<Item = LedgerRow>,
    ) -> Followed {
        let levels: Vec<FollowedLevel> = change::fold(rows)
            .into_iter()
            .map(|change| {
                let names = self.names(change.key);
                let is_low = |units| {
                    names
                        .product
                        .as_ref()
                        .is_some_and(|product| product.is_low(units))
                };
                FollowedLevel {
                    // What was not there before was not low.
                    was_low: change.revision > Revision::FIRST && is_low(change.before.quantity()),
                    is_low: is_low(change.after.quantity()),
                    change,
                    names,
                }
            })
            .collect();
        let crossed = levels.iter().filter(|level| level.was_low != level.is_low);
        let crossings = crossed.map(|level| Crossing {
            key: level.change.key,
            is_low: level.is_low,
            amounts: level.change.after,
            names: level.names.clone(),
        });
        Followed {
            point: commit.point,
            committed_at: commit.committed_at,
            crossings: crossings.collect(),
            levels,
            changed_catalogue,
        }
    }

    fn names(&self, key: StockKey) -> Names {
        Names {
            product: self.products.get(&key.product).cloned(),
            warehouse: self.warehouses.get(&key.warehouse).cloned(),
        }
    }
}
