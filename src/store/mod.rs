//! `PostgreSQL`: the only state. One function per statement, arrays in, the order of locks stated.
//!
//! Invariants: nothing but this module names sqlx; a transaction that writes goes through [`writer::Writer`]; a read is
//! one statement, so what it returns is one moment of the database and carries the commit it is true as of.

pub mod access;
pub mod answers;
pub mod catalogue;
mod columns;
pub mod commits;
mod connections;
pub mod decided;
pub mod differences;
mod error;
mod explain;
pub mod feed;
pub mod history;
mod kinds;
mod lines;
pub mod listings;
pub mod movements;
pub mod orders;
mod past;
mod pg_time;
pub mod positions;
pub mod ranges;
pub mod reads;
pub mod rebuild;
pub mod reservations;
pub mod slices;
pub mod stock;
pub mod totals;
pub mod transit;
pub mod writer;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{Connection, migrate::Migrator, postgres::PgConnectOptions};
use tokio::time::timeout;

use connections::Connections;
pub use error::StoreError;
pub use pg_time::PgTime;
pub use reads::AsOf;

/// The schema, embedded.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// For statements about few rows that are found by their keys: planned once, for that, and not for each transaction. Planning one takes
/// longer than it does, and so would compiling it, or starting other processes for it, for the many rows that a plan for any values expects.
const PLANNED_ONCE: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
];
/// Above that for the follower, which joins a few commits to what stands under their numbers: always a look by a key for each. The tables
/// grow so fast that their statistics are old, and a planner that goes by them reads the whole ledger for ten commits (measured: 270 ms
/// on three processors at 0.8 million rows, where looks take 20).
const LOOKED_UP: [(&str, &str); 2] = [("enable_hashjoin", "off"), ("enable_mergejoin", "off")];
/// How often the server looks whether who asked is still there: a question that was given up ends with its connection.
const STILL_THERE_EVERY: &str = "250ms";
/// The one that looks; the one that listens is beside the pools.
const FOLLOW_CONNECTIONS: u32 = 1;
/// Longest the pools may take to close: a connection that answers nothing is left to the system.
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// A writer that stops between two steps holds its locks until the server ends it: the others' wait is this and the
/// time to roll back.
const WRITER_IDLE_MAX: &str = "2s";
/// Longest a writer waits for a lock: far above what a batch needs, and the batch is tried again.
const WRITER_LOCK_WAIT_MAX: &str = "10s";
/// A client that no longer takes what the server sends, in milliseconds.
const TCP_USER_TIMEOUT_MS: &str = "2000";
/// What a transaction of several reads begins with, so that they are of one moment. The tables that can be made anew are locked
/// before that moment is chosen: one that waited for its turn in the middle would find another table, as it was before.
const ONE_MOMENT: &str = "set transaction isolation level repeatable read, read only;
    lock table stock_levels, movements in access share mode";
/// What an address may say beyond the host, as the client library knows it.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// What an answer may take beyond the wait for a connection and the server's own limit, before its connection counts as
/// lost.
const ANSWER_SLACK: Duration = Duration::from_millis(500);

/// What the store needs to be told.
#[derive(Clone)]
pub struct StoreSettings {
    pub url: String,
    /// In place of the one in the URL; empty: that one.
    pub password: String,
    /// The role to serve as; empty for the one that logs in.
    pub role: String,
    pub read_connections_max: u32,
    pub scan_connections_max: u32,
    pub acquire_timeout: Duration,
    pub read_timeout: Duration,
    /// Longest one transaction of a writer, and on the server one statement of it.
    pub write_timeout: Duration,
}

/// The way to the database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// For few rows, found by their keys.
    reads: Connections,
    /// For what looks through much: it holds up nobody who asks for little.
    scans: Connections,
    /// The follower's own: a flood of reads must not keep it from vouching for the cache.
    follow: Connections,
    /// What the follower knows of levels.
    keys: Arc<feed::Keys>,
    login: PgConnectOptions,
    serving: PgConnectOptions,
    reading: PgConnectOptions,
    /// Longest a question that is read may stay without an answer.
    answer_max: Duration,
    write_timeout: Duration,
    /// What this process is called among the database's clients.
    name: String,
}

/// Who logs in where. A parameter that nobody knows is refused by its name: left alone, the library would log it with its value, and that
/// may be a password under a misspelt name.
fn login(settings: &StoreSettings) -> Result<PgConnectOptions, StoreError> {
    let (_, query) = settings.url.split_once('?').unwrap_or_default();
    let names = query
        .split('&')
        .filter_map(|pair| pair.split('=').next())
        .filter(|name| !name.is_empty());
    for name in names {
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            let why = format!("it has no parameter {name}");
            return Err(StoreError::Address(why));
        }
    }
    let login: PgConnectOptions = settings.url.parse()?;
    Ok(match settings.password.as_str() {
        "" => login,
        password => login.password(password),
    })
}

/// Without the password, which the options hold.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Connects when first used, so that a service can start before its database.
    pub fn new(settings: &StoreSettings) -> Result<Self, StoreError> {
        let name = format!("stockyard {:08x}", rand::random::<u32>());
        let login = login(settings)?.application_name(&name);
        let serving = match settings.role.as_str() {
            "" => login.clone(),
            role => login.clone().options([("role", role)]),
        };
        let read_timeout = format!("{}ms", settings.read_timeout.as_millis());
        let reading = serving.clone().options([
            ("statement_timeout", read_timeout.as_str()),
            ("client_connection_check_interval", STILL_THERE_EVERY),
        ]);
        let connections = |options, max| Connections::new(options, max, settings.acquire_timeout);
        let keyed = reading.clone().options(PLANNED_ONCE);
        let looked_up = keyed.clone().options(LOOKED_UP);
        let reads = connections(keyed, settings.read_connections_max)?;
        let scans = connections(reading.clone(), settings.scan_connections_max)?;
        let follow = connections(looked_up, FOLLOW_CONNECTIONS)?;
        Ok(Self {
            reads,
            scans,
            follow,
            keys: Arc::default(),
            login,
            serving,
            reading,
            answer_max: settings.acquire_timeout + settings.read_timeout + ANSWER_SLACK,
            write_timeout: settings.write_timeout,
            name,
        })
    }

    /// A connection of its own that writes.
    pub fn writer(&self) -> writer::Writer {
        self.writer_with(self.write_timeout, &[])
    }

    /// One for few rows at a time, found by their keys. The server ends one of them after so long: who gives a try up then is not held up by it.
    pub fn hasty_writer(&self, statement_max: Duration) -> writer::Writer {
        self.writer_with(statement_max, &PLANNED_ONCE)
    }

    fn writer_with(&self, statement_max: Duration, more: &[(&str, &str)]) -> writer::Writer {
        let statement_timeout = format!("{}ms", statement_max.as_millis());
        let options = [
            ("idle_in_transaction_session_timeout", WRITER_IDLE_MAX),
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", WRITER_LOCK_WAIT_MAX),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
        ];
        let serving = self.serving.clone().options(options);
        writer::Writer::new(serving.options(more.iter().copied()))
    }

    /// Longest one transaction of a writer may take before its connection counts as lost: the server has limits of its
    /// own, so this is for one that cannot be heard any more.
    pub fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// The answer to a question, or that there was none in time: a connection can be dead and nobody is told, and then the
    /// limits that the server keeps are of no use.
    pub async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.answer_max, question)
            .await
            .unwrap_or(Err(StoreError::NoAnswer(self.answer_max)))
    }

    /// Brings the schema up to date, as the owner.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        use sqlx::ConnectOptions;
        let mut connection = Box::pin(self.login.connect()).await?;
        MIGRATOR.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Whether the database answers and its schema is that of this program or a later one.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let newest = MIGRATOR.iter().map(|migration| migration.version).max();
        let applied =
            sqlx::query_scalar!("select max(version) from _sqlx_migrations where success")
                .fetch_one(&self.reads)
                .await?;
        Ok(applied >= newest)
    }

    /// The server's version, as it calls itself.
    pub async fn server_version(&self) -> Result<String, StoreError> {
        let version =
            sqlx::query_scalar!(r#"select current_setting('server_version') as "version!""#)
                .fetch_one(&self.scans)
                .await?;
        Ok(version)
    }

    /// Most connections for the same kind of read.
    pub fn read_connections_max(&self) -> u32 {
        self.reads.max().max(self.scans.max())
    }

    /// Read connections: (all, idle ones).
    pub fn read_connections(&self) -> (usize, usize) {
        let (reads, scans) = (self.reads.count(), self.scans.count());
        (reads.0 + scans.0, reads.1 + scans.1)
    }

    /// Every pool: its name, all connections, idle ones, and the most there may be.
    pub fn pools(&self) -> [(&'static str, usize, usize, u32); 3] {
        let pools = [
            ("read", &self.reads),
            ("scan", &self.scans),
            ("follow", &self.follow),
        ];
        pools.map(|(name, pool)| {
            let (all, idle) = pool.count();
            (name, all, idle, pool.max())
        })
    }

    pub async fn close(&self) {
        let all =
            async { tokio::join!(self.reads.close(), self.scans.close(), self.follow.close()) };
        drop(timeout(CLOSE_MAX, all).await);
    }
}
