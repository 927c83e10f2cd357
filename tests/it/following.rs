//! What it costs the database to follow what is committed, and to learn from it.

use futures_util::future::join_all;
use stockyard::{
    clock::Clock,
    domain::{Timestamp, Version},
    inventory::Inventory,
    store::feed::FeedRow,
};
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move};

/// Messages of so many different products, taken in a few batches, and movements whose sides come one after the other.
const MESSAGES: i64 = 1_500;
const MOVES: i64 = 150;
/// Commits that are read together, and how often.
const COMMITS: i64 = 64;
const READS: i64 = 5;

#[tokio::test]
async fn a_few_commits_are_looked_up_however_much_the_ledger_holds() {
    let world = World::new().await;
    let warehouse = Uuid::new_v4();
    let some = (0..MESSAGES).map(|_| Move::new(warehouse, Uuid::new_v4(), 1).arrival());
    let some: Vec<String> = some.collect();
    join_all(some.iter().map(|message| world.send(message))).await;
    let service = world.start().await;
    world.is_caught_up(MESSAGES).await;
    service.stop().await;
    // What the planner knows from then on: a commit has many rows, and the ledger few pages.
    let keep = "alter table stock_ledger_0 set (autovacuum_enabled = off)";
    world.database.run(keep).await;
    world.database.run("analyze").await;
    let service = world.start().await;
    let now = Clock::system().unix_micros();
    let minutes_ago = |minutes: i64| Timestamp::from_micros(now - minutes * 60_000_000);
    for _ in 0..MOVES {
        let fact = Move::new(warehouse, Uuid::new_v4(), 1);
        world.send(&fact.at("departure", minutes_ago(9))).await;
        world.send(&fact.at("arrival", minutes_ago(3))).await;
    }
    world.is_caught_up(MESSAGES + 2 * MOVES).await;
    service.stop().await;
    nobody_is_connected(&world).await;
    let newest = "select max(version) from stock_commits";
    let newest = world.database.number(newest).await;
    let read = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables where relname like 'stock_ledger%'";
    let looked_up = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_tables where relname like 'stock_ledger%'";
    let before = (
        world.database.number(read).await,
        world.database.number(looked_up).await,
    );
    let inventory = world.inventory();
    for _ in 0..READS {
        assert!(!rows(&inventory, newest).await.is_empty());
        // What was learned while they came is as if it was not.
        world
            .database
            .run("update transit_progress set version = 0")
            .await;
        let learned = inventory.store().completed().await.expect("an answer");
        assert!(!learned.expect("something new").times.is_empty());
    }
    inventory.store().close().await;
    nobody_is_connected(&world).await;
    let whole = world.database.number(read).await - before.0;
    assert_eq!(whole, 0, "rows that were read one after the other");
    let looks = world.database.number(looked_up).await - before.1;
    assert!(looks > 0, "it is told what was read");
    world.database.remove().await;
}

/// A connection says what it did before it is gone.
async fn nobody_is_connected(world: &World) {
    let connected = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'stockyard %'";
    eventually("nobody is connected", async || {
        (world.database.number(connected).await == 0).then_some(())
    })
    .await;
}

/// What the newest commits did.
async fn rows(inventory: &Inventory, newest: i64) -> Vec<FeedRow> {
    let version = |number| Version::new(number).expect("a version");
    let after = version((newest - COMMITS).max(0));
    let did = inventory.store().did(after, version(newest)).await;
    did.expect("an answer").rows
}

#[tokio::test]
async fn a_level_is_looked_up_once_and_again_in_another_database() {
    let world = World::new().await;
    let service = world.start().await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    world
        .send(&Move::new(warehouse, product, 1).arrival())
        .await;
    world.is_caught_up(1).await;
    service.stop().await;
    let newest = world
        .database
        .number("select max(version) from stock_commits")
        .await;
    let inventory = world.inventory();
    let read = async || {
        let rows = rows(&inventory, newest).await;
        let of_levels = rows.iter().map(|row| row.row.key.product.uuid());
        of_levels.collect::<Vec<_>>()
    };
    assert_eq!(read().await, [product]);
    // Whoever asks again would see it.
    let other = Uuid::new_v4();
    world
        .database
        .run(&format!("update stock_levels set product_id = '{other}'"))
        .await;
    assert_eq!(read().await, [product]);
    let beginning = inventory.store().beginning().await.expect("an answer");
    let of_history = beginning.did.rows.iter();
    let of_history: Vec<Uuid> = of_history.map(|row| row.row.key.product.uuid()).collect();
    assert_eq!(of_history, [other], "it may be another database");
    assert_eq!(read().await, [other]);
    inventory.store().close().await;
    world.database.remove().await;
}
