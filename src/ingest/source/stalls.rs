//! A client that hands nothing over although Kafka has something: noticed, counted, and replaced by a new one.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{consumer::Consumer, error::KafkaError};

use super::{POSITION_TIMEOUT, Source};
use crate::{ingest::heard::Heard, kafka};

/// The offset expected next of each partition, and since when.
#[derive(Debug, Default)]
pub(super) struct Still(BTreeMap<i32, (i64, Duration)>);

impl Still {
    /// The partitions that have stood at one offset for this long, as of `now`. Each is named once in that time.
    pub(super) fn stands(
        &mut self,
        next: &BTreeMap<i32, i64>,
        now: Duration,
        this_long: Duration,
    ) -> Vec<i32> {
        self.0.retain(|partition, _| next.contains_key(partition));
        let mut standing = Vec::new();
        for (partition, offset) in next {
            let (at, since) = self.0.entry(*partition).or_insert((*offset, now));
            if at != offset {
                (*at, *since) = (*offset, now);
            } else if now.saturating_sub(*since) >= this_long {
                *since = now;
                standing.push(*partition);
            }
        }
        standing
    }

    /// Nothing was to come: what stood still did so for a reason.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Source {
    /// Whether Kafka has messages that do not come.
    pub(super) fn is_stalled(&mut self) -> bool {
        fail::fail_point!("stalled", !self.next.is_empty(), |_| {
            // As if the client had forgotten what it is to fetch.
            drop(self.consumer.pause(&self.all()));
            false
        });
        if self.without_room_since.is_some() {
            self.still.forget();
            return false;
        }
        let now = self.clock.elapsed();
        let standing = self
            .still
            .stands(&self.next, now, self.settings.stalled_after);
        for partition in standing {
            let topic = &self.settings.topic;
            let log = self
                .consumer
                .fetch_watermarks(topic, partition, POSITION_TIMEOUT);
            // Without an answer it is not the client that stalls.
            let Ok((_, end)) = log else {
                return false;
            };
            let fetched = self.consumer.context().log(partition);
            let fetched = fetched.and_then(|log| log.fetched);
            let next = self.next.get(&partition).copied();
            if end > next.max(fetched).unwrap_or(end) {
                tracing::error!(
                    topic,
                    partition,
                    next,
                    end,
                    "kafka has messages that do not come; connecting anew"
                );
                return true;
            }
        }
        false
    }

    /// Leaves the group and joins it again with a new client.
    pub(super) fn connect_anew(&mut self) -> Result<(), KafkaError> {
        self.metrics.stalls_total.inc();
        self.finish();
        self.leave();
        self.consumer = kafka::consumer(&self.kafka, Heard::new(&self.settings.topic))?;
        self.is_paused = false;
        self.consumer.subscribe(&[self.settings.topic.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn what_stands_still_is_named_once_in_that_time() {
        let mut still = Still::default();
        let mut stands = |next: &[(i32, i64)], second| {
            let next = next.iter().copied().collect();
            still.stands(&next, Duration::from_secs(second), LONG)
        };
        assert_eq!(stands(&[(0, 5), (1, 7)], 1), [0; 0]);
        assert_eq!(stands(&[(0, 5), (1, 8)], 10), [0; 0]);
        assert_eq!(stands(&[(0, 5), (1, 8)], 11), [0]);
        assert_eq!(stands(&[(0, 5), (1, 8)], 20), [1]);
        assert_eq!(stands(&[(0, 5), (1, 8)], 21), [0]);
        assert_eq!(stands(&[(1, 8)], 29), [0; 0], "the other is gone");
        assert_eq!(stands(&[(0, 5), (1, 9)], 31), [0; 0], "and is back");
        assert_eq!(stands(&[(0, 5), (1, 9)], 41), [0, 1]);
    }

    #[test]
    fn what_had_a_reason_is_forgotten() {
        let mut still = Still::default();
        let next = [(0, 5)].into();
        assert_eq!(still.stands(&next, LONG, LONG), [0; 0]);
        still.forget();
        assert_eq!(still.stands(&next, LONG * 2, LONG), [0; 0]);
        assert_eq!(still.stands(&next, LONG * 3, LONG), [0]);
    }
}
