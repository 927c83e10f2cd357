//! What clients ask for. Each answer is one statement and carries the newest commit it holds.

use std::collections::HashMap;

use super::{
    PgTime, Store, StoreError,
    writer::{LineRow, commit_point},
};
use crate::domain::{
    CommitPoint, Movement, MovementId, ProductId, Revision, StockKey, StockLevel, Timestamp,
    WarehouseId,
};

/// Something read, and the newest commit in it.
#[derive(Clone, Debug)]
pub struct AsOf<T> {
    pub value: T,
    pub as_of: CommitPoint,
}

impl<T> AsOf<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> AsOf<U> {
        AsOf {
            value: change(self.value),
            as_of: self.as_of,
        }
    }
}

/// A level as it is now.
#[derive(Clone, Copy, Debug)]
pub struct LevelNow {
    /// Nothing that is due is reserved.
    pub level: StockLevel,
    /// When the next of its reservations runs out, by the database's clock: from then on it is another, though no commit says so.
    /// The moment of the read where one is due and that is not recorded yet: somebody may have extended it in time and not have
    /// committed that, which changes nothing in the ledger.
    pub expires_next: Option<Timestamp>,
}

/// Most lines of one movement that are read: bounds the answer. No movement of goods has so many products.
const LINES_MAX: i64 = 10_000;

impl Store {
    /// A level; the empty one where nothing ever changed.
    pub async fn read_stock(&self, key: StockKey) -> Result<AsOf<LevelNow>, StoreError> {
        let row = sqlx::query!(
            r#"select c.version, c.tag, l.on_hand as "on_hand?", l.revision as "revision?", l.updated_at as "updated_at?: PgTime",
                l.reserved as "reserved?", now() as "now!: PgTime",
                case when l.reserved > 0 then stock_due(l.inventory_id, l.reserved) else 0 end as "due!",
                case when l.reserved > 0 then stock_expires_next(l.inventory_id, l.reserved) end as "expires_next?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join stock_levels l on l.warehouse_id = $1 and l.product_id = $2"#,
            key.warehouse.uuid(),
            key.product.uuid()
        )
        .fetch_optional(&self.reads)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        let level = joined_level(
            row.on_hand,
            row.reserved.map(|reserved| reserved - row.due),
            row.revision,
            row.updated_at,
        );
        let expires_next = if row.due > 0 {
            Some(row.now)
        } else {
            row.expires_next
        };
        Ok(AsOf {
            value: LevelNow {
                level,
                expires_next: expires_next.map(|at| at.0),
            },
            as_of: commit_point(row.version, row.tag)?,
        })
    }

    /// A movement with its lines by product; `None` if nothing was reported of it.
    pub async fn read_movement(
        &self,
        id: MovementId,
    ) -> Result<AsOf<Option<Movement>>, StoreError> {
        let rows = sqlx::query!(
            r#"select c.version, c.tag, m.product_id as "product_id?",
                m.departure_at as "departure_at?: PgTime", m.departure_quantity as "departure_quantity?",
                m.departure_warehouse_id as "departure_warehouse_id?",
                m.arrival_at as "arrival_at?: PgTime", m.arrival_quantity as "arrival_quantity?",
                m.arrival_warehouse_id as "arrival_warehouse_id?"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select * from movements
                where movement_id = $1 and num_nonnulls(departure_at, arrival_at) > 0
                order by product_id limit $2
            ) m on true"#,
            id.uuid(),
            LINES_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        let as_of = commit_point(newest.version, newest.tag)?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(product_id) = row.product_id else {
                continue;
            };
            let line = LineRow {
                movement_id: id.uuid(),
                product_id,
                departure_at: row.departure_at,
                departure_quantity: row.departure_quantity,
                departure_warehouse_id: row.departure_warehouse_id,
                arrival_at: row.arrival_at,
                arrival_quantity: row.arrival_quantity,
                arrival_warehouse_id: row.arrival_warehouse_id,
            };
            lines.push(line.into_line()?.1);
        }
        let value = (!lines.is_empty()).then_some(Movement { id, lines });
        Ok(AsOf { value, as_of })
    }

    /// The products with these skus.
    pub async fn products_by_sku(
        &self,
        skus: &[String],
    ) -> Result<HashMap<String, ProductId>, StoreError> {
        let rows = sqlx::query!(
            r#"select sku as "sku!", product_id from products where sku = any($1) and archived_at is null"#,
            skus
        )
        .fetch_all(&self.reads)
        .await?;
        let known = rows.into_iter();
        Ok(known
            .filter_map(|row| Some((row.sku, ProductId::new(row.product_id)?)))
            .collect())
    }

    /// The warehouses with these codes.
    pub async fn warehouses_by_code(
        &self,
        codes: &[String],
    ) -> Result<HashMap<String, WarehouseId>, StoreError> {
        let rows = sqlx::query!(
            r#"select code as "code!", warehouse_id from warehouses where code = any($1)"#,
            codes
        )
        .fetch_all(&self.reads)
        .await?;
        let known = rows.into_iter();
        Ok(known
            .filter_map(|row| Some((row.code, WarehouseId::new(row.warehouse_id)?)))
            .collect())
    }

    /// The warehouse with this code.
    pub async fn warehouse_by_code(&self, code: &str) -> Result<Option<WarehouseId>, StoreError> {
        let id = sqlx::query_scalar!("select warehouse_id from warehouses where code = $1", code)
            .fetch_optional(&self.reads)
            .await?;
        Ok(id.and_then(WarehouseId::new))
    }

    /// Whether there is such a product.
    pub async fn has_product(&self, id: ProductId) -> Result<bool, StoreError> {
        let is_there = sqlx::query_scalar!(
            r#"select exists (select from products where product_id = $1) as "is_there!""#,
            id.uuid()
        )
        .fetch_one(&self.reads)
        .await?;
        Ok(is_there)
    }

    /// Whether the catalogue has that warehouse.
    pub async fn has_warehouse(&self, id: WarehouseId) -> Result<bool, StoreError> {
        let is_there = sqlx::query_scalar!(
            r#"select exists (select from warehouses where warehouse_id = $1) as "is_there!""#,
            id.uuid()
        )
        .fetch_one(&self.reads)
        .await?;
        Ok(is_there)
    }

    /// The product with this sku.
    pub async fn product_by_sku(&self, sku: &str) -> Result<Option<ProductId>, StoreError> {
        let id = sqlx::query_scalar!(
            "select product_id from products where sku = $1 and archived_at is null",
            sku
        )
        .fetch_optional(&self.reads)
        .await?;
        Ok(id.and_then(ProductId::new))
    }
}

/// The level in the columns of a left join: the empty one where nothing was joined.
pub(super) fn joined_level(
    on_hand: Option<i64>,
    reserved: Option<i64>,
    revision: Option<i64>,
    updated_at: Option<PgTime>,
) -> StockLevel {
    match (on_hand, reserved, revision) {
        (Some(on_hand), Some(reserved), Some(revision)) => StockLevel {
            on_hand,
            reserved,
            revision: Revision(revision),
            updated_at: updated_at.map(|time| time.0),
        },
        _ => StockLevel::EMPTY,
    }
}
