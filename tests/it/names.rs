//! Products are found by what they are called now, and counted as they are listed, whichever process changed it.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, World, eventually};

/// The name of the product that goes by this sku; `None` if none does.
async fn name(service: &Service, sku: &str) -> Option<String> {
    let answer = service.get(&format!("/inventory/{sku}")).await;
    let name = answer.body["name"].as_str().map(str::to_owned);
    assert_eq!(answer.status == 200, name.is_some(), "{answer:?}");
    name
}

/// The numbers of the listed products, and how many there are said to be.
async fn listed(service: &Service) -> (Vec<i64>, i64) {
    let page = service.get("/products/").await.body;
    let products = page["products"].as_array().unwrap().iter();
    let numbers = products.map(|product| product["id"].as_i64().unwrap());
    (numbers.collect(), page["total"].as_i64().unwrap())
}

async fn make(service: &Service, sku: &str, name: &str) -> i64 {
    let body = json!({"sku": sku, "name": name, "price": 1, "stock": 0});
    let made = service.post("/products/", &body).await;
    made.body["id"].as_i64().expect("a number")
}

#[tokio::test]
async fn a_sku_leads_to_who_has_it_now() {
    let world = World::new().await;
    let services = [world.start().await, world.start().await];
    let [here, there] = &services;
    let number = make(here, "S-1", "first").await;
    for service in &services {
        assert_eq!(name(service, "S-1").await.as_deref(), Some("first"));
    }
    let renamed = json!({"sku": "S-2", "name": "first", "price": 1});
    let path = format!("/products/{number}");
    assert_eq!(here.send(Method::PUT, &path, &renamed).await.status, 200);
    assert_eq!(
        name(here, "S-1").await,
        None,
        "who renamed it knows at once"
    );
    assert_eq!(name(here, "S-2").await.as_deref(), Some("first"));
    make(here, "S-1", "second").await;
    assert_eq!(name(here, "S-1").await.as_deref(), Some("second"));
    for (sku, wanted) in [("S-1", "second"), ("S-2", "first")] {
        let seen = async || (name(there, sku).await.as_deref() == Some(wanted)).then_some(());
        eventually("the other process has followed", seen).await;
    }
    let order = json!({"product_id": number, "quantity": 1});
    for _ in 0..2 {
        assert_eq!(
            there.post("/orders/", &order).await.status,
            409,
            "nothing is there"
        );
    }
    assert_eq!(
        here.send(Method::DELETE, &path, &Value::Null).await.status,
        204
    );
    assert_eq!(
        name(here, "S-2").await,
        None,
        "what is archived has no name"
    );
    assert_eq!(here.post("/orders/", &order).await.status, 404);
    let seen = async || (there.post("/orders/", &order).await.status == 404).then_some(());
    eventually("nobody can order it any more", seen).await;
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}

#[tokio::test]
async fn the_total_is_that_of_the_list() {
    let world = World::new().await;
    let services = [world.start().await, world.start().await];
    let [here, there] = &services;
    let mut numbers = Vec::new();
    for n in 0..5 {
        numbers.push(make(here, &format!("T-{n}"), "one of five").await);
        let (listed, total) = listed(here).await;
        assert_eq!((&listed, total), (&numbers, n + 1));
    }
    // Entries without a sku are products, and in no list.
    let unlisted = format!("/api/products/{}", Uuid::new_v4());
    let entry = json!({"name": "without a sku"});
    assert_eq!(here.send(Method::PUT, &unlisted, &entry).await.status, 201);
    assert_eq!(listed(here).await.1, 5);
    let gone = format!("/products/{}", numbers.remove(0));
    assert_eq!(
        here.send(Method::DELETE, &gone, &Value::Null).await.status,
        204
    );
    assert_eq!(listed(here).await, (numbers.clone(), 4));
    let seen = async || (listed(there).await == (numbers.clone(), 4)).then_some(());
    eventually("the other process has followed", seen).await;
    for service in services {
        service.stop().await;
    }
    world.database.remove().await;
}
