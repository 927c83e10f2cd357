//! Every metric of the service: the struct is the declaration. It is handed over, there is no global registry.
//!
//! Names and labels are a contract with dashboards. No label takes a value from a message, a path or a client: topics
//! come from the configuration, partitions are numbers, handlers are route templates.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// Seconds from 50 µs to a minute, in steps of 1, 2 and 5.
const FINE_SECONDS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0, 20.0, 30.0, 60.0,
];
/// Seconds from an event to its commit: a backlog may be days old.
const AGE_SECONDS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0, 86_400.0,
    604_800.0,
];
const BATCH_EVENTS: [f64; 11] = [
    1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0, 4_000.0,
];

/// What was built, and from what: `STOCKYARD_REVISION` as it was then, where the build was told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const REVISION: &str = match option_env!("STOCKYARD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// The stages of taking a batch, in order: values of the label `stage`.
pub const STAGES: [&str; 7] = [
    "begin",
    "catalogue",
    "movements",
    "levels",
    "ledger",
    "publish",
    "dead_letters",
];
/// What may become of a message: values of the label `status`.
pub const MESSAGE_STATUSES: [&str; 3] = ["ok", "duplicate", "error"];
/// The cache tiers, and what a look into one may find.
pub const TIERS: [&str; 2] = ["memory", "redis"];
pub const LOOKUPS: [&str; 4] = ["hit", "miss", "refused", "error"];

/// What clients are told of a crossed threshold, and of reservations that are not covered: values of the label `type`.
pub const STOCK_ALERTS: [&str; 6] = [
    "low_stock_alert",
    "stock_recovered",
    "reorder_needed",
    "reorder_recovered",
    "reservation_at_risk",
    "reservation_healed",
];
/// How live clients connect.
pub const LIVE_KINDS: [&str; 2] = ["socket", "stream"];
/// The codes with which the service closes a live connection.
pub const LIVE_CLOSES: [&str; 5] = ["1001", "1008", "1011", "4008", "4029"];

/// Why a request is answered 503: the database does not answer, the process has not followed so far, too many requests wait to be
/// decided or connections are open, whoever asks cannot be proved, the process is not ready or stops, it took too long.
pub const UNAVAILABLE: [&str; 8] = [
    "database",
    "behind",
    "queue_full",
    "connections",
    "access",
    "not_ready",
    "stopping",
    "timeout",
];

/// All metrics, by the names clients read.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Messages taken from Kafka by topic and status: ok, duplicate, error (a dead letter).
    pub messages_total: IntCounterVec,
    /// Dead letters written, by reason.
    pub dead_letters_total: IntCounterVec,
    /// Messages in one batch.
    pub batch_events: Histogram,
    /// Seconds a batch spent in each stage.
    pub batch_stage_seconds: HistogramVec,
    /// Seconds from a message's Kafka timestamp to the commit of its fact.
    pub event_to_commit_seconds: Histogram,
    /// Messages in the topic that are not in the database yet, by partition.
    pub lag_offsets: IntGaugeVec,
    /// Age of the oldest message that is not in the database yet, by partition; 0 when there is none.
    pub lag_seconds: GaugeVec,
    /// Times partitions were given or taken.
    pub rebalances_total: IntCounterVec,
    /// Times a step was tried again, by step.
    pub retries_total: IntCounterVec,
    /// Times Kafka had messages that did not come, and the consumer connected anew.
    pub stalls_total: IntCounter,
    /// Partitions this process consumes.
    pub partitions_assigned: IntGauge,
    /// Requests by route template, method and status.
    pub http_requests_total: IntCounterVec,
    /// Seconds to answer a request.
    pub http_request_seconds: HistogramVec,
    /// Connections open now.
    pub http_connections: IntGauge,
    /// Connections that were closed at once because their address had as many as it may, or came too often.
    pub http_connections_refused_total: IntCounter,
    /// Looks into the cache by tier and result.
    pub cache_lookups_total: IntCounterVec,
    /// Levels kept in the process that were carried on over a commit that changed them.
    pub cache_carried_total: IntCounter,
    /// Reads that went around the cache because the follower was too far behind to vouch for it.
    pub cache_bypasses_total: IntCounter,
    /// Reads that waited for another's read of the same thing.
    pub cache_joined_total: IntCounter,
    /// The version the follower has reached.
    pub feed_version: IntGauge,
    /// Seconds from a commit to this process having followed it.
    pub feed_lag_seconds: Histogram,
    /// Times the database turned out to be restored.
    pub feed_resyncs_total: IntCounter,
    /// Changes of stock that were followed, by whichever process they were made.
    pub feed_changes_total: IntCounter,
    /// Levels: all, with a deficit, at or below their minimum. As of the last totals, like the following.
    pub stock_keys: IntGaugeVec,
    pub stock_units: IntGauge,
    pub reorder_products: IntGauge,
    /// Lines of reservations: active, and of those at risk.
    pub reservations: IntGaugeVec,
    /// Lines of movements under way, overdue, and that ended otherwise than they began.
    pub movement_lines: IntGaugeVec,
    pub units_in_transit: IntGauge,
    /// Thresholds that were seen crossed, and reservations seen at risk or healed, by what clients are told.
    pub stock_alerts_total: IntCounterVec,
    /// Differences that the last finished check of the tables found, checks by result, and when the last one finished (seconds
    /// since 1970; 0: never).
    pub verify_differences: IntGauge,
    pub verify_runs_total: IntCounterVec,
    pub verify_finished_seconds: IntGauge,
    /// Requests that were decided, by what became of them: done, refused, failed.
    pub commands_total: IntCounterVec,
    /// Requests that were put off because somebody else held a level they are about, or because it had to be made.
    pub commands_held_up_total: IntCounter,
    /// Commits of decided requests whose end was not heard, by whether they turned out to be there: yes, no.
    pub command_lost_commits_total: IntCounterVec,
    /// Requests decided in one transaction.
    pub command_batch_requests: Histogram,
    /// Looks at the order of commits, by result.
    pub feed_polls_total: IntCounterVec,
    /// Live connections open now, by kind: socket, stream.
    pub live_connections: IntGaugeVec,
    /// Frames and bytes of frames handed to live connections.
    pub live_frames_total: IntCounter,
    pub live_bytes_total: IntCounter,
    /// Live connections that the service closed, by code.
    pub live_closes_total: IntCounterVec,
    /// Snapshots read for live clients; others were given one that was read before.
    pub live_snapshots_total: IntCounter,
    /// How often a client that was behind was told several commits as one.
    pub live_conflations_total: IntCounter,
    /// Seconds from a commit to an update of it being handed to a connection.
    pub live_commit_to_frame_seconds: Histogram,
    /// Read connections by state: idle, used.
    pub database_connections: IntGaugeVec,
    /// Connections by pool (read, scan, follow) and state (idle, used), and the most of each pool.
    pub pool_connections: IntGaugeVec,
    pub pool_connections_max: IntGaugeVec,
    /// Requests that wait to be decided, and the most that may.
    pub command_queue: IntGauge,
    pub command_queue_max: IntGauge,
    /// Whether a server that is not always asked is there (redis: is used; kafka: answered when it was last needed): 1 or 0. No series:
    /// there is none.
    pub server_up: IntGaugeVec,
    /// Answers 503, by their cause: one of [`UNAVAILABLE`].
    pub http_unavailable_total: IntCounterVec,
    /// When the keys of access were last read, in seconds since 1970; 0: never, or nobody needs one.
    pub access_keys_read_seconds: IntGauge,
    /// Spans of traces by what became of them: exported, failed (the receiver did not take them), dropped (too many at once).
    pub trace_spans_total: IntCounterVec,
}

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "one declaration after the other")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(None, None)?;
        let make = Maker(&registry);
        let build = make.gauges(
            "build_info",
            "1, with what is running: its version, and the revision it was built from",
            &["version", "revision"],
        )?;
        build.with_label_values(&[VERSION, REVISION]).set(1);
        let metrics = Self {
            messages_total: make.counters(
                "kafka_consumer_messages_processed_total",
                "Messages taken from Kafka by topic and status",
                &["topic", "status"],
            )?,
            dead_letters_total: make.counters(
                "ingest_dead_letters_total",
                "Dead letters written, by reason",
                &["reason"],
            )?,
            batch_events: make.histogram(
                "ingest_batch_events",
                "Messages in one batch",
                &BATCH_EVENTS,
            )?,
            batch_stage_seconds: make.histograms(
                "ingest_batch_stage_seconds",
                "Seconds a batch spent in each stage",
                &FINE_SECONDS,
                &["stage"],
            )?,
            event_to_commit_seconds: make.histogram(
                "ingest_event_to_commit_seconds",
                "Seconds from a message's Kafka timestamp to the commit of its fact",
                &AGE_SECONDS,
            )?,
            lag_offsets: make.gauges(
                "ingest_lag_offsets",
                "Messages in the topic that are not in the database yet",
                &["partition"],
            )?,
            lag_seconds: make.register(GaugeVec::new(
                named(
                    "ingest_lag_seconds",
                    "Age of the oldest message that is not in the database yet",
                ),
                &["partition"],
            )?)?,
            rebalances_total: make.counters(
                "ingest_rebalances_total",
                "Times partitions were given or taken",
                &["event"],
            )?,
            retries_total: make.counters(
                "ingest_retries_total",
                "Times a step was tried again",
                &["step"],
            )?,
            stalls_total: make.counter(
                "ingest_stalls_total",
                "Times Kafka had messages that did not come, and the consumer connected anew",
            )?,
            partitions_assigned: make.gauge(
                "ingest_partitions_assigned",
                "Partitions this process consumes",
            )?,
            http_requests_total: make.counters(
                "http_requests_total",
                "Requests by route template, method and status",
                &["handler", "method", "status"],
            )?,
            http_request_seconds: make.histograms(
                "http_request_duration_seconds",
                "Seconds to answer a request",
                &FINE_SECONDS,
                &["handler", "method"],
            )?,
            http_connections: make.gauge("http_connections", "Connections open now")?,
            http_connections_refused_total: make.counter(
                "http_connections_refused_total",
                "Connections closed at once because their address had as many as it may, or came too often",
            )?,
            cache_lookups_total: make.counters(
                "cache_lookups_total",
                "Looks into the cache by tier and result",
                &["tier", "result"],
            )?,
            cache_carried_total: make.counter(
                "cache_carried_total",
                "Levels kept in the process that were carried on over a commit that changed them",
            )?,
            cache_bypasses_total: make.counter(
                "cache_bypasses_total",
                "Reads that went around the cache because the follower could not vouch for it",
            )?,
            cache_joined_total: make.counter(
                "cache_joined_total",
                "Reads that waited for another's read of the same thing",
            )?,
            feed_version: make.gauge("feed_version", "The version the follower has reached")?,
            feed_lag_seconds: make.histogram(
                "feed_lag_seconds",
                "Seconds from a commit to this process having followed it",
                &FINE_SECONDS,
            )?,
            feed_changes_total: make.counter(
                "feed_changes_total",
                "Changes of stock that the follower saw, made by any process",
            )?,
            stock_keys: make.gauges(
                "stock_keys",
                "Stock levels by state: all, negative (a deficit), low (at or below the product's minimum)",
                &["state"],
            )?,
            stock_units: make.gauge("stock_units", "Units on hand, deficits counting as nothing")?,
            reorder_products: make.gauge(
                "reorder_products",
                "Products of which no more than the reorder point is available",
            )?,
            reservations: make.gauges(
                "reservations",
                "Lines of active reservations, and those of them that what is on hand does not cover (at_risk)",
                &["state"],
            )?,
            movement_lines: make.gauges(
                "movement_lines",
                "Lines of movements that are not complete, by status; overdue ones are in transit as well",
                &["status"],
            )?,
            units_in_transit: make.gauge("units_in_transit", "Units that departed and did not arrive")?,
            stock_alerts_total: make.counters(
                "stock_alerts_total",
                "Thresholds that the follower saw crossed, and reservations at risk or healed",
                &["type"],
            )?,
            verify_differences: make.gauge(
                "verify_differences",
                "Contradictions between ledger, levels, movements and reservations that the last finished check found",
            )?,
            verify_runs_total: make.counters(
                "verify_runs_total",
                "Checks of the tables in the background, by result",
                &["result"],
            )?,
            verify_finished_seconds: make.gauge(
                "verify_finished_timestamp_seconds",
                "When the last check of the tables finished, in seconds since 1970; 0: none has",
            )?,
            commands_total: make.counters(
                "commands_total",
                "Requests by what became of them: done, refused, failed",
                &["result"],
            )?,
            commands_held_up_total: make.counter(
                "commands_held_up_total",
                "Requests that were put off: a batch of facts or another request held a level they are about, or it had to be made",
            )?,
            command_lost_commits_total: make.counters(
                "command_lost_commits_total",
                "Commits whose end was not heard, by whether they turned out to be there: yes, no",
                &["found"],
            )?,
            command_batch_requests: make.histogram(
                "command_batch_requests",
                "Requests decided in one transaction",
                &BATCH_EVENTS,
            )?,
            feed_resyncs_total: make.counter(
                "feed_resyncs_total",
                "Times the database turned out to be restored",
            )?,
            feed_polls_total: make.counters(
                "feed_polls_total",
                "Looks at the order of commits, by result",
                &["result"],
            )?,
            live_connections: make.gauges(
                "live_connections",
                "Live connections open now, by kind",
                &["kind"],
            )?,
            live_frames_total: make
                .counter("live_frames_total", "Frames handed to live connections")?,
            live_bytes_total: make.counter(
                "live_bytes_total",
                "Bytes of frames handed to live connections",
            )?,
            live_closes_total: make.counters(
                "live_closes_total",
                "Live connections that the service closed, by code",
                &["code"],
            )?,
            live_conflations_total: make.counter(
                "live_conflations_total",
                "Times that a client that was behind was told the newest state of several commits",
            )?,
            live_snapshots_total: make
                .counter("live_snapshots_total", "Snapshots read for live clients")?,
            live_commit_to_frame_seconds: make.histogram(
                "live_commit_to_frame_seconds",
                "Seconds from a commit to an update of it being handed to a connection",
                &FINE_SECONDS,
            )?,
            database_connections: make.gauges(
                "database_read_connections",
                "Read connections by state",
                &["state"],
            )?,
            pool_connections: make.gauges(
                "database_pool_connections",
                "Connections that questions share, by pool (read, scan, follow) and state (idle, used)",
                &["pool", "state"],
            )?,
            pool_connections_max: make.gauges(
                "database_pool_connections_max",
                "Most connections of each pool",
                &["pool"],
            )?,
            command_queue: make.gauge("command_queue_requests", "Requests that wait to be decided")?,
            command_queue_max: make.gauge(
                "command_queue_requests_max",
                "Most requests that may wait to be decided; a further one is answered 503",
            )?,
            server_up: make.gauges(
                "server_up",
                "Whether redis or kafka answered when it was last needed: 1 or 0",
                &["server"],
            )?,
            http_unavailable_total: make.counters(
                "http_unavailable_total",
                "Answers 503 by their cause",
                &["cause"],
            )?,
            access_keys_read_seconds: make.gauge(
                "access_keys_read_timestamp_seconds",
                "When the keys of access were last read, in seconds since 1970; 0: never, or nobody needs one",
            )?,
            trace_spans_total: make.counters(
                "trace_spans_total",
                "Spans by what became of them: exported, failed (not taken by the receiver), dropped (too many at once)",
                &["result"],
            )?,
            registry,
        };
        metrics.start_at_zero();
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// Everything in the text exposition format (version 0.0.4).
    pub fn exposition(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// A series that is not there yet cannot be told from one that is broken, so all known ones begin at 0.
    fn start_at_zero(&self) {
        for stage in STAGES {
            self.batch_stage_seconds.with_label_values(&[stage]);
        }
        for tier in TIERS {
            for result in LOOKUPS {
                self.cache_lookups_total.with_label_values(&[tier, result]);
            }
        }
        for event in ["assigned", "revoked"] {
            self.rebalances_total.with_label_values(&[event]);
        }
        for result in ["clean", "differences", "error"] {
            self.verify_runs_total.with_label_values(&[result]);
        }
        for found in ["yes", "no"] {
            self.command_lost_commits_total.with_label_values(&[found]);
        }
        for result in ["done", "refused", "failed"] {
            self.commands_total.with_label_values(&[result]);
        }
        for step in [
            "position",
            "record",
            "dead_letter",
            "offset_commit",
            "decide",
        ] {
            self.retries_total.with_label_values(&[step]);
        }
        for result in ["ok", "error"] {
            self.feed_polls_total.with_label_values(&[result]);
        }
        for alert in STOCK_ALERTS {
            self.stock_alerts_total.with_label_values(&[alert]);
        }
        for kind in LIVE_KINDS {
            self.live_connections.with_label_values(&[kind]);
        }
        for code in LIVE_CLOSES {
            self.live_closes_total.with_label_values(&[code]);
        }
        for cause in UNAVAILABLE {
            self.http_unavailable_total.with_label_values(&[cause]);
        }
        for result in ["exported", "failed", "dropped"] {
            self.trace_spans_total.with_label_values(&[result]);
        }
        for state in ["idle", "used"] {
            self.database_connections.with_label_values(&[state]);
        }
    }
}

struct Maker<'r>(&'r Registry);

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(named(name, help))?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(named(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(named(name, help))?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(named(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::from(named(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(named(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("warehouse")
}
