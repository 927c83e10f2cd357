//! A writer that stops at any step of its transaction delays the others by three seconds at most.

use std::{process::Command, sync::Arc, time::Duration};

use stockyard::{
    app,
    cache::rule::Conditions,
    clock::Clock,
    domain::{Side, batch},
    inventory::{
        feed::Nobody,
        record::{Recorder, Taken},
    },
    metrics::Metrics,
    store::writer::WriteTx,
    traces::Traces,
};

use crate::{
    schema::fact,
    support::{
        World,
        process::{Process, is_frozen, signal},
        variable,
    },
};

const STEP: &str = "STOCKYARD_TEST_FREEZE_AFTER";
const DATABASE: &str = "STOCKYARD_TEST_FREEZE_DATABASE";
const STEPS: [&str; 6] = [
    "begin",
    "movements",
    "read",
    "levels",
    "catalogue",
    "ledger",
];
/// The promise.
const DELAY_MAX: Duration = Duration::from_secs(3);

/// Not a test: the process that the test below starts and freezes. It takes a transaction up to a step and stops itself.
#[tokio::test]
#[ignore = "run by the test below"]
async fn child_that_freezes() {
    let (Some(step), Some(url)) = (variable(STEP), variable(DATABASE)) else {
        return;
    };
    let mut config =
        stockyard::config::Config::from_layers(None, std::collections::HashMap::new()).unwrap();
    config.database.url = url;
    let (inventory, _follower, _decider) = app::inventory(
        &config,
        &Clock::system(),
        Metrics::new().unwrap(),
        Conditions::ALL,
        Arc::new(Nobody),
        Traces::default(),
    )
    .unwrap();
    let mut writer = inventory.store().writer();
    let mut tx = writer.begin().await.unwrap();
    for name in STEPS {
        take(&mut tx, name).await;
        if name == step {
            signal(std::process::id(), "STOP");
        }
    }
}

/// One step of recording two facts, whose keys the other writer wants too.
async fn take(tx: &mut WriteTx<'_>, step: &str) {
    let facts = [
        fact(1, Side::Departure, 1, 1, 5),
        fact(1, Side::Arrival, 2, 1, 5),
    ];
    let merged = batch::merge(&facts);
    let both = stockyard::domain::Sides::NONE
        .with(Side::Departure)
        .with(Side::Arrival);
    let changes = merged.changes(&[both]);
    match step {
        "catalogue" => {
            tx.ensure_products(&[facts[0].product.uuid()])
                .await
                .unwrap();
            tx.ensure_warehouses(&facts.map(|fact| fact.report.warehouse.uuid()))
                .await
                .unwrap();
        }
        "movements" => drop(tx.upsert_movements(merged.lines()).await.unwrap()),
        "levels" => drop(
            tx.add_to_levels(&batch::deltas_by_key(&changes))
                .await
                .unwrap(),
        ),
        "ledger" => {
            let level = stockyard::store::writer::LevelAfter {
                inventory_id: 1,
                key: changes[0].key,
                on_hand: 0,
                reserved: 0,
                revision: stockyard::domain::Revision::FIRST,
            };
            tx.append_ledger(changes.iter().map(|change| (change, &level)))
                .await
                .unwrap();
        }
        "read" => drop(
            tx.read_lines(&[(facts[0].movement, facts[0].product)])
                .await
                .unwrap(),
        ),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_frozen_at_any_step_delays_others_by_three_seconds_at_most() {
    for step in STEPS {
        let world = World::new().await;
        let inventory = world.inventory();
        let mut recorder = Recorder::new(Arc::clone(&inventory));
        // Its connection is there already: what is measured is the wait for the frozen one.
        recorder
            .record(&[fact(99, Side::Arrival, 9, 9, 1)], Taken::default())
            .await
            .unwrap();

        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "frozen_writer::child_that_freezes",
                "--ignored",
                "--test-threads=1",
            ])
            .env(STEP, step)
            .env(DATABASE, &world.database.url);
        let frozen = Process::start(&mut command);
        is_frozen(frozen.id()).await;

        let began = Clock::system();
        let facts = [
            fact(1, Side::Departure, 1, 1, 5),
            fact(1, Side::Arrival, 2, 1, 5),
        ];
        let done = recorder.record(&facts, Taken::default()).await.unwrap();
        let delay = began.elapsed();
        eprintln!("frozen after {step}: the other writer waited {delay:?}");
        assert!(done.commit.is_some(), "what the frozen one did is undone");
        assert!(delay <= DELAY_MAX, "frozen after {step}: {delay:?}");
        drop(frozen);
        assert_eq!(world.differences().await, [""; 0]);
        inventory.store().close().await;
        world.database.remove().await;
    }
}

/// The same for a whole process under load, frozen wherever it happens to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_frozen_anywhere_delays_others_by_three_seconds_at_most() {
    let world = World::new().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockyard"));
    command
        .args(["serve", "--role", "ingest"])
        .env("DATABASE_URL", &world.config.database.url)
        .env("REDIS_URL", &world.config.redis.url)
        .env(
            "KAFKA_BOOTSTRAP_SERVERS",
            &world.config.kafka.bootstrap_servers,
        )
        .env("KAFKA_TOPIC_NAME", &world.config.kafka.topic)
        .env("STOCKYARD__KAFKA__GROUP", &world.config.kafka.group)
        // Small batches: more steps to be frozen at.
        .env("STOCKYARD__INGEST__MAX_BATCH_EVENTS", "20")
        .env(
            "STOCKYARD__HTTP__LISTEN",
            format!("127.0.0.1:{}", crate::support::process::free_port()),
        );
    let ingest = Process::start(&mut command);
    let options = stockyard::produce::plan::PlanOptions {
        count: 15_000,
        warehouses: 2,
        products: 3,
        skew: 0.0,
        duplicates: 0.0,
        out_of_order: 0.0,
        losses: 0.0,
        poison: 0.0,
        seed: 1,
        namespace: 0,
    };
    world.publish(&options, 0, &[]).await.unwrap();

    let inventory = world.inventory();
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let [from, to] = [0, 1].map(|n| {
        stockyard::produce::plan::warehouse(n)
            .unwrap()
            .uuid()
            .as_u128()
    });
    let product = stockyard::produce::plan::product(0)
        .unwrap()
        .uuid()
        .as_u128();
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let taken = world.taken().await;
        crate::support::eventually("the process works", async || {
            (world.taken().await > taken).then_some(())
        })
        .await;
        ingest.freeze();
        is_frozen(ingest.id()).await;
        let began = Clock::system();
        // The keys that every batch of the frozen process touches.
        let facts = [
            fact(1_000 + round, Side::Departure, from, product, 1),
            fact(1_000 + round, Side::Arrival, to, product, 1),
        ];
        recorder.record(&facts, Taken::default()).await.unwrap();
        let delay = began.elapsed();
        slowest = slowest.max(delay);
        assert!(delay <= DELAY_MAX, "round {round}: {delay:?}");
        ingest.thaw();
    }
    eprintln!("frozen 6 times under load: the other writer waited {slowest:?} at most");
    world.is_caught_up(15_000).await;
    drop(ingest);
    assert_eq!(world.differences().await, [""; 0]);
    inventory.store().close().await;
    world.database.remove().await;
}
