//! A product with what stands of it where: the document of the inventory API, and an entry of a snapshot.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter::Filter;
use crate::domain::{
    Product, StockKey, Timestamp,
    catalogue::{Name, Threshold},
    stock::{PlacedLevel, ProductStock},
};

/// A product and its stock. Totals run over all warehouses that the reader may know of.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProductDocument {
    /// The sku where there is one, else the UUID.
    #[schema(example = "W-1")]
    product_id: String,
    name: Option<String>,
    /// What customers are shown, in all warehouses.
    #[schema(minimum = 0)]
    total_stock: i64,
    #[schema(minimum = 0)]
    reserved_stock: i64,
    /// What can still be promised, in all warehouses.
    #[schema(minimum = 0)]
    available_stock: i64,
    /// What customers are shown, by warehouse: its code where there is one, else its UUID.
    warehouses: BTreeMap<String, i64>,
    /// `null` where nothing ever changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_updated: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
    /// What is available in all warehouses is at or below the reorder point.
    pub(super) reorder_needed: bool,
    pub(super) levels: Vec<LevelDocument>,
}

/// What stands in one warehouse.
#[derive(Debug, Serialize, ToSchema)]
pub struct LevelDocument {
    warehouse_id: Uuid,
    /// The code where there is one, else the UUID.
    warehouse: String,
    /// The stored number, deficits included.
    on_hand: i64,
    #[schema(minimum = 0)]
    quantity: i64,
    #[schema(minimum = 0)]
    reserved: i64,
    #[schema(minimum = 0)]
    available: i64,
    /// At or below the product's minimum.
    low: bool,
    revision: i64,
}

impl ProductDocument {
    /// The product with the levels that the filter looks at.
    pub fn new(stock: &ProductStock, filter: &Filter) -> Self {
        let product = &stock.product;
        let levels = stock.levels.iter();
        let levels = levels.filter(|placed| filter.may_tell_of(placed.warehouse.id));
        let is_shown = |placed: &&PlacedLevel| {
            let key = StockKey {
                warehouse: placed.warehouse.id,
                product: product.id,
            };
            filter.has_key(key)
                && (!filter.is_below_min() || product.is_low(placed.level.quantity()))
        };
        let available_stock = levels.clone().map(|placed| placed.level.available()).sum();
        Self {
            product_id: product.label(),
            name: product.name.as_ref().map(Name::to_string),
            total_stock: levels.clone().map(|placed| placed.level.quantity()).sum(),
            reserved_stock: levels.clone().map(|placed| placed.level.reserved).sum(),
            available_stock,
            warehouses: levels
                .clone()
                .map(|placed| (placed.warehouse.label(), placed.level.quantity()))
                .collect(),
            last_updated: levels
                .clone()
                .filter_map(|placed| placed.level.updated_at)
                .max()
                .as_ref()
                .map(Timestamp::to_string),
            min_stock: product.min_stock.map(Threshold::units),
            reorder_point: product.reorder_point.map(Threshold::units),
            // Of some warehouses nobody can say.
            reorder_needed: !filter.is_confined() && product.is_to_be_reordered(available_stock),
            levels: levels
                .filter(is_shown)
                .map(|placed| LevelDocument::new(placed, product))
                .collect(),
        }
    }
}

impl LevelDocument {
    fn new(placed: &PlacedLevel, product: &Product) -> Self {
        let level = &placed.level;
        Self {
            warehouse_id: placed.warehouse.id.uuid(),
            warehouse: placed.warehouse.label(),
            on_hand: level.on_hand,
            quantity: level.quantity(),
            reserved: level.reserved,
            available: level.available(),
            low: product.is_low(level.quantity()),
            revision: level.revision.0,
        }
    }
}
