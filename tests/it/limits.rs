//! Who asks too often, or holds too much.

use std::time::Duration;

use reqwest::Method;
use stockyard::{clock::Clock, domain::access::Scope};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::access::{key, wanted, with};
use crate::support::{Answer, Service, World, eventually, live::LiveClient};

/// Connections of one address.
const MOST: usize = 3;
/// How many of them may come at once where one may a second, and how often it is tried. Those that asked until it was ready are among them.
const BURST: u32 = 500;
const TRIES: u32 = 2_000;

/// Asks until that is too often.
async fn too_often(service: &Service, credential: &str) -> Answer {
    eventually("it is too often", async || {
        let answer = with(service, credential, Method::GET, "/api/warehouses", None).await;
        (answer.status == 429).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again_and_nobody_else_is() {
    let world = World::with(|config| {
        config.access.enabled = true;
        config.access.refresh_ms = 100;
        config.http.requests_per_second = 1;
        config.http.requests_burst = 20;
    })
    .await;
    let service = world.start().await;
    let mut keys = Vec::new();
    for name in ["eager", "patient"] {
        keys.push(key(&world, &service, wanted(name, &[Scope::Read], &[])).await);
    }
    let refused = too_often(&service, &keys[0]).await;
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("ratelimit"), "\"caller\";r=0;t=1");
    assert_eq!(refused.header("ratelimit-policy"), "\"caller\";q=20;w=20");
    let path = "/api/warehouses";
    let other = with(&service, &keys[1], Method::GET, path, None).await;
    assert_eq!(other.status, 200, "another caller at the same address");
    assert!(other.header("ratelimit").starts_with("\"caller\";r="));
    // Keys that are made up are counted by where they come from.
    eventually("it is too often", async || {
        let made_up = format!("Bearer sy_{}", uuid::Uuid::new_v4().simple());
        let answer = with(&service, &made_up, Method::GET, path, None).await;
        assert!([401, 429].contains(&answer.status.as_u16()));
        (answer.status == 429).then_some(())
    })
    .await;
    for probe in ["/livez", "/readyz", "/health"] {
        assert_eq!(
            service.get(probe).await.status,
            200,
            "{probe} is not counted"
        );
    }
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn who_goes_on_regardless_is_refused_slowly() {
    const REFUSED: usize = 10;
    let world = World::with(|config| {
        config.http.requests_per_second = 1;
        config.http.requests_burst = 1;
    })
    .await;
    let service = world.start().await;
    let address = service.address().to_owned();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let clock = Clock::system();
    let request = "GET /api/warehouses HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2 * REFUSED);
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let count = |answers: &[u8]| {
        String::from_utf8_lossy(answers)
            .matches("HTTP/1.1 429")
            .count()
    };
    while count(&answers) < REFUSED {
        let read = connection.read_buf(&mut answers).await.unwrap();
        assert!(read > 0, "it is not closed");
    }
    assert!(
        clock.elapsed() >= Duration::from_secs(1),
        "a tenth of a second each"
    );
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn one_address_holds_so_many_connections() {
    let world = World::with(|config| config.http.connections_per_address_max = MOST).await;
    let service = world.start().await;
    let address = service.address().to_owned();
    // The client that asked until it was ready may hold some of them for a while.
    let mut held = Vec::new();
    eventually("it is full", async || match answered(&address).await {
        Some(connection) => {
            held.push(connection);
            assert!(held.len() <= MOST, "more than are allowed");
            None
        }
        None => Some(()),
    })
    .await;
    assert!(!held.is_empty());
    // A socket keeps its place.
    held.clear();
    let mut sockets = Vec::new();
    eventually(
        "it is full of sockets",
        async || match LiveClient::try_connect(&service, "").await {
            Ok(socket) => {
                sockets.push(socket);
                assert!(sockets.len() <= MOST, "more than are allowed");
                None
            }
            Err(_) => (sockets.len() == MOST).then_some(()),
        },
    )
    .await;
    assert!(answered(&address).await.is_none());
    drop(sockets);
    eventually("there is room again", async || answered(&address).await).await;
    service.stop().await;
    world.database.remove().await;
}

/// A service that lets one of each address come anew a second, after a burst.
async fn one_newcomer_a_second() -> (World, Service) {
    let world = World::with(|config| {
        config.http.connections_per_second = 1;
        config.http.connections_burst = BURST;
    })
    .await;
    let service = world.start().await;
    (world, service)
}

#[tokio::test]
async fn who_connects_too_often_finds_it_closed_and_is_heard_again_later() {
    let (world, service) = one_newcomer_a_second().await;
    let address = service.address().to_owned();
    let (mut tries, mut last) = (0, None);
    while let Some(connection) = answered(&address).await {
        tries += 1;
        assert!(tries < TRIES, "nobody minds");
        last = Some(connection);
    }
    // Whoever is connected may go on.
    let mut last = last.expect("a burst may come");
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    last.write_all(ask).await.expect("a connection");
    let mut told = String::new();
    last.read_to_string(&mut told).await.expect("an answer");
    let refused = told
        .lines()
        .find_map(|line| line.strip_prefix("warehouse_http_connections_refused_total "));
    assert_ne!(refused.expect("a series"), "0");
    eventually("it is heard again", async || answered(&address).await).await;
    service.stop().await;
    world.database.remove().await;
}

/// Linux keeps a connection back until something is said over it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_that_are_reset_unsaid_count_for_nobody() {
    let (world, service) = one_newcomer_a_second().await;
    for _ in 0..TRIES {
        let connection = TcpStream::connect(service.address()).await;
        let is_reset_when_dropped = connection.expect("a connection").set_zero_linger();
        is_reset_when_dropped.expect("an option");
    }
    answered(service.address())
        .await
        .expect("there is room in the burst");
    service.stop().await;
    world.database.remove().await;
}

/// A connection on which something is answered; `None` if it is closed instead.
async fn answered(address: &str) -> Option<TcpStream> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    let asked = connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    asked.await.ok()?;
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.ok()?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    Some(connection)
}
