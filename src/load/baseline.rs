//! Before and after a run: what the service takes for one read while nothing else is asked of it, and its memory; and what the
//! generator itself reaches against a handler that does nothing.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    LoadError,
    client::{Call, Client},
    hosts::Hosts,
    operations::Operation,
    oracle::Key,
    outcome::{Alone, Baseline},
    run::Run,
    service,
};

/// Reads of a probe.
const READS: usize = 300;
/// Longest the service is given to come back to what it was.
const BACK_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Memory that a service may have more of and still count as back: what its allocator keeps.
const GROWN_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
/// How long the generator is measured.
const ALONE_LASTS: Duration = Duration::from_secs(1);
/// Connections beyond which it gets no faster.
const ALONE_CONNECTIONS_MAX: usize = 100;
/// A level as the service would answer it.
const BODY: &[u8] = br#"{"quantity":40,"warehouse_id":"25718666-6af6-4281-b5a6-3016e36fa557","product_id":"4705204f-498f-4f96-b4ba-df17fb56bf55","on_hand":40,"reserved":2,"available":38,"revision":17,"updated_at":"2025-02-18T12:12:56Z"}"#;

/// How the service is now; of several processes the slowest one.
pub(super) async fn probe(hosts: &Hosts, key: &Key) -> Option<Baseline> {
    let mut slowest: Option<Baseline> = None;
    for host in 0..hosts.names().len() {
        let one = probe_one(hosts, host, key).await?;
        let is_slower = slowest.is_none_or(|slowest| one.p50 > slowest.p50);
        slowest = if is_slower { Some(one) } else { slowest };
    }
    let run = Arc::new(Run::new(hosts.clone(), 0, false));
    let reading = service::read_all(&run).await;
    let resident = reading.map(|reading| reading.resident_bytes);
    slowest.map(|slowest| Baseline {
        resident_bytes: resident.filter(|bytes| *bytes > 0.0),
        ..slowest
    })
}

async fn probe_one(hosts: &Hosts, host: usize, key: &Key) -> Option<Baseline> {
    // A run of its own, so that its requests are not among those of the test.
    let run = Arc::new(Run::new(hosts.clone(), 0, false));
    let mut client = Client::new(&run, host);
    let path = format!("/api/warehouses/{}/products/{}", key.warehouse, key.product);
    for _ in 0..READS {
        let call = Call::new(Operation::GetLevel, path.clone());
        client.ask(run.clock.elapsed(), call).await;
    }
    let tally = run.figures.tally(Operation::GetLevel);
    (tally.requests() > tally.failures).then(|| Baseline {
        p50: tally.times.percentile(50.0),
        p99: tally.times.percentile(99.0),
        resident_bytes: None,
    })
}

/// How it is once it is back at what it was, or when it had its time for that.
pub(super) async fn back(
    hosts: &Hosts,
    key: &Key,
    before: Option<Baseline>,
    patience: Option<Duration>,
) -> Option<Baseline> {
    let clock = crate::clock::Clock::system();
    loop {
        let now = probe(hosts, key).await;
        let is_back = now.zip(before).is_some_and(|(now, before)| {
            let grown = now.resident_bytes.zip(before.resident_bytes);
            let is_small = grown.is_none_or(|(now, before)| now - before <= GROWN_BYTES);
            is_small && now.p50 <= before.p50 * 2
        });
        if is_back || clock.elapsed() > patience.unwrap_or(BACK_MAX) {
            return now;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The generator's own rate over so many connections, on which nobody thinks.
pub(super) async fn alone(wanted: usize) -> Result<Alone, LoadError> {
    let connections = wanted.clamp(1, ALONE_CONNECTIONS_MAX);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serving = serve(listener, stop.clone())?;
    let alone = ask(address, connections).await;
    stop.cancel();
    // It has ended, or it is of no use to wait for it.
    drop(tokio::task::spawn_blocking(move || serving.join()).await);
    Ok(alone)
}

async fn ask(address: SocketAddr, connections: usize) -> Alone {
    let run = Arc::new(Run::new(vec![address.to_string()].into(), 0, false));
    let mut asking = JoinSet::new();
    for number in 0..connections {
        let run = Arc::clone(&run);
        asking.spawn(async move {
            let mut client = Client::new(&run, number);
            while run.clock.elapsed() < ALONE_LASTS {
                let call = Call::new(Operation::GetLevel, "/");
                client.ask(run.clock.elapsed(), call).await;
            }
        });
    }
    while asking.join_next().await.is_some() {}
    let tally = run.figures.tally(Operation::GetLevel);
    #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
    let requests = (tally.requests() - tally.failures) as f64;
    Alone {
        connections,
        per_second: requests / run.clock.elapsed().as_secs_f64(),
        p99: tally.times.percentile(99.0),
    }
}

/// Answers every request with the same document, on a thread of its own.
fn serve(
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> std::io::Result<thread::JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("bare".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = accept(listener) => {}
                }
            });
        })
}

async fn accept(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        drop(stream.set_nodelay(true));
        let answer = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            // Whoever asks is told.
            drop(connection.await);
        });
    }
}
