//! Puts the parts together from the configuration, starts a role, and stops it in order.

use std::{
    future::Future,
    io,
    net::IpAddr,
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::select_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Access, TokenSettings},
    cache::{
        Cache, CacheError, CacheSettings, RedisSettings,
        rule::{Conditions, Rule},
    },
    clock::{Beat, Clock},
    config::{Config, ConfigError, millis},
    demo::{self, DemoError, Loaded},
    domain::catalogue::Code,
    http::{self, Door, Leave, Rate, ServerError, live::Live},
    ingest::{Ingest, IngestError, Status},
    inventory::{
        self, Inventory,
        decide::Decider,
        feed::{Audience, Nobody},
        follow::{FollowSettings, Follower},
    },
    kafka,
    live::{
        hub::{Hub, LiveSettings},
        pushes::Pushes,
    },
    metrics::Metrics,
    store::{Store, StoreError, StoreSettings, ranges::CHECKPOINT_ROWS},
    tls::{self, Files, Identity, TlsError},
    traces::{self, Traces, TracesError},
};

/// What ends a command before its time.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("redis settings: {0}")]
    Redis(#[from] CacheError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("access.tokens: {0}")]
    Access(reqwest::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error("signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("{0}")]
    Unhealthy(String),
}

/// Which parts a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub answers: bool,
    pub ingests: bool,
}

/// How often room in the ledger is looked after: a partition may grow beyond its bound for as long, and is scanned for as long after.
const LEDGER_ROOM_INTERVAL: Duration = Duration::from_secs(10);
/// Longest ingest may take to end once told to, longest it takes until everything has ended, and the pools' share after that: 10 s in
/// all. Who stops the process waits for 15.
const INGEST_STOP_MAX: Duration = Duration::from_secs(5);
const STOP_MAX: Duration = Duration::from_secs(9);
const POOLS_STOP_MAX: Duration = Duration::from_secs(1);
/// Most connections at the addresses for those who run the service: nobody's load keeps Prometheus out.
const ADMIN_CONNECTIONS_MAX: usize = 100;
/// Files, and connections to the servers and for those who run the service, that a process has open beside its clients' connections.
const OTHER_FILES: usize = 256;
/// Longest a health check waits for its answer.
const HEALTHCHECK_MAX: Duration = Duration::from_secs(10);
/// Longest `verify` waits for a connection.
const VERIFY_ACQUIRE_MAX: Duration = Duration::from_secs(5);

/// Longest one slice of `verify` may take; they are made to be far shorter.
const VERIFY_STATEMENT_MAX: Duration = Duration::from_mins(1);

/// The inventory of a process and its follower, over the servers of the configuration.
pub fn inventory(
    config: &Config,
    clock: &Clock,
    metrics: Metrics,
    conditions: Conditions,
    audience: Arc<dyn Audience>,
    traces: Traces,
) -> Result<(Arc<Inventory>, Follower, Decider), AppError> {
    let store = Store::new(&store_settings(config))?;
    let rule = Arc::new(Rule::new(clock.clone(), conditions));
    let settings = CacheSettings {
        memory_bytes_max: config.cache.memory_bytes_max,
        memory_ttl: Duration::from_secs(config.cache.memory_ttl_seconds),
        entry_bytes_max: config.cache.entry_bytes_max,
        redis: config.redis.enabled.then(|| RedisSettings {
            url: config.redis.url.clone(),
            password: config.redis.password.clone(),
            ca_certificate: config.redis.ca_certificate.clone(),
            prefix: config.redis.prefix.clone(),
            timeout: millis(config.redis.timeout_ms),
            retry_after: millis(config.redis.retry_after_ms),
            ttl: Duration::from_secs(config.cache.redis_ttl_seconds),
        }),
    };
    let documents = http::body::DOCUMENTS;
    let cache = Cache::new(settings, rule, metrics.clone(), documents.stock)?;
    let settings = inventory::Settings {
        follow: FollowSettings {
            poll_interval: millis(config.follow.poll_interval_ms),
            commits_max: config.follow.commits_max,
        },
        late_after: Duration::from_secs(config.transit.late_after_hours * 3_600),
        decide_wait_max: millis(config.commands.wait_max_ms),
        traces,
    };
    Ok(Inventory::new(
        store,
        cache,
        documents,
        clock.clone(),
        metrics,
        settings,
        audience,
    ))
}

/// Runs the parts until a signal, or until one of them cannot go on.
pub async fn serve(config: &Config, parts: Parts) -> Result<(), AppError> {
    let stop = stop_on_signal(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    config.keeps_strangers_out()?;
    let config = &with_open_files(config.clone());
    let listeners = Listeners {
        open: http::bind(&config.http.listen)?,
        admin: http::bind(&config.http.admin_listen)?,
    };
    let result = run(config, parts, listeners, stop).await;
    if let Err(error) = &result {
        tracing::error!(%error, "the service cannot go on");
    }
    result
}

/// Lets the process open as many files as its connections may need, and bounds these by what it is let: one that has no file left
/// reaches no server either.
fn with_open_files(mut config: Config) -> Config {
    let Config { http, live, .. } = &mut config;
    let wanted = http.connections_max + live.connections_max + OTHER_FILES;
    let allowed = open_files(wanted as u64).unwrap_or_else(|error| {
        tracing::warn!(%error, "how many files may be open is not known");
        wanted
    });
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than connections may need: raise the limit (ulimit -n, LimitNOFILE), or lower \
            http.connections_max and live.connections_max"
        );
        let most = allowed.saturating_sub(OTHER_FILES).max(1);
        for bound in [&mut http.connections_max, &mut live.connections_max] {
            *bound = most.min(*bound);
        }
    }
    config
}

/// Raises the bound of open files to what is wanted, as far as the process may; what it is then.
fn open_files(wanted: u64) -> nix::Result<usize> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.min(most);
    let allowed = if now < raised && setrlimit(Resource::RLIMIT_NOFILE, raised, most).is_ok() {
        raised
    } else {
        now
    };
    Ok(usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// Where a process is asked.
#[derive(Debug)]
pub struct Listeners {
    pub open: Vec<TcpListener>,
    /// Only for those who run the service; none: all of it is at the others.
    pub admin: Vec<TcpListener>,
}

/// Runs the parts on these sockets until told to leave, or until one of them cannot go on.
///
/// It leaves step by step: it is not ready any more, polls no more and finishes what its lanes have; after `http.lame_duck_ms`, when
/// load balancers send nobody here any more, sockets are closed and open requests finished; what these asked for is decided.
pub async fn run(
    config: &Config,
    parts: Parts,
    listeners: Listeners,
    leaves: CancellationToken,
) -> Result<(), AppError> {
    let leave = Leave {
        leaves,
        stops: CancellationToken::new(),
    };
    let stop = &leave.stops;
    let (clock, metrics) = (Clock::system(), Metrics::new()?);
    let (traces, exporting) = traces(config, &metrics)?;
    let hub = parts
        .answers
        .then(|| Arc::new(hub(config, &traces, &clock)));
    let (inventory, follower, decider) = inventory(
        config,
        &clock,
        metrics.clone(),
        Conditions::ALL,
        audience(hub.as_ref()),
        traces,
    )?;
    let tasks = TaskTracker::new();
    // What was taken over HTTP is decided before the decider ends.
    let (drained, is_broken) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    if parts.answers {
        look_after(config, &inventory, follower, &tasks, stop);
        tasks.spawn(decide(
            decider,
            drained.clone(),
            leave.clone(),
            Arc::clone(&is_broken),
        ));
    } else {
        // Nobody looks at commits that are handed over, or asks for anything.
        drop((follower, decider));
    }
    let live = hub.map(|hub| {
        tasks.spawn(Arc::clone(&hub).run(stop.clone()));
        Arc::new(live(config, hub, &clock, stop, &tasks, &metrics))
    });
    let ingest = parts
        .ingests
        .then(|| ingest(config, &inventory, &clock, &tasks, &leave.leaves))
        .transpose()?;

    let status = ingest.as_ref().map(|ingest| Arc::clone(&ingest.status));
    let access = guard(config, &inventory, &clock, &tasks, stop)?;
    let context = http_context(config, &inventory, &clock, access, live, status, &leave);
    tracing::info!(answers = parts.answers, ingests = parts.ingests, "starting");
    let identities = identities(config, &tasks, stop)?;
    let serving = serve_http(config, context, listeners, identities, metrics, &leave);
    tasks.spawn(async move {
        serving.await;
        drained.cancel();
    });
    tasks.close();

    // Nobody is sent to a process that does not answer.
    let lame_duck = parts
        .answers
        .then_some(config.http.lame_duck_ms)
        .map_or(Duration::ZERO, millis);
    let (result, ()) = tokio::join!(
        works(ingest, &leave.leaves),
        has_left(&leave, lame_duck, &tasks)
    );
    drop(tokio::join!(
        timeout(POOLS_STOP_MAX, inventory.store().close()),
        exporting.end()
    ));
    tracing::info!("stopped");
    if is_broken.load(Ordering::Relaxed) {
        return Err(AppError::Unhealthy("the decider ended".to_owned()));
    }
    Ok(result?)
}

/// Until the process leaves, or ingest has ended by itself: then it leaves, too.
async fn works(ingest: Option<Ingest>, leaves: &CancellationToken) -> Result<(), IngestError> {
    let result = if let Some(ingest) = ingest {
        ended(ingest.ended(), leaves).await
    } else {
        leaves.cancelled().await;
        Ok(())
    };
    leaves.cancel();
    result
}

/// Once the process leaves: stops it after its time as a lame duck, and waits until all of it has ended.
async fn has_left(leave: &Leave, lame_duck: Duration, tasks: &TaskTracker) {
    leave.leaves.cancelled().await;
    let ending = async {
        drop(timeout(lame_duck, leave.stops.cancelled()).await);
        leave.stops.cancel();
        tasks.wait().await;
    };
    if timeout(STOP_MAX, ending).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
}

/// The task that sends what is recorded, if something is.
#[derive(Default)]
struct Exporting(Option<(CancellationToken, JoinHandle<()>)>);

impl Exporting {
    /// Sends what is left, for a moment at most.
    async fn end(self) {
        let Some((ending, mut task)) = self.0 else {
            return;
        };
        ending.cancel();
        if timeout(traces::FLUSH_MAX, &mut task).await.is_err() {
            tracing::warn!("the last traces were not taken in time; they are lost");
            task.abort();
        }
    }
}

/// The way to record what happens, if there is somebody to send it to.
fn traces(config: &Config, metrics: &Metrics) -> Result<(Traces, Exporting), TracesError> {
    let settings = &config.traces;
    if !settings.are_on() {
        return Ok((Traces::default(), Exporting::default()));
    }
    let settings = traces::Settings {
        endpoint: settings.endpoint.clone(),
        sample_ratio: settings.sample_ratio,
        service_name: settings.service_name.clone(),
        scheme: config.http.scheme(),
        attributes: settings.attributes(),
        headers: settings.headers(),
    };
    let (traces, exporter) = Traces::new(&settings, metrics)?;
    let ending = CancellationToken::new();
    let task = tokio::spawn(exporter.run(ending.clone()));
    Ok((traces, Exporting(Some((ending, task)))))
}

fn hub(config: &Config, traces: &Traces, clock: &Clock) -> Hub {
    let hub = Hub::new(live_settings(config));
    if traces.are_on() {
        hub.recording(Pushes::new(traces.clone(), clock.clone()))
    } else {
        hub
    }
}

/// Decides until everything taken is decided. Without it the process is of no use: it ends if this does.
///
/// On a thread of its own, so that what the database answers does not wait behind the requests that are being read and answered:
/// one transaction at a time is what nearly all of them wait for.
async fn decide(
    decider: Decider,
    drained: CancellationToken,
    leave: Leave,
    is_broken: Arc<AtomicBool>,
) {
    let (has_ended, ended) = oneshot::channel();
    let deciding = thread::Builder::new()
        .name("decide".to_owned())
        .spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(decider.run(drained));
            // Nobody waits for it any more where the process gave up waiting.
            let _ = has_ended.send(());
            Ok::<_, io::Error>(())
        });
    if deciding.is_err() || ended.await.is_err() {
        tracing::error!("nothing is decided any more");
        is_broken.store(true, Ordering::Relaxed);
        leave.leaves.cancel();
        leave.stops.cancel();
    }
}

/// What a process that answers does beside answering: it follows, learns what is usual, and sums up.
fn look_after(
    config: &Config,
    inventory: &Arc<Inventory>,
    follower: Follower,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    tasks.spawn(follower.run(stop.clone()));
    tasks.spawn(Arc::clone(inventory).learn(stop.clone()));
    let every = Duration::from_secs(config.summary.refresh_seconds);
    tasks.spawn(Arc::clone(inventory).keep_summary(every, stop.clone()));
    look_for_differences(config, inventory, tasks, stop);
    let every = millis(config.reservations.sweep_interval_ms);
    tasks.spawn(Arc::clone(inventory).sweep(every, stop.clone()));
}

/// Compares the tables now and then, over a connection of its own.
fn look_for_differences(
    config: &Config,
    inventory: &Arc<Inventory>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let every = Duration::from_secs(config.verify.interval_seconds);
    if every.is_zero() {
        return;
    }
    match store_for_verify(config) {
        Ok(store) => {
            tasks.spawn(Arc::clone(inventory).check(store, every, stop.clone()));
        }
        Err(error) => tracing::warn!(%error, "the tables are not compared in the background"),
    }
}

/// Takes facts from Kafka, and looks after the room that they need.
fn ingest(
    config: &Config,
    inventory: &Arc<Inventory>,
    clock: &Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Ingest, IngestError> {
    tasks.spawn(keep_ledger_room(
        Arc::clone(inventory),
        config.database.ledger_partition_bytes_max,
        stop.clone(),
    ));
    Ingest::start(config, inventory, clock, stop.clone())
}

fn audience(hub: Option<&Arc<Hub>>) -> Arc<dyn Audience> {
    match hub {
        Some(hub) => Arc::clone(hub) as _,
        None => Arc::new(Nobody),
    }
}

/// What is shown at the doors of HTTPS: for everybody, and for those who run the service.
#[derive(Debug, Default)]
struct Identities {
    open: Option<Identity>,
    admin: Option<Identity>,
}

/// Reads the certificates, and the tasks that keep them current.
fn identities(
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Identities, TlsError> {
    let tls = &config.http.tls;
    if !tls.is_on() {
        return Ok(Identities::default());
    }
    let read = |client_ca: &str| {
        let identity = Identity::read(Files {
            certificate: tls.certificate.as_str().into(),
            key: tls.key.as_str().into(),
            client_ca: (!client_ca.is_empty()).then(|| client_ca.into()),
        })?;
        let every = Duration::from_secs(tls.refresh_seconds);
        let beat = Beat::at_once(every, stop.clone());
        tasks.spawn(keep_current(identity.clone(), beat));
        Ok::<_, TlsError>(identity)
    };
    let open = read("")?;
    let admin = if tls.admin_client_ca.is_empty() {
        open.clone()
    } else {
        read(&tls.admin_client_ca)?
    };
    Ok(Identities {
        open: Some(open),
        admin: Some(admin),
    })
}

async fn keep_current(identity: Identity, mut beat: Beat) {
    while beat.next().await {
        let identity = identity.clone();
        drop(spawn_blocking(move || identity.read_again()).await);
    }
}

/// Answers at every door until told to stop.
fn serve_http(
    config: &Config,
    context: http::Context,
    listeners: Listeners,
    identities: Identities,
    metrics: Metrics,
    leave: &Leave,
) -> impl Future<Output = ()> + use<> {
    let limits = http_limits(config, &context.clock);
    let settings = http_settings(config);
    let Listeners { open, admin } = listeners;
    for (listeners, is_admin) in [(&open, false), (&admin, true)] {
        for address in listeners.iter().filter_map(|l| l.local_addr().ok()) {
            tracing::info!(%address, scheme = config.http.scheme(), is_admin, "listening");
        }
    }
    let door = if admin.is_empty() {
        Door::Only
    } else {
        Door::Public
    };
    let routes = http::routes(context.clone(), &settings, door);
    let strangers = http::run(
        open,
        identities.open,
        routes,
        limits.clone(),
        metrics.clone(),
        leave.clone(),
    );
    let routes = http::routes(context, &settings, Door::Admin);
    let limits = http::Limits {
        connections_max: ADMIN_CONNECTIONS_MAX,
        connections_per_address_max: 0,
        newcomers: None,
        ..limits
    };
    let operators = http::run(
        admin,
        identities.admin,
        routes,
        limits,
        metrics,
        leave.clone(),
    );
    async {
        tokio::join!(strangers, operators);
    }
}

/// Who has to prove who they are, and the task that keeps the keys current.
fn guard(
    config: &Config,
    inventory: &Arc<Inventory>,
    clock: &Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Option<Arc<Access>>, AppError> {
    if !config.access.enabled {
        tracing::warn!(
            "access control is off: everybody who reaches this service may do everything (access.enabled)"
        );
        return Ok(None);
    }
    let store = inventory.store().clone();
    let access = Access::new(
        access_settings(config),
        store,
        clock.clone(),
        inventory.metrics(),
    );
    let access = Arc::new(access.map_err(AppError::Access)?);
    tasks.spawn(Arc::clone(&access).run(stop.clone()));
    Ok(Some(access))
}

fn access_settings(config: &Config) -> access::Settings {
    let (access, tokens) = (&config.access, &config.access.tokens);
    access::Settings {
        refresh_every: millis(access.refresh_ms),
        ticket_lasts: Duration::from_secs(access.ticket_seconds),
        tokens: tokens.are_taken().then(|| TokenSettings {
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.clone(),
            algorithms: tokens.algorithms.clone(),
            keys: tokens.keys.clone(),
            refresh_every: Duration::from_secs(tokens.refresh_seconds),
            leeway: Duration::from_secs(tokens.leeway_seconds),
            scope_claim: tokens.scope_claim.clone(),
            warehouses_claim: tokens.warehouses_claim.clone(),
        }),
    }
}

fn http_context(
    config: &Config,
    inventory: &Arc<Inventory>,
    clock: &Clock,
    access: Option<Arc<Access>>,
    live: Option<Arc<Live>>,
    status: Option<Arc<Status>>,
    leave: &Leave,
) -> http::Context {
    http::Context {
        inventory: Arc::clone(inventory),
        clock: clock.clone(),
        access,
        follows: live.is_some(),
        default_product: config.live.default_product.as_str().into(),
        ttl_default_seconds: config.reservations.ttl_default_seconds,
        ttl_max_seconds: config.reservations.ttl_max_seconds,
        order_ttl_seconds: Some(config.orders.ttl_seconds).filter(|seconds| *seconds > 0),
        default_warehouse: Code::stored(&config.orders.default_warehouse),
        live,
        leaves: leave.leaves.clone(),
        ingest_is_ready: status.map(|status| {
            Arc::new(move || status.has_partitions()) as Arc<dyn Fn() -> bool + Send + Sync>
        }),
    }
}

fn http_settings(config: &Config) -> http::Settings {
    http::Settings {
        allowed_origins: config.http.allowed_origins.clone(),
        body_bytes_max: config.http.body_bytes_max,
        request_timeout: millis(config.http.request_timeout_ms),
        rate: rate(
            config,
            config.http.requests_per_second,
            config.http.requests_burst,
        ),
    }
}

/// `None` where one of them is 0: then there is no limit.
fn rate(config: &Config, per_second: u32, burst: u32) -> Option<Rate> {
    let proxies = config.http.trusted_proxies.iter();
    Some(Rate {
        per_second: NonZeroU32::new(per_second)?,
        burst: NonZeroU32::new(burst)?,
        trusted_proxies: proxies.map(IpAddr::to_canonical).collect(),
    })
}

fn http_limits(config: &Config, clock: &Clock) -> http::Limits {
    let newcomers = rate(
        config,
        config.http.connections_per_second,
        config.http.connections_burst,
    );
    http::Limits {
        connections_max: config.http.connections_max,
        newcomers: newcomers.map(|rate| (rate, clock.clone())),
        connections_per_address_max: config.http.connections_per_address_max,
        tells_peers: config.http.requests_per_second > 0,
        header_timeout: millis(config.http.header_timeout_ms),
        drain_timeout: millis(config.http.drain_timeout_ms),
    }
}

fn live_settings(config: &Config) -> LiveSettings {
    let live = &config.live;
    LiveSettings {
        ring_items_max: live.ring_items_max,
        snapshot_bytes_max: live.snapshot_bytes_max,
        part_bytes_max: live.snapshot_part_bytes_max,
        heartbeat_every: millis(live.heartbeat_ms),
    }
}

fn live(
    config: &Config,
    hub: Arc<Hub>,
    clock: &Clock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    metrics: &Metrics,
) -> Live {
    let settings = &config.live;
    Live {
        hub,
        limits: http::live::Limits {
            connections_max: settings.connections_max,
            ping_every: millis(settings.ping_ms),
            pong_timeout: millis(settings.pong_timeout_ms),
            stalled_after: millis(settings.stalled_after_ms),
            close_timeout: millis(settings.close_timeout_ms),
        },
        allowed_origins: config.http.allowed_origins.clone(),
        clock: clock.clone(),
        stop: stop.clone(),
        tasks: tasks.clone(),
        open: Arc::default(),
        leaving: OnceLock::new(),
        metrics: metrics.clone(),
    }
}

/// Brings the schema up to date and makes the topics.
pub async fn migrate(config: &Config) -> Result<(), AppError> {
    let store = store_of_owner(config)?;
    store.migrate().await?;
    store.close().await;
    tracing::info!("the schema is current");
    for topic in kafka::make_topics(&config.kafka).await? {
        tracing::info!(topic, "made the topic");
    }
    Ok(())
}

/// Loads the demonstration's catalogue and stock.
pub async fn seed_demo(config: &Config) -> Result<Loaded, AppError> {
    let (inventory, _follower, decider) = inventory(
        config,
        &Clock::system(),
        Metrics::new()?,
        Conditions::ALL,
        Arc::new(Nobody),
        Traces::default(),
    )?;
    let stop = CancellationToken::new();
    let deciding = tokio::spawn(decider.run(stop.clone()));
    let loaded = demo::load(&inventory).await;
    stop.cancel();
    drop(deciding.await);
    inventory.store().close().await;
    Ok(loaded?)
}

/// The store as `verify` reads it: one connection, and slices that may take their time.
pub fn store_for_verify(config: &Config) -> Result<Store, AppError> {
    Ok(Store::new(&StoreSettings {
        read_connections_max: 1,
        scan_connections_max: 1,
        acquire_timeout: VERIFY_ACQUIRE_MAX,
        read_timeout: VERIFY_STATEMENT_MAX,
        ..store_settings(config)
    })?)
}

/// The store as who owns its tables works on it, not the role that serves.
pub fn store_of_owner(config: &Config) -> Result<Store, AppError> {
    Ok(Store::new(&StoreSettings {
        role: String::new(),
        read_connections_max: 1,
        scan_connections_max: 1,
        ..store_settings(config)
    })?)
}

fn store_settings(config: &Config) -> StoreSettings {
    StoreSettings {
        url: config.database.url.clone(),
        password: config.database.password.clone(),
        role: config.database.role.clone(),
        read_connections_max: config.database.read_connections_max,
        scan_connections_max: config.database.scan_connections_max,
        acquire_timeout: millis(config.database.acquire_timeout_ms),
        read_timeout: millis(config.database.read_timeout_ms),
        write_timeout: millis(config.database.write_timeout_ms),
    }
}

/// Asks a running service whether it is well: by the address's own host, or at another address, which has to show a certificate of that host
/// all the same. `ca`: who signed that; `None`: one whom this system trusts.
pub async fn healthcheck(url: &str, ca: Option<&Path>, at: Option<&str>) -> Result<(), AppError> {
    let unhealthy = |why: String| AppError::Unhealthy(format!("{url}: {why}"));
    let (is_encrypted, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => {
            return Err(unhealthy(
                "only http:// and https:// can be asked".to_owned(),
            ));
        }
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let trust = is_encrypted.then(|| tls::trust(ca)).transpose()?;
    let answer = timeout(HEALTHCHECK_MAX, async {
        let tls = trust.as_ref().map(|trust| (trust, host));
        let mut stream = tls::connect(at.unwrap_or(host), tls).await?;
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = answer
        .await
        .map_err(|_| unhealthy("no answer in time".to_owned()))?
        .map_err(|error| unhealthy(error.to_string()))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(unhealthy(
            answer.lines().next().unwrap_or("no answer").to_owned(),
        ))
    }
}

/// Ingest may end by itself; once told to stop it has its time to do so.
async fn ended(
    ingest: impl Future<Output = Result<(), IngestError>>,
    stop: &CancellationToken,
) -> Result<(), IngestError> {
    tokio::pin!(ingest);
    tokio::select! {
        result = &mut ingest => result,
        () = stop.cancelled() => timeout(INGEST_STOP_MAX, ingest).await.unwrap_or_else(|_| {
            tracing::warn!("ingest did not end in time; what it had taken comes again");
            Ok(())
        }),
    }
}

async fn keep_ledger_room(inventory: Arc<Inventory>, bytes_max: i64, stop: CancellationToken) {
    let mut beat = Beat::at_once(LEDGER_ROOM_INTERVAL, stop.clone());
    while beat.next().await {
        // First what was left at the last look: whoever drew a number of it before has used it by now.
        tokio::select! {
            () = stop.cancelled() => return,
            closed = inventory.store().close_ledger_range(CHECKPOINT_ROWS) => match closed {
                Ok(0) => {}
                Ok(steps) => tracing::info!(steps, "a full partition of the ledger is being closed"),
                Err(error) => tracing::warn!(%error, "a full partition of the ledger could not be closed"),
            }
        }
        if let Err(error) = inventory.store().make_ledger_room(bytes_max).await {
            tracing::warn!(%error, "room in the ledger could not be looked after");
        }
    }
}

/// Cancelled by the first of these signals; a second one ends the process at once.
pub fn stop_on_signal(kinds: &[SignalKind]) -> Result<CancellationToken, AppError> {
    let signals = kinds.iter().map(|kind| signal(*kind));
    let mut signals = signals
        .collect::<Result<Vec<_>, _>>()
        .map_err(AppError::Signals)?;
    let stop = CancellationToken::new();
    let (told, kinds) = (stop.clone(), kinds.to_vec());
    tokio::spawn(async move {
        let mut next = async || {
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            let (_, which, _) = select_all(any).await;
            kinds[which].as_raw_value()
        };
        next().await;
        tracing::info!("stopping");
        told.cancel();
        let number = next().await;
        tracing::warn!("stopped at once");
        // As shells tell of who was ended by a signal.
        std::process::exit(128 + number);
    });
    Ok(stop)
}

/// The configuration of this process.
pub fn configure(file: Option<&Path>) -> Result<Config, AppError> {
    Ok(Config::load(file)?)
}
