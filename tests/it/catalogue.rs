//! Names, codes and minima: stored whole, read back at their version, refused with a reason.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use stockyard::{
    domain::{Fact, Side, WarehouseCode},
    inventory::record::{Recorded, Recorder, Taken},
    store::{StoreError, positions::Advance},
};
use uuid::Uuid;

use crate::{
    schema::fact,
    support::{World, messages::Move},
};

const PRODUCT: &str = "4705204f-498f-4f96-b4ba-df17fb56bf55";
const WAREHOUSE: &str = "25718666-6af6-4281-b5a6-3016e36fa557";

#[tokio::test]
async fn an_entry_is_stored_whole_and_stands_in_paths() {
    let world = World::new().await;
    let service = world.start().await;
    let entry = json!({"sku": "W-1", "name": "Widget A", "min_stock": 10, "reorder_point": 50});
    let path = format!("/api/products/{PRODUCT}");
    let made = service.send(Method::PUT, &path, &entry).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    assert_eq!(made.body["id"], PRODUCT);
    assert_eq!(made.body["min_stock"], 10);
    let first = made.header("stock-version").to_owned();
    let again = service.send(Method::PUT, &path, &entry).await;
    assert_eq!(
        (again.status.as_u16(), again.header("stock-version")),
        (200, first.as_str()),
        "the same again is no commit"
    );
    let by_sku = json!({"sku": "W-1", "name": "Widget B"});
    let changed = service
        .send(Method::PUT, "/api/products/W-1", &by_sku)
        .await;
    assert_eq!(changed.status, 200);
    assert_eq!(
        changed.body["min_stock"],
        Value::Null,
        "what is left out is gone"
    );
    assert_ne!(changed.header("stock-version"), first);

    let place = json!({"code": "NORTH", "name": "Oakland"});
    let path = format!("/api/warehouses/{WAREHOUSE}");
    assert_eq!(service.send(Method::PUT, &path, &place).await.status, 201);
    let path = "/api/warehouses/NORTH/products/W-1";
    let empty = service.get(path).await;
    assert_eq!(
        (empty.status.as_u16(), &empty.body["quantity"]),
        (200, &json!(0))
    );
    let listed = service.get("/api/warehouses").await;
    assert_eq!(
        listed.body["warehouses"],
        json!([{"id": WAREHOUSE, "code": "NORTH", "name": "Oakland"}])
    );
    let listed = service.get("/api/products").await;
    assert_eq!(listed.body["products"][0]["name"], "Widget B");
    assert!(!listed.header("stock-version").is_empty());
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    let product = format!("/api/products/{PRODUCT}");
    let warehouse = format!("/api/warehouses/{WAREHOUSE}");
    let other = format!("/api/products/{}", Uuid::new_v4());
    let taken = json!({"sku": "TAKEN"});
    assert_eq!(service.send(Method::PUT, &other, &taken).await.status, 201);
    let elsewhere = format!("/api/warehouses/{}", Uuid::new_v4());
    let code = json!({"code": "TAKEN"});
    assert_eq!(
        service.send(Method::PUT, &elsewhere, &code).await.status,
        201
    );
    for (path, body, status) in [
        (product.as_str(), taken.clone(), 409),
        (warehouse.as_str(), code.clone(), 409),
        (product.as_str(), json!({"sku": "low-stock"}), 422),
        (product.as_str(), json!({"sku": Uuid::new_v4()}), 422),
        (product.as_str(), json!({"sku": ""}), 422),
        (product.as_str(), json!({"name": "a\u{0}b"}), 422),
        (product.as_str(), json!({"min_stock": -1}), 422),
        (product.as_str(), json!({"min_stock": 1.5}), 422),
        (product.as_str(), json!({"min_stock": "ten"}), 422),
        (product.as_str(), json!({"reorder_point": i64::MAX}), 422),
        (product.as_str(), json!([]), 422),
        (warehouse.as_str(), json!({"code": "x".repeat(65)}), 422),
        ("/api/products/UNKNOWN", json!({}), 400),
        ("/api/warehouses/UNKNOWN", json!({}), 400),
        (
            "/api/products/00000000-0000-0000-0000-000000000000",
            json!({}),
            400,
        ),
    ] {
        let answer = service.send(Method::PUT, path, &body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{path} {body}: {}",
            answer.body
        );
        assert_eq!(answer.body["status"], status);
        assert_eq!(
            answer.header("stock-version"),
            "",
            "a refusal has no version"
        );
    }
    let large = json!({"name": "x".repeat(300_000)});
    assert_eq!(
        service.send(Method::PUT, &product, &large).await.status,
        413
    );
    for path in [
        "/api/products?limit=0",
        "/api/products?limit=1001",
        "/api/products?limit=x",
        "/api/warehouses?cursor=x",
    ] {
        assert_eq!(service.get(path).await.status, 400, "{path}");
    }
    let listed = service.get("/api/products").await;
    assert_eq!(listed.body["products"].as_array().unwrap().len(), 1);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn pages_hold_every_entry_once() {
    const ENTRIES: usize = 7;
    let world = World::new().await;
    let service = world.start().await;
    for n in 0..ENTRIES {
        let path = format!("/api/products/{}", Uuid::new_v4());
        let entry = json!({"sku": format!("W-{n}")});
        assert_eq!(service.send(Method::PUT, &path, &entry).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut path = "/api/products?limit=3".to_owned();
    loop {
        let page = service.get(&path).await;
        let products = page.body["products"].as_array().unwrap();
        seen.extend(products.iter().map(|product| product["sku"].to_string()));
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            assert_eq!(page.header("link"), "");
            break;
        };
        path = format!("/api/products?cursor={cursor}&limit=3");
        assert_eq!(page.header("link"), format!("<{path}>; rel=\"next\""));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), ENTRIES);
    service.stop().await;
    world.database.remove().await;
}

/// A code that ingest offers and one that the catalogue gives at the same moment: no fact fails for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_from_both_sides_fail_no_fact() {
    const ROUNDS: usize = 40;
    let world = World::new().await;
    let service = world.start().await;
    let product = Uuid::new_v4();
    for round in 0..ROUNDS {
        let code = format!("WH-{round}");
        let moved = Move::new(Uuid::new_v4(), product, 1);
        let mut message: Value = serde_json::from_str(&moved.arrival()).unwrap();
        message["source"] = json!(code);
        // Both the same warehouse and another one want the code.
        let owner = if round % 2 == 0 {
            moved.warehouse
        } else {
            Uuid::new_v4()
        };
        let path = format!("/api/warehouses/{owner}");
        let entry = json!({ "code": code });
        let message = message.to_string();
        let ((), put) = tokio::join!(
            world.send(&message),
            service.send(Method::PUT, &path, &entry)
        );
        assert!(
            [200, 201, 409].contains(&put.status.as_u16()),
            "{}",
            put.body
        );
        service.has_on_hand(moved.warehouse, product, 1).await;
    }
    let letters = service
        .count(r#"warehouse_ingest_dead_letters_total{reason="rejected_by_database"}"#)
        .await;
    assert_eq!(letters, 0);
    service.stop().await;
    world.database.remove().await;
}

/// What a transaction offered goes with it: the same again offers it again. And a position that moved keeps it from committing.
#[tokio::test]
async fn a_code_is_offered_again_after_a_batch_that_did_not_come_in() {
    let world = World::new().await;
    let inventory = world.inventory();
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let offering = [Fact {
        code: WarehouseCode::from_source("WH-3"),
        ..fact(1, Side::Arrival, 3, 2, 5)
    }];
    let elsewhere = Taken {
        topic: "it's another",
        advances: &[Advance {
            partition: 4,
            from: 7,
            to: 8,
        }],
        ..Taken::default()
    };
    let is_moved = |recorded: Result<Recorded, StoreError>| match recorded {
        Err(StoreError::PositionMoved(place)) => assert_eq!(place, "it's another/4"),
        other => panic!("{other:?}"),
    };
    is_moved(recorder.record(&offering, elsewhere).await);
    let codes = "select count(*) from warehouses where code = 'WH-3'";
    let levels = "select count(*) from stock_levels";
    for nothing in [codes, levels] {
        assert_eq!(world.database.number(nothing).await, 0);
    }
    recorder.record(&offering, Taken::default()).await.unwrap();
    assert_eq!(world.database.number(codes).await, 1);
    // With nothing to publish as well.
    is_moved(recorder.record(&offering, elsewhere).await);
    inventory.store().close().await;
    world.database.remove().await;
}

/// A fact that is refused does not use its offer up.
#[tokio::test]
async fn a_code_that_came_with_a_conflict_is_given_once_its_warehouse_is_there() {
    let world = World::new().await;
    let inventory = world.inventory();
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let with_code = |movement, warehouse| Fact {
        code: WarehouseCode::from_source("WH-3"),
        ..fact(movement, Side::Arrival, warehouse, 2, 5)
    };
    let first = fact(1, Side::Arrival, 1, 2, 5);
    for facts in [[first], [with_code(1, 3)], [with_code(2, 3)]] {
        recorder.record(&facts, Taken::default()).await.unwrap();
    }
    let codes = "select count(*) from warehouses where code = 'WH-3'";
    assert_eq!(world.database.number(codes).await, 1);
    inventory.store().close().await;
    world.database.remove().await;
}
