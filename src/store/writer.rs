//! The transaction that writes, step by step.
//!
//! Lock order, ascending inside each: movements, levels, products and warehouses, positions, the publish lock. Every statement
//! below locks in that order because its rows are offered sorted and the steps are called in the order they stand here.
//! Moving the positions on, publishing, waking the followers and committing travel to the server in one message, so that no client can stop
//! between them while it holds up the order of commits.

use std::{fmt, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Either, PgConnection, Row,
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    PgTime, StoreError,
    catalogue::{CatalogueChange, warehouse},
    columns::{LedgerColumns, LineColumns},
    positions::{self, Advance, LaneNumber},
};
use crate::domain::{
    CommitPoint, MovementId, MovementLine, ProductId, Revision, SideReport, Sides, StockKey, Tag,
    Timestamp, TraceParent, Version, WarehouseCode, WarehouseId, batch::Change, batch::LineId,
};

/// A connection that writes, one transaction at a time. It is made when it is needed and given up after a failure, so
/// whatever state a failure left behind goes with it.
pub struct Writer {
    options: PgConnectOptions,
    idle: Option<Idle>,
}

/// Without the password, which the options hold.
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// A connection between two transactions.
#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    /// The next one was begun with the end of the one before, then.
    begun: Option<(BatchNumber, Instant)>,
}

impl Idle {
    fn is_of_use(&self) -> bool {
        let begun_at = self.begun.map(|(_, at)| at);
        begun_at.is_none_or(|at| at.elapsed() < BEGUN_FOR_MAX)
    }
}

/// The number a transaction's ledger rows go under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNumber(pub i64);

/// What tells a commit from every other, whatever becomes of the database.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub batch: BatchNumber,
    pub tag: Tag,
}

/// What every transaction says at its ends, read and planned for a connection and not each time.
const PREPARE: &str = "prepare stock_draw as select nextval('stock_batches');
    prepare stock_publish(bigint, integer, timestamptz) as select * from stock_publish($1, $2, $3, null)";
/// Longest a transaction that was begun ahead is gone on with: a while later the server ends it (`WRITER_IDLE_MAX`).
const BEGUN_FOR_MAX: Duration = Duration::from_secs(1);
/// Begins a transaction and draws its batch number.
const BEGIN: &str = "begin; execute stock_draw";

/// A transaction under way. Dropped without a commit it takes its connection with it, and the server rolls it back.
#[derive(Debug)]
pub struct WriteTx<'w> {
    connection: PgConnection,
    home: &'w mut Option<Idle>,
    batch: BatchNumber,
    /// What the commit is known by, beside its number.
    tag: Tag,
    trace: Option<TraceParent>,
    /// Of the commit it will be.
    levels_changed_at: Option<Timestamp>,
    /// Statements that are said with its end: nothing, or how far it brings a lane.
    at_end: String,
}

/// A level as the batch left it.
#[derive(Clone, Copy, Debug)]
pub struct LevelAfter {
    pub inventory_id: i64,
    pub key: StockKey,
    pub on_hand: i64,
    pub reserved: i64,
    pub revision: Revision,
}

/// A commit that was just made, and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub point: CommitPoint,
    pub previous: CommitPoint,
    pub committed_at: Timestamp,
    /// As in [`Commit`](super::commits::Commit).
    pub levels_changed_at: Option<Timestamp>,
    /// Of one that is recorded.
    pub trace: Option<TraceParent>,
}

impl Writer {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            idle: None,
        }
    }

    async fn connect(&self) -> Result<Idle, StoreError> {
        // Apart: it is seldom, and larger than all the rest.
        let mut connection = Box::pin(self.options.connect()).await?;
        sqlx::raw_sql(PREPARE).execute(&mut connection).await?;
        Ok(Idle {
            connection,
            begun: None,
        })
    }

    /// Begins a transaction and draws its batch number.
    pub async fn begin(&mut self) -> Result<WriteTx<'_>, StoreError> {
        let mut idle = if let Some(idle) = self.idle.take().filter(Idle::is_of_use) {
            idle
        } else {
            self.connect().await?
        };
        let batch = if let Some((batch, _)) = idle.begun {
            batch
        } else {
            let drawn = sqlx::raw_sql(BEGIN).fetch_one(&mut idle.connection).await?;
            BatchNumber(drawn.try_get(0)?)
        };
        Ok(WriteTx {
            connection: idle.connection,
            home: &mut self.idle,
            batch,
            tag: Tag(rand::random()),
            trace: None,
            levels_changed_at: None,
            at_end: String::new(),
        })
    }

    /// Leaves no transaction open that was begun ahead: gives it back, within that time.
    pub async fn rest(&mut self, limit: Duration) {
        let rested = timeout(limit, self.give_back()).await;
        if let Err(error) = rested.unwrap_or(Err(StoreError::NoAnswer(limit))) {
            tracing::debug!(%error, "a transaction that was begun ahead was lost");
        }
    }

    async fn give_back(&mut self) -> Result<(), StoreError> {
        self.idle.take_if(|idle| !idle.is_of_use());
        let is_begun = self.idle.as_ref().is_some_and(|idle| idle.begun.is_some());
        if is_begun {
            self.begin().await?.rollback().await?;
        }
        Ok(())
    }
}

impl WriteTx<'_> {
    pub fn batch(&self) -> BatchNumber {
        self.batch
    }

    /// What its commit can be told by, once it has been sent.
    pub fn mark(&self) -> Mark {
        Mark {
            batch: self.batch,
            tag: self.tag,
        }
    }

    /// Whoever follows the commit is to go on with this trace.
    pub fn record(&mut self, trace: Option<TraceParent>) {
        self.trace = trace;
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// All levels that it changes were changed, at that time.
    pub(super) fn changed_levels(&mut self, at: Timestamp) -> Result<(), StoreError> {
        match self.levels_changed_at.replace(at) {
            None => Ok(()),
            Some(_) => Err(StoreError::Inconsistent("levels that change twice")),
        }
    }

    /// Creates the products that are not there, with the id alone. `products` is sorted.
    pub async fn ensure_products(&mut self, products: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into products (product_id)
            select id from unnest($1::uuid[]) id order by id
            on conflict do nothing",
            products
        )
        .execute(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        Ok(())
    }

    /// Creates the warehouses that are not there, with the id alone. `warehouses` is sorted.
    pub async fn ensure_warehouses(&mut self, warehouses: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into warehouses (warehouse_id)
            select id from unnest($1::uuid[]) id order by id
            on conflict do nothing",
            warehouses
        )
        .execute(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        Ok(())
    }

    /// Gives each warehouse that has no code the one offered, if no warehouse has that. Returns what was given.
    /// A code that another transaction takes at the same moment fails nothing: the row is left alone.
    pub async fn offer_codes(
        &mut self,
        codes: &[(WarehouseId, WarehouseCode)],
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        let ids: Vec<Uuid> = codes
            .iter()
            .map(|(warehouse, _)| warehouse.uuid())
            .collect();
        let texts: Vec<String> = codes
            .iter()
            .map(|(_, code)| code.as_str().to_owned())
            .collect();
        let wanting = sqlx::query_scalar!(
            r#"select count(*) as "count!" from unnest($1::uuid[], $2::text[]) offer (id, code)
            join warehouses w on w.warehouse_id = offer.id and w.code is null
            where not exists (select from warehouses other where other.code = offer.code)"#,
            &ids,
            &texts
        )
        .fetch_one(&mut self.connection)
        .await?;
        if wanting == 0 {
            return Ok(Vec::new());
        }
        self.lock_codes().await?;
        let given = sqlx::query!(
            "with given as (
            update warehouses w set code = offer.code
            from (
                select distinct on (code) id, code
                from (
                    select distinct on (id) id, code from unnest($1::uuid[], $2::text[]) o (id, code)
                    where not exists (select from warehouses other where other.code = o.code)
                    order by id, code
                ) one_each
                order by code, id
            ) offer
            where w.warehouse_id = offer.id and w.code is null
            returning w.warehouse_id, w.code, w.name
            )
            insert into catalogue_changes (batch, warehouse_id, code, name)
            select $3, warehouse_id, code, name from given
            returning warehouse_id as \"warehouse_id!\", code, name",
            &ids,
            &texts,
            self.batch.0
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        let given = given.into_iter().filter_map(|row| {
            warehouse(row.warehouse_id, row.code.as_deref(), row.name.as_deref())
        });
        Ok(given.map(CatalogueChange::Warehouse).collect())
    }

    /// Whoever gives codes to warehouses does so alone: two transactions with one code for two warehouses would else end in
    /// an error. Who holds the lock updates only rows that are committed, so it waits for nobody who waits for it.
    pub(super) async fn lock_codes(&mut self) -> Result<(), StoreError> {
        sqlx::query!("select pg_advisory_xact_lock(hashtext('warehouse_codes'))")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Offers the sides of each line; a side that is already set stays, and so does a line of which something was taken back.
    /// Returns, for the lines of which something was new, which sides were; every line is locked. `lines` is sorted by id, and so
    /// is what comes back: rows are written, and returned, in the order in which the ordered select offers them.
    pub async fn upsert_movements<'l>(
        &mut self,
        lines: impl ExactSizeIterator<Item = (LineId, &'l MovementLine)>,
    ) -> Result<Vec<(LineId, Sides)>, StoreError> {
        let mut columns = LineColumns::with_capacity(lines.len());
        for (id, line) in lines {
            columns.push(id, line);
        }
        // One row of arrays comes back: a row for each line would cost both sides more than writing it.
        let taken = sqlx::query!(
            r#"with taken as (
            insert into movements as m (movement_id, product_id,
                departure_at, departure_quantity, departure_warehouse_id,
                arrival_at, arrival_quantity, arrival_warehouse_id, sides_set_last)
            select unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::timestamptz[]), unnest($4::bigint[]), unnest($5::uuid[]),
                unnest($6::timestamptz[]), unnest($7::bigint[]), unnest($8::uuid[]), unnest($9::smallint[])
            order by 1, 2
            on conflict (movement_id, product_id) do update set
                departure_at = coalesce(m.departure_at, excluded.departure_at),
                departure_quantity = coalesce(m.departure_quantity, excluded.departure_quantity),
                departure_warehouse_id = coalesce(m.departure_warehouse_id, excluded.departure_warehouse_id),
                arrival_at = coalesce(m.arrival_at, excluded.arrival_at),
                arrival_quantity = coalesce(m.arrival_quantity, excluded.arrival_quantity),
                arrival_warehouse_id = coalesce(m.arrival_warehouse_id, excluded.arrival_warehouse_id),
                sides_set_last = case when m.departure_at is null and excluded.departure_at is not null then 1 else 0 end
                    + case when m.arrival_at is null and excluded.arrival_at is not null then 2 else 0 end
            where m.sides_voided = 0
                and ((m.departure_at is null and excluded.departure_at is not null)
                    or (m.arrival_at is null and excluded.arrival_at is not null))
            returning movement_id, product_id, sides_set_last
            )
            select coalesce(array_agg(movement_id), '{}') as "movements!", coalesce(array_agg(product_id), '{}') as "products!",
                coalesce(array_agg(sides_set_last), '{}') as "sides!"
            from taken"#,
            &columns.movements,
            &columns.products,
            &columns.departed_at as _,
            &columns.departed as _,
            &columns.departed_from as _,
            &columns.arrived_at as _,
            &columns.arrived as _,
            &columns.arrived_in as _,
            &columns.sides
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        let ids = taken.movements.into_iter().zip(taken.products);
        ids.zip(taken.sides)
            .map(|((movement, product), sides)| {
                Ok((line_id(movement, product)?, Sides::from_bits(sides)))
            })
            .collect()
    }

    /// Adds to each key's level, creating the ones that are not there. Locks and creates in one ordered statement:
    /// locking the existing ones first and inserting the others later would deadlock. `deltas` is sorted by key and names
    /// each once; there is a level for each, in the same order.
    pub async fn add_to_levels(
        &mut self,
        deltas: &[(StockKey, i64)],
    ) -> Result<Vec<LevelAfter>, StoreError> {
        let warehouses: Vec<Uuid> = deltas.iter().map(|(key, _)| key.warehouse.uuid()).collect();
        let products: Vec<Uuid> = deltas.iter().map(|(key, _)| key.product.uuid()).collect();
        let units: Vec<i64> = deltas.iter().map(|(_, delta)| *delta).collect();
        let after = sqlx::query!(
            r#"with after as (
            insert into stock_levels as l (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
            select w, p, delta, 0, 1, statement_timestamp()
            from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as d (w, p, delta)
            order by w, p
            on conflict (warehouse_id, product_id) do update set
                on_hand = l.on_hand + excluded.on_hand,
                revision = l.revision + 1,
                updated_at = greatest(l.updated_at, statement_timestamp())
            returning inventory_id, on_hand, reserved, revision
            )
            select coalesce(array_agg(inventory_id), '{}') as "inventory_ids!", coalesce(array_agg(on_hand), '{}') as "on_hand!",
                coalesce(array_agg(reserved), '{}') as "reserved!", coalesce(array_agg(revision), '{}') as "revisions!",
                statement_timestamp() as "at!: PgTime"
            from after"#,
            &warehouses,
            &products,
            &units
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        if after.inventory_ids.len() != deltas.len() {
            return Err(StoreError::Inconsistent("a level that was not returned"));
        }
        self.changed_levels(after.at.0)?;
        let numbers = after.inventory_ids.into_iter().zip(after.revisions);
        let amounts = after.on_hand.into_iter().zip(after.reserved);
        let levels = deltas.iter().zip(numbers.zip(amounts));
        let level =
            |((key, _), ((inventory_id, revision), (on_hand, reserved))): (&(StockKey, _), _)| {
                LevelAfter {
                    inventory_id,
                    key: *key,
                    on_hand,
                    reserved,
                    revision: Revision(revision),
                }
            };
        Ok(levels.map(level).collect())
    }

    /// Appends one row per change, each with the level as this batch left it.
    pub async fn append_ledger(
        &mut self,
        rows: impl ExactSizeIterator<Item = (&Change, &LevelAfter)>,
    ) -> Result<(), StoreError> {
        let mut columns = LedgerColumns::with_capacity(rows.len());
        for (change, level) in rows {
            columns.push(change, level);
        }
        // Unnested side by side, the arrays are read as they go; as a table each is first copied out.
        // Not copied in, although that is cheaper: a client that stops in the middle of COPY holds its locks for good, for
        // no timeout before PostgreSQL 17 ends it.
        sqlx::query!(
            "insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta,
                on_hand_after, reserved_after, occurred_at, cause_id, kind)
            select $1, unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::bigint[]), 0, unnest($5::bigint[]),
                unnest($6::bigint[]), unnest($7::timestamptz[]), unnest($8::uuid[]), unnest($9::smallint[])",
            self.batch.0,
            &columns.inventory_ids,
            &columns.revisions,
            &columns.deltas,
            &columns.on_hand,
            &columns.reserved,
            &columns.occurred_at as _,
            &columns.causes,
            &columns.kinds
        )
        .execute(&mut self.connection)
        .await
        .map_err(StoreError::of_data)?;
        Ok(())
    }

    /// Moves the ingest positions on with the end of the transaction, each only from where this consumer left it: else that fails.
    /// `advances` is sorted by partition.
    pub fn advance(&mut self, topic: &str, lane: LaneNumber, advances: &[Advance]) {
        self.at_end = positions::advance(topic, lane, advances);
    }

    /// Takes the next version, wakes the followers and commits.
    pub async fn publish(self) -> Result<Published, StoreError> {
        self.publish_and("").await
    }

    /// The same, and if more has come the next transaction begins in the same message.
    pub async fn publish_and_begin_if(self, comes_more: bool) -> Result<Published, StoreError> {
        self.publish_and(if comes_more { BEGIN } else { "" }).await
    }

    async fn publish_and(mut self, next: &str) -> Result<Published, StoreError> {
        let (batch, tag) = (self.batch.0, self.tag.0.cast_signed());
        let levels_changed_at = match self.levels_changed_at {
            None => "null".to_owned(),
            Some(at) => format!("'{at}'"),
        };
        let publish = match self.trace {
            None => format!("execute stock_publish({batch}, {tag}, {levels_changed_at})"),
            // Seldom enough to be planned each time; digits and dashes are all that it writes.
            Some(trace) => {
                format!(
                    "select * from stock_publish({batch}, {tag}, {levels_changed_at}, '{trace}')"
                )
            }
        };
        let advance = &self.at_end;
        let message = format!("{advance}{publish}; commit; {next}");
        let committed_with = if advance.is_empty() { 2 } else { 3 };
        let mut answers = sqlx::raw_sql(AssertSqlSafe(message)).fetch_many(&mut self.connection);
        let (mut rows, mut ended) = (Vec::with_capacity(2), 0);
        let failed = loop {
            match answers.try_next().await {
                Ok(Some(Either::Left(_))) => ended += 1,
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        drop(answers);
        let is_committed = ended >= committed_with;
        let row = match (rows.first(), failed) {
            (Some(row), None) => {
                let begun = rows.get(1).map(|row| row.try_get(0)).transpose()?;
                *self.home = Some(Idle {
                    connection: self.connection,
                    begun: begun.map(|batch| (BatchNumber(batch), Instant::now())),
                });
                row
            }
            (Some(row), Some(_)) if is_committed => row,
            (_, error) => {
                let error = error.unwrap_or(sqlx::Error::RowNotFound);
                return Err(StoreError::of_end(error));
            }
        };
        let version: i64 = row.try_get("version")?;
        Ok(Published {
            point: commit_point(version, row.try_get("tag")?)?,
            previous: commit_point(version - 1, row.try_get("previous_tag")?)?,
            committed_at: Timestamp::from_micros(row.try_get("committed_at_us")?),
            levels_changed_at: self.levels_changed_at,
            trace: self.trace,
        })
    }

    /// Commits what nobody reads (positions): there is nothing to publish.
    pub async fn commit_silently(self) -> Result<(), StoreError> {
        let commit = format!("{}commit", self.at_end);
        self.end(&commit).await
    }

    /// Gives everything back and keeps the connection.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.end("rollback").await
    }

    async fn end(mut self, how: &str) -> Result<(), StoreError> {
        sqlx::raw_sql(AssertSqlSafe(how))
            .execute(&mut self.connection)
            .await
            .map_err(StoreError::of_end)?;
        *self.home = Some(Idle {
            connection: self.connection,
            begun: None,
        });
        Ok(())
    }

    /// Closes the connection at once, as a client that dies would.
    pub async fn abandon(self) {
        drop(self.connection.close_hard().await);
    }
}

/// A row of `movements`.
pub(super) struct LineRow {
    pub(super) movement_id: Uuid,
    pub(super) product_id: Uuid,
    pub(super) departure_at: Option<PgTime>,
    pub(super) departure_quantity: Option<i64>,
    pub(super) departure_warehouse_id: Option<Uuid>,
    pub(super) arrival_at: Option<PgTime>,
    pub(super) arrival_quantity: Option<i64>,
    pub(super) arrival_warehouse_id: Option<Uuid>,
}

impl LineRow {
    pub(super) fn into_line(self) -> Result<(LineId, MovementLine), StoreError> {
        let id = line_id(self.movement_id, self.product_id)?;
        let departure = side_report(
            self.departure_at,
            self.departure_quantity,
            self.departure_warehouse_id,
        )?;
        let arrival = side_report(
            self.arrival_at,
            self.arrival_quantity,
            self.arrival_warehouse_id,
        )?;
        Ok((
            id,
            MovementLine {
                product: id.1,
                departure,
                arrival,
            },
        ))
    }
}

pub(super) fn side_report(
    at: Option<PgTime>,
    quantity: Option<i64>,
    warehouse: Option<Uuid>,
) -> Result<Option<SideReport>, StoreError> {
    let (Some(at), Some(quantity), Some(warehouse)) = (at, quantity, warehouse) else {
        return Ok(None);
    };
    let report = WarehouseId::new(warehouse)
        .zip(crate::domain::Quantity::new(quantity))
        .map(|(warehouse, quantity)| SideReport {
            warehouse,
            at: at.0,
            quantity,
        });
    report
        .map(Some)
        .ok_or(StoreError::Inconsistent("a side of a movement"))
}

pub(super) fn line_id(movement: Uuid, product: Uuid) -> Result<LineId, StoreError> {
    MovementId::new(movement)
        .zip(ProductId::new(product))
        .ok_or(StoreError::Inconsistent("a movement's ids"))
}

pub(super) fn stock_key(warehouse: Uuid, product: Uuid) -> Result<StockKey, StoreError> {
    WarehouseId::new(warehouse)
        .zip(ProductId::new(product))
        .map(|(warehouse, product)| StockKey { warehouse, product })
        .ok_or(StoreError::Inconsistent("a level's ids"))
}

/// The database keeps the tag's 32 bits as a signed number.
pub(super) fn commit_point(version: i64, tag: i32) -> Result<CommitPoint, StoreError> {
    let version = Version::new(version).ok_or(StoreError::Inconsistent("a version"))?;
    Ok(CommitPoint {
        version,
        tag: Tag(tag.cast_unsigned()),
    })
}
