//! A stream of messages beside a measurement, steady or as fast as they are taken. They are made beforehand and sent in large batches, so that the stream
//! takes as little of the processors as it can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use stockyard::{
    clock::Clock,
    config::Kafka,
    kafka,
    produce::plan::{Plan, PlanOptions},
};
use tokio::task::JoinHandle;

use super::table::as_f64;

/// How long a message waits for others to go with.
const LINGER_MS: &str = "100";
/// Messages between two looks at the clock.
const STEP: usize = 50;
/// How often it is looked how many are under way.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// After that nobody is waited for any more.
const SENT_MAX: Duration = Duration::from_mins(2);
/// Longest the last messages may take.
const FLUSH_MAX: Duration = Duration::from_secs(30);

pub struct Stream {
    kafka: Kafka,
    messages: Vec<(String, Vec<u8>)>,
    pace: Pace,
}

/// When the next messages are sent.
enum Pace {
    PerSecond(u64),
    /// As fast as they are taken: so many are under way at most.
    UnderWay {
        most: u64,
        taken: Arc<AtomicU64>,
    },
}

impl Stream {
    /// As many messages of the plan as make so many a second for so long.
    pub fn prepare(kafka: &Kafka, plan: &PlanOptions, per_second: u64, duration: Duration) -> Self {
        let options = PlanOptions {
            count: per_second * duration.as_secs(),
            ..plan.clone()
        };
        let messages = Plan::new(&options)
            .filter_map(|planned| Some((planned.key, planned.value?)))
            .collect();
        Self::of(kafka, messages, per_second)
    }

    /// These messages, so many a second.
    pub fn of(kafka: &Kafka, messages: Vec<(String, Vec<u8>)>, per_second: u64) -> Self {
        Self {
            kafka: kafka.clone(),
            messages,
            pace: Pace::PerSecond(per_second),
        }
    }

    /// The same messages as fast as they are taken, so many under way at most; it is told how many of these are taken.
    pub fn keeping(self, most: u64, taken: Arc<AtomicU64>) -> Self {
        Self {
            pace: Pace::UnderWay { most, taken },
            ..self
        }
    }

    /// Sends them, from a thread of its own.
    pub fn start(self) -> JoinHandle<Result<(), KafkaError>> {
        tokio::task::spawn_blocking(move || self.send())
    }

    fn send(self) -> Result<(), KafkaError> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            kafka::producer_config(&self.kafka)
                .set("linger.ms", LINGER_MS)
                .create()?;
        let clock = Clock::system();
        for (sent, (key, value)) in self.messages.iter().enumerate() {
            if sent.is_multiple_of(STEP) {
                self.pace.wait(sent as u64, &clock);
            }
            let record = BaseRecord::to(&self.kafka.topic).key(key);
            kafka::enqueue(&producer, record.payload(value.as_slice()))?;
        }
        producer.flush(FLUSH_MAX)
    }
}

impl Pace {
    /// Until more may be sent than those that are.
    fn wait(&self, sent: u64, clock: &Clock) {
        match self {
            Self::PerSecond(per_second) => {
                let due = Duration::from_secs_f64(as_f64(sent) / as_f64(*per_second));
                thread::sleep(due.saturating_sub(clock.elapsed()));
            }
            Self::UnderWay { most, taken } => {
                while sent >= taken.load(Ordering::Relaxed) + most && clock.elapsed() < SENT_MAX {
                    thread::sleep(LOOK_EVERY);
                }
            }
        }
    }
}
