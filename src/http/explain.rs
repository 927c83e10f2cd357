//! What a number is made of.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::document,
    body::StockBody,
    error::{ApiError, Problem},
    guard::Sender,
    input,
};
use crate::domain::{
    StockKey,
    explain::{ActiveReservations, Explanation, KindSum, Uncovered},
};

const INVALID: &str = "Invalid warehouse or product ID";

/// What the changes of one kind add up to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KindBody {
    #[schema(example = "departure")]
    kind: &'static str,
    /// How many there were.
    #[schema(example = 3, minimum = 1)]
    changes: i64,
    /// The units they added to what is on hand.
    #[schema(example = -60)]
    on_hand: i64,
    /// The units they added to what is reserved.
    #[schema(example = 0)]
    reserved: i64,
}

impl KindBody {
    fn new(sum: &KindSum) -> Self {
        Self {
            kind: sum.kind.as_str(),
            changes: sum.changes,
            on_hand: sum.delta.on_hand,
            reserved: sum.delta.reserved,
        }
    }
}

/// Reservations that are active.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActiveBody {
    #[schema(example = 2, minimum = 0)]
    active: i64,
    #[schema(example = 5, minimum = 0)]
    units: i64,
    /// Of the units, those whose time has run out: `reserved` leaves them out, the sums by kind do not yet.
    #[schema(example = 0, minimum = 0)]
    due_units: i64,
}

impl From<ActiveReservations> for ActiveBody {
    fn from(active: ActiveReservations) -> Self {
        Self {
            active: active.count,
            units: active.units,
            due_units: active.due_units,
        }
    }
}

/// A departure that no arrival covers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UncoveredBody {
    movement_id: Uuid,
    #[schema(value_type = String, format = DateTime)]
    at: String,
    /// All its units.
    #[schema(example = 50, minimum = 1)]
    quantity: i64,
    /// Those that were not there.
    #[schema(example = 10, minimum = 1)]
    uncovered: i64,
}

impl UncoveredBody {
    fn new(uncovered: &Uncovered) -> Self {
        let departure = &uncovered.departure;
        Self {
            movement_id: departure.movement.uuid(),
            at: departure.at.to_string(),
            quantity: departure.quantity,
            uncovered: uncovered.units,
        }
    }
}

/// A level and what it is made of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationBody {
    #[serde(flatten)]
    stock: StockBody,
    /// Sums over the whole ledger of the key; together they are the level.
    by_kind: Vec<KindBody>,
    reservations: ActiveBody,
    /// How far `on_hand` is below zero.
    #[schema(example = 60, minimum = 0)]
    deficit: i64,
    /// Below zero: the newest departures from here, as they were recorded, back to where their units are the deficit.
    uncovered_departures: Vec<UncoveredBody>,
    /// The deficit goes further back: at most 100 departures are named, found among the newest 10,000 changes.
    is_cut: bool,
}

impl ExplanationBody {
    fn new(key: StockKey, explanation: &Explanation) -> Self {
        let (warehouse, product) = (key.warehouse.uuid(), key.product.uuid());
        let uncovered = explanation.uncovered.iter();
        Self {
            stock: StockBody::new(warehouse, product, &explanation.level),
            by_kind: explanation.kinds.iter().map(KindBody::new).collect(),
            reservations: explanation.reservations.into(),
            deficit: explanation.deficit(),
            uncovered_departures: uncovered.map(UncoveredBody::new).collect(),
            is_cut: explanation.is_cut,
        }
    }
}

/// What a level is made of
///
/// The sums of its changes by kind, its active reservations and, below zero, the departures that no arrival covers.
#[utoipa::path(
    get,
    path = "/api/warehouses/{warehouse_id}/products/{product_id}/explain",
    tag = "stock",
    params(
        ("warehouse_id" = String, Path, description = "UUID or code"),
        ("product_id" = String, Path, description = "UUID or sku")
    ),
    responses(
        (status = 200, description = "The level and what it is made of", body = ExplanationBody, headers(
            ("Stock-Version" = String, description = "As of which commit all of it is true")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path((warehouse, product)): Path<(String, String)>,
    sender: Sender,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let warehouse = input::warehouse(inventory, &warehouse, INVALID).await?;
    let product = input::product(inventory, &product, INVALID).await?;
    let key = warehouse.zip(product);
    let (warehouse, product) = key.ok_or(ApiError::BadRequest(INVALID))?;
    sender.reaches(warehouse)?;
    let key = StockKey { warehouse, product };
    let read = inventory.explain(key).await?;
    let body = ExplanationBody::new(key, &read.value);
    Ok(document(StatusCode::OK, &body, read.as_of))
}
