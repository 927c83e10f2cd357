//! What commits did, as a follower reads it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    ONE_MOMENT, PgTime, Store, StoreError,
    catalogue::{CatalogueChange, product, warehouse},
    commits::{Commit, commits_from},
    kinds,
    writer::{commit_point, stock_key},
};
use crate::domain::{
    CommitPoint, InventoryId, MovementId, Product, ProductId, ReservationId, Revision, StockKey,
    Timestamp, Version, Warehouse,
    change::{self, Amounts, LedgerRow},
    risk::Line,
};

/// The newest commits that are looked through for a beginning, and most ledger rows that are read of them: what clients missed
/// that were gone for a moment.
const HISTORY_COMMITS_MAX: i64 = 64;
const HISTORY_ROWS_MAX: i64 = 20_000;
/// Most reservations of a level, the newest, that are looked at for who is at risk. Of more than so many at risk at once the older
/// ones are not told of.
const LINES_OF_LEVEL_MAX: i64 = 10_000;
/// Longest the reads for a beginning may take, in milliseconds: they are one snapshot of the database.
const BEGIN_TIMEOUT: &str = "set local statement_timeout = '5s'";

/// Most levels whose keys are kept: about 20 MB.
const KEYS_MAX: usize = 1 << 18;

/// Which key the number of a level stands for. In one database that never changes, so each is looked up once, and what commits did is read
/// from the ledger alone: a look at the level of each row took three quarters of that (measured: 2.7 µs a row instead of 0.7). One reads at
/// a time: the follower.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Known>);

type Known = HashMap<InventoryId, StockKey>;

impl Keys {
    fn known(&self) -> MutexGuard<'_, Known> {
        // It is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of those levels the ones that are not known, from the database.
    async fn find(
        &self,
        connection: &mut PgConnection,
        levels: &[i64],
    ) -> Result<Known, StoreError> {
        let mut unknown = {
            let known = self.known();
            let is_unknown = |level: &i64| !known.contains_key(&InventoryId(*level));
            levels
                .iter()
                .copied()
                .filter(is_unknown)
                .collect::<Vec<_>>()
        };
        if unknown.is_empty() {
            return Ok(Known::new());
        }
        unknown.sort_unstable();
        unknown.dedup();
        let rows = sqlx::query!(
            "select inventory_id, warehouse_id, product_id from stock_levels where inventory_id = any($1)",
            &unknown
        )
        .fetch_all(connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                let key = stock_key(row.warehouse_id, row.product_id)?;
                Ok((InventoryId(row.inventory_id), key))
            })
            .collect()
    }

    /// Keeps what was found, once it is told.
    fn keep(&self, found: Known) {
        let mut known = self.known();
        if known.len() + found.len() > KEYS_MAX {
            known.clear();
        }
        known.extend(found.into_iter().take(KEYS_MAX));
    }

    /// It may be another database.
    fn forget(&self) {
        self.known().clear();
    }
}

/// One row of the ledger, and the commit it is of.
#[derive(Clone, Copy, Debug)]
pub struct FeedRow {
    pub version: Version,
    pub movement: Option<MovementId>,
    pub row: LedgerRow,
}

impl FeedRow {
    /// Whether something of the level is reserved, or was until this row.
    pub fn has_reserved(&self) -> bool {
        self.row.after.reserved > 0 || self.row.delta.reserved != 0
    }
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
    /// Of each level of which more was promised than there was, before one of these commits or after: the reservations that were
    /// active at any time since, the newest first. Those that are due are active until that is recorded.
    pub lines: HashMap<InventoryId, Vec<Line>>,
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
    /// The database's clock while it was read.
    pub clock: Timestamp,
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
        let mut lent = self.follow.lend().await?;
        let (did, found) = read_did(lent.connection()?, &self.keys, after, to).await?;
        lent.settle();
        self.keys.keep(found);
        Ok(did)
    }

    /// The newest commit with the catalogue as of then and what was committed just before, all of one moment.
    pub async fn beginning(&self) -> Result<Beginning, StoreError> {
        self.keys.forget();
        let mut lent = self.follow.lend().await?;
        let mut tx = lent.begin().await?;
        sqlx::raw_sql(ONE_MOMENT).execute(&mut *tx).await?;
        sqlx::raw_sql(BEGIN_TIMEOUT).execute(&mut *tx).await?;
        let (base, clock) = base(&mut tx).await?;
        let history = commits_from(&mut *tx, base.version.next(), HISTORY_COMMITS_MAX).await?;
        let history = history.commits;
        let mut beginning = Beginning {
            base,
            clock,
            history,
            did: Did::default(),
            products: named_products(&mut tx).await?,
            warehouses: named_warehouses(&mut tx).await?,
            words: Vec::new(),
            available: Vec::new(),
        };
        let newest = beginning.newest().version;
        let (did, found) = read_did(&mut tx, &self.keys, base.version, newest).await?;
        beginning.did = did;
        beginning.words = words_at(&mut tx, base.version, &beginning.did.catalogue).await?;
        beginning.available = available(&mut tx, &beginning.did.catalogue).await?;
        tx.commit().await?;
        lent.settle();
        self.keys.keep(found);
        Ok(beginning)
    }
}

impl Beginning {
    pub fn newest(&self) -> CommitPoint {
        let last = self.history.last();
        last.map_or(self.base, |commit| commit.point)
    }
}

type Tx<'c> = Transaction<'c, Postgres>;

/// The commit after which the history begins: the rows after it are few enough, unless it is the newest. And what time it is.
async fn base(tx: &mut Tx<'_>) -> Result<(CommitPoint, Timestamp), StoreError> {
    let row = sqlx::query!(
        r#"select version, tag, clock_timestamp() as "clock!: PgTime" from (
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
    Ok((commit_point(row.version, row.tag)?, row.clock.0))
}

/// What they did, and the keys that were found for it.
async fn read_did(
    connection: &mut PgConnection,
    keys: &Keys,
    after: Version,
    to: Version,
) -> Result<(Did, Known), StoreError> {
    let catalogue = read_catalogue(connection, after, to).await?;
    let (rows, found) = read_rows(connection, keys, after, to).await?;
    let did = Did {
        levels: levels_at(connection, &catalogue).await?,
        lines: lines_of(connection, &over_committed(&rows)).await?,
        rows,
        catalogue,
    };
    Ok((did, found))
}

/// The levels of which more was promised than there was, before one of these commits or after, and the first such revision.
fn over_committed(rows: &[FeedRow]) -> BTreeMap<InventoryId, Revision> {
    let mut found = BTreeMap::new();
    if !rows.iter().any(FeedRow::has_reserved) {
        return found;
    }
    for of_commit in rows.chunk_by(|a, b| a.version == b.version) {
        for change in change::fold(of_commit.iter().map(|row| row.row)) {
            if change.is_over_committed() {
                found.entry(change.inventory_id).or_insert(change.revision);
            }
        }
    }
    found
}

/// The reservations of these levels that are active, or were until that revision or a later one.
async fn lines_of(
    connection: &mut PgConnection,
    levels: &BTreeMap<InventoryId, Revision>,
) -> Result<HashMap<InventoryId, Vec<Line>>, StoreError> {
    let mut lines: HashMap<InventoryId, Vec<Line>> = HashMap::new();
    if levels.is_empty() {
        return Ok(lines);
    }
    let levels = levels.iter().map(|(level, revision)| (level.0, revision.0));
    let (inventory_ids, revisions): (Vec<i64>, Vec<i64>) = levels.unzip();
    // What has ended since is found by the rows of the ledger that say so: there is no index of everything that ever was reserved.
    let rows = sqlx::query!(
        r#"select r.inventory_id as "inventory_id!", r.reservation_id as "reservation_id!", r.quantity as "quantity!",
            m.version as made, e.version as "ended?"
        from unnest($1::bigint[], $2::bigint[]) as w (inventory_id, revision)
        cross join lateral (
            select * from (
                select r.* from reservations r where r.state = 1 and r.inventory_id = w.inventory_id
                union
                select r.* from stock_ledger g
                join reservations r on r.reservation_id = g.cause_id and r.inventory_id = g.inventory_id and r.state <> 1
                where g.inventory_id = w.inventory_id and g.revision >= w.revision and g.kind in (10, 11, 12)
            ) either
            order by created_at desc, reservation_id desc limit $3
        ) r
        join stock_commits m on m.batch = r.made_in
        left join stock_commits e on e.batch = r.ended_in
        order by r.inventory_id, r.created_at desc, r.reservation_id desc"#,
        &inventory_ids,
        &revisions,
        LINES_OF_LEVEL_MAX
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let reservation = ReservationId::new(row.reservation_id);
        let made = Version::new(row.made);
        let (reservation, made) = reservation
            .zip(made)
            .ok_or(StoreError::Inconsistent("a reservation"))?;
        lines
            .entry(InventoryId(row.inventory_id))
            .or_default()
            .push(Line {
                reservation,
                quantity: row.quantity,
                made,
                ended: row.ended.and_then(Version::new),
            });
    }
    Ok(lines)
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
    tx: &mut Tx<'_>,
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
            c.version, k.product_id, k.warehouse_id, k.code, k.name, k.min_stock, k.reorder_point, k.is_archived
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

/// What is available in all warehouses of the products with a reorder point, and of those that these changes are of. As the ledger
/// has it: what is due comes back with the commit that says so.
async fn available(
    tx: &mut Tx<'_>,
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
    keys: &Keys,
    after: Version,
    to: Version,
) -> Result<(Vec<FeedRow>, Known), StoreError> {
    // One row of arrays comes back: a row for each change would cost both sides more than finding it.
    let read = sqlx::query!(
        r#"select coalesce(array_agg(c.version), '{}') as "versions!", coalesce(array_agg(g.inventory_id), '{}') as "inventory_ids!",
            coalesce(array_agg(g.cause_id), '{}') as "causes!: Vec<Option<Uuid>>",
            coalesce(array_agg(g.kind), '{}') as "kinds!", coalesce(array_agg(g.on_hand_delta), '{}') as "on_hand_deltas!",
            coalesce(array_agg(g.reserved_delta), '{}') as "reserved_deltas!", coalesce(array_agg(g.on_hand_after), '{}') as "on_hand!",
            coalesce(array_agg(g.reserved_after), '{}') as "reserved!", coalesce(array_agg(g.revision), '{}') as "revisions!"
        from stock_commits c
        join stock_ledger g on g.batch = c.batch
        where c.version > $1 and c.version <= $2"#,
        after.number(),
        to.number()
    )
    .fetch_one(&mut *connection)
    .await?;
    let found = keys.find(connection, &read.inventory_ids).await?;
    let known = keys.known();
    let mut rows = Vec::with_capacity(read.versions.len());
    for (place, version) in read.versions.into_iter().enumerate() {
        // All arrays are of one length: they are columns of the same rows.
        let inventory_id = InventoryId(read.inventory_ids[place]);
        let key = known.get(&inventory_id);
        // A row without its level is for `verify` to tell of.
        let Some(key) = key.or_else(|| found.get(&inventory_id)) else {
            continue;
        };
        rows.push(FeedRow {
            version: Version::new(version).ok_or(StoreError::Inconsistent("a version"))?,
            movement: read.causes[place]
                .filter(|_| kinds::is_of_movement(read.kinds[place]))
                .and_then(MovementId::new),
            row: LedgerRow {
                inventory_id,
                key: *key,
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
    drop(known);
    rows.sort_unstable_by_key(|row| (row.version, row.row.key));
    Ok((rows, found))
}

async fn read_catalogue(
    connection: &mut PgConnection,
    after: Version,
    to: Version,
) -> Result<Vec<(Version, CatalogueChange)>, StoreError> {
    let rows = sqlx::query_as!(
        ChangeRow,
        "select c.version, k.product_id, k.warehouse_id, k.code, k.name, k.min_stock, k.reorder_point,
            k.is_archived
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
    is_archived: bool,
}

impl ChangeRow {
    fn into_change(self) -> Result<(Version, CatalogueChange), StoreError> {
        let (code, name) = (self.code.as_deref(), self.name.as_deref());
        let of_product = self.product_id.and_then(|id| {
            let product = product(id, code, name, self.min_stock, self.reorder_point);
            product.map(if self.is_archived {
                CatalogueChange::Archived
            } else {
                CatalogueChange::Product
            })
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

async fn named_products(tx: &mut Tx<'_>) -> Result<Vec<Product>, StoreError> {
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

async fn named_warehouses(tx: &mut Tx<'_>) -> Result<Vec<Warehouse>, StoreError> {
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
