//! A steady stream of messages beside a measurement. They are made beforehand and sent in large batches, so that the stream
//! takes as little of the processors as it can.

use std::time::Duration;

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
const LINGER_MS: &str = "20";
/// Messages between two looks at the clock.
const STEP: usize = 50;
/// Longest the last messages may take.
const FLUSH_MAX: Duration = Duration::from_secs(30);

pub struct Stream {
    kafka: Kafka,
    messages: Vec<(String, Vec<u8>)>,
    per_second: u64,
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
            per_second,
        }
    }

    /// Sends them at their rate, from a thread of its own.
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
                let due = Duration::from_secs_f64(as_f64(sent as u64) / as_f64(self.per_second));
                std::thread::sleep(due.saturating_sub(clock.elapsed()));
            }
            let record = BaseRecord::to(&self.kafka.topic).key(key);
            kafka::enqueue(&producer, record.payload(value.as_slice()))?;
        }
        producer.flush(FLUSH_MAX)
    }
}
