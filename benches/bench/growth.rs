//! The same backlog with ever more behind it, beside a dump, and on a disk that flushes slowly.

use std::collections::HashMap;

use futures_util::StreamExt;
use sqlx::Connection;
use stockyard::{
    config::Config,
    domain::{ProductId, WarehouseId},
    produce::plan::{PlanOptions, product, warehouse},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    backlog,
    table::{Figures, against, print, progress, remark, row},
    world::{Backlog, Database, Outcome, admin},
};

/// Ledger rows that are there before.
const BEHIND: [u32; 3] = [100_000, 1_000_000, 10_000_000];
/// Rows of one of the transactions that put them there, half of them movements.
const ROWS_PER_STEP: u32 = 100_000;
/// Sides of one batch, as the service writes them.
const ROWS_PER_BATCH: u32 = 4_000;

/// Part 6, what the ledger's size costs.
pub async fn grown(plan: &PlanOptions, repetitions: usize) -> Outcome<()> {
    let backlog = Backlog::publish(plan).await?;
    let mut rates = BEHIND.map(|_| Figures::default());
    let mut memory = BEHIND.map(|_| Figures::default());
    for _ in 0..repetitions {
        for ((rows, rates), memory) in BEHIND.iter().zip(&mut rates).zip(&mut memory) {
            progress(&format!("growth: {rows} ledger rows behind"));
            let database = Database::create().await?;
            fill(&database, plan, *rows).await?;
            let run = backlog::take(&backlog, &database).await?;
            database.remove().await?;
            rates.push(run.events_per_second);
            memory.push(run.peak_mib);
        }
    }
    let rows = BEHIND
        .iter()
        .zip(&rates)
        .zip(&memory)
        .map(|((behind, rate), memory)| {
            row(
                &format!("{behind} ledger rows behind"),
                [
                    rate.show(0),
                    against(&rate.over(&rates[0]), 0.8),
                    memory.show(0),
                ],
            )
        });
    print(
        "What is there already",
        &["events/s", "of the first", "peak memory, MiB"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// Part 6, what disturbs.
pub async fn disturbed(plan: &PlanOptions, repetitions: usize) -> Outcome<()> {
    let backlog = Backlog::publish(plan).await?;
    let (mut alone, mut dumped, mut slow) = <(Figures, Figures, Figures)>::default();
    let mut dumps = Figures::default();
    for repetition in 1..=repetitions {
        progress(&format!("disturbed: {repetition} of {repetitions}"));
        let database = Database::create().await?;
        fill(&database, plan, BEHIND[1]).await?;
        alone.push(backlog::take(&backlog, &database).await?.events_per_second);
        database.remove().await?;

        let database = Database::create().await?;
        fill(&database, plan, BEHIND[1]).await?;
        let stop = CancellationToken::new();
        let dump = tokio::spawn(dump(database.url.clone(), stop.clone()));
        dumped.push(backlog::take(&backlog, &database).await?.events_per_second);
        stop.cancel();
        dumps.push(f64::from(dump.await?.map_err(|error| error.to_string())?));
        database.remove().await?;

        let database = Database::create().await?;
        fill(&database, plan, BEHIND[1]).await?;
        let name = &database.name;
        database.run(&format!("alter database {name} set commit_delay = 5000; alter database {name} set commit_siblings = 0")).await?;
        slow.push(backlog::take(&backlog, &database).await?.events_per_second);
        database.remove().await?;
    }
    let rows = [
        row(
            "undisturbed, 1,000,000 ledger rows behind",
            [alone.show(0), String::new()],
        ),
        row(
            "a dump running",
            [dumped.show(0), dumped.over(&alone).show(2)],
        ),
        row(
            "a flush of 5 ms (commit_delay)",
            [slow.show(0), slow.over(&alone).show(2)],
        ),
    ];
    print("What disturbs", &["events/s", "of the undisturbed"], &rows);
    remark(&format!(
        "Whole dumps in the time of a run: {}.",
        dumps.show(0)
    ));
    Ok(())
}

/// Copies out every table in one repeatable read transaction, as `pg_dump` does, again and again; how often.
async fn dump(url: String, stop: CancellationToken) -> Result<u32, sqlx::Error> {
    const TABLES: [&str; 6] = [
        "products",
        "warehouses",
        "movements",
        "stock_levels",
        "stock_ledger",
        "stock_commits",
    ];
    let mut dumps = 0;
    let mut connection = sqlx::PgConnection::connect(&url).await?;
    while !stop.is_cancelled() {
        sqlx::raw_sql("begin isolation level repeatable read read only")
            .execute(&mut connection)
            .await?;
        for table in TABLES {
            // A partitioned table is copied as a query.
            let copy = format!("copy (select * from {table}) to stdout");
            let mut rows = connection.copy_out_raw(&copy).await?;
            while let Some(some) = rows.next().await {
                some?;
                if stop.is_cancelled() {
                    return Ok(dumps);
                }
            }
        }
        sqlx::raw_sql("commit").execute(&mut connection).await?;
        dumps += 1;
    }
    Ok(dumps)
}

/// Puts a history there: the plan's keys, movements with both sides, their ledger and commits.
pub async fn fill(database: &Database, plan: &PlanOptions, ledger_rows: u32) -> Outcome<()> {
    let warehouses: Vec<Uuid> = (0..plan.warehouses)
        .filter_map(warehouse)
        .map(WarehouseId::uuid)
        .collect();
    let products: Vec<Uuid> = (0..plan.products)
        .filter_map(product)
        .map(ProductId::uuid)
        .collect();
    let partition_bytes_max = Config::from_layers(None, HashMap::new())?
        .database
        .ledger_partition_bytes_max;
    let mut connection = database.connect().await?;
    for (sql, ids) in [
        (
            "insert into warehouses (warehouse_id) select * from unnest($1::uuid[])",
            &warehouses,
        ),
        (
            "insert into products (product_id) select * from unnest($1::uuid[])",
            &products,
        ),
    ] {
        sqlx::query(sql).bind(ids).execute(&mut connection).await?;
    }
    sqlx::raw_sql(
        "insert into stock_levels (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
        select warehouse_id, product_id, 0, 0, 1, now() from warehouses, products order by 1, 2",
    )
    .execute(&mut connection)
    .await?;
    for _ in 0..ledger_rows / ROWS_PER_STEP {
        let step = sqlx::query(include_str!("history.sql"))
            .bind(i64::from(ROWS_PER_STEP / 2))
            .bind(i64::from(plan.warehouses * plan.products))
            .bind(i64::from(plan.warehouses))
            .bind(i64::from(plan.products))
            .bind(i64::from(ROWS_PER_STEP / ROWS_PER_BATCH))
            .bind(i64::from(ROWS_PER_BATCH));
        step.execute(&mut connection).await?;
        sqlx::query("select stock_ledger_make_room($1)")
            .bind(partition_bytes_max)
            .execute(&mut connection)
            .await?;
    }
    sqlx::raw_sql(
        "insert into stock_commits (version, tag, batch, committed_at)
        select row_number() over (order by batch), 1, batch, now() from (select distinct batch from stock_ledger) b",
    )
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("vacuum analyze")
        .execute(&mut connection)
        .await?;
    drop(connection);
    admin("checkpoint").await
}
