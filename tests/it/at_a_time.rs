//! The ledger as something to ask: how a level was, by either clock, and what it is made of.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde_json::{Value, json};
use sqlx::Row;
use stockyard::{
    domain::{
        Fact, MovementId, ProductId, Quantity, Revision, Side, SideReport, StockKey, StockLevel,
        Timestamp, WarehouseId,
        explain::KindSum,
        past::{Basis, Moment},
    },
    inventory::{
        Inventory,
        record::{Recorder, Taken},
    },
};
use uuid::Uuid;

use crate::support::{
    Service, TestDatabase, World, eventually, is_long, messages::Move, stream::seed,
};

const NORTH: Uuid = Uuid::from_u128(1);
const SOUTH: Uuid = Uuid::from_u128(2);
const WIDGET: Uuid = Uuid::from_u128(10);
const GADGET: Uuid = Uuid::from_u128(11);
/// Rows between two checkpoints: so few that every closed range has some.
const ROWS_BETWEEN: i64 = 7;
/// When facts of these tests begin to happen, and how far apart the moments are at which they do.
const BEGAN_US: i64 = 1_750_000_000_000_000;
const STEP_US: i64 = 60_000_000;
/// So few moments that many facts share one.
const MOMENTS: i64 = 40;

fn key(warehouse: Uuid, product: Uuid) -> StockKey {
    StockKey {
        warehouse: WarehouseId::new(warehouse).unwrap(),
        product: ProductId::new(product).unwrap(),
    }
}

fn keys() -> [StockKey; 4] {
    [
        key(NORTH, WIDGET),
        key(SOUTH, WIDGET),
        key(NORTH, GADGET),
        // Of which nothing is ever reported.
        key(SOUTH, GADGET),
    ]
}

/// A row of the ledger, raw.
#[derive(Clone, Copy, Debug)]
struct Raw {
    revision: i64,
    kind: i16,
    on_hand: i64,
    reserved: i64,
    occurred_us: i64,
    committed_us: i64,
}

async fn raw_rows(database: &TestDatabase, key: StockKey) -> Vec<Raw> {
    let mut connection = database.connect().await;
    let rows = sqlx::query(
        "select g.revision, g.kind, g.on_hand_delta, g.reserved_delta,
            (extract(epoch from g.occurred_at) * 1000000)::bigint, (extract(epoch from c.committed_at) * 1000000)::bigint
        from stock_ledger g join stock_levels l using (inventory_id) join stock_commits c using (batch)
        where l.warehouse_id = $1 and l.product_id = $2",
    )
    .bind(key.warehouse.uuid())
    .bind(key.product.uuid())
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let raw = |row: &sqlx::postgres::PgRow| Raw {
        revision: row.get(0),
        kind: row.get(1),
        on_hand: row.get(2),
        reserved: row.get(3),
        occurred_us: row.get(4),
        committed_us: row.get(5),
    };
    rows.iter().map(raw).collect()
}

/// The level at that moment, from scratch.
fn replayed(rows: &[Raw], moment: Moment) -> StockLevel {
    let clock = |row: &Raw| match moment.basis {
        Basis::Recorded => row.committed_us,
        Basis::Occurred => row.occurred_us,
    };
    let known: Vec<&Raw> = rows
        .iter()
        .filter(|row| clock(row) <= moment.at.micros())
        .collect();
    let newest = |rows: &mut dyn Iterator<Item = &Raw>| rows.map(|row| row.revision).max();
    let revision = match moment.basis {
        Basis::Recorded => newest(&mut known.iter().copied()),
        Basis::Occurred => newest(&mut rows.iter()),
    };
    StockLevel {
        on_hand: known.iter().map(|row| row.on_hand).sum(),
        reserved: known.iter().map(|row| row.reserved).sum(),
        revision: Revision(revision.unwrap_or(0)),
        updated_at: known
            .iter()
            .map(|row| clock(row))
            .max()
            .map(Timestamp::from_micros),
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn fact(random: &mut SmallRng, keys: &[StockKey]) -> Fact {
    // More than half of everything is of one key.
    let key = keys[random.random_range(0..keys.len()) * usize::from(random.random_bool(0.5))];
    let side = [Side::Departure, Side::Arrival][random.random_range(0..2)];
    Fact {
        movement: MovementId::new(Uuid::from_u128(random.random())).unwrap(),
        product: key.product,
        side,
        report: SideReport {
            warehouse: key.warehouse,
            at: at(BEGAN_US + random.random_range(0..MOMENTS) * STEP_US),
            quantity: Quantity::new(random.random_range(0..9)).unwrap(),
        },
        code: None,
    }
}

/// A commit that changes one level in one way, as requests will.
struct Change {
    key: StockKey,
    kind: i16,
    on_hand: i64,
    reserved: i64,
    occurred_us: i64,
    cause: Uuid,
}

impl Change {
    async fn commit(&self, database: &TestDatabase) {
        self.commit_as(database, "nextval('stock_batches')").await;
    }

    /// Under that batch number.
    async fn commit_as(&self, database: &TestDatabase, batch: &str) {
        let Self {
            key: StockKey { warehouse, product },
            kind,
            on_hand,
            reserved,
            occurred_us,
            cause,
        } = self;
        let sql = format!(
            "do $$ declare
                n bigint := {batch};
                l stock_levels%rowtype;
            begin
                update stock_levels set on_hand = on_hand + {on_hand}, reserved = reserved + {reserved}, revision = revision + 1
                where warehouse_id = '{warehouse}' and product_id = '{product}' returning * into strict l;
                insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after,
                    reserved_after, occurred_at, cause_id, kind)
                values (n, l.inventory_id, l.revision, {on_hand}, {reserved}, l.on_hand, l.reserved,
                    timestamptz 'epoch' + interval '1 microsecond' * {occurred_us}, '{cause}', {kind});
                perform stock_publish(n);
            end $$"
        );
        database.run(&sql).await;
    }
}

/// Reserves and gives back, late and in the past, as expiries are.
async fn reserve(database: &TestDatabase, random: &mut SmallRng, key: StockKey) {
    let units = random.random_range(1..5);
    let made_us = BEGAN_US + random.random_range(0..MOMENTS) * STEP_US;
    for (kind, reserved, occurred_us) in [(9, units, made_us), (12, -units, made_us + STEP_US)] {
        let change = Change {
            key,
            kind,
            on_hand: 0,
            reserved,
            occurred_us,
            cause: Uuid::from_u128(random.random()),
        };
        change.commit(database).await;
    }
}

/// Closes every range before the open one.
async fn close_all(inventory: &Inventory) {
    let store = inventory.store();
    while store.close_ledger_range(ROWS_BETWEEN).await.unwrap() > 0 {}
}

/// Moments worth asking about: each at which something is, those beside it, and any.
fn moments(random: &mut SmallRng, rows: &[Raw]) -> Vec<Timestamp> {
    let mut moments = vec![at(946_684_800_000_000), at(4_102_444_799_999_999)];
    for _ in 0..if is_long() { 400 } else { 40 } {
        let near = rows.choose(random).map_or(BEGAN_US, |row| {
            *[row.occurred_us, row.committed_us].choose(random).unwrap()
        });
        moments.push(at(near + random.random_range(-1..=1)));
        moments.push(at(
            BEGAN_US + random.random_range(-STEP_US..MOMENTS * STEP_US)
        ));
    }
    moments
}

async fn compare(inventory: &Inventory, database: &TestDatabase, random: &mut SmallRng) {
    for key in keys() {
        let rows = raw_rows(database, key).await;
        for at in moments(random, &rows) {
            for basis in [Basis::Recorded, Basis::Occurred] {
                let moment = Moment { at, basis };
                let told = inventory.stock_at(key, moment, None).await.unwrap().value;
                assert_eq!(told, replayed(&rows, moment), "{key:?} {moment:?} {at}");
            }
        }
        let mut sums: BTreeMap<&str, (i64, i64, i64)> = BTreeMap::new();
        for row in &rows {
            let name = match row.kind {
                1 => "departure",
                2 => "arrival",
                9 => "reservation",
                12 => "expiry",
                _ => "void",
            };
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + 1, sum.1 + row.on_hand, sum.2 + row.reserved);
        }
        let explained = inventory.explain(key).await.unwrap().value;
        let told = |sum: &KindSum| {
            let delta = sum.delta;
            (
                sum.kind.as_str(),
                (sum.changes, delta.on_hand, delta.reserved),
            )
        };
        assert_eq!(
            explained.kinds.iter().map(told).collect::<BTreeMap<_, _>>(),
            sums
        );
        assert_eq!(explained.kinds.len(), sums.len(), "each kind once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_by_either_clock_is_a_replay_from_scratch() {
    let seed = seed();
    eprintln!("STOCKYARD_TEST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::new().await;
    let (inventory, database) = (world.inventory(), &world.database);
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let keys = keys();
    let reported = &keys[..3];
    let first = reported.iter().map(|key| Fact {
        movement: MovementId::new(Uuid::from_u128(random.random())).unwrap(),
        product: key.product,
        side: Side::Arrival,
        report: SideReport {
            warehouse: key.warehouse,
            at: at(BEGAN_US),
            quantity: Quantity::new(3).unwrap(),
        },
        code: None,
    });
    let first: Vec<Fact> = first.collect();
    recorder.record(&first, Taken::default()).await.unwrap();
    for round in 0..if is_long() { 60 } else { 12 } {
        for _ in 0..random.random_range(1..6) {
            let facts: Vec<Fact> = (0..random.random_range(1..30))
                .map(|_| fact(&mut random, reported))
                .collect();
            recorder.record(&facts, Taken::default()).await.unwrap();
            let key = *reported.choose(&mut random).unwrap();
            if random.random_bool(0.3) {
                reserve(database, &mut random, key).await;
            }
            if random.random_bool(0.2) {
                let taken_back = Change {
                    key,
                    kind: 14,
                    on_hand: -2,
                    reserved: 0,
                    occurred_us: BEGAN_US + random.random_range(0..MOMENTS) * STEP_US,
                    cause: Uuid::from_u128(random.random()),
                };
                taken_back.commit(database).await;
            }
        }
        if random.random_bool(0.7) {
            let late = "select nextval('stock_batches')";
            let late = database.number(late).await.to_string();
            inventory.store().make_ledger_room(1).await.unwrap();
            // What is under way meanwhile is committed to the range before, after commits of the next one.
            let key = reported[0];
            for batch in ["nextval('stock_batches')", &late] {
                let change = Change {
                    key,
                    kind: 14,
                    on_hand: -1,
                    reserved: 0,
                    occurred_us: BEGAN_US,
                    cause: Uuid::from_u128(random.random()),
                };
                change.commit_as(database, batch).await;
            }
        }
        match random.random_range(0..3) {
            0 => {}
            // Left in the middle: sealed, or with its index.
            1 => {
                let one_step = format!("select stock_ledger_close_next({ROWS_BETWEEN})");
                database.run(&one_step).await;
            }
            _ => close_all(&inventory).await,
        }
        if round % 4 == 3 {
            compare(&inventory, database, &mut random).await;
        }
    }
    inventory.store().make_ledger_room(1).await.unwrap();
    close_all(&inventory).await;
    let facts: Vec<Fact> = (0..20).map(|_| fact(&mut random, reported)).collect();
    recorder.record(&facts, Taken::default()).await.unwrap();
    compare(&inventory, database, &mut random).await;

    let closed = "select count(*) from stock_ledger_ranges where closed_at is not null";
    let (closed, sums) = (
        database.number(closed).await,
        database
            .number("select count(*) from stock_ledger_sums")
            .await,
    );
    assert!(closed > 3 && sums > closed, "{closed} closed, {sums} sums");
    // No question has to look at more rows than that of a key in a closed range.
    let most = format!(
        "select coalesce(max(n), 0) from (
            select count(*) n from (
                select g.inventory_id, g.batch >> 32 as range, (
                    select max(s.occurred_at) from stock_ledger_sums s
                    where s.inventory_id = g.inventory_id and s.range = g.batch >> 32 and s.occurred_at <= g.occurred_at
                ) as checkpoint, g.occurred_at
                from stock_ledger g where g.batch >> 32 < {closed}
            ) g where checkpoint is distinct from occurred_at group by inventory_id, range, checkpoint
        ) counted"
    );
    let most = database.number(&most).await;
    assert!(
        (1..ROWS_BETWEEN + 1).contains(&most),
        "{most} rows to look at"
    );
    inventory.store().close().await;
    database.remove().await;
}

/// Waits until somebody waits for a lock in this database.
async fn waits(database: &TestDatabase) {
    eventually("somebody waits for a lock", async || {
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        (database.number(waiting).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_writer_is_refused_and_its_batch_comes_in_under_a_new_number() {
    let world = World::new().await;
    let service = world.start().await;
    world.send(&Move::new(NORTH, WIDGET, 5).arrival()).await;
    service.has_on_hand(NORTH, WIDGET, 5).await;
    let (inventory, database) = (world.inventory(), &world.database);
    let mut holder = database.connect().await;
    sqlx::raw_sql("begin; select from stock_levels for update")
        .execute(&mut holder)
        .await
        .unwrap();
    // It has its number, and waits for the level before it can write to the ledger.
    world.send(&Move::new(NORTH, WIDGET, 4).arrival()).await;
    waits(database).await;
    inventory.store().make_ledger_room(1).await.unwrap();
    eventually("the range is closed", async || {
        let store = inventory.store();
        store.close_ledger_range(ROWS_BETWEEN).await.unwrap();
        let closed = "select count(*) from stock_ledger_ranges where closed_at is not null";
        (database.number(closed).await == 1).then_some(())
    })
    .await;
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    service.has_on_hand(NORTH, WIDGET, 9).await;
    let retried = r#"warehouse_ingest_retries_total{step="record"}"#;
    assert!(service.count(retried).await > 0);
    let ranges =
        "select string_agg((batch >> 32)::text, ' ' order by revision)::bigint from stock_ledger";
    let by_range = database.number(&ranges.replace("' '", "''")).await;
    assert_eq!(
        by_range, 1,
        "the first row in range 0, the second in range 1"
    );
    assert_eq!(world.dead_letters_so_far().await.len(), 0);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    inventory.store().close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_not_closed_under_a_writer() {
    let world = World::new().await;
    let (inventory, database) = (world.inventory(), &world.database);
    let mut recorder = Recorder::new(Arc::clone(&inventory));
    let arrival = |movement: u128| Fact {
        movement: MovementId::new(Uuid::from_u128(movement)).unwrap(),
        product: ProductId::new(WIDGET).unwrap(),
        side: Side::Arrival,
        report: SideReport {
            warehouse: WarehouseId::new(NORTH).unwrap(),
            at: at(BEGAN_US),
            quantity: Quantity::new(5).unwrap(),
        },
        code: None,
    };
    recorder
        .record(&[arrival(1)], Taken::default())
        .await
        .unwrap();
    // Somebody has written to the partition and not committed.
    let mut writer = database.connect().await;
    sqlx::raw_sql(
        "begin; update stock_levels set on_hand = 7, revision = 2;
        insert into stock_ledger select nextval('stock_batches'), inventory_id, 2, 2, 0, 7, 0, occurred_at,
            gen_random_uuid(), 2 from stock_ledger;
        select stock_publish(currval('stock_batches'))",
    )
    .execute(&mut writer)
    .await
    .unwrap();
    let store = inventory.store();
    store.make_ledger_room(1).await.unwrap();
    assert_eq!(store.close_ledger_range(ROWS_BETWEEN).await.unwrap(), 0);
    sqlx::raw_sql("commit").execute(&mut writer).await.unwrap();
    assert_eq!(store.close_ledger_range(ROWS_BETWEEN).await.unwrap(), 3);
    assert_eq!(store.close_ledger_range(ROWS_BETWEEN).await.unwrap(), 0);
    let moment = Moment {
        at: at(BEGAN_US),
        basis: Basis::Occurred,
    };
    let key = key(NORTH, WIDGET);
    let told = inventory.stock_at(key, moment, None).await.unwrap().value;
    assert_eq!(
        told.on_hand, 7,
        "what was committed while the range was to be closed is in it"
    );
    recorder
        .record(&[arrival(3)], Taken::default())
        .await
        .unwrap();
    let told = inventory.stock_at(key, moment, None).await.unwrap().value;
    assert_eq!(told.on_hand, 12);
    store.close().await;
    database.remove().await;
}

fn path(suffix: &str) -> String {
    format!("/api/warehouses/{NORTH}/products/{WIDGET}{suffix}")
}

async fn moved(world: &World, event: &str, units: i64, at: i64) -> Uuid {
    let moved = Move::new(NORTH, WIDGET, units);
    let time = Timestamp::from_micros(BEGAN_US + at * STEP_US);
    world.send(&moved.at(event, time)).await;
    moved.movement
}

async fn is_at(service: &Service, revision: i64) {
    eventually("the revision", async || {
        let body = service.get(&path("")).await.body;
        (body["revision"] == json!(revision)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_past_is_told_by_either_clock() {
    let world = World::new().await;
    let service = world.start().await;
    // Told in another order than it happened.
    moved(&world, "departure", 3, 10).await;
    is_at(&service, 1).await;
    moved(&world, "arrival", 8, 5).await;
    is_at(&service, 2).await;
    let now = service.get(&path("")).await;
    assert!(now.body.get("at").is_none() && now.body.get("basis").is_none());
    let time = |step: i64| Timestamp::from_micros(BEGAN_US + step * STEP_US).to_string();

    let occurred = service
        .get(&path(&format!("?at={}&basis=occurred", time(5))))
        .await;
    assert_eq!(occurred.status, 200);
    assert_eq!(occurred.header("cache-status"), "stockyard; fwd=bypass");
    assert_eq!(
        occurred.header("stock-version"),
        now.header("stock-version")
    );
    for (field, value) in [
        ("on_hand", json!(8)),
        ("quantity", json!(8)),
        ("available", json!(8)),
        ("revision", json!(2)),
        ("at", json!(time(5))),
        ("updated_at", json!(time(5))),
        ("basis", json!("occurred")),
        ("warehouse_id", json!(NORTH)),
    ] {
        assert_eq!(occurred.body[field], value, "{field}");
    }
    let known = [("if-none-match", occurred.header("etag"))];
    let again = service
        .get_with(&path(&format!("?at={}&basis=occurred", time(5))), &known)
        .await;
    assert_eq!(again.status, 304);

    // What was known right after the first commit: a departure of what was not there.
    let history = service.get(&path("/history")).await.body;
    let first = history["history"][1]["recorded_at"].as_str().unwrap();
    let recorded = service.get(&path(&format!("?at={first}"))).await.body;
    assert_eq!(
        (
            &recorded["on_hand"],
            &recorded["quantity"],
            &recorded["revision"]
        ),
        (&json!(-3), &json!(0), &json!(1))
    );
    assert_eq!(
        (&recorded["updated_at"], &recorded["basis"]),
        (&json!(first), &json!("recorded"))
    );
    let before = service.get(&path(&format!("?at={}", time(0)))).await.body;
    assert_eq!(
        (&before["revision"], &before["updated_at"]),
        (&json!(0), &Value::Null)
    );
    for basis in ["recorded", "occurred"] {
        let future = service
            .get(&path(&format!("?at=2099-01-01T00:00Z&basis={basis}")))
            .await
            .body;
        assert_eq!(
            (&future["on_hand"], &future["revision"]),
            (&json!(5), &json!(2))
        );
    }
    let nothing = format!(
        "/api/warehouses/{NORTH}/products/{}?at=2099-01-01T00:00Z",
        Uuid::nil()
    );
    let nothing = service.get(&nothing).await;
    assert_eq!(
        (nothing.status.as_u16(), &nothing.body["revision"]),
        (200, &json!(0))
    );

    for query in [
        "?basis=recorded",
        "?at=",
        "?at=yesterday",
        "?at=1999-12-31T00:00Z",
        "?at=2025-01-01",
        "?at=2025-01-01T00:00Z&basis=",
        "?at=2025-01-01T00:00Z&basis=Recorded",
        "?at=2025-01-01T00:00Z&at=2025-01-02T00:00Z",
    ] {
        let refused = service.get(&path(query)).await;
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(
            refused.header("content-type"),
            "application/problem+json",
            "{query}"
        );
    }
    let ahead = [("stock-min-version", "999999")];
    let unreached = service
        .get_with(&path("?at=2025-01-01T00:00Z"), &ahead)
        .await;
    assert_eq!(unreached.status, 503);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_level_below_zero_names_the_departures_that_no_arrival_covers() {
    let world = World::new().await;
    let service = world.start().await;
    moved(&world, "arrival", 10, 0).await;
    is_at(&service, 1).await;
    let mut departed = Vec::new();
    for (revision, units) in [(2, 6), (3, 9), (4, 5), (5, 4)] {
        departed.push(moved(&world, "departure", units, revision).await);
        is_at(&service, revision).await;
    }
    let told = |body: &Value| {
        let named = body["uncovered_departures"].as_array().unwrap().iter();
        named
            .map(|one| {
                let movement: Uuid = one["movement_id"].as_str().unwrap().parse().unwrap();
                (
                    movement,
                    one["quantity"].as_i64().unwrap(),
                    one["uncovered"].as_i64().unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    let answer = service.get(&path("/explain")).await;
    let version = service.get(&path("")).await;
    assert_eq!(
        answer.header("stock-version"),
        version.header("stock-version")
    );
    let body = answer.body;
    assert_eq!(
        (&body["on_hand"], &body["deficit"], &body["is_cut"]),
        (&json!(-14), &json!(14), &json!(false))
    );
    assert_eq!(
        body["by_kind"],
        json!([
            {"kind": "departure", "changes": 4, "on_hand": -24, "reserved": 0},
            {"kind": "arrival", "changes": 1, "on_hand": 10, "reserved": 0}
        ])
    );
    assert_eq!(
        told(&body),
        [
            (departed[3], 4, 4),
            (departed[2], 5, 5),
            (departed[1], 9, 5)
        ]
    );
    assert_eq!(
        body["uncovered_departures"][0]["at"],
        json!(at(BEGAN_US + 5 * STEP_US).to_string())
    );

    // A departure that is taken back is no departure any more.
    let taken_back = Change {
        key: key(NORTH, WIDGET),
        kind: 13,
        on_hand: 5,
        reserved: 0,
        occurred_us: BEGAN_US + 4 * STEP_US,
        cause: departed[2],
    };
    taken_back.commit(&world.database).await;
    world
        .database
        .run(&format!(
            "update movements set departure_at = null, departure_quantity = null, departure_warehouse_id = null, sides_voided = 1
            where movement_id = '{}'",
            departed[2]
        ))
        .await;
    let body = service.get(&path("/explain")).await.body;
    assert_eq!(told(&body), [(departed[3], 4, 4), (departed[1], 9, 5)]);
    assert_eq!(
        body["by_kind"][2],
        json!({"kind": "void", "changes": 1, "on_hand": 5, "reserved": 0})
    );

    // More of them than are named.
    for _ in 0..101 {
        moved(&world, "departure", 1, 6).await;
    }
    eventually("all of them", async || {
        let body = service.get(&path("/explain")).await.body;
        (body["on_hand"] == json!(-110)).then_some(())
    })
    .await;
    let body = service.get(&path("/explain")).await.body;
    assert_eq!((told(&body).len(), &body["is_cut"]), (100, &json!(true)));

    let nothing = service
        .get(&format!(
            "/api/warehouses/{SOUTH}/products/{WIDGET}/explain"
        ))
        .await;
    assert_eq!(
        (nothing.status.as_u16(), &nothing.body["by_kind"]),
        (200, &json!([]))
    );
    for path in [
        format!("/api/warehouses/nowhere/products/{WIDGET}/explain"),
        format!("/api/warehouses/{NORTH}/products/{}/explain", Uuid::nil()),
    ] {
        assert_eq!(service.get(&path).await.status, 400);
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn reservations_are_counted_and_those_that_are_due_are_told_apart() {
    let world = World::new().await;
    let service = world.start().await;
    moved(&world, "arrival", 10, 0).await;
    is_at(&service, 1).await;
    let reserved = Change {
        key: key(NORTH, WIDGET),
        kind: 9,
        on_hand: 0,
        reserved: 5,
        occurred_us: BEGAN_US,
        cause: Uuid::from_u128(77),
    };
    reserved.commit(&world.database).await;
    world
        .database
        .run(
            "insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in)
            select gen_random_uuid(), inventory_id, units, 1, now(), expires_at, now(), 1 from stock_levels,
                (values (3, now() + interval '1 hour'), (2, now() - interval '1 second')) r (units, expires_at)",
        )
        .await;
    let body = service.get(&path("/explain")).await.body;
    assert_eq!(
        body["reservations"],
        json!({"active": 2, "units": 5, "due_units": 2})
    );
    assert_eq!(
        (&body["reserved"], &body["available"]),
        (&json!(3), &json!(7))
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn the_history_says_who_and_why_and_what_for() {
    let world = World::new().await;
    let service = world.start().await;
    let movement = moved(&world, "arrival", 10, 0).await;
    is_at(&service, 1).await;
    let (command, reservation) = (Uuid::from_u128(70), Uuid::from_u128(71));
    for (kind, on_hand, reserved, cause) in [(4, -2, 0, command), (9, 0, 3, reservation)] {
        let change = Change {
            key: key(NORTH, WIDGET),
            kind,
            on_hand,
            reserved,
            occurred_us: BEGAN_US,
            cause,
        };
        change.commit(&world.database).await;
    }
    world
        .database
        .run(
            "insert into stock_notes (batch, cause_id, kind, actor, reason, reference)
            select batch, cause_id, kind, 'kim', 'broken', null from stock_ledger where kind = 4
            union all select batch, cause_id, kind, null, null, 'order 7' from stock_ledger where kind = 9",
        )
        .await;
    let history = service.get(&path("/history")).await.body;
    let entry = |place: usize, fields: [&str; 6]| {
        fields.map(|field| history["history"][place][field].clone())
    };
    let fields = [
        "movement_id",
        "reservation_id",
        "command_id",
        "actor",
        "reason",
        "reference",
    ];
    let none = Value::Null;
    let expected = [
        [
            none.clone(),
            json!(reservation),
            none.clone(),
            none.clone(),
            none.clone(),
            json!("order 7"),
        ],
        [
            none.clone(),
            none.clone(),
            json!(command),
            json!("kim"),
            json!("broken"),
            none.clone(),
        ],
        [
            json!(movement),
            none.clone(),
            none.clone(),
            none.clone(),
            none.clone(),
            none,
        ],
    ];
    for (place, expected) in expected.into_iter().enumerate() {
        assert_eq!(entry(place, fields), expected, "{place}");
    }
    service.stop().await;
    world.database.remove().await;
}
