//! Products of the orders API: numbers, prices, and what is available.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Context,
    answer::{document, set_version},
    command::{self, Ask, WhenEmpty, With, decide, granted, or_kept, problem, refused},
    error::{ApiError, Problem},
    input::Body,
};
use crate::{
    domain::{
        Product, Quantity, StockKey, Warehouse, WarehouseId,
        catalogue::{Code, Name},
        command::{Adjustment, AdjustmentKind, Request},
        decide::{Refusal, Verdict},
        price::Price,
        stock::ProductStock,
    },
    inventory::catalogue::{Entry, PutError},
    store::listings::{Listing, NewProduct},
};

/// Entries of a page where the request does not say, and at most.
const PER_PAGE: i64 = 20;
const PER_PAGE_MAX: i64 = 100;

/// A price, as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PriceBody {
    Number(serde_json::Number),
    Text(String),
}

impl PriceBody {
    fn price(&self) -> Result<Price, ApiError> {
        let price = match self {
            Self::Number(number) => Price::parse(&number.to_string()),
            Self::Text(text) => Price::parse(text),
        };
        price.map_err(ApiError::unprocessable)
    }
}

/// A product to be created.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewProductBody {
    #[schema(example = "WIDGET-1", min_length = 1, max_length = 64)]
    sku: String,
    #[schema(example = "Widget", min_length = 1, max_length = 200)]
    name: String,
    /// A number or text, with at most two decimals.
    #[schema(value_type = String, example = "19.99")]
    price: PriceBody,
    /// Units it begins with, in the default warehouse.
    #[serde(default)]
    #[schema(example = 5, minimum = 0)]
    stock: i64,
}

impl WhenEmpty for NewProductBody {}

/// What a product is called and costs.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ProductEntryBody {
    #[schema(example = "WIDGET-1", min_length = 1, max_length = 64)]
    sku: String,
    #[schema(example = "Widget", min_length = 1, max_length = 200)]
    name: String,
    /// A number or text, with at most two decimals.
    #[schema(value_type = String, example = "19.99")]
    price: PriceBody,
}

/// A product.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedBody {
    id: i64,
    sku: String,
    name: Option<String>,
    #[schema(example = "19.99")]
    price: String,
    /// What is available, in all warehouses.
    #[schema(minimum = 0)]
    stock: i64,
}

impl ListedBody {
    pub(super) fn new(number: i64, product: &Product, price: Price, stock: i64) -> Self {
        Self {
            id: number,
            sku: product.label(),
            name: product.name.as_ref().map(Name::to_string),
            price: price.to_string(),
            stock,
        }
    }

    fn of(listing: &Listing) -> Self {
        Self::new(
            listing.number,
            &listing.product,
            listing.price,
            listing.stock,
        )
    }
}

/// A page of products.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedPageBody {
    products: Vec<ListedBody>,
    total: i64,
    page: i64,
    per_page: i64,
    total_pages: i64,
}

/// Which page.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    page: Option<String>,
    per_page: Option<String>,
}

/// A page by its number, from 1 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    pub(super) page: i64,
    pub(super) per_page: i64,
}

impl PageQuery {
    pub(super) fn numbered(&self) -> Result<Numbered, ApiError> {
        let number = |text: &Option<String>, default: i64, max: i64, why: &'static str| match text {
            None => Ok(default),
            Some(text) => {
                let number = text.parse().ok().filter(|n| (1..=max).contains(n));
                number.ok_or(ApiError::unprocessable(why))
            }
        };
        Ok(Numbered {
            page: number(&self.page, 1, 1_000_000_000, "page is a number from 1 on")?,
            per_page: number(
                &self.per_page,
                PER_PAGE,
                PER_PAGE_MAX,
                "per_page is a number from 1 to 100",
            )?,
        })
    }
}

impl Numbered {
    pub(super) fn offset(self) -> i64 {
        (self.page - 1) * self.per_page
    }

    pub(super) fn pages(self, total: i64) -> i64 {
        (total + self.per_page - 1) / self.per_page
    }
}

/// The number in a path.
pub(super) fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| *number > 0)
}

fn no_product(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::Absent(format!("Product with ID {id} not found"))
}

/// Units of a product available in all warehouses.
fn available(stock: Option<&ProductStock>) -> i64 {
    let levels = stock.into_iter().flat_map(|stock| &stock.levels);
    levels.fold(0, |sum: i64, placed| {
        sum.saturating_add(placed.level.available())
    })
}

/// The products
#[utoipa::path(
    get,
    path = "/products/",
    tag = "orders",
    params(
        ("page" = Option<i64>, Query, description = "From 1 on"),
        ("per_page" = Option<i64>, Query, description = "1 to 100; 20 if it is left out")
    ),
    responses(
        (status = 200, description = "A page, by id", body = ListedPageBody, headers(
            ("Stock-Version" = String, description = "As of which commit the page is true")
        )),
        (status = 400, description = "The query cannot be understood", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A page that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiError> {
    let numbered = query.numbered()?;
    let inventory = &context.inventory;
    let read = inventory
        .listings(numbered.offset(), numbered.per_page)
        .await?;
    let (listings, total) = read.value;
    let body = ListedPageBody {
        products: listings.iter().map(ListedBody::of).collect(),
        total,
        page: numbered.page,
        per_page: numbered.per_page,
        total_pages: numbered.pages(total),
    };
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// A product
#[utoipa::path(
    get,
    path = "/products/{id}",
    tag = "orders",
    params(("id" = i64, Path)),
    responses(
        (status = 200, description = "The product", body = ListedBody, headers(
            ("Stock-Version" = String, description = "As of which commit it is true")
        )),
        (status = 404, description = "There is none, or it is archived", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (listing, as_of) = listing(&context, &id).await?;
    Ok(document(StatusCode::OK, &ListedBody::of(&listing), as_of))
}

async fn listing(
    context: &Context,
    id: &str,
) -> Result<(Listing, crate::domain::CommitPoint), ApiError> {
    let number = number(id).ok_or_else(|| no_product(id))?;
    let read = context.inventory.listing(number).await?;
    Ok((read.value.ok_or_else(|| no_product(id))?, read.as_of))
}

fn code_and_name(sku: &str, name: &str) -> Result<(Code, Name), ApiError> {
    Ok((
        Code::new(sku).map_err(ApiError::unprocessable)?,
        Name::new(name).map_err(ApiError::unprocessable)?,
    ))
}

/// Create a product
///
/// Its stock begins in the default warehouse, as a `restock`.
#[utoipa::path(
    post,
    path = "/products/",
    tag = "orders",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = NewProductBody,
    responses(
        (status = 201, description = "It is created", body = ListedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another product has this sku, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(context): State<Context>,
    ask: Ask<NewProductBody>,
) -> Result<Response, ApiError> {
    let body = &ask.body;
    let (sku, name) = code_and_name(&body.sku, &body.name)?;
    let price = body.price.price()?;
    let stock = Quantity::new(body.stock);
    let stock = stock.ok_or_else(|| {
        ApiError::unprocessable(format!("stock is a number from 0 to {}", Quantity::MAX))
    })?;
    let product = Product {
        sku: Some(sku),
        name: Some(name),
        ..Product::unnamed(command::product_id())
    };
    let request = if stock == Quantity::ZERO {
        Request::Tidy(Vec::new())
    } else {
        let key = StockKey {
            warehouse: default_warehouse(&context).await?,
            product: product.id,
        };
        let note = ask.note(Some("Opening stock"), None)?;
        let kind = AdjustmentKind::Restock;
        let restock = Adjustment::new(command::command_id(), key, kind, stock.units(), note);
        Request::Adjust {
            adjustment: restock.map_err(ApiError::unprocessable)?,
            expected: None,
        }
    };
    let with = With {
        creates: Some(NewProduct {
            product: product.clone(),
            price,
        }),
        shows: None,
    };
    decide(&context, ask.once, request, with, move |decided| {
        match (decided.verdict, decided.product_number) {
            (Verdict::Refused(refusal, place), _) => refused(refusal, decided, *place),
            (_, number) => {
                let number = number.unwrap_or_default();
                let body = ListedBody::new(number, &product, price, stock.units());
                granted(StatusCode::CREATED, &body)
            }
        }
    })
    .await
}

/// The warehouse in which products begin; made when it is first needed.
async fn default_warehouse(context: &Context) -> Result<WarehouseId, ApiError> {
    let code = &context.default_warehouse;
    let inventory = &context.inventory;
    // The same in every process, so that they make one.
    let id = WarehouseId::new(Uuid::from_u128(xxh3_128(code.as_str().as_bytes())));
    let id = id.ok_or_else(|| ApiError::unprocessable("the default warehouse has no id"))?;
    loop {
        if let Some(id) = inventory.warehouse_by_code(code.as_str()).await? {
            return Ok(id);
        }
        // One that was given another code since stays what it is called.
        if inventory.has_warehouse(id).await? {
            return Ok(id);
        }
        let warehouse = Warehouse {
            code: Some(code.clone()),
            ..Warehouse::unnamed(id)
        };
        match inventory.put(Entry::Warehouse(&warehouse)).await {
            Ok(_) => return Ok(id),
            // Somebody gave another warehouse the code just now.
            Err(PutError::Taken) => {}
            Err(PutError::Store(error)) => return Err(error.into()),
        }
    }
}

/// Change what a product is called and costs
#[utoipa::path(
    put,
    path = "/products/{id}",
    tag = "orders",
    params(("id" = i64, Path)),
    request_body = ProductEntryBody,
    responses(
        (status = 200, description = "The product", body = ListedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none, or it is archived", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another product has this sku", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn put(
    State(context): State<Context>,
    Path(id): Path<String>,
    Body(body): Body<ProductEntryBody>,
) -> Result<Response, ApiError> {
    let number = number(&id).ok_or_else(|| no_product(&id))?;
    let (sku, name) = code_and_name(&body.sku, &body.name)?;
    let price = body.price.price()?;
    let changed = context
        .inventory
        .change_listing(number, &sku, &name, price)
        .await;
    let as_of = match changed {
        Ok(Some(as_of)) => as_of,
        Ok(None) => return Err(no_product(&id)),
        Err(PutError::Taken) => return Err(ApiError::Conflict("Another product has this sku")),
        Err(PutError::Store(error)) => return Err(error.into()),
    };
    let (listing, _) = listing(&context, &id).await?;
    Ok(document(StatusCode::OK, &ListedBody::of(&listing), as_of))
}

/// Archive a product
///
/// One that has stock is 409. An archived product is in no list any more, and its ledger stays.
#[utoipa::path(
    delete,
    path = "/products/{id}",
    tag = "orders",
    params(("id" = i64, Path)),
    responses(
        (status = 204, description = "It is archived", headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 404, description = "There is none, or it is archived", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has stock", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn archive(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    use crate::inventory::listings::Archived;
    let number = number(&id).ok_or_else(|| no_product(&id))?;
    match context.inventory.archive_listing(number).await? {
        Archived::Done(as_of) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            set_version(&mut response, as_of);
            Ok(response)
        }
        Archived::NotThere => Err(no_product(&id)),
        Archived::HasStock => Err(ApiError::Conflict("The product still has stock")),
    }
}

/// A change of a product's stock.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct StockAdjustBody {
    /// Units more, or less if negative.
    #[schema(example = 10)]
    adjustment: i64,
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl WhenEmpty for StockAdjustBody {}

/// Adjust a product's stock in the default warehouse
#[utoipa::path(
    post,
    path = "/products/{id}/stock/adjust",
    tag = "orders",
    params(
        ("id" = i64, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = StockAdjustBody,
    responses(
        (status = 200, description = "The product as it is now", body = ListedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none, or it is archived", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn adjust(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<StockAdjustBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, adjust_once(&context, id, ask)).await
}

async fn adjust_once(
    context: &Context,
    id: String,
    ask: Ask<StockAdjustBody>,
) -> Result<Response, ApiError> {
    let (listing, _) = listing(context, &id).await?;
    let key = StockKey {
        warehouse: default_warehouse(context).await?,
        product: listing.product.id,
    };
    let note = ask.note(ask.body.reason.as_deref(), None)?;
    let kind = AdjustmentKind::Adjustment;
    let adjustment = Adjustment::new(command::command_id(), key, kind, ask.body.adjustment, note)
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
            Verdict::Refused(Refusal::Short(lines), _) => {
                let detail = command::short_detail(lines);
                problem(
                    StatusCode::CONFLICT,
                    &detail,
                    &json!({ "title": command::INSUFFICIENT_STOCK }),
                )
            }
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => {
                let (number, price) = (listing.number, listing.price);
                let stock = available(decided.product);
                granted(
                    StatusCode::OK,
                    &ListedBody::new(number, &listing.product, price, stock),
                )
            }
        },
    )
    .await
}
