//! How the process is, for those who run it.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    Context,
    error::{Cause, Problem, problem, unavailable},
};

/// Longest a part may take to say how it is.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// How one part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    Ok,
    /// Away, and the service goes on without it.
    Degraded,
    /// Away, and the service cannot do its work.
    Failing,
    /// Not of this process, by configuration.
    Off,
}

/// How the process and each of its parts are.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct HealthBody {
    /// The worst of the parts.
    status: Health,
    /// `PostgreSQL` answers, and its schema is current.
    database: Health,
    /// Without Redis the service is slower, not wrong.
    redis: Health,
    /// Partitions are assigned and their positions known.
    ingest: Health,
    /// The commits are followed closely enough for the cache to be used.
    follower: Health,
}

/// The process answers
#[utoipa::path(get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It does", body = Alive)))]
pub(super) async fn livez() -> Json<Alive> {
    Json(Alive { status: Health::Ok })
}

/// That the process answers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    status: Health,
}

/// The service can do its work
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "It can; `degraded` without Redis", body = HealthBody),
    (status = 503, description = "It cannot, or it stops", body = Problem, content_type = "application/problem+json")
))]
pub(super) async fn readyz(State(context): State<Context>) -> Response {
    if context.leaves.is_cancelled() {
        return unavailable(Cause("stopping"), "Not ready: it stops");
    }
    let health = check(&context).await;
    let failing = [("the database", health.database), ("ingest", health.ingest)]
        .into_iter()
        .find(|(_, part)| *part == Health::Failing);
    match failing {
        None => Json(health).into_response(),
        Some((part, _)) => unavailable(Cause("not_ready"), &format!("Not ready: {part} is not")),
    }
}

/// How each part is
#[utoipa::path(get, path = "/health", tag = "operations",
    responses((status = 200, description = "Whatever it is", body = HealthBody)))]
pub(super) async fn health(State(context): State<Context>) -> Json<HealthBody> {
    Json(check(&context).await)
}

/// What is measured, in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Text exposition format 0.0.4", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(context): State<Context>) -> Response {
    let metrics = context.inventory.metrics();
    context.inventory.measure();
    match metrics.exposition() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The metrics cannot be written",
            )
        }
    }
}

async fn check(context: &Context) -> HealthBody {
    let inventory = &context.inventory;
    let (database, redis) = tokio::join!(
        timeout(CHECK_MAX, inventory.is_migrated()),
        timeout(CHECK_MAX, inventory.cache().redis_answers()),
    );
    let database = match database {
        Ok(Ok(true)) => Health::Ok,
        _ => Health::Failing,
    };
    let redis = match redis {
        Ok(None) => Health::Off,
        Ok(Some(true)) => Health::Ok,
        _ => Health::Degraded,
    };
    let ingest = match &context.ingest_is_ready {
        None => Health::Off,
        Some(is_ready) if is_ready() => Health::Ok,
        Some(_) => Health::Failing,
    };
    let follower = match inventory.cache().rule().is_followed() {
        _ if !context.follows => Health::Off,
        true => Health::Ok,
        false => Health::Degraded,
    };
    let parts = [database, redis, ingest, follower];
    let status = [Health::Failing, Health::Degraded]
        .into_iter()
        .find(|bad| parts.contains(bad))
        .unwrap_or(Health::Ok);
    HealthBody {
        status,
        database,
        redis,
        ingest,
        follower,
    }
}
