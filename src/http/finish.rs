//! What every answer gets on its way out: counted, timed, errors in one form, tags that fit.
//!
//! Requests are counted by their route's template, never by their path. A service and not a function of axum's, because that
//! would copy the services below it for every request.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{TryFutureExt, future::Either};
use tower::{Layer, Service};
use tracing::Instrument;

use super::{
    answer::weaken_etag,
    error::{Cause, as_problem},
    rights::{METRICS, PROBES},
};
use crate::{
    metrics::Metrics,
    traces::{Parent, Span, Traces, because},
};

/// For requests that no route matches.
const UNMATCHED: &str = "unmatched";

/// Two stacks around the same routes: what a request did not ask for is not done for it.
#[derive(Clone)]
pub(super) struct FinishLayer<P, F> {
    /// For requests that come from no web page, want nothing compressed, and say how small their bodies are.
    pub(super) plain: P,
    pub(super) full: F,
    pub(super) body_bytes_max: usize,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Traces,
}

impl<S: Clone, P: Layer<S>, F: Layer<S>> Layer<S> for FinishLayer<P, F> {
    type Service = Finish<P::Service, F::Service>;

    fn layer(&self, routes: S) -> Self::Service {
        Finish {
            plain: self.plain.layer(routes.clone()),
            full: self.full.layer(routes),
            body_bytes_max: self.body_bytes_max,
            metrics: Arc::clone(&self.metrics),
            traces: self.traces.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Finish<P, F> {
    plain: P,
    full: F,
    body_bytes_max: usize,
    metrics: Arc<Metrics>,
    traces: Traces,
}

impl<P, F> Service<Request> for Finish<P, F>
where
    P: Service<
            Request,
            Response: IntoResponse + 'static,
            Error = Infallible,
            Future: Send + 'static,
        >,
    F: Service<
            Request,
            Response: IntoResponse + 'static,
            Error = Infallible,
            Future: Send + 'static,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        ready!(self.plain.poll_ready(context))?;
        self.full.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let matched = request.extensions().get::<MatchedPath>().cloned();
        let method = method_label(request.method().as_str());
        let metrics = Arc::clone(&self.metrics);
        let span = self.traces.are_on().then(|| {
            let route = matched.as_ref().map(MatchedPath::as_str);
            record(&self.traces, &request, method, route)
        });
        let answer = if is_plain(&request, self.body_bytes_max) {
            Either::Left(self.plain.call(request).map_ok(P::Response::into_response))
        } else {
            Either::Right(self.full.call(request).map_ok(F::Response::into_response))
        };
        let answered = async move {
            let handler = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
            let timer = metrics
                .http_request_seconds
                .with_label_values(&[handler, method])
                .start_timer();
            let mut response = as_problem(weaken_etag(answer.await?));
            // Also where nobody asked for either: another request may.
            response
                .headers_mut()
                .entry(header::VARY)
                .or_insert(HeaderValue::from_static("accept-encoding, origin"));
            timer.observe_duration();
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                // What says no cause is what lies around the routes: the limit of time.
                let cause = response.extensions().get::<Cause>();
                let cause = cause.map_or("timeout", |cause| cause.0);
                let count = metrics.http_unavailable_total.with_label_values(&[cause]);
                count.inc();
            }
            metrics
                .http_requests_total
                .with_label_values(&[handler, method, response.status().as_str()])
                .inc();
            Ok(response)
        };
        match span.flatten() {
            None => Box::pin(answered),
            Some(span) => Box::pin(recorded(span, answered)),
        }
    }
}

/// Begins to record a request, if it says so, or says nothing and is one of the share. How the service is, is asked all the time.
fn record(
    traces: &Traces,
    request: &Request,
    method: &'static str,
    route: Option<&str>,
) -> Option<Span> {
    if route.is_some_and(|route| PROBES.contains(&route) || METRICS.contains(&route)) {
        return None;
    }
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let parent = text("traceparent").and_then(|parent| Parent::read(parent, text("tracestate")));
    traces.request(method, route, text("host"), parent.as_ref())
}

/// What is done meanwhile is done for this request, and what is logged says so.
async fn recorded(
    mut span: Span,
    answered: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    let response = match span.place() {
        Some(place) => {
            // Of the highest level, so that it is there with whatever is logged.
            let log = tracing::error_span!("request", trace_id = format!("{:032x}", place.trace));
            because(place, answered).instrument(log).await?
        }
        None => answered.await?,
    };
    span.answered(response.status().as_u16());
    Ok(response)
}

fn is_plain(request: &Request, body_bytes_max: usize) -> bool {
    const FOR_THE_OTHER: [HeaderName; 3] = [
        header::ORIGIN,
        header::ACCEPT_ENCODING,
        header::TRANSFER_ENCODING,
    ];
    let headers = request.headers();
    let is_small = headers.get(header::CONTENT_LENGTH).is_none_or(|length| {
        let length = length.to_str().ok().and_then(|text| text.parse().ok());
        length.is_some_and(|length: usize| length <= body_bytes_max)
    });
    // A browser that asks before it sends is answered by the other one.
    request.method() != Method::OPTIONS
        && is_small
        && !FOR_THE_OTHER.iter().any(|name| headers.contains_key(name))
}

/// A client may invent methods, but no label values.
fn method_label(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}
