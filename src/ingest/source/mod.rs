//! The thread that polls Kafka: one loop over what can happen.
//!
//! The group gives and takes partitions; a partition is consumed once its position is known, and what comes of it before
//! is dropped. Room in the lanes' buffers is made before a message is taken, so memory is bounded; while there is none
//! for long, partitions are paused and polling goes on, or the group would take them away.

mod positions;
mod rebalances;
mod stalls;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedHeaders, BorrowedMessage},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use stalls::Still;

use super::{IngestError, Settings, Status, batch::Received, buffer::Buffer, heard::Heard};
use crate::{
    clock::Clock,
    config::Kafka,
    domain::Fact,
    event::{self, BadMessage, Form},
    inventory::Inventory,
    kafka,
    metrics::Metrics,
    store::Store,
    traces::{Origin, Parent, Span, Traces},
};

/// How long a poll waits for a message: bounds how late a stop or a timer is noticed.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Most messages taken between two looks at everything else.
const BURST_MAX: usize = 512;
/// How long the thread waits for a lane before it looks at everything else.
const ROOM_WAIT: Duration = Duration::from_millis(50);
/// Without room for this long, partitions are paused. Pausing throws away what was fetched ahead, so it is for a
/// database that is away, not for one that is busy.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// Longest one question to Kafka or to the database about positions.
const POSITION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often Kafka is told the offsets that did not change, too.
const COMMIT_AGAIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often the broker's offsets are reported, for the lag.
const STATISTICS_INTERVAL_MS: &str = "1000";

/// The polling thread's state.
pub(super) struct Source {
    consumer: BaseConsumer<Heard>,
    kafka: Kafka,
    settings: Settings,
    buffers: Vec<Arc<Buffer>>,
    status: Arc<Status>,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    runtime: Handle,
    /// The partitions that are consumed, and the offset expected next.
    next: BTreeMap<i32, i64>,
    /// Given by the group, not begun yet.
    to_begin: BTreeSet<i32>,
    /// Ours, but to be gone on with from elsewhere.
    to_seek: BTreeSet<i32>,
    /// Whether the group has said what is ours.
    is_given: bool,
    /// What Kafka was told lately. That it refuses an asynchronous commit, as it does while the group rebalances, the
    /// client library tells nobody: so this is forgotten from time to time, and all of it told again.
    committed: BTreeMap<i32, i64>,
    /// Where nothing comes.
    still: Still,
    without_room_since: Option<Duration>,
    is_paused: bool,
    position_again_at: Duration,
    commit_at: Duration,
    commit_again_at: Duration,
    check_at: Duration,
}

impl Source {
    /// Within the runtime that its questions to the database run on.
    pub(super) fn new(
        kafka: &Kafka,
        settings: Settings,
        buffers: Vec<Arc<Buffer>>,
        status: Arc<Status>,
        inventory: &Inventory,
        clock: Clock,
    ) -> Result<Self, KafkaError> {
        let mut kafka = kafka.clone();
        kafka
            .options
            .entry("statistics.interval.ms".to_owned())
            .or_insert_with(|| STATISTICS_INTERVAL_MS.to_owned());
        Ok(Self {
            consumer: kafka::consumer(&kafka, Heard::new(&settings.topic))?,
            kafka,
            settings,
            buffers,
            status,
            store: inventory.store().clone(),
            clock,
            metrics: inventory.metrics().clone(),
            traces: inventory.traces().clone(),
            runtime: Handle::current(),
            next: BTreeMap::new(),
            to_begin: BTreeSet::new(),
            to_seek: BTreeSet::new(),
            is_given: false,
            committed: BTreeMap::new(),
            still: Still::default(),
            without_room_since: None,
            is_paused: false,
            position_again_at: Duration::ZERO,
            commit_at: Duration::ZERO,
            commit_again_at: Duration::ZERO,
            check_at: Duration::ZERO,
        })
    }

    /// Consumes until told to stop, or until it cannot go on.
    pub(super) fn run(mut self, stop: &CancellationToken) -> Result<(), IngestError> {
        let result = self.consume(stop);
        self.finish();
        result
    }

    fn consume(&mut self, stop: &CancellationToken) -> Result<(), IngestError> {
        self.consumer.subscribe(&[self.settings.topic.as_str()])?;
        while !stop.is_cancelled() {
            self.carry_out_rebalances()?;
            self.find_positions()?;
            self.tend()?;
            if self.has_room() {
                self.poll(BURST_MAX);
            }
        }
        Ok(())
    }

    /// Takes what is there, at most that many messages; waits a little for the first.
    fn poll(&mut self, messages_max: usize) {
        let taken = self.take_burst(messages_max);
        if taken > 0 {
            for buffer in &self.buffers {
                buffer.route(&self.next);
            }
        }
    }

    fn take_burst(&mut self, messages_max: usize) -> usize {
        let mut wait = POLL_WAIT;
        for taken in 0..messages_max {
            // The message borrows the consumer: taken out of the way, so that the rest of the state can change.
            let Self {
                consumer,
                next,
                buffers,
                settings,
                kafka,
                traces,
                ..
            } = self;
            let taker = Taker {
                buffers,
                traces,
                group: &kafka.group,
                message_bytes_max: settings.message_bytes_max,
            };
            match consumer.poll(wait) {
                None => return taken,
                Some(Ok(message)) => {
                    if let Some(lane) = taker.accept(&message, next)
                        && !lane.has_room_within(Duration::ZERO)
                    {
                        return taken + 1;
                    }
                }
                Some(Err(error)) => self.hear_error(&error),
            }
            wait = Duration::ZERO;
        }
        messages_max
    }

    fn hear_error(&mut self, error: &KafkaError) {
        match error {
            // The log no longer has, or does not have yet, what we go on with: find out where we are.
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                tracing::warn!(%error, "kafka does not have the offsets we go on with");
                self.to_seek.extend(self.next.keys());
            }
            error => tracing::warn!(%error, "kafka"),
        }
    }

    /// Whether every lane has room for a message. Waits a little for it; after a longer while it pauses the partitions
    /// and polls for what else there is to hear.
    fn has_room(&mut self) -> bool {
        let full = self
            .buffers
            .iter()
            .find(|buffer| !buffer.has_room_within(Duration::ZERO));
        let now = self.clock.elapsed();
        let Some(full) = full else {
            self.without_room_since = None;
            if self.is_paused {
                self.is_paused = self.consumer.resume(&self.all()).is_err();
            }
            return true;
        };
        let since = *self.without_room_since.get_or_insert(now);
        if now.saturating_sub(since) < PAUSE_AFTER {
            // One that waits may not be the only one.
            return full.has_room_within(ROOM_WAIT)
                && self
                    .buffers
                    .iter()
                    .all(|buffer| buffer.has_room_within(Duration::ZERO));
        }
        if !self.is_paused {
            tracing::warn!("the database does not keep up; partitions are paused until it does");
            self.is_paused = self.consumer.pause(&self.all()).is_ok();
        }
        // Paused, no message comes; one that was on its way already is taken.
        self.poll(1);
        false
    }

    /// What is due from time to time: offsets to Kafka, a look at the positions, the lag.
    fn tend(&mut self) -> Result<(), IngestError> {
        let now = self.clock.elapsed();
        if now >= self.commit_again_at {
            self.commit_again_at = now + COMMIT_AGAIN_INTERVAL;
            self.committed.clear();
        }
        if now >= self.commit_at {
            self.commit_at = now + self.settings.commit_interval;
            self.commit(CommitMode::Async);
            for buffer in &self.buffers {
                buffer.nudge();
            }
        }
        if now >= self.check_at {
            self.check_positions();
            self.measure_lag();
            if self.is_stalled() {
                self.connect_anew()?;
            }
            // From its end, because the database may let it wait.
            self.check_at = self.clock.elapsed() + self.settings.check_interval;
        }
        Ok(())
    }

    /// Tells Kafka what is done; when it waits for the answer, all of it.
    fn commit(&mut self, mode: CommitMode) {
        if matches!(mode, CommitMode::Sync) {
            self.committed.clear();
        }
        let done = self.done();
        let news: Vec<(&i32, &i64)> = done
            .iter()
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .collect();
        if news.is_empty() {
            return;
        }
        crash_point!("before_offset_commit");
        match self.consumer.commit(&self.list(news), mode) {
            Ok(()) => self.committed = done,
            Err(error) => {
                tracing::debug!(%error, "offsets were not committed; they will be");
                self.metrics
                    .retries_total
                    .with_label_values(&["offset_commit"])
                    .inc();
            }
        }
    }

    fn measure_lag(&self) {
        if let Some(is_connected) = self.consumer.context().is_connected() {
            let up = self.metrics.server_up.with_label_values(&["kafka"]);
            up.set(i64::from(is_connected));
        }
        let now_ms = self.clock.unix_micros() / 1_000;
        for (partition, done) in self.done() {
            let log = self.consumer.context().log(partition);
            let lag = log.map_or(0, |log| (log.end - done).max(0));
            let oldest = self
                .buffers
                .iter()
                .filter_map(|buffer| buffer.oldest_ms(partition));
            let oldest_ms = oldest.min().filter(|_| lag > 0);
            let age_ms = oldest_ms.map_or(0, |then_ms| now_ms.saturating_sub(then_ms).max(0));
            let age = Duration::from_millis(age_ms.unsigned_abs());
            let label = partition.to_string();
            self.metrics
                .lag_offsets
                .with_label_values(&[label.as_str()])
                .set(lag);
            self.metrics
                .lag_seconds
                .with_label_values(&[label.as_str()])
                .set(age.as_secs_f64());
        }
    }

    fn all(&self) -> TopicPartitionList {
        self.list(&self.next)
    }

    fn list<'o>(
        &self,
        offsets: impl IntoIterator<Item = (&'o i32, &'o i64)>,
    ) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            // Refused only for a negative offset, and ours are not.
            drop(list.add_partition_offset(
                &self.settings.topic,
                *partition,
                Offset::Offset(*offset),
            ));
        }
        list
    }

    /// Up to where every lane has nothing left to do, by partition.
    fn done(&self) -> BTreeMap<i32, i64> {
        let mut done: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, position) in self.buffers.iter().flat_map(|buffer| buffer.positions()) {
            let smallest = done.entry(partition).or_insert(position);
            *smallest = position.min(*smallest);
        }
        done
    }
}

impl Drop for Source {
    /// Leaves the group, also when the thread panics: a member that only seems to live would keep its partitions.
    fn drop(&mut self) {
        for buffer in &self.buffers {
            buffer.close();
        }
        self.status.ended();
        self.leave();
    }
}

/// What becomes of a message that is taken.
struct Taker<'t> {
    buffers: &'t [Arc<Buffer>],
    traces: &'t Traces,
    group: &'t str,
    message_bytes_max: usize,
}

impl<'t> Taker<'t> {
    /// Decodes a message and hands it to its lane, which is returned; `None` if it is not expected: from before a position
    /// was found, or already taken.
    fn accept(
        &self,
        message: &BorrowedMessage<'_>,
        next: &mut BTreeMap<i32, i64>,
    ) -> Option<&'t Buffer> {
        let partition = message.partition();
        let expected = next
            .get_mut(&partition)
            .filter(|expected| message.offset() >= **expected)?;
        *expected = message.offset() + 1;
        let span = self.traces.are_on().then(|| self.record(message)).flatten();
        let value = message.payload();
        let headers = message.headers();
        let form = headers.map_or(Form::Structured, form_of);
        let content = event::decode_within(self.message_bytes_max, value, form);
        crash_point!("after_decode");
        let lane = lane_of(self.buffers, partition, &content);
        lane.push(Received {
            partition,
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value,
            headers: headers.map(BorrowedHeaders::detach),
            content,
            span: span.map(Box::new),
        });
        Some(lane)
    }

    /// Begins to record its taking, if it says so, or says nothing and it is one of the share.
    fn record(&self, message: &BorrowedMessage<'_>) -> Option<Span> {
        let origin = Origin {
            topic: message.topic(),
            group: self.group,
            partition: message.partition(),
            offset: message.offset(),
        };
        let parent = message.headers().and_then(parent_of);
        self.traces.message(origin, parent.as_ref())
    }
}

/// What the headers say of the trace. Of two with one name the first counts.
fn parent_of(headers: &BorrowedHeaders) -> Option<Parent> {
    let (mut parent, mut state) = (None, None);
    for header in kafka::headers(headers).flatten() {
        let place = match header.key {
            "traceparent" => &mut parent,
            "tracestate" => &mut state,
            _ => continue,
        };
        let text = header.value.and_then(|value| str::from_utf8(value).ok());
        *place = place.or(text);
    }
    Parent::read(parent?, state)
}

/// The form that the headers tell; if one of them cannot be read, they tell nothing.
fn form_of(headers: &BorrowedHeaders) -> Form<'_> {
    let all: Option<Vec<_>> = kafka::headers(headers).collect();
    all.map_or(Form::Structured, |all| {
        Form::of_headers(all.iter().map(|header| (header.key, header.value)))
    })
}

/// The lane of the fact's product; a message that is no fact may go anywhere.
fn lane_of<'b>(
    buffers: &'b [Arc<Buffer>],
    partition: i32,
    content: &Result<Fact, BadMessage>,
) -> &'b Buffer {
    let hash = match content {
        Ok(fact) => xxh3_64(fact.product.uuid().as_bytes()),
        Err(_) => u64::from(partition.unsigned_abs()),
    };
    // A remainder is below the number of lanes.
    let lane = usize::try_from(hash % buffers.len() as u64).unwrap_or(0);
    &buffers[lane]
}
