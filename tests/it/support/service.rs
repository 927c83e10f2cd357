//! A service with everything of its own, run inside the test.

use std::{
    fs::File,
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use stockyard::{
    app::{self, Listeners, Parts},
    cache::rule::Conditions,
    clock::Clock,
    config::Config,
    inventory::{Inventory, feed::Nobody},
    kafka,
    metrics::Metrics,
    tls::{self, Trust},
    traces::Traces,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    TestDatabase, eventually,
    process::{self, Process, serve},
    server,
    tls::Authority,
    unique,
};

/// Longest Kafka may take to answer a question.
const KAFKA_MAX: Duration = Duration::from_secs(30);

/// What a service lives in: a database, topics, a group and a prefix. Services come and go in it.
pub struct World {
    pub database: TestDatabase,
    pub config: Config,
    producer: FutureProducer,
}

/// A service under way.
pub struct Service {
    pub base: String,
    client: Client,
    /// Whose certificates are good enough, where it is asked by HTTPS.
    trust: Option<Trust>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), app::AppError>>,
}

/// What a request got.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

/// A message of the dead-letter topic.
#[derive(Debug)]
pub struct DeadLetter {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

impl DeadLetter {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                    (header.key.to_owned(), value.into_owned())
                })
                .collect(),
        }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    pub fn reason(&self) -> &str {
        self.header("stockyard.reason")
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A world with settings of its own.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::around(TestDatabase::create().await, change).await
    }

    /// A world around a database that is there.
    pub async fn around(database: TestDatabase, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = default_config();
        let name = unique("movements");
        config.database.url.clone_from(&database.url);
        config.redis.url = server("STOCKYARD_TEST_REDIS_URL");
        config.redis.prefix = format!("{name}:");
        // On a loaded machine a slow Redis is not what these tests are about.
        config.redis.timeout_ms = 2_000;
        config.kafka.bootstrap_servers = server("STOCKYARD_TEST_KAFKA");
        config.kafka.topic.clone_from(&name);
        config.kafka.group = name;
        config.kafka.partitions = 4;
        // Nobody has to learn that a service goes.
        config.http.lame_duck_ms = 0;
        config.ingest.position_check_interval_ms = 100;
        config.ingest.retry_max_ms = 200;
        change(&mut config);
        kafka::make_topics(&config.kafka).await.expect("topics");
        let mut settings = kafka::producer_config(&config.kafka);
        let producer = settings
            .set("message.max.bytes", "10000000")
            .create()
            .expect("a producer");
        Self {
            database,
            config,
            producer,
        }
    }

    /// The use cases over this world's servers, without a service around them.
    pub fn inventory(&self) -> Arc<Inventory> {
        let metrics = Metrics::new().expect("metrics");
        let (inventory, _follower, _decider) = app::inventory(
            &self.config,
            &Clock::system(),
            metrics,
            Conditions::ALL,
            Arc::new(Nobody),
            Traces::default(),
        )
        .expect("an inventory");
        inventory
    }

    /// Starts a service that does everything, and waits until it is ready.
    pub async fn start(&self) -> Service {
        let service = self
            .start_parts(Parts {
                answers: true,
                ingests: true,
            })
            .await;
        service.is_ready().await;
        service
    }

    /// Starts one that is asked by HTTPS, as the settings have it.
    pub async fn start_encrypted(&self, authority: &Authority) -> Service {
        let parts = Parts {
            answers: true,
            ingests: true,
        };
        let service = self.start_parts(parts).await.over_tls(&authority.ca);
        service.is_ready().await;
        service
    }

    pub async fn start_parts(&self, parts: Parts) -> Service {
        self.start_on(0, parts).await
    }

    /// Starts a service on that port.
    pub async fn start_on(&self, port: u16, parts: Parts) -> Service {
        let open = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a port");
        let listeners = Listeners {
            open: vec![open],
            admin: Vec::new(),
        };
        self.start_with(listeners, parts)
    }

    /// Starts a service on these sockets.
    pub fn start_with(&self, listeners: Listeners, parts: Parts) -> Service {
        let address = listeners.open[0].local_addr();
        let base = format!("http://{}", address.expect("an address"));
        let stop = CancellationToken::new();
        let (config, told) = (self.config.clone(), stop.clone());
        let ended = tokio::spawn(async move { app::run(&config, parts, listeners, told).await });
        Service {
            base,
            client: Client::new(),
            trust: None,
            stop,
            ended,
        }
    }

    /// Starts a service as a process of its own, with settings of its own; it is asked as one inside the test is.
    pub fn start_process(
        &self,
        log: &Path,
        change: impl FnOnce(&mut Config),
    ) -> (Service, Process) {
        let mut config = self.config.clone();
        change(&mut config);
        let (mut command, address) = serve(&config, &log.with_extension("toml"));
        let log = File::create(log).expect("a file");
        let process = Process::saying(&mut command, log);
        (Service::at(&format!("http://{address}")), process)
    }

    /// Publishes a message, wherever Kafka puts it; returns when the broker has it.
    pub async fn send(&self, value: &str) {
        self.send_record(
            FutureRecord::<[u8], [u8]>::to(&self.config.kafka.topic).payload(value.as_bytes()),
        )
        .await;
    }

    pub async fn send_to(&self, partition: i32, value: &str) {
        let record =
            FutureRecord::<[u8], [u8]>::to(&self.config.kafka.topic).payload(value.as_bytes());
        self.send_record(record.partition(partition)).await;
    }

    /// Publishes a value as it is (`None`: a tombstone), with a key and headers.
    pub async fn send_raw(&self, key: &[u8], value: Option<&[u8]>, headers: OwnedHeaders) {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.config.kafka.topic).key(key);
        record.payload = value;
        self.send_record(record.headers(headers)).await;
    }

    async fn send_record(&self, record: FutureRecord<'_, [u8], [u8]>) {
        self.producer
            .send(record, Duration::from_secs(30))
            .await
            .expect("acknowledged");
    }

    /// Puts so much on hand, behind the service's back, that the database refuses the fourth unit more.
    pub async fn is_almost_full(&self, warehouse: Uuid, product: Uuid) {
        self.database
            .run(&format!(
                "insert into products (product_id) values ('{product}');
                insert into warehouses (warehouse_id) values ('{warehouse}');
                insert into stock_levels (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
                values ('{warehouse}', '{product}', {}, 0, 1, now())",
                i64::MAX - 3
            ))
            .await;
    }

    /// Runs a command on this world's servers to its end.
    pub fn stockyard(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// Runs a command with all of this world's settings to its end.
    pub fn command_as_configured(&self, arguments: &[&str]) -> Output {
        let path = std::env::temp_dir().join(unique("settings"));
        let settings = toml::to_string(&self.config).expect("settings");
        std::fs::write(&path, settings).expect("a file");
        let mut command = process::command(arguments, &[]);
        let output = command.arg("--config").arg(&path).output();
        std::fs::remove_file(path).expect("removed");
        output.expect("it runs")
    }

    /// A command on this world's servers.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let kafka = &self.config.kafka;
        let environment = [
            ("DATABASE_URL", self.database.url.as_str()),
            ("KAFKA_BOOTSTRAP_SERVERS", &kafka.bootstrap_servers),
            ("STOCKYARD__KAFKA__TOPIC", &kafka.topic),
            (
                "STOCKYARD__KAFKA__DEAD_LETTER_TOPIC",
                &kafka.dead_letter_topic(),
            ),
            ("STOCKYARD__KAFKA__GROUP", &kafka.group),
            (
                "STOCKYARD__INGEST__MAX_MESSAGE_BYTES",
                &self.config.ingest.max_message_bytes.to_string(),
            ),
        ];
        process::command(arguments, &environment)
    }

    /// For what is done to topics from outside.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.config.kafka.bootstrap_servers)
            .create()
            .expect("an admin client")
    }

    /// Makes a topic refuse what is larger.
    pub async fn limit_message_bytes(&self, topic: &str, bytes: u32) {
        const NAME: &str = "max.message.bytes";
        let bytes = bytes.to_string();
        let (admin, options) = (self.admin(), AdminOptions::new());
        let topic = ResourceSpecifier::Topic(topic);
        let limit = AlterConfig::new(topic).set(NAME, &bytes);
        for result in admin
            .alter_configs(&[limit], &options)
            .await
            .expect("asked")
        {
            result.expect("altered");
        }
        // The controller has it; the broker hears of it a little later.
        eventually("the limit is known", async || {
            let described = admin.describe_configs([&topic], &options).await.ok()?;
            let config = described.into_iter().next()?.ok()?;
            let known = config.get(NAME)?.value.as_ref()?;
            (*known == bytes).then_some(())
        })
        .await;
    }

    /// What Redis holds of a level of this world.
    pub async fn redis_stock(&self, warehouse: Uuid, product: Uuid) -> Option<Vec<u8>> {
        use redis::AsyncCommands;
        let client = redis::Client::open(self.config.redis.url.as_str()).expect("a client");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("redis");
        let (prefix, warehouse) = (&self.config.redis.prefix, warehouse.simple());
        connection
            .get(format!("{prefix}s:{warehouse}:{}", product.simple()))
            .await
            .expect("an answer")
    }

    /// Every dead letter there is, once for each message it is for: after a fault one may be there twice.
    pub async fn all_dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = self.dead_letters_so_far().await;
        let origin = |letter: &DeadLetter| {
            ["partition", "offset"].map(|name| {
                letter
                    .header(&format!("__connect.errors.{name}"))
                    .to_owned()
            })
        };
        letters.sort_by_key(origin);
        letters.dedup_by_key(|letter| origin(letter));
        letters
    }

    /// Waits for that many dead letters and returns them.
    pub async fn dead_letters(&self, count: usize) -> Vec<DeadLetter> {
        let consumer = self.dead_letter_consumer();
        let mut letters = Vec::new();
        eventually("dead letters", async || {
            while let Some(message) = consumer.poll(Duration::from_millis(10)) {
                letters.push(DeadLetter::of(&message.expect("a message")));
            }
            (letters.len() >= count).then_some(())
        })
        .await;
        assert_eq!(letters.len(), count, "{letters:?}");
        letters
    }

    /// The dead letters that are there by now.
    pub async fn dead_letters_so_far(&self) -> Vec<DeadLetter> {
        let consumer = self.dead_letter_consumer();
        let (_, end) = consumer
            .fetch_watermarks(&self.config.kafka.dead_letter_topic(), 0, KAFKA_MAX)
            .expect("watermarks");
        let (mut letters, mut next) = (Vec::new(), 0);
        eventually("the dead letters that are there", async || {
            while let Some(message) = consumer.poll(Duration::from_millis(10)) {
                let message = message.expect("a message");
                next = message.offset() + 1;
                letters.push(DeadLetter::of(&message));
            }
            (next >= end).then_some(())
        })
        .await;
        letters
    }

    fn dead_letter_consumer(&self) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.config.kafka.bootstrap_servers)
            .set("group.id", unique("dead-letters"))
            .set("fetch.message.max.bytes", "20000000")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&self.config.kafka.dead_letter_topic(), 0, Offset::Beginning)
            .expect("an offset");
        consumer.assign(&all).expect("assigned");
        consumer
    }

    /// The next offset of each partition as the consumer group has it, summed up.
    pub fn committed(&self) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.config.kafka.bootstrap_servers)
            .set("group.id", &self.config.kafka.group)
            .create()
            .expect("a consumer");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(
            &self.config.kafka.topic,
            0,
            self.config.kafka.partitions - 1,
        );
        let Ok(committed) = consumer.committed_offsets(asked, KAFKA_MAX) else {
            return 0;
        };
        let offsets = committed.elements().into_iter();
        offsets
            .map(|element| element.offset().to_raw().unwrap_or(0).max(0))
            .sum()
    }

    /// The next offset of each partition as the database has it, summed up.
    pub async fn taken(&self) -> i64 {
        self.database
            .number(
                "select coalesce(sum(next_offset), 0)::bigint from (
                    select min(next_offset) as next_offset from ingest_progress group by topic, partition
                ) p",
            )
            .await
    }

    /// Waits until everything published so far is taken.
    pub async fn is_caught_up(&self, messages: i64) {
        eventually("everything is taken", async || {
            (self.taken().await >= messages).then_some(())
        })
        .await;
    }
}

impl Service {
    /// The one at that address, which is ended by who holds its process.
    pub fn at(base: &str) -> Self {
        let stop = CancellationToken::new();
        let told = stop.clone();
        Self {
            base: base.to_owned(),
            client: Client::new(),
            trust: None,
            stop,
            ended: tokio::spawn(async move {
                told.cancelled().await;
                Ok(())
            }),
        }
    }

    /// Asks by HTTPS from here on, of `localhost`, and trusts whom this authority vouches for.
    #[must_use]
    pub fn over_tls(mut self, ca: &Path) -> Self {
        let port = self.base.rsplit(':').next().expect("a port");
        self.base = format!("https://localhost:{port}");
        let pem = std::fs::read(ca).expect("a file");
        let trusted = Certificate::from_pem_bundle(&pem).expect("certificates");
        let client = Client::builder().tls_certs_only(trusted).build();
        self.client = client.expect("a client");
        self.trust = Some(tls::trust(Some(ca)).expect("certificates"));
        self
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.base.split("://").nth(1).expect("an address")
    }

    /// Whose certificate of what name it has to show; `None`: plain HTTP.
    pub fn tls(&self) -> Option<(&Trust, &str)> {
        self.trust.as_ref().map(|trust| (trust, self.address()))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answered(request).await
    }

    /// Whatever a client may send; of a stream only the head is waited for.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answered(request).await
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.base));
        answered(request.json(body)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answered(request.json(body)).await
    }

    /// The same command again gets the same answer.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.post_with(path, &[("idempotency-key", key)], body)
            .await
    }

    /// Restocks a new product in a new warehouse; both, by their ids.
    pub async fn stocked(&self, units: i64) -> (Uuid, Uuid) {
        let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
        self.put(&format!("/api/warehouses/{warehouse}"), json!({}))
            .await;
        self.put(&format!("/api/products/{product}"), json!({}))
            .await;
        let body =
            json!({"warehouse": warehouse, "product": product, "change": units, "kind": "restock"});
        let stocked = self.post("/api/adjustments", &body).await;
        assert_eq!(stocked.status, StatusCode::CREATED, "{stocked:?}");
        (warehouse, product)
    }

    /// Stores an entry of the catalogue.
    pub async fn put(&self, path: &str, entry: Value) {
        let stored = self.send(Method::PUT, path, &entry).await;
        assert!(stored.status.is_success(), "{path}: {stored:?}");
    }

    pub async fn movement(&self, id: impl std::fmt::Display) -> Answer {
        self.get(&format!("/api/movements/{id}")).await
    }

    pub async fn stock(
        &self,
        warehouse: impl std::fmt::Display,
        product: impl std::fmt::Display,
    ) -> Answer {
        self.get(&format!("/api/warehouses/{warehouse}/products/{product}"))
            .await
    }

    /// Waits until so much is on hand.
    pub async fn has_on_hand(
        &self,
        warehouse: impl std::fmt::Display,
        product: impl std::fmt::Display,
        units: i64,
    ) -> Answer {
        let path = format!("/api/warehouses/{warehouse}/products/{product}");
        eventually(&format!("{units} on hand at {path}"), async || {
            let answer = self.get(&path).await;
            (answer.body["on_hand"] == units).then_some(answer)
        })
        .await
    }

    /// The status, if there is an answer.
    pub async fn try_get(&self, path: &str) -> Option<StatusCode> {
        let asked = self.client.get(format!("{}{path}", self.base)).send();
        Some(asked.await.ok()?.status())
    }

    pub async fn is_ready(&self) {
        eventually("the service is ready", async || {
            let ready = self.try_get("/readyz").await?;
            ready.is_success().then_some(())
        })
        .await;
    }

    /// The value of a counter, as `/metrics` shows it.
    pub async fn count(&self, series: &str) -> u64 {
        let Value::String(text) = self.get("/metrics").await.body else {
            panic!("no text")
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series}"))
            .parse()
            .expect("a whole number")
    }

    /// Tells it to stop, as a signal does.
    pub fn leave(&self) {
        self.stop.cancel();
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.end().await.expect("ended well");
    }

    /// Stops it, or waits until it has ended by itself; what it ended with.
    pub async fn end(self) -> Result<(), app::AppError> {
        self.stop.cancel();
        self.ended.await.expect("no panic")
    }

    /// Waits until it ends by itself.
    pub async fn ends(self) -> Result<(), app::AppError> {
        tokio::time::timeout(super::deadline(), self.ended)
            .await
            .expect("it ends")
            .expect("no panic")
    }
}

fn default_config() -> Config {
    let empty = std::collections::HashMap::new();
    Config::from_layers(None, empty).expect("the defaults")
}

async fn answered(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let kind = headers.get("content-type");
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return Answer {
            status,
            headers,
            body: Value::Null,
        };
    }
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        headers,
        body,
    }
}
