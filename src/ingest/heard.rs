//! What the Kafka client tells between messages: rebalances, lost commits, where the logs end.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaResult,
    types::RDKafkaRespErr,
};

/// What the client library tells between messages.
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) rebalances: Mutex<Vec<Rebalance>>,
    /// By partition, the offset after the newest message.
    pub(super) ends: Mutex<BTreeMap<i32, i64>>,
    /// Kafka did not take offsets that it was told: it has to be told again.
    pub(super) has_lost_commit: AtomicBool,
    /// The loop is over: nobody will carry out what is noted.
    pub(super) is_closing: AtomicBool,
}

pub(super) enum Rebalance {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
}

impl ClientContext for Heard {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let ends = topic
            .partitions
            .iter()
            .filter(|(_, partition)| partition.hi_offset >= 0);
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends
            .map(|(number, partition)| (*number, partition.hi_offset))
            .collect();
    }
}

impl ConsumerContext for Heard {
    /// Only noted: the loop carries it out, because positions must be found first.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.is_closing.load(Ordering::Acquire) {
            // Closing waits until this is agreed to; there is nobody left to tell if it is not.
            drop(consumer.unassign());
            return;
        }
        let partitions = partitions
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let rebalance = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assigned(partitions),
            _ => Rebalance::Revoked(partitions),
        };
        self.rebalances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if result.is_err() {
            self.has_lost_commit.store(true, Ordering::Release);
        }
    }
}
