//! From Kafka to the database: a thread that polls and decodes, lanes that record.
//!
//! A lane takes the messages of its products, whatever their partition, so two lanes never want the same rows. The order
//! of steps is: database commit (with the positions), dead letters acknowledged by the broker, Kafka offset commit; a
//! crash anywhere between means that the same facts come again and change nothing. What is not here: what a fact does.

mod backoff;
mod batch;
mod buffer;
mod dead_letter;
mod heard;
mod lane;
mod progress;
mod source;
mod start;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::error::KafkaError;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{Config, OnGap, millis},
    inventory::{Inventory, record::Recorder},
    metrics::MESSAGE_STATUSES,
    store::positions::LaneNumber,
};
use backoff::Backoff;
use buffer::{Buffer, Limits};
use dead_letter::DeadLetters;
use lane::Lane;
use source::Source;

/// Why ingest ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Facts are gone, and nobody said that this is all right.
    #[error(
        "facts are gone: the database has {topic}/{partition} up to offset {from}, Kafka begins at {to}; \
         to go on without them set ingest.on_gap = \"continue\""
    )]
    Gap {
        topic: String,
        partition: i32,
        from: i64,
        to: i64,
    },
    #[error("the polling thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the polling thread ended unexpectedly")]
    Lost,
}

/// What the ingest of this process needs to be told.
#[derive(Clone, Debug)]
struct Settings {
    topic: String,
    commit_interval: Duration,
    check_interval: Duration,
    stalled_after: Duration,
    message_bytes_max: usize,
    on_gap: OnGap,
    backoff: Backoff,
}

/// Longest a process counts as ready while its group deals the partitions anew. That happens to all of them at once, whenever one of
/// them comes or goes, and none of them is worse at answering meanwhile.
const REBALANCE_MAX: Duration = Duration::from_secs(30);

/// How ingest stands, for readiness.
#[derive(Debug)]
pub struct Status {
    clock: Clock,
    /// When it last had its partitions, in microseconds of the clock; 0: never, or it has ended.
    had_partitions_at: AtomicU64,
}

impl Status {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            had_partitions_at: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether the group has given this process its partitions (or told it that there are none for it), and their
    /// positions are known; or that was so until a moment ago.
    pub fn has_partitions(&self) -> bool {
        let had_at = self.had_partitions_at.load(Ordering::Acquire);
        let for_so_long = Duration::from_micros(self.now().saturating_sub(had_at));
        had_at > 0 && for_so_long <= REBALANCE_MAX
    }

    /// It has them now.
    fn has(&self) {
        self.had_partitions_at
            .store(self.now().max(1), Ordering::Release);
    }

    fn ended(&self) {
        self.had_partitions_at.store(0, Ordering::Release);
    }
}

/// Ingest under way.
#[derive(Debug)]
pub struct Ingest {
    pub status: Arc<Status>,
    ended: oneshot::Receiver<Result<(), IngestError>>,
    lanes: TaskTracker,
}

impl Ingest {
    /// Starts consuming; `stop` ends it.
    pub fn start(
        config: &Config,
        inventory: &Arc<Inventory>,
        clock: &Clock,
        stop: CancellationToken,
    ) -> Result<Self, IngestError> {
        let metrics = inventory.metrics().clone();
        let settings = Settings {
            topic: config.kafka.topic.clone(),
            commit_interval: millis(config.ingest.offset_commit_interval_ms),
            check_interval: millis(config.ingest.position_check_interval_ms),
            stalled_after: millis(config.ingest.stalled_after_ms),
            message_bytes_max: config.ingest.max_message_bytes,
            on_gap: config.ingest.on_gap,
            backoff: Backoff {
                min: millis(config.ingest.retry_min_ms),
                max: millis(config.ingest.retry_max_ms),
            },
        };
        let limits = Limits {
            events: config.ingest.max_batch_events,
            bytes: config.ingest.max_batch_bytes,
            wait: millis(config.ingest.max_batch_wait_ms),
            rest: millis(config.ingest.max_batch_rest_ms),
        };
        let dead_letters = DeadLetters::new(&config.kafka, settings.backoff, metrics.clone())?;
        for status in MESSAGE_STATUSES {
            metrics
                .messages_total
                .with_label_values(&[settings.topic.as_str(), status]);
        }
        let status = Arc::new(Status::new(clock.clone()));

        let lanes = TaskTracker::new();
        let mut buffers = Vec::with_capacity(config.ingest.lanes);
        for number in 0..i16::try_from(config.ingest.lanes).unwrap_or(i16::MAX) {
            let buffer = Arc::new(Buffer::new(limits));
            buffers.push(Arc::clone(&buffer));
            let pending = Arc::clone(&buffer);
            let recorder = Recorder::new(Arc::clone(inventory));
            let lane = Lane {
                topic: settings.topic.clone(),
                number: LaneNumber(number),
                buffer,
                recorder: recorder.while_there_comes_more(move || pending.has_pending()),
                dead_letters: dead_letters.clone(),
                backoff: settings.backoff,
                clock: clock.clone(),
                metrics: metrics.clone(),
            };
            lanes.spawn(lane.run());
        }
        lanes.close();

        let source = Source::new(
            &config.kafka,
            settings,
            buffers,
            Arc::clone(&status),
            inventory,
            clock.clone(),
        )?;
        let (report, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || {
                // Whoever waits for the report may have gone already.
                drop(report.send(source.run(&stop)));
            })?;
        Ok(Self {
            status,
            ended,
            lanes,
        })
    }

    /// Waits until ingest has ended: after a stop, or because it cannot go on.
    pub async fn ended(self) -> Result<(), IngestError> {
        let result = self.ended.await.unwrap_or(Err(IngestError::Lost));
        self.lanes.wait().await;
        result
    }
}
