//! Stockyard from a backlog to lag 0, as its own process.

use sqlx::PgConnection;
use stockyard::clock::Clock;

use super::{
    machine,
    table::as_f64,
    world::{Backlog, Database, Outcome, Service, postmaster, until},
};

/// One run.
pub struct Run {
    pub events_per_second: f64,
    /// Processor seconds per million events: the service's and the database's.
    pub service_seconds: f64,
    pub postgres_seconds: f64,
    pub peak_mib: f64,
    /// Seconds that all lanes spent in each stage, per million events.
    pub stages: Vec<(String, f64)>,
}

/// Takes all of the backlog into the database, from the moment the partitions are there to the moment everything is
/// committed.
pub async fn take(backlog: &Backlog, database: &Database) -> Outcome<Run> {
    let service = Service::start(&backlog.topic, database, "all")?;
    run(service, backlog, database).await
}

/// Takes it once more, from the topic's beginning: nothing of it is new.
pub async fn take_again(backlog: &Backlog, database: &Database) -> Outcome<Run> {
    let service = Service::rewound(&backlog.topic, database, "all")?;
    run(service, backlog, database).await
}

async fn run(service: Service, backlog: &Backlog, database: &Database) -> Outcome<Run> {
    let postmaster = postmaster().await?;
    service.ready().await?;
    let clock = Clock::system();
    let before = (
        machine::family_seconds(service.id()),
        machine::family_seconds(postmaster),
    );
    lag_is_zero(&backlog.topic, backlog.options.count, database).await?;
    let took = clock.elapsed();
    let millions = as_f64(backlog.options.count) / 1e6;
    let run = Run {
        events_per_second: as_f64(backlog.options.count) / took.as_secs_f64(),
        service_seconds: (machine::family_seconds(service.id()) - before.0) / millions,
        postgres_seconds: (machine::family_seconds(postmaster) - before.1) / millions,
        peak_mib: machine::peak_mib(service.id()),
        stages: stages(&service, millions).await?,
    };
    service.end();
    Ok(run)
}

/// Waits until the database has that many messages of the topic.
pub async fn lag_is_zero(topic: &str, messages: u64, database: &Database) -> Outcome<()> {
    let mut connection = database.connect().await?;
    until("everything is taken", async || {
        Ok((taken(topic, &mut connection).await? >= messages).then_some(()))
    })
    .await
}

/// Messages of the topic of which the effects are committed.
pub async fn taken(topic: &str, connection: &mut PgConnection) -> Outcome<u64> {
    let taken: i64 = sqlx::query_scalar(
        "select coalesce(sum(next_offset), 0)::bigint from (
            select min(next_offset) as next_offset from ingest_progress where topic = $1 group by partition
        ) p",
    )
    .bind(topic)
    .fetch_one(connection)
    .await?;
    Ok(taken.unsigned_abs())
}

async fn stages(service: &Service, millions: f64) -> Outcome<Vec<(String, f64)>> {
    const SUM: &str = "warehouse_ingest_batch_stage_seconds_sum{stage=\"";
    let text = reqwest::get(format!("http://127.0.0.1:{}/metrics", service.port))
        .await?
        .text()
        .await?;
    let stage = |line: &str| {
        let (stage, sum) = line.strip_prefix(SUM)?.split_once("\"} ")?;
        Some((stage.to_owned(), sum.parse::<f64>().ok()? / millions))
    };
    Ok(text.lines().filter_map(stage).collect())
}
