//! What the database itself guards.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection, Row};
use stockyard::{
    domain::{Fact, MovementId, ProductId, Quantity, Side, SideReport, Timestamp, WarehouseId},
    inventory::record::{Recorder, Taken},
};
use uuid::Uuid;

use crate::support::{World, messages::Move};

pub fn fact(movement: u128, side: Side, warehouse: u128, product: u128, units: i64) -> Fact {
    Fact {
        movement: MovementId::new(Uuid::from_u128(movement)).unwrap(),
        product: ProductId::new(Uuid::from_u128(product)).unwrap(),
        side,
        report: SideReport {
            warehouse: WarehouseId::new(Uuid::from_u128(warehouse)).unwrap(),
            at: Timestamp::from_micros(1_750_000_000_000_000),
            quantity: Quantity::new(units).unwrap(),
        },
        code: None,
    }
}

#[tokio::test]
async fn the_role_that_serves_cannot_touch_what_was_written() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 4);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 4).await;
    let roles = world.database.number(
        "select count(*) from pg_stat_activity where datname = current_database()
        and application_name like 'stockyard %'",
    );
    assert!(
        roles.await > 0,
        "the service's connections are told by their name"
    );

    let mut connection = world.database.connect().await;
    sqlx::raw_sql("set role stockyard_app")
        .execute(&mut connection)
        .await
        .unwrap();
    for statement in [
        "update stock_ledger set on_hand_delta = 0",
        "delete from stock_ledger",
        "truncate stock_ledger",
        "update stock_commits set version = 7",
        "delete from stock_commits",
        "delete from stock_ledger_ranges",
        "update stock_ledger_sums set on_hand = 0",
        "insert into stock_ledger_kinds select * from stock_ledger_kinds",
        "select stock_ledger_add_up(0, 1)",
        "delete from movements",
        "delete from stock_levels",
        "create table mine (x int)",
    ] {
        let error = sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .unwrap_err();
        let code = error
            .as_database_error()
            .and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}");
    }
    let rows = sqlx::raw_sql("select count(*) from stock_ledger")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(rows.get::<i64, _>(0), 1);
    connection.close().await.unwrap();
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_ledger_goes_on_in_a_new_partition() {
    let world = World::new().await;
    let (inventory, database) = (world.inventory(), &world.database);
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    for round in 0..3 {
        recorder
            .record(&[fact(round + 1, Side::Arrival, 1, 1, 5)], Taken::default())
            .await
            .unwrap();
        // Any size is too large: every look moves on.
        inventory.store().make_ledger_room(1).await.unwrap();
    }
    let used = "select count(distinct tableoid) from stock_ledger";
    assert_eq!(database.number(used).await, 3);
    let made = "select count(*) from pg_inherits where inhparent = 'stock_ledger'::regclass";
    assert_eq!(
        database.number(made).await,
        5,
        "three used, one open, one ahead of need"
    );
    assert_eq!(
        database.number("select on_hand from stock_levels").await,
        15
    );
    let indexes = "select min(n) from (select count(*) n from pg_index i
        join pg_inherits p on p.inhrelid = i.indrelid group by i.indrelid) counted";
    assert_eq!(database.number(indexes).await, 2, "each has both indexes");
    tokio::time::timeout(Duration::from_secs(30), inventory.store().close())
        .await
        .unwrap();
    database.remove().await;
}

#[tokio::test]
async fn a_duplicate_publishes_nothing() {
    let world = World::new().await;
    let (inventory, database) = (world.inventory(), &world.database);
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let facts = [
        fact(1, Side::Departure, 1, 1, 5),
        fact(1, Side::Arrival, 2, 1, 5),
    ];
    let first = recorder.record(&facts, Taken::default()).await.unwrap();
    assert_eq!(first.commit.map(|commit| commit.version.number()), Some(1));
    // Together, apart, one new beside one old: what is known changes nothing.
    for again in [&facts[..], &facts[..1], &facts[1..]] {
        assert_eq!(
            recorder
                .record(again, Taken::default())
                .await
                .unwrap()
                .commit,
            None
        );
    }
    let mixed = [facts[0], fact(2, Side::Departure, 1, 1, 7)];
    let second = recorder.record(&mixed, Taken::default()).await.unwrap();
    assert_eq!(second.commit.map(|commit| commit.version.number()), Some(2));
    assert_eq!(
        database.number("select count(*) from stock_ledger").await,
        3
    );
    assert_eq!(
        database
            .number("select max(revision) from stock_levels")
            .await,
        2
    );
    inventory.store().close().await;
    database.remove().await;
}
