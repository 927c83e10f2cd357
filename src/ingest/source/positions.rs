//! Where the partitions are gone on with: asked of the database and of Kafka, and known to both afterwards.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
};
use tokio::time::timeout;

use super::{POSITION_TIMEOUT, ROOM_WAIT, Source};
use crate::{
    config::OnGap,
    ingest::{
        IngestError,
        start::{Known, Start, decide},
    },
    store::positions::LaneNumber,
};

/// Why a position is not known.
enum Unpositioned {
    /// Somebody does not answer.
    NotNow(String),
    /// There is an answer, and it ends everything.
    Stop(IngestError),
}

impl From<KafkaError> for Unpositioned {
    fn from(error: KafkaError) -> Self {
        Self::NotNow(error.to_string())
    }
}

impl Source {
    /// Begins the partitions that have no position yet, and moves those whose position changed under us. While Kafka or
    /// the database cannot say, polling goes on.
    pub(super) fn find_positions(&mut self) -> Result<(), IngestError> {
        let moved: BTreeSet<i32> = self
            .buffers
            .iter()
            .flat_map(|buffer| buffer.take_lost())
            .filter(|partition| self.next.contains_key(partition))
            .collect();
        if !moved.is_empty() {
            tracing::warn!(partitions = ?moved, "the database holds other positions than were left there");
            self.to_seek.extend(moved);
        }
        if self.to_begin.is_empty() && self.to_seek.is_empty()
            || self.clock.elapsed() < self.position_again_at
        {
            return Ok(());
        }
        let open: Vec<i32> = self.to_begin.union(&self.to_seek).copied().collect();
        // What is thrown away below must not count as handed over.
        for partition in &open {
            self.next.remove(partition);
        }
        for buffer in &self.buffers {
            buffer.forget(&open);
            // What a lane still does of them would count for the wrong beginning.
            if !buffer.is_free_of(&open, ROOM_WAIT) {
                return Ok(());
            }
        }
        match self.begin_at_positions(&open) {
            Ok(()) => Ok(()),
            Err(Unpositioned::Stop(error)) => Err(error),
            Err(Unpositioned::NotNow(why)) => {
                tracing::warn!(why, "positions cannot be found yet; trying again");
                self.metrics
                    .retries_total
                    .with_label_values(&["position"])
                    .inc();
                self.position_again_at = self.clock.elapsed() + self.settings.backoff.max;
                Ok(())
            }
        }
    }

    fn begin_at_positions(&mut self, open: &[i32]) -> Result<(), Unpositioned> {
        // What is done counts as committed, so that the smaller position is not older than need be.
        self.commit(CommitMode::Sync);
        let starts = self.starts(open)?;
        self.assign_at(&starts)?;
        for (partition, start) in starts {
            for buffer in &self.buffers {
                buffer.begin(partition, start);
            }
            self.committed.insert(partition, start);
            self.next.insert(partition, start);
            self.to_begin.remove(&partition);
            self.to_seek.remove(&partition);
        }
        // A partition that was paused when it was taken away comes back paused.
        let all = self.all();
        if self.is_paused {
            self.consumer.pause(&all)?;
        } else {
            self.consumer.resume(&all)?;
        }
        Ok(())
    }

    /// Fetches these partitions from there on. By assigning them, not by seeking: a partition whose offset was out of
    /// range is fetched no more, and only an assignment starts it again.
    pub(super) fn assign_at(&mut self, starts: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let is_moved = |partition: &i32| starts.contains_key(partition);
                let moved: Vec<i32> = self.to_seek.extract_if(.., is_moved).collect();
                if !moved.is_empty() {
                    // From here on they are like the ones that were never begun.
                    self.to_begin.extend(&moved);
                    self.unassign(&moved)?;
                }
                self.consumer.incremental_assign(&self.list(starts))
            }
            _ => self
                .consumer
                .assign(&self.list(self.next.iter().chain(starts))),
        }
    }

    /// Where to begin each partition; the database and Kafka both know it afterwards.
    fn starts(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Unpositioned> {
        let topic = &self.settings.topic;
        let stored = self.within_timeout(self.store.positions(topic))?;
        let lanes = LaneNumber(i16::try_from(self.buffers.len()).unwrap_or(i16::MAX));
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(asked, POSITION_TIMEOUT)?;

        let mut starts = BTreeMap::new();
        let (mut changed, mut unknown_to_the_group) = (Vec::new(), Vec::new());
        for &partition in partitions {
            let (first, end) =
                self.consumer
                    .fetch_watermarks(topic, partition, POSITION_TIMEOUT)?;
            let committed = committed
                .find_partition(topic, partition)
                .and_then(|element| match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                });
            let of_lanes = || {
                stored
                    .iter()
                    .filter(|((of, _), _)| *of == partition)
                    .map(|(_, offset)| *offset)
            };
            let known = Known {
                stored: of_lanes().min(),
                committed,
                first,
                end,
            };
            let start = self.settle_start(partition, known)?;
            starts.insert(partition, start);
            if of_lanes().count() != self.buffers.len() || of_lanes().any(|offset| offset != start)
            {
                changed.push((partition, start));
            }
            if committed.is_none() {
                unknown_to_the_group.push(partition);
            }
        }
        if !changed.is_empty() {
            self.within_timeout(self.store.set_positions(topic, lanes, &changed))?;
        }
        // From now on a group without a position is one that was removed, not one that had not got so far.
        if !unknown_to_the_group.is_empty() {
            let begun = self.list(
                starts
                    .iter()
                    .filter(|(p, _)| unknown_to_the_group.contains(p)),
            );
            self.consumer.commit(&begun, CommitMode::Sync)?;
        }
        Ok(starts)
    }

    fn settle_start(&self, partition: i32, known: Known) -> Result<i64, Unpositioned> {
        let topic = &self.settings.topic;
        match decide(known) {
            Start::At(offset) => {
                tracing::info!(topic, partition, offset, ?known, "consuming");
                Ok(offset)
            }
            Start::Anew(offset) => {
                tracing::warn!(
                    topic,
                    partition,
                    offset,
                    ?known,
                    "the topic was made anew; beginning with it"
                );
                Ok(offset)
            }
            Start::Gap { from, to } => match self.settings.on_gap {
                OnGap::Stop => Err(Unpositioned::Stop(IngestError::Gap {
                    topic: topic.clone(),
                    partition,
                    from,
                    to,
                })),
                OnGap::Continue => {
                    tracing::error!(
                        topic,
                        partition,
                        from,
                        to,
                        "facts are gone; going on without them"
                    );
                    Ok(to)
                }
            },
        }
    }

    /// While nothing is under way of a lane in a partition, the database must hold the position as it was left: else it
    /// was restored. (While something is, the batch itself finds out.)
    pub(super) fn check_positions(&self) {
        let before: Vec<BTreeMap<i32, i64>> =
            self.buffers.iter().map(|buffer| buffer.quiet()).collect();
        if before.iter().all(BTreeMap::is_empty) {
            return;
        }
        // A database that does not answer is not one that was restored.
        let Ok(stored) = self.within_timeout(self.store.positions(&self.settings.topic)) else {
            return;
        };
        for ((lane, buffer), before) in (0..).map(LaneNumber).zip(&self.buffers).zip(before) {
            for (partition, left_at) in buffer.quiet() {
                let was_quiet = before.get(&partition) == Some(&left_at);
                if was_quiet && stored.get(&(partition, lane)) != Some(&left_at) {
                    buffer.lose(partition);
                }
            }
        }
    }

    fn within_timeout<T, E: ToString>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Unpositioned> {
        self.runtime.block_on(async {
            match timeout(POSITION_TIMEOUT, question).await {
                Ok(answer) => answer.map_err(|error| Unpositioned::NotNow(error.to_string())),
                Err(_) => Err(Unpositioned::NotNow(
                    "the database does not answer".to_owned(),
                )),
            }
        })
    }
}
