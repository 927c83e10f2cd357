//! A service that lies in one way: between a load test and a real service stand a proxy for requests and sockets, and a relay for
//! messages, and either does one thing wrong.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{
        FromRequestParts, Request, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, DefaultConsumerContext},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use stockyard::{clock::Clock, config::Kafka, event, kafka};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_tungstenite::{connect_async, tungstenite};
use uuid::Uuid;

use super::{Service, World, unique};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Nothing,
    /// A message that says something is dropped.
    LostSide,
    /// One is published again under another movement.
    DoubledSide,
    /// One says another quantity.
    OtherQuantity,
    /// Messages that are none are dropped.
    SwallowedDeadLetter,
    /// The first answer about a level is given for ever.
    StaleAnswer,
    /// A change is answered as if it had been there before it was made.
    ForgottenWrite,
    /// A level is shown below zero.
    BelowZero,
    /// What is sold out is sold.
    Oversell,
    /// What is cancelled or released is kept.
    Unreleased,
    /// A repeated request is a new one.
    ForgottenKey,
    /// What is there is said to be sold out.
    Denied,
    /// One way to ask gives another answer than the others.
    OtherView,
    /// An update that changes the quantity is left out.
    Gap,
    /// One that changes what is reserved alone.
    QuietGap,
    /// An update comes twice.
    Twice,
    /// Updates tell another number of reserved units.
    OtherPicture,
    /// Alerts are left out.
    LostAlert,
    /// One of three looks at products fails.
    Failures,
    /// Memory that the service says it holds grows and grows.
    Leak,
    /// Nothing is answered for so long, once, in mid-run.
    Freeze,
}

/// Orders after which the service freezes: some seconds of a run.
const FREEZES_AFTER: u64 = 40;
pub const FREEZES_FOR: Duration = Duration::from_secs(5);
/// The message, and the update, that it is about.
const LIES_ABOUT: u64 = 20;
const BODY_BYTES_MAX: usize = 16 << 20;

struct Liar {
    lie: Lie,
    base: String,
    client: reqwest::Client,
    /// What was answered first, by path.
    first: Mutex<HashMap<String, Bytes>>,
    count: AtomicU64,
    orders: AtomicU64,
    updates: AtomicU64,
    /// Whether it answers.
    answers: watch::Sender<bool>,
}

/// A service behind a lie.
pub struct LyingService {
    pub host: String,
    /// Where its messages go in.
    pub kafka: Kafka,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for LyingService {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl LyingService {
    pub async fn before(world: &World, service: &Service, lie: Lie) -> Self {
        let mut into = world.config.kafka.clone();
        into.dead_letter_topic = world.config.kafka.dead_letter_topic();
        into.topic = unique("told");
        kafka::make_topics(&into).await.expect("a topic");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let liar = Arc::new(Liar {
            lie,
            base: service.base.clone(),
            client: reqwest::Client::new(),
            first: Mutex::default(),
            count: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            answers: watch::Sender::new(true),
        });
        let routes = Router::new().fallback(answer).with_state(liar);
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        let relaying = tokio::spawn(relay(into.clone(), world.config.kafka.clone(), lie));
        Self {
            host,
            kafka: into,
            tasks: vec![serving, relaying],
        }
    }
}

async fn answer(State(liar): State<Arc<Liar>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &liar).await;
        let path = parts.uri.path_and_query().expect("a path").to_string();
        return upgrade
            .expect("a handshake")
            .on_upgrade(move |socket| carry(liar, path, socket));
    }
    let body = to_bytes(body, BODY_BYTES_MAX).await.expect("a body");
    liar.answer(
        parts.method,
        parts.uri.path_and_query().expect("a path").as_str(),
        parts.headers,
        body,
    )
    .await
}

impl Liar {
    async fn answer(
        self: Arc<Self>,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if self.lie == Lie::Freeze
            && path == "/orders/"
            && self.orders.fetch_add(1, Ordering::Relaxed) == FREEZES_AFTER
        {
            self.freeze();
        }
        let mut answers = self.answers.subscribe();
        answers
            .wait_for(|answers| *answers)
            .await
            .expect("it lives");
        let is_level = method == Method::GET && path.starts_with("/api/warehouses/");
        let gives_back = path.ends_with("/cancel") || path.ends_with("/release");
        match self.lie {
            // Often, so that some are of levels that are known to hold enough.
            Lie::Denied
                if path == "/orders/"
                    && self
                        .orders
                        .fetch_add(1, Ordering::Relaxed)
                        .is_multiple_of(4) =>
            {
                return json_body(
                    StatusCode::CONFLICT,
                    &json!({"title": "Insufficient stock"}),
                );
            }
            Lie::Unreleased if gives_back => return json_body(StatusCode::OK, &json!({})),
            Lie::Failures
                if path.starts_with("/products/")
                    && method == Method::GET
                    && number.is_multiple_of(3) =>
            {
                return json_body(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &json!({"title": "Broken"}),
                );
            }
            Lie::ForgottenKey => {
                headers.remove("idempotency-key");
            }
            _ => {}
        }
        let asks_for_own = headers.contains_key("stock-min-version");
        let (status, version, kind, text) = self.forward(method.clone(), path, headers, body).await;
        let is_history = path.contains("/history");
        let text = match self.lie {
            Lie::StaleAnswer if is_level && !is_history => {
                let mut first = self.first.lock().unwrap();
                first.entry(path.to_owned()).or_insert(text).clone()
            }
            Lie::ForgottenWrite if is_level && asks_for_own => changed(&text, |level| {
                level["revision"] = json!(level["revision"].as_i64().unwrap() - 1);
            }),
            Lie::BelowZero if is_level && !is_history => changed(&text, |level| {
                level["quantity"] = json!(-1);
            }),
            Lie::OtherView if path.starts_with("/inventory/LT-") && method == Method::GET => {
                changed(&text, |product| {
                    product["total_stock"] = json!(product["total_stock"].as_i64().unwrap() + 1);
                })
            }
            Lie::Oversell if path == "/orders/" && status == StatusCode::CONFLICT => {
                return json_body(StatusCode::CREATED, &json!({"id": 0}));
            }
            Lie::Leak if path == "/metrics" => {
                let text = String::from_utf8_lossy(&text);
                let more = format!(
                    "process_resident_memory_bytes {}",
                    10_000_000 * (number + 1)
                );
                let lines = text.lines().map(|line| {
                    let is_it = line.starts_with("process_resident_memory_bytes ");
                    if is_it { more.as_str() } else { line }
                });
                lines.collect::<Vec<_>>().join("\n").into()
            }
            _ => text,
        };
        let mut response = (status, Body::from(text)).into_response();
        for (name, value) in [("stock-version", version), ("content-type", kind)] {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    async fn forward(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> (
        StatusCode,
        Option<header::HeaderValue>,
        Option<header::HeaderValue>,
        Bytes,
    ) {
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let sent = self
            .client
            .request(method, format!("{}{path}", self.base))
            .headers(headers)
            .body(body)
            .send();
        let answer = sent.await.expect("an answer");
        let header = |name: &str| answer.headers().get(name).cloned();
        let (version, kind) = (header("stock-version"), header("content-type"));
        (
            answer.status(),
            version,
            kind,
            answer.bytes().await.expect("a body"),
        )
    }

    fn freeze(self: &Arc<Self>) {
        self.answers.send_replace(false);
        let liar = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(FREEZES_FOR).await;
            liar.answers.send_replace(true);
        });
    }

    /// What a client hears instead of a frame.
    fn tell(&self, frame: &str) -> Vec<String> {
        let mut told: Value = serde_json::from_str(frame).expect("JSON");
        let is_quiet = told["data"]["change"] == 0;
        let is_update = told["type"] == "update"
            && match self.lie {
                Lie::Gap => !is_quiet,
                Lie::QuietGap => is_quiet,
                _ => true,
            };
        let number = self
            .updates
            .fetch_add(u64::from(is_update), Ordering::Relaxed);
        let whole = vec![frame.to_owned()];
        match self.lie {
            Lie::Gap | Lie::QuietGap if is_update && number == LIES_ABOUT => Vec::new(),
            Lie::Twice if is_update && number == LIES_ABOUT => [&whole[..], &whole[..]].concat(),
            Lie::OtherPicture if is_update => {
                let reserved = told["data"]["reserved"].as_i64().unwrap();
                told["data"]["reserved"] = json!(reserved + 1);
                vec![told.to_string()]
            }
            Lie::LostAlert if told["type"] == "low_stock_alert" => Vec::new(),
            _ => whole,
        }
    }
}

fn changed(text: &[u8], change: impl FnOnce(&mut Value)) -> Bytes {
    let mut value = serde_json::from_slice(text).expect("JSON");
    change(&mut value);
    value.to_string().into()
}

fn json_body(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}

async fn carry(liar: Arc<Liar>, path: String, mut client: WebSocket) {
    let url = format!("{}{path}", liar.base.replacen("http", "ws", 1));
    let Ok((mut service, _)) = connect_async(url).await else {
        return;
    };
    loop {
        tokio::select! {
            from_client = client.recv() => match from_client {
                Some(Ok(Message::Pong(_) | Message::Ping(_))) => {}
                _ => return,
            },
            from_service = service.next() => match from_service {
                Some(Ok(tungstenite::Message::Text(frame))) => {
                    for told in liar.tell(&frame) {
                        if client.send(Message::text(told)).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Ok(tungstenite::Message::Ping(_))) => drop(service.flush().await),
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}

/// Carries messages from one topic to the other, one after the other, key and value as they are.
async fn relay(from: Kafka, to: Kafka, lie: Lie) {
    let producer: FutureProducer = kafka::producer_config(&to).create().expect("a producer");
    let consumer: BaseConsumer<DefaultConsumerContext> =
        kafka::consumer(&from, DefaultConsumerContext).expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..from.partitions {
        all.add_partition_offset(&from.topic, partition, Offset::Beginning)
            .expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let consumer = Arc::new(consumer);
    // What was said, each once: who hears of one of two that say the same has lost nothing.
    let mut facts = HashSet::new();
    let mut about = None;
    let clock = Clock::system();
    loop {
        let polling = Arc::clone(&consumer);
        let message = tokio::task::spawn_blocking(move || {
            let message = polling.poll(Duration::from_millis(20))?.ok()?;
            Some(message.detach())
        });
        let Some(message) = message.await.expect("a poll") else {
            continue;
        };
        let value = message.payload();
        let is_fact = event::decode(value, event::Form::Structured).is_ok();
        let said = value
            .and_then(|value| Some(serde_json::from_slice::<Value>(value).ok()?["data"].take()));
        let is_new = is_fact && facts.insert(said.clone());
        let is_it = is_new && facts.len() as u64 == LIES_ABOUT;
        if is_it {
            about.clone_from(&said);
        }
        let mut values = vec![value.map(<[u8]>::to_vec)];
        match lie {
            // With everything that says the same again.
            Lie::LostSide if about.is_some() && about == said => values.clear(),
            Lie::SwallowedDeadLetter if !is_fact => values.clear(),
            Lie::DoubledSide if is_it => {
                values.push(Some(other(value, "movement_id", &json!(Uuid::new_v4()))));
            }
            Lie::OtherQuantity if is_it => {
                values = vec![Some(other(value, "quantity", &json!(7_777)))];
            }
            _ => {}
        }
        for value in values {
            let mut record = FutureRecord::<[u8], [u8]>::to(&to.topic);
            record.key = message.key();
            record.payload = value.as_deref();
            kafka::send(&producer, record).await.expect("acknowledged");
        }
        assert!(
            clock.elapsed() < super::deadline() * 5,
            "a relay that is left"
        );
    }
}

fn other(value: Option<&[u8]>, field: &str, with: &Value) -> Vec<u8> {
    let mut message: Value = serde_json::from_slice(value.unwrap()).expect("JSON");
    message["data"][field] = with.clone();
    message.to_string().into_bytes()
}
