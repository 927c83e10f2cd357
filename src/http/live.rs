//! Sockets and event streams: carries frames from a session to a client, and nothing else.
//!
//! Invariants: a connection has one task, a read buffer of 4 KiB and whatever the library keeps to write; frames are
//! taken from the session only as fast as they can be sent, so nothing waits here.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{
        FromRequestParts, Query, State, WebSocketUpgrade,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{
        IntoResponse, Response, Sse,
        sse::{self},
    },
};
use futures_util::{SinkExt, Stream, future::FutureExt, stream};
use prometheus::IntGauge;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Context,
    error::{ApiError, problem},
    input,
    inventory::{QuantityQuery, asked_stock},
    origins,
    wire::Room,
};
use crate::{
    clock::Clock,
    domain::{change::ChangeKind, commit::WantedCommit},
    inventory::Inventory,
    live::{
        filter::Filter,
        hub::Hub,
        quantity::QuantityTeller,
        session::{Dialect, Frame, Session, Step},
    },
    metrics::Metrics,
};

/// The library fills its read buffer with zeros before each read, and keeps one for each connection.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Largest frame a client may send.
const INBOUND_BYTES_MAX: usize = 4 * 1024;
/// Shortest time between two looks for more: under load, frames of several commits go out together.
const GATHER: Duration = Duration::from_millis(10);
/// After so many frames without a pause it is looked whether the client says something.
const FRAMES_PER_TURN: usize = 256;
/// A frame of more bytes is sent before the next is taken.
const LARGE_BYTES: usize = 1024;
/// Longest the closing of a connection may take when the service stops.
const STOP_CLOSE_MAX: Duration = Duration::from_secs(2);

/// Too many connections.
const TOO_MANY: u16 = 4029;
/// The client takes nothing.
const TOO_SLOW: u16 = 4008;

/// Times and bounds of live connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    pub ping_every: Duration,
    /// A client that has not answered a ping by then is closed.
    pub pong_timeout: Duration,
    /// A client that takes nothing for so long is closed.
    pub stalled_after: Duration,
    /// Longest the closing of a connection may take.
    pub close_timeout: Duration,
}

/// What live connections work with.
#[derive(Clone, Debug)]
pub struct Live {
    pub hub: Arc<Hub>,
    pub limits: Limits,
    pub allowed_origins: Vec<String>,
    pub clock: Clock,
    /// When the process stops.
    pub stop: CancellationToken,
    /// The connections, which are finished before the process ends.
    pub tasks: TaskTracker,
    pub open: Arc<AtomicUsize>,
    pub metrics: Metrics,
}

/// A place among the connections, given back when it is dropped.
struct Seat {
    open: Arc<AtomicUsize>,
    shown: IntGauge,
}

impl Live {
    fn seat(&self, kind: &str) -> Option<Seat> {
        let shown = self.metrics.live_connections.with_label_values(&[kind]);
        shown.inc();
        let seat = Seat {
            open: Arc::clone(&self.open),
            shown,
        };
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        (before < self.limits.connections_max).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.shown.dec();
    }
}

/// Every change, over a WebSocket
///
/// A snapshot, then updates and alerts, one JSON document a frame. Parameters may be repeated. A `cursor` on a frame says that
/// with this frame the client has everything up to that commit; `since` goes on from there.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "live",
    params(
        ("warehouse" = Option<String>, Query, description = "UUID or code"),
        ("product" = Option<String>, Query, description = "UUID or sku"),
        ("kind" = Option<String>, Query, description = "Of updates, only those of this update_type"),
        ("below_min" = Option<bool>, Query, description = "Only levels at or below their minimum"),
        ("since" = Option<String>, Query, description = "The last cursor received")
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "A parameter that has no meaning, or no WebSocket request", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Pages of this origin may not connect", body = super::error::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ws(
    State(context): State<Context>,
    Query(query): Query<Vec<(String, String)>>,
    visit: Visit,
) -> Result<Response, ApiError> {
    let live = visit.live(&context)?;
    let asked = Asked::parse(&context.inventory, &query).await?;
    Ok(visit.upgrade(live, &context, asked))
}

/// Changed levels and low stock, over a WebSocket, in flat words
///
/// One JSON document a frame: `inventory_update` with `inventory_id`, `product_id`, `warehouse_id`, `quantity`, `action`
/// (`created` for a key's first change, else `updated`) and `timestamp`; `low_stock_alert`. From the moment of connecting on: there
/// is no snapshot, and what happened while a client was away is not told.
#[utoipa::path(
    get,
    path = "/ws/inventory",
    tag = "live",
    params(
        ("warehouse" = Option<String>, Query, description = "UUID or code"),
        ("product" = Option<String>, Query, description = "UUID or sku")
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "A parameter that has no meaning, or no WebSocket request", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Pages of this origin may not connect", body = super::error::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ws_inventory(
    State(context): State<Context>,
    Query(mut query): Query<Vec<(String, String)>>,
    visit: Visit,
) -> Result<Response, ApiError> {
    let live = visit.live(&context)?;
    query.retain(|(name, _)| ["warehouse", "product"].contains(&name.as_str()));
    let asked = Asked {
        dialect: Dialect::Flat,
        ..Asked::parse(&context.inventory, &query).await?
    };
    Ok(visit.upgrade(live, &context, asked))
}

/// How much there is of one product, over a WebSocket
///
/// The object of `GET /stock` on connecting, on each change, and at least every 5 s.
#[utoipa::path(
    get,
    path = "/ws/stock",
    tag = "live",
    params(("product" = Option<String>, Query, description = "UUID or sku; left out: live.default_product, else the first by sku")),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "No WebSocket request", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Pages of this origin may not connect", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 404, description = "Product not found", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = super::error::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ws_stock(
    State(context): State<Context>,
    Query(query): Query<QuantityQuery>,
    visit: Visit,
) -> Result<Response, ApiError> {
    let live = visit.live(&context)?;
    let stock = asked_stock(&context, query.product.as_deref()).await?;
    let product = stock.value.product;
    let filter = Filter::new(Vec::new(), vec![product.id], Vec::new(), false);
    let asked = Asked {
        dialect: Dialect::Full,
        filter: Arc::new(filter),
        since: None,
        teller: Some(QuantityTeller::new(product.title())),
    };
    Ok(visit.upgrade(live, &context, asked))
}

/// Somebody who wants a WebSocket.
pub(super) struct Visit {
    headers: HeaderMap,
    room: Room,
    upgrade: WebSocketUpgrade,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = WebSocketUpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            headers: parts.headers.clone(),
            // A connection that is not served by this process's own loop has none.
            room: parts.extensions.get::<Room>().cloned().unwrap_or_default(),
            upgrade: WebSocketUpgrade::from_request_parts(parts, state).await?,
        })
    }
}

impl Visit {
    /// What they may connect to.
    fn live(&self, context: &Context) -> Result<Live, ApiError> {
        let live = context.live.clone().ok_or(ApiError::NotLive)?;
        check_origin(&self.headers, &live.allowed_origins)?;
        Ok(live)
    }

    fn upgrade(self, live: Live, context: &Context, asked: Asked) -> Response {
        let inventory = Arc::clone(&context.inventory);
        self.upgrade
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(INBOUND_BYTES_MAX)
            .max_frame_size(INBOUND_BYTES_MAX)
            .on_upgrade(move |socket| {
                let tasks = live.tasks.clone();
                tasks.track_future(serve(socket, self.room, live, inventory, asked))
            })
    }
}

/// Every change, as server-sent events
///
/// The frames of `/ws`; the id of an event is its cursor. Browsers go on by themselves from the last one.
#[utoipa::path(
    get,
    path = "/events",
    tag = "live",
    params(
        ("warehouse" = Option<String>, Query, description = "UUID or code"),
        ("product" = Option<String>, Query, description = "UUID or sku"),
        ("kind" = Option<String>, Query, description = "Of updates, only those of this update_type"),
        ("below_min" = Option<bool>, Query, description = "Only levels at or below their minimum"),
        ("since" = Option<String>, Query, description = "The last cursor received"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as browsers send it")
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter that has no meaning", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many connections", body = super::error::Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(
    State(context): State<Context>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let live = context.live.clone().ok_or(ApiError::NotLive)?;
    let mut asked = Asked::parse(&context.inventory, &query).await?;
    if let Some(last) = headers.get("last-event-id") {
        asked.since = last.to_str().ok().and_then(|cursor| cursor.parse().ok());
    }
    let Some(seat) = live.seat("stream") else {
        return Ok(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many live connections",
        ));
    };
    let stop = live.stop.clone();
    let reader = Reader::new(&live, Arc::clone(&context.inventory), asked);
    let frames = events_of(reader, seat, stop);
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Sse::new(frames)).into_response())
}

fn events_of(
    reader: Reader,
    seat: Seat,
    stop: CancellationToken,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(
        (reader, seat, stop),
        |(mut reader, seat, stop)| async move {
            let frame = loop {
                if let Some(frame) = reader.ready().await {
                    break frame;
                }
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = reader.wait() => {}
                }
            };
            reader.time(&frame);
            reader.count(1, frame.text.len());
            let text = str::from_utf8(&frame.text).unwrap_or_default();
            let mut event = sse::Event::default().data(text);
            if let Some(cursor) = frame.cursor {
                event = event.id(cursor.to_string());
            }
            Some((Ok(event), (reader, seat, stop)))
        },
    )
}

/// Pages say where they are from; programs do not.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(|o| origins::allows(allowed, o)) => Ok(()),
        Some(_) => Err(ApiError::Forbidden("Pages of this origin may not connect")),
    }
}

/// What a client asks for.
struct Asked {
    dialect: Dialect,
    filter: Arc<Filter>,
    since: Option<WantedCommit>,
    /// Where only a quantity is to be told.
    teller: Option<QuantityTeller>,
}

impl Asked {
    async fn parse(inventory: &Inventory, query: &[(String, String)]) -> Result<Self, ApiError> {
        if query.len() > 2 * Filter::VALUES_MAX {
            return Err(ApiError::BadRequest("There are too many parameters"));
        }
        let (mut warehouses, mut products, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        let (mut below_min, mut since) = (false, None);
        for (name, value) in query {
            match name.as_str() {
                "warehouse" => {
                    const INVALID: &str = "Invalid warehouse ID";
                    let id = input::warehouse(inventory, value, INVALID).await?;
                    warehouses.push(id.ok_or(ApiError::BadRequest(INVALID))?);
                }
                "product" => {
                    const INVALID: &str = "Invalid product ID";
                    let id = input::product(inventory, value, INVALID).await?;
                    products.push(id.ok_or(ApiError::BadRequest(INVALID))?);
                }
                "kind" => {
                    let kind: Result<ChangeKind, _> = value.parse();
                    kinds.push(kind.map_err(|_| ApiError::BadRequest("There is no such kind"))?);
                }
                "below_min" => {
                    let is = value.parse();
                    below_min =
                        is.map_err(|_| ApiError::BadRequest("below_min is true or false"))?;
                }
                // Of one that means nothing here a client is given a snapshot.
                "since" => since = value.parse().ok(),
                _ => {}
            }
        }
        if warehouses.len() > Filter::VALUES_MAX || products.len() > Filter::VALUES_MAX {
            return Err(ApiError::BadRequest("There are too many parameters"));
        }
        Ok(Self {
            dialect: Dialect::Full,
            filter: Arc::new(Filter::new(warehouses, products, kinds, below_min)),
            since,
            teller: None,
        })
    }
}

/// Takes frames from a session as they come.
struct Reader {
    session: Session,
    teller: Option<QuantityTeller>,
    hub: Arc<Hub>,
    inventory: Arc<Inventory>,
    clock: Clock,
    changed: watch::Receiver<()>,
    /// When last there was nothing.
    looked_at: Duration,
    /// When there may be something even if nothing changes.
    until: Duration,
}

impl Reader {
    fn new(live: &Live, inventory: Arc<Inventory>, asked: Asked) -> Self {
        // What is committed from here on is heard of.
        let changed = live.hub.subscribe();
        Self {
            session: live.hub.session(asked.dialect, asked.filter, asked.since),
            teller: asked.teller,
            hub: Arc::clone(&live.hub),
            inventory,
            clock: live.clock.clone(),
            changed,
            looked_at: Duration::ZERO,
            until: Duration::ZERO,
        }
    }

    /// The next frame, if there is one now.
    async fn ready(&mut self) -> Option<Frame> {
        loop {
            let now = self.clock.elapsed();
            match self.session.next(&*self.hub, now) {
                Step::Send(frame) => match &mut self.teller {
                    None => return Some(frame),
                    Some(teller) => {
                        if let Some(told) = teller.hear(&frame) {
                            return Some(told);
                        }
                    }
                },
                Step::Wait(until) => {
                    (self.looked_at, self.until) = (now, until);
                    return None;
                }
                Step::Fetch => {
                    let filter = Arc::clone(self.session.filter());
                    // Apart, because it is large and seldom under way.
                    let snapshot = Box::pin(self.hub.snapshot(&self.inventory, &filter)).await;
                    let now = self.clock.elapsed();
                    match snapshot {
                        Ok(snapshot) => self.session.give(snapshot, &*self.hub, now),
                        Err(error) => {
                            tracing::warn!(%error, "a snapshot for a live client could not be read");
                            self.session.give_none(now);
                        }
                    }
                }
            }
        }
    }

    fn time(&self, frame: &Frame) {
        if let Some(committed_at) = frame.committed_at {
            let us = self.clock.unix_micros() - committed_at.micros();
            let since = Duration::from_micros(us.max(0).unsigned_abs());
            let metrics = self.inventory.metrics();
            metrics
                .live_commit_to_frame_seconds
                .observe(since.as_secs_f64());
        }
    }

    fn count(&self, frames: usize, bytes: usize) {
        let metrics = self.inventory.metrics();
        metrics.live_frames_total.inc_by(frames as u64);
        metrics.live_bytes_total.inc_by(bytes as u64);
    }

    /// Waits until there may be more. It may be given up at any time: who goes on looks first.
    async fn wait(&mut self) {
        let now = self.clock.elapsed();
        tokio::select! {
            // The hub lives as long as this.
            _ = self.changed.changed() => {}
            () = sleep(self.until.saturating_sub(now)) => return,
        }
        let gathered = self.looked_at + GATHER;
        sleep(gathered.saturating_sub(self.clock.elapsed())).await;
    }
}

/// Why a connection ends.
enum End {
    Close(u16, &'static str),
    /// The client is gone, or ends it itself.
    Gone,
}

const STOPS: End = End::Close(close_code::AWAY, "the service stops");

async fn serve(
    mut socket: WebSocket,
    room: Room,
    live: Live,
    inventory: Arc<Inventory>,
    asked: Asked,
) {
    let Some(_seat) = live.seat("socket") else {
        return close(&mut socket, &live, TOO_MANY, "too many connections").await;
    };
    tracing::info!("a live client connected");
    let mut reader = Reader::new(&live, inventory, asked);
    match run(&mut socket, &room, &mut reader, &live).await {
        End::Gone => tracing::info!("a live client left"),
        End::Close(code, why) => {
            tracing::info!(code, why, "a live client is closed");
            room.make();
            close(&mut socket, &live, code, why).await;
        }
    }
}

async fn run(socket: &mut WebSocket, room: &Room, reader: &mut Reader, live: &Live) -> End {
    let limits = &live.limits;
    let mut ping_at = reader.clock.elapsed() + limits.ping_every;
    let mut pong_by = None;
    loop {
        let (mut frames, mut bytes, mut has_more) = (0, 0, false);
        while let Some(frame) = reader.ready().await {
            frames += 1;
            bytes += frame.text.len();
            reader.time(&frame);
            let is_large = frame.text.len() > LARGE_BYTES;
            let Ok(text) = Utf8Bytes::try_from(frame.text) else {
                return End::Close(close_code::ERROR, "a frame that is no text");
            };
            if let Some(end) = sent(live, room, socket.feed(Message::Text(text))).await {
                return end;
            }
            // The library never gives back what it once took to write: parts of a snapshot leave one by one.
            has_more = frames == FRAMES_PER_TURN || is_large;
            if has_more {
                break;
            }
        }
        if frames > 0 {
            reader.count(frames, bytes);
            if let Some(end) = sent(live, room, socket.flush()).await {
                return end;
            }
        }
        let now = reader.clock.elapsed();
        if pong_by.is_some_and(|by| now >= by) {
            return End::Close(TOO_SLOW, "no answer to a ping");
        }
        if now >= ping_at {
            ping_at = now + limits.ping_every;
            pong_by.get_or_insert(now + limits.pong_timeout);
            if let Some(end) =
                sent(live, room, socket.send(Message::Ping(bytes::Bytes::new()))).await
            {
                return end;
            }
        }
        let heard = if has_more && !live.stop.is_cancelled() {
            socket.recv().now_or_never()
        } else {
            tokio::select! {
                biased;
                () = live.stop.cancelled() => return STOPS,
                message = socket.recv() => Some(message),
                () = reader.wait() => None,
                () = sleep(ping_at.saturating_sub(now)) => None,
            }
        };
        match heard {
            None => {}
            Some(Some(Ok(Message::Close(_)) | Err(_)) | None) => return End::Gone,
            Some(Some(Ok(_))) => pong_by = None,
        }
    }
}

/// Why the connection ends, if it does: the client is gone, or took nothing for too long.
async fn sent(
    live: &Live,
    room: &Room,
    sending: impl Future<Output = Result<(), axum::Error>>,
) -> Option<End> {
    let mut sending = pin!(sending);
    let mut taken = room.taken();
    loop {
        let sent = timeout(live.limits.stalled_after, sending.as_mut());
        let sent = tokio::select! {
            sent = sent => sent,
            () = live.stop.cancelled() => return Some(STOPS),
        };
        match sent {
            Ok(Ok(())) => return None,
            Ok(Err(_)) => return Some(End::Gone),
            Err(_) if room.taken() == taken => {
                return Some(End::Close(TOO_SLOW, "it takes nothing"));
            }
            Err(_) => taken = room.taken(),
        }
    }
}

async fn close(socket: &mut WebSocket, live: &Live, code: u16, why: &'static str) {
    let closes = &live.metrics.live_closes_total;
    closes.with_label_values(&[code.to_string().as_str()]).inc();
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(why),
    };
    let said = async {
        socket.send(Message::Close(Some(frame))).await?;
        // Until the client has said so as well.
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<(), axum::Error>(())
    };
    let longest = if live.stop.is_cancelled() {
        live.limits.close_timeout.min(STOP_CLOSE_MAX)
    } else {
        live.limits.close_timeout
    };
    drop(timeout(longest, said).await);
}
