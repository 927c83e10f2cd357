//! How long movements take, as it is learned from those that were completed.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::{
    Version, WarehouseId,
    transit::{Bucket, LEARNED_MAX, Usual},
};

/// Commits that are looked through at once; of more, the newest.
const COMMITS_MAX: i64 = 256;
/// Sides that are looked at at once; of more, some.
const SIDES_MAX: i64 = 2_000;

/// How many movements from a warehouse took how long.
pub type Times = BTreeMap<(WarehouseId, Bucket), i64>;

/// What was completed in some commits.
#[derive(Clone, Debug)]
pub struct Completed {
    /// Up to which version was learned before, and is learned with this.
    pub from: Version,
    pub to: Version,
    pub times: Times,
}

impl Store {
    /// How long movements took that were completed since was last learned; `None` if nothing was committed since, or where
    /// nothing can be written.
    pub async fn completed(&self) -> Result<Option<Completed>, StoreError> {
        let progress = sqlx::query!(
            r#"select p.version as "from!", max(c.version) as "to!", array_agg(c.batch) as "batches!"
            from transit_progress p
            cross join lateral (
                select version, batch from stock_commits where version > p.version order by version desc limit $1
            ) c
            where not pg_is_in_recovery()
            group by p.version"#,
            COMMITS_MAX
        )
        .fetch_optional(&self.scans)
        .await?;
        let Some(progress) = progress else {
            return Ok(None);
        };
        let versions = Version::new(progress.from).zip(Version::new(progress.to));
        let (from, to) = versions.ok_or(StoreError::Inconsistent("a version"))?;
        // From the row of the side that completed the line: a line has one, so it is counted once, in whichever order its sides
        // were heard of. Look-ups one by one, over a connection that plans for nothing else: there are few beside what the tables hold, and
        // a planner whose statistics are old reads all of the ledger for them, each time.
        let rows = sqlx::query!(
            r#"select m.departure_warehouse_id as "from!", (extract(epoch from m.arrival_at - m.departure_at) * 1000000)::bigint as "micros!"
            from (
                select g.* from unnest($1::bigint[]) as of (batch)
                cross join lateral (
                    select inventory_id, cause_id, kind from stock_ledger where batch = of.batch and kind in (1, 2) limit $2
                ) g
                limit $2
            ) g
            cross join lateral (select product_id from stock_levels where inventory_id = g.inventory_id limit 1) l
            cross join lateral (
                select * from movements where movement_id = g.cause_id and product_id = l.product_id limit 1
            ) m
            where m.departure_at is not null and m.arrival_at is not null
                and g.kind = case m.sides_set_last when 1 then 1 else 2 end"#,
            &progress.batches,
            SIDES_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let mut times = Times::new();
        for row in rows {
            let from = WarehouseId::new(row.from).ok_or(StoreError::Inconsistent("a warehouse"))?;
            if let Some(bucket) = Bucket::of(row.micros) {
                *times.entry((from, bucket)).or_default() += 1;
            }
        }
        Ok(Some(Completed { from, to, times }))
    }

    /// Adds to what was learned, unless another process has learned it meanwhile.
    pub async fn learn(&self, completed: &Completed) -> Result<bool, StoreError> {
        let counts = &completed.times;
        let from: Vec<Uuid> = counts.keys().map(|(from, _)| from.uuid()).collect();
        let buckets: Vec<i16> = counts.keys().map(|(_, b)| b.number()).collect();
        let movements: Vec<i64> = counts.values().copied().collect();
        let moved = sqlx::query_scalar!(
            r#"with moved as (
                update transit_progress set version = $2 where version = $1 returning version
            ), counted as (
                insert into transit_times as t (departure_warehouse_id, bucket, movements)
                select n.* from moved, unnest($3::uuid[], $4::smallint[], $5::bigint[]) as n
                on conflict (departure_warehouse_id, bucket) do update set movements = t.movements + excluded.movements
            )
            select count(*) as "moved!" from moved"#,
            completed.from.number(),
            completed.to.number(),
            &from,
            &buckets,
            &movements
        )
        .fetch_one(&self.scans)
        .await?;
        Ok(moved > 0)
    }

    /// How long movements from these warehouses took, in all that was learned.
    pub async fn times_from(
        &self,
        warehouses: &[Uuid],
    ) -> Result<HashMap<Uuid, Vec<(Bucket, i64)>>, StoreError> {
        let rows = sqlx::query!(
            "select departure_warehouse_id, bucket, movements from transit_times where departure_warehouse_id = any($1)",
            warehouses
        )
        .fetch_all(&self.scans)
        .await?;
        let mut times: HashMap<Uuid, Vec<(Bucket, i64)>> = HashMap::new();
        for row in rows {
            let of_warehouse = times.entry(row.departure_warehouse_id).or_default();
            of_warehouse.push((Bucket::stored(row.bucket), row.movements));
        }
        Ok(times)
    }

    /// Stores what is usual, and halves the counts of these warehouses where they are many.
    pub async fn put_usual(&self, usual: &[(Uuid, Usual)]) -> Result<(), StoreError> {
        let warehouses: Vec<Uuid> = usual.iter().map(|(warehouse, _)| *warehouse).collect();
        let (half, late): (Vec<f64>, Vec<f64>) = usual
            .iter()
            .map(|(_, usual)| (usual.usual_seconds, usual.late_after_seconds))
            .unzip();
        let mut lent = self.scans.lend().await?;
        let mut tx = lent.begin().await?;
        sqlx::query!("select version from transit_progress for update")
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query!(
            "with many as (
                select departure_warehouse_id from transit_times where departure_warehouse_id = any($1)
                group by departure_warehouse_id having sum(movements) > $4::bigint
            ), halved as (
                update transit_times t set movements = t.movements / 2 from many m
                where t.departure_warehouse_id = m.departure_warehouse_id
            )
            insert into transit_usual as u (departure_warehouse_id, usual_seconds, late_after_seconds)
            select * from unnest($1::uuid[], $2::float8[], $3::float8[])
            on conflict (departure_warehouse_id) do update
                set usual_seconds = excluded.usual_seconds, late_after_seconds = excluded.late_after_seconds
                where (u.usual_seconds, u.late_after_seconds) is distinct from (excluded.usual_seconds, excluded.late_after_seconds)",
            &warehouses,
            &half,
            &late,
            LEARNED_MAX
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        lent.settle();
        Ok(())
    }
}
