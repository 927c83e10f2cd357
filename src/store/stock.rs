//! Products with what stands of them in all warehouses.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    AsOf, PgTime, Store, StoreError,
    catalogue::{product, warehouse},
    writer::{commit_point, stock_key},
};
use crate::domain::{
    Product, ProductId, Revision, StockLevel, Warehouse, WarehouseId,
    stock::{PlacedLevel, ProductStock},
};

impl Store {
    /// The products of which something ever stood in one of these warehouses, and which are among these: all their levels. An
    /// empty list names all. By product, then warehouse.
    pub async fn product_stock(
        &self,
        warehouses: &[WarehouseId],
        products: &[ProductId],
    ) -> Result<AsOf<Vec<ProductStock>>, StoreError> {
        let warehouses: Vec<Uuid> = warehouses.iter().map(|id| id.uuid()).collect();
        let products: Vec<Uuid> = products.iter().map(|id| id.uuid()).collect();
        // One row of arrays comes back: a row for each level would cost both sides more than finding it.
        let read = sqlx::query_as!(
            StockColumns,
            r#"with wanted as materialized (
                select distinct product_id from stock_levels
                where (cardinality($1::uuid[]) = 0 or warehouse_id = any($1))
                    and (cardinality($2::uuid[]) = 0 or product_id = any($2))
            ), levels as materialized (
                select l.* from stock_levels l join wanted using (product_id) order by product_id, warehouse_id
            )
            select c.version, c.tag, l.products as "products!", l.warehouses as "warehouses!", l.on_hand as "on_hand!",
                l.reserved as "reserved!", l.revisions as "revisions!", l.updated_at as "updated_at!: Vec<PgTime>",
                p.ids as "product_ids!", p.skus as "skus!: Vec<Option<String>>", p.names as "product_names!: Vec<Option<String>>",
                p.min_stock as "min_stock!: Vec<Option<i64>>", p.reorder_points as "reorder_points!: Vec<Option<i64>>",
                w.ids as "warehouse_ids!", w.codes as "codes!: Vec<Option<String>>", w.names as "warehouse_names!: Vec<Option<String>>"
            from (select version, tag from stock_commits order by version desc limit 1) c,
            lateral (
                select coalesce(array_agg(product_id), '{}') as products, coalesce(array_agg(warehouse_id), '{}') as warehouses,
                    coalesce(array_agg(on_hand), '{}') as on_hand, coalesce(array_agg(reserved), '{}') as reserved,
                    coalesce(array_agg(revision), '{}') as revisions, coalesce(array_agg(updated_at), '{}') as updated_at
                from levels
            ) l,
            lateral (
                select coalesce(array_agg(product_id), '{}') as ids, coalesce(array_agg(sku), '{}') as skus,
                    coalesce(array_agg(name), '{}') as names, coalesce(array_agg(min_stock), '{}') as min_stock,
                    coalesce(array_agg(reorder_point), '{}') as reorder_points
                from products join wanted using (product_id)
                where num_nonnulls(sku, name, min_stock, reorder_point) > 0
            ) p,
            lateral (
                select coalesce(array_agg(warehouse_id), '{}') as ids, coalesce(array_agg(code), '{}') as codes,
                    coalesce(array_agg(name), '{}') as names
                from warehouses where num_nonnulls(code, name) > 0
            ) w"#,
            &warehouses,
            &products
        )
        .fetch_optional(self.reads())
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        let as_of = commit_point(read.version, read.tag)?;
        let value = read.into_stock()?;
        Ok(AsOf { value, as_of })
    }
}

/// Columns of levels, products and warehouses as arrays; those of one part are of one length.
struct StockColumns {
    version: i64,
    tag: i32,
    products: Vec<Uuid>,
    warehouses: Vec<Uuid>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    revisions: Vec<i64>,
    updated_at: Vec<PgTime>,
    product_ids: Vec<Uuid>,
    skus: Vec<Option<String>>,
    product_names: Vec<Option<String>>,
    min_stock: Vec<Option<i64>>,
    reorder_points: Vec<Option<i64>>,
    warehouse_ids: Vec<Uuid>,
    codes: Vec<Option<String>>,
    warehouse_names: Vec<Option<String>>,
}

impl StockColumns {
    fn into_stock(self) -> Result<Vec<ProductStock>, StoreError> {
        let known_products = self.product_ids.iter().enumerate().filter_map(|(n, id)| {
            let (sku, name) = (self.skus[n].as_deref(), self.product_names[n].as_deref());
            product(*id, sku, name, self.min_stock[n], self.reorder_points[n])
        });
        let known_products: HashMap<ProductId, Product> = known_products
            .map(|product| (product.id, product))
            .collect();
        let known_warehouses = self.warehouse_ids.iter().enumerate().filter_map(|(n, id)| {
            let (code, name) = (self.codes[n].as_deref(), self.warehouse_names[n].as_deref());
            warehouse(*id, code, name)
        });
        let known_warehouses: HashMap<WarehouseId, Warehouse> = known_warehouses
            .map(|warehouse| (warehouse.id, warehouse))
            .collect();

        let mut value: Vec<ProductStock> = Vec::new();
        for n in 0..self.products.len() {
            let key = stock_key(self.warehouses[n], self.products[n])?;
            if value
                .last()
                .is_none_or(|stock| stock.product.id != key.product)
            {
                let product = known_products.get(&key.product).cloned();
                value.push(ProductStock {
                    product: product.unwrap_or_else(|| Product::unnamed(key.product)),
                    levels: Vec::new(),
                });
            }
            let warehouse = known_warehouses.get(&key.warehouse).cloned();
            let placed = PlacedLevel {
                warehouse: warehouse.unwrap_or_else(|| Warehouse::unnamed(key.warehouse)),
                level: StockLevel {
                    on_hand: self.on_hand[n],
                    reserved: self.reserved[n],
                    revision: Revision(self.revisions[n]),
                    updated_at: Some(self.updated_at[n].0),
                },
            };
            if let Some(stock) = value.last_mut() {
                stock.levels.push(placed);
            }
        }
        Ok(value)
    }
}
