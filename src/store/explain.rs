//! What a level is made of, in one statement.

use uuid::Uuid;

use super::{AsOf, PgTime, Store, StoreError, kinds, reads::joined_level, writer::commit_point};
use crate::domain::{
    MovementId, Side, StockKey,
    change::Amounts,
    explain::{ActiveReservations, Departure, Explanation, KindSum},
};

/// Most departures that are named of a level below zero.
const DEPARTURES_MAX: i64 = 100;
/// Most of a key's newest changes among which they are looked for: bounds the time, whatever else happened to the key.
const CHANGES_MAX: i64 = 10_000;

/// What comes back, a list as its columns.
struct Columns {
    version: i64,
    tag: i32,
    on_hand: Option<i64>,
    reserved: Option<i64>,
    revision: Option<i64>,
    updated_at: Option<PgTime>,
    kinds: Vec<i16>,
    changes: Vec<i64>,
    on_hand_deltas: Vec<i64>,
    reserved_deltas: Vec<i64>,
    reservations: i64,
    units: i64,
    due_units: i64,
    movements: Vec<Uuid>,
    departed_at: Vec<PgTime>,
    quantities: Vec<i64>,
}

impl Store {
    /// A level and what it is made of; the empty one is made of nothing.
    pub async fn explain(&self, key: StockKey) -> Result<AsOf<Explanation>, StoreError> {
        let read = sqlx::query_as!(
            Columns,
            r#"select c.version, c.tag, l.on_hand as "on_hand?", l.reserved - stock_due(l.inventory_id, l.reserved) as reserved,
                l.revision as "revision?", l.updated_at as "updated_at?: PgTime", k.kinds as "kinds!", k.changes as "changes!",
                k.on_hand as "on_hand_deltas!", k.reserved as "reserved_deltas!", r.reservations as "reservations!",
                r.units as "units!", r.due_units as "due_units!", d.movements as "movements!",
                d.departed_at as "departed_at!: Vec<PgTime>", d.quantities as "quantities!"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join stock_levels l on l.warehouse_id = $1 and l.product_id = $2
            cross join lateral (
                select coalesce(array_agg(m.kind), '{}') as kinds, coalesce(array_agg(m.changes), '{}') as changes,
                    coalesce(array_agg(m.on_hand), '{}') as on_hand, coalesce(array_agg(m.reserved), '{}') as reserved
                from stock_made_of(l.inventory_id) m
            ) k
            cross join lateral (
                select count(*) as reservations, coalesce(sum(quantity), 0)::bigint as units,
                    coalesce(sum(quantity) filter (where expires_at <= now()), 0)::bigint as due_units
                from reservations where state = 1 and inventory_id = l.inventory_id
            ) r
            cross join lateral (
                select coalesce(array_agg(cause_id), '{}') as movements, coalesce(array_agg(occurred_at), '{}') as departed_at,
                    coalesce(array_agg(quantity), '{}') as quantities
                from (
                    -- As the movement reports it now: a departure that was taken back stands no more.
                    select g.cause_id, g.occurred_at, m.departure_quantity as quantity
                    from (
                        select * from stock_ledger where inventory_id = l.inventory_id and l.on_hand < 0
                        order by revision desc, occurred_at desc, cause_id limit $4
                    ) g
                    join movements m on m.movement_id = g.cause_id and m.product_id = l.product_id
                        and m.departure_warehouse_id = l.warehouse_id and m.departure_at = g.occurred_at
                        and m.departure_quantity = -g.on_hand_delta
                    where g.kind = $3 and g.on_hand_delta < 0
                    order by g.revision desc, g.occurred_at desc, g.cause_id limit $5
                ) newest
            ) d"#,
            key.warehouse.uuid(),
            key.product.uuid(),
            kinds::of_side(Side::Departure),
            CHANGES_MAX,
            DEPARTURES_MAX
        )
        .fetch_optional(&self.scans)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(read.version, read.tag)?,
            value: read.into_explanation(),
        })
    }
}

impl Columns {
    fn into_explanation(self) -> Explanation {
        let level = joined_level(self.on_hand, self.reserved, self.revision, self.updated_at);
        let is_departure = |kind: &i16| {
            [
                kinds::of_side(Side::Departure),
                kinds::of_void(Side::Departure),
            ]
            .contains(kind)
        };
        let departures = self.kinds.iter().zip(&self.on_hand_deltas);
        let departed: i64 = departures
            .filter(|(kind, _)| is_departure(kind))
            .map(|(_, on_hand)| -on_hand)
            .sum();
        let deltas = self.on_hand_deltas.into_iter().zip(self.reserved_deltas);
        let counted = self.kinds.into_iter().zip(self.changes);
        let sums = counted.zip(deltas).filter_map(|((kind, changes), delta)| {
            let (on_hand, reserved) = delta;
            Some(KindSum {
                kind: kinds::named(kind)?,
                changes,
                delta: Amounts { on_hand, reserved },
            })
        });
        let reported = self.departed_at.into_iter().zip(self.quantities);
        let newest = self.movements.into_iter().zip(reported);
        let newest = newest.filter_map(|(movement, (at, quantity))| {
            Some(Departure {
                movement: MovementId::new(movement)?,
                at: at.0,
                quantity,
            })
        });
        let reservations = ActiveReservations {
            count: self.reservations,
            units: self.units,
            due_units: self.due_units,
        };
        Explanation::new(level, sums, reservations, newest, departed)
    }
}
