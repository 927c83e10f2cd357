//! What was reserved is there again exactly when its time is over, although nobody has recorded that yet.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;
use stockyard::{app::Parts, domain::Timestamp};
use uuid::Uuid;

use crate::support::{
    Answer, Service, World, is_long,
    live::LiveClient,
    messages::Move,
    reserved::{DatabaseClock, End},
};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);
const ON_HAND: i64 = 10;
const UNITS: i64 = 4;

const ANSWERS: Parts = Parts {
    answers: true,
    ingests: false,
};

/// A process that takes facts and one that does not, and the units on hand.
async fn stocked(world: &World) -> [Service; 2] {
    let services = [world.start().await, world.start_parts(ANSWERS).await];
    let thresholds = json!({"min_stock": 100, "reorder_point": ON_HAND - 1});
    services[0]
        .put(&format!("/api/products/{PRODUCT}"), thresholds)
        .await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, ON_HAND).arrival())
        .await;
    for service in &services {
        service.is_ready().await;
        service.has_on_hand(WAREHOUSE, PRODUCT, ON_HAND).await;
    }
    services
}

/// An answer, and the times by the database's clock between which it was given.
struct Given {
    answer: Answer,
    from: Timestamp,
    to: Timestamp,
}

impl Given {
    async fn of(clock: &mut DatabaseClock, asked: impl Future<Output = Answer>) -> Self {
        let from = clock.now().await;
        let answer = asked.await;
        let to = clock.now().await;
        assert!(answer.status.is_success(), "{answer:?}");
        Self { answer, from, to }
    }

    /// Whether what it says of something that was so until then may be said.
    fn is_right(&self, until: Timestamp, says_so: bool) -> bool {
        if says_so {
            self.from < until
        } else {
            self.to >= until
        }
    }
}

/// Asks for the level all the time, until well after the reservation has run out. How often the cache answered before; afterwards it
/// does not, until that is recorded.
async fn read_on(world: &World, service: &Service, until: Timestamp) -> usize {
    const AFTERWARDS_US: i64 = 150_000;
    let mut clock = world.database.clock().await;
    let mut hits = 0;
    loop {
        let given = Given::of(&mut clock, service.stock(WAREHOUSE, PRODUCT)).await;
        let body = &given.answer.body;
        let reserved = body["reserved"].as_i64().unwrap();
        assert_eq!(body["available"], ON_HAND - reserved);
        assert!([0, UNITS].contains(&reserved), "{body}");
        assert!(
            given.is_right(until, reserved == UNITS),
            "{body} between {} and {}, until {until}; {}",
            given.from,
            given.to,
            given.answer.header("cache-status"),
        );
        if given.answer.header("cache-status").contains("hit") {
            assert_eq!(reserved, UNITS, "an extension may be under way");
            hits += 1;
        }
        if given.from.micros() > until.micros() + AFTERWARDS_US {
            return hits;
        }
    }
}

#[tokio::test]
async fn a_cached_level_is_right_at_the_moment_of_expiry_in_every_process() {
    let rounds = if is_long() { 100 } else { 5 };
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let services = stocked(&world).await;
    let mut hits = [0; 2];
    for _ in 0..rounds {
        let lasts = Some(Duration::from_secs(1));
        let units = [(WAREHOUSE, UNITS)];
        let reserved = world.database.reserve(PRODUCT, &units, lasts).await;
        let until = reserved.expires_at.unwrap();
        for service in &services {
            let version = reserved.commit.to_string();
            let seen = [("stock-min-version", version.as_str())];
            let path = format!("/api/warehouses/{WAREHOUSE}/products/{PRODUCT}");
            service.get_with(&path, &seen).await;
        }
        let read = |service| read_on(&world, service, until);
        let (here, again, there) =
            tokio::join!(read(&services[0]), read(&services[0]), read(&services[1]));
        hits[0] += here + again;
        hits[1] += there;
        world.database.end(reserved.id, End::Expired).await;
    }
    assert!(
        hits.iter().all(|hits| *hits > 0),
        "the cache answers: {hits:?}"
    );
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}

/// Every other read that shows what is reserved or available: its path, what it says of the units, and what else is asked.
type Says = fn(&Value) -> bool;
const READS: [(&str, Says); 5] = [
    ("/inventory/{product}", |body| {
        assert_eq!(
            body["available_stock"],
            ON_HAND - body["reserved_stock"].as_i64().unwrap()
        );
        body["reserved_stock"] == UNITS
    }),
    ("/inventory", |body| {
        let level = &body["products"][0]["levels"][0];
        assert_eq!(
            level["available"],
            ON_HAND - level["reserved"].as_i64().unwrap()
        );
        level["reserved"] == UNITS
    }),
    ("/api/warehouses/{warehouse}/products", |body| {
        body["products"][0]["available"] == ON_HAND - UNITS
    }),
    ("/inventory/low-stock", |body| {
        assert_eq!(body["low_stock"][0]["current_quantity"], ON_HAND);
        !body["reorder_needed"].as_array().unwrap().is_empty()
    }),
    ("/api/stock/query", |body| {
        body["levels"][0]["reserved"] == UNITS
    }),
];

#[tokio::test]
async fn every_read_is_right_at_the_moment_of_expiry() {
    let rounds = if is_long() { 50 } else { 3 };
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let [service, other] = stocked(&world).await;
    let mut clock = world.database.clock().await;
    let keys = json!({"keys": [{"warehouse": WAREHOUSE, "product": PRODUCT}]});
    for _ in 0..rounds {
        let lasts = Some(Duration::from_millis(700));
        let units = [(WAREHOUSE, UNITS)];
        let reserved = world.database.reserve(PRODUCT, &units, lasts).await;
        let until = reserved.expires_at.unwrap();
        // By read: how often it said that the units are free, and that they are reserved.
        let mut said = [[0; 2]; READS.len()];
        while said.iter().any(|[free, _]| *free < 2) {
            for ((path, says), said) in READS.iter().zip(&mut said) {
                let path = path
                    .replace("{product}", &PRODUCT.to_string())
                    .replace("{warehouse}", &WAREHOUSE.to_string());
                let asked = async {
                    if path.ends_with("/query") {
                        service.send(Method::POST, &path, &keys).await
                    } else {
                        service.get(&path).await
                    }
                };
                let given = Given::of(&mut clock, asked).await;
                let is_reserved = says(&given.answer.body);
                assert!(
                    given.is_right(until, is_reserved),
                    "{path}: {} between {} and {}, until {until}",
                    given.answer.body,
                    given.from,
                    given.to
                );
                said[usize::from(is_reserved)] += 1;
            }
        }
        assert!(said.iter().all(|[_, reserved]| *reserved > 0), "{said:?}");
        world.database.end(reserved.id, End::Expired).await;
    }
    service.stop().await;
    other.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn totals_are_without_what_is_due() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let [service, other] = stocked(&world).await;
    let mut clock = world.database.clock().await;
    let lasts = Some(Duration::from_millis(100));
    let units = [(WAREHOUSE, UNITS)];
    let due = world.database.reserve(PRODUCT, &units, lasts).await;
    let units = [(WAREHOUSE, 1)];
    world.database.reserve(PRODUCT, &units, None).await;
    clock.reach(due.expires_at.unwrap()).await;
    // A service may have summed up just before.
    let inventory = world.inventory();
    let totals = inventory.summary().await.unwrap().totals;
    assert_eq!((totals.reserved, totals.available), (1, ON_HAND - 1));
    assert_eq!((totals.reservations, totals.reservations_at_risk), (1, 0));
    assert_eq!(
        totals.reorder, 1,
        "no more than the reorder point is available"
    );
    inventory.store().close().await;
    service.stop().await;
    other.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn live_clients_go_on_from_what_the_ledger_says() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let [service, other] = stocked(&world).await;
    let lasts = Some(Duration::from_millis(50));
    let units = [(WAREHOUSE, UNITS)];
    let reserved = world.database.reserve(PRODUCT, &units, lasts).await;
    let version = reserved.commit.version.number();
    world
        .database
        .clock()
        .await
        .reach(reserved.expires_at.unwrap())
        .await;

    let mut client = LiveClient::connect(&other, "").await;
    client.reach(version).await;
    assert_eq!(client.picture.model, world.model_at(version).await);
    let shown = other.stock(WAREHOUSE, PRODUCT).await;
    assert_eq!(shown.body["reserved"], 0, "who asks is told what is so now");

    world.database.end(reserved.id, End::Expired).await;
    let told = client.hear("update").await;
    assert_eq!(told["data"]["update_type"], "expiry");
    assert_eq!(told["data"]["reserved"], 0);
    assert_eq!(told["data"]["available_stock"], ON_HAND);
    let newest = world.newest_version().await;
    client.reach(newest).await;
    assert_eq!(client.picture.model, world.model_at(newest).await);
    assert_eq!((client.picture.snapshots, client.picture.resyncs), (1, 0));

    let verified = world.stockyard(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    service.stop().await;
    other.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn an_extension_that_was_decided_in_time_counts_although_it_is_committed_late() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let services = stocked(&world).await;
    let lasts = Some(Duration::from_millis(500));
    let units = [(WAREHOUSE, UNITS)];
    let reserved = world.database.reserve(PRODUCT, &units, lasts).await;
    // It writes nothing into the ledger: nothing that is reserved changes.
    let mut connection = world.database.connect().await;
    let mut tx = connection.begin().await.unwrap();
    sqlx::query("update reservations set expires_at = clock_timestamp() + interval '1 hour' where reservation_id = $1")
        .bind(reserved.id.uuid())
        .execute(&mut *tx)
        .await
        .unwrap();
    let mut clock = world.database.clock().await;
    clock.reach(reserved.expires_at.unwrap()).await;
    for service in &services {
        for _ in 0..3 {
            let seen = service.stock(WAREHOUSE, PRODUCT).await;
            assert_eq!(seen.body["reserved"], 0, "nobody has heard of it");
        }
    }
    sqlx::query("select * from stock_publish(nextval('stock_batches'))")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    for service in &services {
        let seen = service.stock(WAREHOUSE, PRODUCT).await;
        assert_eq!(
            seen.body["reserved"],
            UNITS,
            "{}",
            seen.header("cache-status")
        );
    }
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}

#[tokio::test]
async fn what_was_reserved_while_one_waited_and_is_due_by_now_is_there_again() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let services = stocked(&world).await;
    let held = world.database.hold_commits().await;
    let mut clock = world.database.clock().await;
    let all = [(WAREHOUSE, ON_HAND)];
    let lasts = Duration::from_millis(500);
    let body = json!({"product": PRODUCT, "quantity": ON_HAND});
    let (reserved, answer, ()) = tokio::join!(
        world.database.reserve(PRODUCT, &all, Some(lasts)),
        async {
            world.database.one_waits_to_commit().await;
            services[1].post("/api/reservations", &body).await
        },
        async {
            world.database.one_waits_for_a_row().await;
            let now = clock.now().await.micros();
            clock.reach(Timestamp::from_micros(now + 500_000)).await;
            held.let_go().await;
        }
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    let ended = format!(
        "select state::bigint from reservations where reservation_id = '{}'",
        reserved.id.uuid()
    );
    assert_eq!(world.database.number(&ended).await, 4);
    for service in services {
        service.stop().await;
    }
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
