//! A receiver of traces: OTLP over HTTP, as a collector takes it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

use super::eventually;

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    /// Hexadecimal, as in a traceparent.
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// The spans that it is linked to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    /// Of the process.
    pub resource: BTreeMap<String, String>,
    pub kind: v1::span::SpanKind,
    pub has_failed: bool,
    pub state: String,
    pub took_ns: u64,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The process it is of.
    pub fn process(&self) -> &str {
        &self.resource["service.instance.id"]
    }
}

#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Span>>>);

/// A receiver under way.
pub struct Receiver {
    pub endpoint: String,
    taken: Taken,
    serving: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let taken = Taken::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(taken.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self {
            endpoint: format!("http://{address}"),
            taken,
            serving,
        }
    }

    /// What came so far.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.0.lock().expect("no panic").clone()
    }

    /// Waits until there is a span of that trace that is called so.
    pub async fn span(&self, trace: &str, name: &str) -> Span {
        self.find(name, |span| span.trace == trace && span.name == name)
            .await
    }

    pub async fn find(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(&format!("a span: {what}"), async || {
            self.spans().into_iter().find(&is_it)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).expect("a request");
    let mut into = taken.0.lock().expect("no panic");
    for of_process in request.resource_spans {
        let resource = texts(of_process.resource.expect("a resource").attributes);
        for span in of_process
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            into.push(read(span, resource.clone()));
        }
    }
    StatusCode::OK
}

fn read(span: v1::Span, resource: BTreeMap<String, String>) -> Span {
    Span {
        kind: span.kind(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        attributes: texts(span.attributes),
        resource,
        has_failed: span
            .status
            .is_some_and(|status| status.code() == v1::status::StatusCode::Error),
        state: span.trace_state,
        took_ns: span.end_time_unix_nano - span.start_time_unix_nano,
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let value = match attribute.value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key, value)
    };
    attributes.into_iter().map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
