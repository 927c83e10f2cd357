//! Writes dead letters: the bytes as they came, why, and from where.
//!
//! Invariant: when writing returns well, the broker has every letter. A letter it refuses for its size goes without the
//! value, and says so; if that is still too large, without its key and the headers it came with.

use futures_util::future::join_all;
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use super::{
    backoff::Backoff,
    batch::{Batch, Message},
};
use crate::{
    config::Kafka,
    event::dead_letter::{Origin, Reason, VALUE_OMITTED, headers},
    kafka,
    metrics::Metrics,
};

/// A message that cannot be applied.
#[derive(Debug)]
pub(super) struct Letter<'b> {
    pub(super) message: &'b Message,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

/// The way to the dead-letter topic. Cheap to clone.
#[derive(Clone)]
pub(super) struct DeadLetters {
    together: FutureProducer,
    alone: FutureProducer,
    source_topic: String,
    topic: String,
    backoff: Backoff,
    metrics: Metrics,
}

impl DeadLetters {
    pub(super) fn new(
        config: &Kafka,
        backoff: Backoff,
        metrics: Metrics,
    ) -> Result<Self, KafkaError> {
        for reason in Reason::ALL {
            metrics
                .dead_letters_total
                .with_label_values(&[reason.as_str()]);
        }
        Ok(Self {
            together: kafka::producer(config)?,
            alone: kafka::lone_producer(config)?,
            source_topic: config.topic.clone(),
            topic: config.dead_letter_topic(),
            backoff,
            metrics,
        })
    }

    /// Writes the letters and waits until the broker has them, for as long as ingest goes on; whether it has them.
    pub(super) async fn write(
        &self,
        batch: &Batch,
        letters: &[Letter<'_>],
        goes_on: impl Fn() -> bool,
    ) -> bool {
        let mut left: Vec<&Letter<'_>> = letters.iter().collect();
        let mut tries = 0;
        loop {
            let written = join_all(left.iter().map(|letter| self.send(batch, letter))).await;
            let mut failed = Vec::new();
            for (letter, result) in left.into_iter().zip(written) {
                match result {
                    Ok(()) => {
                        self.metrics
                            .dead_letters_total
                            .with_label_values(&[letter.reason.as_str()])
                            .inc();
                    }
                    Err(error) => {
                        if failed.is_empty() {
                            tracing::warn!(%error, topic = self.topic, "dead letters cannot be written; trying again");
                        }
                        failed.push(letter);
                    }
                }
            }
            if failed.is_empty() {
                return true;
            }
            if !goes_on() {
                return false;
            }
            self.metrics
                .retries_total
                .with_label_values(&["dead_letter"])
                .inc();
            self.backoff.wait(tries).await;
            tries += 1;
            left = failed;
        }
    }

    async fn send(&self, batch: &Batch, letter: &Letter<'_>) -> Result<(), KafkaError> {
        let message = letter.message;
        let (key, value) = (batch.key(message), batch.value(message));
        let origin = Origin {
            topic: self.source_topic.clone(),
            partition: message.partition,
            offset: message.offset,
        };
        let headers = headers(&origin, letter.reason, &letter.detail);
        let with_ours = |before: OwnedHeaders| {
            headers.iter().fold(before, |all, (name, text)| {
                let header = Header {
                    key: name,
                    value: Some(text),
                };
                all.insert(header)
            })
        };
        let ours = with_ours(OwnedHeaders::new());
        let all = message
            .headers
            .as_deref()
            .map_or_else(|| ours.clone(), |before| with_ours(before.clone()));
        let bytes = value.map_or(0, <[u8]>::len).to_string();
        let omitted = |headers: OwnedHeaders| {
            let header = Header {
                key: VALUE_OMITTED,
                value: Some(&bytes),
            };
            headers.insert(header)
        };
        let is_refused =
            |result: &Result<(), KafkaError>| result.as_ref().is_err_and(kafka::is_too_large);
        let mut result = self.produce(&self.together, key, value, all.clone()).await;
        if is_refused(&result) {
            // Perhaps for the sake of another one.
            result = self.produce(&self.alone, key, value, all.clone()).await;
        }
        if is_refused(&result) {
            result = self
                .produce(&self.alone, key, Some(&[]), omitted(all))
                .await;
        }
        if is_refused(&result) {
            // The key, or headers that came with it, are too large by themselves.
            result = self
                .produce(&self.alone, None, Some(&[]), omitted(ours))
                .await;
        }
        result
    }

    async fn produce(
        &self,
        producer: &FutureProducer,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), KafkaError> {
        let mut record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&self.topic).headers(headers);
        record.key = key;
        record.payload = value;
        kafka::send(producer, record).await?;
        Ok(())
    }
}
