//! What happened to this movement.

use axum::{
    extract::{Path, State},
    response::Response,
};
use uuid::Uuid;

use super::{
    Context,
    answer::{Asked, respond},
    body::MovementBody,
    error::{ApiError, Problem},
};
use crate::{
    domain::MovementId,
    inventory::query::{Answer, Source},
};

pub(super) const INVALID: &str = "Invalid movement ID";
pub(super) const NOT_FOUND: &str = "Movement not found";

/// What happened to a movement
#[utoipa::path(
    get,
    path = "/api/movements/{movement_id}",
    tag = "movements",
    params(
        ("movement_id" = String, Path, description = "UUID"),
        ("Stock-Min-Version" = Option<String>, Header, description = "Answer as of this version or later"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag the client has")
    ),
    responses(
        (status = 200, description = "The movement", body = MovementBody, headers(
            ("ETag" = String, description = "Of the body"),
            ("Stock-Version" = String, description = "As of which commit the answer is true"),
            ("Cache-Status" = String, description = "hit, miss or bypass (RFC 9211)")
        )),
        (status = 304, description = "The client has it already"),
        (status = 400, description = INVALID, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = NOT_FOUND, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The wanted version was undone by a restore", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The wanted version is not reached, or the database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(context): State<Context>,
    Path(movement): Path<String>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let id = Uuid::try_parse(&movement).map_err(|_| ApiError::BadRequest(INVALID))?;
    let answer = match MovementId::new(id) {
        Some(id) => context.inventory.movement(id, asked.min_version).await?,
        // The nil UUID names nothing.
        None => Answer {
            body: None,
            as_of: context.inventory.reached_commit(asked.min_version).await?,
            source: Source::Bypass,
        },
    };
    Ok(respond(answer, &asked, NOT_FOUND))
}
