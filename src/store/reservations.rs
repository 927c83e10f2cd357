//! Reservations, as clients ask for them.

use uuid::Uuid;

use super::{
    AsOf, PgTime, Store, StoreError,
    catalogue::{product, warehouse},
    writer::commit_point,
};
use crate::domain::{Product, ReservationId, Timestamp, Warehouse, reservation::State};

/// A reservation as it is now.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub state: State,
    /// Active by its state, but its time is over: it holds nothing any more.
    pub is_due: bool,
    pub created_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When the state or the time of expiry last changed.
    pub changed_at: Timestamp,
    pub reference: Option<String>,
    /// By warehouse and product.
    pub lines: Vec<ReservedLine>,
}

/// What it holds of one level.
#[derive(Clone, Debug)]
pub struct ReservedLine {
    pub product: Product,
    pub warehouse: Warehouse,
    /// Units.
    pub quantity: i64,
    /// It is active, and what is on hand does not cover it: see [`crate::domain::risk`].
    pub is_at_risk: bool,
}

/// Most lines of one reservation that are read: bounds the answer. A request has far fewer.
const LINES_MAX: i64 = 10_000;

impl Store {
    /// A reservation with its lines; `None` if there never was one of this id.
    ///
    /// Those that are due and not expired yet stand before newer ones when it comes to who is at risk, as they do in what live
    /// clients are told.
    pub async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<AsOf<Option<Reservation>>, StoreError> {
        let rows = sqlx::query_as!(
            LineRow,
            r#"select c.version, c.tag, r.quantity as "quantity?", r.state as "state?", r.is_due as "is_due?", r.is_at_risk as "is_at_risk?",
                r.created_at as "created_at?: PgTime", r.expires_at as "expires_at?: PgTime", r.changed_at as "changed_at?: PgTime",
                r.reference, r.product_id as "product_id?", r.sku, r.product_name, r.min_stock, r.reorder_point,
                r.warehouse_id as "warehouse_id?", r.code, r.warehouse_name
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (
                select r.*, l.product_id, p.sku, p.name as product_name, p.min_stock, p.reorder_point,
                    l.warehouse_id, w.code, w.name as warehouse_name,
                    coalesce(r.state = 1 and r.expires_at <= now(), false) as is_due,
                    -- Only where more is promised than there is are other reservations looked at.
                    case when r.state = 1 and l.reserved > l.on_hand then l.reserved - (
                        select coalesce(sum(n.quantity), 0)::bigint from reservations n
                        where n.state = 1 and n.inventory_id = r.inventory_id
                            and (n.created_at, n.reservation_id) > (r.created_at, r.reservation_id)
                    ) > l.on_hand else false end as is_at_risk
                from reservations r
                join stock_levels l on l.inventory_id = r.inventory_id
                join products p on p.product_id = l.product_id
                join warehouses w on w.warehouse_id = l.warehouse_id
                where r.reservation_id = $1
                order by l.warehouse_id, l.product_id limit $2
            ) r on true
            order by r.warehouse_id, r.product_id"#,
            id.uuid(),
            LINES_MAX
        )
        .fetch_all(&self.reads)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(newest.version, newest.tag)?,
            value: reservation(&rows)?,
        })
    }
}

/// A line beside the newest commit; all `None` in the only row there is when there is no line.
struct LineRow {
    version: i64,
    tag: i32,
    quantity: Option<i64>,
    state: Option<i16>,
    is_due: Option<bool>,
    is_at_risk: Option<bool>,
    created_at: Option<PgTime>,
    expires_at: Option<PgTime>,
    changed_at: Option<PgTime>,
    reference: Option<String>,
    product_id: Option<Uuid>,
    sku: Option<String>,
    product_name: Option<String>,
    min_stock: Option<i64>,
    reorder_point: Option<i64>,
    warehouse_id: Option<Uuid>,
    code: Option<String>,
    warehouse_name: Option<String>,
}

impl LineRow {
    fn line(&self) -> Option<ReservedLine> {
        let (sku, name) = (self.sku.as_deref(), self.product_name.as_deref());
        let (code, place) = (self.code.as_deref(), self.warehouse_name.as_deref());
        let (min, point) = (self.min_stock, self.reorder_point);
        Some(ReservedLine {
            product: product(self.product_id?, sku, name, min, point)?,
            warehouse: warehouse(self.warehouse_id?, code, place)?,
            quantity: self.quantity?,
            is_at_risk: self.is_at_risk?,
        })
    }
}

/// All rows of a reservation are made together and change together, but that one whose time is over may have been tidied up on some
/// of its levels only.
fn reservation(rows: &[LineRow]) -> Result<Option<Reservation>, StoreError> {
    const BROKEN: StoreError = StoreError::Inconsistent("a reservation");
    let Some(row) = rows.first().filter(|row| row.state.is_some()) else {
        return Ok(None);
    };
    let states = rows.iter().filter_map(|row| row.state.map(State::stored));
    let states: Vec<State> = states.collect::<Option<_>>().ok_or(BROKEN)?;
    let expired = states.iter().find(|state| **state == State::Expired);
    let state = *expired.or(states.first()).ok_or(BROKEN)?;
    let times = row.created_at.as_ref().zip(row.changed_at.as_ref());
    let (created_at, changed_at) = times.ok_or(BROKEN)?;
    let lines = rows.iter().map(|row| row.line().ok_or(BROKEN));
    Ok(Some(Reservation {
        state,
        is_due: rows.iter().any(|row| row.is_due == Some(true)),
        created_at: created_at.0,
        expires_at: row.expires_at.as_ref().map(|at| at.0),
        changed_at: changed_at.0,
        reference: row.reference.clone(),
        lines: lines.collect::<Result<_, _>>()?,
    }))
}
