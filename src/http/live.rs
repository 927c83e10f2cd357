//! Sockets and event streams: carries frames from a session to a client, and nothing else.
//!
//! Invariants: a connection has one task and a read buffer of 4 KiB; frames are taken from the session only as fast as they can be
//! sent, so nothing waits here but what is under way, which those who are told the same have in common.

use std::{
    convert::Infallible,
    future::pending,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Query, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{
        IntoResponse, Response, Sse,
        sse::{self},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, future::FutureExt, stream};
use prometheus::IntGauge;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Error as SendError, Message, Utf8Bytes, protocol::CloseFrame,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Context,
    error::{ApiError, Cause, unavailable},
    guard::{NOT_YOURS, Sender},
    input,
    inventory::{QuantityQuery, asked_stock},
    origins,
    socket::{Handshake, Socket, encode},
    wire::Room,
};
use crate::{
    clock::Clock,
    domain::{
        CommitPoint, Timestamp, Version, access::Reach, change::ChangeKind, commit::WantedCommit,
    },
    inventory::Inventory,
    live::{
        filter::Filter,
        hub::{Hub, Listener},
        quantity::QuantityTeller,
        retry,
        session::{Dialect, Frame, Session, Step},
        snapshot::Snapshot,
        stretch::Stretch,
    },
    metrics::Metrics,
    store::StoreError,
};

/// So many bytes are sent at once, and then it is looked whether the client says something.
const TURN_BYTES: usize = 16 * 1024;
/// Longest the closing of a connection may take when the service stops, or the client leaves.
const STOP_CLOSE_MAX: Duration = Duration::from_secs(2);

/// Messages of a client within so long. It has nothing to say but that it is there; some say so once a second.
const HEARD_MAX: u32 = 100;
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// The service stops (RFC 6455, 7.4.1).
const AWAY: u16 = 1001;
/// The client says too much.
const TOO_LOUD: u16 = 1008;
/// Who listens has to prove anew who they are.
const NOT_AUTHORISED: u16 = 4001;
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
#[derive(Debug)]
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
    /// How many there were when the process stopped.
    pub leaving: OnceLock<usize>,
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

    /// When one of those that a stop sends away is to come back.
    fn retry_after(&self) -> Duration {
        let open = || self.open.load(Ordering::Acquire);
        retry::after(*self.leaving.get_or_init(open), rand::random())
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
    let asked = Asked::parse(&context.inventory, &query, &visit.sender).await?;
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
        ..Asked::parse(&context.inventory, &query, &visit.sender).await?
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
        filter,
        since: None,
        teller: Some(QuantityTeller::new(product.title())),
    };
    Ok(visit.upgrade(live, &context, asked))
}

/// Somebody who wants a WebSocket.
pub(super) struct Visit {
    origin: Option<HeaderValue>,
    sender: Sender,
    room: Room,
    handshake: Handshake,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(sender) = Sender::from_request_parts(parts, state).await;
        Ok(Self {
            origin: parts.headers.get(header::ORIGIN).cloned(),
            sender,
            // A connection that is not served by this process's own loop has none.
            room: parts.extensions.get::<Room>().cloned().unwrap_or_default(),
            handshake: Handshake::from_request_parts(parts, state).await?,
        })
    }
}

impl Visit {
    /// What they may connect to.
    fn live(&self, context: &Context) -> Result<Arc<Live>, ApiError> {
        let live = context.live.clone().ok_or(ApiError::NotLive)?;
        check_origin(self.origin.as_ref(), &live.allowed_origins)?;
        Ok(live)
    }

    fn upgrade(self, live: Arc<Live>, context: &Context, asked: Asked) -> Response {
        let (inventory, room) = (Arc::clone(&context.inventory), self.room);
        let over = over(&self.sender, &live.clock);
        let (response, socket) = self.handshake.accept();
        // Before the answer: what is committed once the client has it is heard.
        let mut reader = Reader::new(&live, inventory, asked);
        let tasks = live.tasks.clone();
        // Lent and not given: a task keeps room for whatever is moved within it, twice.
        tasks.spawn(async move {
            if let Some(mut socket) = socket.await {
                serve(&mut socket, &room, &live, &mut reader, over).await;
            }
        });
        response
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
    sender: Sender,
) -> Result<Response, ApiError> {
    let live = context.live.clone().ok_or(ApiError::NotLive)?;
    let mut asked = Asked::parse(&context.inventory, &query, &sender).await?;
    if let Some(last) = headers.get("last-event-id") {
        asked.since = last.to_str().ok().and_then(|cursor| cursor.parse().ok());
    }
    let Some(seat) = live.seat("stream") else {
        return Ok(unavailable(
            Cause("connections"),
            "Too many live connections",
        ));
    };
    let reader = Reader::new(&live, Arc::clone(&context.inventory), asked);
    let over = over(&sender, &live.clock);
    let frames = events_of(reader, seat, live, over);
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Sse::new(frames)).into_response())
}

fn events_of(
    reader: Reader,
    seat: Seat,
    live: Arc<Live>,
    over: Over,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(Some((reader, seat, live, over)), |listening| async move {
        let (mut reader, seat, live, mut over) = listening?;
        let frame = tokio::select! {
            biased;
            () = live.stop.cancelled() => {
                let last = sse::Event::default().retry(live.retry_after());
                return Some((Ok(last), None));
            }
            () = over.as_mut() => return None,
            frame = reader.wait_for_frame() => frame,
        };
        reader.count(1, frame.text.len(), frame.committed_at);
        if let Some(to) = frame.cursor {
            reader.told(to, frame.committed_at.is_some());
        }
        let text = str::from_utf8(&frame.text).unwrap_or_default();
        let mut event = sse::Event::default().data(text);
        if let Some(cursor) = frame.cursor {
            event = event.id(cursor.to_string());
        }
        Some((Ok(event), Some((reader, seat, live, over))))
    })
}

/// Pages say where they are from; programs do not.
fn check_origin(origin: Option<&HeaderValue>, allowed: &[String]) -> Result<(), ApiError> {
    match origin {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(|o| origins::allows(allowed, o)) => Ok(()),
        Some(_) => Err(ApiError::Forbidden("Pages of this origin may not connect")),
    }
}

/// What a client asks for.
struct Asked {
    dialect: Dialect,
    filter: Filter,
    since: Option<WantedCommit>,
    /// Where only a quantity is to be told.
    teller: Option<QuantityTeller>,
}

impl Asked {
    async fn parse(
        inventory: &Inventory,
        query: &[(String, String)],
        sender: &Sender,
    ) -> Result<Self, ApiError> {
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
        let mut filter = Filter::new(warehouses, products, kinds, below_min);
        if let Reach::Only(theirs) = sender.reach() {
            filter = filter
                .confined_to(theirs)
                .ok_or(ApiError::Forbidden(NOT_YOURS))?;
        }
        Ok(Self {
            dialect: Dialect::Full,
            filter,
            since,
            teller: None,
        })
    }
}

/// Takes frames from a session as they come.
struct Reader {
    session: Session,
    teller: Option<QuantityTeller>,
    listener: Listener,
    inventory: Arc<Inventory>,
    clock: Clock,
    /// A snapshot that is being read for it.
    fetching: Option<JoinHandle<Result<Arc<Snapshot>, Arc<StoreError>>>>,
    /// Up to where the client has been told.
    told_to: Option<Version>,
    /// When there was last looked.
    now: Duration,
    /// When there may be something even if nothing changes.
    until: Duration,
}

/// What a reader has now.
enum Next {
    Frame(Frame),
    Nothing,
    /// A snapshot is to be fetched first.
    Fetch,
}

impl Reader {
    fn new(live: &Live, inventory: Arc<Inventory>, asked: Asked) -> Self {
        let (session, listener) = live.hub.listen(asked.dialect, asked.filter, asked.since);
        Self {
            told_to: session.stands().map(|(_, at)| at.version),
            session,
            teller: asked.teller,
            listener,
            inventory,
            clock: live.clock.clone(),
            fetching: None,
            now: Duration::ZERO,
            until: Duration::ZERO,
        }
    }

    /// What all who stand where this client does are told, which it is taken to be told now.
    fn stretch(&mut self) -> Option<Arc<Stretch>> {
        if self.teller.is_some() {
            return None;
        }
        let stretch = self.listener.hub().stretch(&self.session)?;
        self.session.was_told(&stretch, self.now);
        self.until = self.session.heartbeat_at();
        Some(stretch)
    }

    /// Begins to look: what time it is, is asked once for many frames.
    fn look(&mut self) {
        self.now = self.clock.elapsed();
        self.session.pass(self.listener.quiet());
    }

    fn next(&mut self) -> Next {
        loop {
            match self.session.next(&**self.listener.hub(), self.now) {
                Step::Send(frame) => match &mut self.teller {
                    None => return Next::Frame(frame),
                    Some(teller) => {
                        if let Some(told) = teller.hear(&frame) {
                            return Next::Frame(told);
                        }
                    }
                },
                Step::Wait(until) => {
                    self.until = until;
                    return Next::Nothing;
                }
                Step::Fetch => return Next::Fetch,
            }
        }
    }

    /// Waits for the snapshot that is read. It may be given up: the reading goes on, and is waited for the next time.
    async fn fetch(&mut self) {
        let reading = self.fetching.get_or_insert_with(|| {
            let (hub, inventory) = (Arc::clone(self.listener.hub()), Arc::clone(&self.inventory));
            let filter = Arc::clone(self.session.filter());
            tokio::spawn(async move { hub.snapshot(&inventory, &filter).await })
        });
        let snapshot = reading.await;
        self.fetching = None;
        let now = self.clock.elapsed();
        match snapshot {
            Ok(Ok(snapshot)) => return self.session.give(snapshot, &**self.listener.hub(), now),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a snapshot for a live client could not be read");
            }
            Err(error) => tracing::error!(%error, "a snapshot for a live client was not read"),
        }
        self.session.give_none(now);
    }

    /// The client was brought to that commit, by frames of it or by a snapshot.
    fn told(&mut self, to: CommitPoint, is_of_commits: bool) {
        let from = self.told_to.replace(to.version);
        if let Some(from) = from.filter(|_| is_of_commits) {
            self.listener.hub().told(from, to.version);
        }
    }

    /// Counts what was handed over at once; the oldest of it is timed.
    fn count(&mut self, frames: usize, bytes: usize, oldest: Option<Timestamp>) {
        let conflations = self.session.take_conflations();
        let metrics = self.inventory.metrics();
        metrics.live_conflations_total.inc_by(conflations);
        metrics.live_frames_total.inc_by(frames as u64);
        metrics.live_bytes_total.inc_by(bytes as u64);
        if let Some(committed_at) = oldest {
            let us = self.clock.unix_micros() - committed_at.micros();
            let since = Duration::from_micros(us.max(0).unsigned_abs());
            metrics
                .live_commit_to_frame_seconds
                .observe(since.as_secs_f64());
        }
    }

    /// Until a turn may bring more than the last one did. It may be given up at any time.
    async fn wait_for_more(&mut self, rest: Rest) {
        match rest {
            Rest::More => {}
            Rest::Fetch => self.fetch().await,
            Rest::Nothing => self.listener.called().await,
        }
    }

    /// The next frame. It may be given up at any time: who goes on looks first.
    async fn wait_for_frame(&mut self) -> Frame {
        loop {
            self.look();
            match self.next() {
                Next::Frame(frame) => return frame,
                Next::Fetch => self.fetch().await,
                Next::Nothing => {
                    let wait = self.until.saturating_sub(self.clock.elapsed());
                    drop(timeout(wait, self.listener.called()).await);
                }
            }
        }
    }
}

/// Why a connection ends.
enum End {
    Close(u16, &'static str),
    /// The client ends it.
    Left,
    Gone,
}

const STOPS: End = End::Close(AWAY, "the service stops");
const REVOKED: End = End::Close(NOT_AUTHORISED, "the key or token is no more");

/// Comes once the listener has to prove anew who they are.
type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

fn over(sender: &Sender, clock: &Clock) -> Over {
    match sender.caller() {
        // This one takes no memory.
        None => Box::pin(pending()),
        Some(caller) => Box::pin(caller.clone().ends(clock.clone())),
    }
}

async fn serve(socket: &mut Socket, room: &Room, live: &Live, reader: &mut Reader, mut over: Over) {
    let Some(_seat) = live.seat("socket") else {
        // Apart, as what is seldom: a connection is as large as the largest of what it may do.
        return Box::pin(close(socket, live, TOO_MANY, "too many connections")).await;
    };
    tracing::info!("a live client connected");
    match run(socket, room, reader, live, &mut over).await {
        End::Gone => tracing::info!("a live client is gone"),
        End::Left => {
            tracing::info!("a live client left");
            drop(Box::pin(timeout(STOP_CLOSE_MAX, socket.say_goodbye())).await);
        }
        End::Close(code, why) => {
            tracing::info!(code, why, "a live client is closed");
            room.make();
            Box::pin(close(socket, live, code, why)).await;
        }
    }
}

async fn run(
    socket: &mut Socket,
    room: &Room,
    reader: &mut Reader,
    live: &Live,
    over: &mut Over,
) -> End {
    let mut stopped = pin!(live.stop.cancelled());
    let mut pings = Pings::new(&live.limits, reader.clock.elapsed());
    let mut heard_often = Heard::default();
    // Armed for the earliest of what has its time. Most of that only ever gets later, so it is not set anew at each turn: it
    // goes off too early at times, and then it is seen when the next is due.
    let mut alarm = pin!(sleep(live.limits.ping_every));
    loop {
        let rest = match sent(live, room, over, send_turn(socket, reader)).await {
            Ok(rest) => rest,
            Err(end) => return end,
        };
        if alarm.is_elapsed() || rest == Rest::Nothing {
            let now = reader.clock.elapsed();
            match pings.at(now) {
                Ping::Due => {
                    if let Err(end) = Box::pin(sent(live, room, over, socket.ping())).await {
                        return end;
                    }
                }
                Ping::Unanswered => return End::Close(TOO_SLOW, "no answer to a ping"),
                Ping::NotYet => {}
            }
            let next = match rest {
                Rest::Nothing => pings.next().min(reader.until),
                Rest::More | Rest::Fetch => pings.next(),
            };
            let due = Instant::now() + next.saturating_sub(now);
            if alarm.is_elapsed() || due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
        }
        let heard = tokio::select! {
            biased;
            () = &mut stopped => return STOPS,
            () = over.as_mut() => return REVOKED,
            message = socket.recv() => Some(message),
            () = reader.wait_for_more(rest) => None,
            () = &mut alarm => None,
        };
        match heard {
            None => {}
            Some(Some(Message::Close(_))) => return End::Left,
            Some(None) => return End::Gone,
            Some(Some(_)) => {
                pings.answered();
                if heard_often.is_too_often(reader.clock.elapsed()) {
                    return End::Close(TOO_LOUD, "too many messages");
                }
            }
        }
    }
}

/// Why a turn is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There is more to send.
    More,
    Nothing,
    /// A snapshot is to be fetched first.
    Fetch,
}

/// Sends what there is, up to a bound.
async fn send_turn(socket: &mut Socket, reader: &mut Reader) -> Result<Rest, SendError> {
    reader.look();
    if let Some(stretch) = reader.stretch()
        && !stretch.texts.is_empty()
    {
        socket.write(stretch.encoded(encode_all)).await?;
        reader.count(stretch.texts.len(), stretch.bytes, stretch.oldest);
        reader.told_to = Some(stretch.from.version);
        reader.told(stretch.to, true);
        return Ok(if stretch.is_full {
            Rest::More
        } else {
            Rest::Nothing
        });
    }
    let (mut texts, mut bytes, mut oldest, mut to) = (Vec::new(), 0, None, None);
    let rest = loop {
        match reader.next() {
            Next::Frame(frame) => {
                bytes += frame.text.len();
                oldest = oldest.or(frame.committed_at);
                to = frame.cursor.or(to);
                texts.push(frame.text);
                if bytes >= TURN_BYTES {
                    break Rest::More;
                }
            }
            Next::Nothing => break Rest::Nothing,
            Next::Fetch => break Rest::Fetch,
        }
    };
    if !texts.is_empty() {
        socket.write(encode_all(&texts)).await?;
        reader.count(texts.len(), bytes, oldest);
        if let Some(to) = to {
            reader.told(to, oldest.is_some());
        }
    }
    Ok(rest)
}

fn encode_all(texts: &[Bytes]) -> Bytes {
    let mut frames = BytesMut::new();
    for text in texts {
        encode(text, &mut frames);
    }
    frames.freeze()
}

/// When a client is to be pinged, and when it has to have answered.
struct Pings {
    every: Duration,
    timeout: Duration,
    ping_at: Duration,
    pong_by: Option<Duration>,
}

enum Ping {
    Due,
    Unanswered,
    NotYet,
}

impl Pings {
    fn new(limits: &Limits, now: Duration) -> Self {
        Self {
            every: limits.ping_every,
            timeout: limits.pong_timeout,
            ping_at: now + limits.ping_every,
            pong_by: None,
        }
    }

    fn at(&mut self, now: Duration) -> Ping {
        if self.pong_by.is_some_and(|by| now >= by) {
            return Ping::Unanswered;
        }
        if now < self.ping_at {
            return Ping::NotYet;
        }
        self.ping_at = now + self.every;
        self.pong_by.get_or_insert(now + self.timeout);
        Ping::Due
    }

    /// When there is something to do next.
    fn next(&self) -> Duration {
        self.pong_by.map_or(self.ping_at, |by| by.min(self.ping_at))
    }

    /// The client said something.
    fn answered(&mut self) {
        self.pong_by = None;
    }
}

/// How often a client said something of late.
#[derive(Default)]
struct Heard {
    since: Duration,
    times: u32,
}

impl Heard {
    /// Counts one more.
    fn is_too_often(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) > HEARD_WITHIN {
            (self.since, self.times) = (now, 0);
        }
        self.times += 1;
        self.times > HEARD_MAX
    }
}

/// What came of sending, or why the connection ends: the client is gone, or took nothing for too long.
async fn sent<T>(
    live: &Live,
    room: &Room,
    over: &mut Over,
    sending: impl Future<Output = Result<T, SendError>>,
) -> Result<T, End> {
    let mut sending = pin!(sending);
    // Most often all of it is sent at once, and no time has to be kept.
    if let Some(sent) = sending.as_mut().now_or_never() {
        return sent.map_err(|_| End::Gone);
    }
    let mut taken = room.taken();
    loop {
        let sent = timeout(live.limits.stalled_after, sending.as_mut());
        let sent = tokio::select! {
            sent = sent => sent,
            () = live.stop.cancelled() => return Err(STOPS),
            () = over.as_mut() => return Err(REVOKED),
        };
        match sent {
            Ok(Ok(sent)) => return Ok(sent),
            Ok(Err(_)) => return Err(End::Gone),
            Err(_) if room.taken() == taken => {
                return Err(End::Close(TOO_SLOW, "it takes nothing"));
            }
            Err(_) => taken = room.taken(),
        }
    }
}

async fn close(socket: &mut Socket, live: &Live, code: u16, why: &'static str) {
    let closes = &live.metrics.live_closes_total;
    closes.with_label_values(&[code.to_string().as_str()]).inc();
    let reason = if code == AWAY {
        retry::reason(live.retry_after()).into()
    } else {
        Utf8Bytes::from_static(why)
    };
    let frame = CloseFrame {
        code: code.into(),
        reason,
    };
    let longest = if live.stop.is_cancelled() {
        live.limits.close_timeout.min(STOP_CLOSE_MAX)
    } else {
        live.limits.close_timeout
    };
    drop(timeout(longest, socket.close(frame)).await);
}
