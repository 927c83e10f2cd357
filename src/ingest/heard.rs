//! What the Kafka client tells between messages: rebalances, where the logs end.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::KafkaResult,
    statistics::Partition,
    types::RDKafkaRespErr,
};

/// What the client library tells between messages.
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) rebalances: Mutex<Vec<Rebalance>>,
    /// By partition.
    pub(super) logs: Mutex<BTreeMap<i32, Log>>,
    /// Whether it is connected to a broker; `None` before it said anything.
    pub(super) is_connected: Mutex<Option<bool>>,
    /// The loop is over: nobody will carry out what is noted.
    pub(super) is_closing: AtomicBool,
}

/// What the client knows of a partition's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    /// The offset after the newest message.
    pub(super) end: i64,
    /// Everything below it was handed over, or never will be (a transaction's markers); `None` while something waits.
    pub(super) fetched: Option<i64>,
}

pub(super) enum Rebalance {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
}

impl Heard {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            rebalances: Mutex::default(),
            logs: Mutex::default(),
            is_connected: Mutex::default(),
            is_closing: AtomicBool::new(false),
        }
    }

    /// Whether the client is connected to a broker; `None` before it said anything.
    pub(super) fn is_connected(&self) -> Option<bool> {
        let told = self.is_connected.lock();
        *told.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self, partition: i32) -> Option<Log> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&partition).copied()
    }
}

impl ClientContext for Heard {
    fn stats(&self, statistics: Statistics) {
        let mut brokers = statistics.brokers.values();
        let is_connected = brokers.any(|broker| matches!(broker.state.as_str(), "UP" | "UPDATE"));
        let told = self.is_connected.lock();
        *told.unwrap_or_else(PoisonError::into_inner) = Some(is_connected);
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let known = topic
            .partitions
            .iter()
            .filter(|(_, partition)| partition.hi_offset >= 0);
        let log = |(number, partition): (&i32, &Partition)| {
            let log = Log {
                end: partition.hi_offset,
                fetched: (partition.fetchq_cnt == 0).then_some(partition.next_offset),
            };
            (*number, log)
        };
        *self.logs.lock().unwrap_or_else(PoisonError::into_inner) = known.map(log).collect();
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
            drop(unassign(consumer, partitions));
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
}

/// Fetches these partitions no more: all there are, or with cooperative rebalancing some of them.
pub(super) fn unassign(
    consumer: &BaseConsumer<Heard>,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}
