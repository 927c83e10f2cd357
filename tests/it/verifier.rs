//! Each way in which the tables can contradict each other is found and named.

use uuid::Uuid;

use crate::support::{World, messages::Move};

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
            &["ledger row that nothing confirms"],
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

/// A copy of the copy, to be used up.
async fn copy_of(copy: &str) -> String {
    crate::support::TestDatabase::of_name(copy).copy().await
}
