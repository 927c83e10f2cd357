//! Tickets: what a page opens a live connection with, because a browser sends no header of its own there.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Context,
    error::{ApiError, Problem},
    guard::Sender,
};

/// A ticket for one connection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TicketBody {
    /// For the parameter `ticket` of `/ws`, `/ws/inventory`, `/ws/stock` or `/events`.
    ticket: String,
    /// It is good for one connection that begins before then.
    #[schema(value_type = String, format = DateTime)]
    expires_at: String,
}

/// Get a ticket for one live connection
///
/// The connection may do what the key or token may that the ticket was asked for with, and ends when that does.
#[utoipa::path(
    post,
    path = "/api/tickets",
    tag = "live",
    responses(
        (status = 201, description = "The ticket", body = TicketBody),
        (status = 404, description = "Nobody has to prove here who they are: no ticket is needed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(context): State<Context>,
    sender: Sender,
) -> Result<Response, ApiError> {
    const NOT_NEEDED: ApiError = ApiError::NotFound("No ticket is needed here");
    let access = context.access.as_ref().ok_or(NOT_NEEDED)?;
    let caller = sender.caller().ok_or(NOT_NEEDED)?;
    let (ticket, until) = access.ticket(caller).await?;
    let body = Json(TicketBody {
        ticket: ticket.reveal().to_owned(),
        expires_at: until.to_string(),
    });
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, body).into_response())
}
