//! `PostgreSQL`: the only state. One function per statement, arrays in, the order of locks stated.
//!
//! Invariants: nothing but this module names sqlx; a transaction that writes goes through [`writer::Writer`]; a read is
//! one statement, so what it returns is one moment of the database and carries the commit it is true as of.

mod columns;
pub mod commits;
mod error;
mod pg_time;
pub mod positions;
pub mod reads;
pub mod slices;
pub mod writer;

use std::time::Duration;

use sqlx::{
    Connection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

pub use error::StoreError;
pub use pg_time::PgTime;

/// The schema, embedded.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// One that listens, one that looks.
const FOLLOW_CONNECTIONS: u32 = 2;
/// Longest a connection that comes back may take to say that it is well.
const RELEASE_CHECK_MAX: Duration = Duration::from_secs(1);
/// Longest the pools may take to close: a connection that answers nothing is left to the system.
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// A writer that stops between two steps holds its locks until the server ends it: the others' wait is this and the
/// time to roll back.
const WRITER_IDLE_MAX: &str = "2s";
/// Longest one statement of a writer, and longest it waits for a lock: far above what a batch needs, and the batch is
/// tried again.
const WRITER_STATEMENT_MAX: &str = "30s";
const WRITER_LOCK_WAIT_MAX: &str = "10s";
/// A client that no longer takes what the server sends, in milliseconds.
const TCP_USER_TIMEOUT_MS: &str = "2000";

/// What the store needs to be told.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub url: String,
    /// The role to serve as; empty for the one that logs in.
    pub role: String,
    pub read_connections_max: u32,
    pub acquire_timeout: Duration,
    pub read_timeout: Duration,
}

/// The way to the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reads: PgPool,
    /// The follower's own: a flood of reads must not keep it from vouching for the cache.
    follow: PgPool,
    login: PgConnectOptions,
    serving: PgConnectOptions,
    /// What this process is called among the database's clients.
    name: String,
}

impl Store {
    /// Connects when first used, so that a service can start before its database.
    pub fn new(settings: &StoreSettings) -> Result<Self, StoreError> {
        let name = format!("stockyard {:08x}", rand::random::<u32>());
        let login: PgConnectOptions = settings
            .url
            .parse::<PgConnectOptions>()?
            .application_name(&name);
        let serving = match settings.role.as_str() {
            "" => login.clone(),
            role => login.clone().options([("role", role)]),
        };
        let read_timeout = format!("{}ms", settings.read_timeout.as_millis());
        let reading = serving
            .clone()
            .options([("statement_timeout", read_timeout.as_str())]);
        let pool = |connections_max| {
            PgPoolOptions::new()
                .max_connections(connections_max)
                .acquire_timeout(settings.acquire_timeout)
                // A read on a connection that went stale is tried once more instead.
                .test_before_acquire(false)
                // A query that was given up may have left a connection that answers nothing: it must not hold its place.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        match timeout(RELEASE_CHECK_MAX, connection.ping()).await {
                            Ok(answer) => answer.map(|()| true),
                            Err(_) => Err(sqlx::Error::PoolTimedOut),
                        }
                    })
                })
                .connect_lazy_with(reading.clone())
        };
        let (reads, follow) = (
            pool(settings.read_connections_max),
            pool(FOLLOW_CONNECTIONS),
        );
        Ok(Self {
            reads,
            follow,
            login,
            serving,
            name,
        })
    }

    /// A connection of its own that writes.
    pub fn writer(&self) -> writer::Writer {
        writer::Writer::new(self.serving.clone().options([
            ("idle_in_transaction_session_timeout", WRITER_IDLE_MAX),
            ("statement_timeout", WRITER_STATEMENT_MAX),
            ("lock_timeout", WRITER_LOCK_WAIT_MAX),
            ("tcp_user_timeout", TCP_USER_TIMEOUT_MS),
        ]))
    }

    /// Brings the schema up to date, as the owner.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        use sqlx::ConnectOptions;
        let mut connection = self.login.connect().await?;
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

    /// Makes sure the ledger has a partition for the batches to come.
    pub async fn make_ledger_room(&self, partition_bytes_max: i64) -> Result<(), StoreError> {
        sqlx::query!("select stock_ledger_make_room($1)", partition_bytes_max)
            .execute(&self.reads)
            .await?;
        Ok(())
    }

    /// Most read connections.
    pub fn read_connections_max(&self) -> u32 {
        self.reads.options().get_max_connections()
    }

    /// Read connections: (all, idle ones).
    pub fn read_connections(&self) -> (u32, usize) {
        (self.reads.size(), self.reads.num_idle())
    }

    pub async fn close(&self) {
        let both = async { tokio::join!(self.reads.close(), self.follow.close()) };
        drop(timeout(CLOSE_MAX, both).await);
    }
}
