//! Counts and times every request by its route's template, never by its path.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use crate::metrics::Metrics;

/// For requests that no route matches.
const UNMATCHED: &str = "unmatched";

pub(super) async fn measure(
    State(metrics): State<Metrics>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let handler = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let method = method_label(request.method().as_str());
    let timer = metrics
        .http_request_seconds
        .with_label_values(&[handler, method])
        .start_timer();
    let response = next.run(request).await;
    timer.observe_duration();
    metrics
        .http_requests_total
        .with_label_values(&[handler, method, response.status().as_str()])
        .inc();
    response
}

/// A client may invent methods, but no label values.
fn method_label(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}
