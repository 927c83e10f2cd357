//! Several writers on the same keys: each fact once, no deadlock, and the tables agree.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use stockyard::{
    clock::Clock,
    domain::Side,
    inventory::record::{Recorder, Taken},
};

use crate::{
    schema::fact,
    support::{World, is_long, messages::Move},
};

const DEADLOCKS: &str = "select deadlocks from pg_stat_database where datname = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_on_overlapping_keys_never_deadlock() {
    let world = World::new().await;
    let inventory = world.inventory();
    let time = if is_long() {
        Duration::from_mins(10)
    } else {
        Duration::from_secs(10)
    };
    let clock = Clock::system();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let mut recorder = Recorder::new(Arc::clone(&inventory));
        let clock = clock.clone();
        writers.spawn(async move {
            let mut random = SmallRng::seed_from_u64(writer);
            let (mut batches, mut applied) = (0, 0_u64);
            while clock.elapsed() < time {
                // All writers draw from the same movements, warehouses and products, so that most facts are
                // duplicates of another writer's and every batch locks what others lock. Which movements these are
                // goes on with the time, so that there is always something new.
                let newest = clock.elapsed().as_millis() + 1;
                let mut facts: Vec<_> = (0..random.random_range(1..60))
                    .map(|_| {
                        let movement = random.random_range(newest..newest + 2_000);
                        let side = if random.random_bool(0.5) {
                            Side::Departure
                        } else {
                            Side::Arrival
                        };
                        let warehouse = movement % 7 + u128::from(side == Side::Arrival) + 1;
                        fact(movement, side, warehouse, movement % 11 + 1, 3)
                    })
                    .collect();
                facts.shuffle(&mut random);
                match recorder.record(&facts, Taken::default()).await {
                    Ok(done) => {
                        applied += done
                            .outcomes
                            .iter()
                            .filter(|outcome| {
                                **outcome == stockyard::domain::batch::Outcome::Applied
                            })
                            .count() as u64;
                    }
                    Err(error) => panic!("{error}"),
                }
                batches += 1;
            }
            (batches, applied)
        });
    }
    let (mut batches, mut applied) = (0, 0);
    while let Some(writer) = writers.join_next().await {
        let (more_batches, more_facts) = writer.unwrap();
        batches += more_batches;
        applied += more_facts;
    }
    eprintln!("{batches} batches with {applied} new facts in {time:?}");
    assert_eq!(world.database.number(DEADLOCKS).await, 0);
    assert_eq!(
        world
            .database
            .number("select count(*) from stock_ledger")
            .await
            .unsigned_abs(),
        applied
    );
    assert_eq!(world.differences().await, [""; 0]);
    inventory.store().close().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_same_messages_on_several_partitions_count_once() {
    let world = World::with(|config| config.ingest.lanes = 2).await;
    let moves: Vec<Move> = (0..300)
        .map(|n| {
            Move::new(
                uuid::Uuid::from_u128(1 + n % 3),
                uuid::Uuid::from_u128(1 + n % 5),
                2,
            )
        })
        .collect();
    // The sides of a movement, and the copies of a side, come from different partitions at the same time.
    for moved in &moves {
        for (partition, message) in [
            (0, moved.arrival()),
            (1, moved.arrival()),
            (2, moved.departure()),
            (1, moved.departure()),
        ] {
            world.send_to(partition, &message).await;
        }
    }
    let service = world.start().await;
    world.is_caught_up(1_200).await;
    assert_eq!(
        world
            .database
            .number("select count(*) from stock_ledger")
            .await,
        600
    );
    assert_eq!(
        world
            .database
            .number("select coalesce(sum(abs(on_hand)), 0)::bigint from stock_levels")
            .await,
        0
    );
    assert_eq!(
        service
            .count(r#"warehouse_ingest_retries_total{step="record"}"#)
            .await,
        0
    );
    service.stop().await;
    // The server counts when its sessions end.
    assert_eq!(world.database.number(DEADLOCKS).await, 0);
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
