//! Each part alone: Kafka (k), decoding and merging (d), `PostgreSQL` (p, and p0 without the ledger and the order of
//! commits). What the whole can reach at most on the same cores is `1 / (1/k + 1/d + 1/p)`.

use std::{collections::HashSet, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
};
use stockyard::{
    clock::Clock,
    domain::{
        Fact, MovementLine, Side, StockKey,
        batch::{self, Change, LineId, Merged},
    },
    event::{self, Form},
    inventory::record::ledger_rows,
    kafka,
    produce::plan::{Plan, PlanOptions},
    store::writer::Writer,
};

use super::{
    table::{as_f64, length},
    world::{Backlog, Database, Outcome, RUN_MAX, config},
};

/// Longest a poll waits.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// Events a second that the client library hands over when nothing is done with them.
pub fn kafka_alone(backlog: &Backlog) -> Outcome<f64> {
    let kafka = config(&backlog.topic, "none", 0)?.kafka;
    let consumer: BaseConsumer<DefaultConsumerContext> =
        kafka::consumer(&kafka, DefaultConsumerContext)?;
    let mut all = TopicPartitionList::new();
    for partition in 0..kafka.partitions {
        all.add_partition_offset(&kafka.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let clock = Clock::system();
    let (mut began, mut seen) = (Duration::ZERO, 0);
    while seen < backlog.options.count {
        if clock.elapsed() > RUN_MAX {
            return Err("Kafka does not hand over what was published".into());
        }
        if let Some(message) = consumer.poll(POLL_WAIT) {
            message?;
            if seen == 0 {
                began = clock.elapsed();
            }
            seen += 1;
        }
    }
    Ok(as_f64(seen) / clock.elapsed().saturating_sub(began).as_secs_f64())
}

/// Events a second decoded and merged from memory, in batches of that size, by two threads.
pub fn decoding_alone(options: &PlanOptions, batch_events: usize) -> f64 {
    let values: Vec<Vec<u8>> = Plan::new(options)
        .filter_map(|message| message.value)
        .collect();
    let clock = Clock::system();
    let halves = values.split_at(values.len() / 2);
    std::thread::scope(|scope| {
        for half in [halves.0, halves.1] {
            scope.spawn(move || {
                for some in half.chunks(batch_events) {
                    let facts: Vec<Fact> = some
                        .iter()
                        .filter_map(|value| event::decode(Some(value), Form::Structured).ok())
                        .collect();
                    std::hint::black_box(batch::merge(&facts));
                }
            });
        }
    });
    length(values.len()) / clock.elapsed().as_secs_f64()
}

/// Which of the service's statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statements {
    /// All of them (p).
    All,
    /// Without the ledger and the order of commits (p0).
    WithoutLedger,
}

/// What one transaction writes, worked out beforehand.
struct Ready {
    events: usize,
    merged: Merged,
    changes: Vec<Change>,
    deltas: Vec<(StockKey, i64)>,
}

/// Events a second that the database takes from arrays that are ready, over that many connections.
pub async fn postgres_alone(
    options: &PlanOptions,
    batch_events: usize,
    connections: usize,
    statements: Statements,
) -> Outcome<f64> {
    let mut queues = ready(options, batch_events, connections);
    let database = Database::create().await?;
    let store = database.store()?;
    let clock = Clock::system();
    let mut writers = tokio::task::JoinSet::new();
    let events: usize = queues.iter().flatten().map(|ready| ready.events).sum();
    for queue in queues.drain(..) {
        let writer = store.writer();
        writers.spawn(async move {
            write(writer, queue, statements)
                .await
                .map_err(|error| error.to_string())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let rate = length(events) / clock.elapsed().as_secs_f64();
    store.close().await;
    database.remove().await?;
    Ok(rate)
}

async fn write(mut writer: Writer, queue: Vec<Ready>, statements: Statements) -> Outcome<()> {
    for ready in queue {
        let mut tx = writer.begin().await?;
        tx.upsert_movements(ready.merged.lines()).await?;
        let levels = tx.add_to_levels(&ready.deltas).await?;
        if statements == Statements::All {
            let rows = ledger_rows(&ready.changes, &levels)?;
            tx.append_ledger(rows.iter().map(|(change, level)| (*change, level)))
                .await?;
            tx.publish().await?;
        } else {
            tx.commit_silently().await?;
        }
    }
    Ok(())
}

/// The plan's facts by lane and batch, as the service would take them: a lane has the facts of its products.
fn ready(options: &PlanOptions, batch_events: usize, lanes: usize) -> Vec<Vec<Ready>> {
    let mut facts: Vec<Vec<Fact>> = vec![Vec::new(); lanes];
    for fact in Plan::new(options).filter_map(|message| message.fact) {
        let lane = usize::from(fact.product.uuid().as_bytes()[15]) % lanes;
        facts[lane].push(fact);
    }
    let mut known: HashSet<(LineId, Side)> = HashSet::new();
    let one = |some: &[Fact], known: &mut HashSet<(LineId, Side)>| {
        let merged = batch::merge(some);
        let new: Vec<_> = merged
            .lines()
            .map(|(id, line)| sides_new(id, line, known))
            .collect();
        let changes = merged.changes(&new);
        Ready {
            events: some.len(),
            deltas: batch::deltas_by_key(&changes),
            changes,
            merged,
        }
    };
    facts
        .iter()
        .map(|lane| {
            lane.chunks(batch_events)
                .map(|some| one(some, &mut known))
                .collect()
        })
        .collect()
}

fn sides_new(
    id: LineId,
    line: &MovementLine,
    known: &mut HashSet<(LineId, Side)>,
) -> stockyard::domain::Sides {
    let departed = line.departure.is_some() && known.insert((id, Side::Departure));
    let arrived = line.arrival.is_some() && known.insert((id, Side::Arrival));
    stockyard::domain::Sides::from_bits(i16::from(departed) | i16::from(arrived) << 1)
}
