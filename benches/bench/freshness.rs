//! How long after Kafka has a message its effect is committed, and seen over HTTP, while others stream past.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::StatusCode;
use stockyard::{clock::Clock, config::Kafka, kafka, produce::plan::PlanOptions};
use uuid::Uuid;

use super::{
    growth,
    load::micros,
    stream::Stream,
    table::{Row, percentile, print, progress, row},
    world::{Backlog, Database, Outcome, Service, unique},
};

/// How long each load lasts, and how long before the first probe.
const LOAD: Duration = Duration::from_secs(25);
const WARM_UP: Duration = Duration::from_secs(5);
/// Probes go one at a time, this far apart, for as long as the load lasts.
const PROBE_EVERY: Duration = Duration::from_millis(25);
/// How often a probe is asked for: what the figures are accurate to.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Ledger rows that are there before.
const BEHIND: u32 = 100_000;
/// Longest a probe may take.
const VISIBLE_MAX: Duration = Duration::from_secs(30);

/// Part 4, at shares of `rate` events a second.
pub async fn measure(plan: &PlanOptions, rate: u64) -> Outcome<()> {
    let mut rows = Vec::new();
    for percent in [5, 50, 90] {
        progress(&format!("freshness at {percent} %"));
        rows.push(at_load(plan, rate, percent).await?);
    }
    print(
        &format!("From the acknowledgement of Kafka to the effect, at shares of {rate} events/s"),
        &[
            "committed, ms: p50 / p99 / max",
            "visible over HTTP, ms: p50 / p99 / max",
        ],
        &rows,
    );
    Ok(())
}

async fn at_load(plan: &PlanOptions, rate: u64, percent: u64) -> Outcome<Row> {
    let database = Database::create().await?;
    // A day like any other: what is moved has been moved before.
    growth::fill(&database, plan, BEHIND).await?;
    let topic = Backlog::publish(&PlanOptions {
        count: 1,
        ..plan.clone()
    })
    .await?
    .topic;
    let service = Service::start(&topic, &database, "all")?;
    service.ready().await?;
    let per_second = rate * percent / 100;
    let others = PlanOptions {
        seed: 7,
        ..plan.clone()
    };
    let others = Stream::prepare(&service.config.kafka, &others, per_second, LOAD).start();
    tokio::time::sleep(WARM_UP).await;
    let probes = probe(&service, || others.is_finished()).await?;
    others.await??;
    let sent: Vec<Sent> = probes.iter().map(|probe| probe.sent).collect();
    let committed = committed(&database, &sent).await?;
    service.end();
    database.remove().await?;
    let visible = probes
        .iter()
        .map(|probe| micros(probe.visible_after))
        .collect();
    Ok(row(
        &format!("{percent} %: {per_second} events/s"),
        [spread(committed), spread(visible)],
    ))
}

struct Probe {
    sent: Sent,
    visible_after: Duration,
}

/// A probe that Kafka has.
#[derive(Clone, Copy)]
pub struct Sent {
    movement: Uuid,
    /// On the process's clock, and on that of the day.
    acknowledged: Duration,
    acknowledged_us: i64,
}

/// Sends probes.
pub struct Prober {
    producer: FutureProducer,
    topic: String,
    clock: Clock,
}

impl Prober {
    pub fn new(kafka: &Kafka) -> Outcome<Self> {
        let mut settings = kafka::producer_config(kafka);
        Ok(Self {
            producer: settings.set("linger.ms", "0").create()?,
            topic: kafka.topic.clone(),
            clock: Clock::system(),
        })
    }

    /// Sends one of a product that nobody knows, and waits until Kafka has it.
    pub async fn send(&self) -> Outcome<Sent> {
        let movement = Uuid::new_v4();
        let value = format!(
            r#"{{"data":{{"movement_id":"{movement}","warehouse_id":"{}","product_id":"{}","timestamp":"2025-06-01T00:00:00Z","event":"arrival","quantity":1}}}}"#,
            Uuid::new_v4(),
            Uuid::new_v4()
        );
        let key = unique("probe");
        let record = FutureRecord::to(&self.topic).key(&key).payload(&value);
        let sending = self.producer.send(record, VISIBLE_MAX);
        sending.await.map_err(|(error, _)| error)?;
        Ok(Sent {
            movement,
            acknowledged: self.clock.elapsed(),
            acknowledged_us: self.clock.unix_micros(),
        })
    }

    /// Until the next one is due.
    pub async fn rest(&self, after: &Sent) {
        let since = self.clock.elapsed().saturating_sub(after.acknowledged);
        tokio::time::sleep(PROBE_EVERY.saturating_sub(since)).await;
    }
}

async fn probe(service: &Service, is_over: impl Fn() -> bool) -> Outcome<Vec<Probe>> {
    let sender = Prober::new(&service.config.kafka)?;
    let client = reqwest::Client::new();
    let mut probes = Vec::new();
    while !is_over() {
        let sent = sender.send().await?;
        let url = format!(
            "http://127.0.0.1:{}/api/movements/{}",
            service.port, sent.movement
        );
        loop {
            let status = client.get(&url).send().await?.status();
            let visible_after = sender.clock.elapsed().saturating_sub(sent.acknowledged);
            if status == StatusCode::OK {
                probes.push(Probe {
                    sent,
                    visible_after,
                });
                break;
            }
            if status != StatusCode::NOT_FOUND || visible_after > VISIBLE_MAX {
                return Err(
                    format!("a probe was answered {status} after {visible_after:?}").into(),
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        sender.rest(&sent).await;
    }
    Ok(probes)
}

/// How long after the acknowledgement each probe was committed, in microseconds; a commit may be sooner than the
/// acknowledgement is heard.
pub async fn committed(database: &Database, probes: &[Sent]) -> Outcome<Vec<u32>> {
    let movements: Vec<Uuid> = probes.iter().map(|probe| probe.movement).collect();
    let mut connection = database.connect().await?;
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "select cause_id, (extract(epoch from committed_at) * 1000000)::bigint
        from stock_ledger join stock_commits using (batch) where cause_id = any ($1)",
    )
    .bind(&movements)
    .fetch_all(&mut connection)
    .await?;
    let at: std::collections::HashMap<Uuid, i64> = rows.into_iter().collect();
    let after = |probe: &Sent| {
        Some(
            u32::try_from((at.get(&probe.movement)? - probe.acknowledged_us).max(0))
                .unwrap_or(u32::MAX),
        )
    };
    probes
        .iter()
        .map(|probe| after(probe).ok_or_else(|| "a probe without a commit".into()))
        .collect()
}

fn spread(mut times: Vec<u32>) -> String {
    times.sort_unstable();
    let at = |percent| percentile(&times, percent).map_or(f64::NAN, f64::from) / 1_000.0;
    format!("{:.1} / {:.1} / {:.1}", at(50), at(99), at(100))
}
