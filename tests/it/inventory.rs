//! The inventory API's reads: what stands of products, in all warehouses and by key, each as of one commit.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, World, messages::Move};

const NORTH: Uuid = Uuid::from_u128(1);
const SOUTH: Uuid = Uuid::from_u128(2);
const WIDGET: Uuid = Uuid::from_u128(10);
const GADGET: Uuid = Uuid::from_u128(11);

/// A catalogue, and stock of one product in two warehouses, one of them owing 3.
async fn stocked(world: &World) -> Service {
    let service = world.start().await;
    for (path, body) in [
        (
            format!("/api/products/{WIDGET}"),
            json!({"sku": "45", "name": "Widget A", "min_stock": 5}),
        ),
        (format!("/api/products/{GADGET}"), json!({"sku": "W-2"})),
        (format!("/api/warehouses/{NORTH}"), json!({"code": "NORTH"})),
    ] {
        assert_eq!(service.send(Method::PUT, &path, &body).await.status, 201);
    }
    world.send(&Move::new(NORTH, WIDGET, 40).arrival()).await;
    world.send(&Move::new(SOUTH, WIDGET, 3).departure()).await;
    service.has_on_hand(NORTH, WIDGET, 40).await;
    service.has_on_hand(SOUTH, WIDGET, -3).await;
    service
}

#[tokio::test]
async fn a_product_is_told_with_all_its_warehouses() {
    let world = World::new().await;
    let service = stocked(&world).await;
    for id in [
        "45".to_owned(),
        WIDGET.to_string(),
        WIDGET.simple().to_string(),
    ] {
        let product = service.get(&format!("/inventory/{id}")).await;
        assert_eq!(product.status, 200, "{id}");
        let body = &product.body;
        assert_eq!(body["product_id"], "45");
        assert_eq!(body["name"], "Widget A");
        assert_eq!(body["total_stock"], 40, "a deficit is never shown");
        assert_eq!(body["available_stock"], 40);
        assert_eq!(
            body["warehouses"],
            json!({"NORTH": 40, SOUTH.to_string(): 0})
        );
        assert_eq!(body["levels"][1]["on_hand"], -3);
        assert!(!product.header("stock-version").is_empty());
    }
    let nothing = service.get(&format!("/inventory/{GADGET}")).await;
    assert_eq!(nothing.body["total_stock"], 0);
    assert_eq!(nothing.body["last_updated"], Value::Null);
    for id in [
        "NOTHING",
        "00000000-0000-0000-0000-000000000000",
        &Uuid::new_v4().to_string(),
    ] {
        let missing = service.get(&format!("/inventory/{id}")).await;
        assert_eq!(
            (missing.status.as_u16(), &missing.body["error"]),
            (404, &json!("Product not found"))
        );
    }

    let listed = service.get("/inventory").await;
    assert_eq!(
        (&listed.body["total"], &listed.body["next_cursor"]),
        (&json!(2), &Value::Null)
    );
    let first = service.get("/inventory?limit=1").await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let second = service
        .get(&format!("/inventory?limit=1&cursor={cursor}"))
        .await;
    let all = [&first.body["products"][0], &second.body["products"][0]];
    assert_eq!(listed.body["products"], json!(all));
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_is_low_is_listed_once() {
    let world = World::new().await;
    let service = stocked(&world).await;
    // The one that owes 3 has nothing to show, which is low; so is this one.
    let third = Uuid::from_u128(3);
    world.send(&Move::new(third, WIDGET, 5).arrival()).await;
    service.has_on_hand(third, WIDGET, 5).await;
    let listed = service.get("/inventory/low-stock").await;
    let low = |warehouse: Uuid, quantity: i64| {
        json!({"product_id": "45", "product_name": "Widget A", "warehouse_id": warehouse,
            "warehouse": warehouse, "current_quantity": quantity, "min_stock": 5})
    };
    assert_eq!(
        listed.body,
        json!({"low_stock": [low(SOUTH, 0), low(third, 5)], "reorder_needed": [], "next_cursor": null})
    );
    let first = service.get("/inventory/low-stock?limit=1").await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let path = format!("/inventory/low-stock?limit=1&cursor={cursor}");
    assert_eq!(service.get(&path).await.body["low_stock"][0], low(third, 5));
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x"] {
        let path = format!("/inventory/low-stock?{query}");
        assert_eq!(service.get(&path).await.status, 400, "{query}");
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn one_quantity_of_one_product() {
    let world = World::new().await;
    let service = stocked(&world).await;
    for query in ["", "?product=45", &format!("?product={WIDGET}")] {
        let stock = service.get(&format!("/stock{query}")).await;
        assert_eq!(
            stock.body,
            json!({"product": "Widget A", "quantity": 40}),
            "{query}"
        );
    }
    assert_eq!(service.get("/stock?product=W-2").await.body["quantity"], 0);
    assert_eq!(service.get("/stock?product=NOTHING").await.status, 404);
    service.stop().await;

    let world = World::with(|config| config.live.default_product = "W-2".to_owned()).await;
    let service = world.start().await;
    assert_eq!(service.get("/stock").await.status, 404, "nothing is there");
    let path = format!("/api/products/{GADGET}");
    service
        .send(Method::PUT, &path, &json!({"sku": "W-2"}))
        .await;
    assert_eq!(
        service.get("/stock").await.body,
        json!({"product": "W-2", "quantity": 0})
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn many_keys_as_of_one_commit() {
    let world = World::new().await;
    let service = stocked(&world).await;
    let keys = json!({"keys": [
        {"warehouse": "NORTH", "product": "45"},
        {"warehouse": SOUTH, "product": WIDGET},
        {"warehouse": SOUTH, "product": GADGET},
        {"warehouse": "NORTH", "product": "45"},
    ]});
    let asked = service.send(Method::POST, "/api/stock/query", &keys).await;
    let levels = asked.body["levels"].as_array().unwrap();
    let on_hand: Vec<_> = levels
        .iter()
        .map(|level| level["on_hand"].as_i64().unwrap())
        .collect();
    assert_eq!(on_hand, [40, -3, 0, 40], "in their order");
    assert_eq!(levels[2]["revision"], 0);

    let many: Vec<Value> = (0..1_000)
        .map(|_| json!({"warehouse": Uuid::new_v4(), "product": Uuid::new_v4()}))
        .collect();
    let asked = service
        .send(Method::POST, "/api/stock/query", &json!({ "keys": many }))
        .await;
    assert_eq!(asked.body["levels"].as_array().unwrap().len(), 1_000);

    let there = service.get("/api/warehouses/NORTH/products").await;
    assert_eq!(there.body["products"][0], levels[0]);
    assert_eq!(
        service.get("/api/warehouses/NOWHERE/products").await.status,
        400
    );
    for (keys, status) in [
        (json!({"keys": []}), 422),
        (
            json!({"keys": vec![json!({"warehouse": "NORTH", "product": "45"}); 1_001]}),
            422,
        ),
        (json!({"keys": [{"warehouse": "NORTH"}]}), 422),
        (
            json!({"keys": [{"warehouse": "NOWHERE", "product": "45"}]}),
            400,
        ),
    ] {
        let answer = service.send(Method::POST, "/api/stock/query", &keys).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    }
    service.stop().await;
    world.database.remove().await;
}
