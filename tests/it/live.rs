//! Live clients over real sockets: whoever holds a cursor has what the database had at that version.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::StreamExt;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use stockyard::{app::Parts, produce::plan::PlanOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Service, TestDatabase, World, eventually, is_long,
    live::{LiveClient, Model, Picture, UPGRADE, version},
    messages::Move,
    own::OwnServer,
    stream::{mixed, seed},
};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);

async fn name(service: &Service, min_stock: Option<i64>) {
    let product = json!({"sku": "W-1", "name": "Widget A", "min_stock": min_stock});
    service
        .put(&format!("/api/products/{PRODUCT}"), product)
        .await;
    let warehouse = json!({"code": "NORTH", "name": "Oakland"});
    service
        .put(&format!("/api/warehouses/{WAREHOUSE}"), warehouse)
        .await;
}

#[tokio::test]
async fn a_client_gets_what_is_there_and_then_each_change() {
    let world = World::new().await;
    let service = world.start().await;
    name(&service, Some(10)).await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 150).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 150).await;

    let mut client = LiveClient::connect(&service, "").await;
    let snapshot = client.hear("snapshot").await;
    let product = &snapshot["data"][0];
    assert_eq!(product["product_id"], "W-1");
    assert_eq!(product["name"], "Widget A");
    assert_eq!(product["total_stock"], 150);
    assert_eq!(product["warehouses"], json!({"NORTH": 150}));
    assert_eq!(product["levels"][0]["quantity"], 150);
    assert_eq!(snapshot["cursor"], client.picture.last.as_ref().unwrap().0);

    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 5).departure())
        .await;
    let update = client.hear("update").await;
    let data = &update["data"];
    for (field, value) in [
        ("product_id", json!("W-1")),
        ("warehouse", json!("NORTH")),
        ("warehouse_id", json!(WAREHOUSE)),
        ("quantity", json!(145)),
        ("on_hand", json!(145)),
        ("reserved", json!(0)),
        ("available_stock", json!(145)),
        ("change", json!(-5)),
        ("update_type", json!("departure")),
        ("revision", json!(2)),
    ] {
        assert_eq!(data[field], value, "{field} of {update}");
    }
    assert_eq!(
        update["version"],
        version(update["cursor"].as_str().unwrap())
    );

    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 137).departure())
        .await;
    let alert = client.hear("low_stock_alert").await;
    for (field, value) in [
        ("product_id", json!("W-1")),
        ("warehouse_id", json!(WAREHOUSE)),
        ("current_quantity", json!(8)),
        ("min_stock", json!(10)),
        ("product_name", json!("Widget A")),
    ] {
        assert_eq!(alert[field], value, "{field} of {alert}");
    }
    assert_eq!(alert["cursor"], Value::Null, "the update is still to come");
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 3).arrival())
        .await;
    client.hear("stock_recovered").await;

    service.stop().await;
    assert_eq!(client.closed().await, Some(1001));
    world.database.remove().await;
}

#[tokio::test]
async fn flat_clients_hear_of_changes_from_now_on() {
    const OTHER: Uuid = Uuid::from_u128(3);
    let world = World::new().await;
    let service = world.start().await;
    for (path, body) in [
        (
            format!("/api/products/{PRODUCT}"),
            json!({"sku": "45", "name": "Widget A", "min_stock": 10}),
        ),
        (format!("/api/warehouses/{WAREHOUSE}"), json!({"code": "2"})),
        (format!("/api/warehouses/{OTHER}"), json!({"code": "007"})),
    ] {
        service.put(&path, body).await;
    }
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 20).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 20).await;

    let mut client = LiveClient::connect_to(&service, "/ws/inventory")
        .await
        .expect("a connection");
    let mut of_other = LiveClient::connect_to(&service, "/ws/inventory?warehouse=007")
        .await
        .expect("a connection");
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 12).departure())
        .await;
    let alert = client.next().await.expect("an alert");
    for (field, value) in [
        ("type", json!("low_stock_alert")),
        ("product_id", json!(45)),
        ("warehouse_id", json!(2)),
        ("current_quantity", json!(8)),
        ("min_stock", json!(10)),
        ("product_name", json!("Widget A")),
    ] {
        assert_eq!(alert[field], value, "{field} of {alert}");
    }
    let update = client.next().await.expect("an update");
    for (field, value) in [
        ("type", json!("inventory_update")),
        ("product_id", json!(45)),
        ("warehouse_id", json!(2)),
        ("quantity", json!(8)),
        ("action", json!("updated")),
    ] {
        assert_eq!(update[field], value, "{field} of {update}");
    }
    assert!(update["inventory_id"].is_i64() && update["timestamp"].is_string());
    // A recovery has no words here; the first change of a key is its creation.
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 92).arrival())
        .await;
    assert_eq!(client.next().await.expect("an update")["quantity"], 100);
    world.send(&Move::new(OTHER, PRODUCT, 50).arrival()).await;
    let created = client.next().await.expect("an update");
    assert_eq!(created["action"], "created");
    assert_eq!(created["warehouse_id"], "007", "no number is written so");
    assert_ne!(created["inventory_id"], update["inventory_id"]);
    assert_eq!(of_other.next().await.expect("an update"), created);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_quantity_is_told_at_once_on_change_and_now_and_then() {
    let world = World::with(|config| config.live.heartbeat_ms = 500).await;
    let service = world.start().await;
    assert!(
        LiveClient::connect_to(&service, "/ws/stock").await.is_err(),
        "there is no product"
    );
    let path = format!("/api/products/{PRODUCT}");
    service
        .put(&path, json!({"sku": "X", "name": "Product X"}))
        .await;
    let mut client = LiveClient::connect_to(&service, "/ws/stock")
        .await
        .expect("a connection");
    let told = |quantity: i64| json!({"product": "Product X", "quantity": quantity});
    assert_eq!(client.next().await, Some(told(0)));
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 12).arrival())
        .await;
    world
        .send(&Move::new(Uuid::from_u128(7), PRODUCT, 30).arrival())
        .await;
    while client.next().await.expect("the connection") != told(42) {}
    assert_eq!(
        client.next().await,
        Some(told(42)),
        "nothing changed, and it is told again"
    );
    assert_eq!(service.get("/stock").await.body, told(42));
    service
        .put(&path, json!({"sku": "X", "name": "Product Y"}))
        .await;
    let renamed = json!({"product": "Product Y", "quantity": 42});
    while client.next().await.expect("the connection") != renamed {}
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn an_event_stream_carries_the_same() {
    let world = World::new().await;
    let service = world.start().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 1).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 1).await;
    let mut events = Events::open(&service, "", None).await;
    let (id, snapshot) = events.next().await;
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(snapshot["cursor"], json!(id));
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 1).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 2).await;
    // As a browser comes back: it missed one, and is told of it alone.
    let mut again = Events::open(&service, "", id.as_deref()).await;
    let (id, update) = again.next().await;
    assert_eq!(update["type"], "update");
    assert_eq!(update["data"]["quantity"], 2);
    assert_eq!(update["cursor"], json!(id));
    service.stop().await;
    world.database.remove().await;
}

/// A stream of server-sent events.
struct Events {
    body: std::pin::Pin<Box<dyn futures_util::Stream<Item = String> + Send>>,
    text: String,
}

impl Events {
    async fn open(service: &Service, query: &str, last: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(format!("{}/events?{query}", service.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response
            .bytes_stream()
            .map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap());
        Self {
            body: Box::pin(body),
            text: String::new(),
        }
    }

    /// The next event: its id and its data.
    async fn next(&mut self) -> (Option<String>, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(str::trim))
                };
                let id = field("id:").map(ToOwned::to_owned);
                let data = serde_json::from_str(field("data:").unwrap()).unwrap();
                let rest = rest.to_owned();
                self.text = rest;
                return (id, data);
            }
            let more = self.body.next().await.expect("the stream goes on");
            self.text.push_str(&more);
        }
    }
}

#[tokio::test]
async fn a_request_that_has_no_meaning_is_refused() {
    let world = World::with(|config| config.live.connections_max = 1).await;
    let service = world.start().await;
    for query in [
        "warehouse=NOWHERE",
        "product=NOTHING",
        "product=00000000-0000-0000-0000-000000000000",
        "kind=theft",
        "below_min=perhaps",
    ] {
        assert_eq!(
            service.get(&format!("/events?{query}")).await.status,
            400,
            "{query}"
        );
        assert!(
            LiveClient::try_connect(&service, query).await.is_err(),
            "{query}"
        );
    }
    let foreign = [("origin", "https://elsewhere.example")];
    let headers = [foreign.as_slice(), UPGRADE.as_slice()].concat();
    assert_eq!(service.get_with("/ws", &headers).await.status, 403);
    assert_eq!(service.get("/ws").await.status, 400);

    let mut first = LiveClient::connect(&service, "since=nonsense").await;
    first.hear("snapshot").await;
    let mut second = LiveClient::connect(&service, "").await;
    assert_eq!(second.closed().await, Some(4029));
    assert_eq!(service.get("/events").await.status, 503);
    drop(first);
    eventually("there is room again", async || {
        let mut next = LiveClient::connect(&service, "").await;
        next.next().await.map(drop)
    })
    .await;
    service.stop().await;
    world.database.remove().await;
}

/// Goes away and comes back at random for as long as it is told to; what it had at each of its cursors.
async fn come_and_go(
    service: impl Fn() -> Service,
    query: String,
    seed: u64,
    stop: CancellationToken,
) -> (Picture, BTreeMap<String, Model>) {
    const KEPT_MAX: usize = 40;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut picture = Picture::default();
    let mut held = BTreeMap::new();
    while !stop.is_cancelled() {
        let Ok(mut client) = LiveClient::resume(&service(), &query, picture.clone()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        for _ in 0..random.random_range(1..200) {
            if stop.is_cancelled() {
                break;
            }
            let Some(frame) = client.next().await else {
                break;
            };
            if let Some(cursor) = frame["cursor"].as_str()
                && (held.len() < KEPT_MAX || random.random_bool(0.02))
            {
                held.insert(cursor.to_owned(), client.picture.model.clone());
            }
        }
        picture = client.picture;
    }
    (picture, held)
}

/// The part of a model that a filter looks at.
fn of_warehouse(model: &Model, warehouse: Option<&str>) -> Model {
    let is_of = |key: &(String, String)| warehouse.is_none_or(|warehouse| key.0 == warehouse);
    let entries = model.iter().filter(|(key, _)| is_of(key));
    entries.map(|(key, state)| (key.clone(), *state)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_have_what_the_database_has() {
    let world = small_world(TestDatabase::create().await).await;
    // The service is restarted in mid-stream, on another port.
    live_through(&world, async |service| {
        service.stop().await;
        world.start().await
    })
    .await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_through_a_killed_database() {
    let mut server = OwnServer::postgres().await;
    let world = small_world(TestDatabase::create_on(server.url(), "").await).await;
    live_through(&world, async |service| {
        server.kill().await;
        server.start_again().await;
        service
    })
    .await;
}

/// Batches so small that there are many commits, and a ring so small that clients fall out of it.
async fn small_world(database: TestDatabase) -> World {
    World::around(database, |config| {
        config.ingest.max_batch_events = 100;
        config.live.ring_items_max = 2_000;
        config.live.heartbeat_ms = 500;
    })
    .await
}

/// Clients come and go under a stream with trouble in its middle: whatever they held a cursor of is what the database had then.
async fn live_through(world: &World, trouble: impl AsyncFnOnce(Service) -> Service) {
    const CLIENTS: u64 = 8;
    let seed = seed();
    eprintln!("STOCKYARD_TEST_SEED={seed}");
    let messages = if is_long() { 200_000 } else { 20_000 };
    let options = PlanOptions {
        poison: 0.0,
        ..mixed(messages, seed)
    };
    let service = world.start().await;
    let base = Arc::new(std::sync::Mutex::new(service.base.clone()));
    let stop = CancellationToken::new();
    let warehouse = stockyard::produce::plan::warehouse(0).unwrap().to_string();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let only = (n % 2 == 0).then(|| warehouse.clone());
        let query = only
            .as_ref()
            .map_or_else(String::new, |w| format!("warehouse={w}"));
        let (base, stop) = (Arc::clone(&base), stop.clone());
        let at = move || Service::at(&base.lock().unwrap());
        clients.spawn(async move { (only, come_and_go(at, query, seed + n, stop).await) });
    }
    let produced = world.publish(&options, messages / 10, &[]);
    let all = i64::try_from(messages).unwrap();
    world.is_caught_up(all / 2).await;
    let service = trouble(service).await;
    base.lock().unwrap().clone_from(&service.base);
    let produced = produced.await.unwrap();
    world.is_caught_up(all).await;
    stop.cancel();
    let newest = world.newest_version().await;
    let mut looked_at = 0;
    while let Some(client) = clients.join_next().await {
        let (only, (picture, held)) = client.unwrap();
        for (cursor, model) in &held {
            let expected = world.model_at(version(cursor)).await;
            let expected = of_warehouse(&expected, only.as_deref());
            assert!(*model == expected, "at {cursor}, {only:?}, seed {seed}");
            looked_at += 1;
        }
        let query = only
            .as_ref()
            .map_or_else(String::new, |w| format!("warehouse={w}"));
        let mut last = LiveClient::resume(&service, &query, picture).await.unwrap();
        last.reach(newest).await;
        let expected = of_warehouse(&world.model_at(newest).await, only.as_deref());
        assert!(
            last.picture.model == expected,
            "in the end, {only:?}, seed {seed}"
        );
        eprintln!(
            "{} snapshots, {} resyncs",
            last.picture.snapshots, last.picture.resyncs
        );
    }
    assert!(looked_at > 100, "{looked_at} cursors");
    world.holds(&produced.oracle, "live clients").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_is_told_and_then_right() {
    let world = World::with(|config| config.live.heartbeat_ms = 500).await;
    let service = world.start().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 10).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 10).await;
    let copy = world.database.copy().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 5).arrival())
        .await;
    let mut client = LiveClient::connect(&service, "").await;
    let key = (WAREHOUSE.to_string(), PRODUCT.to_string());
    while client
        .picture
        .model
        .get(&key)
        .is_none_or(|state| state.0 != 15)
    {
        client.next().await.unwrap();
    }
    world.database.restore(&copy).await;
    client.hear("resync").await;
    // Who comes now is given nothing of before.
    let mut another = LiveClient::connect(&service, "").await;
    let snapshot = another.hear("snapshot").await;
    let at = version(snapshot["cursor"].as_str().unwrap());
    assert_eq!(another.picture.model, world.model_at(at).await);
    client.hear("snapshot").await;
    // What Kafka has is taken again.
    while client.picture.model[&key].0 != 15 {
        client.next().await.unwrap();
    }
    let newest = world.newest_version().await;
    client.reach(newest).await;
    assert_eq!(client.picture.model, world.model_at(newest).await);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_through_one_process_is_on_the_sockets_of_another() {
    for redis in [true, false] {
        let world = World::with(|config| config.redis.enabled = redis).await;
        let service = world.start().await;
        let other = world
            .start_parts(Parts {
                answers: true,
                ingests: false,
            })
            .await;
        let mut client = LiveClient::connect(&other, "").await;
        client.hear("snapshot").await;
        for units in 1..=20 {
            world
                .send(&Move::new(WAREHOUSE, PRODUCT, 1).arrival())
                .await;
            let update = client.hear("update").await;
            assert_eq!(update["data"]["quantity"], units);
        }
        other.stop().await;
        service.stop().await;
        world.database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disjoint_subscribers_hear_only_of_theirs() {
    const KEYS: u128 = 4;
    let world = World::with(|config| config.live.heartbeat_ms = 500).await;
    let service = world.start().await;
    let key = |n: u128| (Uuid::from_u128(1 + n % 2), Uuid::from_u128(10 + n / 2));
    let mut clients = Vec::new();
    for n in 0..KEYS {
        let (warehouse, product) = key(n);
        let query = format!("warehouse={warehouse}&product={product}");
        let mut client = LiveClient::connect(&service, &query).await;
        client.hear("snapshot").await;
        clients.push(client);
    }
    for round in 0..50 {
        let (warehouse, product) = key(round % KEYS);
        world
            .send(&Move::new(warehouse, product, 1).arrival())
            .await;
    }
    eventually("all is taken", async || {
        (world.taken().await == 50).then_some(())
    })
    .await;
    let newest = world.newest_version().await;
    let all = world.model_at(newest).await;
    for (n, mut client) in (0..KEYS).zip(clients) {
        client.reach(newest).await;
        let (warehouse, product) = key(n);
        let key = (warehouse.to_string(), product.to_string());
        let theirs = Model::from([(key.clone(), all[&key])]);
        assert_eq!(client.picture.model, theirs);
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_closed_and_told_why() {
    let world = World::with(|config| {
        config.live.stalled_after_ms = 1_000;
        config.live.close_timeout_ms = 100;
    })
    .await;
    let service = world.start().await;
    // More of them than the kernel holds for a client.
    let options = PlanOptions {
        poison: 0.0,
        ..mixed(20_000, 1)
    };
    world.publish(&options, 0, &[]).await.unwrap();
    eventually("all is taken", async || {
        (world.taken().await == 20_000).then_some(())
    })
    .await;
    let mut client = LiveClient::connect_narrowly(&service).await;
    eventually("the service has closed it", async || {
        let closed = service
            .count(r#"warehouse_live_closes_total{code="4008"}"#)
            .await;
        let open = service
            .count(r#"warehouse_live_connections{kind="socket"}"#)
            .await;
        (closed == 1 && open == 0).then_some(())
    })
    .await;
    // What was under way to it arrives, and then why it ends.
    assert_eq!(client.closed().await, Some(4008));
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn a_snapshot_is_in_the_words_of_today() {
    let world = World::new().await;
    let service = world.start().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 8).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 8).await;
    for (min_stock, levels) in [(None, 0), (Some(10), 1), (Some(5), 0)] {
        name(&service, min_stock).await;
        let newest = world.newest_version().await;
        // The other process's view may be a moment behind; what is asked for twice is read once.
        for _ in 0..2 {
            eventually("the snapshot knows of the minimum", async || {
                let mut client = LiveClient::connect(&service, "below_min=true").await;
                let snapshot = client.hear("snapshot").await;
                let is_new = version(snapshot["cursor"].as_str().unwrap()) >= newest;
                let found = snapshot["data"].as_array().unwrap().len();
                assert!(!is_new || found == levels, "{min_stock:?}: {snapshot}");
                is_new.then_some(())
            })
            .await;
        }
    }
    service.stop().await;
    world.database.remove().await;
}
