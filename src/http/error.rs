//! Errors as clients see them: RFC 9457 problem documents. The only map from what went wrong to a status.
//!
//! A refusal says why; a failure is logged here, once, and the client sees nothing of its inside.

use std::any::Any;

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    inventory::{decide::CommandError, query::QueryError},
    store::StoreError,
};

/// An RFC 9457 problem document.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What kind of problem; `about:blank`: the status says it all.
    pub(super) r#type: &'static str,
    pub(super) title: &'static str,
    pub(super) status: u16,
    /// What it was this time.
    pub(super) detail: String,
    /// The short text that clients of the inventory API read.
    pub(super) error: String,
}

/// Seconds after which a client may try again when something was away.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Everything that ends a request without its answer.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request says something that has no meaning.
    BadRequest(&'static str),
    /// The body is well-formed, but a field of it has no meaning.
    Unprocessable(String),
    /// What is asked for cannot be beside what is there.
    Conflict(&'static str),
    NotFound(&'static str),
    /// The same, naming what was asked for.
    Absent(String),
    Forbidden(&'static str),
    TooLarge,
    NotJson,
    /// This process shows nothing live.
    NotLive,
    Query(QueryError),
    Command(CommandError),
}

impl ApiError {
    #[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(super) fn unprocessable(why: impl ToString) -> Self {
        Self::Unprocessable(why.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Query(QueryError::Store(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::BadRequest(detail) => problem(StatusCode::BAD_REQUEST, detail),
            Self::Unprocessable(detail) => problem(StatusCode::UNPROCESSABLE_ENTITY, &detail),
            Self::Conflict(detail) => problem(StatusCode::CONFLICT, detail),
            Self::NotFound(detail) => problem(StatusCode::NOT_FOUND, detail),
            Self::Absent(detail) => problem(StatusCode::NOT_FOUND, &detail),
            Self::Forbidden(detail) => problem(StatusCode::FORBIDDEN, detail),
            Self::NotLive => problem(StatusCode::NOT_FOUND, "Nothing is shown live here"),
            Self::TooLarge => problem(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::NotJson => problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON, and its Content-Type application/json",
            ),
            Self::Command(error) => undecided(&error),
            Self::Query(error @ QueryError::Undone(_)) => {
                problem(StatusCode::GONE, &error.to_string())
            }
            Self::Query(error @ QueryError::NotReached(_)) => {
                unavailable(Cause("behind"), &error.to_string())
            }
            Self::Query(QueryError::Store(StoreError::Inconsistent(what))) => {
                tracing::error!(what, "the database is not as it should be");
                problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The request could not be answered",
                )
            }
            Self::Query(QueryError::Store(error)) => {
                tracing::warn!(%error, "a query could not be answered");
                unavailable(DATABASE, "The database does not answer")
            }
        }
    }
}

/// A command that was not decided.
fn undecided(error: &CommandError) -> Response {
    match error {
        CommandError::InProgress => in_progress(),
        CommandError::OtherRequest => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another request",
        ),
        CommandError::Busy => {
            unavailable(Cause("queue_full"), "Too many requests wait to be decided")
        }
        CommandError::Stopping => unavailable(Cause("stopping"), "The service stops"),
        CommandError::NotDone(error) if error.is_of_request() => {
            tracing::error!(%error, "a request could not be decided");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The request could not be answered; nothing was done",
            )
        }
        CommandError::NotDone(_) => {
            unavailable(DATABASE, "The database does not answer; nothing was done")
        }
        CommandError::Unknown(_) => unavailable(
            DATABASE,
            "The database does not answer; whether it was done is not known: with an Idempotency-Key, ask again",
        ),
    }
}

/// Why an answer is 503, for the count of them: one of `metrics::UNAVAILABLE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause(pub(super) &'static str);

const DATABASE: Cause = Cause("database");

/// It cannot be answered now.
pub(super) fn unavailable(cause: Cause, detail: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    response.extensions_mut().insert(cause);
    response
}

/// That a request with the same key is under way.
fn in_progress() -> Response {
    #[derive(Serialize)]
    struct InProgress {
        #[serde(flatten)]
        problem: Problem,
        in_progress: bool,
    }
    let status = StatusCode::CONFLICT;
    let problem = Problem {
        r#type: "about:blank",
        title: "Conflict",
        status: status.as_u16(),
        detail: "A request with this Idempotency-Key is in progress".to_owned(),
        error: "in_progress".to_owned(),
    };
    let body = Json(InProgress {
        problem,
        in_progress: true,
    });
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A problem document with the status's own title.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: detail.to_owned(),
        error: detail.to_owned(),
    };
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

pub(super) async fn no_such_route(uri: Uri) -> Response {
    // Escaped by the JSON encoder; cut, because a path may be long.
    let path: String = uri.path().chars().take(200).collect();
    problem(
        StatusCode::NOT_FOUND,
        &format!("There is nothing at {path}"),
    )
}

pub(super) async fn no_such_method() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "This method is not for this path",
    )
}

/// Errors that the framework answers by itself (a body too large, a path that is no UTF-8, an answer that did not come in
/// time) are of another form. Their other headers stay.
pub(super) fn as_problem(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let detail = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "The body is too large",
        StatusCode::BAD_REQUEST => "The request cannot be understood",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The request was not answered in time; if it was to change something, whether it did is not known"
        }
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    let (parts, body) = problem(status, detail).into_parts();
    let (mut answered, _) = response.into_parts();
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
        answered.headers.remove(name);
    }
    answered.headers.extend(parts.headers);
    Response::from_parts(answered, body)
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
pub(super) fn after_a_panic(panic: Box<dyn Any + Send>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(what, "a handler panicked");
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The request could not be answered",
    )
}
