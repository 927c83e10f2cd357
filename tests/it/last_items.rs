//! The last items: however many want them, at however many processes, and however often they ask, each is promised once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Answer, Service, World, eventually, is_long, messages::Move};

/// What there is in each round.
const LAST: usize = 5;

/// Each buyer asks twice at once, with one key; the pairs of answers.
async fn buy(services: &[Service], product: Uuid, buyers: usize) -> Vec<[Answer; 2]> {
    let body = json!({"product": product, "quantity": 1});
    let asked = (0..buyers).map(|buyer| {
        let (key, body) = (Uuid::new_v4().to_string(), &body);
        async move {
            let at = |n: usize| &services[(buyer + n) % services.len()];
            let (one, other) = tokio::join!(
                at(0).post_once("/api/reservations", &key, body),
                at(1).post_once("/api/reservations", &key, body)
            );
            [one, other]
        }
    });
    join_all(asked).await
}

/// Each pair is one answer; the reservations that were made, by their ids.
fn granted(pairs: &[[Answer; 2]]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for pair in pairs {
        let answers = pair.iter().filter(|a| a.body["in_progress"] != true);
        let answers: Vec<&Answer> = answers.collect();
        assert!(!answers.is_empty(), "{pair:?}");
        for answer in &answers {
            assert_eq!(answer.body, answers[0].body);
            match answer.status {
                StatusCode::CREATED => {
                    ids.insert(answer.body["id"].as_str().unwrap().to_owned());
                }
                StatusCode::CONFLICT => assert_eq!(answer.body["title"], "Insufficient stock"),
                _ => panic!("{answer:?}"),
            }
        }
    }
    ids
}

async fn rounds(world: &World, services: &[Service], rounds: usize, buyers: usize) {
    for round in 0..rounds {
        let (warehouse, product) = services[0].stocked(i64::try_from(LAST).unwrap()).await;
        let ids = granted(&buy(services, product, buyers).await);
        assert_eq!(ids.len(), LAST, "round {round}");
        let level = services[0].stock(warehouse, product).await.body;
        assert_eq!(
            (&level["on_hand"], &level["reserved"], &level["available"]),
            (&json!(5), &json!(5), &json!(0)),
            "round {round}"
        );
    }
    assert_eq!(world.differences().await, [""; 0]);
}

/// As often as it takes to trust it: a thousand rounds in the long form.
fn often(short: usize) -> usize {
    if is_long() { 1_000 } else { short }
}

#[tokio::test]
async fn twenty_want_five_at_one_process() {
    let world = World::new().await;
    let services = [world.start().await];
    rounds(&world, &services, often(25), 20).await;
    let [service] = services;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn twenty_want_five_at_three_processes() {
    let world = World::new().await;
    let services = [
        world.start().await,
        world.start().await,
        world.start().await,
    ];
    rounds(&world, &services, often(25), 20).await;
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}

#[tokio::test]
async fn a_thousand_want_five() {
    let world = World::new().await;
    let one = [world.start().await];
    rounds(&world, &one, if is_long() { 500 } else { 2 }, 1_000).await;
    let [first] = one;
    let three = [first, world.start().await, world.start().await];
    rounds(&world, &three, if is_long() { 500 } else { 2 }, 1_000).await;
    for service in three {
        service.stop().await;
    }
    world.database.remove().await;
}

/// While departures of the same product come in: a reservation is only made of what is there at that moment.
#[tokio::test]
async fn buyers_and_departures_meet() {
    let world = World::new().await;
    let services = [world.start().await, world.start().await];
    for round in 0..often(5) {
        let (warehouse, product) = services[0].stocked(60).await;
        let departures = async {
            for _ in 0..40 {
                world
                    .send(&Move::new(warehouse, product, 1).departure())
                    .await;
            }
        };
        // They come while the departures do: the first wave when some are in.
        let buyers = async {
            eventually("some have departed", async || {
                let on_hand = services[1].stock(warehouse, product).await.body["on_hand"].clone();
                (on_hand.as_i64().unwrap() < 58).then_some(())
            })
            .await;
            let mut ids = BTreeSet::new();
            for _ in 0..10 {
                ids.extend(granted(&buy(&services, product, 6).await));
            }
            ids
        };
        let (ids, ()) = tokio::join!(buyers, departures);
        services[0].has_on_hand(warehouse, product, 20).await;
        let level = services[0].stock(warehouse, product).await.body;
        assert_eq!(level["reserved"], ids.len(), "round {round}");
        assert!((1..58).contains(&ids.len()), "round {round}: {}", ids.len());
        // What the departures have left is promised to the last unit, and no more.
        let left = granted(&buy(&services, product, 30).await).len();
        assert_eq!(left, 20_usize.saturating_sub(ids.len()), "round {round}");
    }
    // Where a commit promised something, so much was there: all rows of a commit hold the level it left.
    let oversold =
        "select count(*) from stock_ledger where kind = 9 and reserved_after > on_hand_after";
    assert_eq!(world.database.number(oversold).await, 0);
    eventually("everything is taken", async || {
        world.differences().await.is_empty().then_some(())
    })
    .await;
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}
