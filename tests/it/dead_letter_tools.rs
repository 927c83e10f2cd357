//! `stockyard dlq`: what operators see of dead letters, and how they bring them back.

use std::{process::Stdio, time::Duration};

use futures_util::future::join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::{
    ClientConfig,
    admin::AdminOptions,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
    topic_partition_list::TopicPartitionList,
};
use serde_json::Value;
use stockyard::{
    event::dead_letter::{Origin, Reason, VALUE_OMITTED, headers},
    kafka,
};
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move, process::said, unique};

/// How long a question to Kafka may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command wrote; it ended well.
fn told(world: &World, arguments: &[&str]) -> String {
    let output = world.stockyard(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The same of a command that did not.
fn told_and_failed(world: &World, arguments: &[&str]) -> String {
    let output = world.stockyard(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// What `dlq list --json` says, a document for each message.
fn listed(world: &World, arguments: &[&str]) -> Vec<Value> {
    let text = told(world, &[&["dlq", "list", "--json"], arguments].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn consumer(world: &World) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &world.config.kafka.bootstrap_servers)
        .create()
        .unwrap()
}

/// How many messages the topic has got so far.
fn published(world: &World) -> i64 {
    let (consumer, kafka) = (consumer(world), &world.config.kafka);
    (0..kafka.partitions)
        .map(|partition| {
            let ends = consumer.fetch_watermarks(&kafka.topic, partition, PATIENCE);
            ends.unwrap().1
        })
        .sum()
}

fn origin(world: &World, partition: i32, offset: i64) -> String {
    format!("{}/{partition}@{offset}", world.config.kafka.topic)
}

#[tokio::test]
async fn letters_are_listed_by_message_and_shown_in_full() {
    let world = World::new().await;
    let service = world.start().await;
    world.send_to(0, "\u{1b}[2J no json").await;
    let named = format!(
        r#"{{"data": {{"quantity": 1e300}}, "a": "{}"}}"#,
        "é".repeat(3)
    );
    world.send_to(1, &named).await;
    let headers = OwnedHeaders::new().insert(Header {
        key: "trace",
        value: Some("abc"),
    });
    // A header of ours that is not: what came with the message does not count.
    let headers = headers.insert(Header {
        key: "stockyard.reason",
        value: Some("conflict"),
    });
    world.send_raw(b"key", Some(b"\xff\x00\xfe"), headers).await;
    world.dead_letters(3).await;
    service.stop().await;
    // As after a crash before anything of them was remembered: all of it comes again, and becomes letters again.
    world.database.run("delete from ingest_progress").await;
    let service = world.start().await;
    world.dead_letters(6).await;
    service.stop().await;

    let rows = listed(&world, &[]);
    assert_eq!(rows.len(), 3, "{rows:#?}");
    let first = origin(&world, 0, 0);
    for row in &rows {
        assert_eq!(
            (&row["letters"], &row["failed_again"]),
            (&2.into(), &0.into()),
            "{row}"
        );
    }
    let row = rows
        .iter()
        .find(|row| row["origin"] == first.as_str())
        .unwrap();
    assert_eq!(
        (&row["reason"], &row["stage"]),
        (&"not_json".into(), &"VALUE_CONVERTER".into())
    );
    assert_eq!(row["value_bytes"], 12);
    let table = told(&world, &["dlq", "list"]);
    assert!(
        table.starts_with("ORIGIN") && table.contains(&first),
        "{table}"
    );
    let sums = "3 messages in 6 letters; 1 invalid_message, 2 not_json\n";
    assert!(table.ends_with(sums), "{table}");

    // Filters, each of which leaves something out.
    let reasons = listed(
        &world,
        &["--reason", "invalid_message", "--reason", "conflict"],
    );
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    assert_eq!(listed(&world, &["--limit", "2"]), rows[1..]);
    let times: Vec<&str> = rows
        .iter()
        .map(|row| row["written_at"].as_str().unwrap())
        .collect();
    let late = listed(&world, &["--since", times[2], "--limit", "9"]);
    assert_eq!(late.last().unwrap()["origin"], rows[2]["origin"]);
    assert_eq!(
        listed(&world, &["--until", "2001-01-01T00:00:00Z"]),
        [Value::Null; 0]
    );
    assert_eq!(
        listed(&world, &["--since", "2099-01-01T00:00:00Z"]),
        [Value::Null; 0]
    );
    assert_eq!(
        listed(&world, &["--origin-topic", &world.config.kafka.topic]),
        rows
    );
    assert_eq!(
        listed(&world, &["--origin-topic", "elsewhere"]),
        [Value::Null; 0]
    );

    // Shown: everything, and nothing that steers the terminal.
    let shown = told(&world, &["dlq", "show", "0@0"]);
    assert_eq!(shown.matches("dead letter of").count(), 2, "{shown}");
    assert!(
        shown.contains("value, 12 bytes as text:\n\\u{1b}[2J no json\n"),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}') && !table.contains('\u{1b}'),
        "{shown}"
    );
    let shown = told(&world, &["dlq", "show", &origin(&world, 1, 0)]);
    let indented = "{\n  \"data\": {\n    \"quantity\": 1e300\n  },\n  \"a\": \"ééé\"\n}\n";
    assert!(shown.contains(indented), "{shown}");
    let bytes = rows.iter().find(|row| row["value_bytes"] == 3).unwrap();
    let shown = told(&world, &["dlq", "show", bytes["origin"].as_str().unwrap()]);
    for part in [
        "ff00fe\n",
        "header trace: abc\n",
        "key, 3 bytes as text:\nkey\n",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    told_and_failed(&world, &["dlq", "show", "0@99"]);

    // Whatever else lies in the topic is counted, and a log may end with what is no message.
    let dead_letter_topic = world.config.kafka.dead_letter_topic();
    let transactional: FutureProducer = kafka::producer_config(&world.config.kafka)
        .set("transactional.id", unique("stranger"))
        .create()
        .unwrap();
    transactional.init_transactions(PATIENCE).unwrap();
    transactional.begin_transaction().unwrap();
    let stranger = FutureRecord::<[u8], [u8]>::to(&dead_letter_topic).payload(b"?");
    transactional.send(stranger, PATIENCE).await.unwrap();
    transactional.commit_transaction(PATIENCE).unwrap();
    // The broker ends a transaction after it has said so.
    eventually("the stranger is counted", async || {
        let table = told(&world, &["dlq", "list"]);
        let counted = "1 messages are no dead letters of Stockyard\n";
        table.ends_with(counted).then_some(())
    })
    .await;
    world.database.remove().await;
}

#[tokio::test]
async fn looking_leaves_nothing_behind() {
    let mut world = World::new().await;
    let service = world.start().await;
    world.send("no json").await;
    world.dead_letters(1).await;
    service.stop().await;
    world.config.kafka.group = unique("operator");
    let before = published(&world);
    for arguments in [
        &["dlq", "list"][..],
        &["dlq", "replay", "--all", "--force", "--dry-run"],
    ] {
        told(&world, arguments);
    }
    // Who reads may have seen enough before the end.
    let mut command = world.command(&["dlq", "list"]);
    let mut unread = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    let unread = unread.wait_with_output().unwrap();
    assert!(unread.status.success(), "{}", said(&unread));
    let groups = consumer(&world).fetch_group_list(None, PATIENCE).unwrap();
    let ours = |group: &&rdkafka::groups::GroupInfo| group.name() == world.config.kafka.group;
    assert!(
        groups.groups().iter().find(ours).is_none(),
        "a group was left behind"
    );
    assert_eq!(published(&world), before);
    world.dead_letters(1).await;

    world.config.kafka.topic = unique("nowhere");
    let failed = told_and_failed(&world, &["dlq", "list"]);
    assert!(
        failed.contains(&world.config.kafka.dead_letter_topic()),
        "{failed}"
    );
    told_and_failed(&world, &["dlq", "replay", "--dry-run"]);
    world.database.remove().await;
}

#[tokio::test]
async fn a_replay_takes_effect_once() {
    let world = World::new().await;
    let service = world.start().await;
    let refused = Move::new(Uuid::new_v4(), Uuid::new_v4(), 4);
    world
        .is_almost_full(refused.warehouse, refused.product)
        .await;
    world.send_to(2, &refused.arrival()).await;
    world.send_to(2, "no json").await;
    world.dead_letters(2).await;
    world.database.run("delete from stock_levels").await;
    world.is_caught_up(2).await;

    let what = format!("arrival of 4 units of product {}", refused.product);
    let plan = told(&world, &["dlq", "replay", "--all", "--dry-run"]);
    assert!(
        plan.contains(&what) && plan.contains("still not_json: "),
        "{plan}"
    );
    assert!(
        plan.ends_with("1 would be sent, 1 left alone, 0 failed\n"),
        "{plan}"
    );
    assert_eq!(published(&world), 2, "a dry run sends nothing");
    assert_eq!(
        world
            .database
            .number("select count(*) from stock_ledger")
            .await,
        0
    );

    let done = told(&world, &["dlq", "replay", "--all"]);
    assert!(done.ends_with("1 sent, 1 left alone, 0 failed\n"), "{done}");
    service
        .has_on_hand(refused.warehouse, refused.product, 4)
        .await;
    assert!(done.contains("sent to 2@2: "), "where it came from: {done}");
    told(
        &world,
        &["dlq", "replay", "--reason", "rejected_by_database"],
    );
    told(&world, &["dlq", "replay", "2@0", "2@0"]);
    assert_eq!(published(&world), 5, "each message once in a run");
    let topic = &world.config.kafka.topic;
    let duplicates = format!(
        r#"warehouse_kafka_consumer_messages_processed_total{{status="duplicate",topic="{topic}"}}"#
    );
    eventually("two duplicates", async || {
        (service.count(&duplicates).await == 2).then_some(())
    })
    .await;
    let stock = service.stock(refused.warehouse, refused.product).await.body;
    assert_eq!(
        (&stock["on_hand"], &stock["revision"]),
        (&4.into(), &1.into())
    );
    world.dead_letters(2).await;
    let verified = told(&world, &["verify"]);
    assert!(
        verified.contains("1 sides of movements, 1 commits: 0 differences"),
        "{verified}"
    );

    let failed = told_and_failed(&world, &["dlq", "replay", "2@0", "3@7", "--dry-run"]);
    assert!(
        failed.contains("/3@7: there is no dead letter of it"),
        "{failed}"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_fails_again_is_known_for_the_same_message() {
    let world = World::new().await;
    let service = world.start().await;
    let headers = OwnedHeaders::new().insert(Header {
        key: "trace",
        value: Some("abc"),
    });
    world.send_raw(b"key", Some(b"no json"), headers).await;
    world.dead_letters(1).await;
    let first = listed(&world, &[])[0]["origin"]
        .as_str()
        .unwrap()
        .to_owned();
    for times in 1..=3 {
        let done = told(&world, &["dlq", "replay", "--all", "--force"]);
        assert!(done.ends_with("1 sent, 0 left alone, 0 failed\n"), "{done}");
        let letters = world.dead_letters(times + 1).await;
        let newest = letters.last().unwrap();
        assert_eq!(newest.header("stockyard.first_origin"), first);
        let of = |name: &str| newest.headers.iter().filter(|(key, _)| key == name).count();
        assert_eq!(
            (
                of("trace"),
                of("stockyard.reason"),
                of("stockyard.first_origin")
            ),
            (1, 1, 1)
        );
        assert_eq!(newest.key.as_deref(), Some(b"key".as_slice()));
        let rows = listed(&world, &[]);
        assert_eq!(rows.len(), 1, "{rows:#?}");
        assert_eq!(rows[0]["origin"], first.as_str());
        assert_eq!(
            (&rows[0]["letters"], &rows[0]["failed_again"]),
            (&(times + 1).into(), &times.into())
        );
    }
    assert_eq!(published(&world), 4);
    let shown = told(&world, &["dlq", "show", &first]);
    assert_eq!(
        shown.matches(&format!("replayed from {first}")).count(),
        3,
        "{shown}"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn another_message_at_a_known_origin_is_not_taken_for_it() {
    let world = World::new().await;
    let service = world.start().await;
    world.send_to(0, "no json").await;
    world.dead_letters(1).await;
    // Somebody else's header, or a topic that was made anew.
    let claimed = origin(&world, 0, 0);
    let good = Move::new(Uuid::new_v4(), Uuid::new_v4(), 3);
    let claims = OwnedHeaders::new().insert(Header {
        key: "stockyard.first_origin",
        value: Some(&claimed),
    });
    let spoilt = good.arrival().replace("arrival", "lost");
    world
        .send_raw(b"key", Some(spoilt.as_bytes()), claims)
        .await;
    world.dead_letters(2).await;
    let rows = listed(&world, &[]);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    let plan = told(&world, &["dlq", "replay", "0@0", "--dry-run"]);
    assert!(
        plan.ends_with("2 would be sent, 0 left alone, 0 failed\n"),
        "{plan}"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn messages_that_fit_one_by_one_are_not_refused_together() {
    let world = World::new().await;
    let service = world.start().await;
    let values: Vec<String> = (0..100).map(|_| unique("no json")).collect();
    join_all(values.iter().map(|value| world.send_to(0, value))).await;
    world.dead_letters(100).await;
    // Room for a few of them.
    world
        .limit_message_bytes(&world.config.kafka.topic, 1_000)
        .await;
    let done = told(&world, &["dlq", "replay", "--all", "--force"]);
    assert!(
        done.ends_with("100 sent, 0 left alone, 0 failed\n"),
        "{done}"
    );
    world.dead_letters(200).await;
    assert_eq!(listed(&world, &["--limit", "500"]).len(), 100);
    service.stop().await;
    world.database.remove().await;
}

/// Tries to send a value alone: no key, no headers.
async fn takes(producer: &FutureProducer, topic: &str, value: &[u8]) -> bool {
    let record = FutureRecord::<[u8], [u8]>::to(topic).partition(0);
    match producer.send(record.payload(value), PATIENCE).await {
        Ok(_) => true,
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => false,
        Err((error, _)) => panic!("{error}"),
    }
}

fn producer(world: &World, compression: &str) -> FutureProducer {
    let mut settings = kafka::producer_config(&world.config.kafka);
    settings
        .set("message.max.bytes", "10000000")
        .set("compression.type", compression)
        .create()
        .unwrap()
}

#[tokio::test]
async fn a_message_as_large_as_the_topic_takes_comes_back() {
    let mut world = World::with(|config| config.ingest.max_message_bytes = 10_000).await;
    let topic = world.config.kafka.topic.clone();
    // A batch of one message without key and headers has 72 bytes beside the value.
    let largest = world.config.kafka.message_bytes_max - 72;
    let moves: Vec<Move> = (0..2)
        .map(|_| Move::new(Uuid::new_v4(), Uuid::new_v4(), 3))
        .collect();
    let mut noise = vec![0; largest];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
    let raw = producer(&world, "none");
    assert!(takes(&raw, &topic, &moves[0].padded(largest)).await);
    assert!(!takes(&raw, &topic, &moves[0].padded(largest + 1)).await);
    assert!(takes(&raw, &topic, &noise).await);
    // Compressed, the topic takes more than the dead-letter topic will.
    let compressed = producer(&world, "gzip");
    assert!(takes(&compressed, &topic, &moves[1].padded(5_000_000)).await);

    let service = world.start().await;
    let letters = world.dead_letters(3).await;
    assert_eq!(letters[0].value.as_ref().map(Vec::len), Some(largest));
    service.stop().await;
    let rows = listed(&world, &["--reason", "too_large"]);
    let sizes: Vec<(u64, bool)> = rows
        .iter()
        .map(|row| {
            (
                row["value_bytes"].as_u64().unwrap(),
                row["value_omitted"] == true,
            )
        })
        .collect();
    let largest = largest as u64;
    assert_eq!(
        sizes,
        [(largest, false), (largest, false), (5_000_000, true)]
    );
    let shown = told(&world, &["dlq", "show", "0@0"]);
    assert!(
        shown.contains(&moves[0].movement.to_string()),
        "the message"
    );
    let shown = told(&world, &["dlq", "show", "0@2"]);
    assert!(shown.contains("value left out: 5000000 bytes"), "{shown}");

    let plan = told(&world, &["dlq", "replay", "--all", "--dry-run"]);
    assert!(
        plan.ends_with("0 would be sent, 3 left alone, 0 failed\n"),
        "{plan}"
    );
    assert_eq!(plan.matches("still too_large").count(), 3, "{plan}");
    world.config.ingest.max_message_bytes = 10_000_000;
    let service = world.start().await;
    for _ in 0..2 {
        let done = told(&world, &["dlq", "replay", "--all"]);
        assert!(done.ends_with("2 sent, 1 left alone, 0 failed\n"), "{done}");
        for moved in &moves {
            service.has_on_hand(moved.warehouse, moved.product, 3).await;
        }
    }
    world.is_caught_up(7).await;
    world.dead_letters(3).await;
    // What does not shrink leaves no room for a header, and is sent as it was.
    let done = told(&world, &["dlq", "replay", "0@1"]);
    assert!(done.ends_with("1 sent, 0 left alone, 0 failed\n"), "{done}");
    let letters = world.dead_letters(4).await;
    assert_eq!(letters[3].value.as_ref(), Some(&noise));
    let verified = told(&world, &["verify"]);
    assert!(
        verified.contains(" 2 sides of movements,") && verified.ends_with(": 0 differences\n"),
        "{verified}"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_value_that_was_left_out_comes_from_its_origin_or_not_at_all() {
    let small = unique("small");
    let world = World::with(|config| config.kafka.dead_letter_topic.clone_from(&small)).await;
    world.limit_message_bytes(&small, 5_000).await;
    let service = world.start().await;
    let refused = Move::new(Uuid::new_v4(), Uuid::new_v4(), 4);
    world
        .is_almost_full(refused.warehouse, refused.product)
        .await;
    let value = String::from_utf8(refused.padded(100_000)).unwrap();
    world.send_to(0, "no json").await;
    world.send_to(0, &value).await;
    // Two lanes write them, in any order.
    let letters = world.dead_letters(2).await;
    let refused_one = letters
        .iter()
        .find(|letter| letter.reason() == "rejected_by_database")
        .unwrap();
    assert_eq!(refused_one.header("stockyard.value_omitted"), "100000");
    world.database.run("delete from stock_levels").await;

    let done = told(
        &world,
        &["dlq", "replay", "--reason", "rejected_by_database"],
    );
    assert!(done.ends_with("1 sent, 0 left alone, 0 failed\n"), "{done}");
    service
        .has_on_hand(refused.warehouse, refused.product, 4)
        .await;

    // At the origin there is another message: the topic was made anew.
    let elsewhere = Origin {
        topic: world.config.kafka.topic.clone(),
        partition: 0,
        offset: 0,
    };
    let omitted = [(VALUE_OMITTED, "99".to_owned())];
    let headers = headers(&elsewhere, Reason::TooLarge, "")
        .into_iter()
        .chain(omitted)
        .fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header {
                key,
                value: Some(&value),
            })
        });
    let letter = FutureRecord::<[u8], [u8]>::to(&small).headers(headers);
    producer(&world, "none")
        .send(letter.payload(b""), PATIENCE)
        .await
        .unwrap();
    let failed = told_and_failed(&world, &["dlq", "replay", "--reason", "too_large"]);
    assert!(
        failed.contains("0 sent, 0 left alone, 1 failed"),
        "{failed}"
    );

    // Kafka has dropped it.
    let mut before = TopicPartitionList::new();
    let topic = &world.config.kafka.topic;
    before
        .add_partition_offset(topic, 0, rdkafka::Offset::Offset(2))
        .unwrap();
    world
        .admin()
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let failed = told_and_failed(&world, &["dlq", "replay", "--all"]);
    assert!(
        failed.contains("0 sent, 1 left alone, 2 failed"),
        "{failed}"
    );
    assert!(failed.contains("0@1: its value was left out"), "{failed}");
    service.stop().await;
    world.database.remove().await;
}
