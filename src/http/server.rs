//! Listens, accepts and serves. The caller owns the sockets and the stop signal.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, ready},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use futures_util::future::join_all;
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    rates::{Newcomers, Peer, Rate, network},
    wire::{Line, Room, Way, Wire},
};
use crate::{clock::Clock, metrics::Metrics, tls::Identity};

/// Bounds of serving.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// How often one address may connect, and by which clock; `None`: as often as it likes.
    pub newcomers: Option<(Rate, Clock)>,
    /// Most connections of one address; 0: as many as all.
    pub connections_per_address_max: usize,
    /// Whether requests are told where they come from.
    pub tells_peers: bool,
    /// A client that has not sent its headers by then is closed, and before that one that has not finished its TLS handshake.
    pub header_timeout: Duration,
    /// How long open requests may take to finish at a stop.
    pub drain_timeout: Duration,
}

/// Connections that the kernel holds until they are accepted (it may allow less): of those beyond, each client waits a second
/// before it tries again. As many more are kept back at most; beyond that SYN cookies let others in, which are not kept back.
const BACKLOG: u32 = 4_096;
/// Largest head of a request that is read, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {error}; another address can be given as http.listen (STOCKYARD__HTTP__LISTEN) or http.admin_listen"
)]
pub struct ServerError {
    address: SocketAddr,
    error: std::io::Error,
}

/// Opens the sockets.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServerError> {
    let listen =
        |&address: &SocketAddr| listen(address).map_err(|error| ServerError { address, error });
    addresses.iter().map(listen).collect()
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Has the kernel keep connections back until their client says something or closes them, or `SILENT_SECONDS` have passed (tcp(7),
/// `TCP_DEFER_ACCEPT`; Linux alone has it): of one that is reset before, the process never hears.
#[cfg(target_os = "linux")]
mod silence {
    use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
    use tokio::net::TcpListener;

    const SILENT_SECONDS: i32 = 1;

    sockopt_impl!(
        DeferAccept,
        SetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        i32
    );

    pub(super) fn keep_back(listener: &TcpListener) {
        if let Err(error) = setsockopt(listener, DeferAccept, &SILENT_SECONDS) {
            tracing::warn!(%error, "connections are accepted before anything is said over them");
        }
    }
}

/// How a process goes, step by step.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// It is not ready any more, so that nobody new is sent to it. What comes is answered, and its connection closed.
    pub leaves: CancellationToken,
    /// Nothing new is taken. What is under way is finished.
    pub stops: CancellationToken,
}

/// Serves on all sockets until told to stop, and then until open requests are answered or their time is over. With an identity it is
/// HTTPS, and nothing else.
pub async fn run(
    listeners: Vec<TcpListener>,
    identity: Option<Identity>,
    routes: Router,
    limits: Limits,
    metrics: Metrics,
    leave: Leave,
) {
    #[cfg(target_os = "linux")]
    listeners.iter().for_each(silence::keep_back);
    let open = TaskTracker::new();
    let acceptor = Acceptor {
        identity,
        routes,
        permits: Arc::new(Semaphore::new(limits.connections_max)),
        newcomers: limits
            .newcomers
            .clone()
            .map(|(rate, clock)| Newcomers::new(rate, clock)),
        addresses: Addresses::default(),
        metrics,
        limits,
        open: open.clone(),
        leave: leave.clone(),
    };
    let accepting = join_all(listeners.iter().map(|listener| acceptor.accept(listener)));
    tokio::select! {
        () = leave.stops.cancelled() => {}
        _ = accepting => {}
    }
    drop(listeners);
    open.close();
    drop(timeout(acceptor.limits.drain_timeout, open.wait()).await);
}

/// How many connections each network has.
#[derive(Clone, Debug, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place among those of its network, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// `None` if the address has so many.
    fn place(&self, address: IpAddr, most: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = self.addresses.0.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What every connection is served with.
struct Acceptor {
    identity: Option<Identity>,
    routes: Router,
    limits: Limits,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    newcomers: Option<Newcomers>,
    addresses: Addresses,
    open: TaskTracker,
    leave: Leave,
}

impl Acceptor {
    async fn accept(&self, listener: &TcpListener) {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let address = peer.ip().to_canonical();
                    if let Some(place) = self.place(address) {
                        self.serve(stream, address, place, permit);
                    } else {
                        self.refuse(&stream);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// `None` if the address has too many connections, or came too often.
    fn place(&self, address: IpAddr) -> Option<Place> {
        let is_early = |newcomers: &Newcomers| !newcomers.may_come(address);
        if self.newcomers.as_ref().is_some_and(is_early) {
            return None;
        }
        let most = self.limits.connections_per_address_max;
        self.addresses.place(network(address), most)
    }

    /// The client finds it closed, and nobody else notices: nothing of it is kept, in the kernel neither.
    fn refuse(&self, stream: &TcpStream) {
        drop(stream.set_zero_linger());
        self.metrics.http_connections_refused_total.inc();
    }

    fn serve(
        &self,
        stream: TcpStream,
        address: IpAddr,
        place: Place,
        permit: OwnedSemaphorePermit,
    ) {
        let peer = self.limits.tells_peers.then_some(Peer(address));
        let (room, routes) = (Room::default(), self.routes.clone());
        let way = self.way(Line::new(stream, room.clone()));
        let Leave { leaves, stops } = self.leave.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            if request.headers().contains_key(header::UPGRADE) {
                request.extensions_mut().insert(room.clone());
            }
            let (answer, leaves) = (routes.clone().oneshot(request), leaves.clone());
            async move {
                let mut response = answer.await?;
                if leaves.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let open = self.metrics.http_connections.clone();
        self.open.spawn(async move {
            open.inc();
            // Nothing is under way before it is there; one that needs no handshake is.
            let way = tokio::select! {
                biased;
                way = way => way,
                () = stops.cancelled() => None,
            };
            if let Some(way) = way {
                let io = TokioIo::new(Wire::new(way, place));
                let mut connection = pin!(builder.serve_connection(io, answer).with_upgrades());
                let result = tokio::select! {
                    result = connection.as_mut() => result,
                    () = stops.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            open.dec();
            drop(permit);
        });
    }

    /// The connection as it is, or after its handshake; `None` if there was none in time.
    fn way(&self, line: Line) -> impl Future<Output = Option<Way>> + Send + use<> {
        let Some(identity) = &self.identity else {
            return Either::Left(ready(Some(Either::Left(line))));
        };
        let (acceptor, longest) = (identity.acceptor(), self.limits.header_timeout);
        // Apart: every connection of the other kind would be as large.
        Either::Right(Box::pin(async move {
            match timeout(longest, acceptor.accept(line)).await {
                Ok(Ok(stream)) => Some(Either::Right(Box::new(stream))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!("a TLS handshake took too long");
                    None
                }
            }
        }))
    }
}
