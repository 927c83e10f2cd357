//! A hundred callers that reserve one product: Stockyard beside the plain way (a transaction of read, check and write for each
//! request) and the best that can be had without combining requests (one statement for each), each behind the same HTTP library,
//! with the same client, on the same database, at the best of several pool sizes.

use std::{
    process::{Child, Command, Stdio},
    str::FromStr,
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{
    load::{Answered, send},
    table::{Figures, print, progress, remark, row},
    world::{Database, Outcome, Service, free_port, until},
};

const CALLERS: usize = 100;
const STOCK: i64 = 1_000_000;
const LASTS: Duration = Duration::from_secs(5);
/// Connections of the peers.
const POOLS: [u32; 5] = [4, 8, 16, 50, 100];

/// How a peer reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    OneStatement,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::OneStatement => "statement",
        }
    }
}

/// A peer as a process is told to be it: `way,connections,port,url`.
#[derive(Clone, Debug)]
pub struct Peer {
    way: Way,
    connections: u32,
    port: u16,
    url: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(4, ',').collect();
        let [way, connections, port, url] = parts.as_slice() else {
            return Err("way,connections,port,url".to_owned());
        };
        Ok(Self {
            way: match *way {
                "plain" => Way::Plain,
                "statement" => Way::OneStatement,
                other => return Err(other.to_owned()),
            },
            connections: connections.parse().map_err(|_| text.to_owned())?,
            port: port.parse().map_err(|_| text.to_owned())?,
            url: (*url).to_owned(),
        })
    }
}

/// What the peers reserve of: as little as one can do with.
const PEER_TABLES: &str = "
    create table peer_levels (id integer primary key, on_hand bigint not null, reserved bigint not null) with (fillfactor = 75);
    create table peer_reservations (
        id uuid primary key, level integer not null, quantity bigint not null, expires_at timestamptz not null
    );
    insert into peer_levels values (1, 1000000, 0)";

/// Is the peer.
pub async fn serve(peer: Peer) -> Outcome<()> {
    let pool = PgPoolOptions::new()
        .max_connections(peer.connections)
        .min_connections(peer.connections)
        .acquire_timeout(Duration::from_secs(30))
        .connect(&peer.url)
        .await?;
    let routes = match peer.way {
        Way::Plain => Router::new().route("/reserve", post(plain)),
        Way::OneStatement => Router::new().route("/reserve", post(one_statement)),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", peer.port)).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        drop(stream.set_nodelay(true));
    });
    Ok(axum::serve(listener, routes.with_state(pool)).await?)
}

async fn plain(State(pool): State<PgPool>, body: String) -> (StatusCode, String) {
    match try_plain(&pool, &body).await {
        Ok(true) => (StatusCode::CREATED, body),
        Ok(false) => (StatusCode::CONFLICT, String::new()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn try_plain(pool: &PgPool, _: &str) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let (on_hand, reserved): (i64, i64) =
        sqlx::query_as("select on_hand, reserved from peer_levels where id = 1 for update")
            .fetch_one(&mut *tx)
            .await?;
    if on_hand - reserved < 1 {
        return Ok(false);
    }
    sqlx::query("update peer_levels set reserved = reserved + 1 where id = 1")
        .execute(&mut *tx)
        .await?;
    sqlx::query("insert into peer_reservations values ($1, 1, 1, now() + interval '15 minutes')")
        .bind(Uuid::now_v7())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

async fn one_statement(State(pool): State<PgPool>, body: String) -> (StatusCode, String) {
    let done = sqlx::query(
        "with taken as (
            update peer_levels set reserved = reserved + 1 where id = 1 and on_hand - reserved >= 1 returning id
        )
        insert into peer_reservations select $1, id, 1, now() + interval '15 minutes' from taken",
    )
    .bind(Uuid::now_v7())
    .execute(&pool)
    .await;
    match done {
        Ok(done) if done.rows_affected() == 1 => (StatusCode::CREATED, body),
        Ok(_) => (StatusCode::CONFLICT, String::new()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A peer's process, ended with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn request(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn peer(database: &Database, way: Way, connections: u32) -> Outcome<Answered> {
    let port = free_port()?;
    let told = format!("{},{connections},{port},{}", way.as_str(), database.url);
    let process = Command::new(std::env::current_exe()?)
        .args(["--reserve", &told])
        .stdout(Stdio::null())
        .spawn()?;
    let _process = Process(process);
    until("the peer listens", async || {
        let connected = TcpStream::connect(("127.0.0.1", port)).await;
        Ok(connected.is_ok().then_some(()))
    })
    .await?;
    send(port, vec![request("/reserve", "{}")], CALLERS, LASTS).await
}

/// The best of the pool sizes by rate, and its size.
async fn best(database: &Database, way: Way) -> Outcome<(Answered, u32)> {
    let mut best: Option<(Answered, u32)> = None;
    for connections in POOLS {
        let answered = peer(database, way, connections).await?;
        progress(&format!(
            "{} over {connections} connections: {:.0}/s, p99 {:?}",
            way.as_str(),
            answered.per_second,
            answered.p99
        ));
        if best
            .as_ref()
            .is_none_or(|(best, _)| best.per_second < answered.per_second)
        {
            best = Some((answered, connections));
        }
    }
    best.ok_or_else(|| "no pool size".into())
}

async fn stockyard(database: &Database) -> Outcome<Answered> {
    let service = Service::start(&super::world::unique("none"), database, "api")?;
    service.ready().await?;
    let (warehouse, product) = (Uuid::new_v4(), Uuid::new_v4());
    let client = reqwest::Client::new();
    let base = format!("http://127.0.0.1:{}", service.port);
    for (path, body) in [
        (
            format!("/api/warehouses/{warehouse}"),
            serde_json::json!({}),
        ),
        (format!("/api/products/{product}"), serde_json::json!({})),
    ] {
        let put = client.put(format!("{base}{path}")).json(&body);
        put.send().await?.error_for_status()?;
    }
    let stock = serde_json::json!({"warehouse": warehouse, "product": product, "change": STOCK, "kind": "restock"});
    let restock = client.post(format!("{base}/api/adjustments")).json(&stock);
    restock.send().await?.error_for_status()?;
    let body = serde_json::json!({"product": product, "quantity": 1}).to_string();
    let answered = send(
        service.port,
        vec![request("/api/reservations", &body)],
        CALLERS,
        LASTS,
    )
    .await?;
    service.end();
    Ok(answered)
}

/// Measures all three, pair by pair.
pub async fn measure(repetitions: usize) -> Outcome<()> {
    let mut rates = [Figures::default(), Figures::default(), Figures::default()];
    let mut late = [Figures::default(), Figures::default(), Figures::default()];
    let mut ratios = [Figures::default(), Figures::default()];
    let mut pools = Vec::new();
    for _ in 0..repetitions {
        let database = Database::create().await?;
        database.run(PEER_TABLES).await?;
        let ours = stockyard(&database).await?;
        progress(&format!(
            "Stockyard: {:.0}/s, p99 {:?}",
            ours.per_second, ours.p99
        ));
        let (plain, plain_pool) = best(&database, Way::Plain).await?;
        let (statement, statement_pool) = best(&database, Way::OneStatement).await?;
        database.remove().await?;
        pools.push(format!("{plain_pool} and {statement_pool}"));
        ratios[0].push(ours.per_second / plain.per_second);
        ratios[1].push(ours.per_second / statement.per_second);
        for (place, answered) in [ours, plain, statement].into_iter().enumerate() {
            rates[place].push(answered.per_second);
            late[place].push(answered.p99.as_secs_f64() * 1e3);
        }
    }
    let names = [
        "Stockyard, requests combined",
        "a transaction of read, check, write for each",
        "one statement for each",
    ];
    let ratio = |place: usize| match place {
        0 => "1".to_owned(),
        place => ratios[place - 1].show(1),
    };
    let rows: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(place, name)| {
            row(
                name,
                [rates[place].show(0), late[place].show(1), ratio(place)],
            )
        })
        .collect();
    print(
        "Reservations of one product, a million in stock, 100 callers",
        &["reservations/s", "p99, ms", "Stockyard's rate over it"],
        &rows,
    );
    remark(&format!(
        "The peers at the best of {POOLS:?} connections: {}.",
        pools.join("; ")
    ));
    Ok(())
}
