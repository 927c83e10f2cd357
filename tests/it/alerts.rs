//! Thresholds: one alert for each crossing, whether the stock moved or the threshold, in every process and across restarts.

use serde_json::{Value, json};
use stockyard::app::Parts;
use uuid::Uuid;

use crate::support::{Service, World, is_long, live::LiveClient, messages::Move};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);

async fn set(service: &Service, min_stock: Option<i64>, reorder_point: Option<i64>) {
    let product =
        json!({"name": "Widget A", "min_stock": min_stock, "reorder_point": reorder_point});
    service
        .put(&format!("/api/products/{PRODUCT}"), product)
        .await;
}

/// The next alert or recovery; its type.
async fn alert(client: &mut LiveClient) -> (String, Value) {
    loop {
        let frame = client.next().await.expect("the connection");
        let kind = frame["type"].as_str().expect("a type");
        if kind.starts_with("reorder_") || ["low_stock_alert", "stock_recovered"].contains(&kind) {
            return (kind.to_owned(), frame);
        }
    }
}

#[tokio::test]
async fn each_crossing_is_told_once_by_every_process_and_across_a_restart() {
    let rounds = if is_long() { 1_000 } else { 100 };
    let world = World::new().await;
    let writer = world.start().await;
    let answers = Parts {
        answers: true,
        ingests: false,
    };
    let mut other = Some(world.start_parts(answers).await);
    set(&writer, Some(10), Some(12)).await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 20).arrival())
        .await;
    writer.has_on_hand(WAREHOUSE, PRODUCT, 20).await;

    let mut clients = vec![
        LiveClient::connect(&writer, "").await,
        LiveClient::connect(other.as_ref().expect("the other"), "").await,
    ];
    for client in &mut clients {
        client.hear("snapshot").await;
    }
    for round in 0..rounds {
        if round == rounds / 2 {
            // Up to a cursor, so that nothing is told again.
            clients[1].reach(world.newest_version().await).await;
            // One process is away while a threshold is crossed there and back.
            other.take().expect("the other").stop().await;
        }
        for (units, expected) in [
            (-15, ["low_stock_alert", "reorder_needed"]),
            (15, ["stock_recovered", "reorder_recovered"]),
        ] {
            let there = Move::new(WAREHOUSE, PRODUCT, 15);
            let message = if units < 0 {
                there.departure()
            } else {
                there.arrival()
            };
            world.send(&message).await;
            // Both clients keep up, so each crossing is a commit of its own.
            let listening = if round == rounds / 2 { 1 } else { 2 };
            for client in clients.iter_mut().take(listening) {
                for expected in expected {
                    assert_eq!(alert(client).await.0, expected, "round {round}");
                }
            }
        }
        if round == rounds / 2 {
            let other = other.insert(world.start_parts(answers).await);
            let picture = clients.pop().expect("the second client").picture;
            let mut again = LiveClient::resume(other, "", picture)
                .await
                .expect("a connection");
            for expected in [
                "low_stock_alert",
                "reorder_needed",
                "stock_recovered",
                "reorder_recovered",
            ] {
                assert_eq!(alert(&mut again).await.0, expected, "what was missed");
            }
            clients.push(again);
        }
    }
    let newest = world.newest_version().await;
    for client in &mut clients {
        // Nothing is left to tell, and nobody had to begin anew.
        client.reach(newest).await;
        assert_eq!((client.picture.snapshots, client.picture.resyncs), (1, 0));
    }
    let told = writer
        .count(r#"warehouse_stock_alerts_total{type="low_stock_alert"}"#)
        .await;
    assert_eq!(told, rounds);
    writer.stop().await;
    other.expect("the other").stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_changed_threshold_is_a_crossing() {
    let world = World::new().await;
    let service = world.start().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 8).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 8).await;
    let mut everything = LiveClient::connect(&service, "").await;
    let mut low_only = LiveClient::connect(&service, "below_min=true").await;
    everything.hear("snapshot").await;
    assert_eq!(low_only.hear("snapshot").await["data"], json!([]));

    set(&service, Some(10), None).await;
    let words = everything.hear("catalogue").await;
    assert_eq!(words["data"]["product"]["min_stock"], 10);
    let (kind, told) = alert(&mut everything).await;
    assert_eq!(kind, "low_stock_alert");
    assert_eq!(told["current_quantity"], 8);
    assert_eq!(told["min_stock"], 10);
    let entered = low_only.hear("update").await;
    assert_eq!(entered["data"]["quantity"], 8);
    assert_eq!(entered["data"]["change"], 8, "it did not have the key");
    assert_eq!(entered["data"]["revision"], 1, "the level did not change");

    set(&service, Some(5), Some(20)).await;
    assert_eq!(alert(&mut everything).await.0, "stock_recovered");
    let (kind, told) = alert(&mut everything).await;
    assert_eq!(kind, "reorder_needed");
    assert_eq!(told["available_stock"], 8);
    assert_eq!(told["reorder_point"], 20);
    assert_eq!(told["product_name"], "Widget A");
    let left = low_only.hear("update").await;
    assert_eq!(left["data"]["left"], true);

    let low = service.get("/inventory/low-stock").await.body;
    assert_eq!(low["low_stock"], json!([]));
    assert_eq!(low["reorder_needed"][0]["available_stock"], 8);
    let mut late = LiveClient::connect(&service, "below_min=true").await;
    let snapshot = late.hear("snapshot").await;
    assert_eq!(snapshot["data"][0]["reorder_needed"], true);
    assert_eq!(snapshot["data"][0]["levels"], json!([]));

    set(&service, Some(5), None).await;
    assert_eq!(alert(&mut everything).await.0, "reorder_recovered");
    // Only its words changed for a client of everything: no update was told.
    let newest = world.newest_version().await;
    everything.reach(newest).await;
    assert_eq!(everything.picture.model, world.model_at(newest).await);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_was_missed_is_told_in_the_words_of_its_time() {
    let world = World::new().await;
    let writer = world.start().await;
    let answers = Parts {
        answers: true,
        ingests: false,
    };
    let other = world.start_parts(answers).await;
    set(&writer, Some(1), Some(3)).await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 8).arrival())
        .await;
    writer.has_on_hand(WAREHOUSE, PRODUCT, 8).await;
    let mut client = LiveClient::connect(&other, "").await;
    client.reach(world.newest_version().await).await;
    let picture = client.picture.clone();
    other.stop().await;

    set(&writer, Some(100), Some(3)).await;
    set(&writer, Some(100), Some(50)).await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 200).arrival())
        .await;
    writer.has_on_hand(WAREHOUSE, PRODUCT, 208).await;
    set(&writer, None, None).await;

    let other = world.start_parts(answers).await;
    let mut client = LiveClient::resume(&other, "", picture)
        .await
        .expect("a connection");
    let mut told = Vec::new();
    for _ in 0..4 {
        let (kind, frame) = alert(&mut client).await;
        let threshold = frame.get("min_stock").or(frame.get("reorder_point"));
        told.push((kind, threshold.and_then(Value::as_i64)));
    }
    let expected = [
        ("low_stock_alert", 100),
        ("reorder_needed", 50),
        ("stock_recovered", 100),
        ("reorder_recovered", 50),
    ];
    assert_eq!(
        told,
        expected.map(|(kind, threshold)| (kind.to_owned(), Some(threshold)))
    );
    assert_eq!(client.picture.resyncs, 0);
    writer.stop().await;
    other.stop().await;
    world.database.remove().await;
}
