//! Spans on their way to the receiver: a queue with a bound, and one task that sends.
//!
//! Invariant: whoever ends a span never waits. What finds the queue full is counted and gone; what the receiver does not take in
//! time is counted and gone as well, because what comes after it is newer.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use prometheus::IntCounter;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::EXPORT_MAX;
use crate::metrics::Metrics;

/// Most spans that wait to be sent: about a kilobyte each.
const QUEUE_MAX: usize = 8_192;
/// Most spans of one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for company.
const GATHER: Duration = Duration::from_millis(500);
/// Longest the sending of what is left may hold up the end of the process.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);
/// How often the log says that the receiver takes nothing.
const SAY_AGAIN_AFTER: u32 = 60;

/// Where spans go when they end.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: IntCounter,
}

impl Queue {
    pub(super) fn new(to: SpanExporter, metrics: &Metrics) -> (Self, Exporter) {
        let (sender, spans) = mpsc::channel(QUEUE_MAX);
        let queue = Self {
            spans: sender,
            dropped: metrics.trace_spans_total.with_label_values(&["dropped"]),
        };
        let exporter = Exporter {
            spans,
            to,
            metrics: metrics.clone(),
            failures: 0,
        };
        (queue, exporter)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends what was recorded.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    to: SpanExporter,
    metrics: Metrics,
    /// Requests in a row that came to nothing.
    failures: u32,
}

impl Exporter {
    /// Sends until told to end, and then what is left.
    pub async fn run(mut self, ending: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let is_ending = ending.is_cancelled();
            tokio::select! {
                biased;
                received = self.spans.recv_many(&mut batch, BATCH_MAX) => if received == 0 { return },
                () = ending.cancelled() => return,
            }
            if batch.len() < BATCH_MAX && !is_ending {
                tokio::select! {
                    () = sleep(GATHER) => {}
                    () = ending.cancelled() => {}
                }
                while batch.len() < BATCH_MAX
                    && let Ok(span) = self.spans.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH_MAX)))
                .await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let sent = timeout(EXPORT_MAX, self.to.export(batch)).await;
        let error = match sent {
            Ok(Ok(())) => {
                if self.failures > 0 {
                    tracing::info!("traces are taken again");
                }
                self.failures = 0;
                return self.count("exported", count);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        self.count("failed", count);
        if self.failures.is_multiple_of(SAY_AGAIN_AFTER) {
            tracing::warn!(
                error,
                spans = count,
                "traces are not taken by their receiver; they are lost"
            );
        }
        self.failures = self.failures.saturating_add(1);
    }

    fn count(&self, result: &str, spans: u64) {
        let counter = &self.metrics.trace_spans_total;
        counter.with_label_values(&[result]).inc_by(spans);
    }
}
