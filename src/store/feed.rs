//! What commits did, as a follower reads it.

use std::collections::HashMap;

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    Store, StoreError,
    catalogue::{CatalogueChange, product, warehouse},
    commits::{Commit, commits_from},
    kinds,
    writer::{commit_point, stock_key},
};
use crate::domain::{
    CommitPoint, InventoryId, MovementId, Product, ProductId, Revision, StockKey, Version,
    Warehouse,
    change::{Amounts, LedgerRow},
};

/// The newest commits that are looked through for a beginning, and most ledger rows that are read of them: what clients missed
/// that were gone for a moment.
const HISTORY_COMMITS_MAX: i64 = 64;
const HISTORY_ROWS_MAX: i64 = 20_000;
/// Longest the reads for a beginning may take, in milliseconds: they are one snapshot of the database.
const BEGIN_TIMEOUT: &str = "set local statement_timeout = '5s'";

/// One row of the ledger, and the commit it is of.
#[derive(Clone, Copy, Debug)]
pub struct FeedRow {
    pub version: Version,
    pub movement: Option<MovementId>,
    pub row: LedgerRow,
}

/// What commits did to levels and to the catalogue.
#[derive(Clone, Debug, Default)]
pub struct Did {
    /// By version, then key.
    pub rows: Vec<FeedRow>,
    /// By version.
    pub catalogue: Vec<(Version, CatalogueChange)>,
    /// As each version left them, the levels of the products it changed in the catalogue.
    pub levels: HashMap<Version, Vec<LevelAt>>,
}

/// A level as a version left it.
#[derive(Clone, Copy, Debug)]
pub struct LevelAt {
    pub key: StockKey,
    pub inventory_id: InventoryId,
    pub amounts: Amounts,
    pub revision: Revision,
}

/// Where a follower begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The commit before the history.
    pub base: CommitPoint,
    /// The newest commits, in order; none if there is none after the base.
    pub history: Vec<Commit>,
    pub did: Did,
    /// Everything that has a name, a code, a minimum or a reorder point.
    pub products: Vec<Product>,
    pub warehouses: Vec<Warehouse>,
    /// What was said at the base of everything that the history changes in the catalogue, where something was.
    pub words: Vec<CatalogueChange>,
    /// Units available in all warehouses, of all products with a reorder point, now or at the base.
    pub available: Vec<(ProductId, i64)>,
}

impl Store {
    /// What the commits after `after` up to `to` did.
    pub async fn did(&self, after: Version, to: Version) -> Result<Did, StoreError> {
        let mut connection = self.follow.acquire().await?;
        read_did(&mut connection, after, to).await
    }

    /// The newest commit with the catalogue as of then and what was committed just before, all of one moment.
    pub async fn beginning(&self) -> Result<Beginning, StoreError> {
        let mut tx = self.follow.begin().await?;
        sqlx::raw_sql("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await?;
        sqlx::raw_sql(BEGIN_TIMEOUT).execute(&mut *tx).await?;
        let base = base(&mut tx).await?;
        let history = commits_from(&mut *tx, base.version.next(), HISTORY_COMMITS_MAX).await?;
        let mut beginning = Beginning {
            base,
            history,
            did: Did::default(),
            products: named_products(&mut tx).await?,
            warehouses: named_warehouses(&mut tx).await?,
            words: Vec::new(),
            available: Vec::new(),
        };
        let newest = beginning.newest().version;
        beginning.did = read_did(&mut tx, base.version, newest).await?;
        beginning.words = words_at(&mut tx, base.version, &beginning.did.catalogue).await?;
        beginning.available = available(&mut tx, &beginning.did.catalogue).await?;
        tx.commit().await?;
        Ok(beginning)
    }
}

impl Beginning {
    pub fn newest(&self) -> CommitPoint {
        let last = self.history.last();
        last.map_or(self.base, |commit| commit.point)
    }
}

type Tx = Transaction<'static, Postgres>;

/// The commit after which the history begins: the rows after it are few enough, unless it is the newest.
async fn base(tx: &mut Tx) -> Result<CommitPoint, StoreError> {
    let row = sqlx::query!(
        r#"select version, tag from (
            select version, tag, (sum(rows) over (order by version desc))::bigint - rows as later, version = max(version) over () as is_newest
            from (
                select c.version, c.tag, (select count(*) from stock_ledger g where g.batch = c.batch) as rows
                from stock_commits c order by c.version desc limit $1
            ) counted
        ) summed
        where later <= $2 or is_newest
        order by version limit 1"#,
        HISTORY_COMMITS_MAX,
        HISTORY_ROWS_MAX
    )
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(StoreError::NO_COMMITS)?;
    commit_point(row.version, row.tag)
}

async fn read_did(
    connection: &mut PgConnection,
    after: Version,
    to: Version,
) -> Result<Did, StoreError> {
    let catalogue = read_catalogue(connection, after, to).await?;
    Ok(Did {
        rows: read_rows(connection, after, to).await?,
        levels: levels_at(connection, &catalogue).await?,
        catalogue,
    })
}

/// The levels of the products that these changes are of, each as its version left them.
async fn levels_at(
    connection: &mut PgConnection,
    changes: &[(Version, CatalogueChange)],
) -> Result<HashMap<Version, Vec<LevelAt>>, StoreError> {
    let of_products = changes.iter().filter_map(|(version, change)| {
        let product = change.product()?;
        Some((version.number(), product.id.uuid()))
    });
    let (versions, products): (Vec<i64>, Vec<Uuid>) = of_products.unzip();
    let mut levels: HashMap<Version, Vec<LevelAt>> = HashMap::new();
    if versions.is_empty() {
        return Ok(levels);
    }
    let rows = sqlx::query!(
        r#"select w.version as "version!", l.warehouse_id, l.product_id, l.inventory_id,
            g.revision, g.on_hand_after, g.reserved_after
        from unnest($1::bigint[], $2::uuid[]) as w (version, product_id)
        join stock_levels l on l.product_id = w.product_id
        cross join lateral (
            select g.revision, g.on_hand_after, g.reserved_after
            from stock_ledger g join stock_commits c on c.batch = g.batch
            where g.inventory_id = l.inventory_id and c.version <= w.version
            order by g.revision desc limit 1
        ) g
        order by w.version, l.warehouse_id, l.product_id"#,
        &versions,
        &products
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let version = Version::new(row.version).ok_or(StoreError::Inconsistent("a version"))?;
        levels.entry(version).or_default().push(LevelAt {
            key: stock_key(row.warehouse_id, row.product_id)?,
            inventory_id: InventoryId(row.inventory_id),
            amounts: Amounts {
                on_hand: row.on_hand_after,
                reserved: row.reserved_after,
            },
            revision: Revision(row.revision),
        });
    }
    Ok(levels)
}

/// What the catalogue said, at that version, of everything that these changes are of.
async fn words_at(
    tx: &mut Tx,
    at: Version,
    changes: &[(Version, CatalogueChange)],
) -> Result<Vec<CatalogueChange>, StoreError> {
    let ids: Vec<Uuid> = changes.iter().map(|(_, change)| change.id()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        ChangeRow,
        "select distinct on (k.product_id, k.warehouse_id)
            c.version, k.product_id, k.warehouse_id, k.code, k.name, k.min_stock, k.reorder_point
        from catalogue_changes k join stock_commits c on c.batch = k.batch
        where coalesce(k.product_id, k.warehouse_id) = any($2) and c.version <= $1
        order by k.product_id, k.warehouse_id, c.version desc",
        at.number(),
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    let changes = rows.into_iter().map(ChangeRow::into_change);
    changes.map(|change| Ok(change?.1)).collect()
}

/// What is available in all warehouses of the products with a reorder point, and of those that these changes are of.
async fn available(
    tx: &mut Tx,
    changes: &[(Version, CatalogueChange)],
) -> Result<Vec<(ProductId, i64)>, StoreError> {
    let products = changes.iter().filter_map(|(_, change)| change.product());
    let ids: Vec<Uuid> = products.map(|product| product.id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select p.product_id, least(coalesce(sum(greatest(l.on_hand - l.reserved, 0)), 0), 9223372036854775807)::bigint as "available!"
        from products p left join stock_levels l on l.product_id = p.product_id
        where p.reorder_point is not null or p.product_id = any($1)
        group by p.product_id"#,
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let product = ProductId::new(row.product_id);
            let product = product.ok_or(StoreError::Inconsistent("a product"))?;
            Ok((product, row.available))
        })
        .collect()
}

async fn read_rows(
    connection: &mut PgConnection,
    after: Version,
    to: Version,
) -> Result<Vec<FeedRow>, StoreError> {
    // One row of arrays comes back: a row for each change would cost both sides more than finding it.
    let read = sqlx::query!(
        r#"select coalesce(array_agg(c.version), '{}') as "versions!", coalesce(array_agg(l.inventory_id), '{}') as "inventory_ids!",
            coalesce(array_agg(l.warehouse_id), '{}') as "warehouses!",
            coalesce(array_agg(l.product_id), '{}') as "products!", coalesce(array_agg(g.cause_id), '{}') as "causes!: Vec<Option<Uuid>>",
            coalesce(array_agg(g.kind), '{}') as "kinds!", coalesce(array_agg(g.on_hand_delta), '{}') as "on_hand_deltas!",
            coalesce(array_agg(g.reserved_delta), '{}') as "reserved_deltas!", coalesce(array_agg(g.on_hand_after), '{}') as "on_hand!",
            coalesce(array_agg(g.reserved_after), '{}') as "reserved!", coalesce(array_agg(g.revision), '{}') as "revisions!"
        from stock_commits c
        join stock_ledger g on g.batch = c.batch
        join stock_levels l on l.inventory_id = g.inventory_id
        where c.version > $1 and c.version <= $2"#,
        after.number(),
        to.number()
    )
    .fetch_one(connection)
    .await?;
    let mut rows = Vec::with_capacity(read.versions.len());
    for (place, version) in read.versions.into_iter().enumerate() {
        // All arrays are of one length: they are columns of the same rows.
        rows.push(FeedRow {
            version: Version::new(version).ok_or(StoreError::Inconsistent("a version"))?,
            movement: read.causes[place]
                .filter(|_| kinds::is_of_movement(read.kinds[place]))
                .and_then(MovementId::new),
            row: LedgerRow {
                inventory_id: InventoryId(read.inventory_ids[place]),
                key: stock_key(read.warehouses[place], read.products[place])?,
                kind: kinds::named(read.kinds[place])
                    .ok_or(StoreError::Inconsistent("a kind of change"))?,
                delta: Amounts {
                    on_hand: read.on_hand_deltas[place],
                    reserved: read.reserved_deltas[place],
                },
                after: Amounts {
                    on_hand: read.on_hand[place],
                    reserved: read.reserved[place],
                },
                revision: Revision(read.revisions[place]),
            },
        });
    }
    rows.sort_unstable_by_key(|row| (row.version, row.row.key));
    Ok(rows)
}

async fn read_catalogue(
    connection: &mut PgConnection,
    after: Version,
    to: Version,
) -> Result<Vec<(Version, CatalogueChange)>, StoreError> {
    let rows = sqlx::query_as!(
        ChangeRow,
        "select c.version, k.product_id, k.warehouse_id, k.code, k.name, k.min_stock, k.reorder_point
        from stock_commits c join catalogue_changes k on k.batch = c.batch
        where c.version > $1 and c.version <= $2 order by c.version",
        after.number(),
        to.number()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(ChangeRow::into_change).collect()
}

/// A row of `catalogue_changes` with its version.
struct ChangeRow {
    version: i64,
    product_id: Option<Uuid>,
    warehouse_id: Option<Uuid>,
    code: Option<String>,
    name: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
}

impl ChangeRow {
    fn into_change(self) -> Result<(Version, CatalogueChange), StoreError> {
        let (code, name) = (self.code.as_deref(), self.name.as_deref());
        let of_product = self.product_id.and_then(|id| {
            let product = product(id, code, name, self.min_stock, self.reorder_point);
            product.map(CatalogueChange::Product)
        });
        let of_warehouse = || {
            let warehouse = warehouse(self.warehouse_id?, code, name);
            warehouse.map(CatalogueChange::Warehouse)
        };
        let change = of_product.or_else(of_warehouse);
        Version::new(self.version)
            .zip(change)
            .ok_or(StoreError::Inconsistent("a change of the catalogue"))
    }
}

async fn named_products(tx: &mut Tx) -> Result<Vec<Product>, StoreError> {
    let rows = sqlx::query!(
        "select product_id, sku, name, min_stock, reorder_point from products
        where num_nonnulls(sku, name, min_stock, reorder_point) > 0"
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            product(
                row.product_id,
                row.sku.as_deref(),
                row.name.as_deref(),
                row.min_stock,
                row.reorder_point,
            )
        })
        .collect())
}

async fn named_warehouses(tx: &mut Tx) -> Result<Vec<Warehouse>, StoreError> {
    let rows = sqlx::query!(
        "select warehouse_id, code, name from warehouses where num_nonnulls(code, name) > 0"
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| warehouse(row.warehouse_id, row.code.as_deref(), row.name.as_deref()))
        .collect())
}
