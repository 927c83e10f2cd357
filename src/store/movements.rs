//! Lists of movements, by line, and sums of where less or more arrived than departed.
//!
//! A page looks at a bounded number of lines: one whose filter leaves few of them holds less than was asked for, and says
//! where to go on.

use uuid::Uuid;

use super::{
    AsOf, PgTime, Store, StoreError, catalogue::Words, connections::Connections, writer::LineRow,
};
use crate::domain::{
    MovementId, MovementLine, Product, ProductId, SideReport, Status, Timestamp, Warehouse,
    WarehouseId,
};

/// Lines that one page looks at.
const LOOKED_AT_MAX: i64 = 5_000;

/// Which movements are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub status: Option<Status>,
    /// On either side.
    pub warehouse: Option<WarehouseId>,
    pub product: Option<ProductId>,
    pub departed_after: Option<Timestamp>,
    /// Not at it.
    pub departed_before: Option<Timestamp>,
    pub is_overdue: Option<bool>,
    /// Late is what took so long, where nothing was learned yet.
    pub late_after_seconds: f64,
}

/// The place of a line in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it departed, or arrived, in the lists that are ordered by it.
    pub at: Option<Timestamp>,
    pub movement: MovementId,
    pub product: ProductId,
}

/// A line of a movement, with what people call its things.
#[derive(Clone, Debug)]
pub struct ToldLine {
    pub movement: MovementId,
    pub line: MovementLine,
    pub product: Product,
    /// `None` while that side is missing.
    pub from: Option<Warehouse>,
    pub to: Option<Warehouse>,
    /// Since its departure, while it is under way.
    pub under_way_seconds: Option<f64>,
    /// Half of what left the same warehouse took no longer.
    pub usual_seconds: Option<f64>,
    pub late_after_seconds: f64,
    pub is_overdue: bool,
}

/// Some lines, and where to go on.
#[derive(Clone, Debug)]
pub struct Listed {
    pub lines: Vec<ToldLine>,
    pub next: Option<Place>,
}

/// A line that was looked at.
struct LookedAt {
    movement_id: Uuid,
    product_id: Uuid,
    departure_at: Option<PgTime>,
    departure_quantity: Option<i64>,
    departure_warehouse_id: Option<Uuid>,
    arrival_at: Option<PgTime>,
    arrival_quantity: Option<i64>,
    arrival_warehouse_id: Option<Uuid>,
    under_way_seconds: Option<f64>,
    usual_seconds: Option<f64>,
    late_after_seconds: f64,
    is_overdue: bool,
    /// The last line that was looked at may not be wanted.
    is_wanted: bool,
    /// How many were looked at with it.
    nth: i64,
}

impl LookedAt {
    fn into_line(self, words: &Words) -> Result<ToldLine, StoreError> {
        let ((movement, product), line) = LineRow {
            movement_id: self.movement_id,
            product_id: self.product_id,
            departure_at: self.departure_at,
            departure_quantity: self.departure_quantity,
            departure_warehouse_id: self.departure_warehouse_id,
            arrival_at: self.arrival_at,
            arrival_quantity: self.arrival_quantity,
            arrival_warehouse_id: self.arrival_warehouse_id,
        }
        .into_line()?;
        let place = |side: Option<SideReport>| side.map(|side| words.warehouse(side.warehouse));
        Ok(ToldLine {
            movement,
            product: words.product(product),
            from: place(line.departure),
            to: place(line.arrival),
            line,
            under_way_seconds: self.under_way_seconds,
            usual_seconds: self.usual_seconds,
            late_after_seconds: self.late_after_seconds,
            is_overdue: self.is_overdue,
        })
    }
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Longest under way first.
    Departed,
    /// Newest first.
    Arrived,
    ById,
}

impl Order {
    fn as_str(self) -> &'static str {
        match self {
            Self::Departed => "departed",
            Self::Arrived => "arrived",
            Self::ById => "by_id",
        }
    }

    /// The id before all others in this order.
    fn before_all(self) -> Uuid {
        match self {
            Self::Departed | Self::ById => Uuid::nil(),
            Self::Arrived => Uuid::max(),
        }
    }
}

impl Wanted {
    fn order(&self) -> Order {
        match (self.status, self.is_overdue) {
            (Some(Status::InTransit), _) | (None, Some(true)) => Order::Departed,
            (Some(Status::Short | Status::Over | Status::ArrivalOnly), _) => Order::Arrived,
            (Some(Status::Complete) | None, _) => Order::ById,
        }
    }
}

impl Store {
    /// At most `limit` lines after that place.
    pub async fn list_movements(
        &self,
        wanted: &Wanted,
        after: Option<Place>,
        limit: i64,
    ) -> Result<AsOf<Listed>, StoreError> {
        // The version first: what is read after it holds at least that.
        let as_of = self.newest_commit().await?;
        let order = wanted.order();
        let rows = look_at(&self.scans, wanted, after, limit).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        let last = rows
            .last()
            .filter(|row| is_full || row.nth == LOOKED_AT_MAX);
        let next = last.map(|row| place(row, order)).transpose()?;
        let shown: Vec<LookedAt> = rows.into_iter().filter(|row| row.is_wanted).collect();
        let products: Vec<Uuid> = shown.iter().map(|row| row.product_id).collect();
        let sides = shown
            .iter()
            .flat_map(|row| [row.departure_warehouse_id, row.arrival_warehouse_id]);
        let words = self
            .words(&products, &sides.flatten().collect::<Vec<_>>())
            .await?;
        let lines = shown.into_iter().map(|row| row.into_line(&words));
        let lines = lines.collect::<Result<_, _>>()?;
        Ok(AsOf {
            as_of,
            value: Listed { lines, next },
        })
    }
}

fn place(row: &LookedAt, order: Order) -> Result<Place, StoreError> {
    let at = match order {
        Order::Departed => row.departure_at,
        Order::Arrived => row.arrival_at,
        Order::ById => None,
    };
    let ids = MovementId::new(row.movement_id).zip(ProductId::new(row.product_id));
    let (movement, product) = ids.ok_or(StoreError::Inconsistent("a movement"))?;
    Ok(Place {
        at: at.map(|at| at.0),
        movement,
        product,
    })
}

/// The lines that are wanted among the next that are looked at; the last of those in any case.
async fn look_at(
    connections: &Connections,
    wanted: &Wanted,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<LookedAt>, StoreError> {
    // One of the three is read; the others are known to be empty before they begin.
    Ok(sqlx::query_as!(
        LookedAt,
        r#"select (line).movement_id as "movement_id!", (line).product_id as "product_id!",
            (line).departure_at as "departure_at?: PgTime", (line).departure_quantity as "departure_quantity?",
            (line).departure_warehouse_id as "departure_warehouse_id?", (line).arrival_at as "arrival_at?: PgTime",
            (line).arrival_quantity as "arrival_quantity?", (line).arrival_warehouse_id as "arrival_warehouse_id?",
            case when (line).arrival_at is null then extract(epoch from now() - (line).departure_at)::float8 end as under_way_seconds,
            usual_seconds as "usual_seconds?", late as "late_after_seconds!", movement_is_overdue((line).departure_at, (line).arrival_at, late) as "is_overdue!",
            is_wanted as "is_wanted!", nth as "nth!"
        from (
            select looked_at.*, u.usual_seconds, coalesce(u.late_after_seconds, $1) as late,
                movement_is_wanted(
                    (line).departure_at, (line).departure_quantity, (line).departure_warehouse_id,
                    (line).arrival_at, (line).arrival_quantity, (line).arrival_warehouse_id, (line).product_id,
                    coalesce(u.late_after_seconds, $1), $2, $3, $4, $5::timestamptz, $6::timestamptz, $7) as is_wanted
            from (
                (
                    select m as line, row_number() over (order by departure_at, movement_id, product_id) as nth
                    from movements m
                    where $8 = 'departed' and arrival_at is null and departure_at is not null
                        and (departure_at, movement_id, product_id) > (coalesce($9::timestamptz, '-infinity'), $10::uuid, $11::uuid)
                    order by departure_at, movement_id, product_id limit $12
                ) union all (
                    select m as line, row_number() over (order by arrival_at desc, movement_id desc, product_id desc) as nth
                    from movements m
                    where $8 = 'arrived' and arrival_at is not null and departure_quantity is distinct from arrival_quantity
                        and (arrival_at, movement_id, product_id) < (coalesce($9::timestamptz, 'infinity'), $10::uuid, $11::uuid)
                    order by arrival_at desc, movement_id desc, product_id desc limit $12
                ) union all (
                    select m as line, row_number() over (order by movement_id, product_id) as nth
                    from movements m
                    where $8 = 'by_id' and num_nonnulls(departure_at, arrival_at) > 0
                        and (movement_id, product_id) > ($10::uuid, $11::uuid)
                    order by movement_id, product_id limit $12
                )
            ) looked_at
            left join transit_usual u on u.departure_warehouse_id = (line).departure_warehouse_id
        ) judged
        where is_wanted or nth = $12
        order by nth limit $13"#,
        wanted.late_after_seconds,
        wanted.status.map(Status::as_str),
        wanted.warehouse.map(WarehouseId::uuid),
        wanted.product.map(ProductId::uuid),
        wanted.departed_after.map(PgTime) as Option<PgTime>,
        wanted.departed_before.map(PgTime) as Option<PgTime>,
        wanted.is_overdue,
        wanted.order().as_str(),
        after.and_then(|place| place.at).map(PgTime) as Option<PgTime>,
        after.map_or(wanted.order().before_all(), |place| place.movement.uuid()),
        after.map_or(wanted.order().before_all(), |place| place.product.uuid()),
        LOOKED_AT_MAX,
        limit
    )
    .fetch_all(connections)
    .await?)
}
