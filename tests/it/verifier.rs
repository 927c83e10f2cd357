//! Each way in which the tables can contradict each other is found and named.

use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move};

#[tokio::test]
async fn every_contradiction_is_named() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    for then in 1..=4 {
        let moved = Move::new(warehouse, product, 1);
        world.send(&moved.arrival()).await;
        service.has_on_hand(warehouse, product, then).await;
    }
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    let before = world.database.copy().await;

    let faults: [(&str, &str, &[&str]); 9] = [
        (
            "a level of another number",
            "update stock_levels set on_hand = on_hand + 1",
            &["level is not the sum of its ledger"],
        ),
        (
            "a lost ledger row",
            "delete from stock_ledger where revision = 4",
            &[
                "level is not the sum of its ledger",
                "side without a ledger row",
            ],
        ),
        (
            "a doubled ledger row",
            "insert into stock_ledger select * from stock_ledger where revision = 4",
            &[
                "level is not the sum of its ledger",
                "revision 4 is not the one before",
                "side more than once in the ledger",
            ],
        ),
        (
            "a state that does not follow",
            "update stock_ledger set on_hand_after = 7 where revision = 2",
            &["revision 2 is not the one before"],
        ),
        (
            "a lost movement",
            "delete from movements where movement_id = (select min(movement_id::text)::uuid from movements)",
            &[
                "ledger row that nothing confirms",
                "side in the ledger that its movement does not have",
            ],
        ),
        (
            "a movement of another number",
            "update movements set arrival_quantity = 9 where movement_id = (select min(movement_id::text)::uuid from movements)",
            &["ledger row that nothing confirms"],
        ),
        (
            "a batch that was never published",
            "update stock_ledger set batch = 4000 where revision = 4",
            &[
                "batch 4000 is in the ledger and was never published",
                "side without a ledger row",
            ],
        ),
        (
            "a hole in the versions",
            "delete from stock_commits where version = 2",
            &[
                "1 versions are missing",
                "was never published",
                "side without a ledger row",
            ],
        ),
        (
            "a lost product",
            "delete from products",
            &["level without its product or warehouse"],
        ),
    ];
    for (fault, sql, expected) in faults {
        let copy = copy_of(&before).await;
        world.database.restore(&copy).await;
        world.database.run(sql).await;
        let found = world.differences().await;
        for text in expected {
            assert!(
                found.iter().any(|line| line.contains(text)),
                "{fault}: no {text:?} in {found:#?}"
            );
        }
        assert_eq!(found.len(), expected.len(), "{fault}: {found:#?}");
    }
    world.database.remove().await;
}

#[tokio::test]
async fn every_contradiction_of_what_was_decided_is_named() {
    let world = World::new().await;
    let service = world.start().await;
    let (_, product) = service.stocked(10).await;
    for units in [2, 3] {
        let body = json!({"product": product, "quantity": units});
        let made = service.post("/api/reservations", &body).await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let body = json!({"sku": "O", "name": "O", "price": 1, "stock": 4});
    let product = service.post("/products/", &body).await.body["id"].clone();
    let order = service
        .post("/orders/", &json!({"product_id": product, "quantity": 4}))
        .await;
    assert_eq!(order.status, StatusCode::CREATED);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    let before = world.database.copy().await;
    let faults: [(&str, &str, &[&str]); 6] = [
        (
            "a reservation of another number",
            "update reservations set quantity = 1 where quantity = 2",
            &[
                "reserved is not the sum of the active reservations",
                "is not what the ledger says of it",
                "ledger row that nothing confirms",
            ],
        ),
        (
            "a reservation that nobody ended",
            "update reservations set state = 3, ended_in = 1 where quantity = 3",
            &[
                "reserved is not the sum of the active reservations",
                "is not what the ledger says of it",
            ],
        ),
        (
            "a lost reservation",
            "delete from reservations where quantity = 2",
            &[
                "reserved is not the sum of the active reservations",
                "is not what the ledger says of it",
                "ledger row that nothing confirms",
            ],
        ),
        (
            "a reservation of nothing",
            "insert into reservations (reservation_id, inventory_id, quantity, state, created_at, changed_at, made_in)
                values (gen_random_uuid(), -7, 1, 1, now(), now(), 1)",
            &["without its level or ledger row"],
        ),
        (
            "an order of nothing",
            "update orders set reservation_id = gen_random_uuid()",
            &["without its reservation"],
        ),
        (
            "a side taken back that is in no ledger",
            "insert into movement_voids values (gen_random_uuid(), gen_random_uuid(), 1, gen_random_uuid(), now(), 1, 1)",
            &[
                "side taken back without a ledger row",
                "line tells of other sides taken back than there are",
            ],
        ),
    ];
    for (fault, sql, expected) in faults {
        let copy = copy_of(&before).await;
        world.database.restore(&copy).await;
        world.database.run(sql).await;
        let found = world.differences().await;
        for text in expected {
            assert!(
                found.iter().any(|line| line.contains(text)),
                "{fault}: no {text:?} in {found:#?}"
            );
        }
        assert_eq!(found.len(), expected.len(), "{fault}: {found:#?}");
    }
    world.database.remove().await;
}

/// A service finds by itself what was broken under it, and repairs nothing.
#[tokio::test]
async fn the_background_check_tells_and_repairs_nothing() {
    let world = World::with(|config| config.verify.interval_seconds = 1).await;
    let service = world.start().await;
    service.stocked(10).await;
    let runs = |result: &str| format!("warehouse_verify_runs_total{{result=\"{result}\"}}");
    eventually("a clean check", async || {
        (service.count(&runs("clean")).await > 0).then_some(())
    })
    .await;
    assert_eq!(service.count("warehouse_verify_differences").await, 0);
    let fault = "update stock_levels set on_hand = 11";
    world.database.run(fault).await;
    eventually("the fault is found", async || {
        (service.count("warehouse_verify_differences").await == 1).then_some(())
    })
    .await;
    assert!(service.count(&runs("differences")).await > 0);
    let on_hand = "select on_hand from stock_levels";
    assert_eq!(world.database.number(on_hand).await, 11);
    service.stop().await;
    world.database.remove().await;
}

/// A copy of the copy, to be used up.
async fn copy_of(copy: &str) -> String {
    crate::support::TestDatabase::of_name(copy).copy().await
}
