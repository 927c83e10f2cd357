//! Totals over everything, of one moment.

use sqlx::PgConnection;

use super::{AsOf, ONE_MOMENT, Store, StoreError, writer::commit_point};
use crate::domain::CommitPoint;

/// Longest one of the three statements may take: together they are one snapshot of the database, which nobody holds for more
/// than 5 s.
const TIMEOUT: &str = "set local statement_timeout = '1500ms'";
/// Movements are looked at through their indexes. The planner takes most of them to have ended otherwise than they began, and would read
/// the whole table.
const BY_INDEX: &str = "set local enable_seqscan = off";

/// What there is in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub products: i64,
    pub warehouses: i64,
    /// Levels.
    pub keys: i64,
    /// What customers are shown, in units.
    pub units: i64,
    /// Without what is due.
    pub reserved: i64,
    pub available: i64,
    /// Levels with a deficit.
    pub negative: i64,
    /// Levels at or below their product's minimum.
    pub low: i64,
    /// Products to be ordered again.
    pub reorder: i64,
    /// Lines of active reservations that are not due.
    pub reservations: i64,
    /// Of those, the ones that what is on hand does not cover.
    pub reservations_at_risk: i64,
    /// Lines of movements under way, and their units.
    pub in_transit: i64,
    pub units_in_transit: i64,
    pub overdue: i64,
    pub short: i64,
    pub over: i64,
    pub arrival_only: i64,
}

impl Store {
    /// Everything summed up. Late is what took so long, where nothing was learned yet.
    pub async fn totals(&self, late_after_seconds: f64) -> Result<AsOf<Totals>, StoreError> {
        let mut lent = self.scans.lend().await?;
        let mut tx = lent.begin().await?;
        sqlx::raw_sql(ONE_MOMENT).execute(&mut *tx).await?;
        sqlx::raw_sql(TIMEOUT).execute(&mut *tx).await?;
        let mut totals = Totals::default();
        let as_of = add_stock(&mut tx, &mut totals).await?;
        totals.reorder = count_to_reorder(&mut tx).await?;
        sqlx::raw_sql(BY_INDEX).execute(&mut *tx).await?;
        add_movements(&mut tx, &mut totals, late_after_seconds).await?;
        tx.commit().await?;
        lent.settle();
        Ok(AsOf {
            as_of,
            value: totals,
        })
    }
}

async fn add_stock(
    connection: &mut PgConnection,
    totals: &mut Totals,
) -> Result<CommitPoint, StoreError> {
    let row = sqlx::query!(
        r#"select c.version, c.tag, p.products as "products!", w.warehouses as "warehouses!", l.keys as "keys!", l.units as "units!",
            least(l.reserved - due.units, 9223372036854775807)::bigint as "reserved!",
            least(l.available + due.available, 9223372036854775807)::bigint as "available!", l.negative as "negative!",
            l.low as "low!", r.active - r.due as "active!", l.at_risk as "at_risk!"
        from (select version, tag from stock_commits order by version desc limit 1) c,
        (select count(*) as products from products) p,
        (select count(*) as warehouses from warehouses) w,
        (
            select count(*) as keys, least(coalesce(sum(greatest(on_hand, 0)), 0), 9223372036854775807)::bigint as units,
                coalesce(sum(reserved), 0) as reserved, coalesce(sum(greatest(on_hand - reserved, 0)), 0) as available,
                count(*) filter (where on_hand < 0) as negative,
                count(*) filter (where greatest(on_hand, 0) <= p.min_stock) as low,
                -- Only where more is promised than there is are reservations looked at.
                coalesce(sum(case when reserved > 0 and reserved > on_hand then (
                    select count(*) from (
                        select expires_at, sum(quantity) over (order by created_at desc, reservation_id desc rows unbounded preceding)
                            - quantity as newer
                        from reservations where state = 1 and inventory_id = l.inventory_id
                    ) r
                    where l.reserved - newer > l.on_hand and (expires_at is null or expires_at > now())
                ) end), 0)::bigint as at_risk
            from stock_levels l
            left join (select product_id, min_stock from products where min_stock is not null) p on p.product_id = l.product_id
        ) l,
        -- What is due is little, or somebody would have tidied it up: it is taken off the sums.
        (
            select coalesce(sum(d.units), 0) as units,
                coalesce(sum(greatest(l.on_hand - l.reserved + d.units, 0) - greatest(l.on_hand - l.reserved, 0)), 0) as available
            from (
                select inventory_id, sum(quantity)::bigint as units from reservations
                where state = 1 and expires_at <= now() group by inventory_id
            ) d
            join stock_levels l using (inventory_id)
        ) due,
        (
            select count(*) as active,
                (select count(*) from reservations where state = 1 and expires_at <= now()) as due
            from reservations where state = 1
        ) r"#
    )
    .fetch_optional(connection)
    .await?
    .ok_or(StoreError::NO_COMMITS)?;
    totals.products = row.products;
    totals.warehouses = row.warehouses;
    totals.keys = row.keys;
    totals.units = row.units;
    totals.reserved = row.reserved;
    totals.available = row.available;
    totals.negative = row.negative;
    totals.low = row.low;
    totals.reservations = row.active;
    totals.reservations_at_risk = row.at_risk;
    commit_point(row.version, row.tag)
}

/// Products to be ordered again.
async fn count_to_reorder(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from products p
        left join (
            select product_id, sum(greatest(on_hand - reserved
                + case when reserved > 0 then (select units from stock_due_units(inventory_id)) else 0 end, 0)) as available
            from stock_levels
            where product_id in (select product_id from products where reorder_point is not null)
            group by product_id
        ) l on l.product_id = p.product_id
        where p.reorder_point is not null and coalesce(l.available, 0) <= p.reorder_point"#
    )
    .fetch_one(connection)
    .await?;
    Ok(count)
}

async fn add_movements(
    connection: &mut PgConnection,
    totals: &mut Totals,
    late_after_seconds: f64,
) -> Result<(), StoreError> {
    let row = sqlx::query!(
        r#"select o.lines as "in_transit!", o.units as "units_in_transit!", o.overdue as "overdue!",
            d.short as "short!", d.over as "over!", d.arrival_only as "arrival_only!"
        from (
            select count(*) as lines, least(coalesce(sum(m.departure_quantity), 0), 9223372036854775807)::bigint as units,
                count(*) filter (where movement_is_overdue(m.departure_at, m.arrival_at, coalesce(u.late_after_seconds, $1))) as overdue
            from movements m left join transit_usual u on u.departure_warehouse_id = m.departure_warehouse_id
            where m.arrival_at is null and m.departure_at is not null
        ) o,
        (
            select count(*) filter (where departure_quantity > arrival_quantity) as short,
                count(*) filter (where departure_quantity < arrival_quantity) as over,
                count(*) filter (where departure_quantity is null) as arrival_only
            from movements where arrival_at is not null and departure_quantity is distinct from arrival_quantity
        ) d"#,
        late_after_seconds
    )
    .fetch_one(connection)
    .await?;
    totals.in_transit = row.in_transit;
    totals.units_in_transit = row.units_in_transit;
    totals.overdue = row.overdue;
    totals.short = row.short;
    totals.over = row.over;
    totals.arrival_only = row.arrival_only;
    Ok(())
}
