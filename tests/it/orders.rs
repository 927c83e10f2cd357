//! The orders API: products with numbers and prices, orders from pending to shipped or cancelled.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Service, World, is_long, live::LiveClient};

async fn product(service: &Service, sku: &str, stock: i64) -> Value {
    let body = json!({"sku": sku, "name": "Widget", "price": "19.99", "stock": stock});
    let made = service.post("/products/", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.body
}

async fn order(service: &Service, product: &Value, quantity: i64) -> Answer {
    let body = json!({"product_id": product["id"], "quantity": quantity});
    service.post("/orders/", &body).await
}

async fn step(service: &Service, order: &Value, step: &str) -> Answer {
    service
        .post(&format!("/orders/{}/{step}", order["id"]), &json!({}))
        .await
}

async fn stock(service: &Service, product: &Value) -> i64 {
    let shown = service.get(&format!("/products/{}", product["id"])).await;
    shown.body["stock"].as_i64().unwrap()
}

#[tokio::test]
async fn an_order_is_paid_and_shipped_or_cancelled() {
    let world = World::new().await;
    let service = world.start().await;
    let widget = product(&service, "WIDGET-1", 5).await;
    assert_eq!(widget["price"], "19.99");
    assert_eq!(widget["stock"], 5);
    let made = order(&service, &widget, 3).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.body["status"], "PENDING");
    assert_eq!(made.body["product_id"], widget["id"]);
    assert_eq!(stock(&service, &widget).await, 2);
    let refused = order(&service, &widget, 3).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        refused.body["detail"],
        "Insufficient stock. Available: 2, Requested: 3"
    );
    let unknown = service
        .post("/orders/", &json!({"product_id": 999, "quantity": 1}))
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.body["detail"], "Product with ID 999 not found");
    for quantity in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(null),
        json!(1e18),
    ] {
        let body = json!({"product_id": widget["id"], "quantity": quantity});
        let refused = service.post("/orders/", &body).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{quantity}"
        );
    }

    let early = step(&service, &made.body, "ship").await;
    assert_eq!(early.status, StatusCode::UNPROCESSABLE_ENTITY);
    let paid = step(&service, &made.body, "pay").await;
    assert_eq!(paid.status, StatusCode::OK, "{paid:?}");
    assert_eq!(paid.body["status"], "PAID");
    assert_eq!(paid.body["total_value"], "59.97");
    assert_eq!(paid.body["product"]["sku"], "WIDGET-1");
    assert_eq!(
        step(&service, &made.body, "pay").await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let shipped = step(&service, &made.body, "ship").await;
    assert_eq!(shipped.body["status"], "SHIPPED");
    for to in ["ship", "pay", "cancel"] {
        assert_eq!(
            step(&service, &made.body, to).await.status,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    assert_eq!(stock(&service, &widget).await, 2);

    // Cancelled before and after it was paid for: everything comes back, once.
    for pays in [false, true] {
        let made = order(&service, &widget, 2).await;
        assert_eq!(stock(&service, &widget).await, 0);
        if pays {
            step(&service, &made.body, "pay").await;
        }
        for _ in 0..2 {
            let cancelled = step(&service, &made.body, "cancel").await;
            assert_eq!(cancelled.status, StatusCode::OK);
            assert_eq!(cancelled.body["status"], "CANCELLED");
            assert_eq!(stock(&service, &widget).await, 2);
        }
        assert_eq!(
            step(&service, &made.body, "pay").await.status,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    let missing = service.get("/orders/999").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.body["detail"], "Order with ID 999 not found");
    let recent = service.get("/orders/recent?limit=2").await;
    let statuses = recent.body["orders"].as_array().unwrap().iter();
    let statuses: Vec<&str> = statuses
        .map(|order| order["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["CANCELLED", "CANCELLED"]);
    let all = service.get("/orders/").await;
    assert_eq!(all.body["total"], 3);
    assert!(!all.header("stock-version").is_empty());
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn what_is_archived_while_one_waits_is_not_restocked() {
    let world = World::new().await;
    let service = world.start().await;
    let product = product(&service, "A-1", 1).await;
    let path = format!("/products/{}", product["id"]);
    let adjust = async |adjustment: i64| {
        let body = json!({"adjustment": adjustment, "reason": "found"});
        service.post(&format!("{path}/stock/adjust"), &body).await
    };
    assert_eq!(adjust(-1).await.body["stock"], 0);
    let held = world.database.hold_commits().await;
    let (archived, adjusted, ()) = tokio::join!(
        service.send(Method::DELETE, &path, &Value::Null),
        async {
            world.database.one_waits_to_commit().await;
            adjust(5).await
        },
        async {
            world.database.one_waits_for_a_row().await;
            held.let_go().await;
        }
    );
    assert_eq!(archived.status, StatusCode::NO_CONTENT, "{archived:?}");
    assert_eq!(adjusted.status, StatusCode::NOT_FOUND, "{adjusted:?}");
    let units = "select sum(on_hand)::bigint from stock_levels";
    assert_eq!(world.database.number(units).await, 0);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn what_is_stocked_while_one_waits_is_not_archived() {
    let world = World::new().await;
    let service = world.start().await;
    // The warehouse is there, and no level of the product that could be locked.
    product(&service, "A-1", 1).await;
    let product = product(&service, "A-2", 0).await;
    let levels = "select count(*) from stock_levels";
    assert_eq!(world.database.number(levels).await, 1);
    let path = format!("/products/{}", product["id"]);
    let (to_stock, body) = (
        format!("{path}/stock/adjust"),
        json!({"adjustment": 5, "reason": "found"}),
    );
    let held = world.database.hold_commits().await;
    let (adjusted, archived, ()) = tokio::join!(
        service.post(&to_stock, &body),
        async {
            world.database.one_waits_to_commit().await;
            service.send(Method::DELETE, &path, &Value::Null).await
        },
        async {
            world.database.one_waits_for_a_row().await;
            held.let_go().await;
        }
    );
    assert_eq!(adjusted.status, StatusCode::OK, "{adjusted:?}");
    assert_eq!(archived.status, StatusCode::CONFLICT, "{archived:?}");
    assert_eq!(stock(&service, &product).await, 5);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn products_are_created_changed_and_archived() {
    let world = World::new().await;
    let service = world.start().await;
    let one = product(&service, "A-1", 0).await;
    let other = product(&service, "A-2", 7).await;
    let again = service
        .post(
            "/products/",
            &json!({"sku": "A-1", "name": "x", "price": 1, "stock": 0}),
        )
        .await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    let page = service.get("/products/?page=2&per_page=1").await;
    assert_eq!(page.body["products"], json!([other]));
    assert_eq!(
        (&page.body["total"], &page.body["total_pages"]),
        (&json!(2), &json!(2))
    );
    let path = format!("/products/{}", one["id"]);
    let changed = service
        .send(
            Method::PUT,
            &path,
            &json!({"sku": "A-3", "name": "Y", "price": 2.5}),
        )
        .await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(
        changed.body,
        json!({"id": one["id"], "sku": "A-3", "name": "Y", "price": "2.50", "stock": 0})
    );
    let taken = service
        .send(
            Method::PUT,
            &path,
            &json!({"sku": "A-2", "name": "Y", "price": 2}),
        )
        .await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    // The catalogue, the inventory and the orders are of one product.
    assert_eq!(
        service.get("/inventory/A-2").await.body["available_stock"],
        7
    );
    let adjust = async |adjustment: i64| {
        let body = json!({"adjustment": adjustment, "reason": "found"});
        service
            .post(&format!("/products/{}/stock/adjust", other["id"]), &body)
            .await
    };
    assert_eq!(adjust(3).await.body["stock"], 10);
    assert_eq!(adjust(-11).await.status, StatusCode::CONFLICT);
    assert_eq!(adjust(0).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let archive = async |product: &Value| {
        service
            .send(
                Method::DELETE,
                &format!("/products/{}", product["id"]),
                &json!({}),
            )
            .await
    };
    assert_eq!(
        archive(&other).await.status,
        StatusCode::CONFLICT,
        "it has stock"
    );
    let emptied = adjust(-10).await;
    assert_eq!(emptied.body["stock"], 0);
    let mut flat = LiveClient::connect_to(&service, "/ws/inventory")
        .await
        .unwrap();
    assert_eq!(archive(&other).await.status, StatusCode::NO_CONTENT);
    let deleted = flat.hear("inventory_update").await;
    assert_eq!(
        (&deleted["action"], &deleted["product_id"]),
        (&json!("deleted"), &json!("A-2"))
    );
    assert_eq!(
        service.get("/inventory/A-2").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(service.get("/inventory").await.body["total"], 1);
    assert_eq!(archive(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(archive(&one).await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(order(&service, &one, 1).await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.get("/products/").await.body["total"], 0);
    for path in [
        "/products/x",
        "/products/0",
        "/products/99999999999999999999",
    ] {
        assert_eq!(
            service.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// Five in stock, twenty buyers, each asks twice at once with one key: five orders, all paid, nothing left.
/// Pages tell how many there are by what has come and gone since the page before.
#[tokio::test]
async fn the_list_is_counted_as_it_changes() {
    let world = World::new().await;
    let service = world.start().await;
    let listed = async |total: i64, when: &str| {
        let page = service.get("/products/?per_page=1").await;
        assert_eq!(page.body["total"], total, "{when}");
    };
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let put =
        async |id: Uuid, entry: Value| service.put(&format!("/api/products/{id}"), entry).await;
    let archive = async |product: Value| {
        let path = format!("/products/{}", product["id"]);
        let gone = service.send(Method::DELETE, &path, &json!({})).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    };
    listed(0, "nothing").await;
    let first = product(&service, "A-1", 0).await;
    listed(1, "made").await;
    put(one, json!({"name": "without a sku"})).await;
    listed(1, "one without a sku").await;
    put(other, json!({"sku": "A-2"})).await;
    put(other, json!({"sku": "A-2", "name": "changed"})).await;
    put(one, json!({"sku": "A-3"})).await;
    listed(3, "one more, and one that has a sku now").await;
    put(other, json!({"name": "without a sku again"})).await;
    archive(product(&service, "A-4", 0).await).await;
    listed(2, "one less, and one that came and went").await;
    archive(first).await;
    product(&service, "A-5", 3).await;
    product(&service, "A-6", 0).await;
    listed(3, "two for one").await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_last_items_are_ordered_once() {
    let world = World::new().await;
    let services = [
        world.start().await,
        world.start().await,
        world.start().await,
    ];
    for round in 0..if is_long() { 1_000 } else { 10 } {
        // At one process, and at three.
        let services = &services[..if round % 2 == 0 { 1 } else { 3 }];
        let last = product(&services[0], &format!("LAST-{round}"), 5).await;
        let body = json!({"product_id": last["id"], "quantity": 1});
        let buyers = (0..20).map(|buyer| {
            let (key, body) = (format!("{round}-{buyer}"), &body);
            async move {
                let at = |n: usize| &services[(buyer + n) % services.len()];
                let (one, other) = tokio::join!(
                    at(0).post_once("/orders/", &key, body),
                    at(1).post_once("/orders/", &key, body)
                );
                [one, other]
            }
        });
        let pairs = futures_util::future::join_all(buyers).await;
        let (mut made, mut refused) = (BTreeMap::new(), 0);
        for pair in &pairs {
            let told = pair.iter().filter(|a| a.body["in_progress"] != true);
            let told: Vec<&Answer> = told.collect();
            assert!(
                told.iter().all(|answer| answer.body == told[0].body),
                "{pair:?}"
            );
            match told[0].status {
                StatusCode::CREATED => {
                    made.insert(told[0].body["id"].as_i64(), told[0].body.clone());
                }
                StatusCode::CONFLICT => refused += 1,
                _ => panic!("{pair:?}"),
            }
        }
        assert_eq!((made.len(), refused), (5, 15), "round {round}");
        for order in made.values() {
            let paid = step(&services[0], order, "pay").await;
            assert_eq!(paid.body["status"], "PAID");
        }
        assert_eq!(stock(&services[0], &last).await, 0);
    }
    for service in services {
        service.stop().await;
    }
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
