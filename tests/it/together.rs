//! Everything at once on the same keys: facts, requests (some asked twice at once under a key), steps, orders of products that come to be
//! meanwhile, sweeps and `verify`. Nobody waits for each other in a circle.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use stockyard::clock::Clock;
use uuid::Uuid;

use crate::support::{Answer, Service, World, eventually, is_long, messages::Move, stream::seed};

const CALLERS: u64 = 16;

/// What all of them work on.
struct Shared {
    services: [Service; 2],
    warehouses: Vec<Uuid>,
    products: Vec<Uuid>,
    is_over: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
    /// How often each step of a reservation or an order was done.
    steps: Mutex<BTreeMap<&'static str, u64>>,
}

impl Shared {
    fn count(&self, answer: &Answer) {
        let status = answer.status;
        assert!(
            status.is_success() || status == StatusCode::CONFLICT,
            "{answer:?}"
        );
        let counter = if status.is_success() {
            &self.done
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn count_step(&self, step: &'static str, status: StatusCode) {
        let mut steps = self.steps.lock().unwrap();
        *steps.entry(step).or_default() += u64::from(status.is_success());
    }

    async fn call(&self, mut random: SmallRng) {
        let (mut held, mut listed): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        while !self.is_over.load(Ordering::Relaxed) {
            let service = &self.services[random.random_range(0..2)];
            let mut product = || self.products[random.random_range(0..self.products.len())];
            let (one, other) = (product(), product());
            let warehouse = self.warehouses[random.random_range(0..self.warehouses.len())];
            let answer = match random.random_range(0..13) {
                0..4 => {
                    let ttl = random.random_range(1..3);
                    let body = json!({"ttl_seconds": ttl, "items": [
                        {"product": one, "quantity": 2},
                        {"product": other, "warehouse": warehouse, "quantity": 1}
                    ]});
                    let made = if random.random() {
                        service.post("/api/reservations", &body).await
                    } else {
                        self.ask_twice("/api/reservations", &body).await
                    };
                    if made.status == StatusCode::CREATED {
                        held.push(made.body["id"].clone());
                    }
                    made
                }
                4..7 if !held.is_empty() => {
                    let id = held.swap_remove(random.random_range(0..held.len()));
                    let step = ["confirm", "release", "extend"][random.random_range(0..3)];
                    let path = format!("/api/reservations/{}/{step}", id.as_str().unwrap());
                    let stepped = service.post(&path, &json!({})).await;
                    self.count_step(step, stepped.status);
                    stepped
                }
                7 => {
                    let lines = [(one, 3), (other, -1)].map(|(product, change)| {
                        json!({"product": product, "warehouse": warehouse, "change": change, "kind": "adjustment"})
                    });
                    let body = json!({"atomic": true, "adjustments": lines});
                    service.post("/api/adjustments/bulk", &body).await
                }
                8 => {
                    let sku = format!("S-{}", Uuid::new_v4().simple());
                    let body = json!({"sku": sku, "name": "Widget", "price": 2, "stock": 5});
                    let made = self.ask_twice("/products/", &body).await;
                    listed.extend(made.body.get("id").cloned());
                    made
                }
                9..11 if !listed.is_empty() => {
                    let product = &listed[random.random_range(0..listed.len())];
                    let body = json!({"product_id": product, "quantity": 2});
                    let made = self.ask_twice("/orders/", &body).await;
                    self.count(&made);
                    if made.status != StatusCode::CREATED {
                        continue;
                    }
                    let step = ["pay", "cancel"][random.random_range(0..2)];
                    let path = format!("/orders/{}/{step}", made.body["id"]);
                    let stepped = self.ask_twice(&path, &json!({})).await;
                    self.count_step(step, stepped.status);
                    stepped
                }
                _ => {
                    let body = json!({"product": one, "warehouse": warehouse, "change": 4, "kind": "restock"});
                    service.post("/api/adjustments", &body).await
                }
            };
            self.count(&answer);
        }
    }

    /// Asks both processes at once under one key: what either says that does not say that the other one is at it.
    async fn ask_twice(&self, path: &str, body: &Value) -> Answer {
        let key = Uuid::new_v4().to_string();
        let [first, second] = &self.services;
        let (one, other) = tokio::join!(
            first.post_once(path, &key, body),
            second.post_once(path, &key, body)
        );
        let is_under_way = |answer: &Answer| answer.body["in_progress"] == true;
        if is_under_way(&one) {
            return other;
        }
        if !is_under_way(&other) {
            assert_eq!((one.status, &one.body), (other.status, &other.body));
        }
        one
    }
}

#[tokio::test]
async fn everything_at_once_ends_in_no_deadlock() {
    let seed = seed();
    eprintln!("together: STOCKYARD_TEST_SEED={seed}");
    let world = World::with(|config| {
        config.reservations.sweep_interval_ms = 100;
        config.ingest.max_batch_events = 50;
    })
    .await;
    let services = [world.start().await, world.start().await];
    let shared = Shared {
        warehouses: (0..3).map(|_| Uuid::new_v4()).collect(),
        products: (0..4).map(|_| Uuid::new_v4()).collect(),
        is_over: AtomicBool::new(false),
        done: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        steps: Mutex::default(),
        services,
    };
    for (warehouse, product) in shared.keys() {
        let moved = Move::new(warehouse, product, 20);
        world.send(&moved.arrival()).await;
        shared.services[0].has_on_hand(warehouse, product, 20).await;
    }
    let lasts = Duration::from_secs(if is_long() { 600 } else { 15 });
    let began = Clock::system();
    let callers = (0..CALLERS).map(|n| shared.call(SmallRng::seed_from_u64(seed ^ n)));
    let facts = async {
        let mut random = SmallRng::seed_from_u64(!seed);
        let (mut sent, mut voids) = (Vec::new(), 0_u64);
        while began.elapsed() < lasts {
            let keys = shared.keys();
            let (warehouse, product) = keys[random.random_range(0..keys.len())];
            let moved = Move::new(warehouse, product, random.random_range(1..4));
            let is_voided = random.random_range(0..8) == 0;
            let side = if random.random_range(0..3) == 0 {
                "departure"
            } else {
                "arrival"
            };
            let message = if side == "departure" {
                moved.departure()
            } else {
                moved.arrival()
            };
            world.send(&message).await;
            if is_voided {
                sent.push((moved.movement, side));
            }
            // Those that were sent a while ago are taken back, whether or not they have come in yet.
            if sent.len() > 5 {
                let (movement, side) = sent.remove(0);
                let path = format!("/api/movements/{movement}/void");
                let body = json!({"side": side, "reason": "wrong"});
                let voided = shared.services[0].post(&path, &body).await.status;
                assert!([200, 404].contains(&voided.as_u16()), "{voided}");
                voids += u64::from(voided == StatusCode::OK);
            }
        }
        shared.is_over.store(true, Ordering::Relaxed);
        voids
    };
    let verifying = async {
        while !shared.is_over.load(Ordering::Relaxed) {
            assert_eq!(world.differences().await, [""; 0]);
        }
    };
    let (_, voids, ()) = tokio::join!(join_all(callers), facts, verifying);
    assert!(voids > 0);
    let (done, refused) = (&shared.done, &shared.refused);
    eprintln!(
        "together: {done:?} done, {refused:?} refused, {voids} taken back in {:?}",
        began.elapsed()
    );
    let steps = shared.steps.lock().unwrap().clone();
    eprintln!("together: {steps:?}");
    for step in ["confirm", "release", "extend", "pay", "cancel"] {
        assert!(steps.get(step).is_some_and(|done| *done > 0), "{steps:?}");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(world.database.number(deadlocks).await, 0);
    for service in &shared.services {
        let retries = service
            .count("warehouse_ingest_retries_total{step=\"decide\"}")
            .await;
        assert_eq!(retries, 0, "nothing had to be tried again");
    }
    eventually("what is due is given back", async || {
        let left = "select count(*) from reservations where state = 1 and expires_at <= now()";
        (world.database.number(left).await == 0).then_some(())
    })
    .await;
    let negative = "select count(*) from stock_levels where reserved < 0";
    assert_eq!(world.database.number(negative).await, 0);
    for service in shared.services {
        service.stop().await;
    }
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

impl Shared {
    fn keys(&self) -> Vec<(Uuid, Uuid)> {
        let of = |warehouse: &Uuid| {
            self.products
                .iter()
                .map(move |product| (*warehouse, *product))
                .collect::<Vec<_>>()
        };
        self.warehouses.iter().flat_map(of).collect()
    }
}
