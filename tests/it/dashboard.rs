//! Every query of every panel returns data from a real Prometheus that has scraped a fed service.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    World, eventually,
    messages::Move,
    process::{Process, free_port},
    server, unique,
};

/// The title and expression of every query in the dashboard.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string("grafana/dashboard.json").unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let nested = panels
        .iter()
        .filter_map(|panel| panel["panels"].as_array())
        .flatten();
    let mut queries = Vec::new();
    for panel in panels.iter().chain(nested) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            let expression = target["expr"].as_str().expect("every target is a query");
            let expression = expression
                .replace("$__rate_interval", "10s")
                .replace("$__range", "1m")
                .replace("$__interval", "5s");
            assert!(!expression.contains('$'), "{title}: {expression}");
            queries.push((title, expression));
        }
    }
    // Starts are there to be marked on the charts; alerts, if all is well, are not.
    let marks = dashboard["annotations"]["list"].as_array().unwrap();
    for mark in marks {
        let expression = mark["expr"].as_str().expect("every mark is a query");
        if !expression.starts_with("ALERTS") {
            queries.push((mark["name"].to_string(), expression.to_owned()));
        }
    }
    queries
}

#[tokio::test]
async fn every_panel_shows_something() {
    let world = World::new().await;
    let service = world.start().await;
    let port = free_port();
    let directory = std::env::temp_dir().join(unique("prometheus"));
    std::fs::create_dir(&directory).unwrap();
    let target = service.base.strip_prefix("http://").unwrap();
    // What is recorded a minute apart is recorded as often as this one scrapes.
    let rules = std::fs::read_to_string("prometheus/alerts.yml").unwrap();
    let rules = rules.replace("interval: 1m", "interval: 1s");
    std::fs::write(directory.join("alerts.yml"), rules).unwrap();
    std::fs::write(
        directory.join("prometheus.yml"),
        format!("global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\nscrape_configs: [{{ job_name: stockyard, static_configs: [{{ targets: ['{target}'] }}] }}]\n"),
    )
    .unwrap();
    let prometheus = Process::prometheus(&server("STOCKYARD_TEST_PROMETHEUS"), port, &directory);

    // Some of everything, until every query has an answer.
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut open = queries();
    assert!(open.len() >= 80, "{}", open.len());
    let mut round = 0_i64;
    eventually("every query returns data", async || {
        round += 1;
        let moved = Move::new(Uuid::from_u128(1), Uuid::from_u128(2), 1);
        world.send(&moved.arrival()).await;
        world.send(&moved.arrival()).await;
        world.send("junk").await;
        service.movement(moved.movement).await;
        service.stock(moved.warehouse, moved.product).await;
        let mut still_open = Vec::new();
        for (title, expression) in open.drain(..) {
            let answer = client
                .get(format!("http://127.0.0.1:{port}/api/v1/query"))
                .query(&[("query", &expression)])
                .send()
                .await;
            // Until it has started it says that it is not ready.
            let Some(answer) = answer.ok().filter(|answer| answer.status() != 503) else {
                still_open.push((title, expression));
                continue;
            };
            let answer: Value = answer.json().await.unwrap();
            assert_ne!(answer["status"], "error", "{title}: {expression}: {answer}");
            if answer["data"]["result"]
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                still_open.push((title, expression));
            }
        }
        if round % 500 == 0 {
            eprintln!("no data yet: {still_open:#?}");
        }
        open = still_open;
        open.is_empty().then_some(())
    })
    .await;
    drop(prometheus);
    std::fs::remove_dir_all(&directory).unwrap();
    service.stop().await;
    world.database.remove().await;
}
