//! Requests wait for the levels that they are about, and for no others.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{World, eventually};

const HELD_UP: &str = "warehouse_commands_held_up_total";

/// Holds a product's levels, as a batch of facts does that is not committed yet.
async fn hold(holder: &mut PgConnection, product: Uuid) {
    let levels =
        format!("begin; select from stock_levels where product_id = '{product}' for update");
    sqlx::raw_sql(sqlx::AssertSqlSafe(levels))
        .execute(holder)
        .await
        .unwrap();
}

/// However a request names a level: it waits until that is free, and nobody else waits with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_another_level_does_not_wait() {
    let world = World::new().await;
    let service = Arc::new(world.start().await);
    let (warehouse, held) = service.stocked(100).await;
    // Who waits for several holds some of them meanwhile: those are others than the ones that are free.
    let (there, beside) = service.stocked(100).await;
    let (elsewhere, free) = service.stocked(100).await;
    let of = |quantity: i64| json!({"product": held, "quantity": quantity});
    let reserved = service.post("/api/reservations", &of(1)).await;
    let release = format!(
        "/api/reservations/{}/release",
        reserved.body["id"].as_str().unwrap()
    );
    let sale = |warehouse: Uuid, product: Uuid| json!({"warehouse": warehouse, "product": product, "kind": "sale", "change": -1});
    let reserve = |items: Value| json!({ "items": items });
    let one_of = |warehouse: Uuid, product: Uuid| json!({"product": product, "warehouse": warehouse, "quantity": 1});
    let waiting = [
        ("/api/adjustments", sale(warehouse, held)),
        (
            "/api/adjustments/bulk",
            json!({"adjustments": [sale(there, beside), sale(warehouse, held)]}),
        ),
        ("/api/reservations", of(1)),
        (
            "/api/reservations",
            reserve(json!([one_of(there, beside), one_of(warehouse, held)])),
        ),
        (release.as_str(), json!({})),
    ];
    let before = service.count(HELD_UP).await;
    let mut holder = world.database.connect().await;
    hold(&mut holder, held).await;

    let mut asked = JoinSet::new();
    for (path, body) in waiting.clone() {
        let (service, path) = (Arc::clone(&service), path.to_owned());
        asked.spawn(async move { service.post(&path, &body).await });
    }
    eventually("all of them are put off", async || {
        let more = service.count(HELD_UP).await - before;
        (more >= waiting.len() as u64).then_some(())
    })
    .await;
    for _ in 0..3 {
        let sold = service
            .post("/api/adjustments", &sale(elsewhere, free))
            .await;
        assert_eq!(sold.status, StatusCode::CREATED, "{sold:?}");
    }
    let refused = service
        .post("/api/adjustments", &sale(warehouse, free))
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    assert!(asked.try_join_next().is_none(), "the level is still held");

    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    while let Some(answered) = asked.join_next().await {
        let answered = answered.unwrap();
        assert!(answered.status.is_success(), "{answered:?}");
    }
    let on_hand = service.stock(warehouse, held).await.body["on_hand"].clone();
    assert_eq!(on_hand, 98);
    let level = service.stock(there, beside).await.body;
    assert_eq!(
        (&level["on_hand"], &level["reserved"]),
        (&json!(99), &json!(1))
    );
    let on_hand = service.stock(elsewhere, free).await.body["on_hand"].clone();
    assert_eq!(on_hand, 97);
    Arc::into_inner(service).unwrap().stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// Those that are decided together, one of them put off: each gets its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_put_off_takes_nobody_elses_answer() {
    const WAIT: &str = "warehouse_command_queue_requests";
    let world = World::new().await;
    let service = Arc::new(world.start().await);
    let (first, other) = (service.stocked(50).await, service.stocked(20).await);
    let (warehouse, held) = service.stocked(10).await;
    let mut holder = world.database.connect().await;
    hold(&mut holder, held).await;
    let commits = world.database.hold_commits().await;
    let mut asked = JoinSet::new();
    let mut ask = |(warehouse, product): (Uuid, Uuid), change: i64| {
        let body =
            json!({"warehouse": warehouse, "product": product, "kind": "sale", "change": change});
        let service = Arc::clone(&service);
        asked.spawn(async move {
            let headers = [("idempotency-key", "one")];
            let headers = if change == -2 { &headers[..] } else { &[] };
            let answer = service.post_with("/api/adjustments", headers, &body).await;
            (change, answer)
        });
    };
    ask(first, -1);
    world.database.one_waits_to_commit().await;
    for (key, change) in [((warehouse, held), -2), (other, -3), (other, -400)] {
        ask(key, change);
    }
    eventually("the three wait", async || {
        (service.count(WAIT).await == 3).then_some(())
    })
    .await;
    commits.let_go().await;
    let mut answers = Vec::new();
    while answers.len() < 3 {
        answers.push(asked.join_next().await.unwrap().unwrap());
    }
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    answers.push(asked.join_next().await.unwrap().unwrap());
    assert_eq!(answers[3].0, -2, "the others did not wait for it");
    for (change, answer) in answers {
        let is = (answer.status.as_u16(), answer.body["on_hand"].as_i64());
        let expected = match change {
            -1 => (201, Some(49)),
            -2 => (201, Some(8)),
            -3 => (201, Some(17)),
            _ => (409, None),
        };
        assert_eq!(is, expected, "{change}: {answer:?}");
    }
    // Its key was kept with it.
    let body = json!({"warehouse": warehouse, "product": held, "kind": "sale", "change": -2});
    let again = service
        .post_with("/api/adjustments", &[("idempotency-key", "one")], &body)
        .await;
    assert_eq!(again.body["on_hand"], 8, "{again:?}");
    let on_hand = service.stock(warehouse, held).await.body["on_hand"].clone();
    assert_eq!(on_hand, 8);
    Arc::into_inner(service).unwrap().stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
