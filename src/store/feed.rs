//! What commits did, as a follower reads it.

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    Store, StoreError,
    catalogue::{CatalogueChange, product, warehouse},
    commits::{Commit, commits_from},
    writer::{change_kind, commit_point, stock_key},
};
use crate::domain::{
    CommitPoint, MovementId, Product, Revision, Version, Warehouse,
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
        };
        let newest = beginning.newest().version;
        beginning.did = read_did(&mut tx, base.version, newest).await?;
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
    Ok(Did {
        rows: read_rows(connection, after, to).await?,
        catalogue: read_catalogue(connection, after, to).await?,
    })
}

async fn read_rows(
    connection: &mut PgConnection,
    after: Version,
    to: Version,
) -> Result<Vec<FeedRow>, StoreError> {
    // One row of arrays comes back: a row for each change would cost both sides more than finding it.
    let read = sqlx::query!(
        r#"select coalesce(array_agg(c.version), '{}') as "versions!", coalesce(array_agg(l.warehouse_id), '{}') as "warehouses!",
            coalesce(array_agg(l.product_id), '{}') as "products!", coalesce(array_agg(g.movement_id), '{}') as "movements!: Vec<Option<Uuid>>",
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
            movement: read.movements[place].and_then(MovementId::new),
            row: LedgerRow {
                key: stock_key(read.warehouses[place], read.products[place])?,
                kind: change_kind(read.kinds[place])
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
    let rows = sqlx::query!(
        r#"select c.version, k.product_id, k.warehouse_id, k.code, k.name, k.min_stock, k.reorder_point
        from stock_commits c join catalogue_changes k on k.batch = c.batch
        where c.version > $1 and c.version <= $2 order by c.version"#,
        after.number(),
        to.number()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (code, name) = (row.code.as_deref(), row.name.as_deref());
            let of_product = row.product_id.and_then(|id| {
                let product = product(id, code, name, row.min_stock, row.reorder_point);
                product.map(CatalogueChange::Product)
            });
            let of_warehouse = || {
                let warehouse = warehouse(row.warehouse_id?, code, name);
                warehouse.map(CatalogueChange::Warehouse)
            };
            let change = of_product.or_else(of_warehouse);
            let version = Version::new(row.version);
            version
                .zip(change)
                .ok_or(StoreError::Inconsistent("a change of the catalogue"))
        })
        .collect()
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
