//! Orders: each is a reservation of one product, paid for, shipped or cancelled.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    Context,
    answer::document,
    command::{self, Ask, WhenEmpty, With, decide, granted, or_kept, problem, refused},
    error::{ApiError, Problem},
    products::{PageQuery, number},
    reservations::quantity,
};
use crate::{
    domain::{
        CommitPoint,
        catalogue::Name,
        command::{Item, Request, Reserve},
        decide::{Refusal, Verdict},
        reservation::{State as Standing, Step},
    },
    inventory::decide::{Decided, Rendered},
    store::orders::Order,
};

/// Orders of the newest ones where the request does not say, and at most.
const RECENT: i64 = 10;
const RECENT_MAX: i64 = 100;

/// An order to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewOrderBody {
    #[schema(example = 1)]
    product_id: i64,
    #[schema(example = 1, minimum = 1)]
    quantity: i64,
}

impl WhenEmpty for NewOrderBody {}

/// An order that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeBody {
    id: i64,
    product_id: i64,
    quantity: i64,
    /// `PENDING`
    #[schema(example = "PENDING")]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// What was ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderedBody {
    id: i64,
    sku: String,
    name: Option<String>,
    /// When it was ordered.
    #[schema(example = "19.99")]
    price: String,
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderBody {
    id: i64,
    product_id: i64,
    quantity: i64,
    /// `PENDING`, `PAID`, `SHIPPED` or `CANCELLED`.
    #[schema(example = "PAID")]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    product: OrderedBody,
    /// Quantity times price.
    #[schema(example = "59.97")]
    total_value: String,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrdersPageBody {
    orders: Vec<OrderBody>,
    total: i64,
    page: i64,
    per_page: i64,
    total_pages: i64,
}

/// The newest orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecentBody {
    orders: Vec<OrderBody>,
}

/// As clients of this API read a reservation's state.
fn status(state: Standing) -> &'static str {
    match state {
        Standing::Active => "PENDING",
        Standing::Confirmed => "PAID",
        Standing::Shipped => "SHIPPED",
        Standing::Released | Standing::Expired | Standing::Returned => "CANCELLED",
    }
}

impl OrderBody {
    fn new(order: &Order, state: Standing) -> Self {
        Self {
            id: order.number,
            product_id: order.product_number,
            quantity: order.quantity,
            status: status(state),
            created_at: order.created_at.to_string(),
            product: OrderedBody {
                id: order.product_number,
                sku: order.product.label(),
                name: order.product.name.as_ref().map(Name::to_string),
                price: order.unit_price.to_string(),
            },
            total_value: order.unit_price.times(order.quantity).to_string(),
        }
    }

    fn of(order: &Order) -> Self {
        Self::new(order, order.state)
    }
}

fn no_order(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::Absent(format!("Order with ID {id} not found"))
}

/// Order
///
/// The units are reserved at once, from one warehouse if one has them all.
#[utoipa::path(
    post,
    path = "/orders/",
    tag = "orders",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = NewOrderBody,
    responses(
        (status = 201, description = "It is made", body = MadeBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(context): State<Context>,
    ask: Ask<NewOrderBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, create_once(&context, ask)).await
}

async fn create_once(context: &Context, ask: Ask<NewOrderBody>) -> Result<Response, ApiError> {
    let quantity = quantity(ask.body.quantity)?;
    let number = ask.body.product_id;
    let product = context.inventory.listed_product(number).await?;
    let product =
        product.ok_or_else(|| ApiError::Absent(format!("Product with ID {number} not found")))?;
    let request = Request::Reserve(Reserve {
        id: command::reservation_id(),
        items: vec![Item {
            product,
            warehouse: None,
            quantity,
        }],
        ttl_seconds: context.order_ttl_seconds.map(i64::from),
        note: ask.note(None, None)?,
        is_order: true,
    });
    decide(
        context,
        ask.once,
        request,
        With::default(),
        move |decided| match (decided.verdict, decided.order) {
            (Verdict::Reserved(made), Some(order)) => granted(
                StatusCode::CREATED,
                &MadeBody {
                    id: order,
                    product_id: number,
                    quantity: quantity.units(),
                    status: status(Standing::Active),
                    created_at: made.created_at.to_string(),
                },
            ),
            (Verdict::Refused(refusal, place), _) => refused(refusal, decided, *place),
            _ => granted(StatusCode::CREATED, &json!({})),
        },
    )
    .await
}

/// The orders, the newest first
#[utoipa::path(
    get,
    path = "/orders/",
    tag = "orders",
    params(
        ("page" = Option<i64>, Query, description = "From 1 on"),
        ("per_page" = Option<i64>, Query, description = "1 to 100; 20 if it is left out")
    ),
    responses(
        (status = 200, description = "A page", body = OrdersPageBody, headers(
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
        .orders(numbered.offset(), numbered.per_page)
        .await?;
    let (orders, total) = read.value;
    let body = OrdersPageBody {
        orders: orders.iter().map(OrderBody::of).collect(),
        total,
        page: numbered.page,
        per_page: numbered.per_page,
        total_pages: numbered.pages(total),
    };
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// How many of the newest.
#[derive(Debug, Deserialize)]
pub(super) struct RecentQuery {
    limit: Option<String>,
}

/// The newest orders
#[utoipa::path(
    get,
    path = "/orders/recent",
    tag = "orders",
    params(("limit" = Option<i64>, Query, description = "1 to 100; 10 if it is left out")),
    responses(
        (status = 200, description = "The newest first", body = RecentBody, headers(
            ("Stock-Version" = String, description = "As of which commit the list is true")
        )),
        (status = 400, description = "The query cannot be understood", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A limit that is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn recent(
    State(context): State<Context>,
    Query(query): Query<RecentQuery>,
) -> Result<Response, ApiError> {
    let limit = match query.limit {
        None => RECENT,
        Some(text) => {
            let limit = text.parse().ok().filter(|n| (1..=RECENT_MAX).contains(n));
            limit.ok_or(ApiError::unprocessable("limit is a number from 1 to 100"))?
        }
    };
    let read = context.inventory.recent_orders(limit).await?;
    let body = RecentBody {
        orders: read.value.iter().map(OrderBody::of).collect(),
    };
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// An order
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(("id" = i64, Path)),
    responses(
        (status = 200, description = "The order", body = OrderBody, headers(
            ("Stock-Version" = String, description = "As of which commit it is true")
        )),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (order, as_of) = order(&context, &id).await?;
    Ok(document(StatusCode::OK, &OrderBody::of(&order), as_of))
}

async fn order(context: &Context, id: &str) -> Result<(Order, CommitPoint), ApiError> {
    let number = number(id).ok_or_else(|| no_order(id))?;
    let read = context.inventory.order(number).await?;
    Ok((read.value.ok_or_else(|| no_order(id))?, read.as_of))
}

/// Nothing has to be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct NothingBody {}

impl WhenEmpty for NothingBody {
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// Pay for an order
#[utoipa::path(
    post,
    path = "/orders/{id}/pay",
    tag = "orders",
    params(
        ("id" = i64, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body(content = Option<NothingBody>),
    responses(
        (status = 200, description = "It is paid for", body = OrderBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Its goods are not there any more, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is not pending, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn pay(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<NothingBody>,
) -> Result<Response, ApiError> {
    step(&context, &id, Step::Pay, ask).await
}

/// Ship an order
#[utoipa::path(
    post,
    path = "/orders/{id}/ship",
    tag = "orders",
    params(
        ("id" = i64, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day")
    ),
    request_body(content = Option<NothingBody>),
    responses(
        (status = 200, description = "It is shipped", body = OrderBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is not paid for, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ship(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<NothingBody>,
) -> Result<Response, ApiError> {
    step(&context, &id, Step::Ship, ask).await
}

/// Cancel an order
///
/// Everything is given back, once; again, nothing changes. One that is shipped is 422.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    tag = "orders",
    params(
        ("id" = i64, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body(content = Option<NothingBody>),
    responses(
        (status = 200, description = "It is cancelled", body = OrderBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is shipped, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<NothingBody>,
) -> Result<Response, ApiError> {
    step(&context, &id, Step::Cancel, ask).await
}

async fn step(
    context: &Context,
    id: &str,
    step: Step,
    ask: Ask<NothingBody>,
) -> Result<Response, ApiError> {
    let (order, _) = order(context, id).await?;
    let request = Request::Step {
        reservation: order.reservation,
        step,
        id: command::command_id(),
        note: ask.note(None, Some(&format!("order {}", order.number)))?,
    };
    decide(
        context,
        ask.once,
        request,
        With::default(),
        move |decided| stepped(&order, decided),
    )
    .await
}

fn stepped(order: &Order, decided: &Decided<'_>) -> Rendered {
    match decided.verdict {
        Verdict::Stepped(at) => granted(StatusCode::OK, &OrderBody::new(order, at.state)),
        Verdict::Refused(Refusal::Stands(state), _) => {
            let detail = format!("The order is {}", status(*state));
            problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                &detail,
                &json!({ "order_status": status(*state) }),
            )
        }
        Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
        _ => granted(StatusCode::OK, &json!({})),
    }
}
