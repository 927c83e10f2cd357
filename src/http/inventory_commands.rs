//! The inventory API's commands, in the words of its clients.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    adjustments::kind,
    command::{
        self, Ask, INSUFFICIENT_STOCK, WhenEmpty, With, decide, granted, note, or_kept, problem,
        refused,
    },
    error::{ApiError, Problem},
    input::{self, Name, Names},
};
use crate::{
    domain::{
        Product, Quantity, StockKey, Timestamp, Warehouse,
        catalogue::Threshold,
        command::{Adjustment, AdjustmentKind, Item, Request, Reserve},
        decide::{Refusal, Verdict},
        stock::ProductStock,
    },
    inventory::decide::{Decided, Rendered},
    live::{filter::Filter, product::ProductDocument},
};

const NOT_FOUND: &str = "Product not found";
const INVALID_REQUEST: &str = "Invalid request";

/// A change of a product's stock in a warehouse.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct UpdateBody {
    /// Code or UUID.
    #[schema(value_type = String, example = "US-WEST")]
    warehouse: Name,
    /// Units more, or less if negative; for a `count` the number there is.
    #[schema(example = -5)]
    change: i64,
    /// `sale`, `damage`, `restock`, `return`, `adjustment` or `count`.
    #[schema(example = "sale")]
    update_type: String,
    #[schema(max_length = 500)]
    reason: Option<String>,
    #[schema(max_length = 200)]
    reference: Option<String>,
}

impl WhenEmpty for UpdateBody {}

/// Change a product's stock
#[utoipa::path(
    post,
    path = "/inventory/{product_id}/update",
    tag = "inventory",
    params(
        ("product_id" = String, Path, description = "UUID or sku"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = UpdateBody,
    responses(
        (status = 200, description = "The product as it is now", body = ProductDocument, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product or warehouse", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn update(
    State(context): State<Context>,
    Path(product): Path<String>,
    ask: Ask<UpdateBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, update_once(&context, product, ask)).await
}

async fn update_once(
    context: &Context,
    product: String,
    ask: Ask<UpdateBody>,
) -> Result<Response, ApiError> {
    let body = &ask.body;
    let product = input::known_product(&context.inventory, &product, NOT_FOUND).await?;
    let place = body.warehouse.text();
    let names = Names::of(
        &context.inventory,
        std::iter::empty(),
        std::iter::once(place.clone()),
    )
    .await?;
    let warehouse = names.warehouse(&place);
    let key = StockKey {
        warehouse: warehouse.ok_or(ApiError::NotFound("Warehouse not found"))?,
        product,
    };
    let kind = kind(&body.update_type).map_err(ApiError::Unprocessable)?;
    let note = ask.note(body.reason.as_deref(), body.reference.as_deref())?;
    let adjustment = Adjustment::new(command::command_id(), key, kind, body.change, note)
        .map_err(ApiError::unprocessable)?;
    let request = Request::Adjust {
        adjustment,
        expected: None,
    };
    let with = With {
        shows: Some(product),
        ..With::default()
    };
    decide(context, ask.once, request, with, |decided| {
        match (decided.verdict, decided.product) {
            (Verdict::Refused(refusal, place), _) => refused(refusal, decided, *place),
            (_, Some(stock)) => granted(StatusCode::OK, &document(stock)),
            (_, None) => granted(StatusCode::OK, &json!({})),
        }
    })
    .await
}

fn document(stock: &ProductStock) -> ProductDocument {
    ProductDocument::new(stock, &Filter::default())
}

/// How many units are wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the form of the body, which is read by hand")]
pub(super) struct ReserveBody {
    #[schema(example = 2, minimum = 1)]
    quantity: i64,
}

/// Whatever was sent: what it should be is said in the words of this API.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct AnyBody(Value);

impl WhenEmpty for AnyBody {
    fn when_empty() -> Option<Self> {
        Some(Self(Value::Null))
    }
}

/// Units that are reserved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReservedBody {
    success: bool,
    #[schema(example = 2)]
    reserved: i64,
    /// Of the product, in all warehouses.
    #[schema(example = 348)]
    available_stock: i64,
    reservation_id: Uuid,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

/// Reserve units of a product, wherever they are
#[utoipa::path(
    post,
    path = "/inventory/{product_id}/reserve",
    tag = "inventory",
    params(
        ("product_id" = String, Path, description = "UUID or sku"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = ReserveBody,
    responses(
        (status = 200, description = "They are reserved", body = ReservedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = INVALID_REQUEST, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reserve(
    State(context): State<Context>,
    Path(product): Path<String>,
    ask: Result<Ask<AnyBody>, ApiError>,
) -> Result<Response, ApiError> {
    let once = ask.as_ref().ok().and_then(|ask| ask.once.clone());
    or_kept(&context, once, reserve_once(&context, product, ask)).await
}

async fn reserve_once(
    context: &Context,
    product: String,
    ask: Result<Ask<AnyBody>, ApiError>,
) -> Result<Response, ApiError> {
    let ask = ask.map_err(|error| match error {
        ApiError::Unprocessable(_) | ApiError::BadRequest(input::NO_JSON) => {
            ApiError::BadRequest(INVALID_REQUEST)
        }
        error => error,
    })?;
    let product = input::known_product(&context.inventory, &product, NOT_FOUND).await?;
    let quantity = ask.body.0.get("quantity").and_then(Value::as_i64);
    let quantity = quantity.filter(|units| *units > 0).and_then(Quantity::new);
    let quantity = quantity.ok_or(ApiError::BadRequest(INVALID_REQUEST))?;
    let request = Request::Reserve(Reserve {
        id: command::reservation_id(),
        items: vec![Item {
            product,
            warehouse: None,
            quantity,
        }],
        ttl_seconds: Some(context.ttl(None)?),
        note: ask.note(None, None)?,
        is_order: false,
    });
    let with = With {
        shows: Some(product),
        ..With::default()
    };
    decide(context, ask.once, request, with, move |decided| {
        reserved(decided, quantity)
    })
    .await
}

fn reserved(decided: &Decided<'_>, quantity: Quantity) -> Rendered {
    match decided.verdict {
        Verdict::Reserved(made) => {
            let levels = decided.product.into_iter().flat_map(|stock| &stock.levels);
            let body = ReservedBody {
                success: true,
                reserved: quantity.units(),
                available_stock: levels.fold(0, |sum: i64, placed| {
                    sum.saturating_add(placed.level.available())
                }),
                reservation_id: made.id.uuid(),
                expires_at: made.expires_at.as_ref().map(Timestamp::to_string),
            };
            granted(StatusCode::OK, &body)
        }
        Verdict::Refused(Refusal::Short(lines), _) => {
            let more = json!({ "success": false, "error": INSUFFICIENT_STOCK, "title": INSUFFICIENT_STOCK });
            problem(StatusCode::CONFLICT, &command::short_detail(lines), &more)
        }
        Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
        _ => granted(StatusCode::OK, &json!({})),
    }
}

/// An adjustment in flat words.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct FlatAdjustBody {
    /// Sku, as number or text, or UUID.
    #[schema(value_type = Value, example = 1)]
    product_id: Name,
    /// Code, as number or text, or UUID.
    #[schema(value_type = Value, example = 1)]
    warehouse_id: Name,
    /// Units more, or less if negative.
    #[schema(example = -5)]
    quantity: i64,
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl WhenEmpty for FlatAdjustBody {}

/// A level in flat words.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlatAdjustedBody {
    #[schema(example = "success")]
    status: &'static str,
    data: FlatLevelBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlatLevelBody {
    inventory_id: i64,
    /// The sku where there is one, a number if it is all digits, else the UUID.
    #[schema(value_type = Value)]
    product_id: Value,
    /// The code where there is one, a number if it is all digits, else the UUID.
    #[schema(value_type = Value)]
    warehouse_id: Value,
    #[schema(minimum = 0)]
    quantity: i64,
    min_stock: Option<i64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<String>,
}

/// Adjust a level, in flat words
#[utoipa::path(
    post,
    path = "/inventory/adjust",
    tag = "inventory",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = FlatAdjustBody,
    responses(
        (status = 200, description = "The level as it is now", body = FlatAdjustedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product or warehouse", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It would go below zero, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn adjust(
    State(context): State<Context>,
    ask: Ask<FlatAdjustBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, adjust_once(&context, ask)).await
}

async fn adjust_once(context: &Context, ask: Ask<FlatAdjustBody>) -> Result<Response, ApiError> {
    let body = &ask.body;
    let (product, warehouse) = (body.product_id.text(), body.warehouse_id.text());
    let names = Names::of(
        &context.inventory,
        std::iter::once(product.clone()),
        std::iter::once(warehouse.clone()),
    )
    .await?;
    let key = names
        .key(&warehouse, &product)
        .map_err(ApiError::NotFound)?;
    ask.sender.reaches(key.warehouse)?;
    let note = note(ask.actor.as_ref(), body.reason.as_deref(), None)?;
    let kind = AdjustmentKind::Adjustment;
    let adjustment = Adjustment::new(command::command_id(), key, kind, body.quantity, note)
        .map_err(ApiError::unprocessable)?;
    let request = Request::Adjust {
        adjustment,
        expected: None,
    };
    let with = With {
        shows: Some(key.product),
        ..With::default()
    };
    decide(
        context,
        ask.once,
        request,
        with,
        move |decided| match decided.verdict {
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => granted(StatusCode::OK, &flat(key, decided)),
        },
    )
    .await
}

fn flat(key: StockKey, decided: &Decided<'_>) -> FlatAdjustedBody {
    let level = decided.book.level(key);
    let product = decided.product.map(|stock| &stock.product);
    let levels = decided.product.into_iter().flat_map(|stock| &stock.levels);
    let mut places = levels.map(|placed| &placed.warehouse);
    let place = places.find(|warehouse| warehouse.id == key.warehouse);
    let label = |text: Option<String>, id: Uuid| {
        let text = text.unwrap_or_else(|| id.to_string());
        let number = text.parse::<u64>().ok();
        // As it would be written again: no sign and no zeros before it.
        let number = number.filter(|number| number.to_string() == text);
        number.map_or(json!(text), |number| json!(number))
    };
    FlatAdjustedBody {
        status: "success",
        data: FlatLevelBody {
            inventory_id: decided.number(key).map_or(0, |number| number.0),
            product_id: label(product.map(Product::label), key.product.uuid()),
            warehouse_id: label(place.map(Warehouse::label), key.warehouse.uuid()),
            quantity: level.quantity(),
            min_stock: product.and_then(|p| p.min_stock).map(Threshold::units),
            updated_at: level.updated_at.as_ref().map(Timestamp::to_string),
        },
    }
}
