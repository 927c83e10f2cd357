//! Reservations: units promised for a time, then taken or given back.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    answer::document,
    command::{self, Ask, WhenEmpty, With, decide, granted, or_kept, refused},
    error::{ApiError, Problem},
    guard::Sender,
    input::{Name, Names},
};
use crate::{
    domain::{
        Quantity, ReservationId, StockKey, Timestamp,
        command::{Item, Request, Reserve},
        decide::{Reserved, Stepped, Verdict},
        reservation::{State as Standing, Step},
    },
    store::reservations::{Reservation, ReservedLine},
};

/// Most items of one reservation.
const ITEMS_MAX: usize = 100;
const NOT_FOUND: &str = "Reservation not found";
const INVALID: &str = "Invalid reservation ID";

/// Units of a product.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ItemBody {
    /// UUID or sku.
    #[schema(value_type = String, example = "OLJCESPC7Z")]
    product: Name,
    /// UUID or code; left out: wherever they are, from one warehouse if one has them all.
    #[schema(value_type = Option<String>, example = "US-WEST")]
    warehouse: Option<Name>,
    #[schema(example = 2, minimum = 1)]
    quantity: i64,
}

/// What is to be reserved: one product, or `items`.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ReserveBody {
    /// UUID or sku.
    #[schema(value_type = Option<String>, example = "OLJCESPC7Z")]
    product: Option<Name>,
    /// UUID or code.
    #[schema(value_type = Option<String>)]
    warehouse: Option<Name>,
    #[schema(example = 2, minimum = 1)]
    quantity: Option<i64>,
    /// Instead: several, all or nothing; 1 to 100.
    items: Option<Vec<ItemBody>>,
    /// How long it is kept; left out: `reservations.ttl_default_seconds`.
    #[schema(example = 900, minimum = 1)]
    ttl_seconds: Option<i64>,
    #[schema(max_length = 200)]
    reference: Option<String>,
}

impl WhenEmpty for ReserveBody {}

impl ReserveBody {
    fn into_items(self) -> Result<Vec<ItemBody>, ApiError> {
        match (self.items, self.product, self.quantity) {
            (Some(items), None, None)
                if self.warehouse.is_none() && (1..=ITEMS_MAX).contains(&items.len()) =>
            {
                Ok(items)
            }
            (None, Some(product), Some(quantity)) => Ok(vec![ItemBody {
                product,
                warehouse: self.warehouse,
                quantity,
            }]),
            _ => Err(ApiError::unprocessable(
                "either product and quantity, or 1 to 100 items, are to be given",
            )),
        }
    }
}

/// Where units are reserved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllocationBody {
    product_id: Uuid,
    warehouse_id: Uuid,
    #[schema(minimum = 1)]
    quantity: i64,
}

/// A reservation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReservationBody {
    id: Uuid,
    /// `active`, `confirmed`, `released`, `expired`, `returned` or `shipped`.
    #[schema(example = "active")]
    state: &'static str,
    allocations: Vec<AllocationBody>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    /// `null`: it does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

impl ReservationBody {
    fn new(
        id: ReservationId,
        state: Standing,
        lines: &[(StockKey, i64)],
        created_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let allocation = |(key, quantity): &(StockKey, i64)| AllocationBody {
            product_id: key.product.uuid(),
            warehouse_id: key.warehouse.uuid(),
            quantity: *quantity,
        };
        Self {
            id: id.uuid(),
            state: state.as_str(),
            allocations: lines.iter().map(allocation).collect(),
            created_at: created_at.to_string(),
            expires_at: expires_at.as_ref().map(Timestamp::to_string),
        }
    }

    fn made(made: &Reserved) -> Self {
        let (created_at, expires_at) = (made.created_at, made.expires_at);
        Self::new(
            made.id,
            Standing::Active,
            &made.lines,
            created_at,
            expires_at,
        )
    }

    fn stepped(at: &Stepped) -> Self {
        Self::new(at.id, at.state, &at.lines, at.created_at, at.expires_at)
    }
}

/// Where units are reserved, and whether they are there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShownAllocationBody {
    #[serde(flatten)]
    allocation: AllocationBody,
    /// The sku where there is one, else the UUID.
    product: String,
    /// The code where there is one, else the UUID.
    warehouse: String,
    /// It is active, and what is on hand does not cover it and the older ones.
    at_risk: bool,
}

/// A reservation as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShownReservationBody {
    id: Uuid,
    /// `active`, `confirmed`, `released`, `expired`, `returned` or `shipped`.
    #[schema(example = "active")]
    state: &'static str,
    allocations: Vec<ShownAllocationBody>,
    /// Whether one of its allocations is.
    at_risk: bool,
    reference: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    /// When its state, or the time at which it expires, last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: String,
    /// `null`: it does not expire.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

impl ShownReservationBody {
    fn new(id: ReservationId, reservation: &Reservation) -> Self {
        // What is due has expired, and holds nothing.
        let state = if reservation.is_due {
            Standing::Expired
        } else {
            reservation.state
        };
        let allocation = |line: &ReservedLine| ShownAllocationBody {
            allocation: AllocationBody {
                product_id: line.product.id.uuid(),
                warehouse_id: line.warehouse.id.uuid(),
                quantity: line.quantity,
            },
            product: line.product.label(),
            warehouse: line.warehouse.label(),
            at_risk: line.is_at_risk && state == Standing::Active,
        };
        let allocations: Vec<_> = reservation.lines.iter().map(allocation).collect();
        Self {
            id: id.uuid(),
            state: state.as_str(),
            at_risk: allocations.iter().any(|allocation| allocation.at_risk),
            allocations,
            reference: reservation.reference.clone(),
            created_at: reservation.created_at.to_string(),
            updated_at: reservation.changed_at.to_string(),
            expires_at: reservation.expires_at.as_ref().map(Timestamp::to_string),
        }
    }
}

/// A reservation
#[utoipa::path(
    get,
    path = "/api/reservations/{reservation_id}",
    tag = "commands",
    params(("reservation_id" = Uuid, Path)),
    responses(
        (status = 200, description = "The reservation as it is now", body = ShownReservationBody, headers(
            ("Stock-Version" = String, description = "As of which commit it is true")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
    sender: Sender,
) -> Result<Response, ApiError> {
    let id = reservation(&id)?;
    let read = context.inventory.reservation(id).await?;
    let found = read.value.ok_or(ApiError::NotFound(NOT_FOUND))?;
    reaches(&sender, &found)?;
    let body = ShownReservationBody::new(id, &found);
    Ok(document(StatusCode::OK, &body, read.as_of))
}

/// That the whole reservation lies in warehouses of this sender.
fn reaches(sender: &Sender, reservation: &Reservation) -> Result<(), ApiError> {
    let mut lines = reservation.lines.iter();
    lines.try_for_each(|line| sender.reaches(line.warehouse.id))
}

fn reservation(text: &str) -> Result<ReservationId, ApiError> {
    let id = Uuid::try_parse(text).ok().and_then(ReservationId::new);
    id.ok_or(ApiError::BadRequest(INVALID))
}

/// A number of units that can be reserved.
pub(super) fn quantity(units: i64) -> Result<Quantity, ApiError> {
    let quantity = Quantity::new(units).filter(|_| units > 0);
    quantity.ok_or_else(|| {
        ApiError::unprocessable(format!(
            "a quantity is a number from 1 to {}",
            Quantity::MAX
        ))
    })
}

impl Context {
    /// How long a reservation is kept that asks for so many seconds.
    pub(super) fn ttl(&self, asked: Option<i64>) -> Result<i64, ApiError> {
        let max = i64::from(self.ttl_max_seconds);
        let seconds = asked.unwrap_or(i64::from(self.ttl_default_seconds));
        if (1..=max).contains(&seconds) {
            Ok(seconds)
        } else {
            let why = format!("ttl_seconds is a number from 1 to {max}");
            Err(ApiError::unprocessable(why))
        }
    }
}

async fn items(
    context: &Context,
    sender: &Sender,
    bodies: &[ItemBody],
) -> Result<Vec<Item>, ApiError> {
    let products = bodies.iter().map(|body| body.product.text());
    let warehouses = bodies.iter().filter_map(|body| body.warehouse.as_ref());
    let names = Names::of(&context.inventory, products, warehouses.map(Name::text)).await?;
    let item = |body: &ItemBody| {
        let warehouse = body.warehouse.as_ref().map(|warehouse| {
            let known = names.warehouse(&warehouse.text());
            known.ok_or(ApiError::NotFound("Warehouse not found"))
        });
        let warehouse = warehouse.transpose()?;
        let product = names.product(&body.product.text());
        let item = Item {
            quantity: quantity(body.quantity)?,
            product: product.ok_or(ApiError::NotFound("Product not found"))?,
            warehouse,
        };
        match warehouse {
            Some(warehouse) => sender.reaches(warehouse)?,
            None => sender.reaches_all()?,
        }
        Ok(item)
    };
    bodies.iter().map(item).collect()
}

/// Reserve
///
/// All items or nothing. Without a warehouse the units come from one that has them all, the fullest first, else from as few as can
/// be. They are given back when the time is over, unless the reservation is confirmed.
#[utoipa::path(
    post,
    path = "/api/reservations",
    tag = "commands",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = ReserveBody,
    responses(
        (status = 201, description = "It is reserved", body = ReservationBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product or warehouse", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there: `lines` names what is short; or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reserve(
    State(context): State<Context>,
    ask: Ask<ReserveBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, reserve_once(&context, ask)).await
}

async fn reserve_once(context: &Context, ask: Ask<ReserveBody>) -> Result<Response, ApiError> {
    let note = ask.note(None, ask.body.reference.as_deref())?;
    let ttl_seconds = Some(context.ttl(ask.body.ttl_seconds)?);
    let items = items(context, &ask.sender, &ask.body.into_items()?).await?;
    let request = Request::Reserve(Reserve {
        id: command::reservation_id(),
        items,
        ttl_seconds,
        note,
        is_order: false,
    });
    decide(
        context,
        ask.once,
        request,
        With::default(),
        |decided| match decided.verdict {
            Verdict::Reserved(made) => granted(StatusCode::CREATED, &ReservationBody::made(made)),
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => granted(StatusCode::OK, &()),
        },
    )
    .await
}

/// Nothing that has to be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct StepBody {
    /// Why, for the ledger.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

impl WhenEmpty for StepBody {
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// How much longer.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct ExtendBody {
    /// From now; left out: `reservations.ttl_default_seconds`. Nothing changes if it lasts longer already.
    #[schema(example = 900, minimum = 1)]
    ttl_seconds: Option<i64>,
}

impl WhenEmpty for ExtendBody {
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// Take the units of a reservation
///
/// Again: the same answer. One that has expired or was released is 409, and so is one whose goods are not there any more.
#[utoipa::path(
    post,
    path = "/api/reservations/{reservation_id}/confirm",
    tag = "commands",
    params(
        ("reservation_id" = Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body(content = Option<StepBody>),
    responses(
        (status = 200, description = "Its units are taken", body = ReservationBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not active any more, its goods are not there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn confirm(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<StepBody>,
) -> Result<Response, ApiError> {
    step(&context, &id, Step::Confirm, ask).await
}

/// Give the units of a reservation back
///
/// Again, or after it has expired: nothing changes, and the answer is the same. One that was confirmed is 409.
#[utoipa::path(
    post,
    path = "/api/reservations/{reservation_id}/release",
    tag = "commands",
    params(
        ("reservation_id" = Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body(content = Option<StepBody>),
    responses(
        (status = 200, description = "Its units are free", body = ReservationBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was confirmed, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn release(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<StepBody>,
) -> Result<Response, ApiError> {
    step(&context, &id, Step::Release, ask).await
}

/// Keep a reservation for longer
#[utoipa::path(
    post,
    path = "/api/reservations/{reservation_id}/extend",
    tag = "commands",
    params(
        ("reservation_id" = Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day")
    ),
    request_body(content = Option<ExtendBody>),
    responses(
        (status = 200, description = "It is kept for so long", body = ReservationBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not active any more, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn extend(
    State(context): State<Context>,
    Path(id): Path<String>,
    ask: Ask<ExtendBody>,
) -> Result<Response, ApiError> {
    let seconds = context.ttl(ask.body.ttl_seconds)?;
    let ask = Ask {
        body: StepBody::default(),
        sender: ask.sender,
        actor: ask.actor,
        once: ask.once,
        if_match: ask.if_match,
    };
    step(&context, &id, Step::Extend { seconds }, ask).await
}

async fn step(
    context: &Context,
    id: &str,
    step: Step,
    ask: Ask<StepBody>,
) -> Result<Response, ApiError> {
    let id = reservation(id)?;
    if ask.sender.reaches_all().is_err() {
        // Its lines never change.
        let read = context.inventory.reservation(id).await?;
        let found = read.value.ok_or(ApiError::NotFound(NOT_FOUND))?;
        reaches(&ask.sender, &found)?;
    }
    let request = Request::Step {
        reservation: id,
        step,
        id: command::command_id(),
        note: ask.note(ask.body.reason.as_deref(), None)?,
    };
    decide(
        context,
        ask.once,
        request,
        With::default(),
        |decided| match decided.verdict {
            Verdict::Stepped(at) => granted(StatusCode::OK, &ReservationBody::stepped(at)),
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => granted(StatusCode::OK, &()),
        },
    )
    .await
}
