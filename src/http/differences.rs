//! Where less or more arrived than departed, summed by route, product and week.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::{listed, next},
    error::{ApiError, Problem},
    input::{self, Page},
};
use crate::{
    domain::{Product, Timestamp, Warehouse, catalogue::Name},
    inventory::Inventory,
    store::differences::{Difference, Groups, SumPlace, Summed},
};

const INVALID_GROUP: &str = "group must be a list of week, route and product";
const INVALID_WEEKS: &str = "weeks must be 1 to 520";
const INVALID_WAREHOUSE: &str = "warehouse_id_from or warehouse_id_to names no warehouse";
const INVALID_PRODUCT: &str = "product_id names no product";
/// Weeks that are summed where the request does not say, and at most.
const WEEKS_DEFAULT: i32 = 12;
const WEEKS_MAX: i32 = 520;

/// Movements of one group. What the groups do not tell apart is `null`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DifferenceBody {
    /// The Monday of the week of arrival (UTC).
    #[schema(value_type = Option<String>, format = Date, example = "2026-11-16")]
    week: Option<String>,
    warehouse_id_from: Option<Uuid>,
    /// The code where there is one, else the UUID.
    warehouse_from: Option<String>,
    warehouse_id_to: Option<Uuid>,
    warehouse_to: Option<String>,
    product_id: Option<Uuid>,
    /// The sku where there is one, else the UUID.
    product: Option<String>,
    product_name: Option<String>,
    /// Lines of which less arrived than departed, and by how many units.
    short: i64,
    units_short: i64,
    /// Lines of which more arrived than departed, and by how many units.
    over: i64,
    units_over: i64,
}

impl DifferenceBody {
    fn new(sum: &Difference) -> Self {
        let (from, to, product) = (sum.from.as_ref(), sum.to.as_ref(), sum.product.as_ref());
        Self {
            // The date of midnight.
            week: sum
                .week
                .map(|week| week.to_string().chars().take(10).collect()),
            warehouse_id_from: from.map(|warehouse| warehouse.id.uuid()),
            warehouse_from: from.map(Warehouse::label),
            warehouse_id_to: to.map(|warehouse| warehouse.id.uuid()),
            warehouse_to: to.map(Warehouse::label),
            product_id: product.map(|product| product.id.uuid()),
            product: product.map(Product::label),
            product_name: product
                .and_then(|product| product.name.as_ref())
                .map(Name::to_string),
            short: sum.short,
            units_short: sum.units_short,
            over: sum.over,
            units_over: sum.units_over,
        }
    }
}

/// A page of sums.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DifferencesBody {
    differences: Vec<DifferenceBody>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<String>,
}

/// What is summed.
#[derive(Debug, Deserialize)]
pub(super) struct DifferencesQuery {
    group: Option<String>,
    weeks: Option<String>,
    warehouse_id_from: Option<String>,
    warehouse_id_to: Option<String>,
    product_id: Option<String>,
}

impl DifferencesQuery {
    async fn summed(&self, inventory: &Inventory) -> Result<Summed, ApiError> {
        let weeks = self.weeks.as_deref().map(|text| {
            let weeks = text.parse().ok().filter(|n| (1..=WEEKS_MAX).contains(n));
            weeks.ok_or(ApiError::BadRequest(INVALID_WEEKS))
        });
        let (from, to) = (
            self.warehouse_id_from.as_deref(),
            self.warehouse_id_to.as_deref(),
        );
        let product = self.product_id.as_deref();
        Ok(Summed {
            groups: groups(self.group.as_deref().unwrap_or("week,route,product"))?,
            weeks: weeks.transpose()?.unwrap_or(WEEKS_DEFAULT),
            from: input::asked_warehouse(inventory, from, INVALID_WAREHOUSE).await?,
            to: input::asked_warehouse(inventory, to, INVALID_WAREHOUSE).await?,
            product: input::asked_product(inventory, product, INVALID_PRODUCT).await?,
        })
    }
}

fn groups(text: &str) -> Result<Groups, ApiError> {
    let mut groups = Groups {
        week: false,
        route: false,
        product: false,
    };
    for name in text.split(',') {
        match name {
            "week" => groups.week = true,
            "route" => groups.route = true,
            "product" => groups.product = true,
            _ => return Err(ApiError::BadRequest(INVALID_GROUP)),
        }
    }
    Ok(groups)
}

/// A place in the list as text.
pub(super) struct SumCursor(SumPlace);

impl FromStr for SumCursor {
    type Err = ();

    fn from_str(cursor: &str) -> Result<Self, ()> {
        let mut parts = cursor.split('.');
        let mut next = || parts.next().ok_or(());
        // 1970 stands for all weeks together.
        let week = match next()?.parse() {
            Ok(0) => Some(Timestamp::from_micros(0)),
            Ok(micros) => Timestamp::of_facts(micros),
            Err(_) => None,
        };
        let week = week.ok_or(())?;
        let mut id = || Uuid::try_parse(next()?).map_err(drop);
        Ok(Self(SumPlace {
            week,
            from: id()?,
            to: id()?,
            product: id()?,
        }))
    }
}

impl Display for SumCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SumPlace {
            week,
            from,
            to,
            product,
        } = self.0;
        write!(f, "{}.{from}.{to}.{product}", week.micros())
    }
}

/// Where less or more arrived than departed
///
/// Sums over the lines that arrived in the last weeks; the newest week first, then by ids.
#[utoipa::path(
    get,
    path = "/api/differences",
    tag = "movements",
    params(
        ("group" = Option<String>, Query, description = "What sums are told apart by: a list of week, route and product; all three if it is left out"),
        ("weeks" = Option<u16>, Query, description = "Weeks back, 1 to 520; 12 if it is left out"),
        ("warehouse_id_from" = Option<String>, Query, description = "UUID or code"),
        ("warehouse_id_to" = Option<String>, Query, description = "UUID or code"),
        ("product_id" = Option<String>, Query, description = "UUID or sku"),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page", body = DifferencesBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true, or later"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A filter, limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    Query(query): Query<DifferencesQuery>,
    page: Page<SumCursor>,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let summed = query.summed(inventory).await?;
    let limit = page.limit();
    let after = page.after.as_ref().map(|cursor| cursor.0);
    let read = inventory.differences(&summed, after, limit).await?;
    let next = next(&read.value, limit, |sum| SumCursor(sum.place));
    let body = DifferencesBody {
        differences: read.value.iter().map(DifferenceBody::new).collect(),
        next_cursor: next.as_ref().map(SumCursor::to_string),
    };
    Ok(listed(&page, limit, &body, read.as_of, next))
}
