//! What `verify` asks: the tables against each other, in slices of one statement each.
//!
//! No statement holds a snapshot for long, so dead rows do not pile up under a running service; each slice is true as of
//! one moment, and says which where slices have to be put together.

use uuid::Uuid;

use super::{
    PgTime, Store, StoreError, kinds,
    writer::{LineRow, stock_key},
};
use crate::domain::{MovementLine, Side, StockKey, Version, batch::LineId};

/// A level beside what its ledger rows add up to.
#[derive(Clone, Copy, Debug)]
pub struct LevelSlice {
    pub inventory_id: i64,
    pub key: StockKey,
    pub on_hand: i64,
    pub reserved: i64,
    pub revision: i64,
    /// The sums of its ledger rows and their last revision; `None` where there are no rows.
    pub ledger: Option<LedgerSums>,
    /// The first revision whose state is not the one before plus its changes.
    pub broken_revision: Option<i64>,
    pub has_catalogue_rows: bool,
    /// What its active reservations add up to.
    pub promised: i64,
    /// The first reservation whose ledger rows do not add up to what it holds.
    pub broken_reservation: Option<Uuid>,
}

/// What the ledger rows of one key add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSums {
    pub on_hand: i64,
    pub reserved: i64,
    pub revision: i64,
}

/// A row of the ledger that says something else than the rest of the database.
#[derive(Clone, Copy, Debug)]
pub struct StrayRow {
    pub version: i64,
    pub inventory_id: i64,
    pub cause_id: Option<Uuid>,
    pub kind: i16,
    pub on_hand_delta: i64,
}

/// A number and a sum of hashes of a set of movement sides: equal sets have equal digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub sides: i64,
    pub hash: i64,
}

/// The sides in one of [`BUCKETS`] ranges of movement ids, as of that version.
#[derive(Clone, Debug)]
pub struct BucketSlice {
    pub as_of: Version,
    pub digest: Digest,
    /// The first lines that tell of a side taken back that was not kept, by movement and product.
    pub other_voids: Vec<(Uuid, Uuid)>,
}

/// A side that was taken back, and that the ledger or its line says nothing of.
#[derive(Clone, Copy, Debug)]
pub struct StrayVoid {
    pub side: SideId,
    pub has_ledger_row: bool,
    pub is_told: bool,
}

/// The place of a side that was taken back among all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct VoidPlace {
    side: SideId,
    batch: i64,
}

/// Most lines named of one bucket.
const STRAYS_MAX: i32 = 1_000;

/// Movement ids by their first byte.
pub const BUCKETS: usize = 256;

/// A side of a line, as the ledger's rows and the movements both tell it.
pub type SideId = (Uuid, Uuid, i16);

impl Store {
    /// At most `limit` levels after that id, each beside its ledger.
    #[expect(clippy::too_many_lines, reason = "one statement")]
    pub async fn level_slice(&self, after: i64, limit: i64) -> Result<Vec<LevelSlice>, StoreError> {
        let rows = sqlx::query!(
            r#"with slice as (
                select * from stock_levels where inventory_id > $1 order by inventory_id limit $2
            ), states as (
                select inventory_id, revision, sum(on_hand_delta) as on_hand_delta, sum(reserved_delta) as reserved_delta,
                    min(on_hand_after) as on_hand_after, max(on_hand_after) as on_hand_after_max,
                    min(reserved_after) as reserved_after, max(reserved_after) as reserved_after_max
                from stock_ledger
                where inventory_id > $1 and inventory_id <= (select max(inventory_id) from slice)
                group by inventory_id, revision
            ), steps as (
                select *,
                    lag(revision, 1, 0::bigint) over by_key as revision_before,
                    lag(on_hand_after, 1, 0::bigint) over by_key as on_hand_before,
                    lag(reserved_after, 1, 0::bigint) over by_key as reserved_before
                from states window by_key as (partition by inventory_id order by revision)
            ), sums as (
                select inventory_id, sum(on_hand_delta)::bigint as on_hand, sum(reserved_delta)::bigint as reserved,
                    max(revision) as revision,
                    min(revision) filter (where revision <> revision_before + 1
                        or on_hand_after <> on_hand_before + on_hand_delta or on_hand_after <> on_hand_after_max
                        or reserved_after <> reserved_before + reserved_delta or reserved_after <> reserved_after_max
                    ) as broken_revision
                from steps group by inventory_id
            ), told as (
                select inventory_id, cause_id as reservation_id, sum(reserved_delta)::bigint as units
                from stock_ledger
                where inventory_id > $1 and inventory_id <= (select max(inventory_id) from slice) and kind in (9, 10, 11, 12)
                group by inventory_id, cause_id
            ), broken as (
                select t.inventory_id, min(t.reservation_id::text)::uuid as reservation
                from told t left join reservations r using (reservation_id, inventory_id)
                where t.units is distinct from case when r.state = 1 then r.quantity else 0 end
                group by t.inventory_id
            )
            select l.inventory_id, l.warehouse_id, l.product_id, l.on_hand, l.reserved, l.revision,
                p.promised as "promised!", b.reservation as "broken_reservation?",
                s.on_hand as "ledger_on_hand?", s.reserved as "ledger_reserved?", s.revision as "ledger_revision?",
                s.broken_revision as "broken_revision?",
                (exists (select from products p where p.product_id = l.product_id)
                    and exists (select from warehouses w where w.warehouse_id = l.warehouse_id)) as "has_catalogue_rows!"
            from slice l left join sums s using (inventory_id) left join broken b using (inventory_id)
            cross join lateral (
                select coalesce(sum(quantity), 0)::bigint as promised from reservations r
                where r.state = 1 and r.inventory_id = l.inventory_id
            ) p
            order by l.inventory_id"#,
            after,
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(LevelSlice {
                    inventory_id: row.inventory_id,
                    key: stock_key(row.warehouse_id, row.product_id)?,
                    on_hand: row.on_hand,
                    reserved: row.reserved,
                    revision: row.revision,
                    ledger: row
                        .ledger_revision
                        .zip(row.ledger_on_hand)
                        .zip(row.ledger_reserved)
                        .map(|((revision, on_hand), reserved)| LedgerSums {
                            on_hand,
                            reserved,
                            revision,
                        }),
                    broken_revision: row.broken_revision,
                    has_catalogue_rows: row.has_catalogue_rows,
                    promised: row.promised,
                    broken_reservation: row.broken_reservation,
                })
            })
            .collect()
    }

    /// How many sides there are of the movements whose id begins with that byte, and their hash.
    pub async fn movement_digest(&self, bucket: u8) -> Result<BucketSlice, StoreError> {
        let (from, to) = bucket_bounds(bucket);
        let row = sqlx::query!(
            r#"select (select max(version) from stock_commits) as version,
                count(departure_at) + count(arrival_at) as "sides!",
                mod(
                    coalesce(sum(uuid_hash_extended(movement_id, uuid_hash_extended(product_id, 1)))
                        filter (where departure_at is not null), 0)
                    + coalesce(sum(uuid_hash_extended(movement_id, uuid_hash_extended(product_id, 2)))
                        filter (where arrival_at is not null), 0),
                    4611686018427387904
                )::bigint as "hash!",
                coalesce((array_agg(movement_id order by movement_id, product_id) filter (where is_other))[:$3], '{}') as "other_movements!",
                coalesce((array_agg(product_id order by movement_id, product_id) filter (where is_other))[:$3], '{}') as "other_products!"
            from movements m
            cross join lateral (
                select case when m.sides_voided = 0 then false else m.sides_voided <> coalesce((
                    select bit_or(v.side) from movement_voids v where v.movement_id = m.movement_id and v.product_id = m.product_id
                ), 0) end as is_other
            ) voids
            where movement_id >= $1 and movement_id <= $2"#,
            from,
            to,
            STRAYS_MAX
        )
        .fetch_one(&self.scans)
        .await?;
        let as_of = row
            .version
            .and_then(Version::new)
            .ok_or(StoreError::NO_COMMITS)?;
        Ok(BucketSlice {
            as_of,
            digest: Digest {
                sides: row.sides,
                hash: row.hash,
            },
            other_voids: row
                .other_movements
                .into_iter()
                .zip(row.other_products)
                .collect(),
        })
    }

    /// Of the `limit` sides taken back after that place: those that no ledger row confirms, or their line does not tell; and where
    /// to go on. `None` after the last.
    pub async fn stray_voids(
        &self,
        after: VoidPlace,
        limit: i64,
    ) -> Result<Option<(Vec<StrayVoid>, VoidPlace)>, StoreError> {
        let rows = sqlx::query!(
            r#"select v.movement_id, v.product_id, v.side, v.batch, exists (
                    select from stock_ledger g join stock_levels l on l.inventory_id = g.inventory_id
                    where g.batch = v.batch and g.kind = v.side + 12 and g.cause_id = v.movement_id and g.occurred_at = v.at
                        and abs(g.on_hand_delta) = v.quantity and l.product_id = v.product_id and l.warehouse_id = v.warehouse_id
                ) as "has_ledger_row!",
                exists (
                    select from movements m where m.movement_id = v.movement_id and m.product_id = v.product_id
                        and m.sides_voided & v.side <> 0
                ) as "is_told!"
            from movement_voids v
            where (v.movement_id, v.product_id, v.side, v.batch) > ($1, $2, $3, $4)
            order by v.movement_id, v.product_id, v.side, v.batch limit $5"#,
            after.side.0,
            after.side.1,
            after.side.2,
            after.batch,
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let next = VoidPlace {
            side: (last.movement_id, last.product_id, last.side),
            batch: last.batch,
        };
        let strays = rows.iter().map(|row| StrayVoid {
            side: (row.movement_id, row.product_id, row.side),
            has_ledger_row: row.has_ledger_row,
            is_told: row.is_told,
        });
        let strays = strays.filter(|stray| !stray.has_ledger_row || !stray.is_told);
        Ok(Some((strays.collect(), next)))
    }

    /// The same from the ledger (a side that was taken back counts as none), for the commits after `after` up to `to`: by
    /// bucket, of each only the commits up to its cut. Sums of slices are to be added, modulo 2^62.
    pub async fn ledger_digests(
        &self,
        after: Version,
        to: Version,
        cuts: &[i64],
    ) -> Result<Vec<(usize, Digest)>, StoreError> {
        let rows = sqlx::query!(
            r#"select get_byte(uuid_send(g.cause_id), 0) as "bucket!", sum(case when g.kind <= 2 then 1 else -1 end) as "sides!",
                mod(
                    sum(case
                        when g.kind <= 2 then uuid_hash_extended(g.cause_id, uuid_hash_extended(l.product_id, g.kind))
                        else -uuid_hash_extended(g.cause_id, uuid_hash_extended(l.product_id, g.kind - 12))
                    end::numeric),
                    4611686018427387904
                )::bigint as "hash!"
            from stock_commits c
            join stock_ledger g on g.batch = c.batch
            join stock_levels l on l.inventory_id = g.inventory_id
            where c.version > $1 and c.version <= $2 and g.kind in (1, 2, 13, 14)
                and c.version <= ($3::bigint[])[get_byte(uuid_send(g.cause_id), 0) + 1]
            group by 1"#,
            after.number(),
            to.number(),
            cuts
        )
        .fetch_all(&self.scans)
        .await?;
        let digest = |bucket, digest| Some((usize::try_from(bucket).ok()?, digest));
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                digest(
                    row.bucket,
                    Digest {
                        sides: row.sides,
                        hash: row.hash,
                    },
                )
            })
            .collect())
    }

    /// The rows of the commits after `after` up to `to` that no level, or no movement, reservation or note of a side that was
    /// taken back confirms, at most `limit`.
    pub async fn stray_rows(
        &self,
        after: Version,
        to: Version,
        limit: i64,
    ) -> Result<Vec<StrayRow>, StoreError> {
        let rows = sqlx::query_as!(
            StrayRow,
            "select c.version, g.inventory_id, g.cause_id, g.kind, g.on_hand_delta
            from stock_commits c
            join stock_ledger g on g.batch = c.batch
            left join stock_levels l on l.inventory_id = g.inventory_id
            left join movements m on g.kind in (1, 2) and m.movement_id = g.cause_id and m.product_id = l.product_id
            where c.version > $1 and c.version <= $2 and not coalesce(case
                when l.inventory_id is null then false
                when g.kind = 1 and (m.departure_warehouse_id, m.departure_quantity, m.departure_at)
                    is not distinct from (l.warehouse_id, -g.on_hand_delta, g.occurred_at) then true
                when g.kind = 2 and (m.arrival_warehouse_id, m.arrival_quantity, m.arrival_at)
                    is not distinct from (l.warehouse_id, g.on_hand_delta, g.occurred_at) then true
                when g.kind in (1, 2, 13, 14) then exists (
                    select from movement_voids v
                    where v.movement_id = g.cause_id and v.product_id = l.product_id
                        and v.side = case when g.kind in (1, 13) then 1 else 2 end
                        and v.warehouse_id = l.warehouse_id and v.at = g.occurred_at
                        and v.quantity = case when g.kind in (1, 14) then -g.on_hand_delta else g.on_hand_delta end
                        and (g.kind in (1, 2) or v.batch = g.batch)
                )
                when g.kind in (9, 10, 11, 12) then exists (
                    select from reservations r
                    where r.reservation_id = g.cause_id and r.inventory_id = g.inventory_id
                        and r.quantity = abs(g.reserved_delta)
                )
                else g.kind between 3 and 8 and g.cause_id is not null and g.reserved_delta = 0
            end, false) limit $3",
            after.number(),
            to.number(),
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        Ok(rows)
    }

    /// How the commits after `after` up to `to` break the order: how many are missing, and how many do not come later
    /// than the one before.
    pub async fn order_faults(
        &self,
        after: Version,
        to: Version,
    ) -> Result<(i64, i64), StoreError> {
        let row = sqlx::query!(
            r#"select count(*) as "commits!", count(*) filter (where committed_at <= committed_before) as "late!"
            from (
                select version, committed_at, lag(committed_at) over (order by version) as committed_before
                from stock_commits where version >= $1 and version <= $2
            ) c where version > $1"#,
            after.number(),
            to.number()
        )
        .fetch_one(&self.scans)
        .await?;
        Ok((to.number() - after.number() - row.commits, row.late))
    }

    /// Of the `limit` batches in the ledger from `from` on: those that no commit names, and where to go on.
    pub async fn unpublished_batches(
        &self,
        from: i64,
        limit: i64,
    ) -> Result<Option<(Vec<i64>, i64)>, StoreError> {
        let Some(first) = sqlx::query_scalar!(
            "select min(batch) from stock_ledger where batch >= $1",
            from
        )
        .fetch_one(&self.scans)
        .await?
        else {
            return Ok(None);
        };
        let next = first + limit;
        let batches = sqlx::query_scalar!(
            "select distinct g.batch from stock_ledger g
            where g.batch >= $1 and g.batch < $2
                and not exists (select from stock_commits c where c.batch = g.batch)",
            first,
            next
        )
        .fetch_all(&self.scans)
        .await?;
        Ok(Some((batches, next)))
    }

    /// Of at most `limit` reservations' lines after that one: those of no level, or that no row of the ledger made; and where to
    /// go on.
    pub async fn stray_reservations(
        &self,
        after: (Uuid, i64),
        limit: i64,
    ) -> Result<Option<(Vec<Uuid>, (Uuid, i64))>, StoreError> {
        let rows = sqlx::query!(
            r#"with page as materialized (
                select reservation_id, inventory_id, made_in from reservations
                where (reservation_id, inventory_id) > ($1, $2)
                order by reservation_id, inventory_id limit $3
            ), made as materialized (
                select batch, cause_id, inventory_id from stock_ledger
                where kind = 9 and batch = any(array(select distinct made_in from page))
            )
            select p.reservation_id, p.inventory_id, l.inventory_id is null or g.batch is null as "is_stray!"
            from page p
            left join stock_levels l on l.inventory_id = p.inventory_id
            left join made g on g.batch = p.made_in and g.cause_id = p.reservation_id and g.inventory_id = p.inventory_id
            order by p.reservation_id, p.inventory_id"#,
            after.0,
            after.1,
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let last = rows
            .last()
            .map(|row| (row.reservation_id, row.inventory_id));
        let stray = rows.iter().filter(|row| row.is_stray);
        let stray = stray.map(|row| row.reservation_id).collect();
        Ok(last.map(|last| (stray, last)))
    }

    /// Of at most `limit` orders after that one: those without a reservation; and where to go on.
    pub async fn stray_orders(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Option<(Vec<i64>, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"select o.order_id,
                exists (select from reservations r where r.reservation_id = o.reservation_id) as "has_reservation!"
            from orders o where o.order_id > $1 order by o.order_id limit $2"#,
            after,
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let last = rows.last().map(|row| row.order_id);
        let stray = rows.iter().filter(|row| !row.has_reservation);
        let stray = stray.map(|row| row.order_id).collect();
        Ok(last.map(|last| (stray, last)))
    }

    /// The sides of one bucket by the ledger, for the commits after `after` up to `to`: how often each was reported and taken,
    /// less how often it was taken back.
    pub async fn ledger_sides(
        &self,
        bucket: u8,
        after: Version,
        to: Version,
    ) -> Result<Vec<(SideId, i64)>, StoreError> {
        let (first, last) = bucket_bounds(bucket);
        let rows = sqlx::query!(
            r#"select g.cause_id as "movement_id!", l.product_id, (case when g.kind <= 2 then g.kind else g.kind - 12 end)::smallint as "kind!",
                sum(case when g.kind <= 2 then 1 else -1 end) as "times!"
            from stock_commits c
            join stock_ledger g on g.batch = c.batch
            join stock_levels l on l.inventory_id = g.inventory_id
            where c.version > $1 and c.version <= $2 and g.cause_id >= $3 and g.cause_id <= $4
                and g.kind in (1, 2, 13, 14)
            group by 1, 2, 3"#,
            after.number(),
            to.number(),
            first,
            last
        )
        .fetch_all(&self.scans)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| ((row.movement_id, row.product_id, row.kind), row.times))
            .collect())
    }

    /// At most `limit` lines with a side after that one, in the order of their ids.
    pub async fn line_slice(
        &self,
        after: (Uuid, Uuid),
        limit: i64,
    ) -> Result<Vec<(LineId, MovementLine)>, StoreError> {
        let rows = sqlx::query_as!(
            LineRow,
            r#"select movement_id, product_id,
                departure_at as "departure_at: PgTime", departure_quantity, departure_warehouse_id,
                arrival_at as "arrival_at: PgTime", arrival_quantity, arrival_warehouse_id
            from movements where (movement_id, product_id) > ($1, $2) and num_nonnulls(departure_at, arrival_at) > 0
            order by movement_id, product_id limit $3"#,
            after.0,
            after.1,
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        rows.into_iter().map(LineRow::into_line).collect()
    }
}

/// The sides a line has, as the ledger names them.
pub fn sides_of((movement, product): LineId, line: &MovementLine) -> impl Iterator<Item = SideId> {
    Side::BOTH
        .into_iter()
        .filter(move |side| line.side(*side).is_some())
        .map(move |side| (movement.uuid(), product.uuid(), kinds::of_side(side)))
}

/// The least and the greatest id that begins with that byte.
pub fn bucket_bounds(bucket: u8) -> (Uuid, Uuid) {
    let (mut from, mut to) = ([0; 16], [0xff; 16]);
    (from[0], to[0]) = (bucket, bucket);
    (Uuid::from_bytes(from), Uuid::from_bytes(to))
}
