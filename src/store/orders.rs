//! Orders, each with its reservation and its product.

use uuid::Uuid;

use super::{AsOf, PgTime, Store, StoreError, catalogue::product, writer::commit_point};
use crate::domain::{Product, ReservationId, Timestamp, price::Price, reservation::State};

/// An order.
#[derive(Clone, Debug)]
pub struct Order {
    pub number: i64,
    pub reservation: ReservationId,
    /// By now: what is due has expired.
    pub state: State,
    pub product_number: i64,
    pub product: Product,
    pub quantity: i64,
    /// When it was made.
    pub unit_price: Price,
    pub created_at: Timestamp,
}

/// A row beside the newest commit; without a number where there is none.
struct OrderRow {
    version: i64,
    tag: i32,
    /// 0 where they are not counted.
    total: i64,
    order_id: Option<i64>,
    reservation_id: Option<Uuid>,
    state: Option<i16>,
    product_number: Option<i64>,
    product_id: Option<Uuid>,
    sku: Option<String>,
    name: Option<String>,
    quantity: Option<i64>,
    unit_price: Option<String>,
    created_at: Option<PgTime>,
}

impl OrderRow {
    fn order(&self) -> Option<Order> {
        let (sku, name) = (self.sku.as_deref(), self.name.as_deref());
        Some(Order {
            number: self.order_id?,
            reservation: ReservationId::new(self.reservation_id?)?,
            state: State::stored(self.state?)?,
            product_number: self.product_number?,
            product: product(self.product_id?, sku, name, None, None)?,
            quantity: self.quantity?,
            unit_price: Price::parse(self.unit_price.as_deref()?).ok()?,
            created_at: self.created_at.as_ref()?.0,
        })
    }
}

impl Store {
    /// So many orders after the newest so many, the newest first; and how many there are in all.
    pub async fn orders(
        &self,
        offset: i64,
        limit: i64,
    ) -> Result<AsOf<(Vec<Order>, i64)>, StoreError> {
        let rows = sqlx::query_as!(
            OrderRow,
            r#"select c.version, c.tag, t.total as "total!", o.order_id as "order_id?", o.reservation_id as "reservation_id?",
                r.state, p.number as "product_number?", p.product_id as "product_id?", p.sku, p.name, o.quantity as "quantity?",
                o.unit_price::text as unit_price, o.created_at as "created_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            cross join (select count(*) as total from orders) t
            left join lateral (select * from orders order by order_id desc offset $1 limit $2) o on true
            left join products p on p.product_id = o.product_id
            left join lateral (
                select max(case when state = 1 and expires_at <= now() then 4 else state end)::smallint as state
                from reservations where reservation_id = o.reservation_id
            ) r on true
            order by o.order_id desc"#,
            offset,
            limit
        )
        .fetch_all(&self.reads)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(newest.version, newest.tag)?,
            value: (
                rows.iter().filter_map(OrderRow::order).collect(),
                newest.total,
            ),
        })
    }

    /// The newest orders, not counted.
    pub async fn recent_orders(&self, limit: i64) -> Result<AsOf<Vec<Order>>, StoreError> {
        let rows = sqlx::query_as!(
            OrderRow,
            r#"select c.version, c.tag, 0::bigint as "total!", o.order_id as "order_id?", o.reservation_id as "reservation_id?",
                r.state, p.number as "product_number?", p.product_id as "product_id?", p.sku, p.name, o.quantity as "quantity?",
                o.unit_price::text as unit_price, o.created_at as "created_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral (select * from orders order by order_id desc limit $1) o on true
            left join products p on p.product_id = o.product_id
            left join lateral (
                select max(case when state = 1 and expires_at <= now() then 4 else state end)::smallint as state
                from reservations where reservation_id = o.reservation_id
            ) r on true
            order by o.order_id desc"#,
            limit
        )
        .fetch_all(&self.reads)
        .await?;
        let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(newest.version, newest.tag)?,
            value: rows.iter().filter_map(OrderRow::order).collect(),
        })
    }

    /// One order, by its number. A statement of its own: one plan serves all numbers, and none of a list's serves one.
    pub async fn order(&self, number: i64) -> Result<AsOf<Option<Order>>, StoreError> {
        let row = sqlx::query_as!(
            OrderRow,
            r#"select c.version, c.tag, 0::bigint as "total!", o.order_id as "order_id?", o.reservation_id as "reservation_id?",
                r.state, p.number as "product_number?", p.product_id as "product_id?", p.sku, p.name, o.quantity as "quantity?",
                o.unit_price::text as unit_price, o.created_at as "created_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join orders o on o.order_id = $1
            left join products p on p.product_id = o.product_id
            left join lateral (
                select max(case when state = 1 and expires_at <= now() then 4 else state end)::smallint as state
                from reservations where reservation_id = o.reservation_id
            ) r on true"#,
            number
        )
        .fetch_optional(&self.reads)
        .await?
        .ok_or(StoreError::NO_COMMITS)?;
        Ok(AsOf {
            as_of: commit_point(row.version, row.tag)?,
            value: row.order(),
        })
    }
}
