//! Messages on their way from the polling thread to a lane.

use std::{collections::BTreeMap, ops::Range};

use rdkafka::message::OwnedHeaders;

use crate::{domain::Fact, event::BadMessage, store::positions::Advance};

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
}

/// Messages in the order in which they came, their bytes side by side: no allocation for each.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    bytes: Vec<u8>,
    /// For each partition, what its first message here tells.
    pub(super) first: BTreeMap<i32, First>,
}

/// Where a batch goes on in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    /// The offset this consumer had reached.
    pub(super) from: i64,
    pub(super) timestamp_ms: Option<i64>,
}

impl Batch {
    /// `from` is the offset this consumer had reached in the partition: it is below the message's own where the log has
    /// holes (compaction, transactions).
    pub(super) fn push(&mut self, received: Received<'_>, from: i64) {
        let first = First {
            from,
            timestamp_ms: received.timestamp_ms,
        };
        self.first.entry(received.partition).or_insert(first);
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
        self.first
            .retain(|partition, _| !partitions.contains(partition));
        if self.messages.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn key(&self, message: &Message) -> Option<&[u8]> {
        Some(&self.bytes[message.key.clone()?])
    }

    pub(super) fn value(&self, message: &Message) -> Option<&[u8]> {
        Some(&self.bytes[message.value.clone()?])
    }

    /// Where the batch goes on, by partition.
    pub(super) fn from(&self) -> BTreeMap<i32, i64> {
        self.first
            .iter()
            .map(|(partition, first)| (*partition, first.from))
            .collect()
    }

    /// The steps of each partition that taking `messages` makes, going on from `from`, which then stands behind them.
    pub(super) fn advances(messages: &[Message], from: &mut BTreeMap<i32, i64>) -> Vec<Advance> {
        let mut to: BTreeMap<i32, i64> = BTreeMap::new();
        for message in messages {
            to.insert(message.partition, message.offset + 1);
        }
        to.into_iter()
            .map(|(partition, to)| {
                let from = from.insert(partition, to).unwrap_or(to);
                Advance {
                    partition,
                    from,
                    to,
                }
            })
            .collect()
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

    fn batch(messages: &[(i32, i64, i64)]) -> Batch {
        let mut batch = Batch::default();
        for &(partition, offset, from) in messages {
            let content = Err(BadMessage {
                reason: Reason::NotJson,
                detail: String::new(),
            });
            let value = offset.to_be_bytes();
            let received = Received {
                partition,
                offset,
                timestamp_ms: None,
                key: None,
                value: Some(&value),
                headers: None,
                content,
            };
            batch.push(received, from);
        }
        batch
    }

    #[test]
    fn parts_of_a_batch_go_on_from_each_other() {
        let batch = batch(&[(0, 5, 5), (1, 9, 7), (0, 6, 6), (0, 8, 7)]);
        let mut from = batch.from();
        let (left, right) = batch.messages.split_at(2);
        let step = |partition, from, to| Advance {
            partition,
            from,
            to,
        };
        assert_eq!(
            Batch::advances(left, &mut from),
            [step(0, 5, 6), step(1, 7, 10)]
        );
        assert_eq!(Batch::advances(right, &mut from), [step(0, 6, 9)]);
    }

    #[test]
    fn bytes_are_kept_as_they_came() {
        let batch = batch(&[(0, 5, 5), (0, 6, 6)]);
        assert_eq!(
            batch.value(&batch.messages[1]),
            Some(6_i64.to_be_bytes().as_slice())
        );
        assert_eq!(batch.key(&batch.messages[1]), None);
    }
}
