//! Publishes movement messages, for trying and for measuring, and says what the tables should hold afterwards.

mod oracle;
pub mod plan;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::{
    ClientContext,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use crate::{clock::Clock, config::Kafka, domain::MovementId, kafka};
pub use oracle::{Oracle, OracleError};
use plan::{Plan, PlanOptions, Planned};

/// Bound of the messages that wait for the broker, in KiB.
const QUEUE_KBYTES: &str = "65536";
/// Longest the last messages may take.
const FLUSH_MAX: Duration = Duration::from_mins(1);
/// How often the pace is checked, in messages.
const PACE_STEP: u64 = 50;

/// Why publishing ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("{lost} of {sent} messages were not taken by Kafka: {error}")]
    Lost {
        lost: u64,
        sent: u64,
        error: KafkaError,
    },
    #[error(transparent)]
    Oracle(#[from] OracleError),
}

/// What was published.
#[derive(Debug)]
pub struct Produced {
    pub messages: u64,
    pub took: Duration,
    pub oracle: Oracle,
    /// One of the movements, to look at.
    pub sample: Option<MovementId>,
}

/// How to publish.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages per second; 0: as fast as Kafka takes them.
    pub rate: u64,
    pub is_quiet: bool,
}

/// Publishes the plan and waits until Kafka has all of it.
///
/// Blocks: it is for a thread of its own.
pub fn produce(
    kafka: &Kafka,
    options: &PlanOptions,
    pace: Pace,
    clock: &Clock,
) -> Result<Produced, ProduceError> {
    let deliveries = Arc::new(Deliveries::default());
    let mut config = kafka::producer_config(kafka);
    config
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES);
    let producer: ThreadedProducer<Context> = config
        .create_with_context(Context(Arc::clone(&deliveries)))
        .map_err(kafka::without_value)?;
    let bar = progress_bar(options.count, pace.is_quiet);

    let began = clock.elapsed();
    let mut oracle = Oracle::new(options);
    let mut sample = None;
    for (sent, planned) in Plan::new(options).enumerate() {
        let sent = sent as u64;
        if pace.rate > 0 && sent.is_multiple_of(PACE_STEP) {
            let due = Duration::from_secs_f64(as_f64(sent) / as_f64(pace.rate));
            std::thread::sleep((began + due).saturating_sub(clock.elapsed()));
        }
        send(&producer, &kafka.topic, &planned)?;
        if sample.is_none() {
            sample = planned.fact.as_ref().map(|fact| fact.movement);
        }
        oracle.expect(&planned);
        if sent.is_multiple_of(1_000) {
            bar.set_position(sent);
        }
        deliveries.first_error()?;
    }
    producer.flush(FLUSH_MAX)?;
    deliveries.first_error()?;
    bar.finish_and_clear();
    let took = clock.elapsed().saturating_sub(began);
    Ok(Produced {
        messages: options.count,
        took,
        oracle,
        sample,
    })
}

/// Writes what is expected.
pub fn write_oracle(oracle: &Oracle, path: &Path) -> Result<(), ProduceError> {
    Ok(oracle.write(path)?)
}

fn send(
    producer: &ThreadedProducer<Context>,
    topic: &str,
    planned: &Planned,
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::to(topic).key(&planned.key);
    record.payload = planned.value.as_deref();
    kafka::enqueue(producer, record)
}

/// What became of the messages that were sent.
#[derive(Default)]
struct Deliveries {
    taken: AtomicU64,
    lost: AtomicU64,
    error: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn first_error(&self) -> Result<(), ProduceError> {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost == 0 {
            return Ok(());
        }
        let sent = lost + self.taken.load(Ordering::Relaxed);
        match self
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            Some(error) => Err(ProduceError::Lost { lost, sent, error }),
            None => Ok(()),
        }
    }
}

struct Context(Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.taken.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.0
                    .error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_with(|| error.clone());
                self.0.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn progress_bar(count: u64, is_quiet: bool) -> ProgressBar {
    if is_quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count);
    // The template is right, so there is always a style; a bar without it would do as well.
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:40} {human_pos}/{human_len} messages, {per_sec}, {eta} left",
    ) {
        bar.set_style(style);
    }
    bar
}

/// For paces, where a message more or less in 2^53 does not matter.
#[expect(clippy::cast_precision_loss, reason = "a pace is no count")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
