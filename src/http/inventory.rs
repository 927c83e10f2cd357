//! The inventory API's reads: products with what stands of them, and single quantities.

use std::borrow::Cow;

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::{document, listed, next},
    body::StockBody,
    error::{ApiError, Problem},
    guard::Sender,
    input::{self, Body, Names, Page},
};
use crate::{
    domain::{ProductId, StockKey, stock::ProductStock},
    inventory::Inventory,
    live::{filter::Filter, product::ProductDocument},
    store::{AsOf, stock::Selection},
};

const NOT_FOUND: &str = "Product not found";
const INVALID_WAREHOUSE: &str = "Invalid warehouse ID";
/// Most keys of one query.
const KEYS_MAX: usize = 1_000;
/// Entries of a page of the inventory where the request does not say.
const INVENTORY_PAGE: usize = 1_000;

/// A page of the inventory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InventoryBody {
    products: Vec<ProductDocument>,
    /// Of all pages.
    total: i64,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<Uuid>,
}

/// What stands of every product
#[utoipa::path(
    get,
    path = "/inventory",
    tag = "inventory",
    params(
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Products of a page, 1 to 1000; 1000 if it is left out")
    ),
    responses(
        (status = 200, description = "A page, by id", body = InventoryBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = "A limit or cursor that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(context): State<Context>, page: Page) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let limit = page.limit.unwrap_or(INVENTORY_PAGE);
    let selection = Selection {
        after: page.after.and_then(ProductId::new),
        limit: i64::try_from(limit).ok(),
        ..Selection::default()
    };
    let total = inventory.products_total().await?;
    let read = inventory.product_stock(selection).await?;
    let next_cursor = next(&read.value, limit, |stock| stock.product.id.uuid());
    let all = Filter::default();
    let products = read.value.iter();
    let body = InventoryBody {
        products: products
            .map(|stock| ProductDocument::new(stock, &all))
            .collect(),
        total,
        next_cursor,
    };
    Ok(listed(&page, limit, &body, read.as_of, next_cursor))
}

/// What stands of a product
#[utoipa::path(
    get,
    path = "/inventory/{product_id}",
    tag = "inventory",
    params(("product_id" = String, Path, description = "UUID or sku")),
    responses(
        (status = 200, description = "The product", body = ProductDocument, headers(
            ("Stock-Version" = String, description = "As of which commit the answer is true")
        )),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path(product): Path<String>,
) -> Result<Response, ApiError> {
    let id = input::known_product(&context.inventory, &product, NOT_FOUND).await?;
    let read = context.inventory.stock_of(id).await?;
    let stock = read.value.ok_or(ApiError::NotFound(NOT_FOUND))?;
    let body = ProductDocument::new(&stock, &Filter::default());
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// How much there is of a product, and no more.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuantityBody {
    /// Its name, else its sku, else its id.
    #[schema(example = "Product X")]
    product: String,
    /// In all warehouses.
    #[schema(example = 12, minimum = 0)]
    quantity: i64,
}

impl QuantityBody {
    fn new(stock: &ProductStock) -> Self {
        let levels = stock.levels.iter();
        Self {
            product: stock.product.title(),
            quantity: levels.map(|placed| placed.level.quantity()).sum(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct QuantityQuery {
    pub(super) product: Option<String>,
}

/// How much there is of a product
#[utoipa::path(
    get,
    path = "/stock",
    tag = "inventory",
    params(("product" = Option<String>, Query, description = "UUID or sku; left out: live.default_product, else the first by sku")),
    responses(
        (status = 200, description = "The quantity", body = QuantityBody, headers(
            ("Stock-Version" = String, description = "As of which commit the answer is true")
        )),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn quantity(
    State(context): State<Context>,
    Query(query): Query<QuantityQuery>,
) -> Result<Response, ApiError> {
    let read = asked_stock(&context, query.product.as_deref()).await?;
    Ok(document(
        StatusCode::OK,
        &QuantityBody::new(&read.value),
        read.as_of,
    ))
}

/// What stands of the product that is asked for, or of the one that stands for all.
pub(super) async fn asked_stock(
    context: &Context,
    asked: Option<&str>,
) -> Result<AsOf<ProductStock>, ApiError> {
    let inventory = &context.inventory;
    let default = Some(context.default_product.as_ref()).filter(|product| !product.is_empty());
    let id = match asked.or(default) {
        Some(product) => input::known_product(inventory, product, NOT_FOUND).await?,
        None => inventory
            .first_product()
            .await?
            .ok_or(ApiError::NotFound(NOT_FOUND))?,
    };
    let read = inventory.stock_of(id).await?;
    Ok(AsOf {
        value: read.value.ok_or(ApiError::NotFound(NOT_FOUND))?,
        as_of: read.as_of,
    })
}

/// A page of the levels of a warehouse.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LevelsBody {
    products: Vec<StockBody>,
    /// What gives the next page as `?cursor=`; `null` on the last.
    next_cursor: Option<Uuid>,
}

/// What stands in a warehouse
#[utoipa::path(
    get,
    path = "/api/warehouses/{warehouse_id}/products",
    tag = "stock",
    params(
        ("warehouse_id" = String, Path, description = "UUID or code"),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before"),
        ("limit" = Option<u16>, Query, description = "Entries of a page, 1 to 1000; 100 if it is left out")
    ),
    responses(
        (status = 200, description = "A page, by product", body = LevelsBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true"),
            ("Link" = String, description = "rel=next, unless it is the last")
        )),
        (status = 400, description = INVALID_WAREHOUSE, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn levels(
    State(context): State<Context>,
    Path(warehouse): Path<String>,
    page: Page,
    sender: Sender,
) -> Result<Response, ApiError> {
    let inventory = &context.inventory;
    let warehouse = input::warehouse(inventory, &warehouse, INVALID_WAREHOUSE)
        .await?
        .ok_or(ApiError::BadRequest(INVALID_WAREHOUSE))?;
    sender.reaches(warehouse)?;
    let (after, limit) = (page.after.and_then(ProductId::new), page.limit());
    let read = inventory.levels_in(warehouse, after, limit).await?;
    let next_cursor = next(&read.value, limit, |(product, _)| product.uuid());
    let levels = read.value.iter();
    let body = LevelsBody {
        products: levels
            .map(|(product, level)| StockBody::new(warehouse.uuid(), product.uuid(), level))
            .collect(),
        next_cursor,
    };
    Ok(listed(&page, limit, &body, read.as_of, next_cursor))
}

/// Keys whose levels are asked for.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct KeysBody {
    /// 1 to 1,000 of them.
    keys: Vec<KeyBody>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct KeyBody {
    /// UUID or code.
    #[schema(example = "US-WEST")]
    warehouse: String,
    /// UUID or sku.
    #[schema(example = "OLJCESPC7Z")]
    product: String,
}

/// The levels of the keys that were asked for, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueriedBody {
    levels: Vec<StockBody>,
}

/// What stands of up to 1,000 keys, as of one commit
#[utoipa::path(
    post,
    path = "/api/stock/query",
    tag = "stock",
    request_body = KeysBody,
    responses(
        (status = 200, description = "The levels", body = QueriedBody, headers(
            ("Stock-Version" = String, description = "As of which commit all of them are true")
        )),
        (status = 400, description = "A body that is no JSON, or a warehouse or product that is not known", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No keys, too many, or of another form", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn query(
    State(context): State<Context>,
    sender: Sender,
    Body(body): Body<KeysBody>,
) -> Result<Response, ApiError> {
    if !(1..=KEYS_MAX).contains(&body.keys.len()) {
        return Err(ApiError::unprocessable("keys must hold 1 to 1000 keys"));
    }
    let keys = keys(&context.inventory, &body.keys).await?;
    keys.iter()
        .try_for_each(|key| sender.reaches(key.warehouse))?;
    let read = context.inventory.levels_of(&keys).await?;
    let levels = keys.iter().zip(&read.value);
    let body = QueriedBody {
        levels: levels
            .map(|(key, level)| StockBody::new(key.warehouse.uuid(), key.product.uuid(), level))
            .collect(),
    };
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// The keys, with codes and skus looked up together.
async fn keys(inventory: &Inventory, named: &[KeyBody]) -> Result<Vec<StockKey>, ApiError> {
    let products = named.iter().map(|key| Cow::Borrowed(key.product.as_str()));
    let warehouses = named
        .iter()
        .map(|key| Cow::Borrowed(key.warehouse.as_str()));
    let known = Names::of(inventory, products, warehouses).await?;
    let key = |key: &KeyBody| {
        let known = known.key(&key.warehouse, &key.product);
        known.map_err(|_| ApiError::BadRequest("Invalid warehouse or product ID"))
    };
    named.iter().map(key).collect()
}
