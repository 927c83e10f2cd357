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
    /// Where they are counted.
    total: Option<i64>,
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

/// Orders beside the newest commit. Which they are and whether they are counted is written into the statement, not given to it:
/// so that each has one plan, where one for any of them is planned each time.
macro_rules! read_orders {
    ($total:tt, $orders:tt, $($argument:expr),+) => {
        sqlx::query_as!(
            OrderRow,
            r#"select c.version, c.tag, "# + $total + r#" as total, o.order_id as "order_id?", o.reservation_id as "reservation_id?",
                r.state, p.number as "product_number?", p.product_id as "product_id?", p.sku, p.name, o.quantity as "quantity?",
                o.unit_price::text as unit_price, o.created_at as "created_at?: PgTime"
            from (select version, tag from stock_commits order by version desc limit 1) c
            left join lateral ("# + $orders + r#") o on true
            left join products p on p.product_id = o.product_id
            left join lateral (
                select max(case when state = 1 and expires_at <= now() then 4 else state end)::smallint as state
                from reservations where reservation_id = o.reservation_id
            ) r on true
            order by o.order_id desc"#,
            $($argument),+
        )
    };
}

impl Store {
    /// So many orders after the newest so many, the newest first; and how many there are in all.
    pub async fn orders(
        &self,
        offset: i64,
        limit: i64,
    ) -> Result<AsOf<(Vec<Order>, i64)>, StoreError> {
        let rows = read_orders!(
            "(select count(*) from orders)",
            "select * from orders order by order_id desc offset $1 limit $2",
            offset,
            limit
        );
        let rows = rows.fetch_all(&self.scans).await?;
        let total = rows.first().and_then(|row| row.total).unwrap_or(0);
        Ok(read(&rows)?.map(|orders| (orders, total)))
    }

    /// The newest orders, 100 at most, not counted.
    pub async fn recent_orders(&self, limit: i64) -> Result<AsOf<Vec<Order>>, StoreError> {
        let rows = read_orders!(
            "null::bigint",
            // A number that is written down is what the plan goes by; the other one is not known to it.
            "select * from (select * from orders order by order_id desc limit 100) newest order by order_id desc limit $1",
            limit
        );
        read(&rows.fetch_all(&self.reads).await?)
    }

    /// One order, by its number.
    pub async fn order(&self, number: i64) -> Result<AsOf<Option<Order>>, StoreError> {
        let rows = read_orders!(
            "null::bigint",
            "select * from orders where order_id = $1",
            number
        );
        let read = read(&rows.fetch_all(&self.reads).await?)?;
        Ok(read.map(|orders| orders.into_iter().next()))
    }
}

fn read(rows: &[OrderRow]) -> Result<AsOf<Vec<Order>>, StoreError> {
    let newest = rows.first().ok_or(StoreError::NO_COMMITS)?;
    Ok(AsOf {
        as_of: commit_point(newest.version, newest.tag)?,
        value: rows.iter().filter_map(OrderRow::order).collect(),
    })
}
