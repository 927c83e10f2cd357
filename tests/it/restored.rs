//! A database put back from a copy: no old answer from either cache tier, no false 304, and the facts since the copy are
//! taken again by themselves.

use std::sync::Arc;

use stockyard::{
    app::Parts,
    domain::{Fact, MovementId, ProductId, Quantity, Side, SideReport, Timestamp, WarehouseId},
    inventory::record::{Recorder, Taken},
};
use uuid::Uuid;

use crate::support::{Answer, Service, World, eventually, messages::Move};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
/// Changed after the copy by facts that Kafka still has.
const IN_KAFKA: Uuid = Uuid::from_u128(2);
/// Changed after the copy by something that nobody else knows: it is lost with the restore.
const LOST: Uuid = Uuid::from_u128(3);

/// Writes an arrival past Kafka, as another process would.
async fn record_past_kafka(world: &World, product: Uuid, units: i64) {
    let inventory = world.inventory();
    let fact = Fact {
        movement: MovementId::new(Uuid::new_v4()).unwrap(),
        product: ProductId::new(product).unwrap(),
        side: Side::Arrival,
        report: SideReport {
            warehouse: WarehouseId::new(WAREHOUSE).unwrap(),
            at: Timestamp::from_micros(1_750_000_000_000_000),
            quantity: Quantity::new(units).unwrap(),
        },
        code: None,
    };
    Recorder::new(Arc::clone(&inventory))
        .record(&[fact], Taken::default())
        .await
        .unwrap();
    inventory.store().close().await;
}

/// The story up to the moment before the restore; returns the copy, the movement since, and the answers clients hold.
async fn live_on_after_a_copy(world: &World, service: &Service) -> (String, Move, [Answer; 2]) {
    world
        .send(&Move::new(WAREHOUSE, IN_KAFKA, 10).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, IN_KAFKA, 10).await;
    record_past_kafka(world, LOST, 100).await;
    service.has_on_hand(WAREHOUSE, LOST, 100).await;
    let copy = world.database.copy().await;

    let since = Move::new(WAREHOUSE, IN_KAFKA, 5);
    world.send(&since.arrival()).await;
    let in_kafka = service.has_on_hand(WAREHOUSE, IN_KAFKA, 15).await;
    record_past_kafka(world, LOST, 11).await;
    service.has_on_hand(WAREHOUSE, LOST, 111).await;
    let lost = cached(service).await;
    // A process that reads it for the first time leaves it in Redis, so that both tiers hold it.
    let answers = Parts {
        answers: true,
        ingests: false,
    };
    let other = world.start_parts(answers).await;
    cached(&other).await;
    other.stop().await;
    eventually("redis holds it too", async || {
        let held = world.redis_stock(WAREHOUSE, LOST).await;
        held.is_some_and(|value| String::from_utf8_lossy(&value).contains(":111,"))
            .then_some(())
    })
    .await;
    (copy, since, [in_kafka, lost])
}

/// What the process keeps of what will be lost.
async fn cached(service: &Service) -> Answer {
    let lost = eventually("a hit", async || {
        let answer = service.stock(WAREHOUSE, LOST).await;
        answer
            .header("cache-status")
            .contains("hit")
            .then_some(answer)
    })
    .await;
    assert_eq!(lost.body["on_hand"], 111);
    lost
}

/// What must hold of every answer after the restore was noticed.
async fn is_of_the_restored_database(service: &Service, before: &Answer) {
    let etag = before.header("etag");
    let path = format!("/api/warehouses/{WAREHOUSE}/products/{LOST}");
    for _ in 0..50 {
        let answer = service.get_with(&path, &[("if-none-match", etag)]).await;
        assert_eq!(answer.status, 200, "no false 304");
        assert_eq!(answer.body["on_hand"], 100, "{:?}", answer.headers);
    }
    // The version that was undone is either not reached again, or another commit.
    let undone = before.header("stock-version");
    let answer = service
        .get_with(&path, &[("stock-min-version", undone)])
        .await;
    assert!(
        [410, 503].contains(&answer.status.as_u16()),
        "{}",
        answer.status
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_service_runs() {
    let world = World::new().await;
    let service = world.start().await;
    let (copy, since, [_, lost]) = live_on_after_a_copy(&world, &service).await;
    world.database.restore(&copy).await;

    eventually("the restore is noticed", async || {
        let noticed = service.count("warehouse_feed_resyncs_total").await >= 1;
        (noticed && service.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    is_of_the_restored_database(&service, &lost).await;
    // What Kafka has is taken again, without anybody's help and without anything new coming.
    service.has_on_hand(WAREHOUSE, IN_KAFKA, 15).await;
    assert_eq!(
        service.movement(since.movement).await.body["arrival"]["quantity"],
        5
    );
    is_of_the_restored_database(&service, &lost).await;
    // And the stream goes on.
    world
        .send(&Move::new(WAREHOUSE, IN_KAFKA, 1).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, IN_KAFKA, 16).await;
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_service_does_not_run() {
    let world = World::new().await;
    let service = world.start().await;
    let (copy, since, [_, lost]) = live_on_after_a_copy(&world, &service).await;
    service.stop().await;
    world.database.restore(&copy).await;

    // Redis still holds what was read of the database that is gone, and the numbers of the versions that are gone come
    // again, with other tags, before anybody reads.
    let service = world.start().await;
    for units in 1..5 {
        record_past_kafka(&world, Uuid::from_u128(9), units).await;
    }
    service.has_on_hand(WAREHOUSE, Uuid::from_u128(9), 10).await;
    service.has_on_hand(WAREHOUSE, IN_KAFKA, 15).await;
    is_of_the_restored_database(&service, &lost).await;
    assert!(
        service
            .count(r#"warehouse_cache_lookups_total{result="refused",tier="redis"}"#)
            .await
            > 0,
        "the old entry was met"
    );
    let path = format!("/api/warehouses/{WAREHOUSE}/products/{LOST}");
    let undone = service
        .get_with(
            &path,
            &[("stock-min-version", lost.header("stock-version"))],
        )
        .await;
    assert_eq!(undone.status, 410);
    assert_eq!(service.movement(since.movement).await.status, 200);
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}
