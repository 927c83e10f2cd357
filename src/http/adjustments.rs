//! Adjustments of single levels, one or many at once.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Context,
    body::StockBody,
    command::{self, Ask, WhenEmpty, With, decide, granted, note, or_kept, refused, stock_body},
    error::{ApiError, Problem},
    guard::{NOT_YOURS, Sender},
    input::{Name, Names},
};
use crate::domain::{
    StockKey,
    change::ChangeKind,
    command::{Adjustment, AdjustmentKind, Request},
    decide::Verdict,
};

/// Most adjustments of one request.
const BULK_MAX: usize = 1_000;

/// A change of what stands of a product in a warehouse.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct AdjustmentBody {
    /// UUID or code.
    #[schema(value_type = String, example = "US-WEST")]
    warehouse: Name,
    /// UUID or sku.
    #[schema(value_type = String, example = "OLJCESPC7Z")]
    product: Name,
    /// Units more, or less if negative; for a `count` the number there is.
    #[schema(example = -5)]
    change: i64,
    /// `sale` and `damage` are negative, `restock` and `return` positive, `adjustment` is not 0, `count` is 0 or more.
    #[schema(example = "sale")]
    kind: String,
    #[schema(max_length = 500)]
    reason: Option<String>,
    #[schema(max_length = 200)]
    reference: Option<String>,
}

impl WhenEmpty for AdjustmentBody {}

/// An adjustment that was made, and the level as its commit left it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdjustedBody {
    id: Uuid,
    #[schema(example = "sale")]
    kind: &'static str,
    /// Units more, or less if negative.
    change: i64,
    #[serde(flatten)]
    level: StockBody,
}

/// Something about an adjustment that makes no sense.
struct Wrong {
    status: StatusCode,
    detail: String,
}

impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> Self {
        match wrong.detail.as_str() {
            "Product not found" => Self::NotFound("Product not found"),
            "Warehouse not found" => Self::NotFound("Warehouse not found"),
            NOT_YOURS => Self::Forbidden(NOT_YOURS),
            _ => Self::Unprocessable(wrong.detail),
        }
    }
}

impl AdjustmentBody {
    fn resolve(
        &self,
        names: &Names,
        sender: &Sender,
        actor: Option<&Arc<str>>,
    ) -> Result<Adjustment, Wrong> {
        let unprocessable = |detail: String| Wrong {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail,
        };
        let kind = kind(&self.kind).map_err(unprocessable)?;
        let key = names.key(&self.warehouse.text(), &self.product.text());
        let key = key.map_err(|detail| Wrong {
            status: StatusCode::NOT_FOUND,
            detail: detail.to_owned(),
        })?;
        sender.reaches(key.warehouse).map_err(|_| Wrong {
            status: StatusCode::FORBIDDEN,
            detail: NOT_YOURS.to_owned(),
        })?;
        let note = note(actor, self.reason.as_deref(), self.reference.as_deref());
        let note = note.map_err(|_| unprocessable("A reason or reference is too long".into()))?;
        Adjustment::new(command::command_id(), key, kind, self.change, note)
            .map_err(|error| unprocessable(error.to_string()))
    }
}

/// The kind of that name, or why there is none.
pub(super) fn kind(text: &str) -> Result<AdjustmentKind, String> {
    AdjustmentKind::named(text).ok_or_else(|| {
        let all = AdjustmentKind::ALL.map(|kind| ChangeKind::from(kind).as_str());
        format!("a kind is one of {}", all.join(", "))
    })
}

async fn names(context: &Context, bodies: &[AdjustmentBody]) -> Result<Names, ApiError> {
    let products = bodies.iter().map(|body| body.product.text());
    let warehouses = bodies.iter().map(|body| body.warehouse.text());
    Names::of(&context.inventory, products, warehouses).await
}

/// Change a level
///
/// A sale needs so many available, damage and adjustment so many on hand. With `If-Match` the level is changed only if it is still
/// the one with that `ETag`.
#[utoipa::path(
    post,
    path = "/api/adjustments",
    tag = "commands",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the level as it was read")
    ),
    request_body = AdjustmentBody,
    responses(
        (status = 201, description = "It is made", body = AdjustedBody, headers(
            ("Stock-Version" = String, description = "The commit that holds it")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product or warehouse", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Too little is there, or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The level is another one by now; `current` shows it", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn adjust(
    State(context): State<Context>,
    ask: Ask<AdjustmentBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, adjust_once(&context, ask)).await
}

async fn adjust_once(context: &Context, ask: Ask<AdjustmentBody>) -> Result<Response, ApiError> {
    let names = names(context, std::slice::from_ref(&ask.body)).await?;
    let adjustment = ask.body.resolve(&names, &ask.sender, ask.actor.as_ref())?;
    let told = Told::of(&adjustment);
    let request = Request::Adjust {
        adjustment,
        expected: ask.if_match,
    };
    decide(
        context,
        ask.once,
        request,
        With::default(),
        move |decided| match decided.verdict {
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => granted(StatusCode::CREATED, &told.body(decided)),
        },
    )
    .await
}

/// What the answer says of an adjustment.
struct Told {
    id: Uuid,
    kind: AdjustmentKind,
    key: StockKey,
}

impl Told {
    fn of(adjustment: &Adjustment) -> Self {
        Self {
            id: adjustment.id.uuid(),
            kind: adjustment.kind(),
            key: adjustment.key,
        }
    }

    fn body(&self, decided: &crate::inventory::decide::Decided<'_>) -> AdjustedBody {
        let entries = &decided.book.effects().entries;
        let entry = entries.iter().find(|entry| entry.cause == self.id);
        AdjustedBody {
            id: self.id,
            kind: ChangeKind::from(self.kind).as_str(),
            change: entry.map_or(0, |entry| entry.delta.on_hand),
            level: stock_body(self.key, decided),
        }
    }
}

/// Several adjustments.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct BulkBody {
    /// All of them or none; else each by itself.
    #[serde(default)]
    atomic: bool,
    /// 1 to 1,000 of them.
    adjustments: Vec<AdjustmentBody>,
}

impl WhenEmpty for BulkBody {}

/// What became of each adjustment, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BulkDoneBody {
    /// How many were made.
    adjusted: usize,
    refused: usize,
    /// For each its `status`, and the adjustment or the problem.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Value>,
}

/// Change many levels
///
/// With `atomic`, all or none: the problem names by its `index` the one at fault. Else each by itself, and the answer is 200
/// whatever became of them.
#[utoipa::path(
    post,
    path = "/api/adjustments/bulk",
    tag = "commands",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body again get the same answer, for a day"),
        ("Stock-Actor" = Option<String>, Header, description = "Who wants it; kept with the ledger")
    ),
    request_body = BulkBody,
    responses(
        (status = 200, description = "What became of each", body = BulkDoneBody, headers(
            ("Stock-Version" = String, description = "The commit that holds them")
        )),
        (status = 400, description = "The body is no JSON, or a header makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Atomic, and there is no such product or warehouse", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Atomic, and too little is there; or a request with this key is in progress", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not said to be JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No adjustments or too many, a field makes no sense, or the key was used for another request", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away, or too much waits", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn bulk(
    State(context): State<Context>,
    ask: Ask<BulkBody>,
) -> Result<Response, ApiError> {
    let once = ask.once.clone();
    or_kept(&context, once, bulk_once(&context, ask)).await
}

async fn bulk_once(context: &Context, ask: Ask<BulkBody>) -> Result<Response, ApiError> {
    let bodies = &ask.body.adjustments;
    if !(1..=BULK_MAX).contains(&bodies.len()) {
        return Err(ApiError::unprocessable(
            "adjustments must hold 1 to 1000 adjustments",
        ));
    }
    let names = names(context, bodies).await?;
    let is_atomic = ask.body.atomic;
    let (mut adjustments, mut told) = (Vec::new(), Vec::new());
    for (place, body) in bodies.iter().enumerate() {
        match body.resolve(&names, &ask.sender, ask.actor.as_ref()) {
            Ok(adjustment) => {
                told.push(Ok(Told::of(&adjustment)));
                adjustments.push(adjustment);
            }
            Err(wrong) if is_atomic => return Ok(wrong.of_place(place)),
            Err(wrong) => told.push(Err(wrong)),
        }
    }
    let request = Request::AdjustMany {
        adjustments,
        is_atomic,
    };
    decide(
        context,
        ask.once,
        request,
        With::default(),
        move |decided| match decided.verdict {
            Verdict::AdjustedMany(each) => granted(StatusCode::OK, &results(&told, each, decided)),
            Verdict::Refused(refusal, place) => refused(refusal, decided, *place),
            _ => granted(StatusCode::OK, &json!({})),
        },
    )
    .await
}

impl Wrong {
    fn problem(&self, more: &Value) -> crate::inventory::decide::Rendered {
        command::problem(self.status, &self.detail, more)
    }

    fn of_place(&self, place: usize) -> Response {
        command::respond(self.problem(&json!({ "index": place })))
    }
}

fn results(
    told: &[Result<Told, Wrong>],
    each: &[Result<StockKey, crate::domain::decide::Refusal>],
    decided: &crate::inventory::decide::Decided<'_>,
) -> BulkDoneBody {
    let mut each = each.iter();
    let results = told.iter().map(|told| {
        let rendered = match told {
            Err(wrong) => wrong.problem(&json!({})),
            Ok(told) => match each.next() {
                Some(Err(refusal)) => refused(refusal, decided, None),
                _ => granted(StatusCode::CREATED, &told.body(decided)),
            },
        };
        // Written just above: it is an object.
        let mut result: Value = serde_json::from_slice(&rendered.body).unwrap_or_default();
        if let Some(result) = result.as_object_mut() {
            result.insert("status".to_owned(), json!(rendered.status));
        }
        (rendered.status < 400, result)
    });
    let results: Vec<(bool, Value)> = results.collect();
    let adjusted = results.iter().filter(|(is_done, _)| *is_done).count();
    BulkDoneBody {
        adjusted,
        refused: results.len() - adjusted,
        results: results.into_iter().map(|(_, result)| result).collect(),
    }
}
