//! Traces: from the headers of a message or request to the last socket that is told, across processes, over OTLP.
//!
//! Invariants: off, nothing is begun, read or kept; a trace is recorded if whoever began it says so, and of those that begin
//! here a share is; nothing that is served ever waits for a receiver (`export`). Only this module names the libraries. What a
//! span is called, and what stands in it, is in `span`: the semantic conventions of OpenTelemetry, where they have words for it.

mod export;
mod span;

use std::{future::Future, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, SpanExporter as _},
};
use uuid::Uuid;

use crate::{
    domain::TraceParent,
    metrics::{Metrics, VERSION},
};
use export::Queue;
pub use export::{Exporter, FLUSH_MAX};
pub use span::{CommitSpan, Followed, Origin, Parent, Span, Told};

/// Longest one batch of spans may be on its way.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// Where a receiver takes spans, below its address.
const PATH: &str = "/v1/traces";

/// How traces are recorded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of a receiver of OTLP over HTTP.
    pub endpoint: String,
    /// The share of what begins here that is recorded.
    pub sample_ratio: f64,
    pub service_name: String,
    /// How requests come: http or https.
    pub scheme: &'static str,
    /// What else the process is to be known by.
    pub attributes: Vec<(String, String)>,
    /// What the receiver is told with each request.
    pub headers: Vec<(String, String)>,
}

/// Why traces cannot be recorded as configured.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}")]
pub struct TracesError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The way to record what happens; the default records nothing.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Recording>>);

#[derive(Debug)]
struct Recording {
    tracer: SdkTracer,
    sample_ratio: f64,
    scheme: &'static str,
}

tokio::task_local! {
    /// What the task is doing this for.
    static CAUSE: TraceParent;
}

impl Traces {
    /// Records as configured. What is recorded goes to the exporter, which has to be run.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Result<(Self, Exporter), TracesError> {
        let endpoint = format!("{}{PATH}", settings.endpoint.trim_end_matches('/'));
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_MAX)
            .with_headers(settings.headers.iter().cloned().collect())
            .build()?;
        let attributes = settings.attributes.iter().cloned();
        let resource = Resource::builder_empty()
            .with_attributes(attributes.map(|(name, value)| KeyValue::new(name, value)))
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", VERSION))
            .with_attribute(KeyValue::new(
                "service.instance.id",
                Uuid::new_v4().to_string(),
            ))
            .build();
        exporter.set_resource(&resource);
        let (queue, exporter) = Queue::new(exporter, metrics);
        let provider = SdkTracerProvider::builder()
            // Whether something is recorded is known before its span is made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let recording = Recording {
            tracer: provider.tracer("stockyard"),
            sample_ratio: settings.sample_ratio,
            scheme: settings.scheme,
        };
        Ok((Self(Some(Arc::new(recording))), exporter))
    }

    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// What this task is doing something for, if that is recorded.
    pub fn cause(&self) -> Option<TraceParent> {
        self.0.as_ref()?;
        CAUSE.try_with(|cause| *cause).ok()
    }

    /// Where to record something that has this parent; `None`: it is not to be.
    fn recording(&self, parent: Option<&Parent>) -> Option<&Recording> {
        let recording = self.0.as_deref()?;
        let is_sampled = match parent {
            Some(parent) => parent.place.is_sampled,
            None => recording.sample_ratio > rand::random::<f64>(),
        };
        is_sampled.then_some(recording)
    }
}

/// Does this because of that.
pub fn because<F: Future>(cause: TraceParent, work: F) -> impl Future<Output = F::Output> {
    CAUSE.scope(cause, work)
}
