//! Messages on their way from the polling thread to a lane.

use std::{collections::BTreeMap, ops::Range};

use rdkafka::message::OwnedHeaders;

use crate::{domain::Fact, event::BadMessage, traces::Span};

/// Most messages of a batch that are followed to their commit, where they are recorded: a span is about a kilobyte. The spans of
/// further ones end when they are taken.
const RECORDED_MAX: usize = 1_000;

/// One message: what it says, and where its bytes are kept in case it becomes a dead letter.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// The broker's or producer's time, in milliseconds since 1970; `None` if the topic keeps none.
    pub(super) timestamp_ms: Option<i64>,
    pub(super) content: Result<Fact, BadMessage>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    pub(super) headers: Option<Box<OwnedHeaders>>,
}

/// What the polling thread read of one message.
#[derive(Debug)]
pub(super) struct Received<'m> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<&'m [u8]>,
    pub(super) value: Option<&'m [u8]>,
    pub(super) headers: Option<OwnedHeaders>,
    pub(super) content: Result<Fact, BadMessage>,
    /// Its taking, if that is recorded.
    pub(super) span: Option<Box<Span>>,
}

/// A message that is recorded, until it is done.
#[derive(Debug)]
pub(super) struct RecordedMessage {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) span: Box<Span>,
}

/// Messages in the order in which they came, their bytes side by side: no allocation for each.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    pub(super) recorded: Vec<RecordedMessage>,
    bytes: Vec<u8>,
    /// The first message of each partition here.
    first: BTreeMap<i32, First>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    offset: i64,
    timestamp_ms: Option<i64>,
}

impl Batch {
    pub(super) fn push(&mut self, received: Received<'_>) {
        self.first.entry(received.partition).or_insert(First {
            offset: received.offset,
            timestamp_ms: received.timestamp_ms,
        });
        if let Some(span) = received.span.filter(|_| self.recorded.len() < RECORDED_MAX) {
            self.recorded.push(RecordedMessage {
                partition: received.partition,
                offset: received.offset,
                span,
            });
        }
        let key = self.keep(received.key);
        let value = self.keep(received.value);
        self.messages.push(Message {
            partition: received.partition,
            offset: received.offset,
            timestamp_ms: received.timestamp_ms,
            content: received.content,
            key,
            value,
            headers: received.headers.map(Box::new),
        });
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Leaves out what is there of these partitions. Their bytes stay as long as there is something beside them.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.messages
            .retain(|message| !partitions.contains(&message.partition));
        self.recorded
            .retain(|message| !partitions.contains(&message.partition));
        self.first
            .retain(|partition, _| !partitions.contains(partition));
        if self.messages.is_empty() {
            *self = Self::default();
        }
    }

    /// The offset of the partition's first message here.
    pub(super) fn first_offset(&self, partition: i32) -> Option<i64> {
        Some(self.first.get(&partition)?.offset)
    }

    /// When it was sent, in milliseconds since 1970.
    pub(super) fn first_ms(&self, partition: i32) -> Option<i64> {
        self.first.get(&partition)?.timestamp_ms
    }

    /// The offsets after the last messages, by partition.
    pub(super) fn ends(&self) -> BTreeMap<i32, i64> {
        let end = |message: &Message| (message.partition, message.offset + 1);
        self.messages.iter().map(end).collect()
    }

    pub(super) fn key(&self, message: &Message) -> Option<&[u8]> {
        Some(&self.bytes[message.key.clone()?])
    }

    pub(super) fn value(&self, message: &Message) -> Option<&[u8]> {
        Some(&self.bytes[message.value.clone()?])
    }

    fn keep(&mut self, bytes: Option<&[u8]>) -> Option<Range<usize>> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes?);
        Some(start..self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::dead_letter::Reason;

    fn batch(messages: &[(i32, i64)]) -> Batch {
        let mut batch = Batch::default();
        for &(partition, offset) in messages {
            let content = Err(BadMessage {
                reason: Reason::NotJson,
                detail: String::new(),
            });
            let value = offset.to_be_bytes();
            let received = Received {
                partition,
                offset,
                timestamp_ms: Some(offset),
                key: None,
                value: Some(&value),
                headers: None,
                content,
                span: None,
            };
            batch.push(received);
        }
        batch
    }

    #[test]
    fn the_first_and_the_last_of_each_partition_count() {
        let mut batch = batch(&[(0, 5), (1, 9), (0, 6), (0, 8)]);
        assert_eq!(batch.ends(), [(0, 9), (1, 10)].into());
        assert_eq!((batch.first_ms(0), batch.first_ms(2)), (Some(5), None));
        batch.forget(&[0]);
        assert_eq!(batch.ends(), [(1, 10)].into());
        assert_eq!(
            (batch.first_offset(0), batch.first_offset(1)),
            (None, Some(9))
        );
    }

    #[test]
    fn bytes_are_kept_as_they_came() {
        let batch = batch(&[(0, 5), (0, 6)]);
        assert_eq!(
            batch.value(&batch.messages[1]),
            Some(6_i64.to_be_bytes().as_slice())
        );
        assert_eq!(batch.key(&batch.messages[1]), None);
    }
}
