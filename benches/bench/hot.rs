//! A hundred callers that reserve one product: Stockyard beside the plain way (a transaction of read, check and write for each
//! request) and the best that can be had without combining requests (one statement for each), each behind the same HTTP library,
//! with the same client, on the same database server, at the best of several pool sizes. Both write to Stockyard's own tables what
//! Stockyard writes (level, reservation and the ledger's row), and once more to tables with as little in them as one can do with,
//! and no ledger.

use std::{
    process::{Child, Command, Stdio},
    str::FromStr,
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{
    load::{Answered, Manner, post, send},
    table::{Figures, Row, print, progress, remark, row},
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

/// What it writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tables {
    /// Stockyard's.
    Same,
    /// As little as one can do with.
    Least,
}

/// All there are.
const PEERS: [(Way, Tables); 4] = [
    (Way::Plain, Tables::Same),
    (Way::OneStatement, Tables::Same),
    (Way::Plain, Tables::Least),
    (Way::OneStatement, Tables::Least),
];

fn name(way: Way, tables: Tables) -> &'static str {
    match (way, tables) {
        (Way::Plain, Tables::Same) => "plain",
        (Way::OneStatement, Tables::Same) => "statement",
        (Way::Plain, Tables::Least) => "plain-least",
        (Way::OneStatement, Tables::Least) => "statement-least",
    }
}

fn title(way: Way, tables: Tables) -> &'static str {
    match (way, tables) {
        (Way::Plain, Tables::Same) => {
            "a transaction of read, check, write for each, to the same tables"
        }
        (Way::OneStatement, Tables::Same) => "one statement for each, to the same tables",
        (Way::Plain, Tables::Least) => {
            "a transaction of read, check, write for each, to least tables without a ledger"
        }
        (Way::OneStatement, Tables::Least) => {
            "one statement for each, to least tables without a ledger"
        }
    }
}

/// A peer as a process is told to be it: `name,connections,port,url`.
#[derive(Clone, Debug)]
pub struct Peer {
    way: Way,
    tables: Tables,
    connections: u32,
    port: u16,
    url: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(4, ',').collect();
        let [told, connections, port, url] = parts.as_slice() else {
            return Err("name,connections,port,url".to_owned());
        };
        let mut peers = PEERS.into_iter();
        let known = peers.find(|(way, tables)| name(*way, *tables) == *told);
        let (way, tables) = known.ok_or_else(|| (*told).to_owned())?;
        Ok(Self {
            way,
            tables,
            connections: connections.parse().map_err(|_| text.to_owned())?,
            port: port.parse().map_err(|_| text.to_owned())?,
            url: (*url).to_owned(),
        })
    }
}

/// What the peers reserve of: a level, and once more for those that do without a ledger.
const PEER_TABLES: &str = "
    insert into stock_levels (warehouse_id, product_id, on_hand, reserved, revision, updated_at)
    values (gen_random_uuid(), gen_random_uuid(), 1000000, 0, 1, now());
    create table peer_levels (id bigint primary key, on_hand bigint not null, reserved bigint not null) with (fillfactor = 75);
    create table peer_reservations (
        id uuid primary key, level bigint not null, quantity bigint not null, expires_at timestamptz not null
    );
    insert into peer_levels values (1, 1000000, 0)";

/// What the plain way says between begin and commit: it reads, looks whether there is enough, and writes.
struct Steps {
    read: &'static str,
    take: &'static str,
    /// Each with the reservation's id and the level's.
    write: &'static [&'static str],
}

const SAME_STEPS: Steps = Steps {
    read: "select on_hand, reserved from stock_levels where inventory_id = $1 for update",
    take: "update stock_levels set reserved = reserved + 1, revision = revision + 1, updated_at = now() where inventory_id = $1",
    write: &[
        "insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in)
        values ($1, $2, 1, 1, now(), now() + interval '15 minutes', now(), nextval('stock_batches'))",
        "insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
            occurred_at, cause_id, kind)
        select currval('stock_batches'), inventory_id, revision, 0, 1, on_hand, reserved, now(), $1, 9
        from stock_levels where inventory_id = $2",
    ],
};

const LEAST_STEPS: Steps = Steps {
    read: "select on_hand, reserved from peer_levels where id = $1 for update",
    take: "update peer_levels set reserved = reserved + 1 where id = $1",
    write: &["insert into peer_reservations values ($1, $2, 1, now() + interval '15 minutes')"],
};

const SAME_STATEMENT: &str = "with taken as (
        update stock_levels set reserved = reserved + 1, revision = revision + 1, updated_at = now()
        where inventory_id = $2 and on_hand - reserved >= 1
        returning inventory_id, on_hand, reserved, revision, nextval('stock_batches') as batch
    ), made as (
        insert into reservations (reservation_id, inventory_id, quantity, state, created_at, expires_at, changed_at, made_in)
        select $1, inventory_id, 1, 1, now(), now() + interval '15 minutes', now(), batch from taken
    )
    insert into stock_ledger (batch, inventory_id, revision, on_hand_delta, reserved_delta, on_hand_after, reserved_after,
        occurred_at, cause_id, kind)
    select batch, inventory_id, revision, 0, 1, on_hand, reserved, now(), $1, 9 from taken";

const LEAST_STATEMENT: &str = "with taken as (
        update peer_levels set reserved = reserved + 1 where id = $2 and on_hand - reserved >= 1 returning id
    )
    insert into peer_reservations select $1, id, 1, now() + interval '15 minutes' from taken";

/// What a peer's handler works with.
#[derive(Clone)]
struct Desk {
    pool: PgPool,
    level: i64,
    tables: Tables,
}

/// Is the peer.
pub async fn serve(peer: Peer) -> Outcome<()> {
    let pool = PgPoolOptions::new()
        .max_connections(peer.connections)
        .min_connections(peer.connections)
        .acquire_timeout(Duration::from_secs(30))
        .connect(&peer.url)
        .await?;
    let level = match peer.tables {
        Tables::Same => sqlx::query_scalar("select inventory_id from stock_levels"),
        Tables::Least => sqlx::query_scalar("select id from peer_levels"),
    };
    let desk = Desk {
        level: level.fetch_one(&pool).await?,
        pool,
        tables: peer.tables,
    };
    let routes = match peer.way {
        Way::Plain => Router::new().route("/reserve", routing::post(plain)),
        Way::OneStatement => Router::new().route("/reserve", routing::post(one_statement)),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", peer.port)).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        drop(stream.set_nodelay(true));
    });
    Ok(axum::serve(listener, routes.with_state(desk)).await?)
}

async fn plain(State(desk): State<Desk>, body: String) -> (StatusCode, String) {
    answer(try_plain(&desk).await, body)
}

async fn try_plain(desk: &Desk) -> Result<bool, sqlx::Error> {
    let steps = match desk.tables {
        Tables::Same => SAME_STEPS,
        Tables::Least => LEAST_STEPS,
    };
    let mut tx = desk.pool.begin().await?;
    let (on_hand, reserved): (i64, i64) = sqlx::query_as(steps.read)
        .bind(desk.level)
        .fetch_one(&mut *tx)
        .await?;
    if on_hand - reserved < 1 {
        return Ok(false);
    }
    let take = sqlx::query(steps.take).bind(desk.level);
    take.execute(&mut *tx).await?;
    let id = Uuid::now_v7();
    for write in steps.write {
        let write = sqlx::query(*write).bind(id).bind(desk.level);
        write.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn one_statement(State(desk): State<Desk>, body: String) -> (StatusCode, String) {
    let statement = match desk.tables {
        Tables::Same => SAME_STATEMENT,
        Tables::Least => LEAST_STATEMENT,
    };
    let statement = sqlx::query(statement).bind(Uuid::now_v7()).bind(desk.level);
    let done = statement.execute(&desk.pool).await;
    answer(done.map(|done| done.rows_affected() == 1), body)
}

fn answer(reserved: Result<bool, sqlx::Error>, body: String) -> (StatusCode, String) {
    match reserved {
        Ok(true) => (StatusCode::CREATED, body),
        Ok(false) => (StatusCode::CONFLICT, String::new()),
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

async fn peer(
    database: &Database,
    (way, tables): (Way, Tables),
    connections: u32,
) -> Outcome<Answered> {
    let port = free_port()?;
    let told = format!(
        "{},{connections},{port},{}",
        name(way, tables),
        database.url
    );
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
    send(
        port,
        vec![post("/reserve", "{}")],
        Manner::closed(CALLERS, LASTS),
    )
    .await
}

/// The best of the pool sizes by rate, and its size.
async fn best(way: (Way, Tables)) -> Outcome<(Answered, u32)> {
    let database = Database::create().await?;
    database.run(PEER_TABLES).await?;
    let mut best: Option<(Answered, u32)> = None;
    for connections in POOLS {
        let answered = peer(&database, way, connections).await?;
        progress(&format!(
            "{} over {connections} connections: {:.0}/s, p99 {:?}",
            name(way.0, way.1),
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
    database.remove().await?;
    best.ok_or_else(|| "no pool size".into())
}

async fn stockyard() -> Outcome<Answered> {
    let database = Database::create().await?;
    let service = Service::start(&super::world::unique("none"), &database, "api")?;
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
        vec![post("/api/reservations", &body)],
        Manner::closed(CALLERS, LASTS),
    )
    .await?;
    service.end();
    database.remove().await?;
    Ok(answered)
}

/// One way's figures over the repetitions.
#[derive(Default)]
struct Measured {
    per_second: Figures,
    p99_ms: Figures,
    /// Stockyard's rate over it.
    ratio: Figures,
    pools: Vec<String>,
}

impl Measured {
    fn push(&mut self, answered: &Answered) {
        self.per_second.push(answered.per_second);
        self.p99_ms.push(answered.p99.as_secs_f64() * 1e3);
    }

    fn row(&self, title: &str, ratio: String) -> Row {
        let (per_second, p99_ms) = (self.per_second.show(0), self.p99_ms.show(1));
        row(title, [per_second, p99_ms, ratio])
    }
}

/// Measures Stockyard and the others, each on a database of its own on one server.
pub async fn measure(repetitions: usize) -> Outcome<()> {
    let (mut ours, mut theirs) = (Measured::default(), PEERS.map(|_| Measured::default()));
    for _ in 0..repetitions {
        let we = stockyard().await?;
        progress(&format!(
            "Stockyard: {:.0}/s, p99 {:?}",
            we.per_second, we.p99
        ));
        ours.push(&we);
        for (peer, measured) in PEERS.into_iter().zip(&mut theirs) {
            let (they, pool) = best(peer).await?;
            measured.push(&they);
            measured.ratio.push(we.per_second / they.per_second);
            measured.pools.push(pool.to_string());
        }
    }
    let peers = PEERS.into_iter().zip(&theirs);
    let peer = |((way, tables), measured): ((Way, Tables), &Measured)| {
        measured.row(title(way, tables), measured.ratio.show(1))
    };
    let mut rows = vec![ours.row("Stockyard, requests combined", "1".to_owned())];
    rows.extend(peers.map(peer));
    print(
        "Reservations of one product, a million in stock, 100 callers",
        &["reservations/s", "p99, ms", "Stockyard's rate over it"],
        &rows,
    );
    let pools: Vec<String> = theirs.iter().map(|peer| peer.pools.join(", ")).collect();
    remark(&format!(
        "The others at the best of {POOLS:?} connections each: {}.",
        pools.join("; ")
    ));
    Ok(())
}
