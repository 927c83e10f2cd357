//! Sides of movements taken back: stock is as if they had never been, what comes again is known, and what comes instead counts.

use reqwest::Method;
use serde_json::{Value, json};
use stockyard::app::Parts;
use uuid::Uuid;

use crate::support::{
    Answer, Service, TestDatabase, World, eventually,
    live::LiveClient,
    messages::Move,
    proxy::{Proxy, Way},
};

const API_ONLY: Parts = Parts {
    answers: true,
    ingests: false,
};

impl Service {
    async fn void(&self, movement: Uuid, request: &Value) -> Answer {
        let path = format!("/api/movements/{movement}/void");
        self.send(Method::POST, &path, request).await
    }
}

/// A departure and an arrival of the same units.
struct Both {
    from: Move,
    to: Move,
}

impl Both {
    fn new(units: i64) -> Self {
        let from = Move::new(Uuid::new_v4(), Uuid::new_v4(), units);
        Self {
            from,
            to: Move {
                warehouse: Uuid::new_v4(),
                ..from
            },
        }
    }

    /// Publishes it and waits until it is there.
    async fn happen(&self, world: &World, service: &Service) {
        let (from, to) = (&self.from, &self.to);
        world.send(&from.departure()).await;
        world.send(&to.arrival()).await;
        service
            .has_on_hand(from.warehouse, from.product, -from.units)
            .await;
        service
            .has_on_hand(to.warehouse, to.product, to.units)
            .await;
    }
}

async fn on_hand(service: &Service, moved: &Move) -> i64 {
    let stock = service.stock(moved.warehouse, moved.product).await;
    stock.body["on_hand"].as_i64().unwrap()
}

fn because(side: &str) -> Value {
    json!({"side": side, "reason": "counted twice"})
}

#[tokio::test]
async fn what_was_taken_back_is_as_if_it_had_never_been() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Both::new(40);
    let id = moved.from.movement;
    moved.happen(&world, &service).await;
    // What arrived has been passed on meanwhile.
    let on = Move::new(moved.to.warehouse, moved.to.product, 15);
    world.send(&on.departure()).await;
    service.has_on_hand(on.warehouse, on.product, 25).await;

    let voided = service.void(id, &because("arrival")).await;
    assert_eq!(voided.status, 200, "{}", voided.body);
    assert_eq!(voided.body["arrival"], Value::Null);
    assert_eq!(voided.body["status"], "in_transit");
    assert_eq!(voided.body["departure"]["quantity"], 40);
    assert_eq!(
        on_hand(&service, &moved.to).await,
        -15,
        "below zero, as the fact could"
    );
    let shown = service.movement(id).await;
    assert_eq!(shown.body, voided.body);
    assert_eq!(
        voided.header("stock-version").split('-').next(),
        Some(world.newest_version().await.to_string().as_str())
    );

    let voided = service.void(id, &because("departure")).await;
    assert_eq!(
        (voided.status.as_u16(), &voided.body),
        (200, &json!({"id": id, "lines": []}))
    );
    assert_eq!(on_hand(&service, &moved.from).await, 0);
    let gone = service.movement(id).await;
    assert_eq!(
        (gone.status.as_u16(), &gone.body["detail"]),
        (404, &json!("Movement not found"))
    );
    for side in ["departure", "arrival"] {
        assert_eq!(service.void(id, &because(side)).await.status, 404);
    }
    let listed = service.get("/api/movements").await;
    let listed = listed.body["movements"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let summary = service.get("/api/differences").await;
    assert_eq!(summary.body["differences"], json!([]));

    let path = format!(
        "/api/warehouses/{}/products/{}/history",
        moved.to.warehouse, moved.to.product
    );
    let history = service.get(&path).await;
    let newest = &history.body["history"][0];
    for (field, value) in [
        ("kind", json!("void")),
        ("on_hand_delta", json!(-40)),
        ("on_hand", json!(-15)),
        ("movement_id", json!(id)),
        ("occurred_at", json!("2025-06-01T00:00:00Z")),
    ] {
        assert_eq!(newest[field], value, "{field} of {newest}");
    }
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn one_product_of_several_or_all_of_them() {
    let world = World::new().await;
    let service = world.start().await;
    let mut products: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    products.sort_unstable();
    let first = Move::new(Uuid::new_v4(), products[0], 5);
    let lines: Vec<Move> = products
        .iter()
        .map(|&product| Move { product, ..first })
        .collect();
    for line in &lines {
        world.send(&line.departure()).await;
        service.has_on_hand(line.warehouse, line.product, -5).await;
    }
    let path = format!("/api/products/{}", products[1]);
    service.put(&path, json!({"sku": "W-1"})).await;
    let mut one = because("departure");
    one["product"] = json!("W-1");
    let voided = service.void(first.movement, &one).await;
    let left = voided.body["lines"].as_array().unwrap();
    let left: Vec<&Value> = left.iter().map(|line| &line["product_id"]).collect();
    assert_eq!(left, [&json!(products[0]), &json!(products[2])]);
    assert_eq!(service.void(first.movement, &one).await.status, 409);
    assert_eq!(on_hand(&service, &lines[1]).await, 0);
    assert_eq!(on_hand(&service, &lines[0]).await, -5);

    let version = world.newest_version().await;
    let voided = service.void(first.movement, &because("departure")).await;
    assert_eq!(voided.body["lines"], json!([]));
    assert_eq!(world.newest_version().await, version + 1, "one commit");
    for line in &lines {
        assert_eq!(on_hand(&service, line).await, 0);
    }
    let notes = "select count(*) from stock_notes where kind = 13 and reason = 'counted twice' and actor is null";
    assert_eq!(world.database.number(notes).await, 2);
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_comes_again_is_known_and_what_comes_instead_is_the_correction() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Both::new(100);
    moved.happen(&world, &service).await;
    let id = moved.from.movement;
    assert_eq!(service.void(id, &because("departure")).await.status, 200);
    // What is known of it does not live in the process.
    service.stop().await;
    let service = world.start().await;
    let count = async |status: &str| {
        let topic = &world.config.kafka.topic;
        let series = format!(
            r#"warehouse_kafka_consumer_messages_processed_total{{status="{status}",topic="{topic}"}}"#
        );
        service.count(&series).await
    };
    world.send(&moved.from.departure()).await;
    eventually("a duplicate", async || {
        (count("duplicate").await == 1).then_some(())
    })
    .await;
    assert_eq!(on_hand(&service, &moved.from).await, 0);

    let right = Move {
        units: 90,
        ..moved.from
    };
    world.send(&right.departure()).await;
    service
        .has_on_hand(right.warehouse, right.product, -90)
        .await;
    let shown = service.movement(id).await;
    assert_eq!(shown.body["departure"]["quantity"], 90);
    assert_eq!(shown.body["status"], "over");

    let third = Move {
        units: 80,
        ..moved.from
    };
    world.send(&third.departure()).await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].reason(), "conflict");
    for again in [&moved.from, &right] {
        world.send(&again.departure()).await;
    }
    world.send(&moved.to.arrival()).await;
    eventually("three duplicates more", async || {
        (count("duplicate").await == 4).then_some(())
    })
    .await;
    assert_eq!(on_hand(&service, &right).await, -90);

    // The correction was wrong as well, and so was the arrival, in another warehouse.
    assert_eq!(service.void(id, &because("departure")).await.status, 200);
    assert_eq!(service.void(id, &because("arrival")).await.status, 200);
    for known in [
        moved.from.departure(),
        right.departure(),
        moved.to.arrival(),
    ] {
        world.send(&known).await;
    }
    let elsewhere = Move {
        warehouse: Uuid::new_v4(),
        ..moved.to
    };
    world.send(&elsewhere.arrival()).await;
    world.send(&third.departure()).await;
    service
        .has_on_hand(elsewhere.warehouse, elsewhere.product, 100)
        .await;
    service
        .has_on_hand(third.warehouse, third.product, -80)
        .await;
    assert_eq!(on_hand(&service, &moved.to).await, 0);
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn every_screen_hears_of_it_and_no_cache_keeps_what_was() {
    let world = World::new().await;
    let service = world.start().await;
    let other = world.start_parts(API_ONLY).await;
    other.is_ready().await;
    let moved = Both::new(7);
    moved.happen(&world, &service).await;
    let id = moved.from.movement;
    let mut clients = Vec::new();
    for service in [&service, &other] {
        // What is true now is in both caches.
        service
            .has_on_hand(moved.to.warehouse, moved.to.product, 7)
            .await;
        assert_eq!(service.movement(id).await.body["status"], "complete");
        let mut client = LiveClient::connect(service, "").await;
        client.hear("snapshot").await;
        clients.push(client);
    }
    let voided = service.void(id, &because("arrival")).await;
    let version = voided.header("stock-version").to_owned();
    for client in &mut clients {
        let update = client.hear("update").await;
        let data = &update["data"];
        assert_eq!(data["update_type"], "void", "{update}");
        assert_eq!((&data["change"], &data["on_hand"]), (&json!(-7), &json!(0)));
        assert_eq!(update["cursor"], json!(version));
    }
    for service in [&service, &other] {
        let wanted = [("stock-min-version", version.as_str())];
        let path = format!("/api/movements/{id}");
        let shown = service.get_with(&path, &wanted).await;
        assert_eq!(shown.body["status"], "in_transit");
        assert_eq!(on_hand(service, &moved.to).await, 0);
    }
    other.stop().await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn of_two_at_once_one_takes_it_back() {
    const ROUNDS: usize = 10;
    let world = World::new().await;
    let service = world.start().await;
    let other = world.start_parts(API_ONLY).await;
    other.is_ready().await;
    for _ in 0..ROUNDS {
        let moved = Both::new(3);
        moved.happen(&world, &service).await;
        let (id, request) = (moved.from.movement, because("arrival"));
        let (one, two) = tokio::join!(service.void(id, &request), other.void(id, &request));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{} {}", one.body, two.body);
        other
            .has_on_hand(moved.to.warehouse, moved.to.product, 0)
            .await;
    }
    assert_eq!(world.differences().await, [""; 0]);
    other.stop().await;
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 4);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 4).await;
    let version = world.newest_version().await;
    let here = moved.movement.to_string();
    let nil = Uuid::nil().to_string();
    let unknown = Uuid::new_v4().to_string();
    let arrival = because("arrival");
    let with = |field: &str, value: Value| {
        let mut request = arrival.clone();
        request[field] = value;
        request
    };
    let other_product = Uuid::new_v4();
    let path = format!("/api/products/{other_product}");
    service.put(&path, json!({"sku": "OTHER"})).await;
    for (id, request, status) in [
        ("nonsense", arrival.clone(), 400),
        (unknown.as_str(), arrival.clone(), 404),
        (nil.as_str(), arrival.clone(), 404),
        (here.as_str(), because("departure"), 409),
        (here.as_str(), with("product", json!("OTHER")), 409),
        (here.as_str(), because("return"), 422),
        (here.as_str(), with("side", json!(1)), 422),
        (here.as_str(), json!({"side": "arrival"}), 422),
        (here.as_str(), json!({"reason": "counted twice"}), 422),
        (here.as_str(), with("reason", json!("")), 422),
        (here.as_str(), with("reason", json!("a\u{0}b")), 422),
        (here.as_str(), with("reason", json!("x".repeat(501))), 422),
        (here.as_str(), with("product", json!("UNKNOWN")), 422),
        (here.as_str(), with("product", json!(Uuid::new_v4())), 422),
        (here.as_str(), with("product", json!(nil)), 422),
        (here.as_str(), json!([]), 422),
        (
            here.as_str(),
            with("reason", json!("x".repeat(300_000))),
            413,
        ),
    ] {
        let path = format!("/api/movements/{id}/void");
        let refused = service.send(Method::POST, &path, &request).await;
        let code = refused.status.as_u16();
        assert_eq!(code, status, "{path} {request}: {}", refused.body);
        assert_eq!(refused.body["status"], status);
        assert_eq!(refused.header("stock-version"), "");
    }
    let path = format!("{}/api/movements/{here}/void", service.base);
    let client = reqwest::Client::new();
    let plain = client.post(&path).body(arrival.to_string());
    assert_eq!(plain.send().await.unwrap().status(), 415);
    let nobody = client
        .post(&path)
        .header("Stock-Actor", "a\tb")
        .json(&arrival);
    assert_eq!(nobody.send().await.unwrap().status(), 400);
    assert_eq!(
        world.newest_version().await,
        version + 1,
        "only the catalogue has changed"
    );
    let named = client
        .post(&path)
        .header("Stock-Actor", "Jörg")
        .json(&arrival);
    assert_eq!(named.send().await.unwrap().status(), 200);
    let notes = "select count(*) from stock_notes where kind = 14 and actor = 'Jörg'";
    assert_eq!(world.database.number(notes).await, 1);
    service.stop().await;
    world.database.remove().await;
}

/// The connection is lost while the commit waits for its turn: it is made all the same, or it is not. Either way it is taken back
/// once, and whoever asked is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_the_commit_is_looked_up() {
    let database = TestDatabase::create().await;
    let (proxy, url) = Proxy::in_url(&database.url).await.unwrap();
    let world = World::around(database, |config| config.database.url = url).await;
    let service = world.start().await;
    for commits in [true, false] {
        let moved = Both::new(6);
        moved.happen(&world, &service).await;
        let id = moved.from.movement;
        let version = world.newest_version().await;
        let held = world.database.hold_commits().await;
        let request = because("departure");
        let (voided, ()) = tokio::join!(service.void(id, &request), async {
            let waits = "select count(*) from pg_stat_activity where datname = current_database()
                and wait_event = 'advisory' and query like '%stock_publish%'";
            eventually("it waits to be published", async || {
                (world.database.number(waits).await == 1).then_some(())
            })
            .await;
            if !commits {
                let ends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()
                    and wait_event = 'advisory' and query like '%stock_publish%'";
                assert_eq!(world.database.number(ends).await, 1);
            }
            proxy.set(Way::Cut);
            eventually("the database is away", async || {
                (service.get("/readyz").await.status == 503).then_some(())
            })
            .await;
            proxy.set(Way::Open);
            // Who asks again waits for the lines; or, where the first was undone, to be published.
            let again = if commits {
                "select count(*) from pg_stat_activity where datname = current_database()
                    and wait_event_type = 'Lock' and query like '%for update%'"
            } else {
                waits
            };
            eventually("it is asked again", async || {
                (world.database.number(again).await == 1).then_some(())
            })
            .await;
            held.let_go().await;
        });
        assert_eq!(voided.status, 200, "{}", voided.body);
        assert_eq!(world.newest_version().await, version + 1);
        let newest = voided.header("stock-version").split('-').next().unwrap();
        assert_eq!(newest, (version + 1).to_string());
        let of_it = format!("select count(*) from movement_voids where movement_id = '{id}'");
        assert_eq!(world.database.number(&of_it).await, 1);
        service
            .has_on_hand(moved.from.warehouse, moved.from.product, 0)
            .await;
    }
    assert_eq!(world.differences().await, [""; 0]);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn every_contradiction_about_it_is_named() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Both::new(5);
    moved.happen(&world, &service).await;
    let id = moved.from.movement;
    for side in ["departure", "arrival"] {
        assert_eq!(service.void(id, &because(side)).await.status, 200);
    }
    let right = Move {
        units: 6,
        ..moved.from
    };
    world.send(&right.departure()).await;
    service
        .has_on_hand(right.warehouse, right.product, -6)
        .await;
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    let before = world.database.copy().await;
    let faults: [(&str, &str, &[&str]); 5] = [
        (
            "what was taken back is not kept",
            "delete from movement_voids where side = 1",
            &[
                "line tells of other sides",
                "ledger row that nothing confirms",
                "ledger row that nothing confirms",
            ],
        ),
        (
            "another content is kept",
            "update movement_voids set quantity = 4 where side = 2",
            &[
                "ledger row that nothing confirms",
                "ledger row that nothing confirms",
                "side taken back without a ledger row",
            ],
        ),
        (
            "a side is cleared and kept, and the ledger does not say so",
            "insert into movement_voids select movement_id, product_id, 1, departure_warehouse_id, departure_at, departure_quantity, 4000
                from movements;
            update movements set departure_at = null, departure_quantity = null, departure_warehouse_id = null",
            &[
                "side in the ledger that its movement does not have",
                "side taken back without a ledger row",
            ],
        ),
        (
            "a side is cleared, and nothing says so",
            "update movements set departure_at = null, departure_quantity = null, departure_warehouse_id = null",
            &[
                "side in the ledger that its movement does not have",
                "ledger row that nothing confirms",
            ],
        ),
        (
            "a line does not tell",
            "update movements set sides_voided = 0",
            &["line tells of other sides", "line tells of other sides"],
        ),
    ];
    for (fault, sql, expected) in faults {
        let copy = TestDatabase::of_name(&before).copy().await;
        world.database.restore(&copy).await;
        world.database.run(sql).await;
        let mut found = world.differences().await;
        for text in expected {
            let at = found.iter().position(|line| line.contains(text));
            let at = at.unwrap_or_else(|| panic!("{fault}: no {text:?} in {found:#?}"));
            found.remove(at);
        }
        assert_eq!(found, [""; 0], "{fault}");
    }
    world.database.remove().await;
}

/// The same void with the same key is one void, and answered in the same way; so is a refusal.
#[tokio::test]
async fn a_void_with_a_key_is_done_once() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 5);
    world.send(&moved.arrival()).await;
    service.has_on_hand(moved.warehouse, moved.product, 5).await;
    let path = format!("/api/movements/{}/void", moved.movement);
    let body = json!({"side": "arrival", "reason": "counted twice"});
    let asked = (0..4).map(|_| service.post_once(&path, "v", &body));
    let answers = futures_util::future::join_all(asked).await;
    let done: Vec<_> = answers
        .iter()
        .filter(|answer| answer.body["in_progress"] != true)
        .collect();
    assert!(!done.is_empty());
    for answer in &done {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, done[0].body);
        assert_eq!(
            answer.header("stock-version"),
            done[0].header("stock-version")
        );
    }
    let refused = service.post_once(&path, "w", &body).await;
    assert_eq!(refused.status, 404, "{refused:?}");
    let other = service
        .post_once(&path, "v", &json!({"side": "departure", "reason": "x"}))
        .await;
    assert_eq!(other.status, 422);
    let voids = "select count(*) from movement_voids";
    assert_eq!(world.database.number(voids).await, 1);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
