//! What a client wants to hear of.

use std::collections::BTreeSet;

use crate::{
    domain::{ProductId, StockKey, WarehouseId, change::ChangeKind},
    store::catalogue::CatalogueChange,
};

use super::ring::{Item, What};

/// Empty lists stand for everything. The lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    warehouses: Vec<WarehouseId>,
    products: Vec<ProductId>,
    /// Of updates, only these.
    kinds: Vec<ChangeKind>,
    /// Only levels at or below their minimum.
    below_min: bool,
    /// Nothing of other warehouses may be told, not even what a product has in all.
    is_confined: bool,
}

impl Filter {
    /// Most values of one list.
    pub const VALUES_MAX: usize = 32;

    pub fn new(
        mut warehouses: Vec<WarehouseId>,
        mut products: Vec<ProductId>,
        mut kinds: Vec<ChangeKind>,
        below_min: bool,
    ) -> Self {
        warehouses.sort_unstable();
        warehouses.dedup();
        products.sort_unstable();
        products.dedup();
        kinds.sort_unstable();
        kinds.dedup();
        Self {
            warehouses,
            products,
            kinds,
            below_min,
            is_confined: false,
        }
    }

    /// The same for somebody who may know of no warehouses but these: all of them where none is named, and `None` where another is.
    pub fn confined_to(mut self, theirs: &BTreeSet<WarehouseId>) -> Option<Self> {
        if self.warehouses.is_empty() {
            self.warehouses.extend(theirs);
        }
        self.is_confined = true;
        // An empty list would stand for everything.
        let is_theirs = !self.warehouses.is_empty()
            && self
                .warehouses
                .iter()
                .all(|warehouse| theirs.contains(warehouse));
        is_theirs.then_some(self)
    }

    /// Whether what stands in this warehouse may be told, in a sum or by itself.
    pub fn may_tell_of(&self, warehouse: WarehouseId) -> bool {
        !self.is_confined || self.warehouses.binary_search(&warehouse).is_ok()
    }

    pub fn warehouses(&self) -> &[WarehouseId] {
        &self.warehouses
    }

    pub fn products(&self) -> &[ProductId] {
        &self.products
    }

    pub fn is_confined(&self) -> bool {
        self.is_confined
    }

    pub fn is_below_min(&self) -> bool {
        self.below_min
    }

    /// Whether every level that is looked at passes, at every time, whatever changed it.
    pub fn is_by_key(&self) -> bool {
        self.kinds.is_empty() && !self.below_min
    }

    /// Whether what a client is told depends on nothing but where it stands.
    pub fn is_without_memory(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether the key is looked at at all.
    pub fn has_key(&self, key: StockKey) -> bool {
        has(&self.warehouses, &key.warehouse) && has(&self.products, &key.product)
    }

    /// Whether what stands of the product in all warehouses is looked at: who looks at one warehouse hears of it only by naming
    /// the product.
    pub fn has_total(&self, product: ProductId) -> bool {
        !self.is_confined
            && has(&self.products, &product)
            && (self.warehouses.is_empty() || !self.products.is_empty())
    }

    fn has_kind(&self, kind: ChangeKind) -> bool {
        has(&self.kinds, &kind)
    }

    /// Whether a change of a level is of a kind that is told: one for this reason, or, without a reason, one of its minimum
    /// alone.
    pub fn has_change(&self, kind: Option<ChangeKind>) -> bool {
        match kind {
            Some(kind) => self.has_kind(kind),
            None => self.below_min && self.kinds.is_empty(),
        }
    }

    /// Whether something about the item may be for this client.
    pub fn looks_at(&self, item: &Item) -> bool {
        match &item.what {
            What::Level(level) => self.has_key(level.change.key),
            What::Low(crossing) => self.has_key(crossing.key),
            What::Risk(risk) => self.has_key(risk.key),
            What::Reorder(reorder) => self.has_total(reorder.product),
            What::Words(CatalogueChange::Product(product) | CatalogueChange::Archived(product)) => {
                has(&self.products, &product.id)
            }
            What::Words(CatalogueChange::Warehouse(place)) => has(&self.warehouses, &place.id),
        }
    }
}

fn has<T: Ord>(list: &[T], value: &T) -> bool {
    list.is_empty() || list.binary_search(value).is_ok()
}
