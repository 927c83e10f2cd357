//! What is under way, what is usual, and what ended otherwise than it began.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockyard::{clock::Clock, domain::Timestamp};
use uuid::Uuid;

use crate::support::{Service, World, eventually, messages::Move};

const NORTH: Uuid = Uuid::from_u128(1);
const SOUTH: Uuid = Uuid::from_u128(2);
const WIDGET: Uuid = Uuid::from_u128(10);
const GADGET: Uuid = Uuid::from_u128(11);
const MINUTE_US: i64 = 60_000_000;

fn minutes_ago(minutes: i64) -> Timestamp {
    Timestamp::from_micros(Clock::system().unix_micros() - minutes * MINUTE_US)
}

/// From north to south, some minutes ago and for so many; how many units arrived.
async fn moved(world: &World, product: Uuid, departed: i64, took: i64, units: i64, arrived: i64) {
    let there = Move::new(NORTH, product, units);
    world
        .send(&there.at("departure", minutes_ago(departed)))
        .await;
    let here = Move {
        warehouse: SOUTH,
        units: arrived,
        ..there
    };
    world
        .send(&here.at("arrival", minutes_ago(departed - took)))
        .await;
}

async fn departed(world: &World, product: Uuid, minutes: i64, units: i64) -> Uuid {
    let under_way = Move::new(NORTH, product, units);
    world
        .send(&under_way.at("departure", minutes_ago(minutes)))
        .await;
    under_way.movement
}

async fn names(service: &Service) {
    let warehouse = format!("/api/warehouses/{NORTH}");
    service.put(&warehouse, json!({"code": "NORTH"})).await;
    let product = format!("/api/products/{WIDGET}");
    let entry = json!({"sku": "W-1", "name": "Widget"});
    service.put(&product, entry).await;
}

fn ids(body: &Value) -> Vec<Uuid> {
    let movements = body["movements"].as_array().expect("a list");
    movements
        .iter()
        .map(|line| line["id"].as_str().expect("an id").parse().expect("a UUID"))
        .collect()
}

#[tokio::test]
async fn what_is_usual_is_learned_and_what_takes_longer_is_overdue() {
    let world = World::new().await;
    let service = world.start().await;
    names(&service).await;
    let (late, early, gadget) = (
        departed(&world, WIDGET, 180, 7).await,
        departed(&world, WIDGET, 10, 5).await,
        departed(&world, GADGET, 90, 3).await,
    );
    world.is_caught_up(3).await;
    // Nothing is known of the way yet: a week is late.
    let listed = service.get("/api/movements?status=in_transit").await;
    assert_eq!(ids(&listed.body), [late, gadget, early], "longest first");
    let first = &listed.body["movements"][0];
    assert_eq!(first["usual_seconds"], Value::Null);
    assert_eq!(first["overdue"], false);
    assert_eq!(first["product"], "W-1");
    assert_eq!(first["warehouse_from"], "NORTH");
    assert_eq!(first["warehouse_to"], Value::Null);
    assert_eq!(first["status"], "in_transit");
    let under_way = first["under_way_seconds"].as_f64().expect("seconds");
    assert!((10_800.0..12_000.0).contains(&under_way), "{under_way}");

    for _ in 0..25 {
        moved(&world, WIDGET, 600, 60, 1, 1).await;
    }
    let usual = eventually("what is usual is learned", async || {
        let listed = service.get("/api/movements?status=in_transit").await.body;
        listed["movements"][0]["usual_seconds"].as_f64()
    });
    let usual = usual.await;
    assert!((3_000.0..4_300.0).contains(&usual), "an hour: {usual}");

    let overdue = service.get("/api/movements?overdue=true").await.body;
    assert_eq!(ids(&overdue), [late, gadget]);
    for (query, expected) in [
        ("overdue=true&product_id=W-1".to_owned(), vec![late]),
        ("status=in_transit&overdue=false".to_owned(), vec![early]),
        (
            format!("status=in_transit&product_id={GADGET}"),
            vec![gadget],
        ),
        (
            "status=in_transit&warehouse_id=NORTH".to_owned(),
            vec![late, gadget, early],
        ),
        (format!("status=in_transit&warehouse_id={SOUTH}"), vec![]),
        (
            format!("status=in_transit&departed_after={}", minutes_ago(100)),
            vec![gadget, early],
        ),
        (
            format!("status=in_transit&departed_before={}", minutes_ago(100)),
            vec![late],
        ),
    ] {
        let listed = service.get(&format!("/api/movements?{query}")).await;
        assert_eq!(listed.status, 200, "{query}");
        assert_eq!(ids(&listed.body), expected, "{query}");
    }
    let totals = eventually("the totals know it", async || {
        let totals = service.get("/summary").await.body;
        (totals["overdue"] == 2).then_some(totals)
    });
    let totals = totals.await;
    for (field, value) in [
        ("in_transit", 3),
        ("units_in_transit", 15),
        ("keys", 3),
        ("short", 0),
    ] {
        assert_eq!(totals[field], value, "{field} of {totals}");
    }
    assert_eq!(
        service
            .count(r#"warehouse_movement_lines{status="overdue"}"#)
            .await,
        2
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn pages_visit_each_movement_once_while_others_come() {
    let world = World::new().await;
    let service = world.start().await;
    for n in 0..7 {
        departed(&world, WIDGET, 50 + n, 1).await;
        moved(&world, GADGET, 500 + n, 10, 5, 4).await;
    }
    world.is_caught_up(21).await;
    for (query, count) in [
        ("", 14),
        ("status=in_transit", 7),
        ("status=short", 7),
        ("status=over", 0),
    ] {
        let first = service
            .get(&format!("/api/movements?{query}&limit=1000"))
            .await;
        assert_eq!(first.body["next_cursor"], Value::Null);
        let known: BTreeSet<Uuid> = ids(&first.body).into_iter().collect();
        assert!(known.len() >= count, "{query}: {}", known.len());
        let mut seen = Vec::new();
        let mut path = format!("/api/movements?{query}&limit=2");
        loop {
            let page = service.get(&path).await;
            seen.extend(ids(&page.body));
            // Others come meanwhile, some of them among those that were not visited yet.
            departed(&world, WIDGET, 20, 1).await;
            let link = page.header("link").to_owned();
            let Some(next) = link
                .strip_prefix('<')
                .and_then(|link| link.split('>').next())
            else {
                assert_eq!(page.body["next_cursor"], Value::Null);
                break;
            };
            path = next.to_owned();
        }
        let visited: Vec<Uuid> = seen
            .iter()
            .copied()
            .filter(|id| known.contains(id))
            .collect();
        assert_eq!(visited.len(), known.len(), "each once: {query}");
        let distinct: BTreeSet<Uuid> = seen.iter().copied().collect();
        assert_eq!(distinct.len(), seen.len(), "nothing twice: {query}");
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_page_says_where_to_go_on_when_little_of_what_it_looked_at_is_wanted() {
    // More lines than one page looks at.
    const OTHERS: usize = 5_100;
    let world = World::new().await;
    let service = world.start().await;
    let old = minutes_ago(1_000);
    let others: Vec<String> = (0..OTHERS)
        .map(|_| Move::new(NORTH, WIDGET, 1).at("departure", old))
        .collect();
    join_all(others.iter().map(|message| world.send(message))).await;
    let wanted = Move::new(SOUTH, WIDGET, 1);
    world.send(&wanted.at("departure", minutes_ago(10))).await;
    world
        .is_caught_up(i64::try_from(OTHERS).expect("a number") + 1)
        .await;
    let mut path = format!("/api/movements?status=in_transit&warehouse_id={SOUTH}&limit=10");
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let page = service.get(&path).await;
        assert_eq!(page.status, 200, "{:?}", page.body);
        pages += 1;
        found.extend(ids(&page.body));
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            break;
        };
        path = format!(
            "/api/movements?status=in_transit&warehouse_id={SOUTH}&limit=10&cursor={cursor}"
        );
    }
    assert_eq!(found, [wanted.movement]);
    assert_eq!(pages, 2);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn differences_are_summed_by_what_is_asked_for() {
    let world = World::new().await;
    let service = world.start().await;
    names(&service).await;
    let week = 7 * 24 * 60;
    moved(&world, WIDGET, 120, 60, 10, 7).await;
    moved(&world, WIDGET, 120, 60, 10, 12).await;
    moved(&world, GADGET, 120, 60, 10, 9).await;
    moved(&world, GADGET, 120, 60, 10, 10).await;
    moved(&world, WIDGET, 3 * week, 60, 10, 0).await;
    world.is_caught_up(10).await;

    let all = service.get("/api/differences?group=route").await.body;
    let sums = all["differences"].as_array().expect("a list");
    assert_eq!(sums.len(), 1);
    for (field, value) in [
        ("warehouse_from", json!("NORTH")),
        ("warehouse_to", json!(SOUTH)),
        ("week", Value::Null),
        ("product", Value::Null),
        ("short", json!(3)),
        ("units_short", json!(14)),
        ("over", json!(1)),
        ("units_over", json!(2)),
    ] {
        assert_eq!(sums[0][field], value, "{field} of {}", sums[0]);
    }
    let by_product = service
        .get("/api/differences?group=product&weeks=2")
        .await
        .body;
    let short = |sum: &Value| (sum["product"].clone(), sum["units_short"].clone());
    let sums: Vec<_> = by_product["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(short)
        .collect();
    assert_eq!(sums, [(json!("W-1"), json!(3)), (json!(GADGET), json!(1))]);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service
            .get(&format!("/api/differences?limit=1{cursor}"))
            .await
            .body;
        seen.extend(page["differences"].as_array().expect("a list").clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let whole = service.get("/api/differences").await.body;
    assert_eq!(json!(seen), whole["differences"]);
    assert_eq!(seen.len(), 3, "two products of late, one three weeks ago");
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_history_is_the_ledger_in_pages() {
    let world = World::new().await;
    let service = world.start().await;
    for units in 1..=5 {
        world.send(&Move::new(NORTH, WIDGET, units).arrival()).await;
    }
    service.has_on_hand(NORTH, WIDGET, 15).await;
    let path = format!("/api/warehouses/{NORTH}/products/{WIDGET}/history");
    let whole = service.get(&path).await.body;
    let entries = whole["history"].as_array().expect("a list");
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[0]["on_hand"], 15);
    assert_eq!(entries[0]["kind"], "arrival");
    let sum: i64 = entries
        .iter()
        .filter_map(|entry| entry["on_hand_delta"].as_i64())
        .sum();
    assert_eq!(sum, 15);
    let revisions: Vec<i64> = entries
        .iter()
        .filter_map(|entry| entry["revision"].as_i64())
        .collect();
    assert!(
        revisions.is_sorted_by(|a, b| a >= b),
        "newest first: {revisions:?}"
    );
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service.get(&format!("{path}?limit=2{cursor}")).await.body;
        seen.extend(page["history"].as_array().expect("a list").clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(
        json!(seen),
        whole["history"],
        "also within a commit of several changes"
    );
    let nothing = format!("/api/warehouses/{SOUTH}/products/{WIDGET}/history");
    assert_eq!(service.get(&nothing).await.body["history"], json!([]));
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn questions_without_meaning_are_refused() {
    let world = World::new().await;
    let service = world.start().await;
    for path in [
        "/api/movements?status=lost",
        "/api/movements?warehouse_id=NOWHERE",
        "/api/movements?product_id=NOTHING",
        "/api/movements?departed_after=yesterday",
        "/api/movements?overdue=perhaps",
        "/api/movements?limit=0",
        "/api/movements?cursor=x",
        "/api/movements?cursor=.x.y",
        "/api/movements?status=in_transit&cursor=-300000000000000000.00000000-0000-0000-0000-000000000001.00000000-0000-0000-0000-000000000001",
        "/api/differences?cursor=-9223372036854775808.00000000-0000-0000-0000-000000000001.00000000-0000-0000-0000-000000000001.00000000-0000-0000-0000-000000000001",
        "/api/differences?group=colour",
        "/api/differences?weeks=0",
        "/api/differences?weeks=521",
        "/api/differences?cursor=1.2.3.4",
        "/api/differences?warehouse_id_from=NOWHERE",
        "/api/warehouses/NOWHERE/products/NOTHING/history",
        "/api/warehouses/00000000-0000-0000-0000-000000000000/products/00000000-0000-0000-0000-000000000001/history",
    ] {
        let refused = service.get(path).await;
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(
            refused.header("content-type"),
            "application/problem+json",
            "{path}"
        );
    }
    service.stop().await;
    world.database.remove().await;
}
