//! HTTP: requests in, calls of the use cases, documents out. Handlers hold no rule about stock.
//!
//! Invariants: every error, the framework's included, is a problem document; every body, header wait, request and
//! connection count has a bound; `openapi.json` is made from the handlers themselves.

mod actor;
mod adjustments;
mod answer;
pub mod body;
mod catalogue;
mod command;
mod dashboard;
mod differences;
mod error;
mod explain;
mod finish;
mod guard;
mod history;
mod input;
mod inventory;
mod inventory_commands;
mod listed_movements;
pub mod live;
mod low_stock;
mod movements;
mod openapi;
mod ops;
mod orders;
mod origins;
mod past;
mod products;
mod rates;
mod reservations;
mod rights;
mod server;
mod socket;
mod stock;
mod summary;
mod tickets;
mod void;
mod wire;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    access::Access, clock::Clock, domain::catalogue::Code, inventory::Inventory, metrics::Metrics,
    traces::Traces,
};
use finish::FinishLayer;
use guard::Guard;
pub use openapi::document;
pub use rates::Rate;
use rates::Rates;
pub use server::{Leave, Limits, ServerError, bind, run};

/// Tells whether the ingest of this process has its partitions; `None` in a process without ingest.
pub type IngestReadiness = Option<Arc<dyn Fn() -> bool + Send + Sync>>;

/// What handlers work with.
#[derive(Clone)]
pub struct Context {
    pub inventory: Arc<Inventory>,
    pub clock: Clock,
    /// `None` where nobody has to prove who they are.
    pub access: Option<Arc<Access>>,
    pub ingest_is_ready: IngestReadiness,
    /// Cancelled once nobody is to be sent here any more.
    pub leaves: CancellationToken,
    /// Whether this process follows the commits: only one that answers queries does.
    pub follows: bool,
    /// `None` in a process that answers no queries.
    pub live: Option<Arc<live::Live>>,
    /// Of which `GET /stock` tells when it is not told; empty: the first by sku.
    pub default_product: Arc<str>,
    /// How long a reservation is kept that does not say, and at most, in seconds.
    pub ttl_default_seconds: u32,
    pub ttl_max_seconds: u32,
    /// How long an order keeps its units that is not paid; `None`: for good.
    pub order_ttl_seconds: Option<u32>,
    /// The code of the warehouse in which products of the orders API begin.
    pub default_warehouse: Code,
}

/// What the routes need to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub allowed_origins: Vec<String>,
    pub body_bytes_max: usize,
    pub request_timeout: Duration,
    /// `None`: as often as they like.
    pub rate: Option<Rate>,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// For everybody: there is no other.
    Only,
    /// For everybody but those who run the service.
    Public,
    /// For those who run the service.
    Admin,
}

/// Every route of a process that answers queries; of one that only ingests, how it is and what it measures.
pub fn routes(context: Context, settings: &Settings, door: Door) -> Router {
    let metrics = context.inventory.metrics().clone();
    let traces = context.inventory.traces().clone();
    let routes = if context.follows {
        let (routes, _) = ops_routes().merge(api_routes()).split_for_parts();
        routes.merge(docs()).merge(dashboard::routes())
    } else {
        let (routes, _) = ops_routes().split_for_parts();
        routes
    };
    let rates = settings.rate.clone().filter(|_| door != Door::Admin);
    let guard = Guard {
        access: context.access.clone(),
        rates: rates.map(|rate| Arc::new(Rates::new(rate, context.clock.clone()))),
        door,
    };
    let routes = routes
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method);
    let routes = guarded(routes, guard);
    with_layers(routes, metrics, traces, settings).with_state(context)
}

/// What has nothing to look at is not laid around the routes.
fn guarded(routes: Router<Context>, guard: Guard) -> Router<Context> {
    let door = guard.door;
    let routes = if guard.access.is_some() || guard.rates.is_some() {
        routes.layer(from_fn_with_state(guard, guard::guard))
    } else {
        routes
    };
    match door {
        Door::Public => routes.layer(from_fn(guard::hide_administration)),
        Door::Only | Door::Admin => routes,
    }
}

fn api_routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(movements::show))
        .routes(routes!(void::take_back))
        .routes(routes!(listed_movements::list))
        .routes(routes!(differences::list))
        .routes(routes!(summary::show))
        .routes(routes!(history::list))
        .routes(routes!(stock::show))
        .routes(routes!(explain::show))
        .routes(routes!(catalogue::products))
        .routes(routes!(catalogue::put_product))
        .routes(routes!(catalogue::warehouses))
        .routes(routes!(catalogue::put_warehouse))
        .routes(routes!(inventory::list))
        .routes(routes!(low_stock::list))
        .routes(routes!(inventory::show))
        .routes(routes!(inventory::quantity))
        .routes(routes!(inventory::levels))
        .routes(routes!(inventory::query))
        .merge(command_routes())
        .routes(routes!(live::ws))
        .routes(routes!(live::ws_inventory))
        .routes(routes!(live::ws_stock))
        .routes(routes!(live::events))
        .routes(routes!(tickets::create))
}

fn command_routes() -> OpenApiRouter<Context> {
    use axum::routing::get;
    OpenApiRouter::new()
        .routes(routes!(adjustments::adjust))
        .routes(routes!(adjustments::bulk))
        .routes(routes!(reservations::reserve))
        .routes(routes!(reservations::show))
        .routes(routes!(reservations::confirm))
        .routes(routes!(reservations::release))
        .routes(routes!(reservations::extend))
        .routes(routes!(inventory_commands::adjust))
        .routes(routes!(inventory_commands::update))
        .routes(routes!(inventory_commands::reserve))
        .routes(routes!(products::list, products::create))
        .routes(routes!(products::show, products::put, products::archive))
        .routes(routes!(products::adjust))
        .routes(routes!(orders::list, orders::create))
        .routes(routes!(orders::recent))
        .routes(routes!(orders::show))
        .routes(routes!(orders::pay))
        .routes(routes!(orders::ship))
        .routes(routes!(orders::cancel))
        .route("/products", get(products::list).post(products::create))
        .route("/orders", get(orders::list).post(orders::create))
}

fn ops_routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(ops::livez))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::health))
        .routes(routes!(ops::metrics))
        .route("/health/", axum::routing::get(ops::health))
        .route("/metrics/", axum::routing::get(ops::metrics))
}

/// The document and the page that shows it, whose assets are in the binary.
fn docs() -> Router<Context> {
    let page = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    Router::new()
        .route("/openapi.json", axum::routing::get(openapi::show))
        .merge(page)
}

fn with_layers<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    metrics: Metrics,
    traces: Traces,
    settings: &Settings,
) -> Router<S> {
    let catch_panic = CatchPanicLayer::custom(error::after_a_panic);
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, settings.request_timeout);
    let body_limit = DefaultBodyLimit::max(settings.body_bytes_max);
    // One layer of stacks, because each that is laid around the routes by itself costs every request an allocation or two.
    let layers = FinishLayer {
        plain: ServiceBuilder::new()
            .layer(catch_panic)
            .layer(timeout)
            .layer(body_limit),
        full: ServiceBuilder::new()
            .layer(catch_panic)
            .layer(origins::cors(&settings.allowed_origins))
            .layer(CompressionLayer::new())
            .layer(timeout)
            .layer(RequestBodyLimitLayer::new(settings.body_bytes_max))
            .layer(body_limit),
        body_bytes_max: settings.body_bytes_max,
        metrics: Arc::new(metrics),
        traces,
    };
    routes.layer(layers)
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, header},
        routing::get,
    };
    use tower::Service;

    use super::*;

    async fn panics() {
        panic!("a secret")
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_silence_are_problems_too() {
        let settings = Settings {
            allowed_origins: Vec::new(),
            body_bytes_max: 1_000,
            request_timeout: Duration::from_secs(10),
            rate: None,
        };
        let routes = Router::new()
            .route("/panics", get(panics))
            .route("/silent", get(std::future::pending::<()>));
        let metrics = Metrics::new().unwrap();
        let mut routes = with_layers(routes, metrics.clone(), Traces::default(), &settings);
        for (path, status) in [("/panics", 500), ("/silent", 503)] {
            for asks in [header::COOKIE, header::ACCEPT_ENCODING, header::ORIGIN] {
                let request = Request::builder().uri(path).header(&asks, "gzip");
                let request = request.body(Body::empty()).unwrap();
                let response = routes.call(request).await.unwrap();
                assert_eq!(response.status().as_u16(), status, "{asks}");
                let headers = response.headers();
                assert_eq!(headers[header::CONTENT_TYPE], error::PROBLEM_JSON);
                assert!(headers.contains_key(header::VARY));
                let body = to_bytes(response.into_body(), 10_000).await.unwrap();
                assert!(
                    !body.windows(6).any(|window| window == b"secret"),
                    "nothing of the inside"
                );
            }
        }
        let late = metrics
            .http_unavailable_total
            .with_label_values(&["timeout"]);
        assert_eq!(late.get(), 3);
    }
}
