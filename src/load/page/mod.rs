//! A page that shows a run while it goes, and lets one change how many users there are and how much they ask.
//!
//! It is for whoever sits at this machine: it listens on loopback, answers only to that name, and takes changes only as JSON, which
//! a page from elsewhere cannot send without being asked first.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    figures::{Second, Tally, sum},
    monitor::Monitor,
    pace::Schedule,
    run::Run,
    thresholds::ms,
    users::Crowd,
};

/// Where it listens unless told otherwise.
pub(super) const PORT: u16 = 8089;
/// Most users and requests a second that may be asked for.
const USERS_MAX: usize = 20_000;
const RATE_MAX: f64 = 100_000.0;
/// Seconds of one answer.
const SECONDS_MAX: usize = 3_600;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("../report/style.css");

/// What the page shows and changes.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) run: Arc<Run>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) schedule: Arc<Schedule>,
}

/// Opens the port.
pub(super) async fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

/// Serves it until told to leave.
pub(super) async fn serve(
    listener: TcpListener,
    shown: Shown,
    leaving: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    let routes = Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/state", get(state))
        .route("/change", post(change))
        .route("/stop", post(stop))
        .layer(middleware::from_fn(move |request, next| {
            only_here(address, request, next)
        }))
        .with_state(shown);
    axum::serve(listener, routes)
        .with_graceful_shutdown(leaving.cancelled_owned())
        .await
}

/// Answers to this machine's names alone: a name from elsewhere may lead here, too.
async fn only_here(address: SocketAddr, request: Request, next: Next) -> Response {
    const POLICY: HeaderName = header::CONTENT_SECURITY_POLICY;
    let names = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", address.port()));
    let host = host(request.headers());
    if !names.iter().any(|name| Some(name.as_str()) == host) {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    }
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'";
    let mut response = next.run(request).await;
    if let Ok(policy) = policy.parse() {
        response.headers_mut().insert(POLICY, policy);
    }
    response
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

#[derive(Deserialize)]
struct Since {
    /// Seconds that the page has already.
    #[serde(default)]
    since: usize,
}

/// The run as it is now.
#[derive(Serialize)]
struct StateBody {
    elapsed_seconds: f64,
    is_over: bool,
    users_wanted: usize,
    spawn_rate: f64,
    /// Requests a second at set times; 0: users decide.
    rate: f64,
    seconds: Vec<SecondBody>,
    operations: Vec<OperationBody>,
    all: TimesBody,
    promises: Vec<PromiseBody>,
    failures: Vec<FailureBody>,
    events: Vec<(f64, String)>,
}

#[derive(Serialize)]
struct SecondBody {
    at: f64,
    users: u64,
    requests: u64,
    failures: u64,
    frames: u64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    resident_bytes: Option<f64>,
    lag_seconds: Option<f64>,
}

impl From<&Second> for SecondBody {
    fn from(second: &Second) -> Self {
        Self {
            at: second.at,
            users: second.users,
            requests: second.requests,
            failures: second.failures,
            frames: second.frames,
            p50_ms: ms(second.p50),
            p95_ms: ms(second.p95),
            p99_ms: ms(second.p99),
            resident_bytes: second.service.map(|service| service.resident_bytes),
            lag_seconds: second.service.map(|service| service.lag_seconds),
        }
    }
}

#[derive(Serialize)]
struct TimesBody {
    requests: u64,
    refusals: u64,
    failures: u64,
    mean_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
}

impl From<&Tally> for TimesBody {
    fn from(tally: &Tally) -> Self {
        Self {
            requests: tally.requests(),
            refusals: tally.refusals,
            failures: tally.failures,
            mean_ms: ms(tally.times.mean()),
            p50_ms: ms(tally.times.percentile(50.0)),
            p95_ms: ms(tally.times.percentile(95.0)),
            p99_ms: ms(tally.times.percentile(99.0)),
        }
    }
}

#[derive(Serialize)]
struct OperationBody {
    name: String,
    #[serde(flatten)]
    times: TimesBody,
}

#[derive(Serialize)]
struct PromiseBody {
    words: &'static str,
    checked: u64,
    broken: u64,
}

#[derive(Serialize)]
struct FailureBody {
    request: String,
    reason: String,
    times: u64,
}

async fn state(State(shown): State<Shown>, Query(since): Query<Since>) -> Json<StateBody> {
    let seconds = shown.monitor.seconds_after(since.since);
    let fresh = seconds.iter().take(SECONDS_MAX);
    let tallies = shown.run.figures.tallies();
    let all = sum(&tallies);
    let name = |method: &str, name: &str| format!("{method} {name}");
    Json(StateBody {
        elapsed_seconds: shown.monitor.elapsed().as_secs_f64(),
        is_over: shown.run.is_over(),
        users_wanted: shown.crowd.wanted(),
        spawn_rate: shown.crowd.spawn_rate(),
        rate: shown.schedule.per_second(),
        seconds: fresh.map(SecondBody::from).collect(),
        operations: tallies
            .iter()
            .map(|(operation, tally)| OperationBody {
                name: name(operation.method(), operation.name()),
                times: tally.into(),
            })
            .collect(),
        all: (&all).into(),
        promises: shown
            .run
            .oracle
            .findings
            .all()
            .into_iter()
            .map(|(invariant, finding)| PromiseBody {
                words: invariant.words(),
                checked: finding.checked,
                broken: finding.broken,
            })
            .collect(),
        failures: shown
            .run
            .figures
            .failures()
            .into_iter()
            .map(|failure| FailureBody {
                request: name(failure.operation.method(), failure.operation.name()),
                reason: failure.reason,
                times: failure.times,
            })
            .collect(),
        events: shown.monitor.events(),
    })
}

/// What is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    users: Option<usize>,
    spawn_rate: Option<f64>,
    rate: Option<f64>,
}

async fn change(
    State(shown): State<Shown>,
    Json(change): Json<ChangeBody>,
) -> Result<StatusCode, (StatusCode, String)> {
    let wrong = |what: String| Err((StatusCode::UNPROCESSABLE_ENTITY, what));
    if change.users.is_some_and(|users| users > USERS_MAX) {
        return wrong(format!("at most {USERS_MAX} users"));
    }
    let is_rate = |rate: f64| (0.0..=RATE_MAX).contains(&rate);
    if !change.rate.is_none_or(is_rate) || !change.spawn_rate.is_none_or(is_rate) {
        return wrong(format!("rates are from 0 to {RATE_MAX}"));
    }
    if let Some(rate) = change.spawn_rate {
        shown.crowd.set_spawn_rate(rate);
    }
    if let Some(rate) = change.rate {
        shown.schedule.set(rate);
    }
    if let Some(users) = change.users {
        shown.crowd.want(users);
    }
    let now = format!(
        "{} users wanted, {} requests a second at set times",
        shown.crowd.wanted(),
        shown.schedule.per_second()
    );
    shown.monitor.event(now);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopBody {}

async fn stop(State(shown): State<Shown>, Json(StopBody {}): Json<StopBody>) -> StatusCode {
    shown.run.stop.cancel();
    StatusCode::NO_CONTENT
}
