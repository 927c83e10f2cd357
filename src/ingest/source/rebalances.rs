//! What the group gives and takes: carried out by the loop, because positions must be found and lanes must finish first.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use rdkafka::{
    TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::KafkaResult,
};

use super::Source;
use crate::ingest::{
    IngestError,
    heard::{self, Rebalance},
};

/// Longest the lanes may take to finish when their partitions go to another consumer, or at the end.
const FINISH_WAIT: Duration = Duration::from_secs(3);

impl Source {
    /// Does what the group has asked for since the last time.
    pub(super) fn carry_out_rebalances(&mut self) -> Result<(), IngestError> {
        let rebalances = std::mem::take(
            &mut *self
                .consumer
                .context()
                .rebalances
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for rebalance in rebalances {
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    self.note("assigned", &partitions);
                    self.is_given = true;
                    if partitions.is_empty() {
                        self.assign_at(&BTreeMap::new())?;
                    }
                    self.to_begin.extend(partitions);
                    self.position_again_at = Duration::ZERO;
                }
                Rebalance::Revoked(partitions) => {
                    self.note("revoked", &partitions);
                    self.give_up(&partitions);
                    self.unassign(&partitions)?;
                }
            }
        }
        if self.is_given && self.is_positioned() {
            self.status.has();
        }
        self.metrics
            .partitions_assigned
            .set(i64::try_from(self.next.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn note(&self, event: &str, partitions: &[i32]) {
        tracing::info!(?partitions, "partitions {event}");
        self.metrics
            .rebalances_total
            .with_label_values(&[event])
            .inc();
    }

    /// Finishes what is under way of these partitions and forgets them.
    fn give_up(&mut self, partitions: &[i32]) {
        for buffer in &self.buffers {
            buffer.forget(partitions);
        }
        let until = self.clock.elapsed() + FINISH_WAIT;
        for buffer in &self.buffers {
            buffer.finish(partitions, until.saturating_sub(self.clock.elapsed()));
        }
        crash_point!("during_rebalance");
        if !self.consumer.assignment_lost() {
            self.commit(CommitMode::Sync);
        }
        for partition in partitions {
            self.next.remove(partition);
            self.to_begin.remove(partition);
            self.to_seek.remove(partition);
            self.committed.remove(partition);
            for buffer in &self.buffers {
                buffer.end(*partition);
            }
            // Whoever has it now shows its lag. Missing series are what is wanted.
            let label = partition.to_string();
            drop(
                self.metrics
                    .lag_offsets
                    .remove_label_values(&[label.as_str()]),
            );
            drop(
                self.metrics
                    .lag_seconds
                    .remove_label_values(&[label.as_str()]),
            );
        }
        // With eager rebalancing everything goes, and what comes next is a new assignment.
        self.is_given = !(self.next.is_empty() && self.is_positioned());
    }

    /// Lets the lanes finish, and tells Kafka.
    pub(super) fn finish(&mut self) {
        crash_point!("during_shutdown");
        let open = self.to_begin.iter().chain(&self.to_seek);
        let all: Vec<i32> = self.next.keys().chain(open).copied().collect();
        self.give_up(&all);
    }

    /// Lets go of all partitions, so that the client can be dropped.
    pub(super) fn leave(&self) {
        self.consumer
            .context()
            .is_closing
            .store(true, Ordering::Release);
        let assigned = self.consumer.assignment().unwrap_or_default();
        drop(heard::unassign(&self.consumer, &assigned));
    }

    /// Of these partitions, those that are fetched are no more: one that could not be begun yet may not be.
    pub(super) fn unassign(&self, partitions: &[i32]) -> KafkaResult<()> {
        let topic = &self.settings.topic;
        let assigned = self.consumer.assignment()?;
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if assigned.find_partition(topic, *partition).is_some() {
                list.add_partition(topic, *partition);
            }
        }
        heard::unassign(&self.consumer, &list)
    }

    /// Whether each partition of ours has its position.
    fn is_positioned(&self) -> bool {
        self.to_begin.is_empty() && self.to_seek.is_empty()
    }
}
