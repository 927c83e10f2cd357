//! Reads stretches of topics beside whoever consumes them.
//!
//! Invariant: nothing is left in Kafka: partitions are assigned, no group is joined, no offset committed. Memory is bounded
//! by what the client fetches ahead and the one message that is told.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    error::KafkaError,
    message::{BorrowedHeaders, BorrowedMessage},
    metadata::MetadataTopic,
};

use super::DeadLettersError;
use crate::{clock::Clock, config::Kafka, event::dead_letter::Origin, kafka};

/// Longest one question about a topic.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a poll waits for a message.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Longest without a message or the word that there are no more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a producer wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Content {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map(headers_of).unwrap_or_default(),
        }
    }
}

/// The headers, without those that cannot be read.
fn headers_of(headers: &BorrowedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    let read = kafka::headers(headers).flatten();
    read.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect()
}

/// A consumer that is in no group.
pub(super) struct Reader {
    consumer: BaseConsumer,
    clock: Clock,
}

impl Reader {
    pub(super) fn new(kafka: &Kafka, clock: Clock) -> Result<Self, KafkaError> {
        let mut kafka = kafka.clone();
        for (option, value) in [
            ("enable.partition.eof", "true"),
            // What is dropped while it is read is no longer there to be told.
            ("auto.offset.reset", "earliest"),
        ] {
            kafka.options.insert(option.to_owned(), value.to_owned());
        }
        Ok(Self {
            consumer: kafka::consumer(&kafka, DefaultConsumerContext)?,
            clock,
        })
    }

    /// Tells each message of the topic from its beginning to the end it has now.
    pub(super) fn read(
        &self,
        topic: &str,
        tell: impl FnMut(&BorrowedMessage<'_>) -> Result<(), DeadLettersError>,
    ) -> Result<(), DeadLettersError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), QUESTION_TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let mut stretches = BTreeMap::new();
        for partition in partitions {
            stretches.insert(partition.id(), self.stretch(topic, partition.id())?);
        }
        if stretches.is_empty() {
            return Err(DeadLettersError::NoTopic(topic.to_owned()));
        }
        self.read_stretches(topic, stretches, tell)
    }

    /// The message of that origin, if Kafka still has it.
    pub(super) fn read_one(&self, origin: &Origin) -> Result<Option<Content>, DeadLettersError> {
        let mut found = None;
        let stretch = self.stretch(&origin.topic, origin.partition)?;
        if stretch.contains(&origin.offset) {
            let one = origin.offset..origin.offset + 1;
            self.read_stretches(
                &origin.topic,
                BTreeMap::from([(origin.partition, one)]),
                |message| {
                    found = Some(Content::of(message));
                    Ok(())
                },
            )?;
        }
        Ok(found)
    }

    /// The offsets that a partition has now.
    fn stretch(&self, topic: &str, partition: i32) -> Result<Range<i64>, KafkaError> {
        let (first, end) = self
            .consumer
            .fetch_watermarks(topic, partition, QUESTION_TIMEOUT)?;
        Ok(first..end)
    }

    fn read_stretches(
        &self,
        topic: &str,
        mut stretches: BTreeMap<i32, Range<i64>>,
        mut tell: impl FnMut(&BorrowedMessage<'_>) -> Result<(), DeadLettersError>,
    ) -> Result<(), DeadLettersError> {
        stretches.retain(|_, stretch| !stretch.is_empty());
        let mut starts = TopicPartitionList::new();
        for (partition, stretch) in &stretches {
            starts.add_partition_offset(topic, *partition, Offset::Offset(stretch.start))?;
        }
        self.consumer.assign(&starts)?;
        let mut heard_at = self.clock.elapsed();
        while !stretches.is_empty() {
            match self.consumer.poll(POLL_WAIT) {
                Some(Ok(message)) => {
                    if let Some(stretch) = stretches.get(&message.partition()) {
                        if stretch.contains(&message.offset()) {
                            tell(&message)?;
                        }
                        if message.offset() + 1 >= stretch.end {
                            stretches.remove(&message.partition());
                        }
                    }
                    heard_at = self.clock.elapsed();
                }
                // The last offsets of a log need not be those of messages (compaction, transactions).
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    stretches.remove(&partition);
                    heard_at = self.clock.elapsed();
                }
                Some(Err(error)) => tracing::warn!(%error, "kafka"),
                None => {}
            }
            if self.clock.elapsed().saturating_sub(heard_at) > SILENCE_MAX {
                return Err(DeadLettersError::Silent(SILENCE_MAX));
            }
        }
        Ok(())
    }
}
