//! Reservations: promised, taken, given back, and expired exactly when their time is over.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Service, World, eventually};

async fn reserve(service: &Service, body: Value) -> Answer {
    service.post("/api/reservations", &body).await
}

async fn step(service: &Service, reservation: &Value, step: &str) -> Answer {
    let id = reservation["id"].as_str().unwrap();
    service
        .post(&format!("/api/reservations/{id}/{step}"), &json!({}))
        .await
}

async fn amounts(service: &Service, warehouse: Uuid, product: Uuid) -> (i64, i64, i64) {
    let level = service.stock(warehouse, product).await.body;
    let units = |name: &str| level[name].as_i64().unwrap();
    (units("on_hand"), units("reserved"), units("available"))
}

#[tokio::test]
async fn units_are_promised_and_taken_or_given_back_once() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(10).await;
    let one = reserve(
        &service,
        json!({"product": product, "quantity": 4, "reference": "cart 7"}),
    )
    .await;
    assert_eq!(one.status, StatusCode::CREATED, "{one:?}");
    assert_eq!(one.body["state"], "active");
    assert_eq!(
        one.body["allocations"],
        json!([{"product_id": product, "warehouse_id": warehouse, "quantity": 4}])
    );
    let other = reserve(
        &service,
        json!({"product": product, "warehouse": warehouse, "quantity": 5}),
    )
    .await;
    assert_eq!(amounts(&service, warehouse, product).await, (10, 9, 1));
    let refused = reserve(&service, json!({"product": product, "quantity": 2})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.body["title"], "Insufficient stock");
    assert_eq!(refused.body["lines"][0]["requested"], 2);
    assert_eq!(refused.body["lines"][0]["available"], 1);

    // Each twice: the same answer, and done once.
    for (reservation, to, state) in [
        (&one, "confirm", "confirmed"),
        (&other, "release", "released"),
    ] {
        let first = step(&service, &reservation.body, to).await;
        assert_eq!(first.status, StatusCode::OK, "{first:?}");
        assert_eq!(first.body["state"], state);
        let again = step(&service, &reservation.body, to).await;
        assert_eq!((again.status, again.body), (first.status, first.body));
    }
    assert_eq!(amounts(&service, warehouse, product).await, (6, 0, 6));
    for (reservation, to) in [
        (&one, "release"),
        (&other, "confirm"),
        (&one, "extend"),
        (&other, "extend"),
    ] {
        let refused = step(&service, &reservation.body, to).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{to}: {refused:?}");
    }
    let id = one.body["id"].as_str().unwrap();
    let shown = service.get(&format!("/api/reservations/{id}")).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    assert_eq!(
        (
            &shown.body["state"],
            &shown.body["reference"],
            &shown.body["at_risk"]
        ),
        (&json!("confirmed"), &json!("cart 7"), &json!(false))
    );
    let missing = service
        .get(&format!("/api/reservations/{}", Uuid::new_v4()))
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let nobody = json!({"id": Uuid::new_v4()});
    assert_eq!(
        step(&service, &nobody, "confirm").await.status,
        StatusCode::NOT_FOUND
    );
    let invalid = service
        .post("/api/reservations/x/confirm", &json!({}))
        .await;
    assert_eq!(invalid.status, StatusCode::BAD_REQUEST);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn several_items_are_reserved_together_from_where_they_are() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let (other_warehouse, other) = service.stocked(9).await;
    let restock =
        json!({"warehouse": other_warehouse, "product": product, "change": 8, "kind": "restock"});
    service.post("/api/adjustments", &restock).await;
    let short = reserve(
        &service,
        json!({"items": [
            {"product": product, "quantity": 14},
            {"product": other, "quantity": 3},
            {"product": other, "warehouse": warehouse, "quantity": 1},
        ]}),
    )
    .await;
    assert_eq!(short.status, StatusCode::CONFLICT, "{short:?}");
    assert_eq!(short.body["lines"].as_array().unwrap().len(), 2);
    assert_eq!(amounts(&service, other_warehouse, other).await, (9, 0, 9));
    let all = reserve(
        &service,
        json!({"items": [
            {"product": product, "quantity": 10},
            {"product": other, "quantity": 3},
        ]}),
    )
    .await;
    assert_eq!(all.status, StatusCode::CREATED, "{all:?}");
    // The fullest has not all of it, and is emptied first.
    assert_eq!(amounts(&service, other_warehouse, product).await, (8, 8, 0));
    assert_eq!(amounts(&service, warehouse, product).await, (5, 2, 3));
    assert_eq!(amounts(&service, other_warehouse, other).await, (9, 3, 6));
    assert_eq!(
        step(&service, &all.body, "confirm").await.status,
        StatusCode::OK
    );
    assert_eq!(amounts(&service, other_warehouse, product).await, (0, 0, 0));
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// With nobody tidying up: what is due is free to whoever asks for it, once.
#[tokio::test]
async fn what_is_due_is_given_back_once_without_a_sweeper() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let first = reserve(
        &service,
        json!({"product": product, "quantity": 5, "ttl_seconds": 1}),
    )
    .await;
    assert_eq!(first.status, StatusCode::CREATED);
    let lasting = json!({"product": product, "quantity": 5, "ttl_seconds": 600});
    let second = eventually("the units are free", async || {
        let second = reserve(&service, lasting.clone()).await;
        (second.status == StatusCode::CREATED).then_some(second)
    })
    .await;
    let (expires, made) = (&first.body["expires_at"], &second.body["created_at"]);
    assert!(
        expires.as_str() <= made.as_str(),
        "not before it is due: {expires} {made}"
    );
    for to in ["confirm", "extend"] {
        let refused = step(&service, &first.body, to).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert_eq!(refused.body["state"], "expired");
    }
    assert_eq!(
        step(&service, &first.body, "release").await.body["state"],
        "expired"
    );
    assert_eq!(amounts(&service, warehouse, product).await, (5, 5, 0));
    let rows = "select count(*) from stock_ledger where kind = 12";
    assert_eq!(world.database.number(rows).await, 1, "given back once");
    let at = "select (g.occurred_at = r.expires_at)::int::bigint from stock_ledger g
        join reservations r on r.reservation_id = g.cause_id where g.kind = 12";
    assert_eq!(world.database.number(at).await, 1, "as of when it was due");

    let longer = step(&service, &second.body, "extend").await;
    assert_eq!(longer.status, StatusCode::OK);
    assert!(longer.body["expires_at"].as_str() > second.body["expires_at"].as_str());
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn the_sweeper_tidies_up() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 50).await;
    let service = world.start().await;
    let (_, product) = service.stocked(5).await;
    for _ in 0..3 {
        let made = reserve(
            &service,
            json!({"product": product, "quantity": 1, "ttl_seconds": 1}),
        )
        .await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    eventually("all have expired", async || {
        let expired = "select count(*) from reservations where state = 4";
        (world.database.number(expired).await == 3).then_some(())
    })
    .await;
    let stored = "select reserved from stock_levels";
    assert_eq!(world.database.number(stored).await, 0);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// 12,001 reservations of one level, of one unit each of its 30,000, which are due at the same moment.
async fn pile(world: &World, service: &Service) -> (Uuid, Uuid) {
    let (warehouse, product) = service.stocked(30_000).await;
    let body = json!({"product": product, "quantity": 1, "ttl_seconds": 2});
    assert_eq!(reserve(service, body).await.status, StatusCode::CREATED);
    // As many more, as they would have been made together.
    world
        .database
        .run(
            "with made as (
                insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in)
                select gen_random_uuid(), r.inventory_id, 1, 1, r.created_at, r.expires_at, r.changed_at, r.made_in
                from reservations r, generate_series(1, 12000)
                returning reservation_id
            ), level as (
                update stock_levels set reserved = reserved + 12000
            ), told as (
                update stock_ledger set reserved_after = reserved_after + 12000 where kind = 9
            )
            insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
                occurred_at, cause_id, kind)
            select g.batch, g.inventory_id, g.revision, 0, 1, g.on_hand_after, g.reserved_after + 12000, g.occurred_at, m.reservation_id, 9
            from stock_ledger g, made m where g.kind = 9",
        )
        .await;
    (warehouse, product)
}

#[tokio::test]
async fn a_pile_of_what_is_due_is_swept() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 100).await;
    let service = world.start().await;
    let (warehouse, product) = pile(&world, &service).await;
    eventually("all is tidied up", async || {
        let expired = "select count(*) from reservations where state = 4";
        (world.database.number(expired).await == 12_001).then_some(())
    })
    .await;
    assert_eq!(
        amounts(&service, warehouse, product).await,
        (30_000, 0, 30_000)
    );
    let most = "select max(lines) from (select count(*) as lines from stock_ledger where kind = 12 group by batch) commits";
    assert_eq!(world.database.number(most).await, 5_000);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// More is due than one transaction expires: it is worked off, and who asks meanwhile gets what is there.
#[tokio::test]
async fn a_pile_of_what_is_due_is_worked_off() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let service = world.start().await;
    let (warehouse, product) = pile(&world, &service).await;
    eventually("they are due", async || {
        let due = "select count(*) from reservations where expires_at <= now()";
        (world.database.number(due).await == 12_001).then_some(())
    })
    .await;
    let all = reserve(&service, json!({"product": product, "quantity": 30_000})).await;
    assert_eq!(all.status, StatusCode::CREATED, "{all:?}");
    assert_eq!(
        amounts(&service, warehouse, product).await,
        (30_000, 30_000, 0)
    );
    let commits = "select count(distinct batch) from stock_ledger where kind = 12";
    assert_eq!(world.database.number(commits).await, 3);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

/// Two levels, of which one was tidied up: the reservation has expired as a whole, and is given back once.
#[tokio::test]
async fn a_reservation_of_two_levels_expires_as_one() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(5).await;
    let (other_warehouse, other) = service.stocked(5).await;
    let items = json!([{"product": product, "quantity": 2}, {"product": other, "quantity": 3}]);
    let made = reserve(&service, json!({"items": items, "ttl_seconds": 1})).await;
    let id = made.body["id"].as_str().unwrap();
    let all = json!({"product": product, "quantity": 5});
    eventually("one level's units are free", async || {
        (reserve(&service, all.clone()).await.status == StatusCode::CREATED).then_some(())
    })
    .await;
    let states = "select count(distinct state) from reservations where expires_at - created_at < interval '1 minute'";
    assert_eq!(
        world.database.number(states).await,
        2,
        "the other level was not touched"
    );
    let shown = service.get(&format!("/api/reservations/{id}")).await;
    assert_eq!(shown.body["state"], "expired");
    for to in ["confirm", "extend"] {
        assert_eq!(
            step(&service, &made.body, to).await.status,
            StatusCode::CONFLICT
        );
    }
    assert_eq!(
        step(&service, &made.body, "release").await.body["state"],
        "expired"
    );
    assert_eq!(amounts(&service, other_warehouse, other).await, (5, 0, 5));
    assert_eq!(amounts(&service, warehouse, product).await, (5, 5, 0));
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
