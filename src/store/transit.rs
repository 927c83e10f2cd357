//! How long movements take, as it is learned from those that arrived.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::{
    Version, WarehouseId,
    transit::{Bucket, LEARNED_MAX, Usual},
};

/// Commits that are looked through at once; of more, the newest.
const COMMITS_MAX: i64 = 256;
/// Arrivals that are learned from at once; of more, some.
const ARRIVALS_MAX: i64 = 2_000;

/// The way of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub from: WarehouseId,
    pub to: WarehouseId,
}

/// How many movements took how long.
pub type Times = HashMap<(Route, Bucket), i64>;

/// What arrived in some commits.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Up to which version was learned before, and is learned with this.
    pub from: Version,
    pub to: Version,
    pub times: Times,
}

impl Store {
    /// How long movements took that arrived since was last learned; `None` if nothing was committed since.
    pub async fn arrived(&self) -> Result<Option<Arrived>, StoreError> {
        let progress = sqlx::query!(
            r#"select p.version as "from!", c.version as "to!" from transit_progress p,
            (select version from stock_commits order by version desc limit 1) c"#
        )
        .fetch_one(&self.reads)
        .await?;
        let (from, to) = Version::new(progress.from)
            .zip(Version::new(progress.to))
            .ok_or(StoreError::Inconsistent("a version"))?;
        if from == to {
            return Ok(None);
        }
        // From the arrival's row: a movement has one, so it is counted once, whenever its departure was heard of.
        let rows = sqlx::query!(
            r#"select m.departure_warehouse_id as "from!", m.arrival_warehouse_id as "to!",
                (extract(epoch from m.arrival_at - m.departure_at) * 1000000)::bigint as "micros!"
            from stock_commits c
            join stock_ledger g on g.batch = c.batch and g.kind = 2
            join stock_levels l on l.inventory_id = g.inventory_id
            join movements m on m.movement_id = g.movement_id and m.product_id = l.product_id
            where c.version > greatest($1, $2 - $3::bigint) and c.version <= $2 and m.departure_at is not null
                and m.arrival_at is not null
            limit $4"#,
            from.number(),
            to.number(),
            COMMITS_MAX,
            ARRIVALS_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let mut times = Times::new();
        for row in rows {
            let ends = WarehouseId::new(row.from).zip(WarehouseId::new(row.to));
            let (from, to) = ends.ok_or(StoreError::Inconsistent("a warehouse"))?;
            if let Some(bucket) = Bucket::of(row.micros) {
                *times.entry((Route { from, to }, bucket)).or_default() += 1;
            }
        }
        Ok(Some(Arrived { from, to, times }))
    }

    /// Adds to what was learned, unless another process has learned it meanwhile. The order of locks is that of the keys.
    pub async fn learn(&self, arrived: &Arrived) -> Result<bool, StoreError> {
        let mut counts: Vec<_> = arrived.times.iter().collect();
        counts.sort_unstable();
        let of = |get: fn(&Route) -> Uuid| -> Vec<Uuid> {
            counts.iter().map(|((route, _), _)| get(route)).collect()
        };
        let (from, to) = (of(|route| route.from.uuid()), of(|route| route.to.uuid()));
        let buckets: Vec<i16> = counts.iter().map(|((_, b), _)| b.number()).collect();
        let movements: Vec<i64> = counts.iter().map(|(_, count)| **count).collect();
        let moved = sqlx::query_scalar!(
            r#"with moved as (
                update transit_progress set version = $2 where version = $1 returning version
            ), counted as (
                insert into transit_times as t (departure_warehouse_id, arrival_warehouse_id, bucket, movements)
                select n.* from moved, unnest($3::uuid[], $4::uuid[], $5::smallint[], $6::bigint[]) as n
                on conflict (departure_warehouse_id, arrival_warehouse_id, bucket)
                do update set movements = t.movements + excluded.movements
            )
            select count(*) as "moved!" from moved"#,
            arrived.from.number(),
            arrived.to.number(),
            &from,
            &to,
            &buckets,
            &movements
        )
        .fetch_one(&self.reads)
        .await?;
        Ok(moved > 0)
    }

    /// How long movements from these warehouses took, in all that was learned.
    pub async fn times_from(
        &self,
        warehouses: &[Uuid],
    ) -> Result<HashMap<Uuid, Vec<(Bucket, i64)>>, StoreError> {
        let rows = sqlx::query!(
            r#"select departure_warehouse_id, bucket, sum(movements)::bigint as "movements!"
            from transit_times where departure_warehouse_id = any($1) group by departure_warehouse_id, bucket"#,
            warehouses
        )
        .fetch_all(&self.reads)
        .await?;
        let mut times: HashMap<Uuid, Vec<(Bucket, i64)>> = HashMap::new();
        for row in rows {
            let of_warehouse = times.entry(row.departure_warehouse_id).or_default();
            of_warehouse.push((Bucket::stored(row.bucket), row.movements));
        }
        Ok(times)
    }

    /// Stores what is usual, and halves the counts of routes from these warehouses that have many.
    pub async fn put_usual(&self, usual: &[(Uuid, Usual)]) -> Result<(), StoreError> {
        let warehouses: Vec<Uuid> = usual.iter().map(|(warehouse, _)| *warehouse).collect();
        let half: Vec<f64> = usual.iter().map(|(_, usual)| usual.usual_seconds).collect();
        let late: Vec<f64> = usual
            .iter()
            .map(|(_, usual)| usual.late_after_seconds)
            .collect();
        sqlx::query!(
            "with many as (
                select departure_warehouse_id, arrival_warehouse_id from transit_times
                where departure_warehouse_id = any($1)
                group by departure_warehouse_id, arrival_warehouse_id having sum(movements) > $4::bigint
            ), halved as (
                update transit_times t set movements = (t.movements + 1) / 2 from many m
                where (t.departure_warehouse_id, t.arrival_warehouse_id) = (m.departure_warehouse_id, m.arrival_warehouse_id)
            )
            insert into transit_usual as u (departure_warehouse_id, usual_seconds, late_after_seconds)
            select * from unnest($1::uuid[], $2::float8[], $3::float8[]) as n order by 1
            on conflict (departure_warehouse_id) do update
                set usual_seconds = excluded.usual_seconds, late_after_seconds = excluded.late_after_seconds
                where (u.usual_seconds, u.late_after_seconds) is distinct from (excluded.usual_seconds, excluded.late_after_seconds)",
            &warehouses,
            &half,
            &late,
            LEARNED_MAX
        )
        .execute(&self.reads)
        .await?;
        Ok(())
    }
}
