//! Kafka clients from the configuration, and the topics. No logic of what the messages mean.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::{FromClientConfig, FromClientConfigAndContext},
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedHeaders, Header, Headers},
    producer::{
        BaseRecord, FutureProducer, FutureRecord, ProducerContext, ThreadedProducer,
        future_producer::Delivery,
    },
    util::Timeout,
};

use crate::config::Kafka;

/// The dead-letter topic takes this much more than the source: the headers that say why and from where.
pub const DEAD_LETTER_ROOM_BYTES: usize = 64 * 1024;
/// Longest a message may wait for room in a producer's queue.
const QUEUE_MAX: Duration = Duration::from_secs(5);
/// How long a full queue is left to drain.
const QUEUE_WAIT: Duration = Duration::from_millis(5);
/// Longest an administrative request may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bound of the messages fetched ahead, in KiB: what a consumer holds beside its batches.
const FETCHED_AHEAD_KBYTES: &str = "16384";
/// A request that the broker has not answered by then has lost its connection: nobody tells when the network did. The default
/// is a minute, in which nothing would come in after the network is well again.
const SOCKET_TIMEOUT_MS: &str = "10000";

/// A consumer that neither commits nor resets by itself: positions are the caller's.
pub fn consumer<C: ConsumerContext + 'static>(
    kafka: &Kafka,
    context: C,
) -> Result<BaseConsumer<C>, KafkaError> {
    let mut config = client(kafka);
    config
        .set("group.id", &kafka.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that is not there is a decision to be made, not a default.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KBYTES)
        // How long a full queue waits before it fetches again; the default of a second would show as a stall.
        .set("fetch.queue.backoff.ms", "20")
        // A fetch that finds nothing is answered when something comes: no wait for company on the broker.
        .set("fetch.min.bytes", "1")
        .set("session.timeout.ms", "15000")
        .set("heartbeat.interval.ms", "3000")
        .set("topic.metadata.refresh.interval.ms", "10000");
    with_options(&mut config, kafka);
    BaseConsumer::from_config_and_context(&config, context).map_err(without_value)
}

/// A producer whose acknowledgement means that every in-sync replica has the message. A refusal means a whole request: it may
/// be for the sake of another message in it.
pub fn producer(kafka: &Kafka) -> Result<FutureProducer, KafkaError> {
    create(&producer_config(kafka))
}

/// One whose refusals mean the message: each travels alone, which allows some thousands a second.
pub fn lone_producer(kafka: &Kafka) -> Result<FutureProducer, KafkaError> {
    let mut config = producer_config(kafka);
    create(config.set("batch.num.messages", "1"))
}

/// A producer's settings.
pub fn producer_config(kafka: &Kafka) -> ClientConfig {
    let mut config = client(kafka);
    let largest = kafka.message_bytes_max + DEAD_LETTER_ROOM_BYTES;
    config
        // Not the idempotent producer: a letter may come twice, and that one fails for good after some broker faults.
        .set("acks", "all")
        .set("message.max.bytes", largest.to_string())
        .set("linger.ms", "1")
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
        .set("delivery.timeout.ms", "30000");
    with_options(&mut config, kafka);
    config
}

/// Sends a message and waits until Kafka has it.
pub async fn send(
    producer: &FutureProducer,
    record: FutureRecord<'_, [u8], [u8]>,
) -> Result<Delivery, KafkaError> {
    let sent = producer.send(record, Timeout::After(QUEUE_MAX)).await;
    sent.map_err(|(error, _)| error)
}

/// Hands a message to a producer's queue; waits while that is full, which bounds what is under way.
pub fn enqueue<C: ProducerContext<DeliveryOpaque = ()> + 'static>(
    producer: &ThreadedProducer<C>,
    mut record: BaseRecord<'_, String, [u8]>,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(QUEUE_WAIT);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Whether the message is larger than its topic takes.
pub fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize
        )
    )
}

/// Makes the topic and its dead-letter topic where they are missing. Returns the names of those it made.
pub async fn make_topics(kafka: &Kafka) -> Result<Vec<String>, KafkaError> {
    let mut config = client(kafka);
    with_options(&mut config, kafka);
    let admin: AdminClient<DefaultClientContext> = create(&config)?;
    let largest = kafka.message_bytes_max.to_string();
    let largest_dead = (kafka.message_bytes_max + DEAD_LETTER_ROOM_BYTES).to_string();
    let dead_letter_topic = kafka.dead_letter_topic();
    let replication = || TopicReplication::Fixed(kafka.replication);
    let topics = [
        NewTopic::new(&kafka.topic, kafka.partitions, replication())
            .set("max.message.bytes", &largest),
        NewTopic::new(&dead_letter_topic, 1, replication()).set("max.message.bytes", &largest_dead),
    ];
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
    let mut made = Vec::new();
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(topic) => made.push(topic),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(made)
}

/// The headers of a message, in order; `None` for one whose name is not UTF-8, which any producer can send and the client
/// library panics over.
pub fn headers(headers: &BorrowedHeaders) -> impl Iterator<Item = Option<Header<'_, &[u8]>>> {
    let read = |place| catch_unwind(AssertUnwindSafe(|| headers.get(place))).ok();
    (0..headers.count()).map(read)
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", "stockyard")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000");
    config
}

/// The operator's own settings go before ours.
fn with_options(config: &mut ClientConfig, kafka: &Kafka) {
    for (option, value) in &kafka.options {
        config.set(option, value);
    }
}

/// A client of these settings.
pub fn create<T: FromClientConfig>(config: &ClientConfig) -> Result<T, KafkaError> {
    config.create().map_err(without_value)
}

/// The library tells the value of a setting that it does not take, and that may be a secret.
pub fn without_value(error: KafkaError) -> KafkaError {
    const HIDDEN: &str = "***";
    match error {
        KafkaError::ClientConfig(result, why, option, value) if !value.is_empty() => {
            let why = why.replace(&value, HIDDEN);
            KafkaError::ClientConfig(result, why, option, HIDDEN.to_owned())
        }
        other => other,
    }
}
