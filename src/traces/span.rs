//! What is recorded, and in what words.
//!
//! <https://opentelemetry.io/docs/specs/semconv/>: messaging spans, HTTP spans, database spans. What they have no words for
//! begins with `stockyard.`. No name of a span takes a value from a message, a path or a client.

use std::{
    borrow::Cow,
    str::FromStr,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
        TraceFlags, TraceId, TraceState, Tracer as _,
    },
};
use opentelemetry_sdk::trace::Span as SdkSpan;

use super::{Recording, Traces};
use crate::domain::{CommitPoint, TraceParent, Version};

/// Most causes that a commit names: a batch may have thousands.
const CAUSES_MAX: usize = 128;

/// What `traceparent` and `tracestate` say.
#[derive(Clone, Debug)]
pub struct Parent {
    pub(super) place: TraceParent,
    state: TraceState,
}

impl Parent {
    /// `None` where the first has no meaning. The second is nothing without it, and left out where it has none.
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let place = traceparent.trim().parse().ok()?;
        let state = tracestate.map(TraceState::from_str);
        let state = state.and_then(Result::ok).unwrap_or_default();
        Some(Self { place, state })
    }

    fn context(&self) -> SpanContext {
        let place = context_of(self.place);
        SpanContext::new(
            place.trace_id(),
            place.span_id(),
            place.trace_flags(),
            true,
            self.state.clone(),
        )
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'o> {
    pub topic: &'o str,
    pub group: &'o str,
    pub partition: i32,
    pub offset: i64,
}

/// A commit that this process has followed.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    pub cause: TraceParent,
    /// When it began to look, in microseconds since 1970.
    pub since_us: i64,
    pub version: Version,
    pub levels: usize,
}

/// That live connections were told of a commit.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub cause: TraceParent,
    pub version: Version,
    /// When the first was, and when the last, in microseconds since 1970.
    pub first_us: i64,
    pub last_us: i64,
    pub connections: u64,
}

/// Something under way that is recorded; it ends when this is dropped.
#[derive(Debug)]
pub struct Span(SdkSpan);

impl Span {
    /// Where what is done for it belongs.
    pub fn place(&self) -> Option<TraceParent> {
        let context = self.0.span_context();
        Some(TraceParent {
            trace: u128::from_be_bytes(context.trace_id().to_bytes())
                .try_into()
                .ok()?,
            span: u64::from_be_bytes(context.span_id().to_bytes())
                .try_into()
                .ok()?,
            is_sampled: context.is_sampled(),
        })
    }

    /// It has to do with that, too.
    pub fn link(&mut self, to: TraceParent) {
        self.0.add_link(context_of(to), Vec::new());
    }

    /// It came to nothing, for a reason of few values.
    pub fn fail(&mut self, why: &'static str) {
        self.0.set_attribute(KeyValue::new("error.type", why));
        self.0.set_status(Status::error(why));
    }

    /// What a request was answered.
    pub fn answered(&mut self, status: u16) {
        self.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.set("error.type", status.to_string());
            self.0.set_status(Status::error(""));
        }
    }

    fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }
}

/// A transaction, if it is recorded: dropped before its end is known, it counts as one that failed.
#[derive(Debug, Default)]
pub struct CommitSpan(Option<Span>);

impl CommitSpan {
    /// Where what is done for it belongs.
    pub fn place(&self) -> Option<TraceParent> {
        self.0.as_ref()?.place()
    }

    /// It was published.
    pub fn published(mut self, point: CommitPoint) {
        if let Some(mut span) = self.0.take() {
            span.set("stockyard.commit.version", point.version.number());
            span.set("stockyard.commit.cursor", point.to_string());
        }
    }

    /// There was nothing to publish.
    pub fn silent(mut self) {
        drop(self.0.take());
    }
}

impl Drop for CommitSpan {
    fn drop(&mut self) {
        if let Some(span) = &mut self.0 {
            span.fail("given_up");
        }
    }
}

impl Traces {
    /// A message is taken.
    pub fn message(&self, origin: Origin<'_>, parent: Option<&Parent>) -> Option<Span> {
        let recording = self.recording(parent)?;
        let name = format!("process {}", origin.topic);
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Consumer)
            .with_attributes([
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.name", "process"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", origin.topic.to_owned()),
                KeyValue::new(
                    "messaging.destination.partition.id",
                    origin.partition.to_string(),
                ),
                KeyValue::new("messaging.consumer.group.name", origin.group.to_owned()),
                KeyValue::new("messaging.kafka.offset", origin.offset),
            ]);
        Some(recording.begin(span, parent.map(Parent::context)))
    }

    /// A request is taken. `route` is a template, `host` what the client called the service.
    pub fn request(
        &self,
        method: &'static str,
        route: Option<&str>,
        host: Option<&str>,
        parent: Option<&Parent>,
    ) -> Option<Span> {
        let recording = self.recording(parent)?;
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.scheme", recording.scheme),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        if let Some(host) = host {
            let (address, port) = address_of(host);
            attributes.push(KeyValue::new("server.address", address.to_owned()));
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        }
        let name: Cow<'static, str> =
            route.map_or(method.into(), |route| format!("{method} {route}").into());
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        Some(recording.begin(span, parent.map(Parent::context)))
    }

    /// A request waits to be decided.
    pub fn decision(&self, cause: Option<TraceParent>) -> Option<Span> {
        let recording = self.0.as_deref()?;
        Some(recording.begin(SpanBuilder::from_name("decide"), Some(context_of(cause?))))
    }

    /// A transaction begins. Its place in the first cause's trace is what goes on with the commit; the others are linked.
    /// It is of that many facts or requests.
    pub fn commit(
        &self,
        what: &'static str,
        size: usize,
        causes: impl IntoIterator<Item = TraceParent>,
    ) -> CommitSpan {
        let Some(recording) = self.0.as_deref() else {
            return CommitSpan::default();
        };
        let mut causes = causes.into_iter().take(CAUSES_MAX);
        let Some(first) = causes.next() else {
            return CommitSpan::default();
        };
        let links = causes.map(|cause| Link::with_context(context_of(cause)));
        let span = SpanBuilder::from_name(what)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.batch.size", as_number(size)),
            ])
            .with_links(links.collect());
        CommitSpan(Some(recording.begin(span, Some(context_of(first)))))
    }

    /// A step of a transaction begins.
    pub fn stage(&self, stage: &'static str, cause: Option<TraceParent>) -> Option<Span> {
        let recording = self.0.as_deref()?;
        let span = SpanBuilder::from_name(stage)
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new("db.system.name", "postgresql")]);
        Some(recording.begin(span, Some(context_of(cause?))))
    }

    /// A commit was read by this process, and is about to be told.
    pub fn followed(&self, followed: Followed) -> Option<Span> {
        let recording = self.0.as_deref()?;
        let span = SpanBuilder::from_name("follow")
            .with_kind(SpanKind::Consumer)
            .with_start_time(time_of(followed.since_us))
            .with_attributes([
                KeyValue::new("stockyard.commit.version", followed.version.number()),
                KeyValue::new("stockyard.commit.levels", as_number(followed.levels)),
            ]);
        Some(recording.begin(span, Some(context_of(followed.cause))))
    }

    /// Live connections were told.
    pub fn told(&self, told: Told) {
        let Some(recording) = self.0.as_deref() else {
            return;
        };
        let connections = i64::try_from(told.connections).unwrap_or(i64::MAX);
        let span = SpanBuilder::from_name("push")
            .with_kind(SpanKind::Producer)
            .with_start_time(time_of(told.first_us))
            .with_attributes([
                KeyValue::new("stockyard.commit.version", told.version.number()),
                KeyValue::new("stockyard.live.connections", connections),
            ]);
        let mut span = recording.begin(span, Some(context_of(told.cause)));
        span.0.end_with_timestamp(time_of(told.last_us));
    }
}

impl Recording {
    fn begin(&self, span: SpanBuilder, parent: Option<SpanContext>) -> Span {
        let within = Context::new();
        let within = match parent {
            Some(parent) => within.with_remote_span_context(parent),
            None => within,
        };
        Span(self.tracer.build_with_context(span, &within))
    }
}

fn context_of(place: TraceParent) -> SpanContext {
    let flags = if place.is_sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from(place.trace.get()),
        SpanId::from(place.span.get()),
        flags,
        true,
        TraceState::NONE,
    )
}

fn time_of(unix_us: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(unix_us.max(0).unsigned_abs())
}

fn as_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A host as a client writes it, and its port.
fn address_of(host: &str) -> (&str, Option<u16>) {
    let split = host
        .rsplit_once(':')
        .filter(|(address, _)| !address.contains(':') || address.ends_with(']'));
    match split {
        Some((address, port)) => (address, port.parse().ok()),
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_their_ports() {
        assert_eq!(address_of("stock.example"), ("stock.example", None));
        assert_eq!(
            address_of("stock.example:8000"),
            ("stock.example", Some(8_000))
        );
        assert_eq!(address_of("[::1]:8000"), ("[::1]", Some(8_000)));
        assert_eq!(address_of("[::1]"), ("[::1]", None));
    }

    #[test]
    fn off_nothing_is_begun() {
        let traces = Traces::default();
        let parent = Parent::read(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("x=1"),
        );
        let parent = parent.unwrap();
        assert!(traces.request("GET", None, None, Some(&parent)).is_none());
        assert!(traces.commit("record", 1, [parent.place]).place().is_none());
        assert!(traces.decision(Some(parent.place)).is_none());
        assert_eq!(traces.cause(), None);
    }
}
