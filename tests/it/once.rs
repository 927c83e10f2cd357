//! The same command with the same key is done once, and answered in the same way.

use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::support::World;

#[tokio::test]
async fn an_answer_is_given_again() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let wanted = json!({"product": product, "quantity": 4});
    let first = service.post_once("/api/reservations", "k 1", &wanted).await;
    assert_eq!(first.status, StatusCode::CREATED);
    // A refusal as well: what is there by now does not matter.
    let refused = service.post_once("/api/reservations", "k 2", &wanted).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let restock =
        json!({"warehouse": warehouse, "product": product, "change": 9, "kind": "restock"});
    service.post("/api/adjustments", &restock).await;
    for (key, before) in [("k 1", &first), ("k 2", &refused)] {
        let again = service.post_once("/api/reservations", key, &wanted).await;
        assert_eq!((again.status, &again.body), (before.status, &before.body));
        assert_eq!(
            again.header("stock-version"),
            before.header("stock-version")
        );
    }
    assert_eq!(service.stock(warehouse, product).await.body["reserved"], 4);

    let other = service
        .post_once(
            "/api/reservations",
            "k 1",
            &json!({"product": product, "quantity": 3}),
        )
        .await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    // Another caller's key, and another route's, is another key.
    let by_other = [("idempotency-key", "k 1"), ("stock-actor", "somebody")];
    let by_other = service
        .post_with("/api/reservations", &by_other, &wanted)
        .await;
    assert_eq!(by_other.status, StatusCode::CREATED);
    assert_ne!(by_other.body["id"], first.body["id"]);
    let id = first.body["id"].as_str().unwrap();
    let confirmed = service
        .post_once(
            &format!("/api/reservations/{id}/confirm"),
            "k 1",
            &json!({}),
        )
        .await;
    assert_eq!(confirmed.status, StatusCode::OK);
    let id = by_other.body["id"].as_str().unwrap();
    let of_other = service
        .post_once(
            &format!("/api/reservations/{id}/confirm"),
            "k 1",
            &json!({}),
        )
        .await;
    assert_eq!(
        of_other.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "another path"
    );
    for bad in ["", "ä", &"x".repeat(256)] {
        let refused = service.post_once("/api/reservations", bad, &wanted).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    // What the request names may be gone by then.
    service
        .put(&format!("/api/products/{product}"), json!({"sku": "GONE"}))
        .await;
    let by_sku = json!({"product": "GONE", "quantity": 1});
    let named = service.post_once("/api/reservations", "k 3", &by_sku).await;
    assert_eq!(named.status, StatusCode::CREATED);
    let line = json!({"product": "GONE", "warehouse": warehouse, "change": 1, "kind": "restock"});
    let bulk = json!({"atomic": true, "adjustments": [line]});
    let restocked = service
        .post_once("/api/adjustments/bulk", "k 3", &bulk)
        .await;
    assert_eq!(restocked.status, StatusCode::OK, "{restocked:?}");
    service
        .put(&format!("/api/products/{product}"), json!({"sku": "OTHER"}))
        .await;
    let again = service.post_once("/api/reservations", "k 3", &by_sku).await;
    assert_eq!((again.status, again.body), (named.status, named.body));
    let again = service
        .post_once("/api/adjustments/bulk", "k 3", &bulk)
        .await;
    assert_eq!(
        (again.status, again.body),
        (restocked.status, restocked.body)
    );
    let unknown = json!({"product": "NEVER", "quantity": 1});
    let of_other = service
        .post_once("/api/reservations", "k 3", &unknown)
        .await;
    assert_eq!(of_other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let anew = service.post_once("/api/reservations", "k 4", &by_sku).await;
    assert_eq!(anew.status, StatusCode::NOT_FOUND);
    // What needed no commit is told as of the same one each time.
    let id = first.body["id"].as_str().unwrap();
    let confirm = format!("/api/reservations/{id}/confirm");
    let repeated = service.post_once(&confirm, "k 5", &json!({})).await;
    service.post("/api/adjustments", &restock).await;
    let again = service.post_once(&confirm, "k 5", &json!({})).await;
    assert_eq!(
        again.header("stock-version"),
        repeated.header("stock-version")
    );
    service.stop().await;

    // In another process, and after the answer is too old.
    let service = world.start().await;
    let again = service.post_once("/api/reservations", "k 1", &wanted).await;
    assert_eq!(again.body, first.body);
    world
        .database
        .run("update idempotency_keys set created_at = created_at - interval '24 hours'")
        .await;
    let anew = service.post_once("/api/reservations", "k 1", &wanted).await;
    assert_ne!(anew.body["id"], first.body["id"]);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// The same requests at once, at two processes: one reservation for each key, whoever is asked.
#[tokio::test]
async fn twice_at_once_is_once() {
    let world = World::new().await;
    let (one, other) = (world.start().await, world.start().await);
    let (warehouse, product) = one.stocked(1_000).await;
    let wanted = json!({"product": product, "quantity": 1});
    let mut asked = Vec::new();
    for n in 0..200 {
        let key = format!("{}-{}", Uuid::new_v4(), n);
        for service in [&one, &other, &one] {
            let (wanted, key) = (&wanted, key.clone());
            asked.push(async move { service.post_once("/api/reservations", &key, wanted).await });
        }
    }
    let answers = futures_util::future::join_all(asked).await;
    for three in answers.chunks(3) {
        let done: Vec<_> = three
            .iter()
            .filter(|answer| answer.body["in_progress"] != true)
            .collect();
        assert!(!done.is_empty());
        for answer in &done {
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            assert_eq!(answer.body, done[0].body);
            assert_eq!(
                answer.header("stock-version"),
                done[0].header("stock-version")
            );
        }
    }
    assert_eq!(one.stock(warehouse, product).await.body["reserved"], 200);
    one.stop().await;
    other.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
