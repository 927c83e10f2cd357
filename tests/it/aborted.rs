//! Clients that go away at any moment: nothing is half done, and nothing stays behind.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use stockyard::app::Parts;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{World, eventually, stream::seed};

const ANSWERS: Parts = Parts {
    answers: true,
    ingests: false,
};
const REQUESTS: usize = 10_000;
/// Clients at once.
const CLIENTS: usize = 100;

#[tokio::test]
async fn what_clients_abort_is_done_whole_or_not_at_all() {
    let seed = seed();
    eprintln!("aborted: STOCKYARD_TEST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::with(|config| config.reservations.sweep_interval_ms = 200).await;
    let service = world.start().await;
    let (warehouse, product) = service.stocked(1_000_000).await;
    let (_, other) = service.stocked(1_000_000).await;
    let address = service.base.strip_prefix("http://").unwrap().to_owned();
    let requests = (0..REQUESTS).map(|n| {
        let (path, body) = match n % 3 {
            0 => (
                "/api/adjustments".to_owned(),
                json!({"warehouse": warehouse, "product": product, "change": -1, "kind": "sale"}),
            ),
            1 => (
                "/api/reservations".to_owned(),
                json!({"items": [{"product": product, "quantity": 1}, {"product": other, "quantity": 2}], "ttl_seconds": 1}),
            ),
            _ => (
                format!("/inventory/{product}/reserve"),
                json!({"quantity": 1}),
            ),
        };
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: {n}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // Most leave while it is decided; some before it is all said.
        let patience = Duration::from_micros(random.random_range(0..120_000));
        let said = if n % 10 == 0 { random.random_range(1..request.len()) } else { request.len() };
        let address = address.clone();
        async move {
            let mut stream = TcpStream::connect(&address).await.expect("connected");
            stream.write_all(&request.as_bytes()[..said]).await.expect("sent");
            let mut answer = [0; 1];
            let answered = timeout(patience, stream.read(&mut answer)).await.is_ok();
            // Gone, without a word of farewell.
            drop(stream.set_zero_linger());
            answered
        }
    });
    let requests: Vec<_> = requests.collect();
    let answered = stream::iter(requests).buffer_unordered(CLIENTS);
    let answered = answered
        .filter(|answered| std::future::ready(*answered))
        .count()
        .await;
    eprintln!("aborted: {} of {REQUESTS}", REQUESTS - answered);
    assert!(
        (1..REQUESTS).contains(&answered),
        "some were answered, some aborted"
    );

    let in_transaction = "select count(*) from pg_stat_activity
        where datname = current_database() and state like 'idle in transaction%'";
    eventually("no session is left in a transaction", async || {
        (world.database.number(in_transaction).await == 0).then_some(())
    })
    .await;
    // What nobody was told of is given back when its time is over; those of the other route last longer.
    eventually("what is due is given back", async || {
        let left = "select count(*) from reservations where state = 1 and expires_at <= now()";
        (world.database.number(left).await == 0).then_some(())
    })
    .await;
    // One of the first product alone is of the other route, which gives 15 minutes.
    let halves = "select count(*) from (
        select from reservations where expires_at - created_at < interval '1 minute'
        group by reservation_id having count(*) <> 2
    ) broken";
    assert_eq!(world.database.number(halves).await, 0);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn who_leaves_before_it_is_his_turn_leaves_no_transaction_open() {
    let world = World::with(|config| config.reservations.sweep_interval_ms = 0).await;
    let service = world.start_parts(ANSWERS).await;
    let (warehouse, product) = service.stocked(10).await;
    let (units, body) = ([(warehouse, 1)], json!({"product": product, "quantity": 1}));
    let held = world.database.hold_commits().await;
    let (_, first, ()) = tokio::join!(
        world.database.reserve(product, &units, None),
        async {
            world.database.one_waits_to_commit().await;
            service.post("/api/reservations", &body).await
        },
        async {
            // The first is put off and waits for the level; the next one is put off as well, waits for the first, and goes away.
            world.database.one_waits_for_a_row().await;
            let connections = async || service.count("warehouse_http_connections").await;
            let open = connections().await;
            eventually("one waits, and another one is told so", async || {
                let asked = service.post_once("/api/reservations", "k", &body);
                let told = timeout(Duration::from_millis(100), asked).await;
                told.is_ok_and(|told| told.body["in_progress"] == true)
                    .then_some(())
            })
            .await;
            eventually("it has gone", async || {
                (connections().await <= open).then_some(())
            })
            .await;
            held.let_go().await;
        }
    );
    assert_eq!(first.status, 201, "{first:?}");
    eventually(
        "what was begun for the next one is given back, and by who put both off",
        async || {
            let rests = "select count(*) from pg_stat_activity
            where datname = current_database() and state = 'idle' and query = 'rollback'";
            (world.database.number(rests).await == 2).then_some(())
        },
    )
    .await;
    assert_eq!(service.stock(warehouse, product).await.body["reserved"], 2);
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
