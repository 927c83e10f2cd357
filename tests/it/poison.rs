//! One bad row among thousands costs one dead letter, and the search for it.

use futures_util::future::join_all;
use uuid::Uuid;

use crate::support::{World, eventually, messages::Move};

#[tokio::test]
async fn one_refused_row_costs_one_letter_and_the_halving() {
    const MESSAGES: u32 = 4_000;
    // All of it in one batch: a lane that waits for as many.
    let world = World::with(|config| {
        config.ingest.lanes = 1;
        config.ingest.max_batch_events = MESSAGES as usize;
        config.ingest.max_batch_wait_ms = 10_000;
    })
    .await;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    world.is_almost_full(warehouse, product).await;
    let culprit = Move::new(warehouse, product, 4);
    let mut values: Vec<String> = (1..MESSAGES)
        .map(|_| Move::new(Uuid::new_v4(), Uuid::new_v4(), 1).arrival())
        .collect();
    values.insert(2_717, culprit.arrival());
    join_all(values.iter().map(|value| world.send_to(0, value))).await;

    let service = world.start().await;
    world.is_caught_up(i64::from(MESSAGES)).await;
    let letters = eventually("the letter is acknowledged", async || {
        let series = r#"warehouse_ingest_dead_letters_total{reason="rejected_by_database"}"#;
        Some(service.count(series).await).filter(|letters| *letters > 0)
    })
    .await;
    assert_eq!(letters, 1);
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].header("__connect.errors.offset"), "2717");
    assert_eq!(
        letters[0].value.as_deref(),
        Some(culprit.arrival().as_bytes())
    );
    let applied = "select count(*) from stock_ledger";
    assert_eq!(
        world.database.number(applied).await,
        i64::from(MESSAGES) - 1
    );

    assert_eq!(
        service.count("warehouse_ingest_batch_events_count").await,
        1
    );
    let transactions = service
        .count(r#"warehouse_ingest_batch_stage_seconds_count{stage="begin"}"#)
        .await;
    // The whole, two halves at each level, and the position behind the culprit.
    let levels = MESSAGES.next_power_of_two().ilog2();
    let most = u64::from(2 * levels + 2);
    eprintln!(
        "{transactions} transactions for {MESSAGES} messages with one that is refused, at most {most}"
    );
    assert!(
        transactions <= most,
        "{transactions} transactions, and {most} are enough"
    );
    service.stop().await;
    world.database.remove().await;
}
