//! How a process goes: it says so first, still answers for a while, sends its live clients to others one after the other, and ends.

use std::time::Duration;

use serde_json::json;
use stockyard::{config::Config, live::retry};
use uuid::Uuid;

use crate::support::{
    Service, World, eventually, live::LiveClient, messages::Move, process::signal, unique,
};

const WAREHOUSE: Uuid = Uuid::from_u128(1);
const PRODUCT: Uuid = Uuid::from_u128(2);
/// Long enough for a few requests on a busy machine.
const LAME_DUCK_MS: u64 = 6_000;

async fn says_that_it_goes(service: &Service) {
    eventually("it says that it goes", async || {
        let said = service.get("/readyz").await;
        (said.body["detail"] == "Not ready: it stops").then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_leaves_says_so_first_and_answers_until_nobody_comes() {
    let world = World::with(|config| config.http.lame_duck_ms = LAME_DUCK_MS).await;
    let service = world.start().await;
    world
        .send(&Move::new(WAREHOUSE, PRODUCT, 5).arrival())
        .await;
    service.has_on_hand(WAREHOUSE, PRODUCT, 5).await;
    let mut client = LiveClient::connect(&service, "").await;
    let mut flat = LiveClient::connect_to(&service, "/ws/inventory")
        .await
        .unwrap();
    client.reach(world.newest_version().await).await;
    let events = reqwest::get(format!("{}/events", service.base)).await;
    let events = events.unwrap();
    let usual = service.get("/livez").await;
    assert_eq!(usual.header("connection"), "");

    service.leave();
    says_that_it_goes(&service).await;
    let stock = format!("/api/warehouses/{WAREHOUSE}/products/{PRODUCT}");
    let read = service.get(&stock).await;
    let command =
        json!({"warehouse": WAREHOUSE, "product": PRODUCT, "kind": "restock", "change": 2});
    let written = service.post("/api/adjustments", &command).await;
    let alive = service.get("/livez").await;
    let stopping = r#"warehouse_http_unavailable_total{cause="stopping"}"#;
    assert!(service.count(stopping).await > 0);
    for (answer, status) in [(&read, 200), (&written, 201), (&alive, 200)] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("connection"), "close", "{answer:?}");
    }
    // Who listens hears of it.
    client.reach(world.newest_version().await).await;

    for client in [&mut client, &mut flat] {
        let said = client.closing().await.expect("a closing frame");
        assert_eq!(u16::from(said.code), 1001);
        let after = retry::told(&said.reason).expect("when to come back");
        assert!(after <= Duration::from_millis(500), "of so few: {after:?}");
    }
    let told = events.text().await.unwrap();
    let last = told.trim_end().lines().last().unwrap();
    let millis: u64 = last.strip_prefix("retry: ").expect(last).parse().unwrap();
    assert!(millis <= 500, "{last}");
    service.ends().await.expect("in order");
    world.database.remove().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new().await;
    for (number, name) in [(2, "INT"), (15, "TERM")] {
        let log = std::env::temp_dir().join(unique("leaving"));
        let lame_duck = |config: &mut Config| config.http.lame_duck_ms = 4_000;
        let (service, mut process) = world.start_process(&log, lame_duck);
        service.is_ready().await;
        signal(process.id(), name);
        // By then it has heard the first one: two that come together are one.
        says_that_it_goes(&service).await;
        signal(process.id(), name);
        assert_eq!(process.code().await, Some(128 + number));
    }
    world.database.remove().await;
}
