//! Reads, cached and not, beside a bare handler with the same path and body, and beside one select.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Path, http::header::CONTENT_TYPE, routing::get};
use sqlx::postgres::PgPoolOptions;
use stockyard::{
    clock::Clock,
    config::Config,
    domain::{ProductId, WarehouseId},
    produce::plan::{PlanOptions, product, warehouse},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    backlog::lag_is_zero,
    bare::Bare,
    load::{Answered, ask, micros, post},
    stream::Stream,
    table::{Figures, Row, against, print, progress, row},
    world::{Backlog, Database, Outcome, Service},
};

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(4);
const CONNECTIONS: [usize; 3] = [1, 100, 1_000];

/// Part 5, with ingest idle and at half of `rate` events a second.
pub async fn measure(plan: &PlanOptions, rate: u64, repetitions: usize) -> Outcome<()> {
    progress("reads: filling");
    let database = Database::create().await?;
    let backlog = Backlog::publish(&PlanOptions {
        count: 400_000,
        ..plan.clone()
    })
    .await?;
    let service = Service::start(&backlog.topic, &database, "all")?;
    service.ready().await?;
    lag_is_zero(&backlog.topic, backlog.options.count, &database).await?;
    let keys = Keys::of(plan);
    let bare = bare_handler(&service, &keys).await?;
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        progress(&format!("reads: {connections} connections, ingest idle"));
        rows.extend(idle(&service, &bare, &database, &keys, connections, repetitions).await?);
    }
    let mut busy_rows = Vec::new();
    for connections in CONNECTIONS {
        progress(&format!("reads: {connections} connections, ingest at 50 %"));
        let others = PlanOptions {
            seed: 100 + connections as u64,
            ..plan.clone()
        };
        let duration = 2 * MEASURED + Duration::from_secs(4);
        let others = Stream::prepare(&service.config.kafka, &others, rate / 2, duration).start();
        let cached = ask(service.port, keys.one(), connections, MEASURED).await?;
        let uncached = uncached(&service, &keys, connections).await?;
        others.await??;
        busy_rows.push(row(
            &format!("{connections}"),
            [shown(&[cached]), shown(&[uncached])],
        ));
    }
    service.end();
    database.remove().await?;
    print(
        "Reads with ingest idle: answers/s, p50 / p99 in ms",
        &["answers", "ratio"],
        &rows,
    );
    print(
        "Reads with ingest at 50 %, by connections",
        &["one key again and again", "every key in turn"],
        &busy_rows,
    );
    Ok(())
}

async fn idle(
    service: &Service,
    bare: &Bare,
    database: &Database,
    keys: &Keys,
    connections: usize,
    repetitions: usize,
) -> Outcome<Vec<Row>> {
    let (mut bares, mut cacheds, mut uncacheds, mut selects) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repetitions {
        bares.push(ask(bare.port, keys.one(), connections, MEASURED).await?);
        cacheds.push(ask(service.port, keys.one(), connections, MEASURED).await?);
        uncacheds.push(uncached(service, keys, connections).await?);
        selects.push(select(database, &service.config, keys, connections).await?);
    }
    let rates =
        |all: &[Answered]| Figures(all.iter().map(|answered| answered.per_second).collect());
    let tails = |all: &[Answered]| {
        Figures(
            all.iter()
                .map(|answered| answered.p99.as_secs_f64())
                .collect(),
        )
    };
    let tail = tails(&cacheds).over(&tails(&bares));
    Ok(vec![
        row(
            &format!("{connections}: a bare handler"),
            [shown(&bares), String::new()],
        ),
        row(
            &format!("{connections}: cached"),
            [
                shown(&cacheds),
                format!(
                    "{} of bare, its p99 {} times (reach 2)",
                    against(&rates(&cacheds).over(&rates(&bares)), 0.8),
                    tail.show(2)
                ),
            ],
        ),
        row(
            &format!("{connections}: one select, no HTTP"),
            [shown(&selects), String::new()],
        ),
        row(
            &format!("{connections}: uncached"),
            [
                shown(&uncacheds),
                format!(
                    "{} of the select",
                    rates(&uncacheds).over(&rates(&selects)).show(2)
                ),
            ],
        ),
    ])
}

fn shown(all: &[Answered]) -> String {
    let figures = |get: fn(&Answered) -> f64| Figures(all.iter().map(get).collect());
    let ms = |get: fn(&Answered) -> Duration| {
        Figures(
            all.iter()
                .map(|answered| get(answered).as_secs_f64() * 1e3)
                .collect(),
        )
    };
    format!(
        "{}, {:.2} / {:.2}",
        figures(|answered| answered.per_second).show(0),
        ms(|answered| answered.p50).median(),
        ms(|answered| answered.p99).median()
    )
}

/// The same look-up without HTTP and without a cache: as many askers, the service's number of connections.
async fn select(
    database: &Database,
    config: &Config,
    keys: &Keys,
    askers: usize,
) -> Outcome<Answered> {
    let pool = PgPoolOptions::new()
        .max_connections(config.database.read_connections_max)
        .connect(&database.url)
        .await?;
    let clock = Clock::system();
    let keys = Arc::new(keys.0.clone());
    let mut tasks = JoinSet::new();
    for number in 0..askers {
        let (pool, clock, keys) = (pool.clone(), clock.clone(), Arc::clone(&keys));
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut next = number * keys.len() / askers;
            loop {
                let began = clock.elapsed();
                if began >= MEASURED {
                    return Ok(times);
                }
                let (warehouse, product) = keys[next % keys.len()];
                next += 1;
                let _: Option<(i64, i64, i64)> =
                    sqlx::query_as("select on_hand, reserved, revision from stock_levels where warehouse_id = $1 and product_id = $2")
                        .bind(warehouse)
                        .bind(product)
                        .fetch_optional(&pool)
                        .await?;
                times.push(micros(clock.elapsed().saturating_sub(began)));
            }
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let times: Result<Vec<u32>, sqlx::Error> = ended?;
        all.extend(times?);
    }
    let took = clock.elapsed();
    pool.close().await;
    Ok(Answered::of(all, took))
}

/// Every key in turn, asked of a process that has none of them in its caches.
async fn uncached(service: &Service, keys: &Keys, connections: usize) -> Outcome<Answered> {
    let fresh = service.beside("api")?;
    fresh.ready().await?;
    let answered = ask(fresh.port, keys.all(), connections, MEASURED).await?;
    fresh.end();
    Ok(answered)
}

/// The stock keys of a plan.
pub struct Keys(pub Vec<(Uuid, Uuid)>);

impl Keys {
    pub fn of(plan: &PlanOptions) -> Self {
        let warehouses: Vec<Uuid> = (0..plan.warehouses)
            .filter_map(warehouse)
            .map(WarehouseId::uuid)
            .collect();
        let products = (0..plan.products).filter_map(product).map(ProductId::uuid);
        Self(
            products
                .flat_map(|product| {
                    warehouses
                        .iter()
                        .map(move |warehouse| (*warehouse, product))
                })
                .collect(),
        )
    }

    fn one(&self) -> Vec<String> {
        self.0.iter().take(1).map(path).collect()
    }

    fn all(&self) -> Vec<String> {
        self.0.iter().map(path).collect()
    }
}

pub fn path((warehouse, product): &(Uuid, Uuid)) -> String {
    format!("/api/warehouses/{warehouse}/products/{product}")
}

/// The request that puts one unit more there.
pub fn restock((warehouse, product): &(Uuid, Uuid)) -> Vec<u8> {
    let restock = serde_json::json!({"warehouse": warehouse, "product": product, "change": 1, "kind": "restock"});
    post("/api/adjustments", &restock.to_string())
}

/// A bare handler that answers what the service does.
async fn bare_handler(service: &Service, keys: &Keys) -> Outcome<Bare> {
    let url = format!("http://127.0.0.1:{}{}", service.port, keys.one()[0]);
    let body = reqwest::get(url).await?.text().await?;
    Bare::start(&["--bare-body", &body], "--bare-port").await
}

/// What the bare handler's process runs.
pub async fn serve_bare(port: u16, body: String) -> Outcome<()> {
    let body = bytes::Bytes::from(body);
    let handler = move |Path(_): Path<(Uuid, Uuid)>| {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let routes = Router::new().route(
        "/api/warehouses/{warehouse}/products/{product}",
        get(handler),
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, routes).await?)
}
