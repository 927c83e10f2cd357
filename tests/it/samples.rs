//! The two messages the product was asked for with, read as a story.

use serde_json::{Value, json};
use stockyard::clock::Clock;

use crate::support::{
    Service, World, eventually, is_quiet,
    messages::{FROM, MOVEMENT, PRODUCT, PUBLISHED_ARRIVAL, PUBLISHED_DEPARTURE, TO, bare},
};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn a_movement_is_told_by_its_two_halves() {
    let world = World::new().await;
    let service = world.start().await;

    // Before: nobody knows of it, and nothing stands anywhere.
    assert_eq!(service.movement(MOVEMENT).await.status, 404);
    assert_eq!(service.stock(FROM, PRODUCT).await.body["quantity"], 0);
    assert_eq!(service.stock(TO, PRODUCT).await.body["quantity"], 0);

    // Between: it has left, and more has left than was ever seen to come.
    world.send(PUBLISHED_DEPARTURE).await;
    let from = service.has_on_hand(FROM, PRODUCT, -100).await;
    assert_eq!(
        (&from.body["quantity"], &from.body["revision"]),
        (&json!(0), &json!(1))
    );
    let movement = service.movement(MOVEMENT).await.body;
    let under_way = json!({
        "id": MOVEMENT, "warehouse_id_from": FROM, "warehouse_id_to": NIL, "product_id": PRODUCT,
        "time_diff": 0.0, "quantity_diff": 100, "status": "in_transit",
        "departure": { "warehouse_id": FROM, "at": "2025-02-18T12:12:56Z", "quantity": 100 }, "arrival": null
    });
    assert_eq!(without_lines(&movement), under_way);

    // After: it has arrived, 2 hours and 22 minutes later, whole.
    world.send(PUBLISHED_ARRIVAL).await;
    service.has_on_hand(TO, PRODUCT, 100).await;
    assert_eq!(service.stock(FROM, PRODUCT).await.body["on_hand"], -100);
    let arrived = json!({
        "id": MOVEMENT, "warehouse_id_from": FROM, "warehouse_id_to": TO, "product_id": PRODUCT,
        "time_diff": 8520.0, "quantity_diff": 0, "status": "complete",
        "departure": { "warehouse_id": FROM, "at": "2025-02-18T12:12:56Z", "quantity": 100 },
        "arrival": { "warehouse_id": TO, "at": "2025-02-18T14:34:56Z", "quantity": 100 }
    });
    let movement = service.movement(MOVEMENT).await.body;
    assert_eq!(without_lines(&movement), arrived);
    assert_eq!(movement["lines"].as_array().map(Vec::len), Some(1));
    let numbers = numbers(&service).await;

    // Again, in the other order, in the bare form: duplicates, and the same numbers.
    for message in [
        PUBLISHED_ARRIVAL,
        PUBLISHED_DEPARTURE,
        &bare(PUBLISHED_ARRIVAL),
        &bare(PUBLISHED_DEPARTURE),
    ] {
        world.send(message).await;
    }
    world.is_caught_up(6).await;
    assert_eq!(numbers, self::numbers(&service).await);
    let duplicates = format!(
        r#"warehouse_kafka_consumer_messages_processed_total{{status="duplicate",topic="{}"}}"#,
        world.config.kafka.topic
    );
    eventually("four duplicates are counted", async || {
        (service.count(&duplicates).await == 4).then_some(())
    })
    .await;
    assert_eq!(world.differences().await, [""; 0]);

    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_arrival_may_come_first() {
    let world = World::new().await;
    let service = world.start().await;
    world.send(&bare(PUBLISHED_ARRIVAL)).await;
    service.has_on_hand(TO, PRODUCT, 100).await;
    let movement = service.movement(MOVEMENT).await.body;
    assert_eq!(
        (&movement["status"], &movement["quantity_diff"]),
        (&json!("arrival_only"), &json!(-100))
    );
    assert_eq!(
        (&movement["warehouse_id_from"], &movement["departure"]),
        (&json!(NIL), &Value::Null)
    );

    world.send(&bare(PUBLISHED_DEPARTURE)).await;
    service.has_on_hand(FROM, PRODUCT, -100).await;
    let movement = service.movement(MOVEMENT).await.body;
    assert_eq!(
        (&movement["status"], &movement["time_diff"]),
        (&json!("complete"), &json!(8520.0))
    );
    service.stop().await;
    world.database.remove().await;
}

/// Fifty times in a row: how long after the broker's acknowledgement a message is visible to both reads. The figure is
/// printed; that it is 100 ms at most is asserted on a machine that is said to be quiet.
#[tokio::test]
async fn a_message_is_visible_to_both_reads_soon() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut slowest = std::time::Duration::ZERO;
    for round in 1..=50 {
        let moved = crate::support::messages::Move::new(warehouse, product, 1);
        assert_eq!(service.movement(moved.movement).await.status, 404);
        service.stock(warehouse, product).await;
        world.send(&moved.arrival()).await;
        let acknowledged = Clock::system();
        service.has_on_hand(warehouse, product, round).await;
        eventually("the movement", async || {
            (service.movement(moved.movement).await.status == 200).then_some(())
        })
        .await;
        slowest = slowest.max(acknowledged.elapsed());
    }
    eprintln!("visible to both reads within {slowest:?} of the acknowledgement, 50 times in a row");
    if is_quiet() {
        assert!(
            slowest <= std::time::Duration::from_millis(100),
            "{slowest:?}"
        );
    }
    service.stop().await;
    world.database.remove().await;
}

fn without_lines(movement: &Value) -> Value {
    let mut movement = movement.clone();
    movement.as_object_mut().expect("an object").remove("lines");
    movement
}

async fn numbers(service: &Service) -> [Value; 3] {
    [
        service.movement(MOVEMENT).await.body,
        service.stock(FROM, PRODUCT).await.body,
        service.stock(TO, PRODUCT).await.body,
    ]
}
