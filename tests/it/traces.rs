//! Traces: from a header in Kafka, or a request, to the sockets that are told; and that nothing depends on whoever takes them.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rdkafka::message::{Header, OwnedHeaders};
use reqwest::{Method, StatusCode};
use serde_json::json;
use stockyard::{app::Parts, config::Config};
use tokio::{net::TcpListener, time::timeout};
use uuid::Uuid;

use crate::support::{
    World, deadline,
    live::LiveClient,
    messages::Move,
    receiver::{Receiver, Span},
    stream::{mixed, seed},
};

const COMMITS_RECORDED: &str = "select count(*) from stock_commits where traceparent is not null";
const INGESTS: Parts = Parts {
    answers: false,
    ingests: true,
};
const ANSWERS: Parts = Parts {
    answers: true,
    ingests: false,
};

/// What is asked for is recorded, and nothing else.
fn only_if_asked(endpoint: &str) -> impl FnOnce(&mut Config) {
    let endpoint = endpoint.to_owned();
    |config| {
        config.traces.endpoint = endpoint;
        config.traces.sample_ratio = 0.0;
    }
}

fn header<'h>(key: &'h str, value: &'h str) -> Header<'h, &'h str> {
    let value = Some(value);
    Header { key, value }
}

/// A trace and a span of somebody else, as they stand in a header.
struct Cause {
    trace: String,
    span: String,
}

impl Cause {
    fn new() -> Self {
        Self {
            trace: format!("{:032x}", Uuid::new_v4().as_u128()),
            span: format!("{:016x}", Uuid::new_v4().as_u64_pair().0),
        }
    }

    fn header(&self, flags: &str) -> String {
        format!("00-{}-{}-{flags}", self.trace, self.span)
    }
}

#[tokio::test]
async fn a_trace_goes_from_the_header_in_kafka_to_the_socket() {
    let receiver = Receiver::start().await;
    let world = World::with(only_if_asked(&receiver.endpoint)).await;
    let ingest = world.start_parts(INGESTS).await;
    let service = world.start_parts(ANSWERS).await;
    ingest.is_ready().await;
    service.is_ready().await;
    let mut client = LiveClient::connect(&service, "").await;
    client.hear("snapshot").await;

    let cause = Cause::new();
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 3);
    let headers = OwnedHeaders::new()
        .insert(header("traceparent", &cause.header("01")))
        .insert(header("tracestate", "vendor=1"));
    let arrival = moved.arrival();
    world
        .send_raw(b"key", Some(arrival.as_bytes()), headers)
        .await;
    let told = client.hear("update").await;

    // The header, then the message, its transaction, who follows, and who is told.
    let topic = &world.config.kafka.topic;
    let message = receiver
        .span(&cause.trace, &format!("process {topic}"))
        .await;
    assert_eq!(message.parent, cause.span);
    assert_eq!(message.kind, SpanKind::Consumer);
    assert_eq!(message.state, "vendor=1");
    assert_eq!(message.attribute("messaging.system"), "kafka");
    assert_eq!(message.attribute("messaging.destination.name"), topic);
    assert_eq!(message.attribute("messaging.kafka.offset"), "0");
    let transaction = receiver.span(&cause.trace, "record").await;
    assert_eq!(transaction.parent, message.id);
    assert_eq!(message.links, [transaction.id.as_str()]);
    let version = told["version"].to_string();
    assert_eq!(transaction.attribute("stockyard.commit.version"), version);
    for stage in ["begin", "movements", "levels", "ledger", "publish"] {
        let stage = receiver.span(&cause.trace, stage).await;
        assert_eq!(stage.parent, transaction.id, "{stage:?}");
        assert!(stage.took_ns <= transaction.took_ns, "{stage:?}");
    }
    let follows = receiver.span(&cause.trace, "follow").await;
    assert_eq!(follows.parent, transaction.id);
    assert_eq!(follows.attribute("stockyard.commit.version"), version);
    assert_ne!(follows.process(), transaction.process());
    let push = receiver.span(&cause.trace, "push").await;
    assert_eq!(push.parent, follows.id);
    assert_eq!(push.attribute("stockyard.live.connections"), "1");
    assert_eq!(push.process(), follows.process());
    assert_eq!(push.resource["service.name"], "stockyard");
    let strangers: Vec<Span> = receiver
        .spans()
        .into_iter()
        .filter(|span| span.trace != cause.trace || span.has_failed)
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert_eq!(world.database.number(COMMITS_RECORDED).await, 1);

    ingest.stop().await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_nobody_asked_for_is_taken_and_not_recorded() {
    let receiver = Receiver::start().await;
    let world = World::with(only_if_asked(&receiver.endpoint)).await;
    let service = world.start().await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    let cause = Cause::new();
    let written = cause.header("01");
    let nonsense = [
        cause.header("00"),
        String::new(),
        "junk".to_owned(),
        written.to_uppercase(),
        written.replace("00-", "ff-"),
        format!("{written}-00"),
        "€".repeat(30),
        cause.header("1"),
    ];
    for parent in &nonsense {
        let arrival = Move::new(warehouse, product, 1).arrival();
        let headers = OwnedHeaders::new().insert(header("traceparent", parent));
        world
            .send_raw(b"key", Some(arrival.as_bytes()), headers)
            .await;
    }
    // No text at all, and a state without a parent.
    for (key, value) in [
        ("traceparent", &b"\xff\xfe"[..]),
        ("tracestate", &b"a=1"[..]),
    ] {
        let value = Some(value);
        let headers = OwnedHeaders::new().insert(Header { key, value });
        let arrival = Move::new(warehouse, product, 1).arrival();
        world
            .send_raw(b"key", Some(arrival.as_bytes()), headers)
            .await;
    }
    let taken = i64::try_from(nonsense.len()).unwrap() + 2;
    service.has_on_hand(warehouse, product, taken).await;
    for parent in &nonsense[..4] {
        let path = format!("/api/warehouses/{warehouse}/products/{product}");
        let answer = service.get_with(&path, &[("traceparent", parent)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{parent}");
    }
    assert_eq!(world.database.number(COMMITS_RECORDED).await, 0);

    // One that is a dead letter is recorded as what it is. What is before it in the queue has come by then.
    let asked = Cause::new();
    let headers = OwnedHeaders::new().insert(header("traceparent", &asked.header("01")));
    world.send_raw(b"key", Some(b"junk"), headers).await;
    let topic = format!("process {}", world.config.kafka.topic);
    let message = receiver.span(&asked.trace, &topic).await;
    assert!(message.has_failed, "{message:?}");
    assert_eq!(message.attribute("error.type"), "not_json");
    service.stop().await;
    let strangers: Vec<Span> = receiver
        .spans()
        .into_iter()
        .filter(|span| span.trace != asked.trace)
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    world.database.remove().await;
}

#[tokio::test]
async fn off_nothing_is_read_of_headers_and_nothing_is_kept() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 5);
    let written = Cause::new().header("01");
    let headers = OwnedHeaders::new().insert(header("traceparent", &written));
    let arrival = moved.arrival();
    world
        .send_raw(b"key", Some(arrival.as_bytes()), headers)
        .await;
    service.has_on_hand(moved.warehouse, moved.product, 5).await;
    let sale = json!({"warehouse": moved.warehouse, "product": moved.product, "kind": "sale", "change": -1});
    let headers = [("traceparent", written.as_str())];
    let sold = service.post_with("/api/adjustments", &headers, &sale).await;
    assert_eq!(sold.status, StatusCode::CREATED, "{sold:?}");
    assert_eq!(world.database.number(COMMITS_RECORDED).await, 0);
    for result in ["exported", "failed", "dropped"] {
        let series = format!("warehouse_trace_spans_total{{result=\"{result}\"}}");
        assert_eq!(service.count(&series).await, 0, "{result}");
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn requests_that_are_decided_together_find_their_commit() {
    let receiver = Receiver::start().await;
    let world = World::with(only_if_asked(&receiver.endpoint)).await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(1_000).await;
    let causes: Vec<Cause> = (0..30).map(|_| Cause::new()).collect();
    let sale = json!({"warehouse": warehouse, "product": product, "kind": "sale", "change": -1});
    let requests = causes.iter().map(async |cause| {
        let traceparent = cause.header("01");
        let headers = [("traceparent", traceparent.as_str())];
        service.post_with("/api/adjustments", &headers, &sale).await
    });
    let mut versions = BTreeSet::new();
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        versions.insert(answer.header("stock-version").to_owned());
    }
    for cause in &causes {
        let request = receiver.span(&cause.trace, "POST /api/adjustments").await;
        assert_eq!(request.parent, cause.span);
        assert_eq!(request.kind, SpanKind::Server);
        assert_eq!(request.attribute("http.route"), "/api/adjustments");
        assert_eq!(request.attribute("http.response.status_code"), "201");
        assert_eq!(request.attribute("server.address"), "127.0.0.1");
        let decision = receiver.span(&cause.trace, "decide").await;
        assert_eq!(decision.parent, request.id);
        let commit = receiver
            .find("its commit", |span| decision.links == [span.id.as_str()])
            .await;
        assert_eq!(commit.name, "commit");
        let is_cause = commit.parent == decision.id || commit.links.contains(&decision.id);
        assert!(is_cause, "{commit:?}, {decision:?}");
        let follows = receiver
            .find("who follows it", |span| span.parent == commit.id)
            .await;
        assert_eq!(follows.trace, commit.trace);
    }
    let commits = versions.len();
    let commits = i64::try_from(commits).unwrap();
    assert_eq!(world.database.number(COMMITS_RECORDED).await, commits);
    // A void and an entry of the catalogue have commits of their own.
    let cause = Cause::new();
    let traceparent = cause.header("01");
    let headers = [("traceparent", traceparent.as_str())];
    let path = format!("/api/products/{product}");
    let entry = json!({"name": "Crate"});
    let named = service.ask(Method::PUT, &path, &headers, Some(&entry));
    let named = named.await;
    assert!(named.status.is_success(), "{named:?}");
    let put = receiver.span(&cause.trace, "put").await;
    let request = receiver
        .span(&cause.trace, "PUT /api/products/{product_id}")
        .await;
    assert_eq!(put.parent, request.id);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_says_nothing_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let world = World::with(|config| {
        config.traces.endpoint = endpoint;
        config.traces.sample_ratio = 1.0;
    })
    .await;
    let service = world.start().await;
    // More than one request to the receiver holds, and more than wait for one.
    let published = world.publish(&mixed(20_000, seed()), 0, &[]).await.unwrap();
    let messages = i64::try_from(published.messages).unwrap();
    world.is_caught_up(messages).await;
    for _ in 0..100 {
        assert_eq!(service.get("/summary").await.status, StatusCode::OK);
    }
    let dropped = "warehouse_trace_spans_total{result=\"dropped\"}";
    assert!(service.count(dropped).await > 0);
    // What is left would take the receiver's silence for each of many requests.
    timeout(deadline() / 2, service.stop())
        .await
        .expect("it stops");
    drop(silent);
    world.database.remove().await;
}
