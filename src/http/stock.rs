//! How much of this is there.

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use uuid::Uuid;

use super::{
    Context,
    answer::{Asked, respond},
    error::{ApiError, Problem},
    guard::Sender,
    input,
    past::{self, MomentQuery, StockAtBody},
};
use crate::{
    domain::{ProductId, StockKey, StockLevel, WarehouseId},
    inventory::query::{Answer, Source},
};

const INVALID: &str = "Invalid warehouse or product ID";

/// What stands of a product in a warehouse, or stood at a moment
///
/// Ids are UUIDs in any written form, or a warehouse's code and a product's sku. What is not known has nothing: zeros,
/// with revision 0. A moment that is yet to come is like now.
#[utoipa::path(
    get,
    path = "/api/warehouses/{warehouse_id}/products/{product_id}",
    tag = "stock",
    params(
        ("warehouse_id" = String, Path, description = "UUID or code"),
        ("product_id" = String, Path, description = "UUID or sku"),
        ("at" = Option<String>, Query, description = "ISO 8601, of 2000 to 2099: as it was then"),
        ("basis" = Option<String>, Query, description = "recorded (what we knew then; if it is left out) or occurred (what we know now of then)"),
        ("Stock-Min-Version" = Option<String>, Header, description = "Answer as of this version or later"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag the client has")
    ),
    responses(
        (status = 200, description = "The level", body = StockAtBody, headers(
            ("ETag" = String, description = "Of the body"),
            ("Stock-Version" = String, description = "As of which commit the answer is true"),
            ("Cache-Status" = String, description = "hit, miss or bypass (RFC 9211)")
        )),
        (status = 304, description = "The client has it already"),
        (status = 400, description = "Invalid warehouse or product ID, or a moment that is none", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The wanted version was undone by a restore", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The wanted version is not reached, or the database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path((warehouse, product)): Path<(String, String)>,
    Query(query): Query<MomentQuery>,
    asked: Asked,
    sender: Sender,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let moment = query.moment()?;
    let is_named = [&warehouse, &product]
        .iter()
        .any(|text| Uuid::try_parse(text).is_err());
    if is_named && asked.min_version.is_some() {
        // The wanted commit may be the one that gave the name.
        inventory.reached_commit(asked.min_version).await?;
    }
    let warehouse = input::warehouse(inventory, &warehouse, INVALID).await?;
    let product = input::product(inventory, &product, INVALID).await?;
    if let Some(warehouse) = warehouse {
        sender.reaches(warehouse)?;
    }
    let key = warehouse
        .zip(product)
        .map(|(warehouse, product)| StockKey { warehouse, product });
    let answer = match (key, moment) {
        (Some(key), None) => inventory.stock(key, asked.min_version).await?,
        (Some(key), Some(moment)) => {
            past::stock_at(inventory, key, moment, asked.min_version).await?
        }
        // The nil UUID names nothing, and nothing of it is anywhere.
        (None, moment) => Answer {
            body: Some(StockAtBody::json(
                warehouse.map_or(Uuid::nil(), WarehouseId::uuid),
                product.map_or(Uuid::nil(), ProductId::uuid),
                &StockLevel::EMPTY,
                moment,
            )),
            as_of: inventory.reached_commit(asked.min_version).await?,
            source: Source::Bypass,
        },
    };
    Ok(respond(answer, &asked, INVALID))
}
