//! Lists of movements: what is under way, what is overdue, what ended otherwise than it began.

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
    answer::listed,
    body::LineBody,
    error::{ApiError, Problem},
    input::{self, Page},
};
use crate::{
    domain::{MovementId, ProductId, Status, Timestamp, Warehouse, catalogue::Name},
    inventory::Inventory,
    store::movements::{Place, ToldLine, Wanted},
};

const INVALID_STATUS: &str = "status must be in_transit, arrival_only, short, over or complete";
const INVALID_WAREHOUSE: &str = "warehouse_id names no warehouse";
const INVALID_PRODUCT: &str = "product_id names no product";
const INVALID_TIME: &str =
    "departed_after and departed_before must be ISO 8601 times of 2000 to 2099";
const INVALID_OVERDUE: &str = "overdue must be true or false";

/// A line of a movement.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToldBody {
    /// The movement's.
    id: Uuid,
    #[serde(flatten)]
    line: LineBody,
    /// The sku where there is one, else the UUID.
    product: String,
    product_name: Option<String>,
    /// The code where there is one, else the UUID; `null` while the departure is missing.
    warehouse_from: Option<String>,
    /// The code where there is one, else the UUID; `null` while the arrival is missing.
    warehouse_to: Option<String>,
    /// Since the departure; `null` for what has arrived.
    under_way_seconds: Option<f64>,
    /// Half of what left the same warehouse took no longer; `null` while too few have arrived.
    usual_seconds: Option<f64>,
    /// Longer than this is overdue: 99 of 100 took no longer, or the setting `transit.late_after_hours`.
    late_after_seconds: f64,
    overdue: bool,
}

impl ToldBody {
    fn new(told: &ToldLine) -> Self {
        Self {
            id: told.movement.uuid(),
            line: LineBody::new(&told.line),
            product: told.product.label(),
            product_name: told.product.name.as_ref().map(Name::to_string),
            warehouse_from: told.from.as_ref().map(Warehouse::label),
            warehouse_to: told.to.as_ref().map(Warehouse::label),
            under_way_seconds: told.under_way_seconds,
            usual_seconds: told.usual_seconds,
            late_after_seconds: told.late_after_seconds,
            overdue: told.is_overdue,
        }
    }
}

/// A page of movements.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MovementsBody {
    movements: Vec<ToldBody>,
    /// What gives the next page as `?cursor=`; `null` on the last. A page may hold fewer than `limit` and not be the last.
    next_cursor: Option<String>,
}

/// What a list is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct MovementsQuery {
    status: Option<String>,
    warehouse_id: Option<String>,
    product_id: Option<String>,
    departed_after: Option<String>,
    departed_before: Option<String>,
    overdue: Option<String>,
}

impl MovementsQuery {
    async fn wanted(&self, inventory: &Inventory) -> Result<Wanted, ApiError> {
        let status = self
            .status
            .as_deref()
            .map(|text| Status::named(text).ok_or(ApiError::BadRequest(INVALID_STATUS)));
        let time = |text: &Option<String>| {
            let time = text.as_deref().map(Timestamp::parse_fact_time).transpose();
            time.map_err(|_| ApiError::BadRequest(INVALID_TIME))
        };
        let overdue = self.overdue.as_deref().map(|text| {
            text.parse()
                .map_err(|_| ApiError::BadRequest(INVALID_OVERDUE))
        });
        Ok(Wanted {
            status: status.transpose()?,
            warehouse: input::asked_warehouse(
                inventory,
                self.warehouse_id.as_deref(),
                INVALID_WAREHOUSE,
            )
            .await?,
            product: input::asked_product(inventory, self.product_id.as_deref(), INVALID_PRODUCT)
                .await?,
            departed_after: time(&self.departed_after)?,
            departed_before: time(&self.departed_before)?,
            is_overdue: overdue.transpose()?,
            ..Wanted::default()
        })
    }
}

/// A place in a list as text.
pub(super) struct MovementCursor(Place);

impl FromStr for MovementCursor {
    type Err = ();

    fn from_str(cursor: &str) -> Result<Self, ()> {
        let mut parts = cursor.split('.');
        let mut next = || parts.next().ok_or(());
        let at = match next()? {
            "" => None,
            micros => {
                let at = micros.parse().ok().and_then(Timestamp::of_facts);
                Some(at.ok_or(())?)
            }
        };
        let id = |text| Uuid::try_parse(text).map_err(drop);
        Ok(Self(Place {
            at,
            movement: MovementId::new(id(next()?)?).ok_or(())?,
            product: ProductId::new(id(next()?)?).ok_or(())?,
        }))
    }
}

impl Display for MovementCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            at,
            movement,
            product,
        } = self.0;
        if let Some(at) = at {
            write!(f, "{}", at.micros())?;
        }
        write!(f, ".{movement}.{product}")
    }
}

/// The movements
///
/// One entry for each product of a movement. With `status=in_transit` or `overdue=true`: longest under way first; with
/// `short`, `over` or `arrival_only`: what arrived last first; else by id.
#[utoipa::path(
    get,
    path = "/api/movements",
    tag = "movements",
    params(
        ("status" = Option<String>, Query, description = "in_transit, arrival_only, short, over or complete"),
        ("warehouse_id" = Option<String>, Query, description = "UUID or code: where it came from or went to"),
        ("product_id" = Option<String>, Query, description = "UUID or sku"),
        ("departed_after" = Option<String>, Query, description = "ISO 8601: departed then or later"),
        ("departed_before" = Option<String>, Query, description = "ISO 8601: departed before"),
        ("overdue" = Option<bool>, Query, description = "Under way for longer than 99 of 100 from the same warehouse"),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page", body = MovementsBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true, or later"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A filter, limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    Query(query): Query<MovementsQuery>,
    page: Page<MovementCursor>,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let wanted = query.wanted(inventory).await?;
    let limit = page.limit();
    let after = page.after.as_ref().map(|cursor| cursor.0);
    let read = inventory.movements(&wanted, after, limit).await?;
    let next = read.value.next.map(MovementCursor);
    let body = MovementsBody {
        movements: read.value.lines.iter().map(ToldBody::new).collect(),
        next_cursor: next.as_ref().map(MovementCursor::to_string),
    };
    Ok(listed(&page, limit, &body, read.as_of, next))
}
