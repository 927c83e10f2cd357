//! A connection to the database that is lost at any moment around the commit: each caller is told what the database says.
//!
//! The way to the database looks for the message that commits, and loses the connection before it, after it, or when its answer
//! is already on the way; or it is cut and falls silent at random moments.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use crate::support::{
    Answer, Service, TestDatabase, World, eventually, is_long,
    proxy::{Proxy, Way},
    stream::seed,
};

/// Who asks around one loss, and how often, one after another.
const CALLERS: usize = 10;
const REQUESTS: usize = 6;

/// When a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The database never hears that it is to commit.
    Before,
    /// It hears it, and nobody waits for what it says.
    During,
    /// It has committed, and its answer does not arrive.
    After,
}

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];
/// What stands in the message that publishes and commits.
const COMMITS: &[u8] = b"execute stock_publish(";
const NOT_ARMED: u8 = 0;

/// A way to the database that loses a connection at its next commit, if it is armed.
struct AtCommit {
    port: u16,
    armed: Arc<AtomicU8>,
}

impl AtCommit {
    async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let armed = Arc::new(AtomicU8::new(NOT_ARMED));
        let armed_of_all = Arc::clone(&armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, Arc::clone(&armed_of_all)));
            }
        });
        Self { port, armed }
    }

    fn arm(&self, moment: Moment) {
        let place = MOMENTS.iter().position(|known| *known == moment).unwrap();
        self.armed
            .store(u8::try_from(place + 1).unwrap(), Ordering::SeqCst);
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst) != NOT_ARMED
    }
}

async fn carry(mut client: TcpStream, target: u16, armed: Arc<AtomicU8>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let (mut said, mut told) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut said) => {
                let Ok(read @ 1..) = read else { return };
                let said = &said[..read];
                let commits = said.windows(COMMITS.len()).any(|window| window == COMMITS);
                let moment = if commits { armed.swap(NOT_ARMED, Ordering::SeqCst) } else { NOT_ARMED };
                match moment {
                    NOT_ARMED => drop(server.write_all(said).await),
                    1 => return lose(&client, &server),
                    2 => {
                        drop(server.write_all(said).await);
                        return lose(&client, &server);
                    }
                    _ => {
                        drop(server.write_all(said).await);
                        drop(server.read(&mut told).await);
                        return lose(&client, &server);
                    }
                }
            }
            read = server.read(&mut told) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&told[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn lose(client: &TcpStream, server: &TcpStream) {
    drop(client.set_zero_linger());
    drop(server.set_zero_linger());
}

/// Callers that each ask for one unit after another; their answers, each with the reference it was asked with.
async fn ask(service: &Service, product: Uuid) -> Vec<(Answer, String)> {
    let callers = (0..CALLERS).map(|_| async move {
        let mut answers = Vec::new();
        for _ in 0..REQUESTS {
            let reference = Uuid::new_v4().to_string();
            let body = json!({"product": product, "quantity": 1, "reference": reference});
            answers.push((service.post("/api/reservations", &body).await, reference));
        }
        answers
    });
    join_all(callers).await.into_iter().flatten().collect()
}

/// Each answer is what the database says; how many reservations were made.
async fn agree(world: &World, answers: &[(Answer, String)], when: &str) -> i64 {
    let mut made = 0;
    let (mut there, mut not_there) = (Vec::new(), Vec::new());
    for (answer, reference) in answers {
        match answer.status {
            StatusCode::CREATED => {
                made += 1;
                let id = answer.body["id"].as_str().unwrap();
                there.push(format!("('{reference}', '{id}'::uuid)"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let detail = answer.body["detail"].as_str().unwrap();
                assert!(!detail.contains("not known"), "{when}: {answer:?}");
                not_there.push(format!("('{reference}')"));
            }
            _ => panic!("{when}: {answer:?}"),
        }
    }
    if !there.is_empty() {
        let found = format!(
            "select count(*) from (values {}) v (reference, id)
            join reservations r on r.reference = v.reference and r.reservation_id = v.id",
            there.join(", ")
        );
        assert_eq!(world.database.number(&found).await, made, "{when}");
    }
    if !not_there.is_empty() {
        let found = format!(
            "select count(*) from (values {}) v (reference) join reservations r using (reference)",
            not_there.join(", ")
        );
        assert_eq!(world.database.number(&found).await, 0, "{when}");
    }
    made
}

async fn found(service: &Service, is: &str) -> u64 {
    let series = format!("warehouse_command_lost_commits_total{{found=\"{is}\"}}");
    service.count(&series).await
}

fn patient(world: &mut World) {
    // A try that hears nothing is given up soon, and there are several.
    world.config.database.write_timeout_ms = 1_000;
    world.config.commands.wait_max_ms = 30_000;
    world.config.http.request_timeout_ms = 60_000;
    world.config.reservations.sweep_interval_ms = 0;
}

#[tokio::test]
async fn what_was_lost_at_the_commit_is_looked_up() {
    let mut world = World::new().await;
    let straight = world.start().await;
    let (warehouse, product) = straight.stocked(1_000_000).await;
    let port: u16 = {
        let (base, _) = world.database.url.rsplit_once('/').unwrap();
        base.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let way = AtCommit::to(port).await;
    let ours = world
        .config
        .database
        .url
        .replace(&format!(":{port}/"), &format!(":{}/", way.port));
    world.config.database.url = ours;
    patient(&mut world);
    // Nothing but what is decided is committed through it.
    let service = world
        .start_parts(stockyard::app::Parts {
            answers: true,
            ingests: false,
        })
        .await;
    service.is_ready().await;
    let mut made = 0;
    for round in 0..if is_long() { 300 } else { 12 } {
        let moment = MOMENTS[round % MOMENTS.len()];
        way.arm(moment);
        let answers = ask(&service, product).await;
        assert!(!way.is_armed(), "{moment:?}: it was lost");
        made += agree(&world, &answers, &format!("{moment:?}")).await;
        let is_lost = |(answer, _): &(Answer, String)| answer.status != StatusCode::CREATED;
        assert!(
            !answers.iter().any(is_lost),
            "{moment:?}: it came back in time"
        );
    }
    // What is created holds no level: it is told apart by its sku.
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        way.arm(moment);
        let body = json!({"sku": format!("LOST-{round}"), "name": "x", "price": 1, "stock": 0});
        let created = service.post("/products/", &body).await;
        assert_eq!(
            created.status,
            StatusCode::CREATED,
            "{moment:?}: {created:?}"
        );
        assert!(!way.is_armed());
    }
    let (there, not_there) = (found(&service, "yes").await, found(&service, "no").await);
    eprintln!(
        "lost commits: {made} reservations; {there} commits were there, {not_there} were not"
    );
    assert!(there > 0 && not_there > 0);
    assert_eq!(
        straight.stock(warehouse, product).await.body["reserved"],
        made
    );
    service.stop().await;
    straight.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn a_caller_is_told_what_the_database_says() {
    let seed = seed();
    eprintln!("lost connections: STOCKYARD_TEST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new().await;
    let straight = world.start().await;
    let (warehouse, product) = straight.stocked(1_000_000).await;
    let (proxy, url) = Proxy::in_url(&world.config.database.url).await.unwrap();
    world.config.database.url = url;
    patient(&mut world);
    let service = world.start().await;
    let mut made = 0;
    for round in 0..if is_long() { 500 } else { 12 } {
        let way = if round % 4 == 0 {
            Way::Unanswered
        } else {
            Way::Cut
        };
        let cut = async {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..80_000))).await;
            proxy.set(way);
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.set(Way::Open);
        };
        let (answers, ()) = tokio::join!(ask(&service, product), cut);
        made += agree(&world, &answers, &format!("round {round}, {way:?}")).await;
    }
    assert!(made > 0);
    let retries = service
        .count("warehouse_ingest_retries_total{step=\"decide\"}")
        .await;
    assert!(retries > 0, "some of them were lost");
    assert_eq!(
        straight.stock(warehouse, product).await.body["reserved"],
        made
    );
    service.stop().await;
    straight.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}

#[tokio::test]
async fn a_commit_that_is_still_under_way_is_waited_for() {
    let database = TestDatabase::create().await;
    let (proxy, url) = Proxy::in_url(&database.url).await.unwrap();
    let world = World::around(database, |config| {
        config.database.url = url;
        config.reservations.sweep_interval_ms = 0;
    })
    .await;
    let service = world.start().await;
    service.is_ready().await;
    let (warehouse, product) = service.stocked(10).await;
    let held = world.database.hold_commits().await;
    let body = json!({"product": product, "quantity": 3});
    let (answer, ()) = tokio::join!(service.post("/api/reservations", &body), async {
        world.database.one_waits_to_commit().await;
        // The server does not know that nobody listens any more.
        proxy.set(Way::Cut);
        eventually("the database is away", async || {
            (service.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        proxy.set(Way::Open);
        world.database.one_waits_for_a_row().await;
        held.let_go().await;
    });
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let made = format!(
        "select count(*) from reservations where reservation_id = {}",
        answer.body["id"].to_string().replace('"', "'")
    );
    assert_eq!(world.database.number(&made).await, 1);
    let level = service.stock(warehouse, product).await.body;
    assert_eq!(level["reserved"], 3, "once, whoever was told");
    service.stop().await;
    assert_eq!(world.differences().await, [""; 0]);
    world.database.remove().await;
}
