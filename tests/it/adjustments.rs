//! Adjustments: each kind by its rule, refused where it must be, compared and swapped, many at once.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::World;

fn adjustment(warehouse: Uuid, product: Uuid, kind: &str, change: i64) -> Value {
    json!({"warehouse": warehouse, "product": product, "kind": kind, "change": change})
}

#[tokio::test]
async fn each_kind_follows_its_rule_and_stands_in_the_ledger() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(10).await;
    let adjust = async |kind: &str, change: i64| {
        let body = adjustment(warehouse, product, kind, change);
        service.post("/api/adjustments", &body).await
    };
    for (kind, change, on_hand) in [
        ("sale", -3, 7),
        ("damage", -2, 5),
        ("return", 1, 6),
        ("adjustment", -6, 0),
        ("count", 8, 8),
        ("adjustment", 1, 9),
    ] {
        let adjusted = adjust(kind, change).await;
        assert_eq!(adjusted.status, StatusCode::CREATED, "{adjusted:?}");
        assert_eq!(adjusted.body["on_hand"], on_hand, "{kind}");
        // What it says is true as of its own commit, and read at once.
        let version = adjusted.header("stock-version").to_owned();
        let read = service.stock(warehouse, product).await;
        assert_eq!(read.header("stock-version"), version);
        assert_eq!(read.body["on_hand"], on_hand);
        assert_eq!(read.body["revision"], adjusted.body["revision"]);
        assert_eq!(read.body["updated_at"], adjusted.body["updated_at"]);
    }
    let before = service.stock(warehouse, product).await;
    for (kind, change) in [("sale", -10), ("damage", -10), ("adjustment", -10)] {
        let refused = adjust(kind, change).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
        assert_eq!(refused.body["title"], "Insufficient stock");
        assert_eq!(refused.body["lines"][0]["available"], 9);
        assert_eq!(refused.header("stock-version"), "");
    }
    assert_eq!(service.stock(warehouse, product).await.body, before.body);

    let history = service
        .get(&format!(
            "/api/warehouses/{warehouse}/products/{product}/history"
        ))
        .await;
    let kinds = history.body["history"].as_array().unwrap().iter();
    let kinds: Vec<&str> = kinds.map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "adjustment",
            "count",
            "adjustment",
            "return",
            "damage",
            "sale",
            "restock"
        ]
    );
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn a_level_is_compared_and_swapped() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(10).await;
    let body = adjustment(warehouse, product, "sale", -1);
    let read = service.stock(warehouse, product).await;
    let tag = read.header("etag").to_owned();
    let swap = async |tag: &str| {
        service
            .post_with("/api/adjustments", &[("if-match", tag)], &body)
            .await
    };
    assert_eq!(swap(&tag).await.status, StatusCode::CREATED);
    let refused = swap(&tag).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    let now = service.stock(warehouse, product).await;
    assert_eq!(refused.body["current"], now.body);
    assert_eq!(refused.body["etag"], now.header("etag"));
    // A list of tags, and whatever is there.
    let one_of = format!("\"other\", {}", now.header("etag"));
    assert_eq!(swap(&one_of).await.status, StatusCode::CREATED);
    assert_eq!(swap("*").await.status, StatusCode::CREATED);
    // As a client gets it that takes compressed answers.
    let path = format!("/api/warehouses/{warehouse}/products/{product}");
    let compressed = service
        .get_with(&path, &[("accept-encoding", "gzip")])
        .await;
    let weak = compressed.header("etag").to_owned();
    assert!(weak.starts_with("W/"), "{weak}");
    assert_eq!(swap(&weak).await.status, StatusCode::CREATED);
    // Of many at once with one tag, one.
    let tag = service
        .stock(warehouse, product)
        .await
        .header("etag")
        .to_owned();
    let swaps = (0..20).map(|_| swap(&tag));
    let swaps = futures_util::future::join_all(swaps).await;
    let done = swaps
        .iter()
        .filter(|swap| swap.status == StatusCode::CREATED);
    assert_eq!(done.count(), 1);
    assert_eq!(service.stock(warehouse, product).await.body["on_hand"], 5);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn many_are_made_together_or_each_by_itself() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let (_, other) = service.stocked(1).await;
    let bulk = async |atomic: bool, adjustments: Value| {
        let body = json!({"atomic": atomic, "adjustments": adjustments});
        service.post("/api/adjustments/bulk", &body).await
    };
    let mixed = json!([
        adjustment(warehouse, product, "sale", -4),
        adjustment(warehouse, product, "sale", -2),
        adjustment(warehouse, product, "sale", 2),
        adjustment(warehouse, other, "restock", 3),
        adjustment(warehouse, Uuid::new_v4(), "restock", 3),
    ]);
    let made = bulk(false, mixed.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    let statuses = made.body["results"].as_array().unwrap().iter();
    let statuses: Vec<i64> = statuses
        .map(|one| one["status"].as_i64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 409, 422, 201, 404]);
    assert_eq!(
        (&made.body["adjusted"], &made.body["refused"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(service.stock(warehouse, product).await.body["on_hand"], 1);
    assert_eq!(service.stock(warehouse, other).await.body["on_hand"], 3);

    let before = world.newest_version().await;
    let refused = bulk(true, json!([mixed[3], mixed[0]])).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.body["index"], 1);
    let refused = bulk(true, json!([mixed[3], mixed[2]])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(service.stock(warehouse, other).await.body["on_hand"], 3);
    assert_eq!(
        world.newest_version().await,
        before,
        "nothing was committed"
    );
    // Nothing new was made on the way either: no level, no product.
    let levels = "select count(*) from stock_levels";
    assert_eq!(world.database.number(levels).await, 3);
    let made = bulk(
        true,
        json!([mixed[3], adjustment(warehouse, product, "sale", -1)]),
    )
    .await;
    assert_eq!(made.status, StatusCode::OK);
    assert_eq!(service.stock(warehouse, other).await.body["on_hand"], 6);
    let most = vec![adjustment(warehouse, other, "restock", 1); 1_000];
    assert_eq!(bulk(true, json!(most)).await.body["adjusted"], 1_000);
    assert_eq!(service.stock(warehouse, other).await.body["on_hand"], 1_006);
    let too_many = vec![adjustment(warehouse, other, "restock", 1); 1_001];
    let refused = bulk(true, json!(too_many)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let none = bulk(true, json!([])).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
