//! Where a partition is gone on with, whatever happened to the database, the group or the topic.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use stockyard::{app::AppError, config::OnGap, ingest::IngestError};
use uuid::Uuid;

use crate::support::{Service, World, eventually, messages::Move};

const TIMEOUT: Duration = Duration::from_secs(30);

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);

/// A movement of its own brings one unit, by that partition.
async fn one_arrives(world: &World, partition: i32) {
    let moved = Move::new(WAREHOUSE, PRODUCT, 1);
    world.send_to(partition, &moved.arrival()).await;
}

async fn ten_arrive(world: &World) {
    for _ in 0..10 {
        one_arrives(world, 0).await;
    }
}

fn group(world: &World) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &world.config.kafka.bootstrap_servers)
        .set("group.id", &world.config.kafka.group)
        .create()
        .unwrap()
}

fn partition_0(world: &World, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.config.kafka.topic, 0, offset)
        .unwrap();
    list
}

fn committed(world: &World) -> Option<i64> {
    let list = group(world)
        .committed_offsets(partition_0(world, Offset::Invalid), TIMEOUT)
        .unwrap();
    match list.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

async fn duplicates(world: &World, service: &Service) -> u64 {
    let topic = &world.config.kafka.topic;
    let series = format!(
        r#"warehouse_kafka_consumer_messages_processed_total{{status="duplicate",topic="{topic}"}}"#
    );
    service.count(&series).await
}

#[tokio::test]
async fn offsets_are_committed_once_the_facts_are_in() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 1);
    world.send_to(0, &moved.arrival()).await;
    world.send_to(0, "junk").await;
    eventually("the group's offset", async || {
        (committed(&world) == Some(2)).then_some(())
    })
    .await;
    assert_eq!(world.taken().await, 2);
    world.dead_letters(1).await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_rewound_group_replays_and_nothing_changes() {
    let world = World::new().await;
    let service = world.start().await;
    for _ in 0..20 {
        one_arrives(&world, 0).await;
    }
    let before = service.has_on_hand(WAREHOUSE, PRODUCT, 20).await.body;
    service.stop().await;
    group(&world)
        .commit(&partition_0(&world, Offset::Offset(5)), CommitMode::Sync)
        .unwrap();

    let service = world.start().await;
    eventually("15 duplicates", async || {
        (duplicates(&world, &service).await == 15).then_some(())
    })
    .await;
    let after = service.stock(WAREHOUSE, PRODUCT).await.body;
    assert_eq!(before, after);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_new_database_takes_everything_again() {
    let mut world = World::new().await;
    let service = world.start().await;
    ten_arrive(&world).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    service.stop().await;
    let old = std::mem::replace(
        &mut world.database,
        crate::support::TestDatabase::create().await,
    );
    world.config.database.url.clone_from(&world.database.url);
    let service = world.start().await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    service.stop().await;
    old.remove().await;
    world.database.remove().await;
}

#[tokio::test]
async fn another_position_under_a_running_service_is_noticed() {
    let world = World::new().await;
    let service = world.start().await;
    ten_arrive(&world).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    // Once while nothing comes, once found by the next batch itself.
    world
        .database
        .run("update ingest_progress set next_offset = 4 where partition = 0")
        .await;
    eventually("6 duplicates", async || {
        (duplicates(&world, &service).await >= 6).then_some(())
    })
    .await;
    world.database.run("delete from ingest_progress").await;
    one_arrives(&world, 0).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 11).await;
    eventually("positions", async || {
        (world.taken().await == 11).then_some(())
    })
    .await;
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn facts_that_are_gone_stop_the_service_until_told_to_go_on() {
    let mut world = World::new().await;
    ten_arrive(&world).await;
    let service = world.start().await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    service.stop().await;
    // The database goes back to 3, and Kafka drops what is before 6.
    world
        .database
        .run("update ingest_progress set next_offset = 3 where partition = 0")
        .await;
    let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(TIMEOUT));
    world
        .admin()
        .delete_records(&partition_0(&world, Offset::Offset(6)), &options)
        .await
        .unwrap();

    let stopped = world
        .start_parts(stockyard::app::Parts {
            answers: true,
            ingests: true,
        })
        .await
        .ends()
        .await
        .unwrap_err();
    let AppError::Ingest(IngestError::Gap {
        partition: 0,
        from: 3,
        to: 6,
        ..
    }) = &stopped
    else {
        panic!("{stopped}")
    };
    assert!(
        stopped.to_string().contains("offset 3") && stopped.to_string().contains("at 6"),
        "{stopped}"
    );

    world.config.ingest.on_gap = OnGap::Continue;
    let service = world.start().await;
    one_arrives(&world, 0).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 11).await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_topic_made_anew_is_taken_from_its_start() {
    let world = World::new().await;
    let service = world.start().await;
    ten_arrive(&world).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(TIMEOUT));
    world
        .admin()
        .delete_topics(&[world.config.kafka.topic.as_str()], &options)
        .await
        .unwrap();
    eventually("the topic is made anew", async || {
        let made = stockyard::kafka::make_topics(&world.config.kafka)
            .await
            .ok()?;
        made.contains(&world.config.kafka.topic).then_some(())
    })
    .await;
    one_arrives(&world, 0).await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 11).await;
    eventually("its own positions", async || {
        (world.taken().await == 1).then_some(())
    })
    .await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn two_consumers_share_and_hand_over() {
    let world = World::new().await;
    let one = world.start().await;
    let other = world.start().await;
    for n in 0..200 {
        one_arrives(&world, n % 4).await;
    }
    one.has_on_hand(WAREHOUSE, PRODUCT, 200).await;
    one.stop().await;
    for n in 0..200 {
        one_arrives(&world, n % 4).await;
    }
    other.has_on_hand(WAREHOUSE, PRODUCT, 400).await;
    eventually("positions", async || {
        (world.taken().await == 400).then_some(())
    })
    .await;
    assert_eq!(world.differences().await, [""; 0]);
    other.stop().await;
    world.database.remove().await;
}
