//! Where less or more arrived than departed: sums by route, product and week.

use uuid::Uuid;

use super::{AsOf, PgTime, Store, StoreError, catalogue::Words};
use crate::domain::{CommitPoint, Product, ProductId, Timestamp, Warehouse, WarehouseId};

/// By what sums are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    pub week: bool,
    pub route: bool,
    pub product: bool,
}

/// Which movements are summed.
#[derive(Clone, Copy, Debug)]
pub struct Summed {
    pub groups: Groups,
    /// Arrived in the last so many weeks.
    pub weeks: i32,
    pub from: Option<WarehouseId>,
    pub to: Option<WarehouseId>,
    pub product: Option<ProductId>,
}

/// The place of a sum in the list; what is not told apart is the nil id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumPlace {
    pub week: Timestamp,
    pub from: Uuid,
    pub to: Uuid,
    pub product: Uuid,
}

/// Movements of one group.
#[derive(Clone, Debug)]
pub struct Difference {
    pub place: SumPlace,
    /// Monday, 0:00 UTC.
    pub week: Option<Timestamp>,
    pub from: Option<Warehouse>,
    pub to: Option<Warehouse>,
    pub product: Option<Product>,
    /// Lines, and the units that were missing in them.
    pub short: i64,
    pub units_short: i64,
    /// Lines, and the units that were too many in them.
    pub over: i64,
    pub units_over: i64,
}

impl Store {
    /// At most `limit` sums after that place: the newest week first, then by ids.
    pub async fn differences(
        &self,
        summed: &Summed,
        after: Option<SumPlace>,
        limit: i64,
    ) -> Result<AsOf<Vec<Difference>>, StoreError> {
        // The version first: what is read after it holds at least that.
        let as_of: CommitPoint = self.newest_commit().await?;
        let Groups {
            week,
            route,
            product,
        } = summed.groups;
        let rows = sqlx::query!(
            r#"select * from (
                select case when $1 then date_trunc('week', arrival_at, 'UTC') else 'epoch' end as "week!: PgTime",
                    case when $2 then departure_warehouse_id else $4 end as "from!",
                    case when $2 then arrival_warehouse_id else $4 end as "to!",
                    case when $3 then product_id else $4 end as "product!",
                    count(*) filter (where departure_quantity > arrival_quantity) as "short!",
                    coalesce(sum(departure_quantity - arrival_quantity) filter (where departure_quantity > arrival_quantity), 0)::bigint as "units_short!",
                    count(*) filter (where departure_quantity < arrival_quantity) as "over!",
                    coalesce(sum(arrival_quantity - departure_quantity) filter (where departure_quantity < arrival_quantity), 0)::bigint as "units_over!"
                from movements
                where arrival_at is not null and departure_quantity is distinct from arrival_quantity and departure_at is not null
                    and arrival_at >= date_trunc('week', now(), 'UTC') - make_interval(weeks => $5::int - 1)
                    and ($6::uuid is null or departure_warehouse_id = $6) and ($7::uuid is null or arrival_warehouse_id = $7)
                    and ($8::uuid is null or product_id = $8)
                group by 1, 2, 3, 4
            ) sums
            where $9::timestamptz is null or "week!: PgTime" < $9
                or "week!: PgTime" = $9 and ("from!", "to!", "product!") > ($10::uuid, $11::uuid, $12::uuid)
            order by "week!: PgTime" desc, "from!", "to!", "product!" limit $13"#,
            week,
            route,
            product,
            Uuid::nil(),
            summed.weeks,
            summed.from.map(WarehouseId::uuid),
            summed.to.map(WarehouseId::uuid),
            summed.product.map(ProductId::uuid),
            after.map(|place| PgTime(place.week)) as Option<PgTime>,
            after.map(|place| place.from),
            after.map(|place| place.to),
            after.map(|place| place.product),
            limit
        )
        .fetch_all(&self.scans)
        .await?;
        let products: Vec<Uuid> = rows.iter().map(|row| row.product).collect();
        let warehouses: Vec<Uuid> = rows.iter().flat_map(|row| [row.from, row.to]).collect();
        let words: Words = self.words(&products, &warehouses).await?;
        let value = rows.into_iter().map(|row| Difference {
            place: SumPlace {
                week: row.week.0,
                from: row.from,
                to: row.to,
                product: row.product,
            },
            week: week.then_some(row.week.0),
            from: WarehouseId::new(row.from).map(|id| words.warehouse(id)),
            to: WarehouseId::new(row.to).map(|id| words.warehouse(id)),
            product: ProductId::new(row.product).map(|id| words.product(id)),
            short: row.short,
            units_short: row.units_short,
            over: row.over,
            units_over: row.units_over,
        });
        Ok(AsOf {
            as_of,
            value: value.collect(),
        })
    }
}
