//! Live clients: memory of idle ones, the highest rate that a thousand get in time beside a bare broadcast over the same library,
//! and what one that stops reading does to the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{
        Path, WebSocketUpgrade,
        ws::{Message, Utf8Bytes, WebSocket},
    },
    routing::get,
    serve::ListenerExt,
};
use futures_util::SinkExt;
use stockyard::{clock::Clock, domain::Timestamp};
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

use super::{
    bare::Bare,
    crowd::Crowd,
    machine::{processor_seconds, resident_kib},
    stream::Stream,
    table::{Figures, against, as_f64, length, print, progress, remark, row},
    world::{Database, Outcome, Service, config, unique, until},
};

/// Clients of the fan-out, and idle ones.
const CLIENTS: usize = 1_000;
const IDLE: usize = 10_000;
/// Clients beside one that stops reading, and the frames a second they get.
const NEIGHBOURS: usize = 200;
const NEIGHBOURS_RATE: u64 = 500;
/// Rates that are tried, in frames a second for each client.
const RATES: [u64; 16] = [
    250, 500, 750, 1_000, 1_250, 1_500, 1_750, 2_000, 2_250, 2_500, 2_750, 3_000, 3_500, 4_000,
    5_000, 6_000,
];
/// What counts as in time, from the commit to the frame at the client.
const IN_TIME: Duration = Duration::from_millis(100);
/// The share of what is due that has to come.
const COMPLETE: f64 = 0.95;
/// How long a rate is tried, after it has run for a while.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);
/// Products that are moved, so many that one is seldom moved twice in a commit.
const PRODUCTS: u128 = 50_000;
const WAREHOUSE: Uuid = Uuid::from_u128(1);
/// Longest the service may take to close one that reads nothing: 30 s without progress, and some.
const STOPPED_FOR: Duration = Duration::from_secs(40);
/// How often it is compared.
const PAIRS: usize = 5;
/// Frames a second for clients of a second process.
const BESIDE_RATE: u64 = 100;
const BESIDE_CLIENTS: usize = 100;

/// What should be reached: of a bare broadcast, in KiB a connection, in milliseconds through another process.
const SHARE_REACH: f64 = 0.7;
const IDLE_KIB_MAX: f64 = 10.0;
const CLIENT_KIB_MAX: f64 = 80.0;
const BESIDE_MS_MAX: f64 = 250.0;

pub async fn measure(repetitions: usize, rate: Option<u64>) -> Outcome<()> {
    let rates = rate.map_or(RATES.to_vec(), |rate| vec![rate]);
    if rate.is_none() {
        idle().await?;
    }
    broadcast(repetitions, &rates).await?;
    if rate.is_none() {
        one_stops().await?;
        beside().await?;
    }
    Ok(())
}

/// A service with a database and a topic of its own.
async fn start() -> Outcome<(Database, Service)> {
    let database = Database::create().await?;
    let topic = unique("bench");
    stockyard::kafka::make_topics(&config(&topic, "none", 0)?.kafka).await?;
    let service = Service::start(&topic, &database, "all")?;
    service.ready().await?;
    Ok((database, service))
}

/// Arrivals in one warehouse.
pub fn arrivals(count: u64) -> Vec<(String, Vec<u8>)> {
    let message = |n: u64| {
        let (movement, product) = (
            Uuid::new_v4(),
            Uuid::from_u128(1 + u128::from(n) % PRODUCTS),
        );
        let value = format!(
            r#"{{"data":{{"movement_id":"{movement}","warehouse_id":"{WAREHOUSE}","product_id":"{product}","event":"arrival","timestamp":"2025-06-01T00:00:00Z","quantity":1}}}}"#
        );
        (movement.to_string(), value.into_bytes())
    };
    (0..count).map(message).collect()
}

/// What its clients listen to.
pub fn path() -> String {
    format!("/ws?warehouse={WAREHOUSE}")
}

async fn idle() -> Outcome<()> {
    let (database, service) = start().await?;
    // What the process needs once is there before the first of them is counted.
    drop(Crowd::connect(service.port, &path(), 100).await?);
    let before = resident_kib(service.id());
    let crowd = Crowd::connect(service.port, &path(), IDLE).await?;
    until("all have their snapshot", async || {
        Ok((crowd.frames() >= IDLE as u64).then_some(()))
    })
    .await?;
    let (used, clock) = (processor_seconds(service.id()), Clock::system());
    let heard = crowd.take(Duration::from_secs(10)).await;
    let each = (resident_kib(service.id()) - before) / length(IDLE);
    let share = (processor_seconds(service.id()) - used) / clock.elapsed().as_secs_f64();
    print(
        &format!("{IDLE} idle clients"),
        &["figure", "reach"],
        &[
            row(
                "memory each, KiB",
                [format!("{each:.1}"), format!("at most {IDLE_KIB_MAX}")],
            ),
            row("processors used", [format!("{share:.2}"), String::new()]),
            row(
                "frames a second each (heartbeats)",
                [
                    format!(
                        "{:.2}",
                        as_f64(heard.frames) / length(IDLE) / heard.took.as_secs_f64()
                    ),
                    String::new(),
                ],
            ),
        ],
    );
    drop(crowd);
    service.end();
    database.remove().await
}

/// The highest rate in time, of the service and of a bare broadcast, in turn.
async fn broadcast(repetitions: usize, rates: &[u64]) -> Outcome<()> {
    let (mut ours, mut bare) = (Figures::default(), Figures::default());
    let mut memory = Figures::default();
    for _ in 0..repetitions {
        let reached = serve(CLIENTS, rates).await?;
        ours.push(reached.rate);
        let up_to: Vec<u64> = rates.iter().copied().take(reached.steps).collect();
        // What the process keeps once for all is what one client costs it under the same load.
        let with_one = serve(1, &up_to).await?;
        memory.push((reached.most_kib - with_one.most_kib) / length(CLIENTS - 1));

        let server = Bare::start(&[], "--broadcast-port").await?;
        let crowd = Crowd::connect(server.port, "/ws", CLIENTS).await?;
        let best = highest(
            ("bare broadcast", server.id()),
            rates,
            &crowd,
            async |rate| {
                let url = format!("http://127.0.0.1:{}/rate/{rate}", server.port);
                Ok(tokio::spawn(async move {
                    drop(reqwest::get(&url).await);
                    tokio::time::sleep(WARM_UP + MEASURED).await;
                    drop(reqwest::get(&url.replace(&rate.to_string(), "0")).await);
                    Ok(())
                }))
            },
        )
        .await?;
        bare.push(best.rate);
    }
    print(
        &format!(
            "{CLIENTS} clients of one warehouse: the highest rate with p99 within {} ms of the commit",
            IN_TIME.as_millis()
        ),
        &["frames a second each", "of the bare one"],
        &[
            row(
                "bare broadcast over the same library",
                [bare.show(0), String::new()],
            ),
            row(
                "service",
                [ours.show(0), against(&ours.over(&bare), SHARE_REACH)],
            ),
        ],
    );
    remark(&format!(
        "Memory of the service for each client, up to that rate: {} KiB (at most {CLIENT_KIB_MAX}).",
        memory.show(1)
    ));
    Ok(())
}

/// What a crowd reached.
#[derive(Default)]
struct Best {
    /// Frames a second each.
    rate: f64,
    /// Steps of the ladder that were in time.
    steps: usize,
    /// The most memory the server had up to it.
    most_kib: f64,
}

/// So many clients of a service of their own.
async fn serve(clients: usize, rates: &[u64]) -> Outcome<Best> {
    let (database, service) = start().await?;
    let crowd = Crowd::connect(service.port, &path(), clients).await?;
    let best = highest(("service", service.id()), rates, &crowd, async |rate| {
        let duration = WARM_UP + MEASURED + Duration::from_secs(1);
        let messages = arrivals(rate * duration.as_secs());
        Ok(Stream::of(&service.config.kafka, messages, rate).start())
    })
    .await?;
    service.end();
    database.remove().await?;
    Ok(best)
}

/// The highest rate of the ladder that all clients get whole and in time.
async fn highest(
    (name, process): (&str, u32),
    rates: &[u64],
    crowd: &Crowd,
    send: impl AsyncFn(u64) -> Outcome<tokio::task::JoinHandle<Result<(), rdkafka::error::KafkaError>>>,
) -> Outcome<Best> {
    let mut best = Best::default();
    for &rate in rates {
        let sending = send(rate).await?;
        tokio::time::sleep(WARM_UP).await;
        let taken = crowd.take(MEASURED).await;
        sending.await??;
        let each = as_f64(taken.frames) / length(crowd.clients()) / taken.took.as_secs_f64();
        progress(&format!(
            "{name}: {rate}/s due, {each:.0}/s come, p99 {:?}",
            taken.p99()
        ));
        if taken.p99() > IN_TIME || each < as_f64(rate) * COMPLETE {
            break;
        }
        best = Best {
            rate: each,
            steps: best.steps + 1,
            most_kib: resident_kib(process).max(best.most_kib),
        };
    }
    Ok(best)
}

/// What a client that stops reading does to the others.
async fn one_stops() -> Outcome<()> {
    let (database, service) = start().await?;
    let (mut alone, mut beside) = (Figures::default(), Figures::default());
    let crowd = Crowd::connect(service.port, &path(), NEIGHBOURS).await?;
    let mut stopped = Vec::new();
    for _ in 0..PAIRS {
        alone.push(neighbours(&service, &crowd, MEASURED).await?);
        stopped.push(Crowd::stopped(service.port, &path()).await?);
        beside.push(neighbours(&service, &crowd, MEASURED).await?);
        // This one is closed before the next pair begins.
        neighbours(&service, &crowd, STOPPED_FOR).await?;
    }
    let limit = (alone.median() * 1.2).max(alone.median() + 2.0);
    print(
        &format!(
            "One client of {} stops reading: p99 of the others, ms ({NEIGHBOURS_RATE} frames/s each)",
            NEIGHBOURS + 1
        ),
        &["p99", "reach"],
        &[
            row("alone", [alone.show(1), String::new()]),
            row("beside it", [beside.show(1), format!("at most {limit:.1}")]),
        ],
    );
    let mut codes = Vec::new();
    for client in &mut stopped {
        codes.push(client.read_to_end().await);
    }
    remark(&format!("They were closed with {codes:?}."));
    drop(crowd);
    service.end();
    database.remove().await
}

/// The p99 of a crowd in milliseconds.
async fn neighbours(service: &Service, crowd: &Crowd, duration: Duration) -> Outcome<f64> {
    let messages = arrivals(NEIGHBOURS_RATE * (WARM_UP + duration).as_secs());
    let sending = Stream::of(&service.config.kafka, messages, NEIGHBOURS_RATE).start();
    tokio::time::sleep(WARM_UP).await;
    let taken = crowd.take(duration).await;
    sending.await??;
    Ok(taken.p99().as_secs_f64() * 1e3)
}

/// Through a process that another one's commits reach.
async fn beside() -> Outcome<()> {
    let (database, service) = start().await?;
    let mut rows = Vec::new();
    for redis in [true, false] {
        let other =
            service.beside_with("api", &[("STOCKYARD__REDIS__ENABLED", &redis.to_string())])?;
        other.ready().await?;
        let crowd = Crowd::connect(other.port, &path(), BESIDE_CLIENTS).await?;
        let messages = arrivals(BESIDE_RATE * (WARM_UP + MEASURED).as_secs());
        let sending = Stream::of(&service.config.kafka, messages, BESIDE_RATE).start();
        tokio::time::sleep(WARM_UP).await;
        let taken = crowd.take(MEASURED).await;
        sending.await??;
        let name = if redis { "with Redis" } else { "without Redis" };
        let p99 = taken.p99().as_secs_f64() * 1e3;
        rows.push(row(
            name,
            [format!("{p99:.1}"), format!("at most {BESIDE_MS_MAX}")],
        ));
        other.end();
    }
    print(
        "From a commit to the sockets of another process: p99, ms",
        &["p99", "reach"],
        &rows,
    );
    service.end();
    database.remove().await
}

/// Frames a client may be behind before it misses some.
const BROADCAST_FRAMES: usize = 65_536;
/// What the library reads with: its default is filled with zeros before each read.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the bare broadcast's process runs: everybody gets every frame as it is made.
pub async fn serve_broadcast(port: u16) -> Outcome<()> {
    let rate = Arc::new(AtomicU64::new(0));
    let (frames, _) = broadcast::channel::<Utf8Bytes>(BROADCAST_FRAMES);
    tokio::spawn(make_frames(Arc::clone(&rate), frames.clone()));
    let routes = Router::new()
        .route(
            "/ws",
            get(move |upgrade: WebSocketUpgrade| {
                let frames = frames.subscribe();
                let upgrade = upgrade.read_buffer_size(READ_BUFFER_BYTES);
                async move { upgrade.on_upgrade(move |socket| pass_on(socket, frames)) }
            }),
        )
        .route(
            "/rate/{rate}",
            get(move |Path(wanted): Path<u64>| {
                rate.store(wanted, Ordering::Relaxed);
                async {}
            }),
        );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    // As the service does: a frame does not wait for the one before to be acknowledged.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, routes).await?)
}

/// Frames as large as the service's, at the rate that was last asked for.
async fn make_frames(rate: Arc<AtomicU64>, frames: broadcast::Sender<Utf8Bytes>) {
    let clock = Clock::system();
    let (mut due, mut last) = (0.0, clock.elapsed());
    let product = Uuid::from_u128(1);
    let mut version = 0_u64;
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = clock.elapsed();
        due += as_f64(rate.load(Ordering::Relaxed)) * now.saturating_sub(last).as_secs_f64();
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            version += 1;
            let timestamp = Timestamp::from_micros(clock.unix_micros());
            let frame = format!(
                r#"{{"type":"update","version":{version},"cursor":"{version}-5f3a9c01","data":{{"product_id":"{product}","warehouse":"{WAREHOUSE}","warehouse_id":"{WAREHOUSE}","quantity":145,"on_hand":145,"reserved":0,"available_stock":145,"change":1,"update_type":"arrival","revision":18,"timestamp":"{timestamp}"}}}}"#
            );
            drop(frames.send(Utf8Bytes::from(frame)));
        }
    }
}

async fn pass_on(mut socket: WebSocket, mut frames: broadcast::Receiver<Utf8Bytes>) {
    loop {
        match frames.recv().await {
            Ok(frame) => {
                if socket.feed(Message::Text(frame)).await.is_err() {
                    return;
                }
                while let Ok(frame) = frames.try_recv() {
                    if socket.feed(Message::Text(frame)).await.is_err() {
                        return;
                    }
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
