//! A connection to the database that is cut, or hears nothing more, at any moment around the commit: each caller is told what the
//! database says.

use std::time::Duration;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    World, is_long,
    proxy::{Proxy, Way},
    stream::seed,
};

/// Who asks around one cut, and how often, one after another.
const CALLERS: usize = 10;
const REQUESTS: usize = 6;

#[tokio::test]
async fn a_caller_is_told_what_the_database_says() {
    let seed = seed();
    eprintln!("lost commits: STOCKYARD_TEST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new().await;
    let straight = world.start().await;
    let (warehouse, product) = straight.stocked(1_000_000).await;
    let (proxy, url) = Proxy::in_url(&world.config.database.url).await;
    world.config.database.url = url;
    // A try that hears nothing is given up soon, and there are several.
    world.config.database.write_timeout_ms = 1_000;
    world.config.commands.wait_max_ms = 30_000;
    world.config.http.request_timeout_ms = 60_000;
    world.config.reservations.sweep_interval_ms = 0;
    let service = world.start().await;
    let mut made = 0;
    for round in 0..if is_long() { 500 } else { 40 } {
        let way = if round % 4 == 0 {
            Way::Unanswered
        } else {
            Way::Cut
        };
        let callers = (0..CALLERS).map(|_| {
            let service = &service;
            async move {
                let mut answers = Vec::new();
                for _ in 0..REQUESTS {
                    let reference = Uuid::new_v4().to_string();
                    let body = json!({"product": product, "quantity": 1, "reference": reference});
                    answers.push((service.post("/api/reservations", &body).await, reference));
                }
                answers
            }
        });
        let callers: Vec<_> = callers.collect();
        let cut = async {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..80_000))).await;
            proxy.set(way);
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.set(Way::Open);
        };
        let (answers, ()) = tokio::join!(join_all(callers), cut);
        for (answer, reference) in answers.into_iter().flatten() {
            let stored =
                format!("select count(*) from reservations where reference = '{reference}'");
            let stored = world.database.number(&stored).await;
            match answer.status {
                StatusCode::CREATED => {
                    made += 1;
                    assert_eq!(stored, 1, "round {round}, {way:?}: {answer:?}");
                    let id = answer.body["id"].as_str().unwrap();
                    let same = format!(
                        "select count(*) from reservations where reference = '{reference}' and reservation_id = '{id}'"
                    );
                    assert_eq!(world.database.number(&same).await, 1);
                }
                // Names are looked up first, in the same database.
                StatusCode::SERVICE_UNAVAILABLE => {
                    let detail = answer.body["detail"].as_str().unwrap();
                    assert!(
                        !detail.contains("not known"),
                        "it came back in time: {answer:?}"
                    );
                    assert_eq!(stored, 0, "round {round}, {way:?}: {answer:?}");
                }
                _ => panic!("{answer:?}"),
            }
        }
    }
    let found = |is: &str| format!("warehouse_command_lost_commits_total{{found=\"{is}\"}}");
    let (there, not_there) = (
        service.count(&found("yes")).await,
        service.count(&found("no")).await,
    );
    eprintln!(
        "lost commits: {made} reservations; {there} commits were there, {not_there} were not"
    );
    assert!(there > 0, "some were lost right at the commit");
    let level = straight.stock(warehouse, product).await.body;
    assert_eq!(level["reserved"], made);
    service.stop().await;
    straight.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
