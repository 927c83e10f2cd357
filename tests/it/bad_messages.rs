//! Whatever comes, the stream goes on: a dead letter each, with its reason, and nothing changed.

use rdkafka::message::{Header, OwnedHeaders};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move, unique};

/// A good arrival with one field of its data replaced.
fn spoilt(field: &str, value: Value) -> String {
    let good = Move::new(Uuid::new_v4(), Uuid::new_v4(), 5).arrival();
    let mut message: Value = serde_json::from_str(&good).unwrap();
    message["data"][field] = value;
    message.to_string()
}

fn without(field: &str) -> String {
    let mut message: Value = serde_json::from_str(&spoilt(field, Value::Null)).unwrap();
    message["data"].as_object_mut().unwrap().remove(field);
    message.to_string()
}

fn bad_values() -> Vec<(Vec<u8>, &'static str)> {
    let text = |reason: &'static str| move |text: String| (text.into_bytes(), reason);
    let nil = json!("00000000-0000-0000-0000-000000000000");
    let no_json = [
        "not json",
        "{",
        "[1,",
        "",
        "   ",
        "{\"data\":{\"quantity\":NaN}}",
    ]
    .map(str::to_owned);
    let no_json = no_json
        .into_iter()
        .chain(["[".repeat(100_000), "x".repeat(1_000_000)]);
    let no_movement = [
        "null",
        "7",
        "\"text\"",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":[]}"#,
    ]
    .map(str::to_owned);
    let no_movement = no_movement.into_iter().chain([
        spoilt("quantity", json!(-1)),
        spoilt("quantity", json!(1.5)),
        spoilt("quantity", json!(1_000_000_000_001_i64)),
        spoilt("quantity", json!(1e300)),
        spoilt("quantity", json!("5")),
        spoilt("movement_id", nil.clone()),
        spoilt("warehouse_id", nil.clone()),
        spoilt("product_id", nil),
        spoilt("movement_id", json!(7)),
        spoilt("warehouse_id", json!("WH-1")),
        spoilt("timestamp", json!("1970-01-01T00:00:00Z")),
        spoilt("timestamp", json!("2100-01-01T00:00:00Z")),
        spoilt("timestamp", json!(1_737_439_421)),
        spoilt("event", json!("stolen")),
    ]);
    let fields = [
        "movement_id",
        "warehouse_id",
        "timestamp",
        "event",
        "product_id",
        "quantity",
    ];
    let no_movement = no_movement.chain(fields.into_iter().map(without));
    let mut all: Vec<_> = no_json.map(text("not_json")).collect();
    all.push((b"\xff\xfe\x00".to_vec(), "not_json"));
    all.extend(no_movement.map(text("invalid_message")));
    all
}

#[tokio::test]
async fn each_bad_message_is_a_dead_letter_and_the_next_good_one_is_applied() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    let bad = bad_values();
    for (place, (value, _)) in bad.iter().enumerate() {
        world
            .send_raw(
                place.to_string().as_bytes(),
                Some(value),
                OwnedHeaders::new(),
            )
            .await;
    }
    world
        .send_raw(b"tombstone", None, OwnedHeaders::new())
        .await;
    let letters = world.dead_letters(bad.len() + 1).await;

    for (place, (value, reason)) in bad.iter().enumerate() {
        let key = place.to_string().into_bytes();
        let letter = letters
            .iter()
            .find(|letter| letter.key.as_deref() == Some(&key))
            .unwrap();
        assert_eq!(
            letter.reason(),
            *reason,
            "{}",
            String::from_utf8_lossy(&value[..value.len().min(200)])
        );
        assert_eq!(letter.value.as_ref(), Some(value), "the bytes as they came");
        assert_eq!(
            letter.header("__connect.errors.topic"),
            world.config.kafka.topic
        );
        for number in ["__connect.errors.partition", "__connect.errors.offset"] {
            letter.header(number).parse::<u32>().unwrap();
        }
        for text in [
            "__connect.errors.stage",
            "__connect.errors.exception.message",
        ] {
            assert!(!letter.header(text).is_empty(), "{text}");
        }
    }
    let tombstone = letters
        .iter()
        .find(|letter| letter.key.as_deref() == Some(b"tombstone"))
        .unwrap();
    assert_eq!(
        (tombstone.reason(), &tombstone.value),
        ("invalid_message", &None)
    );

    // Nothing changed, and the stream goes on.
    assert_eq!(
        world
            .database
            .number("select count(*) from movements")
            .await,
        0
    );
    assert_eq!(
        world
            .database
            .number("select max(version) from stock_commits")
            .await,
        0
    );
    world
        .send(&Move::new(warehouse, product, 5).arrival())
        .await;
    service.has_on_hand(warehouse, product, 5).await;
    assert_eq!(
        service
            .count(r#"warehouse_ingest_dead_letters_total{reason="invalid_message"}"#)
            .await,
        28
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_conflict_changes_nothing_whoever_it_conflicts_with() {
    let world = World::new().await;
    let service = world.start().await;
    let first = Move::new(Uuid::new_v4(), Uuid::new_v4(), 5);
    world.send_to(0, &first.arrival()).await;
    service.has_on_hand(first.warehouse, first.product, 5).await;
    let other = Move { units: 6, ..first };
    let elsewhere = Move {
        warehouse: Uuid::new_v4(),
        ..first
    };
    world.send_to(1, &other.arrival()).await;
    world.send_to(2, &elsewhere.arrival()).await;
    let letters = world.dead_letters(2).await;
    assert!(
        letters.iter().all(|letter| letter.reason() == "conflict"),
        "{letters:?}"
    );
    assert_eq!(
        service.stock(first.warehouse, first.product).await.body["on_hand"],
        5
    );
    assert_eq!(
        service.stock(elsewhere.warehouse, first.product).await.body["revision"],
        0
    );
    // The other side is no conflict.
    world.send(&other.departure()).await;
    service
        .has_on_hand(first.warehouse, first.product, -1)
        .await;
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn binary_mode_keeps_its_headers_as_a_dead_letter_too() {
    let world = World::new().await;
    let service = world.start().await;
    let good = Move::new(Uuid::new_v4(), Uuid::new_v4(), 3);
    let data: Value = serde_json::from_str(&good.arrival()).unwrap();
    let headers = || {
        OwnedHeaders::new()
            .insert(Header {
                key: "ce_type",
                value: Some("movement"),
            })
            .insert(Header {
                key: "ce_source",
                value: Some("WH-77"),
            })
    };
    world
        .send_raw(
            b"good",
            Some(data["data"].to_string().as_bytes()),
            headers(),
        )
        .await;
    service.has_on_hand("WH-77", good.product, 3).await;
    world.send_raw(b"bad", Some(b"{}"), headers()).await;
    let letters = world.dead_letters(1).await;
    assert_eq!(
        (letters[0].header("ce_source"), letters[0].reason()),
        ("WH-77", "invalid_message")
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_the_database_refuses_is_found_by_halving() {
    // One lane and a wait, so that the culprit sits in the middle of a batch.
    let world = World::with(|config| {
        config.ingest.lanes = 1;
        config.ingest.max_batch_wait_ms = 300;
    })
    .await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    world.is_almost_full(warehouse, product).await;
    let others: Vec<Move> = (0..40)
        .map(|_| Move::new(Uuid::new_v4(), Uuid::new_v4(), 1))
        .collect();
    for (place, other) in others.iter().enumerate() {
        if place == 17 {
            world
                .send_to(0, &Move::new(warehouse, product, 4).arrival())
                .await;
        }
        world.send_to(0, &other.arrival()).await;
    }
    let service = world.start().await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].reason(), "rejected_by_database");
    assert!(
        letters[0]
            .header("__connect.errors.exception.message")
            .contains("22003"),
        "{letters:?}"
    );
    for other in &others {
        service.has_on_hand(other.warehouse, other.product, 1).await;
    }
    world.is_caught_up(41).await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_message_too_large_to_decode_is_no_exception() {
    let world = World::with(|config| config.ingest.max_message_bytes = 10_000).await;
    let service = world.start().await;
    let large = vec![b' '; 20_000];
    world
        .send_raw(b"large", Some(&large), OwnedHeaders::new())
        .await;
    let letters = world.dead_letters(1).await;
    assert_eq!(
        (letters[0].reason(), letters[0].value.as_ref()),
        ("too_large", Some(&large))
    );
    let good = Move::new(Uuid::new_v4(), Uuid::new_v4(), 3);
    world.send(&good.arrival()).await;
    service.has_on_hand(good.warehouse, good.product, 3).await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_the_dead_letter_topic_refuses_goes_without_its_value() {
    const SMALL: usize = 20;
    let topic = unique("small");
    let world = World::with(|config| config.kafka.dead_letter_topic.clone_from(&topic)).await;
    world.limit_message_bytes(&topic, 5_000).await;
    // Of one batch, so that nothing but the service keeps their letters apart.
    for _ in 0..SMALL {
        world.send_to(0, "small").await;
    }
    world.send_to(0, &"x".repeat(100_000)).await;
    let service = world.start().await;
    let letters = world.dead_letters(SMALL + 1).await;
    for letter in &letters {
        assert_eq!(letter.reason(), "not_json");
        match letter.value.as_deref() {
            Some(b"small") => {}
            value => {
                assert_eq!(value, Some(b"".as_slice()));
                assert_eq!(letter.header("stockyard.value_omitted"), "100000");
            }
        }
    }
    eventually("all are taken", async || {
        (world.taken().await == i64::try_from(SMALL + 1).unwrap()).then_some(())
    })
    .await;
    service.stop().await;
    world.database.remove().await;
}
