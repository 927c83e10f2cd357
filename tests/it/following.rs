//! What it costs the database to follow what is committed.

use stockyard::domain::Version;
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move};

/// Messages of so many different products.
const MESSAGES: i64 = 1_500;
/// Commits that are read together, and how often.
const COMMITS: i64 = 64;
const READS: i64 = 5;

#[tokio::test]
async fn a_few_commits_are_looked_up_however_much_the_ledger_holds() {
    let world = World::new().await;
    let service = world.start().await;
    let warehouse = Uuid::new_v4();
    for _ in 0..MESSAGES {
        let fact = Move::new(warehouse, Uuid::new_v4(), 1);
        world.send(&fact.arrival()).await;
    }
    world.is_caught_up(MESSAGES).await;
    service.stop().await;
    // What the planner knows then: a commit has many rows, and the ledger few pages.
    world.database.run("analyze").await;
    let newest = "select max(version) from stock_commits";
    let newest = world.database.number(newest).await;
    let read = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_user_tables where relname like 'stock_ledger%'";
    let looked_up = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_tables where relname like 'stock_ledger%'";
    let before = (
        world.database.number(read).await,
        world.database.number(looked_up).await,
    );
    let inventory = world.inventory();
    let version = |number| Version::new(number).expect("a version");
    for _ in 0..READS {
        let after = version((newest - COMMITS).max(0));
        let did = inventory.store().did(after, version(newest)).await;
        assert!(!did.expect("an answer").rows.is_empty());
    }
    inventory.store().close().await;
    // Connections say what they did when they end.
    let told = eventually("what was read", async || {
        let told = world.database.number(looked_up).await;
        let whole = world.database.number(read).await - before.0;
        (told > before.1 || whole > 0).then_some(whole)
    })
    .await;
    assert_eq!(told, 0, "rows that were read one after the other");
    world.database.remove().await;
}
