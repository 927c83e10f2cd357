//! A side of a movement that should not have been reported.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    body::{LineBody, MovementBody},
    command::{Ask, WhenEmpty, answer, granted, or_kept, problem},
    error::{ApiError, Problem},
    input,
    movements::{INVALID, NOT_FOUND},
};
use crate::{
    domain::{
        Movement, MovementId, ProductId, Side,
        void::{Reason, Refusal, Wanted},
    },
    inventory::{
        Inventory,
        decide::CommandError,
        void::{Because, Voiding},
    },
    store::StoreError,
};

const NO_SIDE: &str = "The movement has no such side";
const NO_PRODUCT: &str = "product is not one of the catalogue";
const OUT_OF_RANGE: &str = "No level can hold what this would leave";

/// What is to be taken back, and why.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct VoidRequest {
    /// `departure` or `arrival`.
    #[schema(example = "arrival", pattern = "^(departure|arrival)$")]
    side: String,
    /// UUID or sku. Left out or `null`: that side of every line that has it.
    product: Option<String>,
    #[schema(example = "counted twice", min_length = 1, max_length = 500)]
    reason: String,
}

impl WhenEmpty for VoidRequest {}

/// A movement of which every side was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmptyMovementBody {
    id: Uuid,
    /// None.
    #[schema(max_items = 0)]
    lines: Vec<LineBody>,
}

/// What is left of a movement.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum LeftBody {
    Movement(Box<MovementBody>),
    Empty(EmptyMovementBody),
}

impl LeftBody {
    fn new(movement: &Movement) -> Self {
        if movement.lines.is_empty() {
            return Self::Empty(EmptyMovementBody {
                id: movement.id.uuid(),
                lines: Vec::new(),
            });
        }
        Self::Movement(Box::new(MovementBody::new(movement)))
    }
}

/// Take a side of a movement back
///
/// Stock becomes what it would be without it, by an entry of its own in the ledger; a level may fall below zero. The same report
/// coming again changes nothing; another one is taken as the correction.
#[utoipa::path(
    post,
    path = "/api/movements/{movement_id}/void",
    tag = "movements",
    params(
        ("movement_id" = String, Path, description = "UUID"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who asks for it, 1 to 100 printable characters")
    ),
    request_body = VoidRequest,
    responses(
        (status = 200, description = "The movement as it is afterwards", body = LeftBody, headers(
            ("Stock-Version" = String, description = "The commit that took it back")
        )),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The movement has no such side, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field has no meaning, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn take_back(
    State(context): State<Context>,
    Path(movement): Path<String>,
    ask: Ask<VoidRequest>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, take_back_once(&context, movement, ask)).await
}

async fn take_back_once(
    context: &Context,
    movement: String,
    ask: Ask<VoidRequest>,
) -> Result<Response, ApiError> {
    let (inventory, request) = (&context.inventory, &ask.body);
    let id = Uuid::try_parse(&movement).map_err(|_| ApiError::BadRequest(INVALID))?;
    let side = Side::named(&request.side)
        .ok_or_else(|| ApiError::unprocessable("side is departure or arrival"))?;
    let reason = Reason::new(&request.reason).map_err(ApiError::unprocessable)?;
    let product = match &request.product {
        Some(text) => Some(product(inventory, text).await?),
        None => None,
    };
    // The nil UUID names nothing.
    let movement = MovementId::new(id).ok_or(ApiError::NotFound(NOT_FOUND))?;
    let voiding = Voiding {
        wanted: Wanted {
            movement,
            side,
            product,
        },
        because: Because {
            actor: ask.actor.as_deref(),
            reason: &reason,
        },
        once: ask.once.as_ref(),
        render: &|voided| match voided {
            Ok(movement) => granted(StatusCode::OK, &LeftBody::new(movement)),
            Err(Refusal::NoMovement) => problem(StatusCode::NOT_FOUND, NOT_FOUND, &json!({})),
            Err(Refusal::NoSide) => problem(StatusCode::CONFLICT, NO_SIDE, &json!({})),
        },
    };
    match inventory.void(&voiding).await {
        Err(CommandError::NotDone(error)) if matches!(*error, StoreError::DataRefused { .. }) => {
            Err(ApiError::Conflict(OUT_OF_RANGE))
        }
        answered => Ok(answer(answered?)),
    }
}

/// A product that the catalogue has.
async fn product(inventory: &Inventory, text: &str) -> Result<ProductId, ApiError> {
    let unknown = || ApiError::unprocessable(NO_PRODUCT);
    let named = match input::product(inventory, text, NO_PRODUCT).await {
        Ok(named) => named.ok_or_else(unknown)?,
        Err(ApiError::BadRequest(_)) => return Err(unknown()),
        Err(error) => return Err(error),
    };
    let is_known = inventory.has_product(named).await?;
    is_known.then_some(named).ok_or_else(unknown)
}
