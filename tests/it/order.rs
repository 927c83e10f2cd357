//! Whatever the order, the repetition, the batches and the number of writers, the tables hold the facts as a set.
//!
//! `domain::batch` shows it of the fold; here it is shown of `record` on a real database. Every telling of a stream has ids
//! of its own, so that one database serves them all. A failure names its seed (`STOCKYARD_TEST_SEED`) and the smallest
//! stream that was found to fail; what writers do to each other is not in the seed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
    sync::Arc,
};

use futures_util::future::try_join_all;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use stockyard::{
    domain::{Fact, Quantity, Side, Timestamp, WarehouseCode, batch::Outcome},
    inventory::{
        Inventory,
        record::{Recorder, Taken},
    },
    store::StoreError,
};
use uuid::Uuid;

use crate::{
    schema,
    support::{World, eventually, is_long, messages::Move, stream::seed},
};

/// Most writers at a time, and most batches of each.
const WRITERS: usize = 4;
const BATCHES: usize = 3;

/// A side of a line, by small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SideId {
    movement: u8,
    product: u8,
    side: Side,
}

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    warehouse: u8,
    at: u8,
    units: i64,
}

/// What one message says. The code its source gives the warehouse is no part of the content.
#[derive(Clone, Copy)]
struct Told {
    id: SideId,
    content: Content,
    code: Option<u8>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, content) = (self.id, self.content);
        write!(
            f,
            "movement {} product {} {:?}: {} units, warehouse {}, time {}, code {:?}",
            id.movement,
            id.product,
            id.side,
            content.units,
            content.warehouse,
            content.at,
            self.code
        )
    }
}

impl Told {
    /// As a fact of a telling, with its ids.
    fn fact(&self, telling: u64) -> Fact {
        let (id, content) = (self.id, self.content);
        let own = |small: u8| u128::from(telling) << 64 | u128::from(small);
        let mut fact = schema::fact(
            own(id.movement),
            id.side,
            own(content.warehouse),
            own(id.product),
            content.units,
        );
        fact.report.at = Timestamp::from_micros(FIRST_US + i64::from(content.at));
        fact.code = self
            .code
            .and_then(|code| WarehouseCode::from_source(&format!("WH-{telling}-{code}")));
        fact
    }
}

const FIRST_US: i64 = 1_750_000_000_000_000;

/// By writer, its batches in order.
type Telling = Vec<Vec<Vec<Told>>>;

fn side_id() -> impl Strategy<Value = SideId> {
    (1..4_u8, 1..4_u8, any::<bool>()).prop_map(|(movement, product, departs)| SideId {
        movement,
        product,
        side: if departs {
            Side::Departure
        } else {
            Side::Arrival
        },
    })
}

fn content() -> impl Strategy<Value = Content> {
    let units = prop_oneof![Just(0), 1..4_i64, Just(Quantity::MAX)];
    (1..4_u8, 0..2_u8, units).prop_map(|(warehouse, at, units)| Content {
        warehouse,
        at,
        units,
    })
}

fn code() -> impl Strategy<Value = Option<u8>> {
    prop::option::weighted(0.2, 0..2_u8)
}

/// No two messages conflict: one content per side.
fn agreeing() -> impl Strategy<Value = Vec<Told>> {
    prop::collection::btree_map(side_id(), (content(), code()), 1..16).prop_map(|sides| {
        sides
            .into_iter()
            .map(|(id, (content, code))| Told { id, content, code })
            .collect()
    })
}

/// Anything of anything.
fn conflicting() -> impl Strategy<Value = Vec<Told>> {
    let told =
        (side_id(), content(), code()).prop_map(|(id, content, code)| Told { id, content, code });
    prop::collection::vec(told, 1..24)
}

/// All of it at least once, some of it more often, in any order, cut into any batches of any number of writers.
fn telling(stream: Vec<Told>) -> impl Strategy<Value = Telling> {
    let again = prop::collection::vec(any::<Index>(), 0..8);
    (again, 1..=WRITERS)
        .prop_flat_map(move |(again, writers)| {
            let again = again.iter().map(|place| *place.get(&stream));
            let all: Vec<Told> = stream.iter().copied().chain(again).collect();
            let places = prop::collection::vec((0..writers, 0..BATCHES), all.len());
            (Just(writers), Just(all).prop_shuffle(), places)
        })
        .prop_map(|(writers, all, places)| {
            let mut telling = vec![vec![Vec::new(); BATCHES]; writers];
            for (told, (writer, batch)) in all.into_iter().zip(places) {
                telling[writer][batch].push(told);
            }
            for batches in &mut telling {
                batches.retain(|batch| !batch.is_empty());
            }
            telling
        })
}

/// What the tables hold of one telling, a line for each row, with small numbers for its ids. Left out is what depends on
/// the order: ids, batches, revisions, states after, the time recorded, and who was first to offer a code.
type Tables = Vec<String>;

const TABLES: &str = "
    select row from (
        select format('movement %s product %s: %s', right(movement_id::text, 1), right(product_id::text, 1),
            concat_ws(', ',
                'Departure of ' || departure_quantity || ' from ' || right(departure_warehouse_id::text, 1) || ' at '
                    || ((extract(epoch from departure_at) * 1000000)::bigint - 1750000000000000),
                'Arrival of ' || arrival_quantity || ' from ' || right(arrival_warehouse_id::text, 1) || ' at '
                    || ((extract(epoch from arrival_at) * 1000000)::bigint - 1750000000000000))) as row
        from movements where movement_id between $1 and $2
        union all
        select format('level %s %s: %s on hand, %s reserved',
            right(warehouse_id::text, 1), right(product_id::text, 1), on_hand, reserved)
        from stock_levels where warehouse_id between $1 and $2
        union all
        select format('ledger %s %s: %s and %s by the %s of %s at %s',
            right(warehouse_id::text, 1), right(product_id::text, 1), on_hand_delta, reserved_delta,
            case kind when 1 then 'Departure' when 2 then 'Arrival' end, right(cause_id::text, 1),
            (extract(epoch from occurred_at) * 1000000)::bigint - 1750000000000000)
        from stock_ledger join stock_levels using (inventory_id) where warehouse_id between $1 and $2
        union all
        select format('product %s', right(product_id::text, 1)) from products where product_id between $1 and $2
        union all
        select format('warehouse %s', right(warehouse_id::text, 1)) from warehouses where warehouse_id between $1 and $2
    ) rows";

async fn tables(connection: &mut PgConnection, telling: u64) -> Tables {
    let first = u128::from(telling) << 64;
    let mut rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(TABLES))
        .bind(Uuid::from_u128(first))
        .bind(Uuid::from_u128(first | u128::from(u64::MAX)))
        .fetch_all(connection)
        .await
        .unwrap();
    rows.sort();
    rows
}

/// What the tables should hold once these were applied and the others were not.
fn expected(applied: &BTreeMap<SideId, Content>) -> Tables {
    let mut rows = Vec::new();
    let (mut lines, mut on_hand) = (BTreeMap::new(), BTreeMap::new());
    for (id, content) in applied {
        let line: &mut Vec<String> = lines.entry((id.movement, id.product)).or_default();
        line.push(format!(
            "{:?} of {} from {} at {}",
            id.side, content.units, content.warehouse, content.at
        ));
        let change = match id.side {
            Side::Departure => -content.units,
            Side::Arrival => content.units,
        };
        *on_hand.entry((content.warehouse, id.product)).or_insert(0) += change;
        rows.push(format!(
            "ledger {} {}: {change} and 0 by the {:?} of {} at {}",
            content.warehouse, id.product, id.side, id.movement, content.at
        ));
    }
    rows.extend(lines.into_iter().map(|((movement, product), sides)| {
        format!(
            "movement {movement} product {product}: {}",
            sides.join(", ")
        )
    }));
    rows.extend(on_hand.into_iter().map(|((warehouse, product), units)| {
        format!("level {warehouse} {product}: {units} on hand, 0 reserved")
    }));
    let products: BTreeSet<u8> = applied.keys().map(|id| id.product).collect();
    let warehouses: BTreeSet<u8> = applied.values().map(|content| content.warehouse).collect();
    rows.extend(products.iter().map(|id| format!("product {id}")));
    rows.extend(warehouses.iter().map(|id| format!("warehouse {id}")));
    rows.sort();
    rows
}

/// One database, and the writers of all tellings.
struct Stage {
    world: World,
    inventory: Arc<Inventory>,
    recorders: Vec<Recorder>,
    connection: PgConnection,
    tellings: u64,
}

impl Stage {
    async fn new() -> Self {
        let world = World::new().await;
        let inventory = world.inventory();
        let recorder = || Recorder::new(Arc::clone(&inventory));
        Self {
            recorders: iter::repeat_with(recorder).take(WRITERS).collect(),
            connection: world.database.connect().await,
            world,
            inventory,
            tellings: 0,
        }
    }

    /// Records a telling, its writers at the same time. What became of each message, and what the tables hold of it.
    async fn tell(
        &mut self,
        telling: &Telling,
    ) -> Result<(Vec<(Told, Outcome)>, Tables), TestCaseError> {
        self.tellings += 1;
        let number = self.tellings;
        let writers = iter::zip(&mut self.recorders, telling).map(async |(recorder, batches)| {
            let mut became = Vec::new();
            for batch in batches {
                let facts: Vec<Fact> = batch.iter().map(|told| told.fact(number)).collect();
                let recorded = recorder.record(&facts, Taken::default()).await?;
                became.extend(iter::zip(batch.iter().copied(), recorded.outcomes));
            }
            Ok::<_, StoreError>(became)
        });
        let became = try_join_all(writers).await;
        let became = became.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let tables = tables(&mut self.connection, number).await;
        Ok((became.concat(), tables))
    }

    /// Nothing deadlocked, and the tables as a whole are in order.
    async fn end(self) {
        let differences = self.world.differences().await;
        assert_eq!(differences, [""; 0]);
        self.inventory.store().close().await;
        drop(self.recorders);
        self.world.database.remove().await;
    }
}

/// The first applied content of each side; a second one is an error.
fn winners(became: &[(Told, Outcome)]) -> Result<BTreeMap<SideId, Content>, TestCaseError> {
    let mut winners = BTreeMap::new();
    for (told, _) in became
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Applied)
    {
        let before = winners.insert(told.id, told.content);
        prop_assert_eq!(before, None, "applied twice: {:?}", told);
    }
    Ok(winners)
}

/// Tries the test on that many cases, and panics with the smallest that fails and its seed.
fn holds<S: Strategy>(
    cases: u32,
    strategy: &S,
    test: impl AsyncFn(&mut Stage, S::Value) -> TestCaseResult,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        // Every attempt at a smaller stream is a few transactions.
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let stage = RefCell::new(runtime.block_on(Stage::new()));
    let clock = stockyard::clock::Clock::system();
    let (run, on) = (&runtime, &stage);
    let result = TestRunner::new_with_rng(config, rng).run(strategy, move |case| {
        run.block_on(test(&mut on.borrow_mut(), case))
    });
    if let Err(error) = result {
        panic!("STOCKYARD_TEST_SEED={seed}: {error}");
    }
    let stage = stage.into_inner();
    eprintln!(
        "{cases} streams told {} times in {:?}",
        stage.tellings,
        clock.elapsed()
    );
    runtime.block_on(stage.end());
}

#[test]
fn order_repetition_batches_and_writers_change_nothing() {
    let stream = agreeing().prop_flat_map(|stream| {
        let tellings = [telling(stream.clone()), telling(stream.clone())];
        (Just(stream), tellings)
    });
    holds(cases(), &stream, async |stage, (stream, tellings)| {
        let applied = stream.iter().map(|told| (told.id, told.content)).collect();
        let expected = expected(&applied);
        for telling in &tellings {
            let (became, tables) = stage.tell(telling).await?;
            prop_assert_eq!(&tables, &expected);
            prop_assert_eq!(&winners(&became)?, &applied);
            let is_conflict = |(_, outcome): &(_, Outcome)| *outcome == Outcome::Conflict;
            prop_assert!(!became.iter().any(is_conflict), "{:?}", became);
        }
        Ok(())
    });
}

#[test]
fn of_conflicting_messages_one_content_per_side_is_applied() {
    let stream = conflicting().prop_flat_map(telling);
    holds(cases(), &stream, async |stage, telling| {
        let (became, tables) = stage.tell(&telling).await?;
        let winners = winners(&became)?;
        for (told, outcome) in &became {
            let winner = winners.get(&told.id);
            prop_assert!(winner.is_some(), "nothing was applied of {:?}", told);
            let is_loser = winner != Some(&told.content);
            prop_assert_eq!(*outcome == Outcome::Conflict, is_loser, "{:?}", told);
        }
        prop_assert_eq!(&tables, &expected(&winners));

        // The same without the losers.
        let mut without = telling.clone();
        for batch in without.iter_mut().flatten() {
            batch.retain(|told| winners.get(&told.id) == Some(&told.content));
        }
        let (became, others) = stage.tell(&without).await?;
        let is_conflict = |(_, outcome): &(_, Outcome)| *outcome == Outcome::Conflict;
        prop_assert!(!became.iter().any(is_conflict), "{:?}", became);
        prop_assert_eq!(&tables, &others);
        Ok(())
    });
}

fn cases() -> u32 {
    if is_long() { 10_000 } else { 400 }
}

/// The same through Kafka: the messages lie on four partitions, and two lanes take those of their products.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_loser_is_a_dead_letter_and_nothing_else_is() {
    let world = World::with(|config| config.ingest.max_batch_events = 7).await;
    let (products, warehouses) = ([1, 2].map(Uuid::from_u128), [1, 2, 3].map(Uuid::from_u128));
    let mut messages = Vec::new();
    for number in 0..30 {
        let first = Move::new(warehouses[number % 3], products[number % 2], 5);
        let other = Move { units: 6, ..first };
        let elsewhere = Move {
            warehouse: warehouses[(number + 1) % 3],
            ..first
        };
        // Both orders, on one partition and on several; what was first comes again at the end.
        let sides = [first, other, elsewhere, first].map(|told| told.arrival());
        let departure = first.departure();
        for (place, told) in sides.into_iter().chain([departure]).enumerate() {
            let mut message: Value = serde_json::from_str(&told).unwrap();
            // Tells the messages apart.
            message["id"] = json!(messages.len());
            let partition = i32::try_from((number + place * (1 + number % 3)) % 4).unwrap();
            world.send_to(partition, &message.to_string()).await;
            messages.push((first.movement, message));
        }
    }
    let service = world.start().await;
    world
        .is_caught_up(i64::try_from(messages.len()).unwrap())
        .await;

    let (mut losers, mut winners) = (BTreeSet::new(), BTreeSet::new());
    for (movement, message) in &messages {
        let side = message["data"]["event"].as_str().unwrap();
        let answer = service.movement(movement).await;
        let won = &answer.body[side];
        let data = &message["data"];
        let has_won = ["warehouse_id", "quantity"]
            .iter()
            .all(|field| won[field] == data[field]);
        if has_won {
            winners.insert((movement, side));
        } else {
            losers.insert(message.to_string().into_bytes());
        }
    }
    assert_eq!(winners.len(), 60, "one content per side");
    let written = r#"warehouse_ingest_dead_letters_total{reason="conflict"}"#;
    eventually("the losers' letters", async || {
        (service.count(written).await >= losers.len() as u64).then_some(())
    })
    .await;
    service.stop().await;
    let letters = world.dead_letters(losers.len()).await;
    assert!(letters.iter().all(|letter| letter.reason() == "conflict"));
    let values: BTreeSet<_> = letters
        .into_iter()
        .filter_map(|letter| letter.value)
        .collect();
    assert_eq!(values, losers);
    let ledger = world.database.number("select count(*) from stock_ledger");
    assert_eq!(ledger.await, 60);
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
