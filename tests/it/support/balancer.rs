//! A load balancer, as one stands before several processes of the service: it sends each request to one of those that say that they are
//! ready, keeps connections to them, and tries nothing twice. So whoever cannot be answered hears of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{client::conn::http1, upgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest a process may take to say whether it is ready.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Connections that were not used for so long are closed: the service does so after twice that.
const IDLE_MAX: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 16 << 20;
/// What two neighbours agree on between themselves (RFC 9110, 7.6.1), and what the next message says of itself.
const HOP_BY_HOP: [header::HeaderName; 4] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
];

struct Target {
    address: SocketAddr,
    is_ready: AtomicBool,
    requests: AtomicU64,
}

struct Targets {
    all: Vec<Target>,
    next: AtomicUsize,
    client: reqwest::Client,
    failures: Mutex<Vec<String>>,
}

impl Targets {
    fn failed(&self, why: String) -> Response {
        self.failures.lock().expect("a list").push(why.clone());
        (StatusCode::BAD_GATEWAY, why).into_response()
    }
}

pub struct Balancer {
    /// `host:port`.
    pub host: String,
    targets: Arc<Targets>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Balancer {
    /// One before these processes, which need not run yet.
    pub async fn before(addresses: &[SocketAddr]) -> Self {
        let all = addresses.iter().map(|&address| Target {
            address,
            is_ready: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        });
        let client = reqwest::Client::builder().pool_idle_timeout(IDLE_MAX);
        let targets = Arc::new(Targets {
            all: all.collect(),
            next: AtomicUsize::new(0),
            client: client.build().expect("a client"),
            failures: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let routes = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&targets));
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        let looking = tokio::spawn(look(Arc::clone(&targets)));
        Self {
            host,
            targets,
            tasks: vec![serving, looking],
        }
    }

    /// Whether this one is sent requests.
    pub fn sends_to(&self, address: SocketAddr) -> bool {
        self.target(address).is_ready.load(Ordering::Acquire)
    }

    /// How many it was sent.
    pub fn sent_to(&self, address: SocketAddr) -> u64 {
        self.target(address).requests.load(Ordering::Relaxed)
    }

    /// Why somebody was turned away, each time.
    pub fn failures(&self) -> Vec<String> {
        self.targets.failures.lock().expect("a list").clone()
    }

    fn target(&self, address: SocketAddr) -> &Target {
        let mut targets = self.targets.all.iter();
        targets
            .find(|target| target.address == address)
            .expect("a target")
    }
}

/// Asks each of them, again and again, whether it is ready.
async fn look(targets: Arc<Targets>) {
    let mut looking = JoinSet::new();
    for place in 0..targets.all.len() {
        let targets = Arc::clone(&targets);
        looking.spawn(async move {
            let target = &targets.all[place];
            let url = format!("http://{}/readyz", target.address);
            loop {
                let said = targets.client.get(&url).timeout(LOOK_MAX).send().await;
                let is_ready = said.is_ok_and(|said| said.status() == StatusCode::OK);
                target.is_ready.store(is_ready, Ordering::Release);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
    while looking.join_next().await.is_some() {}
}

async fn answer(State(targets): State<Arc<Targets>>, request: Request) -> Response {
    let ready: Vec<&Target> = targets
        .all
        .iter()
        .filter(|target| target.is_ready.load(Ordering::Acquire))
        .collect();
    if ready.is_empty() {
        return targets.failed("nobody is ready".to_owned());
    }
    let target = ready[targets.next.fetch_add(1, Ordering::Relaxed) % ready.len()];
    target.requests.fetch_add(1, Ordering::Relaxed);
    let answered = if request.headers().contains_key(header::UPGRADE) {
        carry(target.address, request).await
    } else {
        pass_on(&targets.client, target.address, request).await
    };
    answered.unwrap_or_else(|why| targets.failed(format!("{}: {why}", target.address)))
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

async fn pass_on(
    client: &reqwest::Client,
    to: SocketAddr,
    request: Request,
) -> Result<Response, String> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await;
    let passed = client
        .request(parts.method, format!("http://{to}{}", parts.uri))
        .headers(end_to_end(&parts.headers))
        .body(body.map_err(|error| error.to_string())?);
    let said = passed.send().await.map_err(|error| format!("{error:?}"))?;
    let (status, headers) = (said.status(), end_to_end(said.headers()));
    let body = said.bytes().await.map_err(|error| format!("{error:?}"))?;
    Ok((status, headers, body).into_response())
}

/// Carries a connection that is a socket from now on.
async fn carry(to: SocketAddr, mut request: Request) -> Result<Response, String> {
    let stream = TcpStream::connect(to).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let client = upgrade::on(&mut request);
    let sent = sender.send_request(request).await;
    let mut response = sent.map_err(|error| error.to_string())?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let service = upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(client), Ok(service)) = tokio::join!(client, service) {
                let (mut client, mut service) = (TokioIo::new(client), TokioIo::new(service));
                // Whoever ends it, and however, the other one sees.
                drop(copy_bidirectional(&mut client, &mut service).await);
            }
        });
    }
    Ok(response.map(Body::new))
}
