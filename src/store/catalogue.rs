//! Names, codes and minima.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    AsOf, Store, StoreError,
    writer::{WriteTx, commit_point},
};
use crate::domain::{
    Product, ProductId, Warehouse, WarehouseId,
    catalogue::{Code, Name, Threshold},
};

/// What became of an entry that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Changed,
    /// It says what was there before.
    Same,
}

/// What a commit left of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueChange {
    Product(Product),
    /// It is in no list any more; what is known of it stays.
    Archived(Product),
    Warehouse(Warehouse),
}

impl CatalogueChange {
    pub fn product(&self) -> Option<&Product> {
        match self {
            Self::Product(product) | Self::Archived(product) => Some(product),
            Self::Warehouse(_) => None,
        }
    }

    /// Of the product or the warehouse.
    pub(super) fn id(&self) -> Uuid {
        match self {
            Self::Product(product) | Self::Archived(product) => product.id.uuid(),
            Self::Warehouse(warehouse) => warehouse.id.uuid(),
        }
    }
}

impl WriteTx<'_> {
    /// Stores a product, whatever was there of it. A sku that another product has is refused data.
    pub async fn put_product(&mut self, product: &Product) -> Result<Put, StoreError> {
        let batch = self.batch().0;
        let (code, name) = (
            product.sku.as_ref().map(Code::as_str),
            product.name.as_ref().map(Name::as_str),
        );
        let min_stock = product.min_stock.map(Threshold::units);
        let reorder_point = product.reorder_point.map(Threshold::units);
        // A row that was there has been locked by the conflict, and its deleter is known as such.
        let is_new = sqlx::query_scalar!(
            r#"with put as (
            insert into products as p (product_id, sku, name, min_stock, reorder_point)
            values ($2, $3, $4, $5, $6)
            on conflict (product_id) do update set sku = excluded.sku, name = excluded.name,
                min_stock = excluded.min_stock, reorder_point = excluded.reorder_point
            where (p.sku, p.name, p.min_stock, p.reorder_point)
                is distinct from (excluded.sku, excluded.name, excluded.min_stock, excluded.reorder_point)
            returning p.xmax = 0 as is_new
            ), told as (
            insert into catalogue_changes (batch, product_id, code, name, min_stock, reorder_point)
            select $1, $2, $3, $4, $5, $6 from put
            )
            select is_new as "is_new!" from put"#,
            batch,
            product.id.uuid(),
            code,
            name,
            min_stock,
            reorder_point
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(put(is_new))
    }

    /// Stores a warehouse, whatever was there of it. A code that another warehouse has is refused data.
    pub async fn put_warehouse(&mut self, warehouse: &Warehouse) -> Result<Put, StoreError> {
        let batch = self.batch().0;
        // The row first: whoever made it and has not committed yet may be about to wait for the lock on codes.
        let made = sqlx::query!(
            "insert into warehouses (warehouse_id) values ($1) on conflict do nothing",
            warehouse.id.uuid()
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        self.lock_codes().await?;
        let changed = sqlx::query!(
            "with put as (
            update warehouses w set code = $3, name = $4
            where warehouse_id = $2 and (w.code, w.name) is distinct from ($3, $4)
            returning warehouse_id
            )
            insert into catalogue_changes (batch, warehouse_id, code, name)
            select $1, warehouse_id, $3, $4 from put",
            batch,
            warehouse.id.uuid(),
            warehouse.code.as_ref().map(Code::as_str),
            warehouse.name.as_ref().map(Name::as_str)
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::of_data)?;
        Ok(match (made.rows_affected(), changed.rows_affected()) {
            (0, 0) => Put::Same,
            (0, _) => Put::Changed,
            _ => Put::Created,
        })
    }
}

fn put(is_new: Option<bool>) -> Put {
    match is_new {
        None => Put::Same,
        Some(true) => Put::Created,
        Some(false) => Put::Changed,
    }
}

impl Store {
    /// At most `limit` products with ids after that one, in order, with the newest commit they hold.
    pub async fn products_after(
        &self,
        after: Option<ProductId>,
        limit: i64,
    ) -> Result<AsOf<Vec<Product>>, StoreError> {
        let rows = sqlx::query_as!(
            ProductRow,
            r#"select c.version, c.tag, p.product_id as "id?", p.sku as code, p.name, p.min_stock, p.reorder_point
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select * from products where product_id > $1 order by product_id limit $2
            ) p on true order by p.product_id"#,
            after.map_or(Uuid::nil(), ProductId::uuid),
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(newest.version, newest.tag)?,
            value: rows
                .into_iter()
                .filter_map(ProductRow::into_product)
                .collect(),
        })
    }

    /// At most `limit` warehouses with ids after that one, in order, with the newest commit they hold.
    pub async fn warehouses_after(
        &self,
        after: Option<WarehouseId>,
        limit: i64,
    ) -> Result<AsOf<Vec<Warehouse>>, StoreError> {
        let rows = sqlx::query_as!(
            WarehouseRow,
            r#"select c.version, c.tag, w.warehouse_id as "id?", w.code, w.name
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select * from warehouses where warehouse_id > $1 order by warehouse_id limit $2
            ) w on true order by w.warehouse_id"#,
            after.map_or(Uuid::nil(), WarehouseId::uuid),
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(newest.version, newest.tag)?,
            value: rows
                .into_iter()
                .filter_map(WarehouseRow::into_warehouse)
                .collect(),
        })
    }
}

/// What the catalogue says of some things.
#[derive(Debug, Default)]
pub(super) struct Words {
    products: HashMap<ProductId, Product>,
    warehouses: HashMap<WarehouseId, Warehouse>,
}

impl Words {
    pub(super) fn product(&self, id: ProductId) -> Product {
        let known = self.products.get(&id);
        known.cloned().unwrap_or_else(|| Product::unnamed(id))
    }

    pub(super) fn warehouse(&self, id: WarehouseId) -> Warehouse {
        let known = self.warehouses.get(&id);
        known.cloned().unwrap_or_else(|| Warehouse::unnamed(id))
    }
}

impl Store {
    /// What is said of these products and warehouses.
    pub(super) async fn words(
        &self,
        products: &[Uuid],
        warehouses: &[Uuid],
    ) -> Result<Words, StoreError> {
        let rows = sqlx::query!(
            "select product_id, sku, name, min_stock, reorder_point from products where product_id = any($1)",
            products
        )
        .fetch_all(&self.reads)
        .await?;
        let products = rows.into_iter().filter_map(|row| {
            let (sku, name) = (row.sku.as_deref(), row.name.as_deref());
            let known = product(row.product_id, sku, name, row.min_stock, row.reorder_point)?;
            Some((known.id, known))
        });
        let products = products.collect();
        let rows = sqlx::query!(
            "select warehouse_id, code, name from warehouses where warehouse_id = any($1)",
            warehouses
        )
        .fetch_all(&self.reads)
        .await?;
        let warehouses = rows.into_iter().filter_map(|row| {
            let known = warehouse(row.warehouse_id, row.code.as_deref(), row.name.as_deref())?;
            Some((known.id, known))
        });
        Ok(Words {
            products,
            warehouses: warehouses.collect(),
        })
    }
}

/// A row of `products` beside the newest commit; without an id where there is none.
struct ProductRow {
    version: i64,
    tag: i32,
    id: Option<Uuid>,
    code: Option<String>,
    name: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
}

impl ProductRow {
    fn into_product(self) -> Option<Product> {
        let (code, name) = (self.code.as_deref(), self.name.as_deref());
        product(self.id?, code, name, self.min_stock, self.reorder_point)
    }
}

/// A row of `warehouses` beside the newest commit; without an id where there is none.
struct WarehouseRow {
    version: i64,
    tag: i32,
    id: Option<Uuid>,
    code: Option<String>,
    name: Option<String>,
}

impl WarehouseRow {
    fn into_warehouse(self) -> Option<Warehouse> {
        warehouse(self.id?, self.code.as_deref(), self.name.as_deref())
    }
}

/// A product as it is stored; `None` for the nil id, which the schema excludes.
pub(super) fn product(
    id: Uuid,
    sku: Option<&str>,
    name: Option<&str>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
) -> Option<Product> {
    Some(Product {
        id: ProductId::new(id)?,
        sku: sku.map(Code::stored),
        name: name.map(Name::stored),
        min_stock: min_stock.map(Threshold::stored),
        reorder_point: reorder_point.map(Threshold::stored),
    })
}

/// A warehouse as it is stored; `None` for the nil id, which the schema excludes.
pub(super) fn warehouse(id: Uuid, code: Option<&str>, name: Option<&str>) -> Option<Warehouse> {
    Some(Warehouse {
        id: WarehouseId::new(id)?,
        code: code.map(Code::stored),
        name: name.map(Name::stored),
    })
}
