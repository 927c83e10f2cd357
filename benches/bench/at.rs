//! How a level was at a moment, by either clock, with a long ledger behind it of which a few keys have most.

use std::{collections::HashMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use stockyard::{
    clock::Clock,
    config::Config,
    domain::{ProductId, Timestamp, WarehouseId, past::Basis},
    produce::plan::{product, warehouse},
    store::ranges::CHECKPOINT_ROWS,
};
use uuid::Uuid;

use super::{
    load::{Answered, ask},
    table::{Figures, print, progress, remark, row},
    world::{Database, Outcome, Service, admin, unique},
};

const ROWS: i64 = 10_000_000;
/// Rows of one of the transactions that put them there, and of one commit in it.
const ROWS_PER_STEP: i64 = 100_000;
const ROWS_PER_COMMIT: i64 = 500;
/// Between two commits: a month in all.
const COMMIT_EVERY_S: f64 = 130.0;
const MONTH_US: i64 = 31 * 86_400 * 1_000_000;
/// The keys with the most rows: the first has 30 % of all, each of the others 2 %.
const HOT_KEYS: usize = 10;
const OTHER_KEYS: i64 = 100_000;
const WAREHOUSES: u32 = 50;
const PRODUCTS: u32 = 2_001;
/// How long each figure is measured, and how many different questions are asked meanwhile.
const MEASURED: Duration = Duration::from_secs(10);
const QUESTIONS: usize = 20_000;
const CONNECTIONS: [usize; 2] = [1, 4];

/// Questions about the past, by HTTP.
pub async fn measure(repetitions: usize) -> Outcome<()> {
    let database = Database::create().await?;
    let closed = fill(&database).await?;
    let keys = keys(&database).await?;
    let service = Service::start(&unique("bench"), &database, "api")?;
    service.ready().await?;
    let mut rows = Vec::new();
    for (name, keys, reach) in [
        ("100,000 keys evenly", &keys[HOT_KEYS..], 20.0),
        ("the ten hottest", &keys[..HOT_KEYS], 100.0),
        ("the hottest, 30 % of all rows", &keys[..1], 100.0),
    ] {
        for basis in [Basis::Recorded, Basis::Occurred] {
            for connections in CONNECTIONS {
                progress(&format!("at: {name}, {}, {connections}", basis.as_str()));
                let mut all = Vec::new();
                for repetition in 0..repetitions {
                    let paths = paths(keys, basis, repetition as u64);
                    all.push(ask(service.port, paths, connections, MEASURED).await?);
                }
                let name = format!("{name}, {}, {connections} at once", basis.as_str());
                rows.push(row(&name, shown(&all, reach)));
            }
        }
    }
    let explain = keys[..HOT_KEYS].iter().map(|key| path(key) + "/explain");
    let explained = ask(service.port, explain.collect(), 1, MEASURED).await?;
    rows.push(row(
        "explain, the ten hottest, 1 at once",
        shown(&[explained], 100.0),
    ));
    service.end();
    database.remove().await?;
    print(
        "What stood there at a random moment of a month, ten million ledger rows",
        &["answers/s", "p50, ms", "p99, ms"],
        &rows,
    );
    remark(&format!(
        "{} closed partitions; closing one took {} s.",
        closed.0.len(),
        closed.show(1)
    ));
    Ok(())
}

fn shown(all: &[Answered], reach_ms: f64) -> [String; 3] {
    let figures = |get: fn(&Answered) -> f64| Figures(all.iter().map(get).collect());
    let p99 = figures(|answered| answered.p99.as_secs_f64() * 1e3);
    let word = if p99.median() <= reach_ms {
        "reached"
    } else {
        "missed"
    };
    [
        figures(|answered| answered.per_second).show(0),
        figures(|answered| answered.p50.as_secs_f64() * 1e3).show(1),
        format!("{} (reach {reach_ms}: {word})", p99.show(1)),
    ]
}

fn path((warehouse, product): &(Uuid, Uuid)) -> String {
    format!("/api/warehouses/{warehouse}/products/{product}")
}

/// Questions about random keys of these, at random moments of the month.
fn paths(keys: &[(Uuid, Uuid)], basis: Basis, seed: u64) -> Vec<String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let now = Clock::system().unix_micros();
    let question = |_| {
        let key = &keys[random.random_range(0..keys.len())];
        let at = Timestamp::from_micros(now - random.random_range(0..MONTH_US));
        format!("{}?at={at}&basis={}", path(key), basis.as_str())
    };
    (0..QUESTIONS).map(question).collect()
}

/// The keys, the hottest first.
async fn keys(database: &Database) -> Outcome<Vec<(Uuid, Uuid)>> {
    let mut connection = database.connect().await?;
    Ok(sqlx::query_as(
        "select warehouse_id, product_id from stock_levels where revision > 0 order by inventory_id",
    )
    .fetch_all(&mut connection)
    .await?)
}

/// Puts the rows there and closes what is full, as a service would; how many seconds that took for each partition.
async fn fill(database: &Database) -> Outcome<Figures> {
    let partition_bytes_max = Config::from_layers(None, HashMap::new())?
        .database
        .ledger_partition_bytes_max;
    let warehouses: Vec<Uuid> = (0..WAREHOUSES)
        .filter_map(warehouse)
        .map(WarehouseId::uuid)
        .collect();
    let products: Vec<Uuid> = (0..PRODUCTS)
        .filter_map(product)
        .map(ProductId::uuid)
        .collect();
    let mut connection = database.connect().await?;
    sqlx::query(
        "with w as (insert into warehouses (warehouse_id) select * from unnest($1::uuid[]) returning 1),
        p as (insert into products (product_id) select * from unnest($2::uuid[]) returning 1)
        insert into stock_levels (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
        select w, p, 0, 0, 0, now() from unnest($1::uuid[]) w, unnest($2::uuid[]) p",
    )
    .bind(&warehouses)
    .bind(&products)
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("update stock_commits set committed_at = now() - interval '31 days'; analyze")
        .execute(&mut connection)
        .await?;
    let store = database.store()?;
    let mut closed = Figures::default();
    for step in 0..ROWS / ROWS_PER_STEP {
        if step % 10 == 0 {
            progress(&format!("at: {} ledger rows", step * ROWS_PER_STEP));
        }
        sqlx::query(include_str!("at.sql"))
            .bind(ROWS_PER_STEP)
            .bind(ROWS_PER_COMMIT)
            .bind(COMMIT_EVERY_S)
            .bind(OTHER_KEYS)
            .execute(&mut connection)
            .await?;
        store.make_ledger_room(partition_bytes_max).await?;
        let clock = Clock::system();
        if store.close_ledger_range(CHECKPOINT_ROWS).await? > 0 {
            closed.push(clock.elapsed().as_secs_f64());
        }
    }
    store.close().await;
    sqlx::raw_sql("vacuum analyze")
        .execute(&mut connection)
        .await?;
    drop(connection);
    admin("checkpoint").await?;
    Ok(closed)
}
