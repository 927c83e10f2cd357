//! Requests that make no sense, on every route that takes one: a clear problem, and nothing changes.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, live::LiveClient};

/// Everything that a request could change.
const ALL: &str = "select (select count(*) from stock_ledger) + (select count(*) from stock_levels) + (select count(*) from stock_commits)
    + (select count(*) from reservations) + (select count(*) from products) + (select count(*) from warehouses)
    + (select count(*) from orders) + (select count(*) from catalogue_changes) + (select count(*) from idempotency_keys)";

/// What a number must not be, where a number of units is asked for.
fn bad_numbers() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(9_000_000_000_000_000_000_i64),
        json!(18_446_744_073_709_551_615_u64),
        json!("1"),
        json!(null),
        json!(true),
        json!([1]),
    ]
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let listed = json!({"sku": "L", "name": "L", "price": 1, "stock": 2});
    let number = service.post("/products/", &listed).await.body["id"].clone();
    let made = json!({"product": product, "quantity": 1});
    let reservation = service.post("/api/reservations", &made).await.body["id"].clone();
    let reservation = reservation.as_str().unwrap();
    let mut client = LiveClient::connect(&service, "").await;
    client.hear("snapshot").await;
    let before = world.database.number(ALL).await;

    let unknown = Uuid::new_v4();
    let adjustment = |name: &str, value: Value| {
        let mut body =
            json!({"warehouse": warehouse, "product": product, "change": 1, "kind": "restock"});
        body[name] = value;
        body
    };
    let mut cases: Vec<(String, Value, &[u16])> = vec![
        (
            "/api/adjustments".into(),
            adjustment("product", json!(unknown)),
            &[404],
        ),
        (
            "/api/adjustments".into(),
            adjustment("warehouse", json!(unknown)),
            &[404],
        ),
        (
            "/api/adjustments".into(),
            adjustment("product", json!("no such sku")),
            &[404],
        ),
        (
            "/api/adjustments".into(),
            adjustment("kind", json!("theft")),
            &[422],
        ),
        (
            "/api/adjustments".into(),
            adjustment("kind", json!("void")),
            &[422],
        ),
        (
            "/api/adjustments".into(),
            adjustment("kind", json!("sale")),
            &[422],
        ),
        (
            "/api/adjustments".into(),
            adjustment("reason", json!("x".repeat(501))),
            &[422],
        ),
        (
            "/api/adjustments".into(),
            adjustment("reason", json!("a\0b")),
            &[422],
        ),
        ("/api/adjustments".into(), json!([]), &[422]),
        (
            "/api/adjustments/bulk".into(),
            json!({"adjustments": []}),
            &[422],
        ),
        (
            "/api/adjustments/bulk".into(),
            json!({"adjustments": vec![adjustment("change", json!(1)); 1_001]}),
            &[422, 413],
        ),
        (
            "/api/reservations".into(),
            json!({"product": unknown, "quantity": 1}),
            &[404],
        ),
        (
            "/api/reservations".into(),
            json!({"product": product, "quantity": 1, "warehouse": "nowhere"}),
            &[404],
        ),
        ("/api/reservations".into(), json!({"items": []}), &[422]),
        (
            "/api/reservations".into(),
            json!({"product": product, "items": [{"product": product, "quantity": 1}]}),
            &[422],
        ),
        (
            "/api/reservations".into(),
            json!({"product": product, "quantity": 1, "ttl_seconds": 0}),
            &[422],
        ),
        (
            "/api/reservations".into(),
            json!({"product": product, "quantity": 1, "ttl_seconds": 86_401}),
            &[422],
        ),
        (
            format!("/api/reservations/{unknown}/confirm"),
            json!({}),
            &[404],
        ),
        (
            "/api/reservations/00000000-0000-0000-0000-000000000000/confirm".into(),
            json!({}),
            &[400],
        ),
        (
            format!("/api/reservations/{reservation}/extend"),
            json!({"ttl_seconds": -5}),
            &[422],
        ),
        (
            "/inventory/nothing/reserve".into(),
            json!({"quantity": 1}),
            &[404],
        ),
        (format!("/inventory/{product}/reserve"), json!({}), &[400]),
        (
            "/inventory/nothing/update".into(),
            json!({"warehouse": warehouse, "change": 1, "update_type": "restock"}),
            &[404],
        ),
        (
            format!("/inventory/{product}/update"),
            json!({"warehouse": "nowhere", "change": 1, "update_type": "restock"}),
            &[404],
        ),
        (
            format!("/inventory/{product}/update"),
            json!({"warehouse": warehouse, "change": 1, "update_type": "sale"}),
            &[422],
        ),
        (
            "/inventory/adjust".into(),
            json!({"product_id": 77, "warehouse_id": 1, "quantity": 1}),
            &[404],
        ),
        (
            "/orders/".into(),
            json!({"product_id": 999, "quantity": 1}),
            &[404],
        ),
        ("/orders/999/pay".into(), json!({}), &[404]),
        (
            "/products/".into(),
            json!({"sku": "", "name": "x", "price": 1, "stock": 1}),
            &[422],
        ),
        (
            "/products/".into(),
            json!({"sku": "adjust", "name": "x", "price": 1, "stock": 1}),
            &[422],
        ),
        (
            "/products/".into(),
            json!({"sku": "x", "name": "x", "price": -1, "stock": 1}),
            &[422],
        ),
        (
            "/products/".into(),
            json!({"sku": "x", "name": "x", "price": "1.234", "stock": 1}),
            &[422],
        ),
        (
            "/products/".into(),
            json!({"sku": "x", "name": "x", "price": 1, "stock": -1}),
            &[422],
        ),
        (
            "/products/".into(),
            json!({"sku": "L", "name": "x", "price": 1, "stock": 1}),
            &[409],
        ),
        (
            format!("/products/{number}/stock/adjust"),
            json!({"adjustment": -3}),
            &[409],
        ),
    ];
    for units in bad_numbers() {
        if units != json!(-1) {
            cases.push((
                "/api/adjustments".into(),
                adjustment("change", units.clone()),
                &[422],
            ));
            cases.push((
                "/inventory/adjust".into(),
                json!({"product_id": product, "warehouse_id": warehouse, "quantity": units}),
                &[422],
            ));
            cases.push((
                format!("/products/{number}/stock/adjust"),
                json!({"adjustment": units}),
                &[422],
            ));
        }
        cases.push((
            "/api/reservations".into(),
            json!({"product": product, "quantity": units}),
            &[422],
        ));
        cases.push((
            format!("/inventory/{product}/reserve"),
            json!({"quantity": units}),
            &[400],
        ));
        cases.push((
            "/orders/".into(),
            json!({"product_id": number, "quantity": units}),
            &[422],
        ));
    }
    for (path, body, expected) in &cases {
        let answer = service.post(path, body).await;
        let shown: String = body.to_string().chars().take(200).collect();
        assert!(
            expected.contains(&answer.status.as_u16()),
            "{path} {shown}: {answer:?}"
        );
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{path} {shown}"
        );
        for field in ["type", "title", "detail", "error"] {
            assert!(answer.body[field].is_string(), "{path} {shown}: {answer:?}");
        }
    }
    let paths: std::collections::BTreeSet<&String> = cases.iter().map(|(path, ..)| path).collect();
    let client_of = Client::new();
    for path in paths {
        if path.contains("nothing")
            || path.contains("999")
            || path.contains(&unknown.to_string())
            || path.contains("0000-0000")
        {
            continue;
        }
        let send = |body: Vec<u8>, content_type: &'static str| {
            let request = client_of.request(Method::POST, format!("{}{path}", service.base));
            let request = request.header("content-type", content_type).body(body);
            async move { request.send().await.expect("an answer").status() }
        };
        let status = send(b"{".to_vec(), "application/json").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        if !path.contains("/confirm") && !path.contains("/release") && !path.contains("/extend") {
            let status = send(Vec::new(), "application/json").await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        }
        let status = send(b"{}".to_vec(), "text/plain").await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
        let status = send(vec![b' '; 300_000], "application/json").await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    let nothing = client_of
        .post(format!("{}/inventory/{product}/reserve", service.base))
        .header("content-type", "application/json");
    let nothing: Value = nothing.send().await.unwrap().json().await.unwrap();
    assert_eq!(nothing["error"], "Invalid request", "{nothing}");
    assert_eq!(world.database.number(ALL).await, before, "nothing changed");
    // The first that it is told is what happens now.
    let made = service
        .post(
            "/api/adjustments",
            &json!({"warehouse": warehouse, "product": product, "change": 1, "kind": "restock"}),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let frame = loop {
        let frame = client.next().await.unwrap();
        if frame["type"] != "heartbeat" {
            break frame;
        }
    };
    let told = frame["cursor"].as_str().unwrap_or_default();
    assert_eq!(told, made.header("stock-version"), "{frame}");
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
