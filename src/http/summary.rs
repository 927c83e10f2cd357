//! What there is in all.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Context,
    answer::document,
    error::{ApiError, Problem},
};
use crate::{
    domain::Timestamp,
    inventory::summary::{FeedNow, Summary},
};

/// What there is in all, as of a commit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SummaryBody {
    /// The commit that the totals hold.
    #[schema(example = 812)]
    version: i64,
    #[schema(example = "812-5f3a9c01")]
    cursor: String,
    #[schema(value_type = String, format = DateTime)]
    computed_at: String,
    /// Levels: products by warehouse.
    keys: i64,
    products: i64,
    warehouses: i64,
    /// What customers are shown, over all levels.
    units: i64,
    reserved: i64,
    available: i64,
    /// Levels with a deficit.
    negative: i64,
    /// Levels at or below their product's minimum.
    low: i64,
    /// Products of which no more than the reorder point is available.
    reorder: i64,
    /// Lines of active reservations: one for each reservation and level.
    reservations: i64,
    /// Of those, the ones that what is on hand does not cover: the newest of their level.
    reservations_at_risk: i64,
    /// Lines of movements that departed and did not arrive.
    in_transit: i64,
    units_in_transit: i64,
    /// Of those, the ones under way for longer than 99 of 100 from the same warehouse were.
    overdue: i64,
    /// Lines of which less arrived than departed.
    short: i64,
    /// Lines of which more arrived than departed.
    over: i64,
    /// Lines of which no departure is known.
    arrival_only: i64,
    feed: FeedBody,
}

/// Where this process is in the order of commits.
#[derive(Debug, Serialize, ToSchema)]
struct FeedBody {
    version: i64,
    /// `null` before the first commit that this process followed.
    #[schema(value_type = Option<String>, format = DateTime)]
    committed_at: Option<String>,
    /// Changes of stock that this process has followed since it began.
    changes_total: u64,
    /// Mean time from a commit until it was followed, of the last ones.
    lag_seconds: f64,
}

impl SummaryBody {
    fn new(summary: &Summary, feed: &FeedNow) -> Self {
        let totals = summary.totals;
        Self {
            version: summary.as_of.version.number(),
            cursor: summary.as_of.to_string(),
            computed_at: summary.computed_at.to_string(),
            keys: totals.keys,
            products: totals.products,
            warehouses: totals.warehouses,
            units: totals.units,
            reserved: totals.reserved,
            available: totals.available,
            negative: totals.negative,
            low: totals.low,
            reorder: totals.reorder,
            reservations: totals.reservations,
            reservations_at_risk: totals.reservations_at_risk,
            in_transit: totals.in_transit,
            units_in_transit: totals.units_in_transit,
            overdue: totals.overdue,
            short: totals.short,
            over: totals.over,
            arrival_only: totals.arrival_only,
            feed: FeedBody {
                version: feed.version,
                committed_at: feed.committed_at.as_ref().map(Timestamp::to_string),
                changes_total: feed.changes_total,
                lag_seconds: feed.lag.as_secs_f64(),
            },
        }
    }
}

/// What there is in all
#[utoipa::path(
    get,
    path = "/summary",
    tag = "summary",
    responses(
        (status = 200, description = "The totals, summed up once a second at most", body = SummaryBody, headers(
            ("Stock-Version" = String, description = "As of which commit the totals are true")
        )),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(State(context): State<Context>) -> Result<Response, ApiError> {
    let summary = context.inventory.summary().await?;
    let body = SummaryBody::new(&summary, &context.inventory.feed());
    Ok(document(StatusCode::OK, &body, summary.as_of))
}
